"""An exported state on its way: cut into the parts that messages carry, and put together again.

Must not look into it: what a state means, only the runtime that has packed it knows.
"""

from __future__ import annotations

from svcd.protocol.errors import MalformedMessage, MessageTooLarge
from svcd.protocol.limits import MAX_STATE_BYTES, MAX_STATE_PART_BYTES


def parts_of(state: bytes) -> list[bytes]:
    """At least one, each within its limit. Raises ``MessageTooLarge``."""
    if len(state) > MAX_STATE_BYTES:
        raise MessageTooLarge(f"a state of {len(state)} bytes; at most {MAX_STATE_BYTES} are kept")
    starts = range(0, max(len(state), 1), MAX_STATE_PART_BYTES)
    return [state[start : start + MAX_STATE_PART_BYTES] for start in starts]


class Assembly:
    """Takes the parts of one state, in their order."""

    def __init__(self) -> None:
        self._state = bytearray()
        self._next = 0
        self._parts = 0

    def add(self, part: int, parts: int, data: bytes) -> bytes | None:
        """The whole state, with its last part. The first one begins anew.

        Raises ``ProtocolError`` for what is out of order or too large, and keeps nothing of it.
        """
        if part == 0:
            self._state, self._next, self._parts = bytearray(), 0, parts
        if part != self._next or parts != self._parts or not 0 <= part < parts:
            self._clear()
            raise MalformedMessage("a part of a state that does not follow the one before")
        if len(data) > MAX_STATE_PART_BYTES or len(self._state) + len(data) > MAX_STATE_BYTES:
            self._clear()
            raise MessageTooLarge(f"a state of more than {MAX_STATE_BYTES} bytes, or a part beyond its limit")
        self._state += data
        self._next += 1
        if self._next < self._parts:
            return None
        whole = bytes(self._state)
        self._clear()
        return whole

    def _clear(self) -> None:
        self._state, self._next, self._parts = bytearray(), -1, 0
