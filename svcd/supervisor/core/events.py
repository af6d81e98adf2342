"""The facts that the core is told, in the past tense. Frozen values; every one carries its time.

Must not carry anything that the core could not store or compare: no descriptors, no callbacks.

``at`` is monotonic seconds. ``invocation`` names one run of a service and is never reused; an event of an
invocation that is no longer the service's own is ignored. ``jitter`` is a number in [-1, 1], drawn by the
shell, that a restart's backoff may use.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from svcd.supervisor.core.spec import ServiceSpec


class ShutdownLevel(Enum):
    """How hard the cluster is taken down; a level is never lowered again."""

    DRAIN = 1  # reverse order, each service with its own stop timeout
    NOW = 2  # reverse order, no drain, every stop timeout one second
    KILL = 3  # everything at once, SIGKILL


class StubPhase(Enum):
    """What a stub reports to have reached. ``STOPPING`` may come by itself, with or without an error."""

    LOADED = "loaded"
    INITIALIZED = "initialized"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class TimerKind(Enum):
    """The timers that a service may have, one of each kind at the most."""

    READY = "ready"  # spawn to running
    STOP = "stop"  # stop asked to SIGKILL
    RESTART = "restart"  # end of a backoff
    LEFTOVERS = "leftovers"  # what the main process left behind gets SIGKILL


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a main process ended: exactly one of ``code`` (0 to 255) and ``signal`` (a number) is set."""

    code: int | None = None
    signal: int | None = None


# ---- what people ask for; ``request`` is an opaque id, answered once by ``actions.AnswerRequest`` -------------


@dataclass(frozen=True, slots=True)
class ServicesRegistered:
    """New services. They come all together or not at all: dependencies may point at each other."""

    at: float
    specs: tuple[ServiceSpec, ...]


@dataclass(frozen=True, slots=True)
class ServiceUnregistered:
    at: float
    request: str
    service: str


@dataclass(frozen=True, slots=True)
class StartRequested:
    """Start these services and what they require; an empty tuple means every eager service."""

    at: float
    request: str
    services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StopRequested:
    at: float
    request: str
    services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RestartRequested:
    at: float
    request: str
    services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SignalRequested:
    at: float
    request: str
    services: tuple[str, ...]
    signal: int


@dataclass(frozen=True, slots=True)
class ShutdownRequested:
    """Take the cluster down. ``request`` None: nobody waits for the answer (a signal asked)."""

    at: float
    request: str | None
    level: ShutdownLevel


@dataclass(frozen=True, slots=True)
class RequestAbandoned:
    """Whoever asked no longer waits. What was asked for stays in force."""

    at: float
    request: str


# ---- what happened to a process ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProcessSpawned:
    at: float
    service: str
    invocation: int
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """No program runs: fork, set-up or exec failed. If there was a process, it is gone and was reaped."""

    at: float
    service: str
    invocation: int
    reason: str
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class ProgramExecuted:
    """exec succeeded (programs only)."""

    at: float
    service: str
    invocation: int


@dataclass(frozen=True, slots=True)
class ReadinessReached:
    """The probe asked for by ``actions.AwaitReadiness`` succeeded."""

    at: float
    service: str
    invocation: int


@dataclass(frozen=True, slots=True)
class ReadinessFailed:
    """The probe cannot succeed any more; a mere timeout is the core's own ``TimerKind.READY``."""

    at: float
    service: str
    invocation: int
    reason: str


@dataclass(frozen=True, slots=True)
class ProcessExited:
    """The main process ended. ``leftovers``: something that it started still lives."""

    at: float
    service: str
    invocation: int
    status: ExitStatus
    leftovers: bool = False
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class LeftoversGone:
    """Nothing of the invocation is left, after a ``ProcessExited`` that had left something behind."""

    at: float
    service: str
    invocation: int
    jitter: float = 0.0


# ---- what a stub said ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StubConnected:
    """``RemoteReady`` arrived and the peer is the process that was spawned."""

    at: float
    service: str
    invocation: int


@dataclass(frozen=True, slots=True)
class StubReported:
    """The stub reached ``phase``. ``error`` (one line) comes with STOPPING when the service ends badly by itself."""

    at: float
    service: str
    invocation: int
    phase: StubPhase
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The stub's connection is gone while its process lives."""

    at: float
    service: str
    invocation: int


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The timer of ``kind`` that was armed for this invocation ran out."""

    at: float
    service: str
    invocation: int
    kind: TimerKind
    jitter: float = 0.0


Event = (
    ServicesRegistered
    | ServiceUnregistered
    | StartRequested
    | StopRequested
    | RestartRequested
    | SignalRequested
    | ShutdownRequested
    | RequestAbandoned
    | ProcessSpawned
    | SpawnFailed
    | ProgramExecuted
    | ReadinessReached
    | ReadinessFailed
    | ProcessExited
    | LeftoversGone
    | StubConnected
    | StubReported
    | ConnectionLost
    | TimerFired
)
