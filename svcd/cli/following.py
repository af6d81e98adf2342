"""Log files while they grow: every byte once, across rotations; and the marks from which a console begins.

Must not change a log file, nor talk to the daemon.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from svcd.protocol.rotation import Follower, numbered, numbers_to_try, open_log

if TYPE_CHECKING:
    from inotify_simple import INotify

STREAMS: Final = ("stdout", "stderr")
POLL_S: Final = 0.25  # only where the kernel grants no watches
OVERFLOWN: Final = -1  # for a watch: more has happened than the kernel would keep (inotify(7))
MARKS: Final = "console.json"

Mark = tuple[int, int]  # inode, size
Followers = dict[str, list[tuple[str, Follower]]]  # name -> stream, and who follows it


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
    for number in numbers_to_try(path):
        fd = open_log(numbered(path, number))
        if fd is not None and os.fstat(fd).st_ino == inode:
            os.lseek(fd, end, os.SEEK_SET)
            return Follower(path, fd)
        if fd is not None:
            os.close(fd)
    return Follower(path)


def begin_following(followers: Followers, logs: Path, name: str, streams: Iterable[str] = STREAMS) -> None:
    """Follow somebody who has come later, from the beginning."""
    followers[name] = [(stream, Follower(logs / name / f"{stream}.log")) for stream in streams]


# ---- watching ------------------------------------------------------------------------------------------------------


def directories(logs: Path) -> list[str]:
    """The names of all who have logs there."""
    try:
        return sorted(each.name for each in os.scandir(logs) if each.is_dir(follow_symlinks=False))
    except OSError:
        return []


class Watcher:
    """Says which directories have news. ``fd`` can be polled; None where the kernel grants no watch: poll the clock.

    A directory that does not exist yet is watched once it is made below a parent that is watched. ``joins``: whether
    one that appears, and is none of ``names``, is watched as well.
    """

    def __init__(self, logs: Path, names: Iterable[str], joins: Callable[[str], bool] = lambda name: False) -> None:
        self._logs = logs
        self._names = set(names)
        self._joins = joins
        self._inotify: INotify | None = None
        self._directories: dict[int, Path] = {}  # by their watches
        try:
            self._begin()
        except OSError:  # no more instances, or watches, for this user
            self.close()

    def _begin(self) -> None:
        from inotify_simple import INotify  # noqa: PLC0415 - brings ctypes; only for those who follow

        self._inotify = INotify(nonblocking=True)
        self._add(self._logs)
        for name in self._names:
            self._watch(name)

    def _watch(self, name: str) -> None:
        try:
            self._add(self._logs / name)
        except (FileNotFoundError, NotADirectoryError):
            pass

    def _add(self, directory: Path) -> None:
        from inotify_simple import flags  # noqa: PLC0415 - see above

        assert self._inotify is not None
        news = flags.MODIFY | flags.CREATE | flags.MOVED_TO | flags.ONLYDIR
        self._directories[self._inotify.add_watch(directory, news)] = directory

    @property
    def fd(self) -> int | None:
        return None if self._inotify is None else self._inotify.fileno()

    @property
    def patience_s(self) -> float | None:
        """How long to wait without news from ``fd``: for ever, or until the next look."""
        return POLL_S if self._inotify is None else None

    def news(self) -> frozenset[str]:
        """The names whose files may have grown since the last call."""
        if self._inotify is None:
            self._names.update(filter(self._joins, directories(self._logs)))
            return frozenset(self._names)
        found: set[str] = set()
        for event in self._inotify.read(timeout=0):
            directory = self._directories.get(event.wd)
            if event.wd == OVERFLOWN:
                found |= self._names
            elif directory == self._logs:
                if event.name and self._is_wanted(event.name):
                    self._names.add(event.name)
                    self._watch(event.name)
                    found.add(event.name)
            elif directory is not None:
                found.add(directory.name)
        return frozenset(found)

    def _is_wanted(self, name: str) -> bool:
        place = self._logs / name
        return name in self._names or (self._joins(name) and place.is_dir() and not place.is_symlink())

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
