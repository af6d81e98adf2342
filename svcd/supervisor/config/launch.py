"""How a process of a service is made: the mechanical half of its configuration, fully resolved.

Must not hold policy (``core.spec`` has that) and must not look anything up: no environment, no files, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from svcd.supervisor.core.spec import ServiceSpec


@dataclass(frozen=True, slots=True)
class Program:
    """Any executable: ``argv[0]`` is looked up on the service's PATH. A string command is ``/bin/sh -c``
    here already.
    """

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PythonCode:
    """Code for the remote-service stub. Exactly one of ``entry`` (module:name), ``script`` (absolute path), ``code``.

    ``path``: absolute directories, put on ``sys.path`` before everything else. ``interpreter``: absolute path of
    another Python, or None for a fork of the warm server. ``config``: JSON values, handed to ``init(config)``.
    """

    entry: str | None = None
    script: str | None = None
    code: str | None = None
    path: tuple[str, ...] = ()
    interpreter: str | None = None
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """Where the output goes. ``driver`` "none" discards it. Sizes are bytes."""

    driver: str = "file"
    max_size_bytes: int = 10 * 1024 * 1024
    keep: int = 5
    merge_stderr: bool = False


@dataclass(frozen=True, slots=True)
class ReadyProbe:
    """What the shell needs to watch for readiness. Used with ``ReadyKind`` DELAY and TCP."""

    delay_s: float | None = None
    tcp_host: str | None = None
    tcp_port: int | None = None


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """Everything that the shell needs to run one service.

    ``env`` is complete except for what svcd adds at each spawn (SVCD_*, NOTIFY_SOCKET). ``uid``/``gid`` None: svcd's
    own; ``groups``: the supplementary groups to set, when a user is given. ``umask`` None: svcd's own.
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


@dataclass(frozen=True, slots=True)
class ServiceDefinition:
    spec: ServiceSpec
    launch: LaunchSpec


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """A whole, validated cluster. ``files``: the absolute paths that it was read from, in layer order.

    ``max_parallel``: services in their start at the same time, 0 for no bound.
    """

    name: str
    files: tuple[str, ...]
    services: tuple[ServiceDefinition, ...]
    max_parallel: int = 0
    controller_timeout_s: float = 30.0
