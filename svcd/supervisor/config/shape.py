"""The shape of a cluster.yaml: every block, its keys, their types and defaults. Schema and reference come from here.

Must not check anything that needs more than the value itself: files, users and other services are ``resolve``'s.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from svcd.supervisor.config.leaves import (
    PYTHON,
    SEEING,
    SEMANTICS,
    Account,
    Address,
    Code,
    Command,
    Config,
    Duration,
    Entry,
    Environment,
    Factor,
    FileList,
    Flag,
    Jitter,
    Kept,
    Later,
    Name,
    Parallel,
    Path,
    PathList,
    PositiveDuration,
    PositiveSize,
    PreventCodes,
    Restarts,
    Shorthand,
    Signal,
    SuccessCodes,
    Tags,
    Umask,
    choice,
)
from svcd.supervisor.config.tree import kind_of
from svcd.supervisor.config.units import RefusedError, near_miss
from svcd.supervisor.core.spec import Condition, DependencyKind, OnCrash, RestartMode, ServiceType, StartMode

RUN_KEYS: Final = ("command", "python", "script", "code")
READY_KEYS: Final = ("immediate", "delay", "notify", "tcp", "notification-fd", "http", "exec", "log")
READY_WORDS: Final = ("immediate", "notify")
PYTHON_ONLY_KEYS: Final = ("path", "interpreter", "config")


class LogDriver(Enum):
    FILE = "file"
    NONE = "none"


class StartWord(Enum):
    """``StartMode`` and the words of it that come later."""

    EAGER = "eager"
    MANUAL = "manual"
    ON_DEMAND = "on_demand"
    PRELOAD = "preload"


class Block(BaseModel):
    """A mapping with known keys. A key that holds nothing (``key:``) is as good as not written."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)
    example: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, value: Any) -> Any:
        if isinstance(value, dict) and None in value.values():
            known = key_names(cls)
            return {key: item for key, item in value.items() if item is not None or key not in known}
        return value


_KEY_NAMES: Final[dict[type, dict[str, str]]] = {}


def key_names(block: type[Block]) -> dict[str, str]:
    """Key as written -> attribute."""
    if block not in _KEY_NAMES:
        _KEY_NAMES[block] = {field.alias or name: name for name, field in block.model_fields.items()}
    return _KEY_NAMES[block]


class Backoff(Block):
    example: ClassVar[str] = "{initial: 100ms, factor: 2, max: 30s, jitter: 0.1}"

    initial: Duration = Field(default=0.1, description="Delay before the second restart in a row.")
    factor: Factor = Field(default=2.0, description="Each further delay is so many times longer.")
    max: Duration = Field(default=30.0, description="No delay is longer.")
    jitter: Jitter = Field(
        default=0.1, description="Share by which delays are spread, so that services do not move in step."
    )


class Intensity(Block):
    example: ClassVar[str] = "{restarts: 5, within: 60s}"

    restarts: Restarts = Field(
        default=5, description="So many restarts are allowed; `unlimited` switches the limit off."
    )
    within: PositiveDuration = Field(
        default=60.0, description="Length of the sliding window in which they are counted."
    )


class Restart(Block):
    example: ClassVar[str] = "{policy: always}"

    policy: Annotated[RestartMode, choice(RestartMode)] | None = Field(
        default=None, description="`always`, `on-failure` or `never`. Default: `on-failure`; tasks: `never`."
    )
    backoff: Backoff = Field(default=Backoff(), description="Delays between restarts.")
    intensity: Intensity = Field(
        default=Intensity(), description="How many restarts within what time; then `unavailable`."
    )
    reset_after: Duration = Field(
        default=10.0,
        description="After running for so long the next crash counts as a first one, and restarts at once.",
    )
    success_codes: SuccessCodes = Field(default=(0,), description="Exit codes that are no failure.")
    prevent_codes: PreventCodes = Field(
        default=(), description="Exit codes or signal names after which nothing restarts it."
    )


class Stop(Block):
    example: ClassVar[str] = "{signal: SIGTERM, timeout: 10s}"

    signal: Signal = Field(default=15, description="Name or number, sent to the process group. Default: `SIGTERM`.")
    timeout: Duration = Field(default=10.0, description="Then SIGKILL to everything that the service has started.")
    drain_timeout: Annotated[None, Later(PYTHON, "10s")] = None
    drain_grace: Annotated[None, Later(PYTHON, "0s", 0)] = None


class Logs(Block):
    example: ClassVar[str] = "{max_size: 10MiB, keep: 5}"

    max_size: PositiveSize = Field(default=10 * 1024 * 1024, description="Per file.")
    keep: Kept = Field(default=5, description="Rotated files that are kept.")
    merge_stderr: Flag = Field(default=False, description="Write stderr into stdout's file.")
    driver: Annotated[LogDriver, choice(LogDriver)] = Field(
        default=LogDriver.FILE, description="`file`, or `none` to discard the output."
    )
    max_age: Annotated[None, Later(SEEING)] = None
    compress: Annotated[None, Later(SEEING, False)] = None


class Ready(Block):
    example: ClassVar[str] = "{tcp: 127.0.0.1:6379, timeout: 10s}"

    immediate: Flag | None = Field(
        default=None, description="As soon as it is executed (`script:`: as the stub is connected)."
    )
    delay: Duration | None = Field(default=None, description="It has lived for so long.")
    notify: Flag | None = Field(default=None, description="It says `READY=1` on `NOTIFY_SOCKET` (sd_notify).")
    tcp: Address | None = Field(default=None, description="A TCP connection to `host:port` succeeds.")
    timeout: PositiveDuration = Field(default=60.0, description="Not ready in time is a failed start.")
    notification_fd: Annotated[None, Later(SEMANTICS)] = Field(default=None, alias="notification-fd")
    http: Annotated[None, Later(SEMANTICS)] = None
    exec: Annotated[None, Later(SEMANTICS)] = None
    log: Annotated[None, Later(SEMANTICS)] = None
    status: Annotated[None, Later(SEMANTICS)] = None
    body: Annotated[None, Later(SEMANTICS)] = None
    interval: Annotated[None, Later(SEMANTICS)] = None


class Edge(Block):
    example: ClassVar[str] = "{kind: requires}"

    kind: Annotated[DependencyKind, choice(DependencyKind)] = Field(
        default=DependencyKind.REQUIRES, description="`requires`, `wants` or `after`."
    )
    condition: Annotated[Condition, choice(Condition, later={"healthy": SEMANTICS})] = Field(
        default=Condition.RUNNING, description="What it must have reached: `spawned`, `running` or `completed` (tasks)."
    )
    on_crash: Annotated[OnCrash, choice(OnCrash)] | None = Field(
        default=None, description="With `requires`: `restart` (default), `notify` or `ignore`."
    )


def _expand_ready(value: Any) -> Any:
    if isinstance(value, dict | Ready):
        return value
    if not isinstance(value, str):
        text = f"must be a word or a mapping, not {kind_of(value)}"
        raise RefusedError(text, f"write immediate, notify, or a mapping such as {Ready.example}")
    if value in READY_WORDS:
        return {value: True}
    if value in READY_KEYS:
        example = {"delay": "{delay: 300ms}", "tcp": Ready.example}.get(value)
        if example:
            raise RefusedError(f"{value} needs a value", f"write ready: {example}")
        return {value: True}
    near = near_miss(value, READY_KEYS[:4])
    raise RefusedError(f'"{value[:80]}" is no kind of readiness', near or "use immediate, delay, notify or tcp")


def _expand_dependencies(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: {} if edge is None else edge for name, edge in value.items()}
    if not isinstance(value, list):
        suggestion = f"write [{value}]" if isinstance(value, str) else "write one such as [db]"
        raise RefusedError(f"must be a list or a mapping, not {kind_of(value)}", suggestion)
    bad, edges = [], dict[str, dict[str, Any]]()
    for index, name in enumerate(value):
        if not isinstance(name, str):
            text = f"must be the name of a service, not {kind_of(name)}"
            bad.append(RefusedError(text, "for a kind or condition use a mapping: {db: {kind: wants}}", (index,)))
        elif name in edges:
            bad.append(RefusedError(f"{name} is named twice", "remove one of the two", (index,)))
        else:
            edges[name] = {}
    if bad:
        raise RefusedError(bad[0].text, bad[0].suggestion, bad[0].at, tuple(bad[1:]))
    return edges


_NAMES_SCHEMA: Final = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}

ReadyOrWord = Annotated[Ready, Shorthand(_expand_ready, "word or mapping", {"enum": list(READY_WORDS)})]
Dependencies = Annotated[dict[str, Edge], Shorthand(_expand_dependencies, "list or mapping of services", _NAMES_SCHEMA)]
_RUNTIME: Final = {"compute_threads": 2, "max_blocking_threads": 8, "stack_size": "2MiB", "thread_prefix": "compute"}


class Service(Block):
    example: ClassVar[str] = "{command: [python3, server.py]}"

    command: Command | None = Field(
        default=None, description="A list is executed as it is; a string runs in `/bin/sh -c`."
    )
    python: Entry | None = Field(default=None, description="`module:Class` or `module:function`, run in the stub.")
    script: Path | None = Field(default=None, description="A Python file, run as `__main__` in the stub.")
    code: Code | None = Field(
        default=None, description="Python code: one `Service` subclass, or a function `main(ctx)`."
    )
    path: PathList | None = Field(
        default=None, description="Python: directories put first on `sys.path`. Default: the workdir."
    )
    interpreter: Path | None = Field(
        default=None, description="Python: another interpreter, such as `.venv/bin/python`."
    )
    config: Config | None = Field(default=None, description="Python: handed to `init(config)`.")
    type: Annotated[ServiceType, choice(ServiceType)] = Field(
        default=ServiceType.SERVICE, description="`service`, or `task`, which runs to completion."
    )
    start: Annotated[StartWord, choice(StartWord, later={"on_demand": SEMANTICS, "preload": SEMANTICS})] = Field(
        default=StartWord.EAGER,
        description="`eager`: with the cluster; `manual`: when asked for, or needed by another.",
    )
    workdir: Path | None = Field(default=None, description="Default: the directory of the file.")
    env: Environment | None = Field(
        default=None,
        description="Variables. Numbers and booleans become the text that was written; null removes a variable.",
    )
    env_file: FileList | None = Field(default=None, description="A file, or a list of files, with `NAME=value` lines.")
    user: Account | None = Field(default=None, description="Name or uid. Default: svcd's own.")
    group: Account | None = Field(default=None, description="Name or gid. Default: the user's, or svcd's own.")
    umask: Umask | None = Field(default=None, description="Octal, in quotes. Default: svcd's own.")
    tags: Tags = Field(default=(), description="Words of your own, shown by `svcd status --json`.")
    depends_on: Dependencies = Field(default={}, description="List of names, or mapping from name to edge.")
    ready: ReadyOrWord | None = Field(
        default=None,
        description="How it shows that others may use it. Default: `immediate`; Python services: `start` ended.",
    )
    restart: Restart = Field(default=Restart(), description="Whether and how it comes back after ending by itself.")
    stop: Stop = Field(default=Stop(), description="How it is asked to end.")
    logs: Logs = Field(default=Logs(), description="Where its output goes.")

    health: Annotated[None, Later(SEMANTICS)] = None
    watchdog: Annotated[None, Later(SEMANTICS)] = None
    essential: Annotated[None, Later(SEMANTICS, False)] = None
    fallback: Annotated[None, Later(SEMANTICS)] = None
    idle_timeout: Annotated[None, Later(SEMANTICS)] = None
    sockets: Annotated[None, Later(SEMANTICS, [])] = None
    instances: Annotated[None, Later(SEMANTICS, 1)] = None
    schedule: Annotated[None, Later(SEMANTICS)] = None
    overlap: Annotated[None, Later(SEMANTICS)] = None
    hooks: Annotated[None, Later(SEMANTICS, {})] = None
    pause: Annotated[None, Later(SEMANTICS, {}, {"signal": None, "resume_signal": None})] = None
    profiles: Annotated[None, Later(SEMANTICS, [])] = None
    preload: Annotated[None, Later(PYTHON, [])] = None
    state: Annotated[None, Later(PYTHON, "none")] = None
    version: Annotated[None, Later(PYTHON)] = None
    update: Annotated[None, Later(PYTHON, "restart")] = None
    runtime: Annotated[None, Later(PYTHON, {}, _RUNTIME)] = None
    permissions: Annotated[
        None, Later(PYTHON, {}, {"services": []}, {"spawn": False}, {"services": [], "spawn": False})
    ] = None


class Cluster(Block):
    example: ClassVar[str] = "{services: {web: {command: [python3, server.py]}}}"

    cluster: Name | None = Field(
        default=None, description="Names the run and state directories. Default: the name of the file's directory."
    )
    max_parallel: Parallel = Field(default=0, description="Starts at the same time; 0: as many as are independent.")
    controller_timeout: PositiveDuration = Field(
        default=30.0, description="How long stubs wait for a controller that is away."
    )
    defaults: Service = Field(
        default=Service(), description="Any key of a service, merged under each service, mappings key by key."
    )
    services: dict[str, Service] = Field(description="Name: service. Names are letters, digits, - and _.")
    include: Annotated[None, Later(SEMANTICS, [])] = None


BLOCKS: Final[dict[str, type[Block]]] = {
    "": Cluster,
    "services.NAME": Service,
    "services.NAME.depends_on.NAME": Edge,
    "services.NAME.ready": Ready,
    "services.NAME.restart": Restart,
    "services.NAME.restart.backoff": Backoff,
    "services.NAME.restart.intensity": Intensity,
    "services.NAME.stop": Stop,
    "services.NAME.logs": Logs,
}
"""Every block, by the place where it stands."""

START_MODES: Final = {StartWord.EAGER: StartMode.EAGER, StartWord.MANUAL: StartMode.MANUAL}
