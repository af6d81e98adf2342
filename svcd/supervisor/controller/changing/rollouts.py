"""What a change of configuration comes to: what the core is told at once, and who gets a successor after that.

Must not do any of it, nor decide what the core's part means to services: it is asked for a preview.

A service is replaced in place where its file says so (``update: hot``) or somebody has asked for it, and where that can
be: it runs, what it requires does, and nothing else of the same change moves it. Until its successor is the service,
its old definition is what is in force: a restart brings back what is known to run.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Final

from svcd.record import record, replace
from svcd.supervisor.config.compare import Comparison, compare
from svcd.supervisor.config.launch import ClusterSpec, ServiceDefinition
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.changing.handovers import Handovers
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core import events
from svcd.supervisor.core.machine import Machine
from svcd.supervisor.core.preview import Step
from svcd.supervisor.core.spec import DependencyKind, StartMode
from svcd.supervisor.core.states import State

MET: Final = frozenset({State.RUNNING, State.PAUSED, State.COMPLETED})


@record
class Rollout:
    """``first`` is in force at once, by ``event`` (None: the core has nothing to do); then those ``in_place`` have
    their turns. ``steps``: of the event. ``comparison``: of all.
    """

    first: ClusterSpec
    event: events.ConfigurationApplied | None
    steps: tuple[Step, ...]
    in_place: tuple[ServiceDefinition, ...]
    comparison: Comparison


class Rollouts:
    def __init__(self, machine: Machine, registry: Registry, handovers: Handovers) -> None:
        self._machine = machine
        self._registry = registry
        self._handovers = handovers

    def about_to_be(self) -> ClusterSpec:
        """What is in force once the updates that go on have succeeded."""
        own = self._registry.cluster
        return replace(own, services=tuple(self._handovers.to_come(each.spec.name) or each for each in own.services))

    def plan(self, target: ClusterSpec, cause: str, named: Sequence[ServiceDefinition] = ()) -> Rollout:
        """``named``: who gets a successor where that can be, changed or not.

        Raises:
            CoreError: it cannot be applied
        """
        comparison = compare(self.about_to_be(), target)
        candidates = {each.spec.name: each for each in (*named, *self._hot(comparison), *self._under_way(comparison))}
        able = {name: each for name, each in candidates.items() if self._handovers.can_take_over(each)}
        in_place = {name: each for name, each in able.items() if not self._relies_on_removed(name, comparison)}
        while True:
            event = _event(comparison, cause, in_place)
            steps = self._machine.preview(event)
            moved = {step.service for step in steps} & in_place.keys()
            if not moved:
                break
            in_place = {name: each for name, each in in_place.items() if name not in moved}
        is_needed = bool(event.added or event.changed or event.removed) or not in_place
        first = self._at_once(target, {each.spec.name for each in event.changed}, in_place)
        return Rollout(first, event if is_needed else None, steps, tuple(in_place.values()), comparison)

    def _hot(self, comparison: Comparison) -> Iterable[ServiceDefinition]:
        """Whose file says so. What could be done for who is named, and is refused, is a restart here."""
        added = {each.spec.name for each in comparison.added if each.spec.start is StartMode.EAGER}
        for each in comparison.changed:
            has_children = bool(self._registry.children_of(each.name))
            if each.needs_restart and each.new.launch.hot_update and not has_children and self._is_met(each.new, added):
                yield each.new

    def _under_way(self, comparison: Comparison) -> Iterable[ServiceDefinition]:
        """Who is just being updated, and is to be different in what its process does not notice: again after that."""
        for each in comparison.changed:
            if not each.needs_restart and self._handovers.to_come(each.name) is not None:
                yield each.new

    def _is_met(self, definition: ServiceDefinition, added: set[str]) -> bool:
        """What it requires runs, or will when its turn comes."""
        services = self._machine.services
        return all(
            edge.target in added or (edge.target in services and services[edge.target].state in MET)
            for edge in definition.spec.dependencies
            if edge.kind is DependencyKind.REQUIRES
        )

    def _relies_on_removed(self, name: str, comparison: Comparison) -> bool:
        old = self._registry.newest(name).spec
        gone = {each.spec.name for each in comparison.removed}
        return old.fallback in gone or any(edge.target in gone for edge in old.dependencies)

    def _at_once(self, target: ClusterSpec, changed: Container[str], in_place: Container[str]) -> ClusterSpec:
        """``target``, with the present definitions of those that are being updated, or will be."""
        own = {each.spec.name: each for each in self._registry.cluster.services}

        def at_once(each: ServiceDefinition) -> ServiceDefinition:
            name = each.spec.name
            is_to_come = name in in_place or (name not in changed and self._handovers.to_come(name) is not None)
            return own[name] if is_to_come else each

        return replace(target, services=tuple(map(at_once, target.services)))


def _event(comparison: Comparison, cause: str, in_place: Container[str]) -> events.ConfigurationApplied:
    return events.ConfigurationApplied(
        clock.now(),
        "",
        cause=cause,
        added=tuple(each.spec for each in comparison.added),
        changed=tuple(
            events.SpecChange(each.new.spec, each.needs_restart, "health" in each.keys)
            for each in comparison.changed
            if each.name not in in_place
        ),
        removed=tuple(each.spec.name for each in comparison.removed),
    )
