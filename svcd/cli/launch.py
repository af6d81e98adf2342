"""From a validated cluster to a guardian: the lock, the plan, the state directory, and the exec.

Must not wait for anything, nor leave anything behind when it fails.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NoReturn

from svcd.cli import headstart
from svcd.cli.exits import CommandFailed
from svcd.cli.following import write_marks
from svcd.protocol import places as place
from svcd.protocol.places import Places
from svcd.record import record
from svcd.supervisor.config import plan
from svcd.supervisor.config.launch import ClusterSpec, PythonCode

GUARDIAN: Final = "svcd.supervisor.__main__"


@record
class Ground:
    """All that a guardian needs. ``lock`` is a descriptor: whoever has it holds the cluster."""

    cluster: ClusterSpec
    places: Places
    lock: int

    def become_guardian(self, as_json: bool = False) -> NoReturn:
        """Replace this process, with a console: its pid stays, and is the one to send SIGTERM to."""
        os.environ.pop(headstart.CONSOLE_FORMAT, None)
        if as_json:
            os.environ[headstart.CONSOLE_FORMAT] = "json"
        self._note_marks()
        place.record_pid(self.lock, os.getpid())
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        with self._told():
            headstart.in_foreground().become_guardian(_guardian_path(), self._arguments(console=True), self.lock)

    def become_guardian_behind(self, log: int) -> int:
        """A process in a session of its own becomes the guardian, and says what it has to say in ``log``; its pid."""
        with self._told():
            second = headstart.detached()
            try:
                place.record_pid(self.lock, second.pid)
                second.become_guardian(_guardian_path(), self._arguments(console=False), self.lock, log)
            except BaseException:
                second.end()
                raise
            return second.pid

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.give_up()
            text = f"cannot start {self.cluster.name}: there can be no process for it: {error.strerror}"
            raise CommandFailed(text) from None

    def _arguments(self, console: bool) -> dict[str, object]:
        runs = [each.launch.run for each in self.cluster.services]
        return {
            "cluster": self.cluster.name,
            "run_dir": str(self.places.run_dir),
            "state_dir": str(self.places.state_dir),
            "python": sys.executable,
            "site": headstart.own_path(),
            "console": console,
            "python_services": any(isinstance(run, PythonCode) and run.interpreter is None for run in runs),
        }

    def _note_marks(self) -> None:
        try:
            write_marks(self.places.state_dir)
        except OSError:  # the console then shows what comes from now on
            pass

    def give_up(self) -> None:
        """Leave the run directory as if we had never been there."""
        for path in (self.places.cluster_json, self.places.lock):
            path.unlink(missing_ok=True)
        try:
            self.places.run_dir.rmdir()
        except OSError:  # somebody's directory with something in it
            pass
        os.close(self.lock)


def prepare(cluster: ClusterSpec, places: Places) -> Ground:
    """Take the lock and write what the daemon will read. Raises ``CommandFailed``, with nothing left behind."""
    try:
        lock = place.claim_lock(places)
    except place.ClusterRuns as error:
        who = f"pid {error.pid}" if error.pid is not None else "just starting"
        text = f"cannot start {cluster.name}: it runs already ({who}, run directory {places.run_dir})"
        hint = "svcd start NAME starts services in it; svcd shutdown ends it; --run-dir runs a second one"
        raise CommandFailed(text, hint=hint) from None
    except place.PlaceError as error:
        raise CommandFailed(f"cannot start {cluster.name}: {error}") from None
    ground = Ground(cluster, places, lock)
    try:
        _make_state_dir(places.state_dir)
        _write_atomically(places.cluster_json, plan.to_json(cluster))
    except OSError as error:
        ground.give_up()
        at = f" ({error.filename})" if error.filename else ""
        raise CommandFailed(f"cannot start {cluster.name}: {error.strerror}{at}") from None
    except BaseException:
        ground.give_up()
        raise
    return ground


def _make_state_dir(state_dir: Path) -> None:
    os.makedirs(state_dir.parent, exist_ok=True)
    for directory in (state_dir, state_dir / "logs"):
        directory.mkdir(mode=0o700, exist_ok=True)
    if not os.access(state_dir, os.W_OK | os.X_OK):
        raise PermissionError(13, "cannot write to the state directory", str(state_dir))


def _write_atomically(path: Path, data: bytes) -> None:
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _guardian_path() -> str:
    spec = find_spec(GUARDIAN)
    if spec is None or spec.origin is None:
        raise CommandFailed(f"cannot find {GUARDIAN}: this installation of svcd is incomplete")
    return spec.origin
