"""inotify(7): which directories have news, without looking again and again.

Must not know what the directories are for, nor wait: the descriptor is for whoever polls.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

MODIFY: Final = 0x2
MOVED_TO: Final = 0x80
CREATE: Final = 0x100
Q_OVERFLOW: Final = 0x4000
ONLYDIR: Final = 0x01000000
NEWS: Final = MODIFY | CREATE | MOVED_TO | ONLYDIR

READ_BYTES: Final = 64 * 1024
_HEAD: Final = struct.Struct("iIII")  # watch, mask, cookie, length of the name
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """Something was made, moved or written there. ``directory`` None: more has happened than the kernel would keep."""

    directory: Path | None
    name: str


class Inotify:
    """Raises ``OSError`` when the user has no instances left."""

    def __init__(self) -> None:
        self.fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._directories: dict[int, Path] = {}

    def watch(self, directory: Path) -> None:
        """Raises ``OSError``: it is not there, is no directory, or the user has no watches left."""
        watch = _checked(_libc.inotify_add_watch(self.fd, os.fsencode(directory), ctypes.c_uint32(NEWS)))
        self._directories[watch] = directory

    def events(self) -> Iterator[Event]:
        """What has happened and was not told yet."""
        while True:
            try:
                data = os.read(self.fd, READ_BYTES)
            except BlockingIOError:
                return
            start = 0
            while start < len(data):
                watch, mask, _, length = _HEAD.unpack_from(data, start)
                start += _HEAD.size + length
                name = os.fsdecode(data[start - length : start].rstrip(b"\0"))
                if mask & Q_OVERFLOW or watch in self._directories:
                    yield Event(self._directories.get(watch), name)

    def close(self) -> None:
        os.close(self.fd)


def _checked(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer
