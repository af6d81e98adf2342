"""A change of configuration: what is added, changed and removed, all of it or nothing.

Must not compare configurations (the shell knows what a process is made of): it is told what changed and what needs a
restart. Edges follow the new configuration at once, so that no circle of old and new ones can form; only what a running
process relies on is kept for it until it ends.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Final

from svcd.record import record
from svcd.supervisor.core import checks, events, graph
from svcd.supervisor.core.actions import CeaseAwaitingDemand, ForgetService
from svcd.supervisor.core.cluster import Cluster
from svcd.supervisor.core.endings import Endings
from svcd.supervisor.core.errors import CoreError
from svcd.supervisor.core.requests import Intent, Request
from svcd.supervisor.core.spec import Dependency, ServiceSpec, StartMode
from svcd.supervisor.core.states import State
from svcd.supervisor.core.unit import Edge, Mark, Unit
from svcd.supervisor.core.watching import Watching
from svcd.supervisor.core.wishes import Wishes

CHANGED: Final = "restarted for its new configuration"
REMOVED: Final = "removed from the configuration"
REMOVED_CHILD: Final = "removed by its parent"
HAS_CHANGED: Final = "its configuration has changed"
RETRIED: Final = frozenset({State.FAILED, State.UNAVAILABLE, State.BACKOFF})


@record
class Change:
    """What a change of configuration means for the units that there are. Lists are in the order in which they came.

    ``stale``: with a process that does not do any more. ``restarted``: of these, what is up. ``reloaded``: of these,
    what is loaded ahead of time.
    ``retried``: given up, or in backoff, and not about to run again anyway; the new configuration may do better.
    ``woken``: eager from now on, and not up.
    ``relied_on``: unit -> what its process relies on and is being removed.
    """

    changed: dict[Unit, events.SpecChange]
    removed: list[Unit]
    stale: list[Unit]
    restarted: list[Unit]
    reloaded: list[Unit]
    retried: list[Unit]
    woken: list[Unit]
    relied_on: dict[Unit, list[Unit]]


def read(units: dict[str, Unit], missed: Mapping[str, Iterable[Unit]], event: events.ConfigurationApplied) -> Change:
    """See what a change means, without changing anything.

    Raises:
        CoreError: it cannot be applied
    """
    replaced = {each.spec.name for each in event.changed}
    checks.check(units, (*event.added, *(each.spec for each in event.changed)), replaced, event.removed, missed)
    changed = {units[each.spec.name]: each for each in event.changed}
    removed = [units[name] for name in dict.fromkeys(event.removed)]
    lost = {unit: _lost(unit, each.spec, frozenset(removed)) for unit, each in changed.items()}
    outdated = [
        unit for unit, each in changed.items() if each.needs_restart or lost[unit] or unit.next_spec is not None
    ]
    stale = [unit for unit in outdated if unit.run is not None]
    return Change(
        changed=changed,
        removed=removed,
        stale=stale,
        restarted=[unit for unit in stale if unit.up],
        reloaded=[unit for unit in stale if not unit.up and unit.run is not None and unit.run.held],
        retried=[unit for unit in changed if unit.run is None and unit.up and not unit.again and unit.state in RETRIED],
        woken=[unit for unit, each in changed.items() if _is_woken(unit, each)],
        relied_on={unit: targets for unit, targets in lost.items() if targets},
    )


def _lost(unit: Unit, spec: ServiceSpec, removed: frozenset[Unit]) -> list[Unit]:
    """What its process relies on and is being removed: not where another instance of the same service does as well."""
    if not unit.leaning:
        return []
    groups = {each.group for each in spec.dependencies if each.group is not None}
    return [
        edge.target for edge in unit.outgoing if edge.hard and edge.target in removed and edge.spec.group not in groups
    ]


def _is_woken(unit: Unit, change: events.SpecChange) -> bool:
    becomes_eager = change.spec.start is StartMode.EAGER and unit.newest.start is not StartMode.EAGER
    return becomes_eager and not (unit.up or unit.held_back)


def _is_due(unit: Unit, change: Change, named: Container[str]) -> bool:
    """It waits for a run that will be the first of the new configuration."""
    waits = unit.up and unit.run is None and unit.state is State.WAITING
    return waits and change.changed[unit].needs_restart and unit.name not in named


class Apply:
    def __init__(self, cluster: Cluster, endings: Endings, watching: Watching, wishes: Wishes) -> None:
        self._cluster = cluster
        self._endings = endings
        self._watching = watching
        self._wishes = wishes

    def apply(self, event: events.ConfigurationApplied) -> None:
        added = {each.name for each in event.added}
        named = [*(each.spec.name for each in event.changed), *event.removed]
        if (
            self._wishes.admit(event.request, "apply", [*named, *(each for each in event.start if each not in added)])
            is None
        ):
            return
        try:
            change = read(self._cluster.units, self._cluster.missed, event)
        except CoreError as error:
            self._wishes.refuse(event.request, str(error))
            return
        self._cluster.begin(event.cause)
        new = self._connect(event, change)
        self._adopt(change)
        self._begin(event, change, new)

    def look_at(self, spec: ServiceSpec) -> Change:
        """What this spec means in the place of the one that its service has, which does not end for it.

        Raises:
            CoreError: it cannot be applied
        """
        change = events.SpecChange(spec, needs_restart=False, needs_new_checks=True)
        event = events.ConfigurationApplied(self._cluster.at, "", changed=(change,))
        return read(self._cluster.units, self._cluster.missed, event)

    def replace(self, spec: ServiceSpec, change: Change) -> None:
        """The service's run is of this spec already."""
        self._connect(events.ConfigurationApplied(self._cluster.at, ""), change)
        self._adopt(change)
        self._wake_needed(change)

    # ---- the graph ----

    def _connect(self, event: events.ConfigurationApplied, change: Change) -> list[Unit]:
        """The edges of the new configuration in the place of the old ones; returns what is new."""
        cluster = self._cluster
        new = cluster.enter(event.added)
        for unit, each in change.changed.items():
            unit.given_up = unit.given_up and unit.newest.fallback == each.spec.fallback
            for target in graph.disconnect(unit):
                cluster.touch(target)
        for unit in (*change.changed, *new):
            changed = change.changed.get(unit)
            cluster.connect(unit, unit.spec if changed is None else changed.spec)
        for unit in cluster.units.values():
            for edge in list(unit.run.borrowed) if unit.run is not None else ():
                self._give_back_if_circular(edge)
        for unit, targets in change.relied_on.items():
            for target in targets:
                if not graph.leads_to(target, unit):
                    graph.borrow(unit, target, Dependency(target.name))
        return new

    def _give_back_if_circular(self, edge: Edge) -> None:
        if graph.leads_to(edge.target, edge.dependent):
            graph.cut(edge)
            self._cluster.touch(edge.target)

    # ---- the services ----

    def _adopt(self, change: Change) -> None:
        """The new spec is the unit's own, now or when its process has ended."""
        for unit, each in change.changed.items():
            unit.next_spec = each.spec
            if unit not in change.stale:
                watched = (unit.spec.health, unit.spec.watchdog_s)
                self._cluster.adopt(unit)
                if each.needs_new_checks or watched != (unit.spec.health, unit.spec.watchdog_s):
                    self._watching.begin_anew(unit)
        for unit in change.retried:
            self._wishes.clear_record(unit)
            unit.again, unit.reason = True, HAS_CHANGED
            self._cluster.enlist(unit)

    def _begin(self, event: events.ConfigurationApplied, change: Change, new: list[Unit]) -> None:
        """Starts, removals and restarts; the answer waits for all of them."""
        cluster, wishes = self._cluster, self._wishes
        for unit in change.removed:
            unit.removed = True
        started = {unit.name: unit for unit in new if unit.spec.start is StartMode.EAGER}
        started.update((name, cluster.units[name]) for name in event.start)
        started.update((unit.name, unit) for unit in change.woken)
        also = wishes.wake_all(started, overrules=False) + self._wake_needed(change)
        for unit in (*new, *change.changed):
            unit.preload &= unit.preloads
            wishes.preload(unit)
        intents = dict.fromkeys(started, Intent.START)
        intents.update((unit.name, Intent.START) for unit in change.retried)
        intents.update(self._overtake(change.restarted, Intent.RESTART, "a change of configuration of"))
        intents.update((unit.name, Intent.RESTART) for unit in self._taken_along(change) if unit.name not in intents)
        intents.update((unit.name, Intent.START) for unit in change.changed if _is_due(unit, change, intents))
        intents.update(self._overtake(change.removed, Intent.REMOVAL, "the removal of"))
        request = Request(event.request, Intent.START, tuple(intents), also, intents)
        for unit in change.removed:
            wishes.put_down(unit, REMOVED if unit.parent is None else REMOVED_CHILD)
        wishes.open(request, [cluster.units[name] for name in intents])
        for unit in change.restarted:
            unit.reason = CHANGED
        for unit in (*change.restarted, *change.reloaded):
            unit.preload = unit in change.reloaded and unit.preloads
            self._endings.mark(unit, Mark.RESTART, CHANGED, f"{unit.name} is {CHANGED}")

    @staticmethod
    def _taken_along(change: Change) -> list[Unit]:
        """Who goes down with what is restarted, and comes back with it (as children do not): the change is done when
        they are up again.
        """
        falling = graph.falling(change.restarted, lambda unit: unit.incoming)
        return [unit for unit in falling if unit.up and not (unit.removed or unit.parent in falling)]

    def _overtake(self, units: Iterable[Unit], intent: Intent, text: str) -> dict[str, Intent]:
        found = {unit.name: intent for unit in units}
        for name in found:
            self._cluster.requests.overtake(name, intent, f"{text} {name}", self._cluster.out)
        return found

    def _wake_needed(self, change: Change) -> tuple[str, ...]:
        """What services that are up need from now on, unless it was stopped by name."""
        woken: list[str] = []
        for unit in change.changed:
            for edge in list(unit.outgoing) if unit.up else ():
                if edge.pulls and not (edge.target.up or edge.target.removed or edge.target.held_back):
                    woken += [edge.target.name, *self._wishes.wake_for(edge.target, f"needed by {unit.name}")]
        return tuple(woken)

    def forget(self, unit: Unit) -> None:
        """A removed unit whose run is over leaves the graph."""
        cluster = self._cluster
        cluster.leave_queue(unit)
        cluster.cancel(unit, *events.TimerKind)
        for edge in unit.incoming:
            cluster.touch(edge.dependent)
        for edge in unit.outgoing:
            cluster.touch(edge.target)
        cluster.forget(unit)
        if unit.listening:
            unit.listening = False
            cluster.out.append(CeaseAwaitingDemand(unit.name))
        cluster.out.append(ForgetService(unit.name))
        cluster.requests.gone(unit.name, cluster.out)
