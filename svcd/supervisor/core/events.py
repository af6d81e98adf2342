"""The facts that the core is told, in the past tense. Frozen values; every one carries its time.

Must not carry anything that the core could not store or compare: no descriptors, no callbacks.

``at`` is monotonic seconds. ``invocation`` names one run of a service and is never reused; an event of an
invocation that is no longer the service's own is ignored. ``jitter`` is a number in [-1, 1], drawn by the
shell, that a restart's backoff may use.
"""

from __future__ import annotations

from enum import Enum

from svcd.record import record
from svcd.supervisor.core.spec import Hook, ServiceSpec


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
    RUNNING = "running"  # started, or resumed
    PAUSED = "paused"
    LEAVING = "leaving"  # wants to end by itself, once its requests have: it is to be told to drain, and to stop
    DRAINED = "drained"  # no request is in flight, and none is taken any more
    STOPPING = "stopping"


class TimerKind(Enum):
    """The timers that a service may have, one of each kind at the most."""

    READY = "ready"  # spawn to running
    DRAIN = "drain"  # drain asked to the stop, whatever is still in flight
    STOP = "stop"  # stop asked to SIGKILL
    RESTART = "restart"  # end of a backoff
    LEFTOVERS = "leftovers"  # what the main process left behind gets SIGKILL
    WATCHDOG = "watchdog"  # the last sign of life to its failure
    UPDATE = "update"  # a step of an update
    HOOK = "hook"  # a hook that runs while the cluster is in a hurry is killed


@record
class ExitStatus:
    """How a main process ended: exactly one of ``code`` (0 to 255) and ``signal`` (a number) is set."""

    code: int | None = None
    signal: int | None = None


# ---- what people ask for; ``request`` is an opaque id, answered once by ``actions.AnswerRequest`` -------------


@record
class ServicesRegistered:
    """New services. They come all together or not at all: dependencies may point at each other."""

    at: float
    specs: tuple[ServiceSpec, ...]


@record
class SpecChange:
    """A new spec for a service that is registered. ``needs_restart``: a process of the old one does not do for it.
    ``needs_new_checks``: its health is looked at in another way.
    """

    spec: ServiceSpec
    needs_restart: bool
    needs_new_checks: bool = False


@record
class ConfigurationApplied:
    """A change of what is registered, all of it or nothing. Services that are not named stay as they are.

    New eager services are started with it, as are those in ``start``; a removed service is stopped, then forgotten.
    """

    at: float
    request: str
    added: tuple[ServiceSpec, ...] = ()
    changed: tuple[SpecChange, ...] = ()
    removed: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    cause: str = "change of configuration"


@record
class UpdateRequested:
    """Replace the running service by one of this spec without losing a request. ``forced``: an interface that is not
    compatible is no obstacle.
    """

    at: float
    request: str
    spec: ServiceSpec
    forced: bool = False


@record
class StartRequested:
    """Start these services and what they require; an empty tuple means every eager service. ``overrules``: also what
    they require and was stopped by name, as a person may.
    """

    at: float
    request: str
    services: tuple[str, ...]
    overrules: bool = True


@record
class StopRequested:
    """``unneeded``: afterwards also whatever runs only because something else needed it, and is needed no more."""

    at: float
    request: str
    services: tuple[str, ...]
    unneeded: bool = False


@record
class RestartRequested:
    """``rolling``: one after the other, each once the one before is running again; the first failure ends it."""

    at: float
    request: str
    services: tuple[str, ...]
    rolling: bool = False


@record
class PauseRequested:
    at: float
    request: str
    services: tuple[str, ...]


@record
class ResumeRequested:
    at: float
    request: str
    services: tuple[str, ...]


@record
class SignalRequested:
    at: float
    request: str
    services: tuple[str, ...]
    signal: int


@record
class ShutdownRequested:
    """Take the cluster down. ``request`` None: nobody waits for the answer (a signal asked)."""

    at: float
    request: str | None
    level: ShutdownLevel


@record
class RequestAbandoned:
    """Whoever asked no longer waits. What was asked for stays in force."""

    at: float
    request: str


# ---- what calls for a service ---------------------------------------------------------------------------------------


@record
class DemandArose:
    """Somebody connected to a socket that is held for this service (on demand)."""

    at: float
    service: str
    text: str = ""


@record
class IdleReached:
    """Nobody has used this on-demand service for its idle timeout."""

    at: float
    service: str
    invocation: int


@record
class ScheduleFired:
    """The time of a scheduled task has come."""

    at: float
    service: str


# ---- what happened to a process ---------------------------------------------------------------------------


@record
class ProcessSpawned:
    at: float
    service: str
    invocation: int
    pid: int


@record
class MainProcessNamed:
    """The run goes on in another of its processes (MAINPID), whose end is its end."""

    at: float
    service: str
    invocation: int
    pid: int


@record
class SpawnFailed:
    """No program runs: fork, set-up or exec failed. If there was a process, it is gone and was reaped."""

    at: float
    service: str
    invocation: int
    reason: str
    jitter: float = 0.0


@record
class ProgramExecuted:
    """exec succeeded (programs only)."""

    at: float
    service: str
    invocation: int


@record
class ReadinessReached:
    """The probe asked for by ``actions.AwaitReadiness`` succeeded."""

    at: float
    service: str
    invocation: int


@record
class ReadinessFailed:
    """The probe cannot succeed any more; a mere timeout is the core's own ``TimerKind.READY``."""

    at: float
    service: str
    invocation: int
    reason: str


@record
class ReadinessMissed:
    """One try of the probe found it not ready; there are more to come. ``reason`` says what was wrong."""

    at: float
    service: str
    invocation: int
    reason: str


@record
class ProcessExited:
    """The main process ended. ``leftovers``: something that it started still lives."""

    at: float
    service: str
    invocation: int
    status: ExitStatus
    leftovers: bool = False
    jitter: float = 0.0


@record
class LeftoversGone:
    """Nothing of the invocation is left, after a ``ProcessExited`` that had left something behind."""

    at: float
    service: str
    invocation: int
    jitter: float = 0.0


@record
class HealthChecked:
    """One health check ended. ``text`` says what was wrong."""

    at: float
    service: str
    invocation: int
    healthy: bool
    text: str = ""


@record
class WatchdogPinged:
    """A sign of life: WATCHDOG=1 of a program, the event loop of a stub."""

    at: float
    service: str
    invocation: int


@record
class WatchdogTriggered:
    """The service says itself that it has failed (WATCHDOG=trigger)."""

    at: float
    service: str
    invocation: int


@record
class TimeoutExtended:
    """The service asks for more time (EXTEND_TIMEOUT_USEC): whatever bounds it now ends ``by_s`` from now, at the
    earliest.
    """

    at: float
    service: str
    invocation: int
    by_s: float


@record
class StopAnnounced:
    """A program says that it ends (STOPPING=1)."""

    at: float
    service: str
    invocation: int


@record
class HookEnded:
    """A command that ``actions.RunHook`` asked for is over; ``error`` None: with exit code 0."""

    at: float
    service: str
    invocation: int
    hook: Hook
    error: str | None = None
    jitter: float = 0.0


# ---- what a stub said ---------------------------------------------------------------------------------------


@record
class StubConnected:
    """``RemoteReady`` arrived and the peer is the process that was spawned."""

    at: float
    service: str
    invocation: int


@record
class StubReported:
    """The stub reached ``phase``. ``error`` (one line) comes with STOPPING when the service ends badly by itself."""

    at: float
    service: str
    invocation: int
    phase: StubPhase
    error: str | None = None


@record
class EndpointOpened:
    """The service takes requests from now on: before it stops, it drains."""

    at: float
    service: str
    invocation: int


@record
class InterfaceChecked:
    """What this run offers, compared with what the one before offers: ``differences`` that break callers, in words."""

    at: float
    service: str
    invocation: int
    differences: tuple[str, ...] = ()


@record
class HandedOver:
    """This run has nothing in flight any more and has exported its state; or ``error``: why it could not."""

    at: float
    service: str
    invocation: int
    error: str | None = None


@record
class DrainProgressed:
    """A draining service has so many requests in flight."""

    at: float
    service: str
    invocation: int
    in_flight: int


@record
class ConnectionLost:
    """The stub's connection is gone while its process lives."""

    at: float
    service: str
    invocation: int


@record
class TimerFired:
    """The timer of ``kind`` that was armed for this invocation ran out."""

    at: float
    service: str
    invocation: int
    kind: TimerKind
    jitter: float = 0.0


Event = (
    ServicesRegistered
    | ConfigurationApplied
    | UpdateRequested
    | StartRequested
    | StopRequested
    | RestartRequested
    | PauseRequested
    | ResumeRequested
    | SignalRequested
    | ShutdownRequested
    | RequestAbandoned
    | DemandArose
    | IdleReached
    | ScheduleFired
    | ProcessSpawned
    | MainProcessNamed
    | SpawnFailed
    | ProgramExecuted
    | ReadinessReached
    | ReadinessFailed
    | ReadinessMissed
    | ProcessExited
    | LeftoversGone
    | HealthChecked
    | WatchdogPinged
    | WatchdogTriggered
    | TimeoutExtended
    | StopAnnounced
    | HookEnded
    | StubConnected
    | StubReported
    | EndpointOpened
    | InterfaceChecked
    | HandedOver
    | DrainProgressed
    | ConnectionLost
    | TimerFired
)
