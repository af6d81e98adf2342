"""The shape of a cluster.yaml: every block, its keys, their types and defaults. Schema and reference come from here.

Must not check anything that needs more than the value itself: files, users and other services are ``resolve``'s.
"""

# no annotations from __future__: here they are what the blocks are made of

from enum import Enum
from typing import Annotated, Any, ClassVar, Final

from svcd.supervisor.config.block import Block, key
from svcd.supervisor.config.leaves import (
    SEEING,
    Account,
    BlockingThreads,
    Children,
    Code,
    Command,
    ComputeThreads,
    Config,
    Descriptor,
    Duration,
    Entry,
    Environment,
    Factor,
    FileList,
    FileMode,
    Flag,
    HttpStatus,
    Instances,
    Jitter,
    Kept,
    Later,
    Name,
    NameList,
    Parallel,
    Path,
    PathList,
    PositiveDuration,
    PositiveSize,
    Preload,
    PreventCodes,
    Restarts,
    Shorthand,
    Signal,
    StackSize,
    SuccessCodes,
    Tags,
    ThreadPrefix,
    Threshold,
    Umask,
    Version,
    choice,
)
from svcd.supervisor.config.targets import CRON_SCHEMA, Address, Cron, Listen, Method, Pattern, SocketName, Url
from svcd.supervisor.config.tree import kind_of
from svcd.supervisor.config.units import RefusedError, near_miss
from svcd.supervisor.config.words import (
    MAX_CHILDREN,
    READY_EXAMPLES,
    READY_WORDS,
    LogDriver,
    UpdateMode,
    expand_dependencies,
    expand_ready,
    expand_spawn,
)
from svcd.supervisor.core.spec import (
    Condition,
    DependencyKind,
    HealthAction,
    OnCrash,
    Overlap,
    RestartMode,
    ServiceType,
    StartMode,
)

MAX_INSTANCES: Final = 1000
STATE_WORDS: Final = ("none", "keep")
PYTHON_ONLY_KEYS: Final = ("path", "interpreter", "preload", "config", "state", "version")
PROGRAM_ONLY_KEYS: Final = ("sockets", "pause")


class ComputeIn(Enum):
    THREADS = "threads"
    PROCESSES = "processes"


class SocketType(Enum):
    STREAM = "stream"
    DGRAM = "dgram"


class Backoff(Block):
    example: ClassVar[str] = "{initial: 100ms, factor: 2, max: 30s, jitter: 0.1}"

    initial: Duration = key(default=0.1, description="Delay before the first restart that is not immediate.")
    factor: Factor = key(default=2.0, description="Each further delay is so many times longer.")
    max: Duration = key(default=30.0, description="No delay is longer.")
    jitter: Jitter = key(
        default=0.1, description="Share by which delays are spread, so that services do not move in step."
    )


class Intensity(Block):
    example: ClassVar[str] = "{restarts: 5, within: 60s}"

    restarts: Restarts = key(default=5, description="So many restarts are allowed; `unlimited` switches the limit off.")
    within: PositiveDuration = key(default=60.0, description="Length of the sliding window in which they are counted.")


_Mode = Annotated[RestartMode, choice(RestartMode)]


class ByCause(Block):
    example: ClassVar[str] = "{health: always, signal: never}"

    exit: _Mode | None = key(default=None, description="It ended by itself once it was ready, with an exit code.")
    signal: _Mode | None = key(default=None, description="A signal killed it once it was ready, and was not svcd's.")
    start: _Mode | None = key(
        default=None, description="It could not be executed, was not ready in time, or ended before it was."
    )
    health: _Mode | None = key(default=None, description="Its health checks failed.")
    watchdog: _Mode | None = key(default=None, description="Its watchdog ran out.")


class Restart(Block):
    example: ClassVar[str] = "{policy: always}"

    policy: _Mode | None = key(
        default=None, description="`always`, `on-failure` or `never`. Default: `on-failure`; tasks: `never`."
    )
    backoff: Backoff = key(default=Backoff(), description="Delays between restarts.")
    intensity: Intensity = key(
        default=Intensity(), description="How many restarts within what time; then `unavailable`."
    )
    reset_after: Duration = key(
        default=10.0,
        description="After running for so long the next crash counts as a first one, and restarts at once.",
    )
    success_codes: SuccessCodes = key(default=(0,), description="Exit codes that are no failure.")
    prevent_codes: PreventCodes = key(
        default=(), description="Exit codes or signal names after which nothing restarts it."
    )
    by_cause: ByCause = key(default=ByCause(), description="Another `policy` for some ways to end.")


class Stop(Block):
    example: ClassVar[str] = "{signal: SIGTERM, timeout: 10s}"

    signal: Signal = key(default=15, description="Name or number, sent to the process group. Default: `SIGTERM`.")
    timeout: Duration = key(default=10.0, description="Then SIGKILL to everything that the service has started.")
    drain_timeout: Duration = key(
        default=10.0, description="Python: how long requests in flight may take before it is told to stop."
    )
    drain_grace: Duration = key(
        default=0.0, description="Python: for so long late requests are still served, once nobody finds it any more."
    )


class Logs(Block):
    example: ClassVar[str] = "{max_size: 10MiB, keep: 5}"

    max_size: PositiveSize = key(default=10 * 1024 * 1024, description="Per file.")
    keep: Kept = key(default=5, description="Rotated files that are kept.")
    merge_stderr: Flag = key(default=False, description="Write stderr into stdout's file.")
    driver: Annotated[LogDriver, choice(LogDriver)] = key(
        default=LogDriver.FILE, description="`file`, or `none` to discard the output."
    )
    max_age: Annotated[None, Later(SEEING)] = None
    compress: Annotated[None, Later(SEEING, False)] = None


class Ready(Block):
    example: ClassVar[str] = READY_EXAMPLES["tcp"]

    immediate: Flag | None = key(
        default=None, description="As soon as it is executed (`script:`: as the stub is connected)."
    )
    delay: Duration | None = key(default=None, description="It has lived for so long.")
    notify: Flag | None = key(default=None, description="It says `READY=1` on `NOTIFY_SOCKET` (sd_notify).")
    tcp: Address | None = key(default=None, description="A TCP connection to `host:port` succeeds.")
    timeout: PositiveDuration = key(
        default=60.0,
        description="Not ready in time is a failed start; so is an end before that, whatever the exit code. "
        "A longer `delay` is added to it.",
    )
    notification_fd: Descriptor | None = key(
        default=None,
        spelled="notification-fd",
        description="It writes a line to that descriptor (programs; as s6 has it).",
    )
    http: Url | None = key(
        default=None, description="A GET is answered with `status`, and with a body that fits `body`."
    )
    exec: Command | None = key(default=None, description="A command exits with 0; a list or, for a shell, a string.")
    log: Pattern | None = key(default=None, description="It is found in a line of its output.")
    status: HttpStatus | None = key(default=None, description="Of `http`. Default: 200.")
    body: Pattern | None = key(default=None, description="Of `http`: it is found in the body.")
    interval: PositiveDuration = key(default=0.1, description="Between two tries of `tcp`, `http` and `exec`.")


class Health(Block):
    example: ClassVar[str] = "{http: 'http://127.0.0.1:80/ok', interval: 10s}"

    http: Url | None = key(
        default=None, description="A GET is answered with `status`, and with a body that fits `body`."
    )
    tcp: Address | None = key(default=None, description="A TCP connection to `host:port` succeeds.")
    exec: Command | None = key(default=None, description="A command exits with 0; a list or, for a shell, a string.")
    rpc: Method | None = key(
        default=None,
        description="Python services: a method of the service that returns nothing, or true, when all is well.",
    )
    status: HttpStatus | None = key(default=None, description="Of `http`. Default: 200.")
    body: Pattern | None = key(default=None, description="Of `http`: it is found in the body.")
    interval: PositiveDuration = key(default=10.0, description="Between two checks.")
    timeout: PositiveDuration = key(default=3.0, description="A check without an answer in time has failed.")
    failure_threshold: Threshold = key(default=3, description="So many failures in a row: unhealthy.")
    success_threshold: Threshold = key(default=1, description="So many successes in a row: healthy.")
    start_period: Duration = key(default=0.0, description="Failures so soon after `running` do not count.")
    on_failure: Annotated[HealthAction, choice(HealthAction)] = key(
        default=HealthAction.RESTART, description="`restart` it when it is unhealthy, or only `report` it."
    )


class Socket(Block):
    example: ClassVar[str] = "{name: web, listen: '127.0.0.1:8080'}"

    name: SocketName | None = key(default=None, description="For LISTEN_FDNAMES. Default: the service's name.")
    listen: Listen = key(description="Where svcd listens; `*` is every address.")
    type: Annotated[SocketType, choice(SocketType)] = key(
        default=SocketType.STREAM, description="`stream`, or `dgram` (UDP, or a Unix datagram socket)."
    )
    mode: FileMode = key(default=0o660, description="Of a Unix socket's file; octal, in quotes.")


class Hook(Block):
    example: ClassVar[str] = "{command: [./migrate], timeout: 30s}"

    command: Command = key(description="A list is executed as it is; a string runs in `/bin/sh -c`.")
    timeout: PositiveDuration = key(default=30.0, description="Then it is killed, and has failed.")


def _expand_hook(value: Any) -> Any:
    return {"command": value} if isinstance(value, str | list) else value


_COMMAND_SHORT: Final = {"type": ["string", "array"]}
_HookOrCommand = Annotated[Hook, Shorthand(_expand_hook, "command or mapping", _COMMAND_SHORT)]


class Hooks(Block):
    example: ClassVar[str] = "{pre_start: {command: [./migrate], timeout: 30s}}"

    pre_start: _HookOrCommand | None = key(default=None, description="Before the start; its failure is a failed start.")
    post_start: _HookOrCommand | None = key(
        default=None, description="Once it is ready, before others use it; its failure is a failed start."
    )
    pre_stop: _HookOrCommand | None = key(default=None, description="Before it is told to stop.")
    post_stop: _HookOrCommand | None = key(default=None, description="Once nothing of it is left.")
    on_failure: _HookOrCommand | None = key(default=None, description="When it is `failed` or `unavailable`.")


class Pause(Block):
    example: ClassVar[str] = "{signal: SIGUSR1, resume_signal: SIGUSR2}"

    signal: Signal | None = key(default=None, description="Pauses a program. Default: SIGSTOP.")
    resume_signal: Signal | None = key(default=None, description="Resumes it. Default: SIGCONT.")


class Runtime(Block):
    example: ClassVar[str] = "{compute_threads: 4}"

    compute: Annotated[ComputeIn, choice(ComputeIn)] = key(
        default=ComputeIn.THREADS,
        description="What `ctx.compute()` runs functions in. Pure Python gains nothing from several `threads`, but "
        "from `processes`; arguments and results are pickled then.",
    )
    compute_threads: ComputeThreads = key(
        default=2,
        description="At most so many of them. 0: none; `ctx.compute()` uses the threads of `ctx.blocking()`.",
    )
    max_blocking_threads: BlockingThreads = key(
        default=8,
        description="At most so many threads for `ctx.blocking()` and the service's plain methods together, of which "
        "each leaves the other at least one.",
    )
    stack_size: StackSize = key(default=2 * 1024 * 1024, description="Of each thread that computes.")
    thread_prefix: ThreadPrefix = key(default="compute", description="Of their names: `compute-0` and so on.")


class Schedule(Block):
    example: ClassVar[str] = "{every: 10m}"

    cron: Cron | None = key(default=None, description="Minute, hour, day, month, day of the week; local time.")
    every: PositiveDuration | None = key(default=None, description="So long after svcd's start, and again and again.")
    overlap: Annotated[Overlap, choice(Overlap)] = key(
        default=Overlap.SKIP,
        description="When the run before still goes on: `skip` this one, `queue` one more, or `kill` the one before.",
    )


def _expand_schedule(value: Any) -> Any:
    return {"cron": value} if isinstance(value, str) else value


class State(Block):
    example: ClassVar[str] = "{keep: true, every: 30s}"

    keep: Flag = key(default=True, description="Whether its state is saved and restored.")
    every: Duration = key(
        default=30.0, description="It is saved so often, and at each orderly stop; 0: at the stop only."
    )


def _expand_state(value: Any) -> Any:
    if isinstance(value, dict | State):
        return value
    if value in STATE_WORDS:
        return {"keep": value == "keep"}
    near = near_miss(value, STATE_WORDS) if isinstance(value, str) else ""
    shown = f'"{value[:80]}"' if isinstance(value, str) else kind_of(value)
    raise RefusedError(f"{shown} is not one of {', '.join(STATE_WORDS)}", near or f"write keep, or {State.example}")


class Edge(Block):
    example: ClassVar[str] = "{kind: requires}"

    kind: Annotated[DependencyKind, choice(DependencyKind)] = key(
        default=DependencyKind.REQUIRES, description="`requires`, `wants` or `after`."
    )
    condition: Annotated[Condition, choice(Condition)] = key(
        default=Condition.RUNNING,
        description="What it must have reached: `spawned`, `running`, `healthy` or `completed` (tasks).",
    )
    on_crash: Annotated[OnCrash, choice(OnCrash)] | None = key(
        default=None, description="With `requires`: `restart` (default), `notify` or `ignore`."
    )


def _expand_ready(value: Any) -> Any:
    return value if isinstance(value, Ready) else expand_ready(value)


_NAMES_SCHEMA: Final = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}

ReadyOrWord = Annotated[Ready, Shorthand(_expand_ready, "word or mapping", {"enum": list(READY_WORDS)})]
Dependencies = Annotated[dict[str, Edge], Shorthand(expand_dependencies, "list or mapping of services", _NAMES_SCHEMA)]
StateOrWord = Annotated[State, Shorthand(_expand_state, "`none`, `keep` or mapping", {"enum": list(STATE_WORDS)})]
ScheduleOrCron = Annotated[Schedule, Shorthand(_expand_schedule, "cron line or mapping", CRON_SCHEMA)]


class Spawn(Block):
    example: ClassVar[str] = "{max: 10}"

    max: Children = key(default=0, description="Child services that it may have at a time.")


_SpawnOrFlag = Annotated[Spawn, Shorthand(expand_spawn, "true, false or mapping", {"type": "boolean"})]


class Permissions(Block):
    example: ClassVar[str] = "{services: [mailer], spawn: {max: 10}}"

    services: NameList = key(default=(), description="Services that it may call without depending on them.")
    spawn: _SpawnOrFlag = key(
        default=Spawn(),
        description=f"Whether it may have child services; `true`: up to {MAX_CHILDREN} at a time.",
    )


class Service(Block):
    example: ClassVar[str] = "{command: [python3, server.py]}"

    command: Command | None = key(
        default=None, description="A list is executed as it is; a string runs in `/bin/sh -c`."
    )
    python: Entry | None = key(default=None, description="`module:Class` or `module:function`, run in the stub.")
    script: Path | None = key(default=None, description="A Python file, run as `__main__` in the stub.")
    code: Code | None = key(default=None, description="Python code: one `Service` subclass, or a function `main(ctx)`.")
    path: PathList | None = key(
        default=None, description="Python: directories put first on `sys.path`. Default: the workdir."
    )
    interpreter: Path | None = key(default=None, description="Python: another interpreter, such as `.venv/bin/python`.")
    preload: Preload = key(
        default=(),
        description="Python: modules that are imported once, before the service is forked; `auto`: those that took "
        "long when it was loaded before.",
    )
    config: Config | None = key(default=None, description="Python: handed to `init(config)`.")
    state: StateOrWord | None = key(
        default=None,
        description="Python: `keep` saves what `export_state()` returns, and hands it to `import_state()` of the next "
        "start. Default: `none`.",
    )
    version: Version | None = key(
        default=None, description="Python: of the service, in words of your own; shown, and saved with its state."
    )
    runtime: Runtime = key(
        default=Runtime(),
        description="`python:` and `code:`: what `ctx.compute()` and `ctx.blocking()` run in.",
    )
    type: Annotated[ServiceType, choice(ServiceType)] = key(
        default=ServiceType.SERVICE, description="`service`, or `task`, which runs to completion."
    )
    start: Annotated[StartMode, choice(StartMode)] = key(
        default=StartMode.EAGER,
        description="`eager`: with the cluster; `manual`: when asked for, or needed by another; `on_demand`: at the "
        "first call (Python), or connection to one of its `sockets`; `preload`: loaded with the cluster, started as "
        "`manual` (Python).",
    )
    workdir: Path | None = key(default=None, description="Default: the directory of the file.")
    env: Environment | None = key(
        default=None,
        description="Variables. Numbers and booleans become the text that was written; null removes a variable.",
    )
    env_file: FileList | None = key(default=None, description="A file, or a list of files, with `NAME=value` lines.")
    user: Account | None = key(default=None, description="Name or uid. Default: svcd's own.")
    group: Account | None = key(default=None, description="Name or gid. Default: the user's, or svcd's own.")
    umask: Umask | None = key(default=None, description="Octal, in quotes. Default: svcd's own.")
    tags: Tags = key(default=(), description="Words of your own, shown by `svcd status --json`.")
    depends_on: Dependencies = key(default={}, description="List of names, or mapping from name to edge.")
    ready: ReadyOrWord | None = key(
        default=None,
        description="How it shows that others may use it. Default: `immediate`; Python services: `start` ended.",
    )
    restart: Restart = key(default=Restart(), description="Whether and how it comes back after ending by itself.")
    stop: Stop = key(default=Stop(), description="How it is asked to end.")
    logs: Logs = key(default=Logs(), description="Where its output goes.")

    health: Health | None = key(default=None, description="Whether it still does its work. Default: not asked.")
    watchdog: PositiveDuration | None = key(
        default=None,
        description="Within each such time programs say `WATCHDOG=1` on `NOTIFY_SOCKET`; a Python service's event loop "
        "turns.",
    )
    essential: Flag = key(default=False, description="Its final failure drains the cluster; svcd exits with 1.")
    fallback: Name | None = key(
        default=None, description="The service that stands in while this one is `failed` or `unavailable`."
    )
    sockets: list[Socket] = key(
        default=[], description="Programs: svcd listens, and hands the sockets over (LISTEN_FDS)."
    )
    idle_timeout: PositiveDuration | None = key(
        default=None, description="`start: on_demand` only: it is stopped when nobody has used it for so long."
    )
    instances: Instances = key(default=1, description="So many of it run, as `NAME.0`, `NAME.1` and so on.")
    schedule: ScheduleOrCron | None = key(default=None, description="When a task runs.")
    hooks: Hooks = key(default=Hooks(), description="Commands of its own for moments of its life.")
    pause: Pause = key(default=Pause(), description="Programs: how `svcd pause` and `svcd resume` tell it.")
    profiles: NameList = key(
        default=(), description="It is there only when one of these is chosen (`--profile`). Default: always."
    )

    update: Annotated[UpdateMode, choice(UpdateMode)] = key(
        default=UpdateMode.RESTART,
        description="How a change of what a process has got is brought in by `apply` and SIGHUP: `restart`, or `hot`: "
        "a new version takes over in place (`python:`, `code:`, and programs with `sockets`).",
    )
    permissions: Permissions = key(
        default=Permissions(), description="What it may do beyond calling what it depends on."
    )


class Cluster(Block):
    example: ClassVar[str] = "{services: {web: {command: [python3, server.py]}}}"

    cluster: Name | None = key(
        default=None, description="Names the run and state directories. Default: the name of the file's directory."
    )
    max_parallel: Parallel = key(default=0, description="Starts at the same time; 0: as many as are independent.")
    controller_timeout: PositiveDuration = key(
        default=30.0, description="How long stubs wait for a controller that is away."
    )
    defaults: Service = key(
        default=Service(),
        description="Any key of a service, merged under each service, mappings key by key.",
    )
    services: dict[str, Service] = key(description="Name: service. Names are letters, digits, - and _.")
    include: FileList = key(default=(), description="Further files, relative to this one, which this one is laid over.")


BLOCKS: Final[dict[str, type[Block]]] = {
    "": Cluster,
    "services.NAME": Service,
    "services.NAME.depends_on.NAME": Edge,
    "services.NAME.ready": Ready,
    "services.NAME.health": Health,
    "services.NAME.restart": Restart,
    "services.NAME.restart.backoff": Backoff,
    "services.NAME.restart.intensity": Intensity,
    "services.NAME.restart.by_cause": ByCause,
    "services.NAME.stop": Stop,
    "services.NAME.sockets": Socket,
    "services.NAME.runtime": Runtime,
    "services.NAME.schedule": Schedule,
    "services.NAME.state": State,
    "services.NAME.hooks": Hooks,
    "services.NAME.hooks.NAME": Hook,
    "services.NAME.pause": Pause,
    "services.NAME.logs": Logs,
    "services.NAME.permissions": Permissions,
    "services.NAME.permissions.spawn": Spawn,
}
"""Every block, by the place where it stands."""
