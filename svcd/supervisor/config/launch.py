"""How a process of a service is made: the mechanical half of its configuration, fully resolved.

Must not hold policy (``core.spec`` has that) and must not look anything up: no environment, no files, no clock.
"""

from __future__ import annotations

from typing import Any

from svcd.record import field, record
from svcd.supervisor.core.spec import ServiceSpec


@record
class Program:
    """Any executable: ``argv[0]`` is looked up on the service's PATH. A string command is ``/bin/sh -c``
    here already.
    """

    argv: tuple[str, ...]


@record
class PythonCode:
    """Code for the remote-service stub. Exactly one of ``entry`` (module:name), ``script`` (absolute path), ``code``.

    ``path``: absolute directories, put on ``sys.path`` before everything else. ``interpreter``: absolute path of
    another Python, or None for a fork of the warm server. ``config``: JSON values, handed to ``init(config)``.
    ``runtime``: what the files say of its threads and processes, where that is not the default; ``runtime_variables``:
    what the SVCD_RUNTIME_* of its environment say instead.
    ``preload``: modules that a fork server has imported before; ``preload_auto``: those that its record says.
    """

    entry: str | None = None
    script: str | None = None
    code: str | None = None
    path: tuple[str, ...] = ()
    interpreter: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    runtime: dict[str, Any] = field(default_factory=dict)
    runtime_variables: dict[str, Any] = field(default_factory=dict)
    preload: tuple[str, ...] = ()
    preload_auto: bool = False


@record
class LogPolicy:
    """Where the output goes. ``driver`` "none" discards it. Sizes are bytes."""

    driver: str = "file"
    max_size_bytes: int = 10 * 1024 * 1024
    keep: int = 5
    merge_stderr: bool = False


@record
class HttpTarget:
    """An http or https URL that answers with ``status``, and with a body in which ``body`` (a regular expression)
    is found.
    """

    url: str
    status: int = 200
    body: str | None = None


@record
class ReadyProbe:
    """What the shell needs to watch for readiness: the field that ``ReadyKind`` asks for.

    ``argv``: a command that exits with 0. ``pattern``: a regular expression that is found in the output.
    ``notification_fd``: the descriptor on which the service writes a newline. ``interval_s``: between two tries.
    """

    delay_s: float | None = None
    tcp_host: str | None = None
    tcp_port: int | None = None
    http: HttpTarget | None = None
    argv: tuple[str, ...] | None = None
    pattern: str | None = None
    notification_fd: int | None = None
    interval_s: float = 0.1


@record
class HealthProbe:
    """What the shell needs to check health: exactly one of tcp, ``http``, ``argv`` and ``method`` (of a Python
    service: returns None or True when healthy). A check without an answer within ``timeout_s`` has failed.
    """

    tcp_host: str | None = None
    tcp_port: int | None = None
    http: HttpTarget | None = None
    argv: tuple[str, ...] | None = None
    method: str | None = None
    interval_s: float = 10.0
    timeout_s: float = 3.0


@record
class HookCommand:
    """A command that runs as the service would: its user, environment, directory and logs."""

    argv: tuple[str, ...]
    timeout_s: float = 30.0


@record
class SocketSpec:
    """A socket that svcd listens on for the service: ``path`` (a Unix socket, absolute) or ``host`` and ``port``.

    ``name`` goes into LISTEN_FDNAMES. ``type``: "stream" or "dgram". ``host`` is a number, ``localhost``, or None for
    every address. ``mode``: of a Unix socket's file, which belongs to the service's user and group.
    """

    name: str
    type: str = "stream"
    host: str | None = None
    port: int | None = None
    path: str | None = None
    mode: int = 0o660


def address(spec: SocketSpec) -> str:
    """For people: "127.0.0.1:80", "[::1]:80", "*:80", "unix:/run/x"; datagram sockets say so."""
    if spec.path is not None:
        where = f"unix:{spec.path}"
    else:
        host = f"[{spec.host}]" if spec.host is not None and ":" in spec.host else spec.host or "*"
        where = f"{host}:{spec.port}"
    return where if spec.type == "stream" else f"{where} ({spec.type})"


@record
class Schedule:
    """When a task runs: a cron expression of five fields, in local time, or an interval. Exactly one is set."""

    cron: str | None = None
    every_s: float | None = None


@record
class StatePolicy:
    """Whether a Python service's state is kept over its runs, and how often it is saved beside its stops; 0: never."""

    keep: bool = False
    every_s: float = 30.0


@record
class LaunchSpec:
    """Everything that the shell needs to run one service.

    ``env`` is complete except for what svcd adds at each spawn (SVCD_*, NOTIFY_SOCKET). ``uid``/``gid`` None: svcd's
    own; ``groups``: the supplementary groups to set, when a user is given. ``umask`` None: svcd's own. ``hooks``: by
    the value of ``core.spec.Hook``. ``port``: what {port} was replaced by, for those who look. ``may_call``: services
    (names of the file) that it may call without depending on them; ``max_children``: child services at a time.
    ``hot_update``: changes are brought in by a successor beside the run that serves, where that can be. ``given``: keys
    ("python", "version", "config") whose values are not the files', but were told to ``svcd update``.
    """

    run: Program | PythonCode
    workdir: str
    env: dict[str, str] = field(default_factory=dict)
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    umask: int | None = None
    logs: LogPolicy = field(default_factory=LogPolicy)
    probe: ReadyProbe = field(default_factory=ReadyProbe)
    tags: tuple[str, ...] = ()
    health: HealthProbe | None = None
    hooks: dict[str, HookCommand] = field(default_factory=dict)
    sockets: tuple[SocketSpec, ...] = ()
    idle_timeout_s: float | None = None
    schedule: Schedule | None = None
    port: int | None = None
    may_call: tuple[str, ...] = ()
    max_children: int = 0
    state: StatePolicy = field(default_factory=StatePolicy)
    version: str | None = None
    hot_update: bool = False
    given: tuple[str, ...] = ()


@record
class ServiceDefinition:
    """One service, or one instance of one: ``service`` is the name in the file, ``spec.name`` is that name, with
    ".0", ".1", … when ``instances`` is more than 1 or was scaled.
    """

    spec: ServiceSpec
    launch: LaunchSpec
    service: str = ""
    instance: int = 0
    instances: int = 1


@record
class ClusterSpec:
    """A whole, validated cluster. ``files``: the absolute paths that were named, in layer order.

    ``max_parallel``: services in their start at the same time, 0 for no bound. ``environ``: what every service's
    environment began as. ``profiles``: those that were chosen. ``scales``: service -> number of instances, where it is
    not the file's. The last three are what a later load must be given to mean the same.
    """

    name: str
    files: tuple[str, ...]
    services: tuple[ServiceDefinition, ...]
    max_parallel: int = 0
    controller_timeout_s: float = 30.0
    environ: dict[str, str] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    scales: dict[str, int] = field(default_factory=dict)
