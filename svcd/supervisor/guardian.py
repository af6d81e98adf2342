"""The guardian: the pid that people see. Starts svcd's parts, is the parent of every service, reaps them all.

Must not decide about services, block on a part, or import more than the standard library: it has to outlive everybody.

Run by ``__main__``, with a JSON object that has

    cluster, run_dir, state_dir   names and absolute paths
    python, site                  the interpreter of the parts, and their sys.path
    lock_fd                       descriptor that holds the run directory's lock, for as long as we live
    console                       whether to start the console on our terminal
    python_services               whether a fork server is needed from the beginning
    waiting                       optional: part name -> {pid, fd} of one that was begun already (``headstart``)
    parts                         optional, for tests: part name -> argv that replaces the usual one; "{}" is the JSON

Two orders hold always. A birth is announced by a launcher before the process does anything, and an unknown child is
only reaped after the launchers' links have been read; so the controller hears of a birth before it hears of that
process' end.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Collection
from typing import Any, Final

from svcd.record import entity, field, record, replace
from svcd.supervisor import clone, part
from svcd.supervisor.title import set_title
from svcd.supervisor.wiring import (
    ClusterEnded,
    Link,
    PartDismissed,
    PartEnded,
    PartRequested,
    PartStarted,
    ProcessBorn,
    ProcessReaped,
    SignalReceived,
    StreamEnded,
    StreamOpened,
)

PR_SET_CHILD_SUBREAPER: Final = 36
FORWARDED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
IGNORED: Final = (signal.SIGPIPE, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTOU)
LAUNCHERS: Final = ("launcher", "fork-server")
RESTARTS: Final = 5
RESTARTS_WITHIN_S: Final = 10.0
LONG_S: Final = 60.0  # a part that has lived so long can work
RETRY_S: Final = 0.5
PATIENCE_S: Final = 5.0
PAUSE_S: Final = 0.02
UNCLAIMED_LIMIT: Final = 1024
RESERVED_FDS: Final = 64
RUN_FILES: Final = (
    "cluster.json", "control", "events", "stubs/control", "python/svcd", "python/msgpack", "lock",
)  # fmt: skip  # the lock last: it says who is here


@record
class Part:
    """One of svcd's own processes. ``link`` is ours to it; ``began_s`` is monotonic."""

    name: str
    pid: int
    link: Link | None
    began_s: float = 0.0


@record
class Service:
    """A living service process."""

    service: str
    invocation: int
    pidfd: int


@entity
class Guardian:
    """``given`` is the JSON object; the limits are those of descriptors: what services are to have, and ours."""

    given: dict[str, Any]
    soft_limit: int
    hard_limit: int
    parts: dict[str, Part] = field(default_factory=dict)
    services: dict[int, Service] = field(default_factory=dict)
    streams: dict[int, tuple[StreamOpened, int]] = field(default_factory=dict)
    unclaimed: dict[int, ProcessReaped] = field(default_factory=dict)  # the last ends of processes that nobody knew
    missing: list[str] = field(default_factory=list)
    restarts: deque[float] = field(default_factory=deque)
    failures: dict[str, int] = field(default_factory=dict)  # by part: how often in a row it ended by itself, and soon
    stream_count: int = 0
    exit_code: int | None = None
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    wakeup: tuple[socket.socket, socket.socket] = field(default_factory=socket.socketpair)

    # ---- life --------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Start everything, serve until the controller says that the cluster has ended, clear up; the exit code."""
        self.catch_signals()
        self.start_part("controller")
        self.start_part("collector")
        self.start_part("launcher")
        if self.given["python_services"]:
            self.start_part("fork-server")
        part.dismiss_waiting(self.given)
        if self.given["console"]:
            self.start_console()
        while self.exit_code is None:
            self.turn(RETRY_S if self.missing else None)
            self.start_missing()
        self.end()
        return self.exit_code

    def turn(self, timeout_s: float | None) -> None:
        """Wait for something, and do it: messages first, so that births are heard of before ends."""
        signalled = False
        for key, _ in self.selector.select(timeout_s):
            if key.data is None:
                signalled = True
            else:
                self.serve(key.data)
        if signalled:
            self.take_signals()

    def catch_signals(self) -> None:
        """Signals become bytes on a socket; their handlers do nothing."""
        ours, theirs = self.wakeup
        for each in (ours, theirs):
            each.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        for number in (*FORWARDED, signal.SIGCHLD):
            signal.signal(number, lambda _number, _frame: None)
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        self.selector.register(ours, selectors.EVENT_READ, None)

    def take_signals(self) -> None:
        try:
            numbers = self.wakeup[0].recv(4096)
        except BlockingIOError:
            return
        for number in numbers:
            if number in FORWARDED:
                self.tell("controller", SignalReceived(number))
        if signal.SIGCHLD in numbers:
            self.reap()

    def end(self) -> None:
        """Kill what has slipped out of every service's hands, let the parts end, and leave the run directory."""
        for each in self.parts.values():
            if is_numbered(each.name):
                kill(each.pid)  # it may be in the middle of an import, and deaf to us
        self.sweep(spared={each.pid for each in self.parts.values()})
        for each in self.parts.values():
            if each.link is not None:
                self.hang_up(each.link)
        deadline = time.monotonic() + PATIENCE_S
        while self.parts and time.monotonic() < deadline:
            self.turn(max(0.0, deadline - time.monotonic()))
        self.sweep(spared=())
        self.clear_endpoints()
        for name in RUN_FILES:
            try:
                os.unlink(os.path.join(self.given["run_dir"], name))
            except OSError:
                pass
        for name in ("stubs", "python", ""):
            try:
                os.rmdir(os.path.join(self.given["run_dir"], name))
            except OSError:
                pass  # not ours alone

    def clear_endpoints(self) -> None:
        """What services have left behind there, when the controller could not."""
        path = os.path.join(self.given["run_dir"], "peers")
        if os.path.isdir(path):
            import shutil  # noqa: PLC0415 - half a megabyte that is not needed before the end

            shutil.rmtree(path, ignore_errors=True)

    def sweep(self, spared: Collection[int]) -> None:
        """SIGKILL to every other child until none is left: those of a child that dies become ours."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            left = [pid for pid in children() if pid not in spared]
            if not left:
                return
            for pid in left:
                kill(pid)
            self.turn(PAUSE_S)

    # ---- parts -------------------------------------------------------------------------------------------------------

    def start_part(self, name: str, settings: dict[str, Any] | None = None) -> None:
        """Start one part with its link to us and, unless it is the controller, one to the controller."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        opened = {"guardian_fd": theirs}
        direct = None
        if name != "controller":
            direct, opened["controller_fd"] = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            fds = {key: each.fileno() for key, each in opened.items()}
            pid = part.start(name, self.given, {**(settings or {}), "soft_limit": self.soft_limit}, fds)
            link = Link(ours)
            self.parts[name] = Part(name, pid, link, time.monotonic())
            self.selector.register(link, selectors.EVENT_READ, name)
            if direct is not None:
                self.tell("controller", PartStarted(name, pid), (direct.fileno(),))
        finally:
            for each in (direct, *opened.values()):
                if each is not None:
                    each.close()

    def start_requested(self, message: PartRequested) -> None:
        """One more launcher. One with a number is not ours to start again: the controller asks for the next."""
        name = message.part
        if kind_of(name) not in LAUNCHERS or name in self.parts or name in self.missing:
            return
        try:
            self.start_part(name, message.settings)
        except OSError as error:
            complain(f"cannot start the {name}: {error.strerror}")
            if is_numbered(name):
                self.tell("controller", PartEnded(name, 0, None, None))
            else:
                self.missing.append(name)

    def dismiss(self, name: str) -> None:
        if is_numbered(name) and name in self.parts:
            kill(self.parts[name].pid)

    def start_console(self) -> None:
        """It is a client like any other: its link says nothing but that we end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            pid = part.start("console", self.given, {}, {"guardian_fd": theirs.fileno()})
        link = Link(ours)
        self.parts["console"] = Part("console", pid, link)
        self.selector.register(link, selectors.EVENT_READ, "console")
        self.tell("controller", PartStarted("console", pid))

    def start_missing(self) -> None:
        """Start again what has died, unless there was too much of that lately: then later."""
        while self.missing and self.exit_code is None:
            now = time.monotonic()
            while self.restarts and self.restarts[0] < now - RESTARTS_WITHIN_S:
                self.restarts.popleft()
            if len(self.restarts) >= RESTARTS:
                return
            self.restarts.append(now)
            try:
                self.start_part(self.missing[0])
            except OSError as error:
                complain(f"cannot start the {self.missing[0]} again: {error.strerror}; trying on")
                return
            if self.missing.pop(0) == "collector":
                for opened, pipe in self.streams.values():
                    self.tell("collector", opened, (pipe,))

    def tell(self, name: str, message: Any, fds: tuple[int, ...] = ()) -> None:
        found = self.parts.get(name)
        if found is not None and found.link is not None:
            found.link.send(message, fds)
            self.watch(found.link, name)

    def watch(self, link: Link, name: str) -> None:
        """Ask for room to write exactly while something waits for it."""
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.wants_write else 0)
        if not link.closed and self.selector.get_key(link).events != wanted:
            self.selector.modify(link, wanted, name)

    def hang_up(self, link: Link) -> None:
        if link.fileno() >= 0:
            self.selector.unregister(link)
            link.close()

    def serve(self, name: str) -> None:
        """Read all that a part has said, and send what waits for it."""
        found = self.parts.get(name)
        if found is None or found.link is None or found.link.closed:
            return
        found.link.flush()
        for message, fds in found.link.receive():
            if isinstance(message, ProcessBorn):
                self.welcome(message, fds)
            elif isinstance(message, StreamEnded) and message.stream_id in self.streams:
                os.close(self.streams.pop(message.stream_id)[1])
            elif isinstance(message, ClusterEnded):
                self.exit_code = message.exit_code
            elif isinstance(message, PartRequested):
                self.start_requested(message)
            elif isinstance(message, PartDismissed):
                self.dismiss(message.part)
        if not found.link.closed:
            self.watch(found.link, name)
            return
        self.hang_up(found.link)
        if self.exit_code is None:
            kill(found.pid)  # it is ending, or does not speak our language; its end comes as SIGCHLD in either case

    # ---- births and ends ---------------------------------------------------------------------------------------------

    def welcome(self, message: ProcessBorn, fds: list[int]) -> None:
        """A service is born: tell the controller, hand its pipes to the collector and keep copies of all."""
        if len(fds) != 1 + len(message.streams) or max(fds) >= self.hard_limit - RESERVED_FDS:
            message, fds = self.turn_away(message, fds)
        pidfd, *pipes = fds
        self.tell("controller", ProcessBorn(message.service, message.invocation, message.pid), (pidfd,))
        for target, pipe in zip(message.streams, pipes, strict=True):
            self.stream_count += 1
            opened = StreamOpened(self.stream_count, message.service, message.invocation, target)
            self.streams[opened.stream_id] = (opened, pipe)
            self.tell("collector", opened, (pipe,))
        early = self.unclaimed.pop(message.pid, None)
        if early is None or is_there(pidfd):  # there: the end that we remember was another's with that number
            self.services[message.pid] = Service(message.service, message.invocation, pidfd)
            return
        os.close(pidfd)  # killed from outside, and reaped between its clone and this message
        self.tell("controller", replace(early, service=message.service, invocation=message.invocation))

    def turn_away(self, message: ProcessBorn, fds: list[int]) -> tuple[ProcessBorn, list[int]]:
        """We are short of descriptors (the kernel drops what does not fit): this process must go, the others live."""
        complain(f"{message.service} is killed: svcd has no descriptors left for it (limit {self.hard_limit})")
        for fd in fds:
            os.close(fd)
        kill(message.pid)
        return replace(message, streams=()), [os.pidfd_open(message.pid)]

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
            own = next((each for each in self.parts.values() if each.pid == pid), None)
            for name in (own.name,) if own else () if pid in self.services else self.launchers():
                self.serve(name)
            _, status, usage = os.wait4(pid, 0)
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
            if own is not None:
                self.part_ended(own, code, number)
            else:
                peak = usage.ru_maxrss * 1024
                self.child_ended(ProcessReaped(pid, None, None, code, number, usage.ru_utime, usage.ru_stime, peak))

    def launchers(self) -> list[str]:
        return [name for name in self.parts if kind_of(name) in LAUNCHERS]

    def child_ended(self, reaped: ProcessReaped) -> None:
        known = self.services.pop(reaped.pid, None)
        if known is not None:
            os.close(known.pidfd)
            reaped = replace(reaped, service=known.service, invocation=known.invocation)
        else:
            self.unclaimed[reaped.pid] = reaped
            if len(self.unclaimed) > UNCLAIMED_LIMIT:
                del self.unclaimed[next(iter(self.unclaimed))]
        self.tell("controller", reaped)

    def part_ended(self, own: Part, code: int | None, number: int | None) -> None:
        """One of our own is gone. The console and numbered ones may be; others are started again; without the
        controller all must end, and so it must when a part ends by itself time and again: it cannot work.
        """
        del self.parts[own.name]
        if own.link is not None:
            self.hang_up(own.link)
        self.tell("controller", PartEnded(own.name, own.pid, code, number))
        if own.name == "console" or is_numbered(own.name) or self.exit_code is not None:
            return
        failed = number is None and time.monotonic() - own.began_s < LONG_S
        failures = self.failures[own.name] = self.failures.get(own.name, 0) + 1 if failed else 0
        how = f"exit code {code}" if number is None else f"signal {number}"
        complain(f"the {own.name} (pid {own.pid}) died: {how}")
        if own.name == "controller" or failures > RESTARTS:
            complain("everything is taken down")
            self.exit_code = 1
            for pid in self.services:
                kill(pid, whole_group=True)
        else:
            self.missing.append(own.name)


def kind_of(name: str) -> str:
    """ "fork-server.3" is a fork server."""
    return name.partition(".")[0]


def is_numbered(name: str) -> bool:
    return "." in name


def kill(pid: int, whole_group: bool = False) -> None:
    """SIGKILL to a child that has not been reaped, or to its process group as well."""
    for send in (os.killpg, os.kill) if whole_group else (os.kill,):
        try:
            send(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # no group yet, or dead


def is_there(pidfd: int) -> bool:
    """Whether the process runs or has not been reaped."""
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return False
    return True


def children() -> list[int]:
    """Our children, those that have ended and were not reaped among them (proc(5))."""
    me = os.getpid()
    try:
        with open(f"/proc/{me}/task/{me}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent_of(pid) == me]


def parent_of(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return None


def complain(text: str) -> None:
    try:
        os.write(2, f"svcd: {text}\n".encode())
    except OSError:
        pass


def main() -> None:
    given: dict[str, Any] = json.loads(sys.argv[1])
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # whoever started us may have closed these
        os.set_inheritable(fd, True)
    kept = [given["lock_fd"], *(each["fd"] for each in given.get("waiting", {}).values())]
    clone.close_all_but(kept)
    for fd in kept:
        os.set_inheritable(fd, False)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    set_title(f"svcd: guardian {given['cluster']}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.chdir("/")
    gc.collect()
    gc.freeze()  # shared with the parts that are forks of us
    sys.exit(Guardian(given, soft, hard).run())
