"""Changes of configuration that clients ask for: what they would do, and having the core do it.

Must not read configuration files (whoever asks has, and sends the validated result), nor decide in what order services
go: the core does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from svcd.protocol import messages, vocabulary
from svcd.protocol.errors import ErrorCode
from svcd.record import replace
from svcd.supervisor.config import plan
from svcd.supervisor.config.launch import ClusterSpec, ServiceDefinition
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.changing.handovers import Handovers
from svcd.supervisor.controller.changing.rollouts import Rollout, Rollouts
from svcd.supervisor.controller.clients.requests import Requests
from svcd.supervisor.controller.control import Control, Peer
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core import events
from svcd.supervisor.core.errors import CoreError
from svcd.supervisor.core.machine import Machine
from svcd.supervisor.core.preview import GONE, Step, Verb
from svcd.supervisor.core.spec import Dependency
from svcd.supervisor.core.wishes import words_of

APPLY: Final = "apply of "
IN_PLACE: Final = "a new version takes over in place"


class Changes:
    """Receives the messages in ``receivers``. ``in_force``: where the plan that is in force is kept."""

    def __init__(
        self,
        control: Control,
        machine: Machine,
        registry: Registry,
        requests: Requests,
        in_force: Path,
        handovers: Handovers,
    ) -> None:
        self._handovers = handovers
        self._rollouts = Rollouts(machine, registry, handovers)
        self._control = control
        self._machine = machine
        self._registry = registry
        self._requests = requests
        self._in_force = in_force
        self.receivers: dict[type, Callable[[Peer, bytes, Any], None]] = {
            messages.ApplyConfiguration: self._apply,
            messages.UnregisterServices: self._unregister,
            messages.UpdateServices: self._update,
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
        own = self._rollouts.about_to_be()  # a change of one service leaves an update of another alone
        if given.name != own.name:
            text = f"cannot apply: this is cluster {own.name}, the configuration is for {given.name}"
            self._requests.refuse(peer, correlation, ErrorCode.REFUSED, text)
            return
        if (wrong := _malformed(message, given)) is not None:
            self._requests.refuse(peer, correlation, ErrorCode.MALFORMED, wrong)
            return
        if message.mode == "register":
            target, cause = _with(own, given.services), f"registration of {_names(given.services)}"
        elif message.mode == "update":
            target, cause = _updated(own, given, frozenset(message.services))
        else:
            target, cause = given, APPLY + " ".join(map(os.path.basename, given.files))
        self._bring_to(target, cause, peer, correlation, message.dry_run)

    def _update(self, peer: Peer, correlation: bytes, message: messages.UpdateServices) -> None:
        """These alone: in place where that can be, the others as an apply would."""
        own = self._rollouts.about_to_be()
        try:
            given = plan.from_json(message.plan.encode())
        except plan.PlanError as error:
            self._requests.refuse(peer, correlation, ErrorCode.MALFORMED, str(error))
            return
        as_apply = messages.ApplyConfiguration(message.plan, "update", message.services)
        if (wrong := _malformed(as_apply, given)) is not None:
            self._requests.refuse(peer, correlation, ErrorCode.MALFORMED, wrong)
            return
        target, cause = _updated(own, given, frozenset(message.services))
        named = [each for each in target.services if {each.spec.name, _service(each)} & {*message.services}]
        self._bring_to(target, cause, peer, correlation, False, named, message.force)

    def take_in(self, definition: ServiceDefinition) -> None:
        """A run of this definition is the service now: it is what is in force."""
        own = self._registry.cluster
        name = definition.spec.name
        services = tuple(definition if each.spec.name == name else each for each in own.services)
        target = replace(own, services=services)
        self._registry.change(target)
        _write(self._in_force, plan.to_json(target))

    def _unregister(self, peer: Peer, correlation: bytes, message: messages.UnregisterServices) -> None:
        child = self._child_among(message.services)
        if child is not None:
            text = (
                f"cannot unregister {child.spec.name}: it is a child of {child.spec.parent}, and goes with it; "
                f"svcd stop {child.spec.name} stops it"
            )
            self._requests.refuse(peer, correlation, ErrorCode.REFUSED, text)
            return
        lone = next((each for each in message.services if not self._siblings(each) <= {*message.services}), None)
        if lone is not None:
            service = self._registry[lone].service
            text = f"{lone} is one instance: name the service, {service}, or change their number with svcd scale"
            self._requests.refuse(peer, correlation, ErrorCode.MALFORMED, text)
            return
        cause = f"removal of {_names(map(self._registry.newest, message.services))}"
        own, gone = self._rollouts.about_to_be(), frozenset(message.services)
        target = replace(own, services=tuple(each for each in own.services if each.spec.name not in gone))
        self._bring_to(target, cause, peer, correlation, False)

    def _child_among(self, names: Iterable[str]) -> ServiceDefinition | None:
        """The first of these names that a child has."""
        found = (self._registry.get(name) for name in names)
        return next((each for each in found if each is not None and each.spec.parent is not None), None)

    def _siblings(self, name: str) -> set[str]:
        """All instances of the service, this one among them; nothing for what is on its way out already."""
        definition = self._registry.get(name)
        return set() if definition is None else {*self._registry.instances[definition.service or name]}

    def _bring_to(
        self,
        target: ClusterSpec,
        cause: str,
        peer: Peer,
        correlation: bytes,
        dry_run: bool,
        in_place: Sequence[ServiceDefinition] = (),
        forced: bool = False,
    ) -> None:
        """``in_place``: who gets a successor where that can be, beside those that their file says it of."""
        child = self._child_among(name for each in target.services for name in (each.spec.name, _service(each)))
        if child is not None:
            text = f"cannot apply: {child.spec.parent} has created a service of the name {child.spec.name}"
            self._requests.refuse(peer, correlation, ErrorCode.REFUSED, text)
            return
        try:
            rollout = self._rollouts.plan(target, cause, in_place)
        except CoreError as error:
            self._requests.refuse(peer, correlation, ErrorCode.REFUSED, str(error))
            return
        self._control.send(peer.route, correlation, _report(rollout, cause))
        if dry_run:
            return
        if self._machine.is_ending:
            text = "cannot apply: the cluster is shutting down"
            self._requests.refuse(peer, correlation, ErrorCode.REFUSED, text)
            return
        self._carry_out(rollout, peer, correlation, forced)

    def _carry_out(self, rollout: Rollout, peer: Peer, correlation: bytes, forced: bool) -> None:
        """The core's part, then the successors; one answer for all."""
        self._registry.change(rollout.first)
        _write(self._in_force, plan.to_json(rollout.first))
        event, in_place = rollout.event, rollout.in_place

        def at_once(key: str) -> events.Event:
            assert event is not None
            return replace(event, at=clock.now(), request=key)

        if not in_place:
            self._requests.accept(peer, correlation, at_once)
            return
        first = None if event is None else at_once
        self._handovers.begin(in_place, forced, self._requests.accepted(peer, correlation), first)


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


# ---- configurations made of two -------------------------------------------------------------------------------------


def _updated(own: ClusterSpec, given: ClusterSpec, names: frozenset[str]) -> tuple[ClusterSpec, str]:
    """What is in force, with ``names`` as they are given now; and what to call that."""
    taken = [each for each in given.services if each.spec.name in names or _service(each) in names]
    target = _with(own, taken)
    services = dict.fromkeys(map(_service, taken))
    scaled = {name: given.scales[name] for name in services if name in given.scales}
    is_scale = any(own.scales.get(name) != count for name, count in scaled.items())
    cause = f"{'scaling' if is_scale else 'update'} of {_names(taken)}"
    return replace(target, scales={**own.scales, **scaled}), cause


def _with(own: ClusterSpec, taken: Sequence[ServiceDefinition]) -> ClusterSpec:
    """``own`` with these services, which take the place of those with the same name: who depended on all instances of
    such a one does so again.
    """
    moved: dict[str, tuple[str, ...]] = {}
    for each in taken:
        moved[_service(each)] = (*moved.get(_service(each), ()), each.spec.name)
    owners = {each.spec.name: _service(each) for each in own.services if _service(each) in moved}
    kept = (_following(each, owners, moved) for each in own.services if each.spec.name not in owners)
    return replace(own, services=_in_order(own, (*kept, *taken)))


def _following(
    each: ServiceDefinition, owners: Mapping[str, str], moved: Mapping[str, tuple[str, ...]]
) -> ServiceDefinition:
    """``each``, with edges to the instances that there are now in place of those that led to ``owners``."""
    spec = each.spec
    if spec.fallback not in owners and not any(edge.target in owners for edge in spec.dependencies):
        return each
    edges: dict[str, Dependency] = {}
    for edge in spec.dependencies:
        service = owners.get(edge.target)
        targets = (edge.target,) if service is None else moved[service]
        group = edge.group if service is None or targets == (edge.target,) else service
        for target in targets:
            edges.setdefault(target, replace(edge, target=target, group=None if target == group else group))
    fallback = spec.fallback and moved[owners[spec.fallback]][0] if spec.fallback in owners else spec.fallback
    return replace(each, spec=replace(spec, dependencies=tuple(edges.values()), fallback=fallback))


def _service(each: ServiceDefinition) -> str:
    return each.service or each.spec.name


def _names(definitions: Iterable[ServiceDefinition]) -> str:
    return words_of(dict.fromkeys(map(_service, definitions)))


def _in_order(own: ClusterSpec, services: Iterable[ServiceDefinition]) -> tuple[ServiceDefinition, ...]:
    """Services keep their places in ``own``, with their instances in order; new ones come last."""
    places: dict[str, int] = {}
    for index, each in enumerate(own.services):
        places.setdefault(_service(each), index)

    def place(each: ServiceDefinition) -> tuple[int, int]:
        return places.get(_service(each), len(own.services)), each.instance

    return tuple(sorted(services, key=place))


def _report(rollout: Rollout, cause: str) -> messages.PlanReported:
    """The steps, and why: what changed, and what ends by a word of its own (a removal, a scaling) because of that."""
    keys = {each.name: ", ".join(each.keys) + " changed" for each in rollout.comparison.changed}
    is_by_files = cause.startswith(APPLY)

    def why(step: Step) -> str:
        return keys.get(step.service, cause if step.why == GONE and not is_by_files else step.why)

    at_once = (messages.Step(each.verb.value, each.service, why(each)) for each in rollout.steps)
    names = (each.spec.name for each in rollout.in_place)
    whys = {name: "; ".join(filter(None, (keys.get(name), IN_PLACE))) for name in names}
    later = (messages.Step(Verb.UPDATE.value, name, text) for name, text in whys.items())
    return messages.PlanReported((*at_once, *later))


def _write(path: Path, data: bytes) -> None:
    """Replace the file as a whole."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(data)
    os.replace(new, path)
