"""What the core needs to know of a service: its validated, immutable policy.

Must not know how a process is made (arguments, environment, user): that is ``config.launch``.
Durations are seconds; signals are numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


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


class ReadyKind(Enum):
    """How a service shows that others may use it."""

    IMMEDIATE = "immediate"  # spawned and exec'ed (programs), stub connected (scripts)
    STARTED = "started"  # start() returned (Python services)
    DELAY = "delay"
    NOTIFY = "notify"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class Dependency:
    """An edge from a dependent to the service that it depends on.

    ``condition`` RUNNING is also met by a task (``ServiceType.TASK``) that has completed.
    """

    target: str
    kind: DependencyKind = DependencyKind.REQUIRES
    condition: Condition = Condition.RUNNING
    on_crash: OnCrash = OnCrash.RESTART


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays between restarts: ``initial_s * factor**n``, at most ``max_s``, spread by ±``jitter`` (0 to 1)."""

    initial_s: float = 0.1
    factor: float = 2.0
    max_s: float = 30.0
    jitter: float = 0.1


@dataclass(frozen=True, slots=True)
class Intensity:
    """At most ``restarts`` restarts in any window of ``within_s`` seconds; None: unlimited."""

    restarts: int | None = 5
    within_s: float = 60.0


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When and how soon a service that ended by itself is started again.

    ``success_codes`` and ``prevent_codes`` hold exit codes; ``prevent_signals`` holds signal numbers.
    """

    mode: RestartMode = RestartMode.ON_FAILURE
    backoff: Backoff = field(default_factory=Backoff)
    intensity: Intensity = field(default_factory=Intensity)
    reset_after_s: float = 10.0
    success_codes: frozenset[int] = frozenset({0})
    prevent_codes: frozenset[int] = frozenset()
    prevent_signals: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class StopPolicy:
    """How a service is asked to end, and how long it may take before everything of it gets SIGKILL."""

    signal: int = 15
    timeout_s: float = 10.0
    drain_timeout_s: float = 10.0
    drain_grace_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A service as the core sees it.

    ``ready_timeout_s`` bounds everything from the spawn to ``running``: not ready in time is a failed start.
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
