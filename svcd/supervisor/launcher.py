"""The launcher, and the fork server: one process per order, announced, let go and forgotten.

Must not supervise: it knows no service but the ones whose exec is in progress. Single-threaded. The lean one (for
programs) is a fork of the guardian; the fork server is ``python -m svcd.supervisor.launcher JSON`` and has imported
the worker runtime.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn

from svcd.record import entity, field, record
from svcd.supervisor import child_setup, clone, headstart, preloading
from svcd.supervisor.child_setup import Ground
from svcd.supervisor.title import set_title
from svcd.supervisor.wiring import (
    Link,
    PreloadBegan,
    PreloadEnded,
    ProcessBorn,
    ProgramExecuted,
    SpawnRejected,
    SpawnRequested,
)

BATCH: Final = 16
REFUSAL_BYTES: Final = 65536
FORK_SERVER: Final = "fork-server"


@record
class Asked:
    """An order and the descriptors that came with it, for ``order.targets``."""

    order: SpawnRequested
    passed: list[int]


@record
class Prepared:
    """An order and the descriptors for its process: pipes, the gate that it will wait at, its cgroup if it has one."""

    asked: Asked
    reads: list[int]
    writes: list[int]
    our_gate: int
    its_gate: int
    cgroup: int | None


@entity
class Launcher:
    """``guardian`` and ``controller`` are our links to them."""

    guardian: Link
    controller: Link
    ground: Ground
    forker: clone.Forker = field(default_factory=clone.Forker)
    epoll: select.epoll = field(default_factory=select.epoll)
    orders: deque[Asked] = field(default_factory=deque)
    waiting: dict[int, SpawnRequested] = field(default_factory=dict)  # by gate: let go, and not exec'ed yet
    room: select.poll = field(default_factory=select.poll)

    def run(self) -> None:
        """Until the guardian is gone."""
        links = {link.fileno(): link for link in (self.guardian, self.controller)}
        for fd in links:
            self.epoll.register(fd, select.EPOLLIN)
        self.room.register(self.guardian, select.POLLOUT)
        writing = False
        while not self.guardian.closed:
            for fd, _ in self.epoll.poll():
                if fd in links:
                    self.serve(links[fd])
                else:
                    self.hear(fd)
            while self.orders and (batch := self.prepare_some()) and self.spawn(batch):
                pass
            if self.controller.closed:
                if links.pop(self.controller.fileno(), None) is not None:
                    self.epoll.unregister(self.controller)
            elif writing != self.controller.wants_write:
                writing = self.controller.wants_write
                self.epoll.modify(self.controller, select.EPOLLIN | (select.EPOLLOUT if writing else 0))

    def serve(self, link: Link) -> None:
        link.flush()
        for message, fds in link.receive():
            if not isinstance(message, SpawnRequested):
                close_all(fds)
            elif len(fds) == len(message.targets):
                self.orders.append(Asked(message, fds))
            else:  # the kernel drops what a receiver without free descriptors cannot take
                close_all(fds)
                self.reject(message, "descriptors", OSError(errno.EMFILE, "no room for the descriptors passed to it"))

    # ---- spawning ----------------------------------------------------------------------------------------------------

    def spawn(self, batch: list[Prepared]) -> bool:
        """Make the processes one right after the other, announce them to the guardian, then let each go. False when
        some of the orders are ours to carry out later.

        What is touched between two forks is copied by the second one, so little is done there.
        """
        again: list[Asked] = []
        born = [self.bear(each) for each in batch]
        for each, child in zip(batch, born, strict=True):
            close_all(each.writes)
            os.close(each.its_gate)
            if each.cgroup is not None:
                os.close(each.cgroup)
            if isinstance(child, tuple):
                close_all(each.asked.passed)
                self.announce(each, *child)
                continue
            close_all((*each.reads, each.our_gate))
            if self.may_try_again(child):
                again.append(each.asked)
            else:
                close_all(each.asked.passed)
                self.reject(each.asked.order, "fork", child)
        self.orders.extendleft(reversed(again))
        return not again

    def bear(self, each: Prepared) -> tuple[int, int] | OSError:
        """(pid, pidfd) of the new process, or why there is none."""
        order, passed, gate, writes, ground = (
            each.asked.order,
            each.asked.passed,
            each.its_gate,
            each.writes,
            self.ground,
        )
        try:
            pid, pidfd = self.forker.fork_sibling(each.cgroup)
        except OSError as error:
            return error
        if pid == 0:
            child_setup.become(order, gate, writes, passed, ground)
        return pid, pidfd

    def announce(self, each: Prepared, pid: int, pidfd: int) -> None:
        """The process is let go when the guardian has its announcement for sure, should we die the next moment."""
        order = each.asked.order
        born = ProcessBorn(order.service, order.invocation, pid, order.streams)
        try:
            self.guardian.send(born, (pidfd, *each.reads))
        finally:
            close_all((pidfd, *each.reads))
        while not self.guardian.flush():
            self.room.poll()
        if self.guardian.unheard:
            os._exit(0)  # and so does the newborn, at the end of file at its gate
        try:
            os.write(each.our_gate, child_setup.GO)
        except OSError:
            pass  # killed from outside already: its end is reported like any other
        self.waiting[each.our_gate] = order
        self.epoll.register(each.our_gate, select.EPOLLIN)

    def hear(self, gate: int) -> None:
        """The answer of a child: end of file when it has become its program, else why not."""
        try:
            answer = os.read(gate, REFUSAL_BYTES)
        except OSError:
            answer = b""
        self.epoll.unregister(gate)
        os.close(gate)
        order = self.waiting.pop(gate)
        if answer:
            stage, number, text = json.loads(answer)
            self.controller.send(SpawnRejected(order.service, order.invocation, True, stage, number, text))
        else:
            self.controller.send(ProgramExecuted(order.service, order.invocation))

    def reject(self, order: SpawnRequested, stage: str, error: OSError) -> None:
        text = f"cannot make a process: {error.strerror or error}"
        self.controller.send(SpawnRejected(order.service, order.invocation, False, stage, error.errno or 0, text))

    # ---- descriptors -------------------------------------------------------------------------------------------------

    def prepare_some(self) -> list[Prepared]:
        """Take orders as far as there is room for their descriptors; reject what can never have it."""
        batch: list[Prepared] = []
        while self.orders and len(batch) < BATCH:
            opened: list[int] = []
            try:
                batch.append(self.prepare(self.orders[0], opened))
            except OSError as error:
                close_all(opened)
                if batch or self.may_try_again(error):
                    break
                close_all(self.orders[0].passed)
                self.reject(self.orders[0].order, "cgroup" if error.filename is not None else "fork", error)
            self.orders.popleft()
        return batch

    def may_try_again(self, error: OSError) -> bool:
        """No descriptors are left, but there will be, when those that were let go have become their programs."""
        return bool(self.waiting) and error.errno in (errno.EMFILE, errno.ENFILE)

    def prepare(self, asked: Asked, opened: list[int]) -> Prepared:
        order = asked.order
        reads, writes = [], []
        for _ in order.streams:
            read, write = os.pipe2(os.O_CLOEXEC)
            opened += (read, write)
            reads.append(read)
            writes.append(write)
        our_gate, its_gate = clone.socketpair()
        opened += (our_gate, its_gate)
        cgroup = None
        if order.cgroup is not None:
            cgroup = os.open(order.cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.append(cgroup)
        return Prepared(asked, reads, writes, our_gate, its_gate, cgroup)


def close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


# ---- the process -----------------------------------------------------------------------------------------------------


def run(given: dict[str, Any]) -> None:
    """Be the part that ``given`` names: {"part", "cluster", "soft_limit", "guardian_fd", "controller_fd"}, and for a
    fork server with a preload set of its own "modules" and "path", the directories that are first on ``sys.path``.
    """
    settle_signals()
    parent = os.getppid()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    is_warm = given["part"].partition(".")[0] == FORK_SERVER
    run_stub, name_process = _import_runtime() if is_warm else (None, set_title)
    name_process(_title(given))
    links = []
    for name in ("guardian_fd", "controller_fd"):
        os.set_inheritable(given[name], False)
        links.append(Link(socket.socket(fileno=given[name])))
    if given.get("modules"):
        _preload(given, *links)
    null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    ground = Ground(parent, null_fd, given["soft_limit"], hard, run_stub, name_process)
    launcher = Launcher(links[0], links[1], ground)
    gc.collect()
    if run_stub is not None:
        from svcd.worker_runtime import stub  # noqa: PLC0415 - imported already

        stub.prepare(lambda: child_setup.rehearse(ground, _title(given)))
    gc.freeze()  # what is here now is never collected: children do not touch its pages
    launcher.run()


def settle_signals() -> None:
    """Every signal does what it does by default, and is blocked: none disturbs us, none has to be reset in a child."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)


def _title(given: dict[str, Any]) -> str:
    title = f"svcd: {given['part'].partition('.')[0]} {given['cluster']}"
    return f"{title} ({', '.join(given['modules'])})" if given.get("modules") else title


def _import_runtime() -> tuple[Callable[[dict[str, Any]], int], Callable[[str], None]]:
    """Import the worker runtime; (its main, setproctitle). Raises ``SystemExit`` when that started a thread."""
    from setproctitle import setproctitle  # noqa: PLC0415 - not in the lean launcher

    from svcd.worker_runtime import stub  # noqa: PLC0415

    if len(os.listdir("/proc/self/task")) != 1:
        raise SystemExit("svcd: the fork server is not single-threaded: something that it imports starts threads")
    return stub.main, setproctitle


def _preload(given: dict[str, Any], guardian: Link, controller: Link) -> None:
    """Import what this fork server is for, and say how that went. One that is not fit waits for its end here: what it
    has said is then read before its end is heard of.
    """
    clone.set_parent_death_signal(child_setup.SIGKILL)  # in an import it hears of nobody's end
    guardian.receive()
    if guardian.closed:  # it ended before that
        os._exit(0)
    try:
        watched = preloading.preload(
            given["modules"], given["path"], lambda module: controller.send(PreloadBegan(given["part"], module))
        )
    except preloading.Unfit as unfit:
        _tell(controller, PreloadEnded(given["part"], unfit.module, unfit.text))
        _wait_for_the_end(guardian)
    from svcd.worker_runtime import stub  # noqa: PLC0415 - imported already

    stub.look_around()
    _tell(controller, PreloadEnded(given["part"], watched=watched))


def _tell(link: Link, message: Any) -> None:
    link.send(message)
    room = select.poll()
    room.register(link, select.POLLOUT)
    while not link.flush():
        room.poll()


def _wait_for_the_end(guardian: Link) -> NoReturn:
    gone = select.poll()
    gone.register(guardian, select.POLLIN)
    while not guardian.closed:
        gone.poll()
        guardian.receive()
    os._exit(0)


def main() -> None:
    """What waits for its argument is a fork server: it imports what its services need meanwhile."""
    argument = headstart.argument(sys.argv[1], _import_runtime)
    os.chdir("/")
    run(argument)


if __name__ == "__main__":
    main()
