"""A real guardian with real launchers and a real collector, whose controller is the test itself.

Must not decide what a test expects: it starts, listens, waits and accounts for every process.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil

from svcd import supervisor
from svcd.supervisor.wiring import (
    ClusterEnded,
    Link,
    PartStarted,
    ProcessBorn,
    ProcessReaped,
    SpawnRequested,
)

PATIENCE_S = 60.0
PR_SET_CHILD_SUBREAPER = 36
PATH = "/usr/local/bin:/usr/bin:/bin"

# What the guardian starts as its controller: hands its end of the link to the test, then waits to be told to end.
RELAY = """
import json, os, socket, sys
there = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
there.connect("\\0" + sys.argv[1])
fd = json.loads(sys.argv[2])["guardian_fd"]
socket.send_fds(there, [b"link"], [fd])
os.close(fd)
os._exit(len(there.recv(1)))
"""

# The guardian as it is run, but for some of its numbers.
OTHERWISE = """
import json, sys
sys.path.insert(0, sys.argv.pop(1))
from svcd.supervisor import guardian
vars(guardian).update(json.loads(sys.argv.pop(1)))
guardian.main()
"""

Wanted = TypeVar("Wanted")


@contextmanager
def subreaper() -> Iterator[None]:
    """While inside, whatever loses its parent becomes our child and cannot slip away."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], Any], what: str) -> None:
    """For what nobody announces."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.01)


class Guarded:
    """``messages`` has everything that the controller would have heard, in its order per link.

    ``numbers``: constants of the guardian's, where they are not to be its own.
    """

    def __init__(
        self, directory: Path, limit: int | None = None, numbers: dict[str, float] | None = None, **given: Any
    ) -> None:
        self.run_dir, self.logs = directory / "run", directory / "logs"
        self.run_dir.mkdir()
        self.stderr = directory / "stderr.txt"
        self.messages: list[Any] = []
        self.links: dict[str, Link] = {}
        self.part_pids: dict[str, int] = {}
        self.pidfds: list[int] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._name = f"svcd-test-{secrets.token_hex(8)}"
        self._listener.bind(f"\0{self._name}")
        self._listener.listen(1)
        self._listener.settimeout(PATIENCE_S)
        self._begin(limit, numbers, given)
        self.relay, _ = self._listener.accept()
        credentials = self.relay.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.relay_pid: int = struct.unpack("3i", credentials)[0]
        _, fds, _, _ = socket.recv_fds(self.relay, 16, 1, socket.MSG_CMSG_CLOEXEC)
        self.links["guardian"] = Link(socket.socket(fileno=fds[0]))

    def _begin(self, limit: int | None, numbers: dict[str, float] | None, given: dict[str, Any]) -> None:
        lock = os.open(self.run_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        parts = {"controller": [sys.executable, "-I", "-S", "-c", RELAY, self._name, "{}"], **given.pop("parts", {})}
        argument = {
            "cluster": "shop",
            "run_dir": str(self.run_dir),
            "state_dir": str(self.logs.parent),
            "python": sys.executable,
            "site": [each for each in sys.path if each],
            "lock_fd": lock,
            "console": False,
            "python_services": False,
            "parts": parts,
            **given,
        }
        kept = [each["fd"] for each in given.get("waiting", {}).values()]
        package = Path(supervisor.__file__).parent
        entry = [str(package / "__main__.py")]
        if numbers is not None:
            entry = ["-c", OTHERWISE, str(package.parent.parent), json.dumps(numbers)]
        command = [sys.executable, "-I", "-S", *entry, json.dumps(argument)]
        if limit is not None:
            command = ["sh", "-c", f'ulimit -n {limit} && exec "$@"', "sh", *command]
        with self.stderr.open("ab") as stderr:
            self.process = subprocess.Popen(
                command, pass_fds=(lock, *kept), stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr
            )
        os.close(lock)

    @property
    def pid(self) -> int:
        return self.process.pid

    # ---- the controller's side ---------------------------------------------------------------------------------------

    def pump(self, patience_s: float) -> None:
        """Send what waits, take in what has arrived; wait for something, but not longer than that."""
        poll = select.poll()
        by_fd = {link.fileno(): link for link in self.links.values() if not link.closed}
        for fd, link in by_fd.items():
            poll.register(fd, select.POLLIN | (select.POLLOUT if link.wants_write else 0))
        for fd, _ in poll.poll(patience_s * 1000):
            by_fd[fd].flush()
            for message, fds in by_fd[fd].receive():
                self._take(message, fds)

    def _take(self, message: Any, fds: list[int]) -> None:
        self.messages.append(message)
        if isinstance(message, PartStarted):
            self.part_pids[message.part] = message.pid
            if fds:
                old = self.links.pop(message.part, None)
                if old is not None:
                    old.close()
                self.links[message.part] = Link(socket.socket(fileno=fds.pop()))
        elif isinstance(message, ProcessBorn):
            self.pidfds.append(fds.pop())
        assert fds == [], f"descriptors that nobody expects with {message}"

    def wait(self, condition: Callable[[], Wanted], what: str) -> Wanted:
        """Serve until the condition holds; its value."""
        deadline = time.monotonic() + PATIENCE_S
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"waited in vain: {what}\n{self.messages[-20:]}\n{self.stderr.read_text()}")
            self.pump(0.2)
        return value

    def all(self, kind: type[Wanted], **fields: Any) -> list[Wanted]:
        """The messages of one type so far, with these fields."""
        return [
            each
            for each in self.messages
            if isinstance(each, kind) and all(getattr(each, name) == value for name, value in fields.items())
        ]

    def wait_for(self, kind: type[Wanted], **fields: Any) -> Wanted:
        """The first such message, there already or to come."""
        return self.wait(lambda: self.all(kind, **fields), f"{kind.__name__} {fields}")[0]

    def wait_part(self, name: str, after: int | None = None) -> int:
        """The pid of a part, of a later one than ``after`` if given."""
        self.wait(lambda: self.part_pids.get(name) not in (None, after), f"{name} after {after}")
        return self.part_pids[name]

    def send(self, part: str, message: Any, fds: tuple[int, ...] = ()) -> None:
        self.wait_part(part)
        self.links[part].send(message, fds)

    # ---- services ----------------------------------------------------------------------------------------------------

    def order(
        self, service: str, *argv: str, invocation: int = 1, logged: bool = True, **fields: Any
    ) -> SpawnRequested:
        """An order for a program. ``logged``: with two streams of generous size."""
        if logged:
            fields.setdefault("streams", (self.target(service, "stdout"), self.target(service, "stderr")))
        fields.setdefault("env", {"PATH": PATH})
        fields.setdefault("workdir", "/")
        fields.setdefault("argv", argv)
        return SpawnRequested(service=service, invocation=invocation, title=f"svcd: service shop/{service}", **fields)

    def target(self, service: str, stream: str, max_size_bytes: int = 1 << 40, keep: int = 3) -> dict[str, Any]:
        path = str(self.logs / service / f"{stream}.log")
        return {"stream": stream, "path": path, "max_size_bytes": max_size_bytes, "keep": keep}

    def spawn(self, service: str, *argv: str, part: str = "launcher", fds: tuple[int, ...] = (), **fields: Any) -> int:
        """Start one and wait for its birth; its pid. ``fds``: what goes to its ``targets``."""
        order = self.order(service, *argv, **fields)
        self.send(part, order, fds)
        return self.wait_for(ProcessBorn, service=service, invocation=order.invocation).pid

    def run(self, service: str, *argv: str, **fields: Any) -> ProcessReaped:
        """Start one and wait for its end."""
        self.spawn(service, *argv, **fields)
        return self.wait_for(ProcessReaped, service=service, invocation=fields.get("invocation", 1))

    def output(self, service: str, stream: str = "stdout") -> str:
        """What it has written, once the collector has all of it: call it after the end."""
        path = self.logs / service / f"{stream}.log"
        return path.read_text() if path.exists() else ""

    # ---- the end -----------------------------------------------------------------------------------------------------

    def end(self, exit_code: int = 0) -> int:
        """Say that the cluster has ended; the guardian's exit code."""
        self.links["guardian"].send(ClusterEnded(exit_code))
        self.relay.send(b"")
        return self.wait_end()

    def wait_end(self) -> int:
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"the guardian does not end\n{self.stderr.read_text()}"
            self.pump(0.02)
        self.pump(0.0)
        return self.process.returncode

    def close(self) -> None:
        """Leave nothing. What had to be killed is the caller's to know: ``descendants`` before."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE_S)
        self.relay.close()
        self._listener.close()
        for link in self.links.values():
            link.close()
        for fd in self.pidfds:
            os.close(fd)
        deadline = time.monotonic() + PATIENCE_S
        while children := psutil.Process().children(recursive=True):
            for child in children:
                if time.monotonic() > deadline - PATIENCE_S / 2:
                    child.send_signal(signal.SIGKILL)
                try:
                    os.waitpid(child.pid, os.WNOHANG)
                except ChildProcessError:
                    pass
            assert time.monotonic() < deadline, f"left behind: {children}"
            time.sleep(0.01)
