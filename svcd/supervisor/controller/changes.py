"""Changes of configuration that clients ask for: what they would do, and having the core do it.

Must not read configuration files (whoever asks has, and sends the validated result), nor decide in what order services
go: the core does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from svcd.protocol import messages, vocabulary
from svcd.protocol.errors import ErrorCode
from svcd.supervisor.config import plan
from svcd.supervisor.config.compare import Change, Comparison, compare
from svcd.supervisor.config.launch import ClusterSpec, ServiceDefinition
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.control import Control, Peer
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.controller.requests import Requests
from svcd.supervisor.core import apply, events
from svcd.supervisor.core.errors import CoreError
from svcd.supervisor.core.machine import Machine

EDGES_ALONE = frozenset({"depends_on"})


class Changes:
    """Receives the messages in ``receivers``. ``in_force``: where the plan that is in force is kept."""

    def __init__(
        self, control: Control, machine: Machine, registry: Registry, requests: Requests, in_force: Path
    ) -> None:
        self._control = control
        self._machine = machine
        self._registry = registry
        self._requests = requests
        self._in_force = in_force
        self.receivers: dict[type, Callable[[Peer, bytes, Any], None]] = {
            messages.ApplyConfiguration: self._apply,
            messages.UnregisterServices: self._unregister,
            messages.GetConfiguration: self._get_configuration,
        }

    def _get_configuration(self, peer: Peer, correlation: bytes, message: messages.GetConfiguration) -> None:
        cluster = self._registry.cluster
        text = plan.to_json(cluster).decode("ascii")
        report = messages.ConfigurationReported(cluster.files, text, cluster.profiles, cluster.scales)
        self._control.send(peer.route, correlation, report)

    def _apply(self, peer: Peer, correlation: bytes, message: messages.ApplyConfiguration) -> None:
        try:
            given = plan.from_json(message.plan.encode())
        except plan.PlanError as error:
            self._requests.refuse(peer, correlation, ErrorCode.MALFORMED, str(error))
            return
        own = self._registry.cluster
        if given.name != own.name:
            text = f"cannot apply: this is cluster {own.name}, the configuration is for {given.name}"
            self._requests.refuse(peer, correlation, ErrorCode.REFUSED, text)
            return
        if (wrong := _malformed(message, given)) is not None:
            self._requests.refuse(peer, correlation, ErrorCode.MALFORMED, wrong)
            return
        if message.mode == "register":
            target = merged(own, given.services)
        elif message.mode == "update":
            target = self._updated(own, given, frozenset(message.services))
        else:
            target = given
        self._bring_to(target, peer, correlation, message.dry_run)

    def _unregister(self, peer: Peer, correlation: bytes, message: messages.UnregisterServices) -> None:
        lone = next((each for each in message.services if not self._siblings(each) <= {*message.services}), None)
        if lone is not None:
            service = self._registry[lone].service
            text = f"{lone} is one instance: name the service, {service}, or change their number with svcd scale"
            self._requests.refuse(peer, correlation, ErrorCode.MALFORMED, text)
            return
        self._bring_to(self._registry.without(message.services), peer, correlation, False)

    def _siblings(self, name: str) -> set[str]:
        """All instances of the service, this one among them; nothing for what is on its way out already."""
        definition = self._registry.get(name)
        return set() if definition is None else {*self._registry.instances[definition.service or name]}

    @staticmethod
    def _updated(own: ClusterSpec, given: ClusterSpec, names: frozenset[str]) -> ClusterSpec:
        """What is in force, with ``names`` as they are given now; the edges of others that lead to these follow."""

        def concerned(each: ServiceDefinition) -> bool:
            return each.spec.name in names or each.service in names

        taken = [each for each in given.services if concerned(each)]
        kept = [each for each in own.services if not concerned(each)]
        follow = {
            change.name: change.new
            for change in compare(own, given).changed
            if frozenset(change.keys) == EDGES_ALONE and not concerned(change.new)
        }
        services = _in_order(own, (*(follow.get(each.spec.name, each) for each in kept), *taken))
        scales = {**own.scales, **{name: count for name, count in given.scales.items() if name in names}}
        return replace(own, services=services, scales=scales)

    def _bring_to(self, target: ClusterSpec, peer: Peer, correlation: bytes, dry_run: bool) -> None:
        comparison = compare(self._registry.cluster, target)
        event = _event(comparison, "")
        try:
            steps = self._machine.preview(event)
        except CoreError as error:
            self._requests.refuse(peer, correlation, ErrorCode.REFUSED, str(error))
            return
        self._control.send(peer.route, correlation, _report(steps, comparison.changed))
        if dry_run:
            return
        if self._machine.is_ending:
            text = "cannot apply: the cluster is shutting down"
            self._requests.refuse(peer, correlation, ErrorCode.REFUSED, text)
            return
        self._registry.change(target)
        _write(self._in_force, plan.to_json(target))
        self._requests.accept(peer, correlation, lambda key: replace(event, at=clock.now(), request=key))


def _malformed(message: messages.ApplyConfiguration, given: ClusterSpec) -> str | None:
    """What is wrong with the request itself, if anything."""
    if message.mode not in vocabulary.APPLY_MODES:
        return f"cannot apply: the mode {message.mode!r} is not one of {', '.join(vocabulary.APPLY_MODES)}"
    if message.mode == "update":
        known = {each.spec.name for each in given.services} | {each.service for each in given.services}
        missing = [name for name in message.services if name not in known]
        if missing or not message.services:
            what = f"the configuration has no service {missing[0]!r}" if missing else "an update names its services"
            return f"cannot apply: {what}"
    return None


def merged(own: ClusterSpec, services: Iterable[ServiceDefinition]) -> ClusterSpec:
    """``own``, with these added, or in the place of those with the same name."""
    given = {each.spec.name: each for each in services}
    groups = {each.service for each in given.values() if each.service}
    kept = [each for each in own.services if each.spec.name not in given and each.service not in groups]
    return replace(own, services=_in_order(own, (*kept, *given.values())))


def _in_order(own: ClusterSpec, services: Iterable[ServiceDefinition]) -> tuple[ServiceDefinition, ...]:
    """Services keep their places in ``own``, with their instances in order; new ones come last."""
    places: dict[str, int] = {}
    for index, each in enumerate(own.services):
        places.setdefault(each.service or each.spec.name, index)

    def place(each: ServiceDefinition) -> tuple[int, int]:
        return places.get(each.service or each.spec.name, len(own.services)), each.instance

    return tuple(sorted(services, key=place))


def _event(comparison: Comparison, request: str) -> events.ConfigurationApplied:
    return events.ConfigurationApplied(
        clock.now(),
        request,
        added=tuple(each.spec for each in comparison.added),
        changed=tuple(
            events.SpecChange(each.new.spec, each.needs_restart, "health" in each.keys) for each in comparison.changed
        ),
        removed=tuple(each.spec.name for each in comparison.removed),
    )


def _report(steps: Iterable[apply.Step], changed: Iterable[Change]) -> messages.PlanReported:
    keys = {each.name: ", ".join(each.keys) + " changed" for each in changed}
    return messages.PlanReported(
        tuple(messages.Step(each.verb.value, each.service, keys.get(each.service, each.why)) for each in steps)
    )


def _write(path: Path, data: bytes) -> None:
    """Replace the file as a whole."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(data)
    os.replace(new, path)
