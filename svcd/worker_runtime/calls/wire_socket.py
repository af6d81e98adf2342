"""One connected Unix socket of the data plane in this process' loop: messages in, messages out, its end told once.

Must not know what messages mean. Only the thread that runs the loop may use it.

Out: what is said within one turn of the loop goes out in one system call; what the kernel does not take waits here, and
``backlog_bytes`` says how much that is, for whoever can wait or drop. What has not begun to go out can be withdrawn.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from svcd.protocol import zmtp
from svcd.protocol.limits import MAX_BUFFERS, MAX_HEAD_BYTES, MAX_SOCKET_PATH_BYTES
from svcd.protocol.zmtp import BadPeer
from svcd.protocol.zmtp_large import LARGE_BYTES, Frame, Receiver

READ_BYTES: Final = 65536
READS: Final = 16  # of one turn: a peer that never stops must not starve the others
TURN_MESSAGES: Final = 64  # of one turn, or what has come with one read
RUN_MESSAGES: Final = 16  # so many go out before the turn is over: the peer works on them meanwhile
MAX_PIECES: Final = 64  # of one sendmsg
SEND_BUFFER_BYTES: Final = 1024 * 1024
LOW_WATER_BYTES: Final = 256 * 1024
WITHDRAWN_KEPT: Final = 1024  # places of unsaid messages in a queue that does not move, until they are cleared away

_CREDENTIALS: Final = struct.Struct("3i")
_FRAMES: Final = MAX_BUFFERS + 3  # a topic, a head, a value, its buffers


class Peer(NamedTuple):
    """Who is at the other end, by the kernel's word: of a caller, when it connected; of a listener, when it began."""

    pid: int
    uid: int
    gid: int


class Handlers(NamedTuple):
    """``ready``: the handshake is over. ``taken``: a message. ``lost``: the end, in words; never after ``close``."""

    ready: Callable[[], None]
    taken: Callable[[list[Frame]], None]
    lost: Callable[[str], None]


def peer_of(connected: socket.socket) -> Peer:
    """SO_PEERCRED, see unix(7)."""
    return Peer(*_CREDENTIALS.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)))


def dial(path: str) -> socket.socket:
    """A socket that is connected to ``path``. Raises ``OSError``; ``BlockingIOError``: too many wait to be accepted."""
    _check_path(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        made.connect(path)
    except OSError:
        made.close()
        raise
    return made


ANYBODY: Final = 0o666  # who may connect is asked when they do
PASSING: Final = 0o711  # as the controller makes the directories of other users' services


def listen(path: str, backlog: int) -> socket.socket:
    """A socket that listens on ``path``, which must not be there yet; its directory may be made by this. Raises
    ``OSError``.
    """
    _check_path(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _make_directory(os.path.dirname(path))
        made.bind(path)
        os.chmod(path, ANYBODY)
        made.listen(backlog)
    except OSError:
        made.close()
        raise
    return made


def _make_directory(path: str) -> None:
    try:
        os.mkdir(path, PASSING)
    except FileExistsError:
        return
    os.chmod(path, PASSING)  # whatever the umask is


def _check_path(path: str) -> None:
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise OSError(f"{path} is longer than the {MAX_SOCKET_PATH_BYTES} bytes of a socket's address")


class Outgoing:
    """One message that is said. ``withdrawn`` only while nothing of it is on its way."""

    __slots__ = ("begun", "frames", "size_bytes", "withdrawn")

    def __init__(self) -> None:
        self.frames: Sequence[Frame] | bytes = ()  # bytes: packed already, as small messages are
        self.size_bytes = 0
        self.begun = False
        self.withdrawn = False


class WireSocket:
    """``say_at_once``: whether a message may go out in the turn in which it is said: best where few are under way."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connected: socket.socket,
        socket_type: bytes,
        limit_bytes: int,
        handlers: Handlers,
    ) -> None:
        self._loop = loop
        self._socket = connected
        self._fd = connected.fileno()
        self._handlers = handlers
        self._receiver = Receiver(limit_bytes, _FRAMES, MAX_HEAD_BYTES)
        self._queue: deque[Outgoing | bytes] = deque()  # bytes: what nobody can withdraw
        self._withdrawn = 0  # of those in the queue
        self._pieces: deque[Frame] = deque()  # of what is on its way
        self._sizes: list[int] = []  # bytes of each message in the run that these are the rest of
        self._came: deque[list[Frame]] = deque()  # and is to be handed over
        self._finishing = False  # all that has come is taken
        self._taking = False  # what has come: at its end, what was said meanwhile goes out
        self._flushing = False  # at the end of this turn
        self._writing = False  # as soon as the kernel takes more
        self._drained: list[asyncio.Future[None]] = []
        self.backlog_bytes = 0
        self.say_at_once = False
        self.is_open = True
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._pieces.append(zmtp.hello(socket_type))
        loop.add_reader(self._fd, self._read)
        self._flush()

    @property
    def peer(self) -> Peer:
        return peer_of(self._socket)

    def say(self, frames: Sequence[Frame], said: Outgoing | None = None) -> Outgoing:
        """Say a message, now or when the handshake is over and all before it is out. ``said``: what is to stand for it
        until then, by default something new.
        """
        if said is None:
            said = Outgoing()
        packed = zmtp.pack_short(frames)
        if packed is None:
            said.frames, said.size_bytes = frames, sum(map(len, frames))
        else:
            said.frames, said.size_bytes = packed, len(packed)
        self._put(said, said.size_bytes)
        return said

    def say_for_good(self, frames: Sequence[Frame]) -> None:
        """``say`` what nobody will withdraw: it needs nothing to stand for it, if it is small."""
        packed = zmtp.pack_short(frames)
        if packed is None:
            self.say(frames)
        else:
            self._put(packed, len(packed))

    def _put(self, said: Outgoing | bytes, size_bytes: int) -> None:
        self.backlog_bytes += size_bytes
        self._queue.append(said)
        if self._writing:
            return
        if len(self._queue) >= RUN_MESSAGES or (self.say_at_once and not (self._flushing or self._taking)):
            self._flush()
        elif not (self._flushing or self._taking):
            self._flushing = True
            self._loop.call_soon(self._flush_turn)

    def withdraw(self, said: Outgoing) -> bool:
        """Unsay what has not begun to go out; whether that was so."""
        if said.begun:
            return False
        if not said.withdrawn:
            said.withdrawn = True
            self.backlog_bytes -= said.size_bytes
            said.frames, said.size_bytes = (), 0
            self._withdrawn += 1
            if self._withdrawn > max(WITHDRAWN_KEPT, len(self._queue) // 2):
                self._queue = deque(each for each in self._queue if isinstance(each, bytes) or not each.withdrawn)
                self._withdrawn = 0
        return True

    async def wait_drained(self) -> None:
        """Until little waits to go out, or the connection is over."""
        if self.backlog_bytes <= LOW_WATER_BYTES or not self.is_open:
            return
        drained = self._loop.create_future()
        self._drained.append(drained)
        await drained

    def finish(self, last: Callable[[], Sequence[Frame]]) -> None:
        """Take what has come, say a last message behind all that waits, if the kernel takes it; then ``close``."""
        if self.is_open:
            self._finishing = True
            self._hand_over([])
        if self.is_open:
            self._read()  # the peer's side of the handshake, perhaps: before it nothing can be said
        if self.is_open:
            self.say(last())
            self._flush()
            self.close()

    @property
    def half_out(self) -> int:
        """How many messages have begun to go out, with others in one piece perhaps, and are not out whole."""
        left, count = sum(map(len, self._pieces)), 0
        for size in reversed(self._sizes):
            if left <= 0:
                break
            left -= size
            count += 1
        return count

    def flush(self) -> None:
        """What waits goes out now, as far as the kernel takes it."""
        self._flush()

    def close(self) -> None:
        """At once; what waits is lost, and nobody is told."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._socket.close()
        self._queue.clear()
        self._pieces.clear()
        self._came.clear()
        self._release()

    def _lose(self, why: str) -> None:
        if self.is_open:
            self.close()
            self._handlers.lost(why)

    def _release(self) -> None:
        drained, self._drained = self._drained, []
        for each in drained:
            if not each.done():
                each.set_result(None)

    # ---- out ---------------------------------------------------------------------------------------------------------

    def _flush_turn(self) -> None:
        self._flushing = False
        if not self._writing:
            self._flush()

    def _flush(self) -> None:
        if not self.is_open:
            return
        try:
            while self._next_pieces():
                self._sent(self._socket.sendmsg([*self._pieces][:MAX_PIECES], (), socket.MSG_NOSIGNAL))
        except BlockingIOError:
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._fd, self._flush)
            return
        except OSError:  # the end: the reader finds it too, after what was said to us before
            self._queue.clear()
            self._withdrawn = 0
            self._pieces.clear()
            self.backlog_bytes = 0
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)

    def _next_pieces(self) -> bool:
        """Whether there is anything to send: of small messages as many as fit in one call."""
        queue = self._queue
        if self._pieces or not queue or not self._receiver.is_ready:
            return bool(self._pieces)
        run: list[Frame] = []
        sizes: list[int] = []
        total = 0
        while queue and total < READ_BYTES:
            said = queue.popleft()
            if isinstance(said, bytes):
                run.append(said)
                sizes.append(len(said))
                total += len(said)
                continue
            if said.withdrawn:
                self._withdrawn -= 1
                continue
            said.begun = True
            total += said.size_bytes
            if isinstance(said.frames, bytes):
                run.append(said.frames)
                sizes.append(said.size_bytes)
            else:
                pieces = zmtp.pack_pieces(said.frames, LARGE_BYTES)
                run += pieces
                sizes.append(sum(map(len, pieces)))
            said.frames = ()
        self.backlog_bytes -= total
        self._sizes = sizes
        if len(run) > 1 and total < READ_BYTES:
            self._pieces.append(b"".join(run))
        else:
            self._pieces.extend(run)
        if self._drained and self.backlog_bytes <= LOW_WATER_BYTES:
            self._release()
        return bool(self._pieces)

    def _sent(self, count: int) -> None:
        pieces = self._pieces
        while pieces and count >= len(pieces[0]):
            count -= len(pieces.popleft())
        if count:
            pieces[0] = memoryview(pieces[0])[count:]

    # ---- in ----------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        receiver = self._receiver
        try:
            for _ in range(READS):
                if receiver.room is not None:
                    count = self._socket.recv_into(receiver.room)
                    is_last = count < len(receiver.room) and count < READ_BYTES
                    found = receiver.filled(count) if count else []
                else:
                    data = self._socket.recv(READ_BYTES)
                    count = len(data)
                    is_last = count < READ_BYTES
                    found = receiver.feed(data) if count else []
                if not count:
                    self._lose("it has closed the connection")
                    return
                self._taken(found)
                is_enough = is_last or (len(found) >= TURN_MESSAGES and not self._finishing)
                if not self.is_open or (is_enough and receiver.room is None):
                    return
        except BlockingIOError:
            return
        except BadPeer as error:
            self._lose(f"it sent {error}")
        except OSError as error:
            self._lose(error.strerror or type(error).__name__)

    def _taken(self, found: list[list[Frame]]) -> None:
        receiver = self._receiver
        if receiver.answers:
            self._pieces.append(receiver.answers)  # between two messages' pieces, or behind the last: never within one
            receiver.answers = b""
            self._flush()
        if found:
            self._hand_over(found)
            if not self.is_open:
                return
        if not self._told_ready and receiver.is_ready:
            self._told_ready = True
            self._handlers.ready()
            self._flush()

    def _hand_over(self, found: list[list[Frame]]) -> None:
        """One after the other, also where one of them has this ``finish``: what came first is taken first. What the
        handlers say to it goes out in one call, or in runs, if it is much.
        """
        came, taken, was_taking = self._came, self._handlers.taken, self._taking
        came.extend(found)
        self._taking = True
        try:
            while came:  # until the end, which clears it
                taken(came.popleft())
        finally:
            self._taking = was_taking
        if self._queue and not self._writing:
            self._flush()

    _told_ready = False
