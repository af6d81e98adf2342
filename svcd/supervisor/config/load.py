"""The whole road from files to a validated cluster; every problem on the way is reported, all at once.

Must not be imported by the daemon: it brings the YAML reader.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from collections.abc import Mapping as Environment
from collections.abc import Sequence as Listing
from pathlib import Path
from typing import Any, Final

from svcd.record import entity, field, replace
from svcd.supervisor.config import graph
from svcd.supervisor.config.addresses import Resolved, check_shared_targets, check_sockets, free_port
from svcd.supervisor.config.as_written import plain_service
from svcd.supervisor.config.block import Block, ShapeError
from svcd.supervisor.config.errors import Findings, Mark
from svcd.supervisor.config.launch import ClusterSpec, ServiceDefinition, address
from svcd.supervisor.config.layers import with_defaults
from svcd.supervisor.config.leaves import NAME, NAME_RULE
from svcd.supervisor.config.resolve import resolve
from svcd.supervisor.config.runtime import check_own_environment
from svcd.supervisor.config.service_source import OnRuntime, ServiceSource, Surroundings
from svcd.supervisor.config.shape import MAX_INSTANCES, Cluster, Service
from svcd.supervisor.config.sources import Gathered, gather
from svcd.supervisor.config.templates import PORT, mentions, substituted
from svcd.supervisor.config.tree import Mapping, Node, Scalar, Sequence, as_texts, kind_of, plain
from svcd.supervisor.config.units import near_miss
from svcd.supervisor.config.wording import add_findings

Running = Callable[[str], ClusterSpec | None]
"""The plan of the cluster of that name, if it runs."""

NOT_PASSED_ON: Final = frozenset(
    ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")
)
"""What a service manager says to svcd itself (sd_notify(3), sd_listen_fds(3)): nothing for a service to answer."""

_PORT_TRIES: Final = 1000
_NO_PORT: Final = 1


def load(
    files: Listing[Path | str],
    environ: Environment[str, str],
    *,
    profiles: Listing[str] = (),
    scales: Environment[str, int] | None = None,
    ports: Environment[str, int] | None = None,
    held: frozenset[str] = frozenset(),
    running: Running | None = None,
    among: ClusterSpec | None = None,
    free_port: Callable[[], int] = free_port,
    on_runtime: OnRuntime | None = None,
) -> ClusterSpec:
    """The cluster that ``files`` describe, the later ones laid over the earlier, each over what it includes.

    ``environ``: the environment that services start from, and where ``${VAR}`` is looked up. ``profiles``: those that
    are chosen. ``scales``: service -> number of instances, in place of the file's. ``ports``: full name -> the port
    that it keeps as {port}; others get one from ``free_port``. ``held``: addresses (as ``launch.address`` says them)
    that svcd listens on already. ``running``: asked for the cluster once its name is known; its ports and its numbers
    of instances are kept, as are its profiles where none are given, and its addresses are held. ``among``: a cluster
    whose other services ``files`` may depend on, and leave as they are. ``on_runtime``: told the
    ``runtime.Setting``s of each Python service, for those who want to know where they come from. Raises
    ``ConfigurationError`` with every problem that was found, in reading order.
    """
    environ = dict(environ)  # os.environ decodes each time that it is read
    findings = Findings()
    gathered = gather(files, environ, findings)
    around = _surroundings(findings, gathered, environ)
    if on_runtime is not None:
        around.on_runtime = on_runtime
    reading = _Reading(findings, gathered, tuple(profiles), dict(scales or {}), free_port, around, among)
    check_own_environment(environ, findings)
    reading.shape_cluster()
    if running is not None and reading.cluster is not None:
        here = running(reading.name)
        if here is not None:
            held |= reading.keep(here)
    reading.ports.update(ports or {})
    services = reading.services(held)
    findings.raise_if_any(gathered.names)
    cluster = reading.cluster
    assert cluster is not None
    return ClusterSpec(
        name=reading.name,
        files=tuple(os.path.abspath(each) for each in files),
        services=tuple(services),
        max_parallel=cluster.max_parallel,
        controller_timeout_s=cluster.controller_timeout,
        environ=environ,
        profiles=reading.profiles,
        scales=reading.scales,
    )


def ports_of(cluster: ClusterSpec) -> dict[str, int]:
    """What {port} stands for in the services of a cluster, for ``load(ports=…)``."""
    return {each.spec.name: each.launch.port for each in cluster.services if each.launch.port is not None}


def addresses_of(cluster: ClusterSpec) -> frozenset[str]:
    """What svcd listens on for a cluster, for ``load(held=…)``."""
    return frozenset(address(spec) for each in cluster.services for spec in each.launch.sockets)


def profiles_of(service: Mapping) -> list[str]:
    """The profiles with which it is there."""
    node = service.entries.get("profiles")
    items = node.items if isinstance(node, Sequence) else [node]
    return [each.value for each in items if isinstance(each, Scalar) and isinstance(each.value, str)]


def is_chosen(service: Mapping, profiles: Listing[str]) -> bool:
    """Whether it is there with ``profiles``; a service that names none always is."""
    written = profiles_of(service)
    return not written or not set(written).isdisjoint(profiles)


@entity
class _Reading:
    """One run of ``load`` over what was gathered. ``ports``: full name -> {port}, filled as ports are chosen.
    ``merged``: the services over the defaults; None for what is no mapping. ``asks_for_profiles``: they were named by
    whoever wants the files read, so one that nobody has is a mistake.
    """

    findings: Findings
    gathered: Gathered
    profiles: tuple[str, ...]
    scales: dict[str, int]
    free_port: Callable[[], int]
    around: Surroundings
    among: ClusterSpec | None = None
    asks_for_profiles: bool = True
    ports: dict[str, int] = field(default_factory=dict)
    cluster: Cluster | None = None
    merged: dict[str, Mapping | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        named = self.cluster.cluster if self.cluster is not None else None
        return named or os.path.basename(self.gathered.directories[self._first])

    @property
    def _first(self) -> str:
        return next(iter(self.gathered.directories))  # the first that was named; what it includes comes later

    @property
    def _written(self) -> frozenset[str]:
        """The names of all services that the files have."""
        services = self.gathered.root.entries.get("services")
        return frozenset(services.entries) if isinstance(services, Mapping) else frozenset()

    @property
    def _others(self) -> list[ServiceDefinition]:
        """What runs beside the services of the files, and stays."""
        found, written = self.among.services if self.among is not None else (), self._written
        return [each for each in found if each.service not in written]

    def keep(self, running: ClusterSpec) -> frozenset[str]:
        """Let ports, scales and profiles be as they are in ``running``; returns the addresses that are its own."""
        self.ports.update(ports_of(running))
        if not self.profiles:
            self.profiles, self.asks_for_profiles = running.profiles, False
        for name in self._written & running.scales.keys():
            self.scales.setdefault(name, running.scales[name])  # one that the files have no longer is forgotten
        others = frozenset(each.spec.name for each in self._others)
        own = tuple(each for each in running.services if each.spec.name not in others)
        return addresses_of(replace(running, services=own))

    def shape_cluster(self) -> None:
        """Everything but the services."""
        root, findings = self.gathered.root, self.findings
        services = root.entries.get("services")
        top = {key: _plain_top(key, node) for key, node in root.entries.items() if node is not services}
        if services is not None:
            top["services"] = {} if isinstance(services, Mapping) else plain(services)
        self.cluster, _ = _shape(Cluster, top, root, (), findings)
        unnamed = self.cluster is not None and self.cluster.cluster is None and "cluster" not in root.entries
        if unnamed and self.among is None:
            _check_directory_name(self.gathered.directories[self._first], self._first, findings)

    def services(self, held: frozenset[str]) -> list[ServiceDefinition]:
        services, findings = self.gathered.root.entries.get("services"), self.findings
        if not isinstance(services, Mapping):
            return []
        if not services.entries:
            text, suggestion = "names no service", "add one, such as web: {command: [python3, server.py]}"
            findings.add(services.mark, "services", text, suggestion)
        self.merged = {name: self._merge(name, node, services) for name, node in services.entries.items()}
        hidden = self._hidden()
        self._check_scales()
        for name, merged in self.merged.items():
            if name not in hidden:
                self.around.names[name] = self._names(name, merged)
        for each in self._others:
            self.around.names[each.service] = (*self.around.names.get(each.service, ()), each.spec.name)
        sources = {name: self._source(name, services, 0) for name in self.merged}
        chosen = {name: source for name, source in sources.items() if name not in hidden}
        resolved = [
            each for source in chosen.values() if source is not None for each in self._resolve(source, services)
        ]
        check_sockets(resolved, held)
        graph.check(self._vertices(services, chosen), findings, hidden)
        if hidden and not chosen and not findings:
            self._add_none_chosen(services)
        return [definition for _, definition in resolved]

    # -- one service -----------------------------------------------------------------------------------------------

    def _merge(self, name: str, node: Node, services: Mapping) -> Mapping | None:
        """The service over the defaults, or None when there is nothing to go on with (which is recorded)."""
        findings = self.findings
        if not NAME.fullmatch(name):
            mark = services.key_marks[name]
            findings.add(mark, "services", f'"{name[:80]}" cannot be the name of a service', f"use {NAME_RULE}")
        if not isinstance(node, Mapping):
            text = f"must be a mapping, not {kind_of(plain(node))}"
            findings.add(node.mark, f"services.{name}", text, f"write one such as {Service.example}")
            return None
        return with_defaults(self.around.defaults, node) if self.around.defaults is not None else node

    def _names(self, name: str, node: Mapping | None) -> tuple[str, ...]:
        """The full names of its instances: NAME alone, unless there are several or a scale is in force."""
        written = plain(node.entries["instances"]) if node is not None and "instances" in node.entries else 1
        count = self.scales.get(name, written)
        if name not in self.scales and count == 1:
            return (name,)
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_INSTANCES:
            return (name,)  # reported by its shape, or as a scale
        return tuple(f"{name}.{index}" for index in range(count))

    def _source(self, name: str, services: Mapping, instance: int) -> ServiceSource | None:
        """What is written for one instance; None when that has no shape at all (which is recorded)."""
        node = self.merged[name]
        if node is None:
            return None
        names = self.around.names.get(name, (name,))
        port = self._port(names[instance], node) if mentions(node, PORT) else None
        own = services.entries[name]
        assert isinstance(own, Mapping)
        specific = substituted(node, instance, port)
        block, bad = _shape(Service, plain_service(specific), specific, ("services", name), self.findings)
        if block is None:
            return None
        return ServiceSource(name, specific, own, services.key_marks[name], block, bad, instance, port)

    def _port(self, full_name: str, node: Mapping) -> int:
        """The same as before, or one that nothing in this cluster has."""
        if full_name not in self.ports:
            taken = set(self.ports.values())
            try:
                tries = (self.free_port() for _ in range(_PORT_TRIES))
                self.ports[full_name] = next(port for port in tries if port not in taken)
            except (OSError, StopIteration) as error:
                text = f"cannot find a free port for {full_name}: {error or 'all are taken'}"
                self.findings.add(node.mark, "", text, "end what holds the ports")
                return _NO_PORT
        return self.ports[full_name]

    def _resolve(self, first: ServiceSource, services: Mapping) -> list[Resolved]:
        """A definition for each instance; when the first is wrong the others are not looked at."""
        notes, definition = resolve(first, self.around)
        if definition is None:
            return []
        names = self.around.names[first.name]
        merged = self.merged[first.name]
        assert merged is not None
        resolved = [(notes, definition)]
        for index, name in enumerate(names[1:], 1):
            if substituted(merged, index, 0) is merged:  # nothing in it tells its instances apart
                spec = replace(definition.spec, name=name)
                resolved.append((notes, replace(definition, spec=spec, instance=index)))
                continue
            source = self._source(first.name, services, index)
            other = resolve(source, self.around) if source is not None else None
            if other is None or other[1] is None:
                return []
            resolved.append((other[0], other[1]))
        if len(resolved) > 1:
            check_shared_targets(resolved[0], resolved[1])
        return resolved

    # -- all services ----------------------------------------------------------------------------------------------

    def _hidden(self) -> dict[str, tuple[str, str]]:
        """The services that are not chosen, with why and how to mend it; profiles that nobody has are recorded."""
        hidden, known = {}, set[str]()
        for name, node in self.merged.items():
            written = profiles_of(node) if node is not None else []
            known.update(written)
            if node is not None and not is_chosen(node, self.profiles):
                word = "profile" if len(written) == 1 else "profiles"
                text = f"{name} is there only with the {word} {' or '.join(written)}"
                hidden[name] = (text, f"choose it with --profile {written[0]}, or remove this")
        for profile in self.profiles:
            if profile not in known and self.asks_for_profiles:
                near = near_miss(profile, known) or (
                    f"there are {', '.join(sorted(known))}" if known else "choose none"
                )
                self.findings.add(Mark(self._first), "", f"no service has the profile {profile}", near)
        return hidden

    def _add_none_chosen(self, services: Mapping) -> None:
        known = sorted({each for node in self.merged.values() if node is not None for each in profiles_of(node)})
        text = f"each of them belongs to a profile ({', '.join(known)}), and none of these is chosen"
        self.findings.add(services.mark, "services", text, f"choose one, such as --profile {known[0]}")

    def _check_scales(self) -> None:
        for name, count in self.scales.items():
            if name not in self.merged:
                near = near_miss(name, self.merged) or "name one of the services"
                self.findings.add(Mark(self._first), "", f"there is no service {name} to scale", near)
            elif not 1 <= count <= MAX_INSTANCES:
                text, suggestion = (
                    f"cannot be scaled to {count}",
                    f"use 1 to {MAX_INSTANCES}; svcd stop {name} stops it",
                )
                self.findings.add(Mark(self._first), f"services.{name}", text, suggestion)

    def _vertices(self, services: Mapping, chosen: dict[str, ServiceSource | None]) -> dict[str, graph.Vertex]:
        """Every name is a vertex, so that a service with a mistake in it is not called missing as well."""
        nothing = Mapping(services.mark, {}, {})
        vertices = {
            each.service: graph.Vertex(
                {}, each.spec.type, nothing, None, each.spec.health is not None, len(self.around.names[each.service])
            )
            for each in self._others
        }
        for name, source in chosen.items():
            if source is None:
                vertices[name] = graph.Vertex({}, None, services.entries[name])
                continue
            block, bad = source.block, source.bad
            vertices[name] = graph.Vertex(
                block.depends_on,
                None if "type" in bad else block.type,
                source.node,
                block.fallback,
                None if "health" in bad else block.health is not None,
                len(self.around.names[name]),
                block.permissions.services,
            )
        return vertices


def _shape(
    block: type[Any], values: dict[str, Any], node: Node, prefix: tuple[str, ...], findings: Findings
) -> tuple[Any, frozenset[str]]:
    """The block, without those of its keys that are wrong (which are recorded and returned)."""
    assert issubclass(block, Block)
    bad: set[str] = set()
    while True:
        try:
            return block.read(values), frozenset(bad)
        except ShapeError as error:
            found = add_findings(error, node, block, prefix, bad, findings)
            if not found & values.keys():
                return None, frozenset(bad | found)
            bad |= found
            values = {key: item for key, item in values.items() if key not in found}


def _surroundings(findings: Findings, gathered: Gathered, environ: dict[str, str]) -> Surroundings:
    passed_on = {name: value for name, value in environ.items() if name not in NOT_PASSED_ON}
    return Surroundings(findings, passed_on, gathered.directories, _mapping(gathered.root.entries.get("defaults")))


def _plain_top(key: str, node: Node) -> Any:
    if key == "cluster" and isinstance(node, Scalar):
        return as_texts(node)
    if key == "defaults" and isinstance(node, Mapping):
        return plain_service(substituted(node, 0, 1))
    return plain(node)


def _mapping(node: Node | None) -> Mapping | None:
    return node if isinstance(node, Mapping) else None


def _check_directory_name(directory: str, file: str, findings: Findings) -> None:
    name = os.path.basename(directory)
    if not NAME.fullmatch(name):
        text = f'is missing, and the name of the directory ("{name}") cannot take its place'
        findings.add(Mark(file, 1, 1), "cluster", text, f"write cluster: NAME ({NAME_RULE})")
