"""The records of one service: what is wished of it, where it stands, its present run, its edges.

Must not decide anything; the machine's other rooms read and write these.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

from svcd.supervisor.core.actions import PublishTransition
from svcd.supervisor.core.events import ExitStatus, TimerKind
from svcd.supervisor.core.restart import RestartRecord
from svcd.supervisor.core.spec import Condition, Dependency, DependencyKind, ServiceSpec, ServiceType
from svcd.supervisor.core.states import State

STORY_LIMIT: Final = 64  # transitions kept per service


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


class Mark(Enum):
    """Why a run is to end. The first three come from outside and are no crash; the others are the run's own end."""

    ASKED = "asked"
    RESTART = "restart"
    DEPENDENCY = "dependency"
    UNREADY = "unready"  # a failed start
    SELF = "self"  # the stub announced its end


FROM_OUTSIDE: Final = frozenset({Mark.ASKED, Mark.RESTART, Mark.DEPENDENCY})


@dataclass(slots=True, eq=False)
class Run:
    """One invocation, from the order to spawn until nothing of it is left."""

    invocation: int
    pid: int | None = None
    executed: bool = False  # the program, or the stub, runs
    connected: bool = False  # the stub can be told something
    coded: bool = False  # the stub was given its code
    awaiting: bool = False  # the readiness probe was begun
    overdue: bool = False  # the READY timer ran out while dependents had to end first
    mark: Mark | None = None
    mark_text: str = ""
    told: bool = False  # it knows that it is to end
    killed: bool = False
    kill_text: str = ""  # why it had to be
    error: str | None = None  # what the stub said when it ended by itself
    exited: bool = False  # the main process is gone; leftovers may live
    status: ExitStatus | None = None
    running_since: float | None = None
    ran_s: float | None = None  # how long it was running, known from the first sign of its end
    stop_deadline: float | None = None

    @property
    def doomed(self) -> bool:
        return self.mark is not None or self.exited

    @property
    def from_outside(self) -> bool:
        """It ends because somebody else wants it to."""
        return self.mark in FROM_OUTSIDE


@dataclass(slots=True, eq=False)
class Unit:
    """One service."""

    spec: ServiceSpec
    since: float
    state: State = State.UNLOADED
    cause: str = "registered"
    up: bool = False  # desired
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

    @property
    def name(self) -> str:
        return self.spec.name

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


@dataclass(slots=True, eq=False)
class Edge:
    """``dependent`` depends on ``target``. The flags are kept up to date by ``graph.assess`` and ``graph.holds``."""

    dependent: Unit
    target: Unit
    spec: Dependency
    blocked: bool = False  # the dependent may not start, as far as this edge goes
    dead: bool = False  # ... and that will not change by itself
    holds: bool = False  # the target may not be told to stop, as far as this edge goes
    lost_invocation: int | None = None  # the target's run whose end the dependent was told of

    @property
    def hard(self) -> bool:
        return self.spec.kind is DependencyKind.REQUIRES

    @property
    def met_by_completion(self) -> bool:
        return self.spec.condition is Condition.COMPLETED or self.target.is_task
