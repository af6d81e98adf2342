"""The typed messages and the links between svcd's own parts (guardian, controller, collector, launchers).

Must stay stdlib-only and free of policy: the guardian imports it.

Every link is one end of an ``AF_UNIX SOCK_SEQPACKET`` socketpair. A message is JSON: ``{"type": <class name>, ...fields}``,
with descriptors as SCM_RIGHTS. A message larger than ``INLINE_LIMIT_BYTES`` travels as a memfd, first of the
descriptors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

INLINE_LIMIT_BYTES: Final = 32 * 1024

# ---- controller -> launcher / fork server (their direct link) ------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpawnRequested:
    """Make one process. ``argv`` None: run the remote-service stub in a fork of this very process (fork server).

    ``env`` is the complete environment. ``streams`` has one or two entries {"stream": "stdout"|"stderr", "path":
    absolute path of the log file, "max_size_bytes", "keep"}; stderr goes where stdout goes if it has no entry of its
    own; no entry at all: output is discarded (/dev/null). ``cgroup``: absolute path of the cgroup v2 directory to be
    born in, or None. ``stub``: argument of ``worker_runtime.stub.main`` (JSON), for Python services only.
    """

    service: str
    invocation: int
    title: str
    argv: tuple[str, ...] | None
    env: dict[str, str]
    workdir: str
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    umask: int | None = None
    streams: tuple[dict[str, Any], ...] = ()
    cgroup: str | None = None
    stub: dict[str, Any] | None = None


# ---- launcher / fork server -> controller -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProgramExecuted:
    """exec succeeded (or the stub's main began). Comes after ``ProcessBorn`` was sent to the guardian."""

    service: str
    invocation: int


@dataclass(frozen=True, slots=True)
class SpawnRejected:
    """No program runs. ``born``: a process did exist and ends; its ``ProcessReaped`` comes as for every other.

    ``stage``: "fork", "cgroup", "session", "user", "workdir", "output", "exec", ...; ``errno`` 0 when none applies.
    """

    service: str
    invocation: int
    born: bool
    stage: str
    errno: int
    reason: str


# ---- launcher / fork server -> guardian -> controller -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProcessBorn:
    """A service's process exists; it is the guardian's child. It does nothing before this was sent.

    To the guardian: descriptors are [pidfd, read end per entry of ``streams``]. To the controller: [pidfd].
    """

    service: str
    invocation: int
    pid: int
    streams: tuple[dict[str, Any], ...] = ()


# ---- guardian -> controller ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProcessReaped:
    """A child of the guardian ended. ``service``/``invocation`` None: an adopted orphan, nobody's main process.

    Exactly one of ``code`` and ``signal`` is set. Times are seconds of CPU, ``max_rss_bytes`` the peak.
    """

    pid: int
    service: str | None
    invocation: int | None
    code: int | None
    signal: int | None
    user_s: float = 0.0
    system_s: float = 0.0
    max_rss_bytes: int = 0


@dataclass(frozen=True, slots=True)
class PartStarted:
    """A part of svcd runs. With one descriptor, the controller's end of its direct link, for those that have one."""

    part: str
    pid: int


@dataclass(frozen=True, slots=True)
class PartEnded:
    part: str
    pid: int
    code: int | None
    signal: int | None


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """The guardian got SIGTERM, SIGINT or SIGHUP: ``signal`` is the number."""

    signal: int


# ---- controller -> guardian ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClusterEnded:
    """Nothing runs any more: end the parts, clear the run directory, exit with this code."""

    exit_code: int


# ---- guardian -> collector, collector -> guardian -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """One read end to collect. ``stream_id`` is the guardian's; ``target`` is the entry of ``ProcessBorn.streams``."""

    stream_id: int
    service: str
    invocation: int
    target: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """Every writer is gone and every byte is in the file: the guardian closes its copy."""

    stream_id: int


# ---- controller <-> collector (their direct link) -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FlushRequested:
    """Write out all that this service's pipes hold now, then answer. ``tail_bytes``: how much of the end
    to send along.
    """

    token: int
    service: str
    tail_bytes: int = 4096


@dataclass(frozen=True, slots=True)
class Flushed:
    """``tail``: stream name -> the last bytes of that stream's file, from the last run on, decoded with "replace"."""

    token: int
    service: str
    tail: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutputLost:
    """Bytes that could not be written (disk full). Cumulative since the last such message."""

    service: str
    stream: str
    lost_bytes: int
    reason: str
