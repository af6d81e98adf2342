"""The records of one service: what is wished of it, where it stands, its present run, its edges.

Must not decide anything; the machine's other rooms read and write these.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from enum import Enum
from typing import Final, Protocol

from svcd.record import entity, field
from svcd.supervisor.core.actions import PublishTransition, StubOrder
from svcd.supervisor.core.events import ExitStatus, TimerKind
from svcd.supervisor.core.ledger import Transaction
from svcd.supervisor.core.restart import RestartRecord
from svcd.supervisor.core.spec import (
    Condition,
    Dependency,
    DependencyKind,
    Hook,
    RunEnd,
    Runner,
    ServiceSpec,
    ServiceType,
    StartMode,
)
from svcd.supervisor.core.states import State

STORY_LIMIT: Final = 64  # transitions kept per service
DEMAND_LIMIT: Final = 20  # times that demand may start it in a row, within ``calls.DEMAND_WITHIN_S``


class View(Protocol):
    """A service as the shell may see it. Reading is O(1); it changes with the machine."""

    @property
    def name(self) -> str: ...
    @property
    def spec(self) -> ServiceSpec: ...
    @property
    def state(self) -> State: ...
    @property
    def desired(self) -> str: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def invocation(self) -> int | None: ...
    @property
    def restarts(self) -> int: ...
    @property
    def since(self) -> float: ...
    @property
    def cause(self) -> str: ...
    @property
    def healthy(self) -> bool | None: ...
    @property
    def ailment(self) -> str: ...
    @property
    def stand_in(self) -> str | None: ...
    @property
    def held_back(self) -> bool: ...
    @property
    def listening(self) -> bool: ...
    @property
    def draining(self) -> int | None: ...
    @property
    def not_restarted(self) -> str: ...


class Mark(Enum):
    """Why a run is to end. The first three come from outside and are no crash; the others are the run's own end."""

    ASKED = "asked"
    RESTART = "restart"
    DEPENDENCY = "dependency"
    UNREADY = "unready"  # a failed start
    UNHEALTHY = "unhealthy"  # its health checks failed
    HUNG = "hung"  # its watchdog ran out
    SELF = "self"  # the service announced its end


CONDEMNED: Final = {Mark.UNREADY: RunEnd.START, Mark.UNHEALTHY: RunEnd.HEALTH, Mark.HUNG: RunEnd.WATCHDOG}
"""Runs that svcd ends for what they failed at: a crash whatever their exit code -> what kind of end it is."""

FROM_OUTSIDE: Final = frozenset({Mark.ASKED, Mark.RESTART, Mark.DEPENDENCY})


@entity
class Run:
    """One invocation, from the order to spawn until nothing of it is left."""

    invocation: int
    pid: int | None = None
    executed: bool = False  # the program, or the stub, runs
    connected: bool = False  # the stub can be told something
    coded: bool = False  # the stub was given its code
    begun: bool = False  # ... and told to go on with it
    awaiting: bool = False  # the readiness probe was begun
    obstacle: str = ""  # what the last try of the probe has found
    overdue: bool = False  # the READY timer ran out while dependents had to end first
    mark: Mark | None = None
    mark_text: str = ""
    told: bool = False  # it knows that it is to end
    killed: bool = False
    kill_text: str = ""  # why it had to be
    remarks: list[str] = field(default_factory=list)  # what went wrong on its way down
    error: str | None = None  # what the stub said when it ended by itself
    exited: bool = False  # the main process is gone, or there was none
    leftovers: bool = False  # something that it started still lives
    status: ExitStatus | None = None
    running_since: float | None = None
    ran_s: float | None = None  # how long it was running, known from the first sign of its end
    stop_deadline: float | None = None
    ready_deadline: float | None = None
    held: bool = False  # loaded ahead of time: relies on nobody, and goes no further before it is asked to
    spawned: bool = False  # a process was ordered
    hook: Hook | None = None  # the hook that runs now
    hooks_done: set[Hook] = field(default_factory=set)
    start_failed: bool = False  # nothing could be spawned
    has_endpoint: bool = False  # others may have requests in flight
    in_flight: int = 0  # ... so many of them, when a drain last told
    drained: bool = False
    frozen: bool = False  # paused by a signal after which nothing else is heard before SIGCONT
    pausing: StubOrder | None = None  # what the stub was told, until it answers
    is_to_pause: bool = False  # what is wished of it
    pause_error: str | None = None
    healthy: bool | None = None
    ailment: str = ""  # why it is not
    failures: int = 0  # of health checks, in a row
    successes: int = 0
    borrowed: list[Edge] = field(default_factory=list)  # edges that last as long as this run

    @property
    def doomed(self) -> bool:
        return self.mark is not None or self.exited

    @property
    def from_outside(self) -> bool:
        """It ends because somebody else wants it to."""
        return self.mark in FROM_OUTSIDE


@entity
class Unit:
    """One service."""

    spec: ServiceSpec
    since: float
    state: State = State.UNLOADED
    cause: str = "registered"
    up: bool = False  # desired
    asked: bool = False  # ... for its own sake, not only because something else needs it
    held_back: bool = False  # stopped by name: neither demand nor schedule nor a fallback's duty starts it
    demands: deque[float] = field(default_factory=lambda: deque(maxlen=DEMAND_LIMIT))  # when it was called for
    listening: bool = False  # the shell watches its sockets for demand
    preload: bool = False  # to be loaded ahead of time
    queued: bool = False  # one more scheduled run follows
    next_spec: ServiceSpec | None = None  # adopted when the present run has ended
    updating: bool = False  # a run beside its own has not ended: its successor, or the one before
    removed: bool = False  # forgotten when the present run has ended
    transaction: Transaction | None = None
    down_text: str = "not asked to run"  # why it is desired down
    reason: str = "asked to run"  # why it is to come up
    again: bool = False  # has ended for good, or is in backoff, and is to run all the same
    stuck: bool = False  # waits for something that will not come by itself
    stumbled: bool = False  # its last attempt failed before it was running
    run: Run | None = None
    last_invocation: int | None = None
    restarts: int = 0
    record: RestartRecord = field(default_factory=RestartRecord)
    delay_s: float = 0.0  # of the present backoff
    timers: set[TimerKind] = field(default_factory=set)
    outgoing: list[Edge] = field(default_factory=list)
    incoming: dict[Edge, None] = field(default_factory=dict)
    blockers: OrderedDict[Edge, None] = field(
        default_factory=OrderedDict
    )  # of outgoing: what it would have to wait for
    dead: OrderedDict[Edge, None] = field(default_factory=OrderedDict)  # of blockers: what will not come by itself
    holders: int = 0  # of incoming: dependents that must end before this may be told to
    story: deque[PublishTransition] = field(default_factory=lambda: deque(maxlen=STORY_LIMIT))
    fallback: Unit | None = None
    covers: dict[Unit, None] = field(default_factory=dict)  # whose fallback this is
    bereft: dict[Unit, None] = field(default_factory=dict)  # of covers: who was given up and has not served since
    stood_in: dict[Edge, None] = field(default_factory=dict)  # edges of dependents that rely on the fallback instead
    standing_in: bool = False  # woken as a fallback
    given_up: bool = False  # ended for good, and has not served since
    forbidden: str = ""  # the rule by which it was not restarted when it failed last
    parent: Unit | None = None  # whose run has created it
    children: dict[Unit, None] = field(default_factory=dict)  # of its present run, or of its last, which end

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def newest(self) -> ServiceSpec:
        """What its next run is made from."""
        return self.next_spec or self.spec

    @property
    def preloads(self) -> bool:
        """It is loaded ahead of time."""
        return self.newest.start is StartMode.PRELOAD and self.newest.runner is Runner.PYTHON

    @property
    def desired(self) -> str:
        return "up" if self.up else "down"

    @property
    def pid(self) -> int | None:
        return None if self.run is None else self.run.pid

    @property
    def invocation(self) -> int | None:
        """The present run, or else the last one."""
        return self.last_invocation

    @property
    def is_task(self) -> bool:
        return self.spec.type is ServiceType.TASK

    @property
    def doomed(self) -> bool:
        return self.run is not None and self.run.doomed

    @property
    def may_have_children(self) -> bool:
        """It has a run that goes on."""
        run = self.run
        return run is not None and run.executed and not (run.doomed or run.held)

    @property
    def leaning(self) -> bool:
        """It has a run that relies on what it requires."""
        return self.run is not None and not self.run.held

    @property
    def serving(self) -> bool:
        return self.state is State.RUNNING and not self.doomed

    @property
    def healthy(self) -> bool | None:
        return None if self.run is None else self.run.healthy

    @property
    def ailment(self) -> str:
        """Why its health checks fail, in words; empty when they do not."""
        return "" if self.run is None else self.run.ailment

    @property
    def draining(self) -> int | None:
        """How many requests are in flight while it drains; None while it does not."""
        return self.run.in_flight if self.run is not None and self.state is State.DRAINING else None

    @property
    def not_restarted(self) -> str:
        """The rule that forbids a restart, where it has failed."""
        return self.forbidden if self.state is State.FAILED else ""

    @property
    def is_out(self) -> bool:
        """Asked to run, and given up: its fallback stands in."""
        return self.up and not self.again and self.state in (State.FAILED, State.UNAVAILABLE)

    @property
    def stand_in(self) -> str | None:
        """The service that serves in its place now."""
        return self.fallback.name if self.is_out and self.fallback is not None and self.fallback.serving else None


@entity
class Group:
    """Edges of one dependent of which any one is enough, and how many of them are what."""

    edges: dict[Edge, None] = field(default_factory=dict)
    blocked: int = 0
    dead: int = 0
    standing: int = 0


@entity
class Edge:
    """``dependent`` depends on ``target``. The flags are kept up to date by the room ``edges``.

    ``instead_of``: whom the target stands in for. A borrowed edge lasts as long as the dependent's present run.
    """

    dependent: Unit
    target: Unit
    spec: Dependency
    is_borrowed: bool = False
    instead_of: Unit | None = None
    group: Group | None = None
    blocked: bool = False  # the dependent may not start, as far as this edge goes
    dead: bool = False  # ... and that will not change by itself
    stands: bool = False  # the target is what the dependent needs
    holds: bool = False  # the target may not be told to stop, as far as this edge goes
    lost_invocation: int | None = None  # the target's run whose end the dependent was told of

    @property
    def hard(self) -> bool:
        return self.spec.kind is DependencyKind.REQUIRES

    @property
    def leads_to_parent(self) -> bool:
        return self.dependent.parent is self.target

    @property
    def pulls(self) -> bool:
        """Who starts the dependent starts the target."""
        return self.spec.kind is not DependencyKind.AFTER and not self.is_borrowed

    @property
    def met_by_completion(self) -> bool:
        return self.spec.condition is Condition.COMPLETED or self.target.is_task

    @property
    def needs_completion(self) -> bool:
        is_spawn_enough = self.spec.condition is Condition.SPAWNED
        return self.spec.condition is Condition.COMPLETED or (self.target.is_task and not is_spawn_enough)
