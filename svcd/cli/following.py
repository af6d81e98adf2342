"""Log files while they grow: every byte once, across rotations; and the marks from which a console begins.

Must not change a log file, nor talk to the daemon.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from asyncinotify import Inotify, Mask

STREAMS: Final = ("stdout", "stderr")
PIECE_BYTES: Final = 256 * 1024
TURN_BYTES: Final = 4 * PIECE_BYTES  # of one stream, before the next one has its turn
POLL_S: Final = 0.25  # only where the kernel grants no watches
TRIES: Final = 100  # to find a file that rotations keep moving; one that somebody took elsewhere is given up
TABLE_FULL: Final = (errno.EMFILE, errno.ENFILE)
MARKS: Final = "console.json"

Mark = tuple[int, int]  # inode, size


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
            for number in _numbers_to_try(self.path):
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


def _numbers_to_try(path: Path) -> list[int]:
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


# ---- marks ---------------------------------------------------------------------------------------------------------


def write_marks(state_dir: Path) -> None:
    """Note how long each log file is before a start, so that its console shows what comes after, all of it."""
    marks: dict[str, Mark] = {}
    logs = state_dir / "logs"
    for name in os.listdir(logs):
        for stream in STREAMS:
            try:
                found = os.stat(logs / name / f"{stream}.log")
            except OSError:
                continue
            marks[f"{name}/{stream}"] = found.st_ino, found.st_size
    (state_dir / MARKS).unlink(missing_ok=True)
    (state_dir / MARKS).write_text(json.dumps(marks))


def read_marks(state_dir: Path) -> dict[str, Mark] | None:
    """The marks of the present start, which are used once; None when there are none."""
    path = state_dir / MARKS
    try:
        marks: dict[str, Mark] = {key: (inode, end) for key, (inode, end) in json.loads(path.read_text()).items()}
        path.unlink()
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return marks


def follow_from(path: Path, mark: Mark | None) -> Follower:
    """A follower of everything after ``mark``; without one, from the beginning of the oldest file."""
    if mark is None:
        return Follower(path)
    inode, end = mark
    for number in _numbers_to_try(path):
        fd = open_log(numbered(path, number))
        if fd is not None and os.fstat(fd).st_ino == inode:
            os.lseek(fd, end, os.SEEK_SET)
            return Follower(path, fd)
        if fd is not None:
            os.close(fd)
    return Follower(path)


def follow_from_end(path: Path) -> Follower:
    """A follower of everything that comes from now on."""
    fd = open_log(path)
    if fd is not None:
        os.lseek(fd, 0, os.SEEK_END)
    return Follower(path, fd)


# ---- watching ------------------------------------------------------------------------------------------------------


class Watcher:
    """Says which directories have news. ``fd`` can be polled; None where the kernel grants no watch: poll the clock.

    A directory that does not exist yet is watched once it is made below a parent that is watched.
    """

    def __init__(self, logs: Path, names: Iterable[str]) -> None:
        self._logs = logs
        self._names = frozenset(names)
        self._inotify: Inotify | None = None
        self._flags: Mask | None = None
        try:
            self._begin()
        except OSError:  # no more instances, or watches, for this user
            self.close()

    def _begin(self) -> None:
        from asyncinotify import Inotify, Mask  # noqa: PLC0415 - brings asyncio; only for those who follow

        self._inotify = Inotify(sync_timeout=0)
        self._flags = Mask.MODIFY | Mask.CREATE | Mask.MOVED_TO | Mask.ONLYDIR
        self._inotify.add_watch(self._logs, self._flags)
        for name in self._names:
            self._watch(name)

    def _watch(self, name: str) -> None:
        assert self._inotify is not None
        assert self._flags is not None
        try:
            self._inotify.add_watch(self._logs / name, self._flags)
        except (FileNotFoundError, NotADirectoryError):
            pass

    @property
    def fd(self) -> int | None:
        return None if self._inotify is None else self._inotify.fd

    @property
    def patience_s(self) -> float | None:
        """How long to wait without news from ``fd``: for ever, or until the next look."""
        return POLL_S if self._inotify is None else None

    def news(self) -> frozenset[str]:
        """The names whose files may have grown since the last call."""
        if self._inotify is None:
            return self._names
        from asyncinotify import Mask  # noqa: PLC0415

        found: set[str] = set()
        for event in self._inotify:
            if Mask.Q_OVERFLOW in event.mask or event.watch is None:
                found |= self._names
            elif event.watch.path == self._logs:
                name = str(event.name)
                if name in self._names:
                    self._watch(name)
                    found.add(name)
            else:
                found.add(event.watch.path.name)
        return frozenset(found)

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        self.close()
