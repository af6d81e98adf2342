"""The working area of one machine: all units, the actions of the present event, and the bookkeeping of every change.

Must not decide why something changes: the rooms above (``runs``, ``wishes``) do. Every change of a unit's facts ends
in ``touch``; ``settle`` then brings the edges up to date, and only then are units evaluated, so that no decision is
taken on flags of yesterday. What a change costs is proportional to the edges of the unit that changed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from svcd.supervisor.core import graph
from svcd.supervisor.core.actions import Action, ArmTimer, CancelTimer, PublishTransition
from svcd.supervisor.core.errors import IllegalTransition
from svcd.supervisor.core.events import ShutdownLevel, TimerKind
from svcd.supervisor.core.requests import Requests
from svcd.supervisor.core.states import State
from svcd.supervisor.core.transitions import TRANSITIONS
from svcd.supervisor.core.unit import Edge, Unit


class Cluster:
    def __init__(self, max_parallel: int) -> None:
        self.max_parallel = max_parallel
        self.units: dict[str, Unit] = {}
        self.requests = Requests()
        self.level: ShutdownLevel | None = None
        self.live = 0  # units with a run
        self.invocations = 0
        self.steps = 0
        self.at = 0.0  # of the present event
        self.jitter = 0.0
        self.out: list[Action] = []
        self.changed: dict[str, None] = {}  # whose view may read differently since the present event
        self.moving: set[str] = set()
        self.starting: set[str] = set()  # who holds a turn
        # an OrderedDict gives up its first entry in constant time, however many were taken before
        self.queue: OrderedDict[str, Unit] = OrderedDict()  # who waits for a turn, first come first served
        self._dirty: OrderedDict[Unit, None] = OrderedDict()
        self._work: OrderedDict[Unit, None] = OrderedDict()
        self._touched: dict[Unit, None] = {}

    # ---- changes ----

    def go(self, unit: Unit, new: State, cause: str) -> None:
        """One transition, recorded and told."""
        old = unit.state
        if new not in TRANSITIONS[old]:
            raise IllegalTransition(unit.name, old, new)
        told = PublishTransition(self.at, unit.name, unit.last_invocation, old, new, cause, self.at - unit.since)
        unit.state, unit.since, unit.cause = new, self.at, cause
        unit.story.append(told)
        self.out.append(told)
        self.touch(unit)

    def say(self, unit: Unit, cause: str) -> None:
        """A new cause for the same state."""
        if unit.cause != cause:
            unit.cause = cause
            self.changed[unit.name] = None

    def touch(self, unit: Unit) -> None:
        """Something of this unit has changed that others may look at."""
        self._dirty[unit] = None
        self._work[unit] = None
        self._touched[unit] = None
        self.changed[unit.name] = None

    def again(self, unit: Unit) -> None:
        """Evaluate this unit once more."""
        self._work[unit] = None

    def arm(self, unit: Unit, kind: TimerKind, delay_s: float) -> None:
        unit.timers.add(kind)
        self.out.append(ArmTimer(unit.name, unit.last_invocation or 0, kind, delay_s))

    def cancel(self, unit: Unit, *kinds: TimerKind) -> None:
        for kind in kinds:
            if kind in unit.timers:
                unit.timers.remove(kind)
                self.out.append(CancelTimer(unit.name, kind))

    # ---- turns ----

    def take_turn(self, unit: Unit) -> bool:
        """Whether the unit may start now; if not, it is in the queue afterwards."""
        if self.max_parallel:
            first = next(iter(self.queue.values()), unit)
            if len(self.starting) >= self.max_parallel or first is not unit:
                self.queue[unit.name] = unit
                return False
            self.queue.pop(unit.name, None)
            self.starting.add(unit.name)
            self._wake_queue()
        return True

    def leave_queue(self, unit: Unit) -> None:
        if self.queue.pop(unit.name, None) is not None:
            self._wake_queue()

    def release_turn(self, unit: Unit) -> None:
        if unit.name in self.starting:
            self.starting.remove(unit.name)
            self._wake_queue()

    def _wake_queue(self) -> None:
        if self.queue and len(self.starting) < self.max_parallel:
            self.again(next(iter(self.queue.values())))

    # ---- until steady ----

    def settle(self, evaluate: Callable[[Unit], None]) -> None:
        """Evaluate what is concerned until nothing changes any more, then look at the requests."""
        while self._dirty or self._work:
            if self._dirty:
                self._refresh(self._dirty.popitem(last=False)[0])
            else:
                unit = self._work.popitem(last=False)[0]
                self.steps += 1
                evaluate(unit)
        for unit in self._touched:
            self.requests.look(unit, self.out)
        self._touched.clear()

    def forget(self, unit: Unit) -> None:
        """A unit that was taken out of the graph."""
        for pending in (self._dirty, self._work, self._touched):
            pending.pop(unit, None)
        self.moving.discard(unit.name)

    def _refresh(self, unit: Unit) -> None:
        self._refresh_stuck(unit)
        for edge in unit.incoming:
            blocked, dead = graph.assess(edge)
            dependent = edge.dependent
            changed = blocked != edge.blocked or dead != edge.dead
            if changed:
                edge.blocked, edge.dead = blocked, dead
                _enter(dependent.blockers, edge, blocked)
                _enter(dependent.dead, edge, dead)
                self._refresh_stuck(dependent)
            if dependent.state is State.WAITING and (changed or blocked):
                self._work[dependent] = None
        for edge in unit.outgoing:
            holds = graph.holds(edge)
            if holds != edge.holds:
                edge.holds = holds
                target = edge.target
                target.holders += 1 if holds else -1
                if target.holders == 0 and target.doomed:
                    self._work[target] = None
        if is_moving(unit):
            self.moving.add(unit.name)
        else:
            self.moving.discard(unit.name)

    def _refresh_stuck(self, unit: Unit) -> None:
        stuck = unit.state is State.WAITING and unit.up and bool(unit.dead)
        if stuck != unit.stuck:
            unit.stuck = stuck
            self.touch(unit)


def is_moving(unit: Unit) -> bool:
    """Whether something is on its way that will change this unit's state by itself."""
    if unit.run is not None:
        return unit.state is not State.RUNNING or unit.doomed or unit.is_task
    return unit.state is State.BACKOFF or (unit.state is State.WAITING and not unit.stuck)


def _enter(edges: dict[Edge, None], edge: Edge, inside: bool) -> None:
    if inside:
        edges[edge] = None
    else:
        edges.pop(edge, None)
