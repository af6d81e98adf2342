"""Log files as the collector rotates them (NAME.log, NAME.log.1, .2, …), read while they grow: every byte once.

Must not change a log file. The collector fills the current file to its bound, moves each file up by one and begins
anew; that is all that its readers rely on.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PIECE_BYTES: Final = 256 * 1024
TURN_BYTES: Final = 4 * PIECE_BYTES  # of one stream, before the next one has its turn
TRIES: Final = 100  # to find a file that rotations keep moving; one that somebody took elsewhere is given up
TABLE_FULL: Final = (errno.EMFILE, errno.ENFILE)


class Follower:
    """What is appended to the stream whose current file is ``path``.

    ``fd`` is open at the place to begin; None when there is no file yet: whatever will be there is new.
    """

    def __init__(self, path: Path, fd: int | None = None) -> None:
        self.path = path
        self.gaps = 0
        """How often bytes may have been rotated away before they could be read."""
        self._fd = fd

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def read(self) -> Iterator[bytes]:
        """What has come since, in pieces, ``TURN_BYTES`` at most; more may be left if that many came."""
        taken = 0
        while taken < TURN_BYTES:
            if self._fd is None:
                self._fd = _open_oldest(self.path)
                if self._fd is None:
                    return
            data = os.read(self._fd, PIECE_BYTES)
            if data:
                taken += len(data)
                yield data
            elif not self._go_on():
                return

    def _go_on(self) -> bool:
        """At the end of our file: whether there is more, in it (it was truncated) or in a younger one."""
        assert self._fd is not None
        own = os.fstat(self._fd)
        position = os.lseek(self._fd, 0, os.SEEK_CUR)
        if own.st_size < position:
            os.lseek(self._fd, 0, os.SEEK_SET)
            return True
        younger = self._younger(own)
        if younger is None:
            return False
        if os.fstat(self._fd).st_size > position:  # written to between our read and its rotation
            os.close(younger)
            return True
        os.close(self._fd)
        self._fd = younger
        return True

    def _younger(self, own: os.stat_result) -> int | None:
        """A descriptor of the file that continues ours; None when ours is the current one, or nothing is there yet.

        Files only move up (current to .1, .1 to .2, …): if ours has the same number before and after, its neighbour
        below it was the next one all the time.
        """
        number = self._number_of(own)
        if number == 0:
            return None
        if number is None:  # gone: the oldest that is left comes next
            fd = _open_oldest(self.path)
            self.gaps += fd is not None
            return fd
        fd = open_log(numbered(self.path, number - 1))
        if fd is not None and self._number_of(own) != number:
            os.close(fd)
            return self._younger(own)
        return fd

    def _number_of(self, own: os.stat_result) -> int | None:
        """The number that our file has now; None once it has been rotated away."""
        assert self._fd is not None
        for _ in range(TRIES):
            for number in numbers_to_try(self.path):
                try:
                    found = os.stat(numbered(self.path, number))
                except FileNotFoundError:
                    continue
                if os.path.samestat(found, own):
                    return number
            if os.fstat(self._fd).st_nlink == 0:
                break
        return None


# ---- files ---------------------------------------------------------------------------------------------------------


def numbered(path: Path, number: int) -> Path:
    """``path`` itself (0), or the file that was rotated ``number`` times."""
    return path.with_name(f"{path.name}.{number}") if number else path


def rotated_numbers(path: Path) -> list[int]:
    """The numbers that exist, youngest first; 0 among them in any case."""
    try:
        names = os.listdir(path.parent)
    except OSError:
        names = []
    prefix = f"{path.name}."
    suffixes = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return [0, *sorted(int(each) for each in suffixes if each.isascii() and each.isdigit() and len(each) < 7)]


def numbers_to_try(path: Path) -> list[int]:
    """Where to look for a file upwards, so that it cannot slip past: a rotation meanwhile moves it up by one."""
    listed = rotated_numbers(path)
    return sorted({*listed, *(number + 1 for number in listed)})


def open_log(path: Path) -> int | None:
    """A descriptor, or None when there is no such file, or none that may be read (a symbolic link, say)."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in TABLE_FULL:
            raise
        return None


def _open_oldest(path: Path) -> int | None:
    """A descriptor of the oldest file that is left of a stream."""
    for number in reversed(rotated_numbers(path)):
        fd = open_log(numbered(path, number))
        if fd is not None:
            return fd
    return None


def follow_from_end(path: Path) -> Follower:
    """A follower of everything that comes from now on."""
    fd = open_log(path)
    if fd is not None:
        os.lseek(fd, 0, os.SEEK_END)
    return Follower(path, fd)
