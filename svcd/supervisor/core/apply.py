"""A change of configuration: what is added, changed and removed, all of it or nothing; and what it would do.

Must not compare configurations (the shell knows what a process is made of): it is told what changed and what needs a
restart. Edges follow the new configuration at once, so that no circle of old and new ones can form; only what a running
process relies on is kept for it until it ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from svcd.supervisor.core import events, graph
from svcd.supervisor.core.actions import ForgetService
from svcd.supervisor.core.cluster import Cluster
from svcd.supervisor.core.endings import Endings
from svcd.supervisor.core.errors import CoreError
from svcd.supervisor.core.requests import Intent, Request
from svcd.supervisor.core.runs import Runs
from svcd.supervisor.core.spec import Dependency, DependencyKind, ServiceSpec, StartMode
from svcd.supervisor.core.states import State
from svcd.supervisor.core.unit import Edge, Mark, Unit
from svcd.supervisor.core.wishes import ASKED, Wishes

CHANGED: Final = "restarted for its new configuration"
REMOVED: Final = "removed from the configuration"
GAVE_UP: Final = frozenset({State.FAILED, State.UNAVAILABLE})


class Verb(Enum):
    """What a change does to one service."""

    STOP = "stop"
    REMOVE = "remove"
    UPDATE = "update"  # adopted without a restart
    ADD = "add"
    START = "start"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class Step:
    verb: Verb
    service: str
    why: str


class Apply:
    def __init__(self, cluster: Cluster, runs: Runs, endings: Endings, wishes: Wishes) -> None:
        self._cluster = cluster
        self._runs = runs
        self._endings = endings
        self._wishes = wishes

    # ---- doing it ----

    def apply(self, event: events.ConfigurationApplied) -> None:
        cluster = self._cluster
        named = [each.spec.name for each in event.changed] + list(event.removed)
        if self._wishes.admit(event.request, "apply", named) is None:
            return
        try:
            self._check(event)
        except CoreError as error:
            self._wishes.refuse(event.request, str(error))
            return
        cluster.begin(event.cause)
        removed = [cluster.units[name] for name in event.removed]
        changed = [(cluster.units[each.spec.name], each) for each in event.changed]
        added = [Unit(spec, cluster.at) for spec in event.added]
        for unit in added:
            cluster.units[unit.name] = unit
        restarted = [unit for unit, change in changed if self._take_in(unit, change, removed)]
        for unit in added:
            graph.connect(cluster.units, unit)
            cluster.touch(unit)
        for unit in restarted:
            cluster.requests.overtake(unit.name, Intent.RESTART, f"the {event.cause}", cluster.out)
        intents = {unit.name: Intent.RESTART for unit in restarted}
        self._open(event, added, [unit for unit, _ in changed], removed, intents)
        for unit in restarted:
            self._endings.mark(unit, Mark.RESTART, CHANGED, f"{unit.name} is {CHANGED}")

    def _check(self, event: events.ConfigurationApplied) -> None:
        specs = (*event.added, *(each.spec for each in event.changed))
        replaced = {each.spec.name for each in event.changed}
        graph.check(self._cluster.units, specs, replaced, frozenset(event.removed))

    def _take_in(self, unit: Unit, change: events.SpecChange, removed: list[Unit]) -> bool:
        """Make the new spec the unit's own, now or when its run has ended; returns whether it is to be restarted."""
        cluster = self._cluster
        run = unit.run
        lost = [edge.target for edge in _lost(unit, change.spec) if edge.target in removed]
        restarts = run is not None and (change.needs_restart or bool(lost))
        unit.next_spec = change.spec
        was_eager = unit.spec.start is StartMode.EAGER
        self._reconnect(unit, change.spec)
        if run is None or not restarts:
            watched = (unit.spec.health, unit.spec.watchdog_s)
            cluster.adopt(unit)
            if run is not None and (change.needs_new_checks or watched != (unit.spec.health, unit.spec.watchdog_s)):
                self._runs.watch_anew(unit, run)
        if run is None and unit.state in (*GAVE_UP, State.BACKOFF) and unit.up:
            unit.record.clear()
            unit.again, unit.reason = True, "its configuration has changed"
            cluster.enlist(unit)
        if change.spec.start is StartMode.EAGER and not was_eager and not unit.held_back:
            self._wishes.wake_for(unit, ASKED)
            unit.asked = True
        if restarts and run is not None and not run.doomed:
            run.borrowed.extend(self._keep(unit, lost))
        return restarts and unit.up

    def _reconnect(self, unit: Unit, spec: ServiceSpec) -> None:
        """The edges of the new spec in place of the old one's; those that a run has borrowed stay."""
        cluster = self._cluster
        borrowed = frozenset(unit.run.borrowed if unit.run is not None else ())
        for edge in [each for each in unit.outgoing if each not in borrowed]:
            graph.cut(edge)
            cluster.touch(edge.target)
        if unit.fallback is not None:
            cluster.touch(unit.fallback)
            unit.fallback.covers.pop(unit, None)
            unit.fallback = None
        graph.connect_to(cluster.units, unit, spec)
        cluster.touch(unit)
        ending = next((edge.target for edge in unit.outgoing if graph.relies(edge) and edge.target.doomed), None)
        if ending is not None:
            text = f"requires {ending.name} from now on, which is about to stop"
            self._endings.mark(unit, Mark.DEPENDENCY, text, text)

    @staticmethod
    def _keep(unit: Unit, lost: list[Unit]) -> list[Edge]:
        """Its process still relies on what is being removed: that ends after it, unless it leads back to it."""
        kept = []
        for target in lost:
            if unit not in graph.closure([target]):
                kept.append(graph.borrow(unit, target, Dependency(target.name)))
        return kept

    def _open(
        self,
        event: events.ConfigurationApplied,
        added: list[Unit],
        changed: list[Unit],
        removed: list[Unit],
        intents: dict[str, Intent],
    ) -> None:
        """Begin with the starts and the removals, and wait for all of it."""
        cluster, wishes = self._cluster, self._wishes
        eager = {unit.name: unit for unit in added if unit.spec.start is StartMode.EAGER}
        eager.update((name, cluster.units[name]) for name in event.start)
        up = [unit for unit in changed if unit.up and not unit.removed]
        needed = {
            edge.target.name: edge.target
            for unit in up
            for edge in unit.outgoing
            if _pulls(edge) and not edge.target.up
        }
        also = wishes.wake_all(eager) if eager else ()
        for unit in needed.values():
            wishes.wake_for(unit, f"needed by {next(iter(unit.incoming)).dependent.name}")
        for unit in removed:
            unit.removed = True
            cluster.requests.overtake(unit.name, Intent.REMOVAL, f"the removal of {unit.name}", cluster.out)
            wishes.put_down(unit, REMOVED)
        intents.update((unit.name, Intent.REMOVAL) for unit in removed)
        goals = {unit.name: unit for unit in (*eager.values(), *removed)}
        goals.update((name, cluster.units[name]) for name in intents)
        request = Request(event.request, Intent.START, tuple(goals), also, intents)
        wishes.open(request, goals.values())

    def forget(self, unit: Unit) -> None:
        """A removed unit whose run is over leaves the graph."""
        cluster = self._cluster
        cluster.leave_queue(unit)
        cluster.cancel(unit, *events.TimerKind)
        for edge in unit.incoming:
            cluster.touch(edge.dependent)
        for edge in unit.outgoing:
            cluster.touch(edge.target)
        graph.isolate(unit)
        del cluster.units[unit.name]
        cluster.forget(unit)
        cluster.out.append(ForgetService(unit.name))
        cluster.requests.gone(unit.name, cluster.out)

    # ---- saying what it would do ----

    def preview(self, event: events.ConfigurationApplied) -> tuple[Step, ...]:
        """The steps of a change, in order, without taking one.

        Raises:
            CoreError: it cannot be applied
        """
        self._check(event)
        units = self._cluster.units
        specs = {name: unit.newest for name, unit in units.items() if name not in event.removed}
        specs.update((each.name, each) for each in event.added)
        specs.update((each.spec.name, each.spec) for each in event.changed)
        removed = [units[name] for name in event.removed]
        gone = frozenset(removed)
        lost = {
            each.spec.name
            for each in event.changed
            if any(edge.target in gone for edge in _lost(units[each.spec.name], each.spec))
        }
        restarted = [
            units[each.spec.name]
            for each in event.changed
            if units[each.spec.name].run is not None and (each.needs_restart or each.spec.name in lost)
        ]
        down = self._down(removed, restarted)
        moved = {step.service for step in down}
        updated = [each.spec.name for each in event.changed if each.spec.name not in moved]
        steps = [*down, *(Step(Verb.UPDATE, name, "takes effect without a restart") for name in updated)]
        return (*steps, *self._up(event, specs, [step.service for step in down if step.verb is Verb.RESTART]))

    @staticmethod
    def _down(removed: list[Unit], restarted: list[Unit]) -> list[Step]:
        steps = []
        order = graph.stop_order([*removed, *restarted])
        going = set(order)
        for unit in order:
            if unit in removed:
                why = "no longer in the configuration"
                verb = Verb.STOP if unit.run is not None else Verb.REMOVE
                steps.append(Step(verb, unit.name, why))
            elif unit in restarted:
                steps.append(Step(Verb.RESTART, unit.name, "its configuration has changed"))
            else:
                why = next((edge.target.name for edge in unit.outgoing if edge.hard and edge.target in going), "others")
                steps.append(Step(Verb.RESTART, unit.name, f"requires {why}"))
        return steps

    def _up(self, event: events.ConfigurationApplied, specs: dict[str, ServiceSpec], back: list[str]) -> list[Step]:
        """What starts that did not run before, dependencies first."""
        units = self._cluster.units
        eager = [each.name for each in event.added if each.start is StartMode.EAGER]
        up = [each.spec.name for each in event.changed if units[each.spec.name].up]
        eager += [
            each.spec.name
            for each in event.changed
            if each.spec.start is StartMode.EAGER
            and units[each.spec.name].spec.start is not StartMode.EAGER
            and not units[each.spec.name].held_back
        ]
        roots = [*eager, *event.start, *up]
        added = {each.name for each in event.added}
        steps = []
        seen: set[str] = set()
        for name in _order(roots, specs):
            if name in seen or name in back:
                continue
            seen.add(name)
            if name in added:
                why = "new" if name in eager or name in event.start else f"new, needed by {_user(name, specs, roots)}"
                steps.append(Step(Verb.START, name, why))
            elif name in units and not units[name].up:
                why = "asked to run" if name in roots else f"needed by {_user(name, specs, roots)}"
                steps.append(Step(Verb.START, name, why))
        steps += [Step(Verb.ADD, name, "new; not started by itself") for name in added if name not in seen]
        return steps


def _lost(unit: Unit, spec: ServiceSpec) -> list[Edge]:
    """What its present run relies on and its new spec does without: not where another instance does as well."""
    groups = {each.group for each in spec.dependencies if each.group is not None}
    return [edge for edge in unit.outgoing if edge.hard and edge.spec.group not in groups]


def _pulls(edge: Edge) -> bool:
    return edge.spec.kind is not DependencyKind.AFTER


def _order(roots: list[str], specs: dict[str, ServiceSpec]) -> list[str]:
    """The roots and what they need, dependencies first."""
    order: list[str] = []
    seen: set[str] = set()
    for root in roots:
        path = [(root, iter(specs[root].dependencies))] if root not in seen else []
        seen.add(root)
        while path:
            name, rest = path[-1]
            for each in rest:
                if each.kind is not DependencyKind.AFTER and each.target not in seen and each.target in specs:
                    seen.add(each.target)
                    path.append((each.target, iter(specs[each.target].dependencies)))
                    break
            else:
                order.append(name)
                path.pop()
    return order


def _user(name: str, specs: dict[str, ServiceSpec], roots: list[str]) -> str:
    """Somebody who needs it: a root if there is one."""
    users = [each.name for each in specs.values() if any(edge.target == name for edge in each.dependencies)]
    return next((user for user in users if user in roots), next(iter(users), "others"))
