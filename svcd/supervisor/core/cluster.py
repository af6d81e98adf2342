"""The working area of one machine: all units, the actions of the present event, and the bookkeeping of every change.

Must not decide why something changes: the rooms above (``runs``, ``wishes``) do. Every change of a unit's facts ends
in ``touch``; ``settle`` then brings the edges up to date, and only then are units evaluated, so that no decision is
taken on flags of yesterday. What a change costs is proportional to the edges of the unit that changed.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable

from svcd.supervisor.core import edges, graph
from svcd.supervisor.core.actions import Action, AdoptSpec, ArmTimer, CancelTimer, PublishTransition
from svcd.supervisor.core.errors import IllegalTransition
from svcd.supervisor.core.events import ShutdownLevel, TimerKind
from svcd.supervisor.core.ledger import Ledger, Transaction
from svcd.supervisor.core.requests import Requests
from svcd.supervisor.core.spec import ServiceSpec
from svcd.supervisor.core.states import State
from svcd.supervisor.core.transitions import TRANSITIONS
from svcd.supervisor.core.unit import Edge, Unit


class Cluster:
    def __init__(self, max_parallel: int) -> None:
        self.max_parallel = max_parallel
        self.units: dict[str, Unit] = {}
        self.missed: dict[str, dict[Unit, None]] = {}  # name of what was removed -> who names it still, without effect
        self.requests = Requests()
        self.level: ShutdownLevel | None = None
        self.live = 0  # units with a run
        self.invocations = 0
        self.steps = 0
        self.at = 0.0  # of the present event
        self.jitter = 0.0
        self.out: list[Action] = []
        self.ledger = Ledger()
        self.transaction: Transaction | None = None  # that the present event belongs to
        self.essential_lost = ""  # the final failure of an essential service, in words
        self.changed: dict[str, None] = {}  # whose view may read differently since the present event
        self.moving: set[str] = set()
        self.starting: set[str] = set()  # who holds a turn
        # an OrderedDict gives up its first entry in constant time, however many were taken before
        self.queue: OrderedDict[str, Unit] = OrderedDict()  # who waits for a turn, first come first served
        self._dirty: OrderedDict[Unit, None] = OrderedDict()
        self._work: OrderedDict[Unit, None] = OrderedDict()
        self._touched: dict[Unit, None] = {}
        self._late: deque[Edge] = deque()  # holds on what is to end already

    @property
    def is_going_down(self) -> bool:
        return self.level is not None or bool(self.essential_lost)

    # ---- changes ----

    def go(self, unit: Unit, new: State, cause: str) -> None:
        """One transition, recorded and told."""
        old = unit.state
        if new not in TRANSITIONS[old]:
            raise IllegalTransition(unit.name, old, new)
        transaction = self._transaction_of(unit, cause)
        spent_s = self.at - unit.since
        told = PublishTransition(self.at, unit.name, unit.last_invocation, old, new, cause, spent_s, transaction.id)
        unit.state, unit.since, unit.cause = new, self.at, cause
        unit.story.append(told)
        self.ledger.enter(transaction, told)
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

    # ---- transactions ----

    def begin(self, cause: str, kind: str = "") -> None:
        """A new cause: what follows from the present event is one transaction. ``kind``: of what may come often."""
        self.transaction = self.ledger.begin(cause, self.at, kind)

    def enlist(self, unit: Unit) -> None:
        """What this unit does from now on belongs to the present transaction."""
        if self.transaction is not None and unit.transaction is not self.transaction:
            if unit.transaction is not None:
                self.ledger.rest(unit.transaction, unit.name, self.at)
            unit.transaction = self.transaction
            self.ledger.join(self.transaction, unit.name)

    def _transaction_of(self, unit: Unit, cause: str) -> Transaction:
        own = unit.transaction
        if own is not None and own.is_open and (unit.name in own.moving or self.transaction is None):
            return own
        if self.transaction is None:
            self.begin(f"{unit.name}: {cause}")
        assert self.transaction is not None
        unit.transaction = self.transaction
        return self.transaction

    # ---- timers ----

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
        """Whether the unit may start now; if not, it is in the queue afterwards. A child takes no turn: its parent's
        start, which has one, may wait for it.
        """
        if self.max_parallel and unit.parent is None:
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

    def settle(self, evaluate: Callable[[Unit], None], held_late: Callable[[Edge], None]) -> None:
        """Evaluate what is concerned until nothing changes any more, then look at the requests.

        ``held_late`` hears of each run that is to end and now has to wait for one more dependent.
        """
        while self._dirty or self._late or self._work:
            if self._dirty:
                self._refresh(self._dirty.popitem(last=False)[0])
            elif self._late:
                held_late(self._late.popleft())
            else:
                unit = self._work.popitem(last=False)[0]
                self.steps += 1
                evaluate(unit)
        for unit in self._touched:
            self.requests.look(unit, self.out)
        self._touched.clear()

    def enter(self, specs: Iterable[ServiceSpec]) -> list[Unit]:
        """New services, without their edges."""
        new = [Unit(spec, self.at) for spec in specs]
        self.units.update((unit.name, unit) for unit in new)
        for unit in new:
            if unit.spec.parent is not None:
                unit.parent = self.units[unit.spec.parent]
                unit.parent.children[unit] = None
        return new

    def connect(self, unit: Unit, spec: ServiceSpec) -> None:
        """The edges of a unit that is new or has lost its old ones, and those of whom it was missing to."""
        self._miss_no_more(unit)
        graph.connect(self.units, unit, spec)
        for dependent in self.missed.pop(unit.name, ()):
            graph.rejoin(self.units, dependent, unit.name)
            self.touch(dependent)
        self.touch(unit)

    def _miss_no_more(self, unit: Unit) -> None:
        for each in unit.newest.dependencies:
            missing = self.missed.get(each.target)
            if missing is None:
                continue
            missing.pop(unit, None)
            if not missing:
                del self.missed[each.target]

    def forget(self, unit: Unit) -> None:
        """This unit is removed: whoever still depends on it does so no longer."""
        self._miss_no_more(unit)
        for edge in unit.incoming:
            if not edge.is_borrowed and edge.dependent is not unit:
                self.missed.setdefault(unit.name, {})[edge.dependent] = None
        graph.isolate(unit)
        if unit.parent is not None:
            del unit.parent.children[unit]
            self.again(unit.parent)  # its next run may wait for that
        del self.units[unit.name]
        for pending in (self._dirty, self._work, self._touched):
            pending.pop(unit, None)
        self.moving.discard(unit.name)
        if unit.transaction is not None:
            self.ledger.rest(unit.transaction, unit.name, self.at)

    def _refresh(self, unit: Unit) -> None:
        self._refresh_stuck(unit)
        for served in edges.served_by(unit):
            self.changed[served.name] = None
            for edge in served.incoming:
                self._refresh_edge(edge)
        for edge in unit.outgoing:
            self._refresh_hold(edge)
        if unit.fallback is not None and edges.refresh_cover(unit):
            self._work[unit.fallback] = None
        self._refresh_moving(unit)

    def _refresh_moving(self, unit: Unit) -> None:
        if is_moving(unit):
            self.moving.add(unit.name)
            return
        self.moving.discard(unit.name)
        if unit.transaction is not None:
            self.ledger.rest(unit.transaction, unit.name, self.at)

    def _refresh_edge(self, edge: Edge) -> None:
        """The target has changed: may the dependent start, and does it still hold the target, and those beside it?"""
        dependent, group = edge.dependent, edge.group
        stood = group.standing if group is not None else 0
        changed = edges.refresh(edge)
        if changed:
            self._refresh_stuck(dependent)
        if (dependent.state is State.WAITING or (dependent.run is not None and dependent.run.held)) and (
            changed or edge.blocked
        ):
            self._work[dependent] = None
        self._refresh_hold(edge)
        if group is not None and stood != group.standing and min(stood, group.standing) < 2:
            for each in group.edges:  # one that stands spares the others, two spare each other
                self._refresh_hold(each)

    def _refresh_hold(self, edge: Edge) -> None:
        if not edges.refresh_hold(edge) or not edge.target.doomed:
            return
        if edge.holds:
            self._late.append(edge)
        elif edge.target.holders == 0:
            self._work[edge.target] = None

    def adopt(self, unit: Unit) -> None:
        """No process of the old configuration is left: from here on the new one holds."""
        if unit.next_spec is not None:
            unit.spec, unit.next_spec = unit.next_spec, None
            self.out.append(AdoptSpec(unit.name))

    def give_back(self, unit: Unit) -> None:
        """Its run is over, and with it the edges that it had for this run alone."""
        run = unit.run
        if run is None:
            return
        for edge in list(run.borrowed):
            graph.cut(edge)
            self.touch(edge.target)

    def _refresh_stuck(self, unit: Unit) -> None:
        waits = unit.state is State.WAITING or (unit.run is not None and unit.run.held)
        stuck = waits and unit.up and bool(unit.dead)
        if stuck != unit.stuck:
            unit.stuck = stuck
            self.touch(unit)


def is_moving(unit: Unit) -> bool:
    """Whether something is on its way that will change this unit's state by itself."""
    run = unit.run
    if unit.updating:
        return True
    if run is not None:
        if run.held and unit.state is State.LOADED and not run.doomed:
            return unit.up and not unit.stuck
        rests = unit.state is State.PAUSED or (unit.state is State.RUNNING and not unit.is_task)
        return not rests or run.doomed or run.pausing is not None
    return unit.state is State.BACKOFF or (unit.state is State.WAITING and not unit.stuck)
