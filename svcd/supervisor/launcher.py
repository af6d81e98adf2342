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
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from svcd.supervisor import child_setup, clone
from svcd.supervisor.child_setup import Ground, Refused
from svcd.supervisor.title import set_title
from svcd.supervisor.wiring import Link, ProcessBorn, ProgramExecuted, SpawnRejected, SpawnRequested

REFUSAL_BYTES: Final = 65536
FORK_SERVER: Final = "fork-server"
IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)


@dataclass(frozen=True, slots=True)
class Newborn:
    """A process that waits at its gate. ``fds``: its pidfd and the read ends of its pipes, ours to close."""

    order: SpawnRequested
    pid: int
    gate: socket.socket
    fds: tuple[int, ...]


@dataclass(slots=True)
class Launcher:
    """``guardian`` and ``controller`` are our links to them."""

    guardian: Link
    controller: Link
    ground: Ground
    forker: clone.Forker = field(default_factory=clone.Forker)
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    room: select.poll = field(default_factory=select.poll)

    def run(self) -> None:
        """Until the guardian is gone."""
        self.room.register(self.guardian, select.POLLOUT)
        for link in (self.guardian, self.controller):
            self.selector.register(link, selectors.EVENT_READ)
        while not self.guardian.closed:
            for key, _ in self.selector.select():
                if isinstance(key.fileobj, Link):
                    self.serve(key.fileobj)
                elif isinstance(key.fileobj, socket.socket):
                    self.hear(key.fileobj, key.data)
            self.watch(self.controller)

    def serve(self, link: Link) -> None:
        link.flush()
        for message, _ in link.receive():
            if isinstance(message, SpawnRequested):
                self.spawn(message)
        if link.closed and link is self.controller:
            self.selector.unregister(link)

    def watch(self, link: Link) -> None:
        if not link.closed:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.wants_write else 0)
            if self.selector.get_key(link).events != wanted:
                self.selector.modify(link, wanted)

    # ---- one spawn ---------------------------------------------------------------------------------------------------

    def spawn(self, order: SpawnRequested) -> None:
        """Make the process, announce it to the guardian, then let it go."""
        try:
            newborn = self.bear(order)
        except Refused as refusal:
            self.controller.send(
                SpawnRejected(order.service, order.invocation, False, refusal.stage, refusal.number, refusal.text)
            )
            return
        self.announce(newborn)
        try:
            newborn.gate.send(child_setup.GO)
        except OSError:
            pass  # killed from outside already: its end is reported like any other
        self.selector.register(newborn.gate, selectors.EVENT_READ, order)

    def bear(self, order: SpawnRequested) -> Newborn:
        """Raises ``Refused``, and leaves no descriptor behind, when there is no process."""
        pipes: list[tuple[int, int]] = []
        gates: list[socket.socket] = []
        stage, cgroup_fd = "fork", None
        born = False
        try:
            for _ in order.streams:
                pipes.append(os.pipe2(os.O_CLOEXEC))
            gates += socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            if order.cgroup is not None:
                stage = "cgroup"
                cgroup_fd = os.open(order.cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            pid, pidfd = self.forker.fork_sibling(cgroup_fd)
            if pid == 0:
                os.close(gates[0].fileno())  # else we would wait for our own word when the launcher is gone
                child_setup.become(order, gates[1], [write for _, write in pipes], self.ground)
            born = True
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
                stage = "fork"
            where = "" if stage == "fork" else f" in {order.cgroup}"
            text = f"cannot make a process{where}: {error.strerror or error}"
            raise Refused(stage, error.errno, text) from None
        finally:
            for fd in [write for _, write in pipes] + ([] if cgroup_fd is None else [cgroup_fd]):
                os.close(fd)
            for gate in gates[1:] if born else gates:
                gate.close()
            for read, _ in [] if born else pipes:
                os.close(read)
        return Newborn(order, pid, gates[0], (pidfd, *(read for read, _ in pipes)))

    def announce(self, newborn: Newborn) -> None:
        """Only returns when the guardian has it for sure, should we die the next moment, or is gone itself."""
        order = newborn.order
        try:
            self.guardian.send(ProcessBorn(order.service, order.invocation, newborn.pid, order.streams), newborn.fds)
        finally:
            for fd in newborn.fds:
                os.close(fd)
        while not self.guardian.flush():
            self.room.poll()
        if self.guardian.unheard:
            os._exit(0)  # and so does the newborn, at the end of file at its gate

    def hear(self, gate: socket.socket, order: SpawnRequested) -> None:
        """The answer of a child: end of file when it has become its program, else why not."""
        try:
            answer = gate.recv(REFUSAL_BYTES)
        except OSError:
            answer = b""
        self.selector.unregister(gate)
        gate.close()
        if answer:
            stage, number, text = json.loads(answer)
            self.controller.send(SpawnRejected(order.service, order.invocation, True, stage, number, text))
        else:
            self.controller.send(ProgramExecuted(order.service, order.invocation))


# ---- the process -----------------------------------------------------------------------------------------------------


def run(given: dict[str, Any]) -> None:
    """Be the part that ``given`` names: {"part", "cluster", "soft_limit", "guardian_fd", "controller_fd"}."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    run_stub, name_child = _preload() if given["part"] == FORK_SERVER else (None, set_title)
    (name_child if run_stub else set_title)(f"svcd: {given['part']} {given['cluster']}")
    links = [Link(socket.socket(fileno=given[name])) for name in ("guardian_fd", "controller_fd")]
    null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    handled = child_setup.handled_signals()
    ground = Ground(os.getppid(), null_fd, given["soft_limit"], hard, handled, run_stub, name_child)
    launcher = Launcher(links[0], links[1], ground)
    gc.collect()
    gc.freeze()  # what is here now is never collected: children do not touch its pages
    launcher.run()


def _preload() -> tuple[Callable[[dict[str, Any]], int], Callable[[str], None]]:
    """Import the worker runtime; (its main, setproctitle). Raises ``SystemExit`` when that started a thread."""
    from setproctitle import setproctitle  # noqa: PLC0415 - not in the lean launcher

    from svcd.worker_runtime import stub  # noqa: PLC0415

    if len(os.listdir("/proc/self/task")) != 1:
        raise SystemExit("svcd: the fork server is not single-threaded: something that it imports starts threads")
    return stub.main, setproctitle


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
