"""One log file: bytes moved from a pipe straight into it, bounded by rotation.

Must not know pipes' owners or the collector's loop; stdlib only.

splice(2) moves the bytes inside the kernel: at any moment a byte is in the pipe or in the file, never only in a
process. So a SIGKILL of the collector neither loses nor repeats one, and what this object knows can be read off the
file again.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from typing import Final

PIECE_BYTES: Final = 1 << 20
NO_SPLICE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO must not hold us up


class LogFile:
    """Appends to ``path``; at ``max_size_bytes`` it becomes ``.1``, the older ones move up, ``keep`` of them stay.

    ``keep_open_below``: a descriptor from this number on is closed after each use, for pipes need the room more.
    A file that cannot be opened or written is tried again each time; until then output is read, counted and dropped,
    so that the service goes on.
    """

    def __init__(self, path: str, max_size_bytes: int, keep: int, keep_open_below: int = 1 << 30) -> None:
        self.path = path
        self.users = 0
        self.lost_bytes = 0
        self.trouble = ""
        self._max_size_bytes = max(1, max_size_bytes)
        self._keep = keep
        self._keep_open_below = keep_open_below
        self._fd: int | None = None
        self._size = 0
        self._gone_bytes = 0  # of this file, in earlier ones or thrown away, since this object began
        self._in_first_bytes = 0  # how many of them are the last ones of ``.1``
        self._splices = True
        try:
            self._open()
        except OSError as error:
            self._lose(0, error)

    @property
    def position(self) -> int:
        """Bytes so far. Grows with each byte and never shrinks: rotation does not matter."""
        return self._gone_bytes + self._size

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def take(self, pipe: int, limit: int = PIECE_BYTES) -> int:
        """Take up to ``limit`` bytes from the non-blocking ``pipe``; how many: 0 at its end.

        Raises ``BlockingIOError`` when the pipe is empty.
        """
        try:
            fd = self._writable()
            if self._size >= self._max_size_bytes:
                if not _has_bytes(pipe):  # a file is only begun for a byte
                    return 0
                fd = self._rotate(fd)
            return self._move(pipe, fd, min(limit, self._max_size_bytes - self._size))
        except BlockingIOError:
            raise
        except OSError as error:
            data = os.read(pipe, limit)
            self._lose(len(data), error)
            return len(data)
        finally:
            if self._fd is not None and self._fd >= self._keep_open_below:
                self.close()

    def tail(self, count: int, since: int) -> bytes:
        """The last ``count`` bytes, but none before ``position`` ``since``; at most one rotation back."""
        start = max(self.position - count, since)
        earlier = min(self._gone_bytes - start, self._in_first_bytes)
        end = b"" if earlier <= 0 else _read_end(f"{self.path}.1", earlier)
        return end + _read_end(self.path, min(self._size, self.position - start))

    # ---- the file ----------------------------------------------------------------------------------------------------

    def _writable(self) -> int:
        """Its descriptor, at its end. Whoever emptied or removed the file meanwhile gets it from its beginning."""
        if self._fd is not None:
            found = os.fstat(self._fd)
            if found.st_nlink == 0:
                self.close()
                self._leave(0)
            elif found.st_size < self._size:
                os.lseek(self._fd, 0, os.SEEK_END)
                self._leave(found.st_size)
        return self._open() if self._fd is None else self._fd

    def _leave(self, size: int) -> None:
        """The file has ``size`` bytes now, and what was in it cannot be found any more."""
        self._gone_bytes += self._size - size
        self._in_first_bytes = 0
        self._size = size

    def _open(self) -> int:
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        fd = os.open(self.path, FLAGS, 0o640)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "it is no regular file")
            size = os.lseek(fd, 0, os.SEEK_END)
        except OSError:
            os.close(fd)
            raise
        if size != self._size:
            self._leave(size)
        self._fd = fd
        return fd

    def _rotate(self, fd: int) -> int:
        """Shift the older files up and begin a new one. The bound holds whatever happens: what cannot be renamed is
        thrown away.
        """
        try:
            _remove_beyond(self.path, self._keep)
            for number in range(self._keep, 0, -1):
                source = f"{self.path}.{number - 1}" if number > 1 else self.path
                if number == 1 or os.path.lexists(source):
                    os.replace(source, f"{self.path}.{number}")
        except OSError as error:
            self._lose(self._size, error)
            self._empty(fd)
            return fd
        if self._keep == 0:
            self._empty(fd)
            return fd
        self.close()
        size, self._size = self._size, 0
        self._gone_bytes += size
        self._in_first_bytes = size
        return self._open()

    def _empty(self, fd: int) -> None:
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        self._leave(0)

    # ---- bytes -------------------------------------------------------------------------------------------------------

    def _move(self, pipe: int, fd: int, count: int) -> int:
        if self._splices:
            try:
                moved = os.splice(pipe, fd, count)
            except OSError as error:
                if error.errno not in NO_SPLICE:
                    raise
                self._splices = False  # a file system without it: through our memory, then
            else:
                self._size += moved
                return moved
        data = os.read(pipe, min(count, PIECE_BYTES))
        view = memoryview(data)
        while view:
            try:
                written = os.write(fd, view)
            except OSError as error:
                self._lose(len(view), error)
                break
            self._size += written
            view = view[written:]
        return len(data)

    def _lose(self, count: int, error: OSError) -> None:
        self.lost_bytes += count
        self.trouble = f"cannot write {self.path}: {error.strerror or error}"


def _has_bytes(pipe: int) -> bool:
    """False at its end. Raises ``BlockingIOError`` when there is nothing now."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    found = poll.poll(0)
    if not found:
        raise BlockingIOError(errno.EAGAIN, "the pipe is empty")
    return bool(found[0][1] & select.POLLIN)


def _remove_beyond(path: str, keep: int) -> None:
    """The files that a larger ``keep`` has left."""
    number = keep + 1
    while os.path.lexists(f"{path}.{number}"):
        os.unlink(f"{path}.{number}")
        number += 1


def _read_end(path: str, count: int) -> bytes:
    """The last ``count`` bytes of a file; none when it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.pread(fd, count, max(0, os.fstat(fd).st_size - count))
    except OSError:
        return b""
    finally:
        os.close(fd)
