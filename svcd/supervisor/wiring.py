"""The typed messages and the links between svcd's own parts (guardian, controller, collector, launchers).

Must stay stdlib-only and free of policy: the guardian imports it.

Every link is one end of an ``AF_UNIX SOCK_SEQPACKET`` socketpair. A message is JSON: ``{"type": <class name>,
...fields}``, with descriptors as SCM_RIGHTS. A message larger than ``INLINE_LIMIT_BYTES`` travels as a memfd, first of
the descriptors.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from array import array
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from svcd.record import field, field_names, record

INLINE_LIMIT_BYTES: Final = 32 * 1024

# ---- controller -> launcher / fork server (their direct link) ------------------------------------------------


@record
class SpawnRequested:
    """Make one process. ``argv`` None: run the remote-service stub in a fork of this very process (fork server).

    ``env`` is the complete environment. ``streams`` has one or two entries {"stream": "stdout"|"stderr", "path":
    absolute path of the log file, "max_size_bytes", "keep", and "announced": true where the collector is to send a
    ``StreamBegan``}; stderr goes where stdout goes if it has no entry of its own; no entry at all: output is discarded
    (/dev/null). ``cgroup``: absolute path of the cgroup v2 directory to be
    born in, or None. ``stub``: argument of ``worker_runtime.stub.main`` (JSON), for Python services only.

    ``targets``: the numbers at which the process finds the descriptors that come with this message, in their order: 1
    and 2 where there are no ``streams``, and any from 3 on; at most ``MAX_DESCRIPTORS`` less one, which the message
    itself may need. ``pid_variables``: names of
    environment variables whose value is the process' own pid.
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
    targets: tuple[int, ...] = ()
    pid_variables: tuple[str, ...] = ()


# ---- launcher / fork server -> controller -----------------------------------------------------------------------


@record
class ProgramExecuted:
    """exec succeeded (or the stub's main began). Comes after ``ProcessBorn`` was sent to the guardian."""

    service: str
    invocation: int


@record
class SpawnRejected:
    """No program runs. ``born``: a process did exist and ends; its ``ProcessReaped`` comes as for every other.

    ``stage``: "fork", "cgroup", "descriptors", "user", "workdir", "exec", ...; ``errno`` 0 when none applies.
    """

    service: str
    invocation: int
    born: bool
    stage: str
    errno: int
    reason: str


@record
class PreloadBegan:
    """A fork server with a preload set begins to import ``module``; ``part`` is its own name."""

    part: str
    module: str


@record
class PreloadEnded:
    """All modules are imported and the fork server is fit to fork; or ``refusal`` says why it never will be, and
    ``module`` because of which one. It then waits to be dismissed.

    ``watched``: what the modules came from, path -> [mtime in nanoseconds, size]: once one of these is another, so may
    the modules be.
    """

    part: str
    module: str = ""
    refusal: str = ""
    watched: dict[str, Any] = field(default_factory=dict)


# ---- launcher / fork server -> guardian -> controller -------------------------------------------------------------


@record
class ProcessBorn:
    """A service's process exists; it is the guardian's child. It does nothing before this was sent.

    To the guardian: descriptors are [pidfd, read end per entry of ``streams``]. To the controller: [pidfd].
    """

    service: str
    invocation: int
    pid: int
    streams: tuple[dict[str, Any], ...] = ()


# ---- guardian -> controller ---------------------------------------------------------------------------------------


@record
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


@record
class PartStarted:
    """A part of svcd runs. With one descriptor, the controller's end of its direct link, for those that have one."""

    part: str
    pid: int


@record
class PartEnded:
    part: str
    pid: int
    code: int | None
    signal: int | None


@record
class SignalReceived:
    """The guardian got SIGTERM, SIGINT or SIGHUP: ``signal`` is the number."""

    signal: int


# ---- controller -> guardian ---------------------------------------------------------------------------------------


@record
class ClusterEnded:
    """Nothing runs any more: end the parts, clear the run directory, exit with this code."""

    exit_code: int


@record
class PartRequested:
    """Start this launcher or fork server, unless it is there. ``settings`` are added to its argument.

    One whose name has a number ("fork-server.3") is not started again when it ends: ``PartEnded`` says so, and the next
    one gets another number. ``PartEnded`` with pid 0: it could not be started.
    """

    part: str
    settings: dict[str, Any] = field(default_factory=dict)


@record
class PartDismissed:
    """Kill this fork server (one with a number): nobody needs it any more, and it owns nothing."""

    part: str


# ---- guardian -> collector, collector -> guardian -------------------------------------------------------------------


@record
class StreamOpened:
    """One read end to collect. ``stream_id`` is the guardian's; ``target`` is the entry of ``ProcessBorn.streams``."""

    stream_id: int
    service: str
    invocation: int
    target: dict[str, Any]


@record
class StreamEnded:
    """Every writer is gone and every byte is in the file: the guardian closes its copy."""

    stream_id: int


# ---- controller <-> collector (their direct link) -----------------------------------------------------------------


@record
class FlushRequested:
    """Write out all that this service's pipes hold now, then answer. ``tail_bytes``: how much of the end
    to send along.
    """

    token: int
    service: str
    tail_bytes: int = 4096


@record
class Flushed:
    """``tail``: stream name -> the last bytes of that stream's file, from the last run on, decoded with "replace"."""

    token: int
    service: str
    tail: dict[str, str] = field(default_factory=dict)


@record
class StreamBegan:
    """All that earlier runs have written is in the file ``path``; what comes now is this run's. With one descriptor of
    the file, for reading, at its end; with none when it could not be opened.
    """

    service: str
    invocation: int
    stream: str
    path: str


@record
class OutputLost:
    """Bytes that could not be written (disk full). Cumulative since the last such message."""

    service: str
    stream: str
    lost_bytes: int
    reason: str


# ---- encoding -------------------------------------------------------------------------------------------------------


class WiringError(Exception):
    """Not a message between parts: a bug, or a part of another version."""


MESSAGE_TYPES: Final[dict[str, type]] = {
    each.__name__: each
    for each in (
        SpawnRequested,
        ProgramExecuted,
        SpawnRejected,
        PreloadBegan,
        PreloadEnded,
        ProcessBorn,
        ProcessReaped,
        PartStarted,
        PartEnded,
        SignalReceived,
        ClusterEnded,
        PartRequested,
        PartDismissed,
        StreamOpened,
        StreamEnded,
        FlushRequested,
        Flushed,
        StreamBegan,
        OutputLost,
    )
}
_to_json: Final = json.JSONEncoder(separators=(",", ":")).encode  # made once: json.dumps makes one for each message
_from_json: Final = json.JSONDecoder().decode
_FIELDS: Final = {kind: field_names(kind) for kind in MESSAGE_TYPES.values()}


def encode(message: Any) -> bytes:
    """The bytes of a message. Raises ``WiringError`` for anything else."""
    kind = type(message)
    if kind not in _FIELDS:
        raise WiringError(f"{kind.__name__} is no message between parts")
    fields = {name: getattr(message, name) for name in _FIELDS[kind]}
    try:
        return _to_json({"type": kind.__name__, **fields}).encode()
    except (TypeError, ValueError) as error:
        raise WiringError(f"{kind.__name__} cannot be sent: {error}") from None


def decode(data: bytes) -> Any:
    """The message in ``data``. Raises ``WiringError`` when there is none."""
    try:
        fields = _from_json(data.decode())
        kind = MESSAGE_TYPES[fields.pop("type")]
        return kind(**{name: tuple(value) if type(value) is list else value for name, value in fields.items()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WiringError(f"no message between parts: {error!r}") from None


# ---- links ----------------------------------------------------------------------------------------------------------

MAX_DESCRIPTORS: Final = 16
MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
CONTROL_BYTES: Final = socket.CMSG_SPACE(MAX_DESCRIPTORS * array("i").itemsize)
MEMFD: Final = b"memfd"
F_ADD_SEALS: Final = 1033
EVERY_SEAL: Final = 0b1111
OTHER_END_GONE: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF})


class Link:
    """One end of a socketpair between two parts; never blocks.

    A SEQPACKET socket takes few unread messages (net.unix.max_dgram_qlen, often 10), so what it does not take now
    waits here: while ``wants_write``, call ``flush`` when the socket is writable. ``closed`` is set when the other
    end is gone and all that it had said was received: that a message cannot be sent any more is no reason to miss
    what lies unread.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._queue: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._unheard = False  # nobody reads at the other end any more
        self.closed = False

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def wants_write(self) -> bool:
        return bool(self._queue)

    @property
    def unheard(self) -> bool:
        """Nobody will receive what is sent from now on."""
        return self._unheard or self.closed

    def send(self, message: Any, fds: tuple[int, ...] = ()) -> None:
        """Send now or later. ``fds`` stay the caller's, who may close them at once. Raises ``WiringError`` for what
        is no message, ``OSError`` when no descriptors are left for keeping it.
        """
        if self.unheard:
            return
        data = encode(message)
        if len(data) <= INLINE_LIMIT_BYTES:
            self._put(data, fds)
            return
        memfd = _sealed(data)
        try:
            self._put(MEMFD, (memfd, *fds))
        finally:
            os.close(memfd)

    def flush(self) -> bool:
        """Send what waits; True when nothing does any more."""
        while self._queue and self._try_send(*self._queue[0]):
            for fd in self._queue.popleft()[1]:
                os.close(fd)
        if self._unheard:
            self._forget()
        return not self._queue

    def receive(self) -> list[tuple[Any, list[int]]]:
        """Everything that has arrived, with the descriptors sent along; they are the caller's now.

        What is no message closes the link, as the end of the other side does: the two do not understand each other.
        """
        found: list[tuple[Any, list[int]]] = []
        while not self.closed:
            try:
                data, controls, _, _ = self._socket.recvmsg(
                    INLINE_LIMIT_BYTES, CONTROL_BYTES, socket.MSG_CMSG_CLOEXEC
                )  # socket.recv_fds forgets its flags
                fds = list(array("i", b"".join(content for _, _, content in controls)))
            except BlockingIOError:
                break
            except ConnectionResetError:
                # told once, and before what the other end had sent: it closed without having read all of ours
                continue
            except OSError:
                data, fds = b"", []
            try:
                if data:
                    found.append((decode(_whole(data, fds)), fds))
                    continue
            except (WiringError, OSError):
                pass
            self.closed = True
            _close_all(fds)
            self._forget()
        return found

    def close(self) -> None:
        """Close the socket; what still waits is dropped."""
        self.closed = True
        self._forget()
        self._socket.close()

    def _put(self, data: bytes, fds: tuple[int, ...]) -> None:
        if not self._queue and self._try_send(data, fds):
            return
        copies: list[int] = []
        try:
            for fd in fds:
                copies.append(os.dup(fd))
        except OSError:
            _close_all(copies)
            raise
        self._queue.append((data, tuple(copies)))

    def _try_send(self, data: bytes, fds: tuple[int, ...]) -> bool:
        """False when there is no room now. To nobody there is always room."""
        try:
            if fds:
                socket.send_fds(self._socket, (data,), fds)
            else:
                self._socket.send(data)
        except OSError as error:
            self._unheard = error.errno in OTHER_END_GONE
            return self._unheard
        return True

    def _forget(self) -> None:
        for _, fds in self._queue:
            _close_all(fds)
        self._queue.clear()


def _sealed(data: bytes) -> int:
    """A memfd that holds ``data`` and can only be read: its size cannot change under the reader."""
    memfd = os.memfd_create("svcd-message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(memfd, "wb", closefd=False) as file:
            file.write(data)
        fcntl.fcntl(memfd, F_ADD_SEALS, EVERY_SEAL)
    except OSError:
        os.close(memfd)
        raise
    return memfd


def _whole(data: bytes, fds: list[int]) -> bytes:
    """The message itself: what was received, or what is in the memfd that came first."""
    if data != MEMFD:
        return data
    if not fds:
        raise WiringError("a long message came without its memfd")
    with open(fds.pop(0), "rb") as file:
        file.seek(0)
        return file.read(MAX_MESSAGE_BYTES)


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
