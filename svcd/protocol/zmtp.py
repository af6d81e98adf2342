"""ZMTP 3.0 as the connecting side speaks it: greeting, handshake, frames (https://rfc.zeromq.org/spec/23/).

Must not do I/O, nor know what the frames mean: bytes go in, messages and bytes to answer with come out.

For processes that hold one connection and are many: libzmq takes two threads, four descriptors, half a millisecond and
a megabyte for it. The other side is libzmq. Mechanism NULL: who may speak is decided by the kernel's word on the peer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

Buffer = bytes | bytearray | memoryview

SIGNATURE_BYTES: Final = 10
GREETING_BYTES: Final = 64
MAX_FRAMES: Final = 16  # of one message; svcd's have two
SUBSCRIBE: Final = b"\x01"  # to a publisher, before the beginning of a topic

_MECHANISM: Final = b"NULL".ljust(20, b"\0")
_GREETING: Final = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + _MECHANISM + bytes(32)
_MORE: Final = 1
_LONG: Final = 2
_COMMAND: Final = 4
_RESERVED: Final = 0xF8
_SHORT_LIMIT: Final = 255
_SHORT_MORE: Final = tuple(bytes((_MORE, size)) for size in range(_SHORT_LIMIT + 1))
_SHORT_LAST: Final = tuple(bytes((0, size)) for size in range(_SHORT_LIMIT + 1))


class BadPeer(Exception):  # noqa: N818 - it says what it found
    """The other side does not speak this protocol, or beyond its bounds: nothing for it but to end the connection."""


def hello(socket_type: bytes) -> bytes:
    """What is said first, at once and in one go."""
    ready = b"\x05READY\x0bSocket-Type" + len(socket_type).to_bytes(4) + socket_type
    return _GREETING + _frame(ready, _COMMAND)


def pack(frames: Iterable[bytes]) -> bytes:
    """One message."""
    *first, last = frames
    return b"".join([*(_frame(each, _MORE) for each in first), _frame(last, 0)])


def _frame(body: bytes, flags: int) -> bytes:
    size = len(body)
    if size <= _SHORT_LIMIT:
        return bytes((flags, size)) + body
    return bytes((flags | _LONG,)) + size.to_bytes(8) + body


def is_greeting(data: bytes | bytearray) -> bool:
    """Whether ``data`` begins with a whole greeting; False while it still may. Raises ``BadPeer``."""
    start = bytes(data[:SIGNATURE_BYTES])
    if start[:1] not in (b"", b"\xff") or (len(start) == SIGNATURE_BYTES and start[-1] != 0x7F):
        raise BadPeer("no ZMTP")
    if len(data) < GREETING_BYTES:
        return False
    if data[10] < 3 or bytes(data[12:32]) != _MECHANISM:
        raise BadPeer("another version or mechanism of ZMTP")
    return True


def obey(command: bytes) -> tuple[bool, bytes]:
    """Whether the peer says with ``command`` that it is ready, and what to answer. Raises ``BadPeer``."""
    size = command[0] if command else 0
    name, rest = command[1 : 1 + size], command[1 + size :]
    if name == b"ERROR":
        raise BadPeer(f"it refuses us: {rest[1:].decode('ascii', 'replace')}")
    answer = _frame(b"\x04PONG" + rest[2:], _COMMAND) if name == b"PING" else b""  # without its time to live
    return name == b"READY", answer


def pack_pieces(frames: Sequence[Buffer], own_bytes: int) -> list[Buffer]:
    """One message as pieces to be sent one after the other: what has ``own_bytes`` or more is a piece, uncopied."""
    pieces: list[Buffer] = []
    run, last = bytearray(), len(frames) - 1
    for index, body in enumerate(frames):
        size, flags = len(body), 0 if index == last else _MORE
        run += bytes((flags, size)) if size <= _SHORT_LIMIT else bytes((flags | _LONG,)) + size.to_bytes(8)
        if size < own_bytes:
            run += body
            continue
        pieces += (run, body)
        run = bytearray()
    if run:
        pieces.append(run)
    return pieces


def pack_short(frames: Sequence[Buffer]) -> bytes | None:
    """One message in one piece, if all its frames are short, as most are: None for others."""
    if len(frames) == 2:
        head, body = frames
        head_bytes, body_bytes = len(head), len(body)
        if head_bytes > _SHORT_LIMIT or body_bytes > _SHORT_LIMIT:
            return None
        return b"".join((_SHORT_MORE[head_bytes], head, _SHORT_LAST[body_bytes], body))
    if max(map(len, frames)) > _SHORT_LIMIT:
        return None
    *first, last = frames
    parts: list[Buffer] = []
    for body in first:
        parts += (_SHORT_MORE[len(body)], body)
    return b"".join((*parts, _SHORT_LAST[len(last)], last))


class Incoming:
    """What the peer says, in pieces of any size. ``limit_bytes`` bounds a message, and with it the memory held here.

    ``is_ready``: the handshake is over, the peer understands us. ``answers``: bytes to send before anything else.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = bytearray()
        self._greeted = False
        self._frames: list[bytes] = []
        self._held_bytes = 0
        self.is_ready = False
        self.answers = b""

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The messages, each a list of frames, that are complete with ``data``. Raises ``BadPeer``."""
        self._bytes += data
        if not self._greeted and not self._take_greeting():
            return []
        messages = []
        while (frame := self._next_frame()) is not None:
            flags, body = frame
            if flags & _COMMAND:
                self._obey(body)
            elif not self.is_ready:
                raise BadPeer("a message before its handshake")
            elif self._collect(body, bool(flags & _MORE)):
                messages.append(self._frames)
                self._frames, self._held_bytes = [], 0
        return messages

    def _take_greeting(self) -> bool:
        if not is_greeting(self._bytes):
            return False
        del self._bytes[:GREETING_BYTES]
        self._greeted = True
        return True

    def _next_frame(self) -> tuple[int, bytes] | None:
        data = self._bytes
        if len(data) < 2:
            return None
        flags = data[0]
        if flags & _RESERVED:
            raise BadPeer("a frame with unknown flags")
        if flags & _LONG and len(data) < 9:
            return None
        start = 9 if flags & _LONG else 2
        size = int.from_bytes(data[1:9]) if flags & _LONG else data[1]
        if self._held_bytes + size > self._limit_bytes:
            raise BadPeer(f"a message of more than {self._limit_bytes} bytes")
        if len(data) < start + size:
            return None
        body = bytes(data[start : start + size])
        del data[: start + size]
        return flags, body

    def _collect(self, body: bytes, more: bool) -> bool:
        """Whether the message is complete."""
        self._frames.append(body)
        self._held_bytes += len(body)
        if more and len(self._frames) >= MAX_FRAMES:
            raise BadPeer(f"a message of more than {MAX_FRAMES} frames")
        return not more

    def _obey(self, body: bytes) -> None:
        is_ready, answer = obey(body)
        self.is_ready |= is_ready
        self.answers += answer
