"""Where a cluster's files are, who holds its lock, and which clusters run.

Must not start or end anything, nor import more than the standard library.
"""

# ruff: noqa: N818 - an error that says what is (a cluster runs) needs no suffix

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from svcd.protocol.limits import MAX_SOCKET_PATH_BYTES
from svcd.record import record

WITH_SIDE_DOOR: Final = 0o711  # what a cluster with stubs of other users leaves when it was killed whole
CLUSTER_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
END_PATIENCE_S: Final = 0.5  # for a holder that is about to end
BRIEF_PATIENCE_S: Final = 0.03  # when the lock names a living process, which is almost surely the holder
LOOK_PATIENCE_S: Final = 30.0  # for who only looks whether a cluster runs: microseconds, but for a machine that stalls
PAUSE_S: Final = 0.01
MAX_PID_DIGITS: Final = 20


class PlaceError(Exception):
    """A directory or file of a cluster cannot be used. The text is for the user, whole."""


class ClusterRuns(PlaceError):
    """The lock is held: ``pid`` is the holder's, None when it has not written it yet."""

    def __init__(self, run_dir: Path, pid: int | None) -> None:
        self.run_dir, self.pid = run_dir, pid
        who = f"pid {pid}" if pid is not None else "just starting"
        super().__init__(f"this cluster runs already ({who}, run directory {run_dir})")


class NoClusterRuns(PlaceError):
    """Nothing to talk to."""


class SeveralClustersRun(PlaceError):
    """More than one runs, and none was named."""

    def __init__(self, clusters: list[RunningCluster]) -> None:
        self.clusters = clusters
        names = ", ".join(f"{each.name} (pid {each.pid})" for each in clusters)
        super().__init__(f"several clusters run: {names}; choose one with --cluster NAME")


@record
class RunningCluster:
    """A cluster whose lock is held. ``name`` is the run directory's; ``pid`` is the guardian's."""

    name: str
    run_dir: Path
    pid: int | None


@record
class Places:
    """The files of one cluster. Both directories are absolute."""

    run_dir: Path
    state_dir: Path

    @property
    def lock(self) -> Path:
        return self.run_dir / "lock"

    @property
    def cluster_json(self) -> Path:
        return self.run_dir / "cluster.json"

    @property
    def control(self) -> Path:
        return self.run_dir / "control"

    @property
    def events(self) -> Path:
        return self.run_dir / "events"

    @property
    def endpoints(self) -> Path:
        """Below this, each run of a Python service has a directory for the sockets of its endpoint."""
        return self.run_dir / "peers"

    @property
    def daemon_log(self) -> Path:
        return self.state_dir / "svcd.log"

    @property
    def states(self) -> Path:
        """Directory of what services with ``state: keep`` have exported."""
        return self.state_dir / "state"

    def logs(self, name: str, stream: str) -> Path:
        """The current log file of one stream ("stdout", "stderr") of the service ``name``."""
        return self.state_dir / "logs" / name / f"{stream}.log"


# ---- where ---------------------------------------------------------------------------------------------------------


def run_bases(environ: Mapping[str, str], uid: int) -> tuple[Path, ...]:
    """Every directory below which a cluster of ``uid`` may have its run directory; the first is the default.

    ``XDG_RUNTIME_DIR`` counts when it is absolute, exists and is the user's own (basedir specification).
    """
    plain = Path("/run/svcd") if uid == 0 else Path(f"/tmp/svcd-{uid}")
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and _is_own_directory(runtime, uid):
        return Path(runtime) / "svcd", plain
    return (plain,)


def default_run_base(environ: Mapping[str, str], uid: int) -> Path:
    """Below this, each cluster has its run directory unless told otherwise."""
    return run_bases(environ, uid)[0]


def default_state_base(environ: Mapping[str, str], uid: int) -> Path:
    """Below this, each cluster has its state directory unless told otherwise."""
    if uid == 0:
        return Path("/var/lib/svcd")
    state_home = environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(state_home):
        return Path(state_home) / "svcd"
    return Path(environ.get("HOME") or os.path.expanduser("~")) / ".local" / "state" / "svcd"


def resolve(
    cluster: str,
    run_dir: str | os.PathLike[str] | None = None,
    state_dir: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Places:
    """The places of ``cluster``: as given, else by ``SVCD_RUN_DIR`` and ``SVCD_STATE_DIR``, else the defaults.

    Raises ``PlaceError`` for a name that cannot be a directory, and for a run directory too deep for sockets.
    """
    if not CLUSTER_NAME.fullmatch(cluster):
        raise PlaceError(f"cannot use {cluster!r} as a cluster's name: letters, digits, - and _, at most 64")
    environ, uid = os.environ if environ is None else environ, os.getuid()
    run = run_dir or environ.get("SVCD_RUN_DIR") or default_run_base(environ, uid) / cluster
    state = state_dir or environ.get("SVCD_STATE_DIR") or default_state_base(environ, uid) / cluster
    places = Places(Path(os.path.abspath(run)), Path(os.path.abspath(state)))
    check_socket_path(places.control)
    return places


def check_socket_path(path: str | os.PathLike[str]) -> None:
    """Raise ``PlaceError`` when ``path`` is longer than a Unix socket's path may be."""
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH_BYTES:
        raise PlaceError(
            f"cannot use {os.fspath(path)} as a socket: {length} bytes, at most {MAX_SOCKET_PATH_BYTES} are possible;"
            " choose a shorter directory with --run-dir"
        )


# ---- the lock ------------------------------------------------------------------------------------------------------


def claim_lock(places: Places) -> int:
    """Make the run directory ours and take its lock; the descriptor returned holds it, with our pid as its text.

    Raises ``ClusterRuns`` when somebody has it, ``PlaceError`` when the directory cannot be used or trusted.
    The descriptor is not inheritable; a later holder writes its own pid with ``record_pid``.
    """
    check_socket_path(places.control)
    began = time.monotonic()
    while True:
        directory = _open_run_dir(places.run_dir)
        try:
            lock = _open_lock(places.lock, directory)
            try:
                if _take(lock) and _is_still_there(lock, directory):
                    record_pid(lock, os.getpid())
                    return lock
                pid, is_looked_at = _pid_in(lock), _take(lock, fcntl.LOCK_SH)
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)
        finally:
            os.close(directory)
        patience_s = LOOK_PATIENCE_S if is_looked_at else BRIEF_PATIENCE_S if _is_alive(pid) else END_PATIENCE_S
        if time.monotonic() - began > patience_s:
            raise ClusterRuns(places.run_dir, pid)
        time.sleep(PAUSE_S)  # an end in progress, or somebody who only looks


def record_pid(lock: int, pid: int) -> None:
    """Write ``pid`` as the text of the lock."""
    text = f"{pid}\n".encode()
    os.pwrite(lock, text, 0)
    os.ftruncate(lock, len(text))


def _open_run_dir(run_dir: Path) -> int:
    """A descriptor of the run directory, made if need be, once it is known that only we can get at it."""
    try:
        os.makedirs(run_dir.parent, mode=0o700, exist_ok=True)
        _check_parent(run_dir)
        try:
            os.mkdir(run_dir, 0o700)
        except FileExistsError:
            pass
        directory = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise PlaceError(f"cannot use the run directory {run_dir}: {_reason(error, run_dir)}") from None
    try:
        _check_trusted(run_dir, os.fstat(directory))
        os.fchmod(directory, 0o700)
    except BaseException:
        os.close(directory)
        raise
    return directory


def _check_parent(run_dir: Path) -> None:
    """Whoever may rename in the parent could put another directory in the place of ours."""
    found = os.stat(run_dir.parent)
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        raise PlaceError(f"cannot use the run directory {run_dir}: other users may write to {run_dir.parent}")
    if os.getuid() != 0 and found.st_uid not in (0, os.getuid()):
        raise PlaceError(f"cannot use the run directory {run_dir}: {run_dir.parent} belongs to uid {found.st_uid}")


def _check_trusted(run_dir: Path, found: os.stat_result) -> None:
    if found.st_uid != os.getuid():
        raise PlaceError(
            f"cannot use the run directory {run_dir}: it belongs to uid {found.st_uid}, not to uid {os.getuid()}"
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode == WITH_SIDE_DOOR:
        return
    if mode & 0o077 or mode & 0o700 != 0o700:
        raise PlaceError(
            f"cannot use the run directory {run_dir}: its permissions are {mode:04o}, they must be 0700"
            f" (chmod 700 {run_dir})"
        )


def _open_lock(path: Path, directory: int) -> int:
    try:
        return os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except OSError as error:
        raise PlaceError(f"cannot open the lock {path}: {_reason(error, path)}") from None


def _reason(error: OSError, path: Path) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR) and os.path.islink(path):
        return "it is a symbolic link"
    at = f" ({error.filename})" if error.filename not in (None, str(path), path, "lock") else ""
    return f"{error.strerror}{at}"


def _take(lock: int, how: int = fcntl.LOCK_EX) -> bool:
    """``LOCK_SH``: as those do who only look; where one can be had, no cluster holds it."""
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still_there(lock: int, directory: int) -> bool:
    """An ending holder removes the file: a lock on a removed one is worth nothing."""
    try:
        return os.path.samestat(os.fstat(lock), os.stat("lock", dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _pid_in(lock: int) -> int | None:
    text = os.pread(lock, MAX_PID_DIGITS + 1, 0).strip()
    return int(text) if text.isdigit() and len(text) <= MAX_PID_DIGITS else None


def _is_alive(pid: int | None) -> bool:
    return pid is not None and os.path.exists(f"/proc/{pid}")


# ---- who runs --------------------------------------------------------------------------------------------------------


def running_clusters(environ: Mapping[str, str] | None = None) -> list[RunningCluster]:
    """The clusters of this user that run below the usual directories, by name."""
    environ, uid = os.environ if environ is None else environ, os.getuid()
    found = (running_at(each) for base in run_bases(environ, uid) for each in _own_directories(base, uid))
    return sorted((each for each in found if each is not None), key=lambda each: (each.name, each.run_dir))


def running_at(run_dir: Path) -> RunningCluster | None:
    """The cluster that holds the lock in ``run_dir``, or None."""
    try:
        lock = os.open(run_dir / "lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return RunningCluster(run_dir.name, run_dir, _pid_in(lock))
    finally:
        os.close(lock)
    return None


def find_running(
    cluster: str | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> RunningCluster:
    """The cluster that is meant: in ``run_dir`` (or ``SVCD_RUN_DIR``), called ``cluster``, or the only one that runs.

    Raises ``NoClusterRuns`` or ``SeveralClustersRun``.
    """
    environ = os.environ if environ is None else environ
    given = run_dir or (None if cluster else environ.get("SVCD_RUN_DIR"))
    if given:
        path = Path(os.path.abspath(given))
        found = running_at(path)
        if found is None:
            raise NoClusterRuns(f"no cluster runs in {path}")
        return found
    running = [each for each in running_clusters(environ) if cluster in (None, each.name)]
    if not running:
        raise NoClusterRuns(f"cluster {cluster} does not run" if cluster else "no cluster runs")
    if len(running) > 1:
        raise SeveralClustersRun(running)
    return running[0]


def _own_directories(base: Path, uid: int) -> Iterator[Path]:
    """The directories below ``base`` that are the user's own; none when ``base`` itself is not."""
    if not _is_own_directory(base, uid):
        return
    try:
        entries = sorted(os.listdir(base))
    except OSError:
        return
    yield from (base / name for name in entries if _is_own_directory(base / name, uid))


def _is_own_directory(path: str | os.PathLike[str], uid: int) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid
