"""The guardian: the pid that people see. Starts svcd's parts, is the parent of every service, reaps them all.

Must not decide about services, block on a part, or import more than the standard library: it has to outlive everybody.

Run as ``python -I -S guardian.py JSON``; the JSON object has

    cluster, run_dir, state_dir   names and absolute paths
    python, site                  the interpreter of the parts, and their sys.path
    lock_fd                       descriptor that holds the run directory's lock
    console                       whether to start the console on our terminal
    python_services               whether a fork server is needed
    parts                         optional, for tests: part name -> argv that replaces the usual one; "{}" is the JSON

Two orders hold always. A birth is announced by a launcher before the process does anything, and an unknown child is
only reaped after the launchers' links have been read; so the controller hears of a birth before it hears of that
process' end.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

if __name__ == "__main__":  # run by path, without site: our package is found from here
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from svcd.supervisor.wiring import (
    ClusterEnded,
    Link,
    PartEnded,
    PartStarted,
    ProcessBorn,
    ProcessReaped,
    SignalReceived,
    StreamEnded,
    StreamOpened,
)

PR_SET_NAME: Final = 15
PR_SET_CHILD_SUBREAPER: Final = 36
FORWARDED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LAUNCHERS: Final = ("launcher", "fork-server")
RESTARTS: Final = 5
RESTARTS_WITHIN_S: Final = 10.0
END_PATIENCE_S: Final = 5.0
UNCLAIMED_LIMIT: Final = 1024
RUN_FILES: Final = ("cluster.json", "console.json", "control", "events", "stubs/control", "lock")


@dataclass(slots=True)
class Part:
    """One of svcd's own processes. ``link`` is ours to it; the console has none."""

    name: str
    pid: int
    link: Link | None


@dataclass(slots=True)
class Service:
    """A living service process, and what was sent along with its birth."""

    service: str
    invocation: int
    pidfd: int


@dataclass(slots=True)
class Guardian:
    """``given`` is the JSON object; ``soft_limit`` the soft limit of descriptors that services are to have."""

    given: dict[str, Any]
    soft_limit: int
    parts: dict[str, Part] = field(default_factory=dict)
    services: dict[int, Service] = field(default_factory=dict)
    streams: dict[int, tuple[StreamOpened, int]] = field(default_factory=dict)
    unclaimed: dict[int, ProcessReaped] = field(default_factory=dict)
    restarts: deque[float] = field(default_factory=deque)
    stream_count: int = 0
    exit_code: int | None = None
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    # ---- parts -----------------------------------------------------------------------------------------------------

    def start_part(self, name: str) -> None:
        """Start one part with its link to us and, unless it is the controller, one to the controller."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = {"guardian_fd": theirs}
        direct = None
        if name != "controller":
            direct, fds["controller_fd"] = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = self.spawn(name, {key: each.fileno() for key, each in fds.items()})
        for each in fds.values():
            each.close()
        self.parts[name] = Part(name, pid, Link(ours))
        self.selector.register(self.parts[name].link, selectors.EVENT_READ, name)  # type: ignore[arg-type]
        if direct is not None:
            self.tell("controller", PartStarted(name, pid), (direct.fileno(),))
            direct.close()

    def start_console(self) -> None:
        """It keeps our terminal and process group, and gets no link: it is a client."""
        self.parts["console"] = Part("console", self.spawn("console", {}), None)
        self.tell("controller", PartStarted("console", self.parts["console"].pid))

    def spawn(self, name: str, fds: dict[str, int]) -> int:
        keys = ("cluster", "run_dir", "state_dir", "site")
        argument = json.dumps(
            {key: self.given[key] for key in keys} | {"part": name, "soft_limit": self.soft_limit} | fds
        )
        argv = self.given.get("parts", {}).get(name) or self.usual(name)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(self.given["site"]), "PYTHONSAFEPATH": "1"}
        process = subprocess.Popen(
            [argument if word == "{}" else word for word in argv],
            pass_fds=tuple(fds.values()),
            start_new_session=name != "console",
            env=environment if name not in ("collector", "launcher") else None,
        )
        process.returncode = 0  # we reap it ourselves: Popen has nothing to wait for
        return process.pid

    def usual(self, name: str) -> list[str]:
        here, python = os.path.dirname(os.path.abspath(__file__)), self.given["python"]
        if name in ("collector", "launcher"):
            return [python, "-I", "-S", f"{here}/{name}.py", "{}"]
        module = {"controller": "svcd.supervisor.controller", "console": "svcd.cli.console"}
        return [python, "-m", module.get(name, "svcd.supervisor.launcher"), "{}"]

    def tell(self, part: str, message: Any, fds: tuple[int, ...] = ()) -> None:
        found = self.parts.get(part)
        if found is not None and found.link is not None:
            found.link.send(message, fds)
            self.watch(found.link, part)

    def watch(self, link: Link, name: str) -> None:
        """Ask for room to write exactly while something waits for it."""
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.wants_write else 0)
        if not link.closed and self.selector.get_key(link).events != wanted:
            self.selector.modify(link, wanted, name)

    # ---- what parts say --------------------------------------------------------------------------------------------

    def serve(self, name: str) -> None:
        """Read all that a part has said, and send what waits for it."""
        part = self.parts.get(name)
        if part is None or part.link is None or part.link.closed:
            return
        part.link.flush()
        for message, fds in part.link.receive():
            if isinstance(message, ProcessBorn):
                self.welcome(message, fds)
            elif isinstance(message, StreamEnded) and message.stream_id in self.streams:
                os.close(self.streams.pop(message.stream_id)[1])
            elif isinstance(message, ClusterEnded):
                self.exit_code = message.exit_code
        if part.link.closed:
            self.selector.unregister(part.link)
        else:
            self.watch(part.link, name)

    def welcome(self, message: ProcessBorn, fds: list[int]) -> None:
        """A service is born: tell the controller, hand its pipes to the collector and keep copies of all."""
        pidfd, *pipes = fds
        self.tell("controller", ProcessBorn(message.service, message.invocation, message.pid), (pidfd,))
        for target, pipe in zip(message.streams, pipes, strict=True):
            self.stream_count += 1
            opened = StreamOpened(self.stream_count, message.service, message.invocation, target)
            self.streams[opened.stream_id] = (opened, pipe)
            self.tell("collector", opened, (pipe,))
        early = self.unclaimed.pop(message.pid, None)
        if early is not None:  # killed from outside between its clone and this message
            os.close(pidfd)
            early = ProcessReaped(message.pid, message.service, message.invocation, early.code, early.signal)
            self.tell("controller", early)
            return
        self.services[message.pid] = Service(message.service, message.invocation, pidfd)

    # ---- children ----------------------------------------------------------------------------------------------------

    def reap(self) -> None:
        """Every child that has ended: look first, then reap, so that its birth has been heard of."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            pid = ended.si_pid
            part = next((each for each in self.parts.values() if each.pid == pid), None)
            if part is None and pid not in self.services:
                for name in LAUNCHERS:
                    self.serve(name)
            _, status, usage = os.wait4(pid, 0)
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
            if part is not None:
                self.part_ended(part, code, number)
            else:
                self.child_ended(pid, code, number, usage)

    def child_ended(self, pid: int, code: int | None, number: int | None, usage: Any) -> None:
        known = self.services.pop(pid, None)
        service, invocation = (known.service, known.invocation) if known else (None, None)
        peak = usage.ru_maxrss * 1024
        reaped = ProcessReaped(pid, service, invocation, code, number, usage.ru_utime, usage.ru_stime, peak)
        if known is not None:
            os.close(known.pidfd)
        else:
            self.unclaimed[pid] = reaped
            if len(self.unclaimed) > UNCLAIMED_LIMIT:
                del self.unclaimed[next(iter(self.unclaimed))]
        self.tell("controller", reaped)

    def part_ended(self, part: Part, code: int | None, number: int | None) -> None:
        """One of our own is gone: the console may be; others are started again; without the controller all must end."""
        self.serve(part.name)
        del self.parts[part.name]
        if part.link is not None:
            if not part.link.closed:
                self.selector.unregister(part.link)
            part.link.close()
        self.tell("controller", PartEnded(part.name, part.pid, code, number))
        if part.name == "console" or self.exit_code is not None:
            return
        now = time.monotonic()
        self.restarts.append(now)
        while self.restarts[0] < now - RESTARTS_WITHIN_S:
            self.restarts.popleft()
        how = f"exit code {code}" if number is None else f"signal {number}"
        complain(f"the {part.name} (pid {part.pid}) died: {how}")
        if part.name == "controller" or len(self.restarts) > RESTARTS:
            complain("everything is taken down")
            self.kill_services()
            self.exit_code = 1
            return
        self.start_part(part.name)
        if part.name == "collector":
            for opened, pipe in self.streams.values():
                self.tell("collector", opened, (pipe,))

    def kill_services(self) -> None:
        """SIGKILL to every service's process group, then to whatever is left as our child, until nothing is."""
        for pid in self.services:
            for kill in (os.killpg, os.kill):
                try:
                    kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass

    # ---- life --------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Start everything, serve until the controller says that the cluster has ended, clear up; the exit code."""
        wakeup = self.catch_signals()
        for name in (
            "controller",
            "collector",
            "launcher",
            *(["fork-server"] if self.given["python_services"] else []),
        ):
            self.start_part(name)
        if self.given["console"]:
            self.start_console()
        while self.exit_code is None:
            for key, _ in self.selector.select():
                if key.data is not None:
                    self.serve(key.data)
            self.take_signals(wakeup)
        self.end_parts()
        self.clear_run_dir()
        return self.exit_code

    def catch_signals(self) -> socket.socket:
        """Signals become bytes on a socket; their handlers do nothing."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for each in (ours, theirs):
            each.setblocking(False)
        signal.set_wakeup_fd(theirs.detach(), warn_on_full_buffer=False)
        for number in (*FORWARDED, signal.SIGCHLD):
            signal.signal(number, lambda _number, _frame: None)
        for number in (signal.SIGPIPE, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTOU):
            signal.signal(number, signal.SIG_IGN)
        self.selector.register(ours, selectors.EVENT_READ, None)
        return ours

    def take_signals(self, wakeup: socket.socket) -> None:
        try:
            numbers = wakeup.recv(4096)
        except BlockingIOError:
            return
        for number in numbers:
            if number in FORWARDED:
                self.tell("controller", SignalReceived(number))
        if signal.SIGCHLD in numbers:
            self.reap()

    def end_parts(self) -> None:
        """Parts end when their links do; whoever does not is killed, and so is every orphan that is still our child."""
        for part in self.parts.values():
            if part.link is not None and not part.link.closed:
                part.link.close()
        deadline = time.monotonic() + END_PATIENCE_S
        while self.wait_children(deadline):
            for pid in children_of(os.getpid()):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            deadline = time.monotonic() + END_PATIENCE_S

    def wait_children(self, deadline: float) -> bool:
        """Reap until no child is left (False), or until the deadline (True). Orphans are not waited for:
        they are killed.
        """
        own = {part.pid for part in self.parts.values()}
        while time.monotonic() < deadline:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            own.discard(pid)
            if not own:
                return bool(children_of(os.getpid()))
            if pid == 0:
                time.sleep(0.002)
        return True

    def clear_run_dir(self) -> None:
        """Remove what svcd has put there; the lock last, for it says that somebody is here."""
        for name in RUN_FILES:
            try:
                os.unlink(os.path.join(self.given["run_dir"], name))
            except OSError:
                pass
        for name in ("stubs", ""):
            try:
                os.rmdir(os.path.join(self.given["run_dir"], name))
            except OSError:
                pass


def children_of(pid: int) -> list[int]:
    """The children of a single-threaded process (proc(5))."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def complain(text: str) -> None:
    try:
        os.write(2, f"svcd: {text}\n".encode())
    except OSError:
        pass


def main() -> None:
    given = json.loads(sys.argv[1])
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_NAME, b"svcd: guardian", 0, 0, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.chdir("/")
    sys.exit(Guardian(given, soft).run())


if __name__ == "__main__":
    main()
