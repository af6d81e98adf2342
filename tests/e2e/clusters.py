"""Runs a whole cluster for a test, as a user would, and accounts for every process of it.

Must not import the daemon: it knows the command, the control socket, the event stream and the files.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import zmq
from traces import Transition

from svcd.protocol import codec, messages
from svcd.protocol.messages.published import CONFIRMATION

PATIENCE_S = 60.0
PAUSE_S = 0.02
PR_SET_CHILD_SUBREAPER = 36
SVCD = str(Path(sys.executable).parent / "svcd")
NUMBERS = itertools.count(1)
ROOT = Path(__file__).resolve().parent.parent.parent


def free_ports(count: int) -> list[int]:
    """Loopback TCP ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """The condition's first true value, for conditions that nobody announces."""
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience_s:g} s in vain: {what}")
        time.sleep(PAUSE_S)
    return value


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def subreaper() -> Iterator[None]:
    """While inside, orphans of what this process started become its children: nothing can slip away unseen."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def descendants() -> list[psutil.Process]:
    """Everything below this process that runs (zombies do not)."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            pass
    return found


def _row(status: messages.StatusReported, name: str) -> messages.ServiceStatus:
    """Of the service or instance of that name; of a service with several instances, the first one's."""
    return next(row for row in status.services if name in (row.name, row.service))


@dataclass
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


class Cluster:
    """One cluster in directories of its own. ``start`` runs ``svcd start`` in the foreground, as a child."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.base = Path(tempfile.mkdtemp(prefix="svcd-test-"))  # short: a socket's path has at most 107 bytes
        self.run_dir, self.state_dir = self.base / "run", self.base / "state"
        self.console = directory / "console.txt"
        self.environ = {**os.environ, "SVCD_RUN_DIR": str(self.run_dir), "SVCD_STATE_DIR": str(self.state_dir)}
        self.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
        self.process: subprocess.Popen[bytes] | None = None
        self.file = directory / "cluster.yaml"
        self.trace: list[messages.Message] = []
        self._context: zmq.Context[Any] = zmq.Context()
        self._control = self._socket(zmq.DEALER, "control")
        self._events = self._socket(zmq.SUB, "events")
        self._events.subscribe(b"")
        self._confirmation = f"{os.getpid()}.{next(NUMBERS)}"
        self._events.subscribe(CONFIRMATION + self._confirmation.encode())
        self._confirmations = 0

    def _socket(self, kind: int, name: str) -> Any:
        made = self._context.socket(kind)
        made.linger = 0
        made.reconnect_ivl = 5
        made.connect(f"ipc://{self.run_dir}/{name}")
        return made

    # ---- commands --------------------------------------------------------------------------------------------------

    def write(self, text: str, name: str = "cluster.yaml") -> Path:
        """A file of the cluster; the first one written is what ``start`` uses."""
        path = self.directory / name
        path.write_text(textwrap.dedent(text))
        return path

    def svcd(self, *arguments: str, code: int | None = 0, **more: Any) -> Outcome:
        """Run a command to its end. ``code``: what it must exit with; None: whatever."""
        done = subprocess.run(
            [SVCD, *arguments],
            env=self.environ,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
            **more,
        )
        outcome = Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in outcome.err or "<code of" in outcome.err, outcome.err
        assert code is None or outcome.code == code, f"svcd {' '.join(arguments)}: {outcome}"
        return outcome

    def start(self, *files: Path, wait: str | None = "running") -> int:
        """Start in the foreground; returns the guardian's pid. ``wait``: for the cluster to be in this state."""
        with self.console.open("ab") as console:
            self.process = subprocess.Popen(
                [SVCD, "start", *map(str, files or [self.file])],
                env=self.environ,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wait_subscribed()
        if wait is not None:
            self.wait_cluster(wait)
        return self.process.pid

    def start_detached(self, *files: Path, code: int = 0) -> Outcome:
        return self.svcd("start", "-d", *map(str, files or [self.file]), code=code)

    def wait_subscribed(self) -> None:
        """From here on no event is missed (and if one were, ``since`` would find the gap): each svcd that we connect to
        says once that it has read our subscription.
        """
        heard = self._confirmations

        def is_in_force() -> bool:
            self.read_events(0.1)
            return self._confirmations > heard or self.process is None or self.process.poll() is not None

        wait_until(is_in_force, "events")

    def wait_end(self) -> int:
        """The exit code of the foreground ``svcd start``, once it has ended."""
        assert self.process is not None
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"svcd did not end\n{self.story()}") from None

    def drain(self) -> int:
        """SIGTERM to the main pid, as anybody would; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.wait_end()

    # ---- the control socket ----------------------------------------------------------------------------------------

    def ask(self, message: messages.Message, patience_s: float = PATIENCE_S) -> messages.Message:
        """One question, one answer, over the held connection."""
        self._control.send_multipart([b"q", codec.encode(message)])
        if not self._control.poll(patience_s * 1000):
            raise AssertionError(f"no answer to {message}\n{self.story()}")
        _, body = self._control.recv_multipart()
        return codec.decode(body)

    def status(self) -> messages.StatusReported:
        answer = self.ask(messages.GetStatus())
        assert isinstance(answer, messages.StatusReported), answer
        return answer

    def row(self, service: str) -> messages.ServiceStatus:
        return _row(self.status(), service)

    def pid_of(self, service: str) -> int:
        pid = self.row(service).pid
        assert pid is not None, self.row(service)
        return pid

    def states(self) -> dict[str, str]:
        return {row.service: row.state for row in self.status().services}

    # ---- waiting ---------------------------------------------------------------------------------------------------

    def read_events(self, patience_s: float) -> bool:
        """Take in what was published; False if nothing was within ``patience_s``."""
        if not self._events.poll(patience_s * 1000):
            return False
        while self._events.poll(0):
            _, body = self._events.recv_multipart()
            event = codec.decode(body)
            if not isinstance(event, messages.SubscriptionConfirmed):
                self.trace.append(event)
            elif event.word == self._confirmation:  # and not somebody else's
                self._confirmations += 1
        return True

    def wait_status(self, condition: Callable[[messages.StatusReported], Any], what: str) -> messages.StatusReported:
        """Ask for the status after each event until it is as wanted."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            status = self.status()
            if condition(status):
                return status
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"svcd ended with {self.process.returncode} while waiting: {what}\n{self.story()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"waited in vain: {what}\n{self.story()}")
            self.read_events(0.5)

    def wait_cluster(self, state: str) -> messages.StatusReported:
        return self.wait_status(lambda status: status.state == state, f"the cluster to be {state}")

    def wait_state(self, service: str, *states: str, after: int | None = None) -> messages.ServiceStatus:
        """Wait for the service to be in one of ``states``, in an invocation later than ``after`` if given."""

        def reached(status: messages.StatusReported) -> bool:
            row = _row(status, service)
            return row.state in states and (after is None or (row.invocation or 0) > after)

        self.wait_status(reached, f"{service} to be {' or '.join(states)}, after invocation {after}")
        return self.row(service)

    # ---- the record ------------------------------------------------------------------------------------------------

    def mark(self) -> int:
        """Now, as the number of the last event."""
        return self.status().sequence

    def since(self, mark: int) -> list[Transition]:
        """Every transition after ``mark`` until now, or until the end if svcd has ended."""
        ended = self.process is not None and self.process.poll() is not None
        last = 0 if ended else self.mark()
        deadline = time.monotonic() + PATIENCE_S
        while not self._has_heard(last, ended) and (ended or last > mark):
            assert time.monotonic() < deadline, f"events are missing after {len(self.trace)}\n{self.story()}"
            self.read_events(0.5)
        events: list[Any] = [event for event in self.trace if event.sequence > mark]  # type: ignore[attr-defined]
        numbers = [event.sequence for event in events]
        assert numbers == list(range(mark + 1, mark + 1 + len(numbers))), f"a gap in the events: {numbers}"
        return [
            Transition(event.service, event.old, event.new, event.cause, event.invocation)
            for event in events
            if isinstance(event, messages.ServiceTransitioned)
        ]

    def _has_heard(self, last: int, ended: bool) -> bool:
        newest: Any = self.trace[-1] if self.trace else None
        if ended:
            return isinstance(newest, messages.ClusterStateChanged) and newest.state == "ended"
        return last == 0 or (newest is not None and newest.sequence >= last)

    def journal(self) -> list[dict[str, Any]]:
        """svcd's own log: complete once it has ended, a moment late before."""
        try:
            lines = (self.state_dir / "svcd.log").read_text().splitlines()
        except OSError:
            return []
        return [json.loads(line) for line in lines if line.startswith("{")]

    def transitions(self) -> list[Transition]:
        """Every transition of the whole life, from the log, once svcd has ended."""
        return [
            Transition(line["service"], line["old"], line["new"], line["cause"], line["invocation"])
            for line in self.journal()
            if line["event"] == "transition"
        ]

    def output(self, service: str, stream: str = "stdout") -> bytes:
        """Everything that the service wrote, over all rotated files, read while none of them was rotated."""
        while True:
            before = self._log_files(service, stream)
            try:
                data = b"".join(path.read_bytes() for path, _ in before)
            except FileNotFoundError:
                continue
            if [inode for _, inode in self._log_files(service, stream)] == [inode for _, inode in before]:
                return data

    def _log_files(self, service: str, stream: str) -> list[tuple[Path, int]]:
        """The files of one stream, oldest first, each with its inode."""
        found = [
            (int(entry.name.rpartition(".")[2]) if entry.name[-1].isdigit() else 0, entry)
            for entry in self._entries(service)
            if entry.name.startswith(f"{stream}.log")
        ]
        return [(Path(entry.path), entry.inode()) for _, entry in sorted(found, key=lambda each: -each[0])]

    def _entries(self, service: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.state_dir / "logs" / service) as entries:
                return list(entries)
        except FileNotFoundError:
            return []

    def story(self) -> str:
        """What a failed test wants to show."""
        parts = [f"console:\n{self.console.read_text()[-4000:]}" if self.console.exists() else "no console"]
        log = self.state_dir / "svcd.log"
        parts.append(f"svcd.log:\n{log.read_text()[-4000:]}" if log.exists() else "no svcd.log")
        return "\n".join(parts)

    # ---- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End what still runs and remove the directories. What had to be killed is an error of the test or of svcd."""
        self._control.close()
        self._events.close()
        self._context.term()
        killed = self._end_all()
        leftovers = sorted(os.listdir(self.run_dir)) if self.run_dir.exists() else []
        story = self.story() if killed or leftovers else ""
        shutil.rmtree(self.base, ignore_errors=True)
        assert not killed, f"had to be killed: {killed}\n{story}"
        assert not leftovers, f"left in the run directory: {leftovers}\n{story}"

    def _end_all(self) -> list[str]:
        guardians = [process for process in psutil.Process().children() if process.status() != psutil.STATUS_ZOMBIE]
        for process in guardians:
            try:
                process.terminate()
            except psutil.NoSuchProcess:
                pass
        deadline = time.monotonic() + PATIENCE_S / 2
        while descendants() and time.monotonic() < deadline:
            self._reap()
            time.sleep(PAUSE_S)
        killed = []
        while left := descendants():
            for process in left:
                try:
                    killed.append(f"{process.pid} {' '.join(process.cmdline()) or process.name()}")
                    process.kill()
                except psutil.NoSuchProcess:
                    pass
            self._reap()
            time.sleep(PAUSE_S)
        self._reap()
        return killed

    def _reap(self) -> None:
        if self.process is not None:
            self.process.poll()
        for child in psutil.Process().children():
            try:
                if child.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(child.pid, os.WNOHANG)
            except (psutil.NoSuchProcess, ChildProcessError):
                pass
