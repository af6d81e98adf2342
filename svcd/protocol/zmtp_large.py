"""ZMTP as in ``zmtp``, for messages of any size: large frames are received where they stay, too large ones are skipped.

Must not do I/O: whoever does reads into ``room`` when there is one, and hands everything else to ``feed``.

No memory is spent on the word of a peer. A message's announced size is checked before any of it is kept, and the place
for a large frame is address space until bytes arrive in it. What exceeds the limit is let pass unkept, so that the
connection, and with it everybody else's calls on it, goes on.
"""

from __future__ import annotations

import mmap
from typing import Final

from svcd.protocol import zmtp
from svcd.protocol.zmtp import BadPeer

Frame = bytes | bytearray | memoryview

LARGE_BYTES: Final = 32 * 1024  # from here on a frame is received where it stays
MAPPED_BYTES: Final = 1024 * 1024
"""From here on its place is a mapping of its own, which costs nothing until it is used."""

REUSED_BYTES: Final = 8 * 1024 * 1024
"""Up to here, who has sent as large a frame before gets memory that was used before: a page fault for each 4 KiB of a
mapping takes longer than what is copied to it."""

_SMALL_FRAMES: Final = 3  # a topic, a head, a value
_SMALL_BYTES: Final = _SMALL_FRAMES * 255  # what a message of so many short frames has at most

_MORE: Final = 1
_LONG: Final = 2
_COMMAND: Final = 4
_RESERVED: Final = 0xF8


class Oversized(list[Frame]):
    """A message that was not kept. It holds the first frame, if that one was small enough."""

    size_bytes = 0


class Receiver:
    """``limit_bytes`` bounds a message, ``max_frames`` its frames, ``first_bytes`` the first of them.

    ``is_ready``: the handshake is over. ``answers``: bytes to send before anything else. ``room``: where the next bytes
    belong, if they belong to a large frame; say with ``filled`` how many there were.
    """

    def __init__(self, limit_bytes: int, max_frames: int, first_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._first_bytes = first_bytes
        self._max_frames = max_frames
        self._rest = b""
        self._greeted = False
        self._frames: list[Frame] = []
        self._count = 0
        self._held_bytes = 0
        self._skip_bytes = 0
        self._skips_message = False
        self._takes_small = False
        self._proven_bytes = 0  # so much this peer has sent in one frame, and of that it may have a place at once
        self._large: memoryview | None = None
        self._large_flags = 0
        self.room: memoryview | None = None
        self.is_ready = False
        self.answers = b""

    def feed(self, data: bytes) -> list[list[Frame]]:
        """The messages that are complete with ``data``. Raises ``BadPeer``."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        start = 0
        if not self._greeted:
            if not zmtp.is_greeting(data):
                self._rest = data
                return []
            self._greeted, start = True, zmtp.GREETING_BYTES
        found: list[list[Frame]] = []
        start = self._cut(data, start, found)
        if start < len(data):
            self._rest = data[start:]
        return found

    def filled(self, count: int) -> list[list[Frame]]:
        """``count`` bytes were written to ``room``. The message, if it is complete with them."""
        assert self.room is not None
        assert self._large is not None
        self.room = self.room[count:]
        if len(self.room):
            return []
        found: list[list[Frame]] = []
        self.room, large, self._large = None, self._large, None
        if len(large) <= REUSED_BYTES:
            self._proven_bytes = max(self._proven_bytes, len(large))
        self._collect(large, self._large_flags, found)
        return found

    def _cut(self, data: bytes, start: int, found: list[list[Frame]]) -> int:
        """Frames from ``data``; where the first incomplete one begins."""
        total = len(data)
        while True:
            if self._takes_small and not (self._frames or self._skip_bytes or self._skips_message):
                start = _small_messages(data, start, total, found)
            if self._skip_bytes:
                step = min(self._skip_bytes, total - start)
                self._skip_bytes -= step
                start += step
            if total - start < 2:
                return start
            flags, size, body = data[start], data[start + 1], start + 2
            if flags & _RESERVED:
                raise BadPeer("a frame with unknown flags")
            if flags & _LONG:
                body = start + 9
                if total < body:
                    return start
                size = int.from_bytes(data[start + 1 : body])
            if flags & _COMMAND and size > LARGE_BYTES:
                raise BadPeer(f"a command of {size} bytes")
            if not flags & _COMMAND and not self._admits(size, flags, found):
                self._skip_bytes, start = size, body
            elif size >= LARGE_BYTES:
                return self._make_room(data, body, size, flags, found)
            elif body + size > total:
                return start
            else:
                start = body + size
                self._take(data[body:start], flags, found)

    def _admits(self, size: int, flags: int, found: list[list[Frame]]) -> bool:
        """Whether a frame of this size is kept. Of a message that is not, the first frame is told at once."""
        if not self.is_ready:
            raise BadPeer("a message before its handshake")
        if not self._skips_message:
            if self._count == 0 and size > self._first_bytes:
                raise BadPeer(f"a first frame of {size} bytes; at most {self._first_bytes} are read")
            if self._count >= self._max_frames:
                raise BadPeer(f"a message of more than {self._max_frames} frames")
            if self._held_bytes + size <= self._limit_bytes:
                return True
            oversized = Oversized(self._frames[:1])
            oversized.size_bytes = self._held_bytes + size
            found.append(oversized)
            self._frames, self._count, self._held_bytes = [], 0, 0
        self._skips_message = bool(flags & _MORE)
        return False

    def _make_room(self, data: bytes, body: int, size: int, flags: int, found: list[list[Frame]]) -> int:
        is_mapped = size >= MAPPED_BYTES and size > self._proven_bytes
        place = memoryview(_mapping(size) if is_mapped else bytearray(size))
        here = min(size, len(data) - body)
        place[:here] = data[body : body + here]
        self._large, self._large_flags, self.room = place, flags, place[here:]
        if here < size:
            return body + here
        self.room, self._large = None, None
        self._collect(place, flags, found)
        return self._cut(data, body + size, found)

    def _take(self, body: bytes, flags: int, found: list[list[Frame]]) -> None:
        if not flags & _COMMAND:
            self._collect(body, flags, found)
            return
        is_ready, answer = zmtp.obey(body)
        self.is_ready |= is_ready
        bound_bytes = min(self._limit_bytes, self._first_bytes)
        self._takes_small = self.is_ready and bound_bytes >= _SMALL_BYTES and self._max_frames >= _SMALL_FRAMES
        self.answers += answer

    def _collect(self, body: Frame, flags: int, found: list[list[Frame]]) -> None:
        self._frames.append(body)
        if flags & _MORE:
            self._count += 1
            self._held_bytes += len(body)
            return
        found.append(self._frames)
        self._frames, self._count, self._held_bytes = [], 0, 0


def _small_messages(data: bytes, start: int, total: int, found: list[list[Frame]]) -> int:
    """Messages of a few short frames, as most are, one behind the other; where the last of them ends.

    No limit needs to be asked for them, and no state is kept between their frames.
    """
    at, frames = start, list[Frame]()
    while total - at > 1:
        flags, end = data[at], at + 2 + data[at + 1]
        if end > total:
            break
        if flags == _MORE:
            if len(frames) == _SMALL_FRAMES - 1:
                break
            frames.append(data[at + 2 : end])
        elif not flags:
            frames.append(data[at + 2 : end])
            found.append(frames)
            start, frames = end, []
        else:
            break
        at = end
    return start


def _mapping(size: int) -> mmap.mmap:
    mapped = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        mapped.madvise(mmap.MADV_HUGEPAGE)  # a page fault for each 2 MiB instead of each 4 KiB
    except (AttributeError, OSError, ValueError):  # a kernel without them
        pass
    return mapped
