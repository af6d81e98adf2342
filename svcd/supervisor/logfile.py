"""One log file: bytes moved from a pipe straight into it, bounded by rotation.

Must not know pipes' owners or the collector's loop; stdlib only.

splice(2) moves the bytes inside the kernel: a byte is in the pipe or in the file, never only in a process. So a
SIGKILL of the collector at any moment neither loses nor repeats one.
"""

from __future__ import annotations

import errno
import os
from typing import Final

PIECE_BYTES: Final = 1 << 20
NO_SPLICE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS})


class LogFile:
    """Appends to ``path``; at ``max_size_bytes`` it becomes ``.1``, the older ones move up, ``keep`` of them stay."""

    def __init__(self, path: str, max_size_bytes: int, keep: int) -> None:
        self.path = path
        self.max_size_bytes = max(1, max_size_bytes)
        self.keep = keep
        self.users = 0
        self.lost_bytes = 0
        self.loss_reason = ""
        self._splices = True
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        self._fd, self._size = self._open()

    def _open(self) -> tuple[int, int]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.path, flags, 0o640)
        return fd, os.lseek(fd, 0, os.SEEK_END)

    @property
    def size(self) -> int:
        """Bytes in the current file."""
        return self._size

    def close(self) -> None:
        os.close(self._fd)

    def take(self, pipe: int, limit: int = PIECE_BYTES) -> int:
        """Move up to ``limit`` bytes from the non-blocking ``pipe``; how many: 0 at its end.

        Bytes that the disk does not take are read, counted as lost and dropped, so that the writer goes on. Raises
        ``BlockingIOError`` when the pipe is empty.
        """
        if self._size >= self.max_size_bytes:
            self._rotate()
        room = min(limit, self.max_size_bytes - self._size)
        try:
            moved = self._move(pipe, max(1, room))
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno not in FULL:
                raise
            return self._drop(pipe, limit, error)
        self._size += moved
        return moved

    def _move(self, pipe: int, count: int) -> int:
        if self._splices:
            try:
                return os.splice(pipe, self._fd, count)
            except OSError as error:
                if error.errno not in NO_SPLICE:
                    raise
                self._splices = False  # a file system without it: through our memory, then
        data = os.read(pipe, min(count, PIECE_BYTES))
        at = 0
        while at < len(data):
            try:
                at += os.write(self._fd, data[at:])
            except OSError as error:
                if error.errno not in FULL:
                    raise
                self._lose(len(data) - at, error)
                break
        return at if data else 0

    def _drop(self, pipe: int, limit: int, error: OSError) -> int:
        data = os.read(pipe, limit)
        self._lose(len(data), error)
        return len(data)

    def _lose(self, count: int, error: OSError) -> None:
        self.lost_bytes += count
        self.loss_reason = error.strerror or str(error)

    def _rotate(self) -> None:
        """Shift the older files up and begin anew. What cannot be renamed is truncated: the bound holds."""
        try:
            if self.keep > 0:
                for number in range(self.keep - 1, 0, -1):
                    if os.path.lexists(f"{self.path}.{number}"):
                        os.replace(f"{self.path}.{number}", f"{self.path}.{number + 1}")
                os.replace(self.path, f"{self.path}.1")
                fd, size = self._open()
                os.close(self._fd)
                self._fd, self._size = fd, size
                return
        except OSError:
            pass
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._size = 0

    def tail(self, count: int, since: int | None) -> bytes:
        """The last ``count`` bytes of the current file, from offset ``since`` on (None: a rotation lies between)."""
        start = max(self._size - count, since or 0)
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return b""
        try:
            return os.pread(fd, max(0, self._size - start), start)
        finally:
            os.close(fd)
