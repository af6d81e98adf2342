"""Log files: their last lines across rotations, and what is appended to them, across rotations too.

Must not talk to the daemon, nor change a file.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 1 << 20
ALL: Final = -1


def rotated(path: Path) -> list[Path]:
    """The files of one stream, oldest first, ``path`` itself last."""
    found = []
    for number in range(1, 10_000):
        older = path.with_name(f"{path.name}.{number}")
        if not older.exists():
            break
        found.append(older)
    return [*reversed(found), *([path] if path.exists() else [])]


def tail(path: Path, lines: int) -> bytes:
    """The last ``lines`` lines (``ALL``: every byte) of the stream whose current file is ``path``."""
    parts: list[bytes] = []
    missing = lines
    for each in reversed(rotated(path)):
        try:
            data = each.read_bytes() if lines == ALL else _end_of(each, missing, bool(parts))
        except FileNotFoundError:
            continue  # rotated away while we looked
        parts.append(data)
        if lines != ALL:
            missing -= data.count(b"\n") + (0 if parts[1:] or data.endswith(b"\n") or not data else 1)
            if missing <= 0:
                break
    return b"".join(reversed(parts))


def _end_of(path: Path, lines: int, continued: bool) -> bytes:
    """The last ``lines`` lines of one file. ``continued``: its last line goes on in the next file."""
    with open(path, "rb") as file:
        position = file.seek(0, os.SEEK_END)
        data = b""
        while position > 0 and data.count(b"\n") <= lines:
            step = min(position, 1 << 16)
            position -= step
            file.seek(position)
            data = file.read(step) + data
    cut = len(data) if data.endswith(b"\n") and not continued else len(data) + 1
    for _ in range(lines):
        cut = data.rfind(b"\n", 0, cut - 1) + 1
        if cut == 0:
            return data
    return data[cut:]


@dataclass(slots=True)
class Follower:
    """What is appended to the stream whose current file is ``path``, from its end (or from byte ``begin``) on."""

    path: Path
    begin: int | None = None
    _fd: int = field(default=-1, init=False)

    def __post_init__(self) -> None:
        if self._open():
            size = os.fstat(self._fd).st_size
            os.lseek(self._fd, size if self.begin is None else min(self.begin, size), os.SEEK_SET)

    def read(self) -> Iterator[bytes]:
        """Everything that has come since, in pieces; follows the file into its rotations."""
        if self._fd < 0:
            self._open()
        while self._fd >= 0:
            data = os.read(self._fd, CHUNK_BYTES)
            if data:
                yield data
            elif not self._advance():
                return

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self, path: Path | None = None) -> bool:
        try:
            self._fd = os.open(path or self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        return True

    def _advance(self) -> bool:
        """At the end of our file: on to the next younger one, if ours has been rotated away."""
        own = os.fstat(self._fd)
        files = rotated(self.path)
        for older, younger in itertools.pairwise(files):
            if _is(older, own):
                if os.lseek(self._fd, 0, os.SEEK_CUR) < os.fstat(self._fd).st_size:
                    return True  # something came before the rotation
                old = self._fd
                if self._open(younger):
                    os.close(old)
                    return True
                self._fd = old
                return False
        if files and not any(_is(each, own) for each in files):  # removed under us: begin with the oldest there is
            old = self._fd
            if self._open(files[0]):
                os.close(old)
                return True
            self._fd = old
        return False


def _is(path: Path, own: os.stat_result) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)
