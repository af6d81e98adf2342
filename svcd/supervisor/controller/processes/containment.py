"""Which processes belong to one run of a service, and how to reach every one of them.

Must not decide when: it answers "what is left of it?" and carries out "signal them" and "kill them all".

Two ways. With a writable cgroup v2 hierarchy each run is born into a group of its own: membership is exact and
``cgroup.kill`` reaches everybody at once (kernel 5.14; below that, each member by pidfd). Elsewhere a run is its
process group, the descendants of its main process and, after its end, those orphans that the guardian adopted and
that carry the run's ``SVCD_RUN`` in their environment; a process that left its session *and* wiped its environment
is then nobody's until svcd ends.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Collection
from pathlib import Path
from typing import Final, Protocol

MARK = "SVCD_RUN"
DEEPEST: Final = 1000  # generations of processes between a main one and whoever speaks for it


def _pid_signal(pid: int, number: int) -> None:
    """Signal ``pid`` if it still exists; the caller has just seen it as a member."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        pass
    finally:
        os.close(pidfd)


def stat_fields(pid: int) -> list[bytes] | None:
    """What /proc/PID/stat says from its third field, the state, on (proc(5)); None for a process that is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return stat[stat.rindex(b")") + 2 :].split()


def is_alive(pid: int) -> bool:
    """False for a process that is gone, or a zombie: nothing of it runs any more."""
    fields = stat_fields(pid)
    return fields is not None and fields[0] not in (b"Z", b"X")


def parent_of(pid: int) -> int | None:
    fields = stat_fields(pid)
    return None if fields is None else int(fields[1])


class Containment(Protocol):
    """What the controller needs of either way. ``run`` is the mark of one invocation, ``pid`` its main process."""

    def prepare(self, run: str) -> str | None:
        """The cgroup directory that the process is to be born in, or None."""

    def members(self, run: str, pid: int) -> list[int]:
        """The living processes of the run (the main process included, while it lives)."""

    def has(self, run: str, pid: int, other: int) -> bool:
        """Whether ``other``, alive or a zombie, is of the run. Cheap: asked for each word that a process sends us."""

    def is_empty(self, run: str, pid: int) -> bool:
        """Whether nothing of the run lives, its main process being dead. Cheap: asked at every exit."""

    def kill(self, run: str, pid: int) -> None:
        """SIGKILL to every process of the run."""

    def kill_all(self, runs: Collection[str]) -> bool:
        """SIGKILL to everything of all these runs, be their main processes known or not. Returns whether anything was
        there. For the end of svcd itself: it may look at every process of the machine.
        """

    def release(self, run: str) -> None:
        """The run has ended: forget it."""

    def close(self) -> None:
        """The cluster has ended."""


def signal_members(containment: Containment, run: str, pid: int, number: int) -> None:
    """Send ``number`` to each living process of the run, each by pidfd."""
    for member in containment.members(run, pid):
        _pid_signal(member, number)


# ---- cgroup v2 -----------------------------------------------------------------------------------------------------


def _unified_mount() -> str | None:
    """Where the cgroup v2 hierarchy is mounted (proc(5), mountinfo)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.startswith("cgroup2 "):
            return fields.split()[4].encode().decode("unicode_escape")
    return None


def _group_of(pid: int | str) -> str | None:
    """A process' place in the v2 hierarchy (cgroups(7), /proc/PID/cgroup line ``0::PATH``)."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    return next((line[3:] for line in lines if line.startswith("0::")), None)


def _remove_group(path: Path) -> None:
    """A group and those in it, as far as nothing lives in them (zombies do not count)."""
    for each in (*path.glob("*/"), path):
        try:
            each.rmdir()
        except OSError:
            pass  # somebody lives there, or it went away by itself


class CgroupContainment:
    """One group per run below a group of the cluster's own. Raises OSError where the hierarchy is not ours to write.

    ``place`` names the cluster's run directory, of which ``run_id`` is the present use: what earlier uses have left,
    all of svcd having been killed at once, is killed and removed here.
    """

    def __init__(self, place: str, run_id: str) -> None:
        mount, own = _unified_mount(), _group_of("self")
        if mount is None or own is None or ".." in own:
            raise OSError(errno.ENOENT, "no cgroup v2 hierarchy")
        self._base = Path(mount + own) / f"{place}-{run_id}"
        self._name = f"{own.rstrip('/')}/{self._base.name}"
        self._base.mkdir(mode=0o755)
        for stale in self._base.parent.glob(f"{place}-*"):
            if stale != self._base:
                self._clear(stale)
        self._unreleased: set[str] = set()

    @staticmethod
    def _clear(stale: Path) -> None:
        try:
            (stale / "cgroup.kill").write_text("1")
            _remove_group(stale)
        except OSError:
            pass  # of another user, or gone

    def prepare(self, run: str) -> str | None:
        path = self._base / run
        path.mkdir(mode=0o755)
        return str(path)

    def members(self, run: str, pid: int) -> list[int]:
        try:
            text = (self._base / run / "cgroup.procs").read_text()
        except OSError:
            return []
        return [int(word) for word in text.split() if int(word)]

    def has(self, run: str, pid: int, other: int) -> bool:
        group = _group_of(other)
        return group is not None and f"{group}/".startswith(f"{self._name}/{run}/")

    def is_empty(self, run: str, pid: int) -> bool:
        return self._is_unpopulated(self._base / run)

    @staticmethod
    def _is_unpopulated(group: Path) -> bool:
        try:
            fd = os.open(f"{group}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return True
        try:
            return b"populated 0" in os.read(fd, 256)
        finally:
            os.close(fd)

    def kill(self, run: str, pid: int) -> None:
        try:
            (self._base / run / "cgroup.kill").write_text("1")
        except FileNotFoundError:
            for _ in range(64):  # before Linux 5.14: a fork may outrun one pass, never all of them
                members = self.members(run, pid)
                if not members:
                    return
                for member in members:
                    _pid_signal(member, signal.SIGKILL)

    def kill_all(self, runs: Collection[str]) -> bool:
        if self._is_unpopulated(self._base):
            return False
        try:
            (self._base / "cgroup.kill").write_text("1")
        except FileNotFoundError:
            for run in runs:
                self.kill(run, 0)
        return True

    def release(self, run: str) -> None:
        self._unreleased.add(run)
        for name in tuple(self._unreleased):
            try:
                (self._base / name).rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                continue  # a zombie that nobody has reaped yet keeps it busy: the next release tries again
            self._unreleased.discard(name)

    def close(self) -> None:
        _remove_group(self._base)


# ---- process group, descendants, adopted orphans
# -------------------------------------------------------------------------


def _children(pid: int) -> list[int]:
    """The children of all threads of ``pid`` (proc(5), /proc/PID/task/TID/children)."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += [int(word) for word in file.read().split()]
    except OSError:
        pass
    return found


def _environ(pid: int) -> set[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return set(file.read(1 << 21).split(b"\0"))
    except OSError:
        return set()


def _carries(pid: int, run: str) -> bool:
    return f"{MARK}={run}".encode() in _environ(pid)


def _in_group(pid: int, group: int) -> bool:
    try:
        return os.getpgid(pid) == group or os.getsid(pid) == group
    except OSError:
        return False


class SessionContainment:
    """Without cgroups. ``guardian`` is the subreaper's pid; ``is_main`` tells a service's main process
    from an orphan.
    """

    def __init__(self, guardian: int, mains: set[int]) -> None:
        self._guardian = guardian
        self._mains = mains

    def prepare(self, run: str) -> str | None:
        return None

    def _orphans(self, run: str, pid: int) -> list[int]:
        adopted = [child for child in _children(self._guardian) if child not in self._mains and child != pid]
        return [child for child in adopted if _in_group(child, pid) or _carries(child, run)]

    def members(self, run: str, pid: int) -> list[int]:
        found = [pid, *self._orphans(run, pid)]
        for parent in found:
            found.extend(child for child in _children(parent) if child not in found)
        return [member for member in found if is_alive(member)]

    def has(self, run: str, pid: int, other: int) -> bool:
        for _ in range(DEEPEST):
            if other == pid:
                return True
            parent = parent_of(other)
            if parent == self._guardian:
                return other not in self._mains and (_in_group(other, pid) or _carries(other, run))
            if parent is None or parent <= 1:
                return False
            other = parent
        return False

    def is_empty(self, run: str, pid: int) -> bool:
        return not any(is_alive(orphan) for orphan in self._orphans(run, pid))

    def kill(self, run: str, pid: int) -> None:
        for _ in range(64):
            members = self.members(run, pid)
            if not members:
                return
            for member in members:
                _pid_signal(member, signal.SIGKILL)

    def kill_all(self, runs: Collection[str]) -> bool:
        marks = {f"{MARK}={run}".encode() for run in runs}
        found = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if marks & _environ(pid)]
        living = [pid for pid in found if is_alive(pid)]
        for pid in living:
            _pid_signal(pid, signal.SIGKILL)
        return bool(living)

    def release(self, run: str) -> None:
        pass

    def close(self) -> None:
        pass


def choose(place: str, run_id: str, guardian: int, mains: set[int]) -> Containment:
    """cgroups where we may make them, sessions elsewhere."""
    try:
        return CgroupContainment(place, run_id)
    except OSError:
        return SessionContainment(guardian, mains)
