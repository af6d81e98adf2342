"""What the core needs to know of a service: its validated, immutable policy.

Must not know how a process is made (arguments, environment, user): that is ``config.launch``.
Durations are seconds; signals are numbers.
"""

from __future__ import annotations

from enum import Enum

from svcd.record import field, record


class Runner(Enum):
    """What runs inside the service's process."""

    PROGRAM = "program"  # any executable, as it is
    PYTHON = "python"  # code inside the remote-service stub


class ServiceType(Enum):
    SERVICE = "service"
    TASK = "task"  # runs to completion


class StartMode(Enum):
    EAGER = "eager"  # with the cluster
    MANUAL = "manual"  # when asked, or when something that requires or wants it starts
    ON_DEMAND = "on_demand"  # at the first connection to one of its sockets, or as MANUAL
    PRELOAD = "preload"  # loaded with the cluster, started as MANUAL (Python services)


class DependencyKind(Enum):
    REQUIRES = "requires"
    WANTS = "wants"
    AFTER = "after"


class Condition(Enum):
    """What a dependency must have reached before its dependent may start."""

    SPAWNED = "spawned"
    RUNNING = "running"
    HEALTHY = "healthy"
    COMPLETED = "completed"


class OnCrash(Enum):
    """What the crash of a required dependency does to its dependent."""

    RESTART = "restart"
    NOTIFY = "notify"
    IGNORE = "ignore"


class RestartMode(Enum):
    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"


class RunEnd(Enum):
    """How a run that nobody asked to end has ended: what ``RestartPolicy.by_cause`` may tell apart."""

    EXIT = "exit"  # by itself, with an exit code
    SIGNAL = "signal"  # killed by a signal that was not svcd's
    START = "start"  # could not be spawned, or never became ready, however it ended
    HEALTH = "health"  # its health checks failed
    WATCHDOG = "watchdog"  # its watchdog ran out


class HealthAction(Enum):
    """What ``HealthPolicy.failure_threshold`` failures in a row do."""

    RESTART = "restart"
    REPORT = "report"


class Hook(Enum):
    """The moments at which a service's own commands run."""

    PRE_START = "pre_start"  # before the spawn; its failure is a failed start
    POST_START = "post_start"  # once it is ready, before it is running; its failure is a failed start
    PRE_STOP = "pre_stop"  # before it is told to stop; a failure is only told
    POST_STOP = "post_stop"  # once nothing of it is left; a failure is only told
    ON_FAILURE = "on_failure"  # it ended ``failed`` or ``unavailable``; nobody waits for it


class Overlap(Enum):
    """What a scheduled run does when the one before still runs."""

    SKIP = "skip"
    QUEUE = "queue"  # one more run follows, however often the time has come meanwhile
    KILL = "kill"  # the old run is stopped first


class ReadyKind(Enum):
    """How a service shows that others may use it."""

    IMMEDIATE = "immediate"  # spawned and exec'ed (programs), stub connected (scripts)
    STARTED = "started"  # start() returned (Python services)
    DELAY = "delay"
    NOTIFY = "notify"
    NOTIFICATION_FD = "notification-fd"
    TCP = "tcp"
    HTTP = "http"
    EXEC = "exec"
    LOG = "log"


@record
class Dependency:
    """An edge from a dependent to the service that it depends on.

    ``condition`` RUNNING is also met by a task (``ServiceType.TASK``) that has completed. Edges with the same ``group``
    lead to the instances of one service: any one of these is enough.
    """

    target: str
    kind: DependencyKind = DependencyKind.REQUIRES
    condition: Condition = Condition.RUNNING
    on_crash: OnCrash = OnCrash.RESTART
    group: str | None = None


@record
class Backoff:
    """Delays between restarts: ``initial_s * factor**n``, at most ``max_s``, spread by ±``jitter`` (0 to 1)."""

    initial_s: float = 0.1
    factor: float = 2.0
    max_s: float = 30.0
    jitter: float = 0.1


@record
class Intensity:
    """At most ``restarts`` restarts in any window of ``within_s`` seconds; None: unlimited."""

    restarts: int | None = 5
    within_s: float = 60.0


@record
class RestartPolicy:
    """When and how soon a service that ended by itself is started again.

    ``by_cause`` replaces ``mode`` for the ends that it names. ``success_codes`` and ``prevent_codes`` hold exit codes;
    ``prevent_signals`` holds signal numbers.
    """

    mode: RestartMode = RestartMode.ON_FAILURE
    backoff: Backoff = field(default_factory=Backoff)
    intensity: Intensity = field(default_factory=Intensity)
    reset_after_s: float = 10.0
    success_codes: frozenset[int] = frozenset({0})
    prevent_codes: frozenset[int] = frozenset()
    prevent_signals: frozenset[int] = frozenset()
    by_cause: tuple[tuple[RunEnd, RestartMode], ...] = ()


@record
class StopPolicy:
    """How a service is asked to end, and how long it may take before everything of it gets SIGKILL."""

    signal: int = 15
    timeout_s: float = 10.0
    drain_timeout_s: float = 10.0
    drain_grace_s: float = 0.0


@record
class HealthPolicy:
    """What follows from health checks. Failures count from ``start_period_s`` after ``running`` on.

    ``failure_threshold`` failures in a row make a service unhealthy, ``success_threshold`` successes make it healthy.
    """

    failure_threshold: int = 3
    success_threshold: int = 1
    start_period_s: float = 0.0
    on_failure: HealthAction = HealthAction.RESTART


@record
class PausePolicy:
    """The signals that pause and resume a program: SIGSTOP and SIGCONT."""

    signal: int = 19
    resume_signal: int = 18


@record
class ServiceSpec:
    """A service as the core sees it.

    ``ready_timeout_s`` bounds everything from the spawn to ``running``: not ready in time is a failed start.
    ``watchdog_s``: while running it must show within each such time that it is alive. ``essential``: its final failure
    drains the cluster. ``fallback``: the service that stands in while this one is ``failed`` or ``unavailable``.
    ``hooks``: the moments that it has commands for. ``scheduled``: a task that runs when its time has come.
    ``parent``: the service whose present run has created this one; it has a ``requires`` edge to it.
    """

    name: str
    runner: Runner = Runner.PROGRAM
    type: ServiceType = ServiceType.SERVICE
    start: StartMode = StartMode.EAGER
    dependencies: tuple[Dependency, ...] = ()
    ready: ReadyKind = ReadyKind.IMMEDIATE
    ready_timeout_s: float = 60.0
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    stop: StopPolicy = field(default_factory=StopPolicy)
    health: HealthPolicy | None = None
    watchdog_s: float | None = None
    essential: bool = False
    fallback: str | None = None
    hooks: frozenset[Hook] = frozenset()
    pause: PausePolicy = field(default_factory=PausePolicy)
    scheduled: bool = False
    overlap: Overlap = Overlap.SKIP
    parent: str | None = None
