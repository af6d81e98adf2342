"""The launcher, and the fork server: one process per order, announced, let go and forgotten.

Must not supervise: it knows no service but the ones whose exec is in progress. Single-threaded; the lean use
(programs) is standard library only, the other one (``"part": "fork-server"``) has imported the worker runtime.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import selectors
import signal
import socket
import sys
from dataclasses import dataclass, field
from typing import Any, Final

if __name__ == "__main__":  # the lean one is run by path, without site: our package is found from here
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from svcd.supervisor import child_setup, clone
from svcd.supervisor.child_setup import Ground
from svcd.supervisor.wiring import Link, ProcessBorn, ProgramExecuted, SpawnRejected, SpawnRequested

REFUSAL_BYTES: Final = 65536


@dataclass(slots=True)
class Launcher:
    """``guardian`` and ``controller`` are our links to them."""

    guardian: Link
    controller: Link
    ground: Ground
    forker: clone.Forker = field(default_factory=clone.Forker)
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def run(self) -> None:
        """Until the guardian is gone."""
        for link in (self.guardian, self.controller):
            self.selector.register(link, selectors.EVENT_READ)
        while not self.guardian.closed:
            for key, _ in self.selector.select():
                if isinstance(key.fileobj, Link):
                    self.serve(key.fileobj)
                else:
                    self.hear(key.fileobj, key.data)  # type: ignore[arg-type]  # only links and gates are registered
            for link in (self.guardian, self.controller):
                self.watch(link)

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

    def spawn(self, order: SpawnRequested) -> None:
        """Make the process, announce it to the guardian, then let it go."""
        opened: list[int] = []
        try:
            self.try_spawn(order, opened)
        except OSError as error:
            text = f"cannot make a process: {error.strerror or error}"
            self.controller.send(SpawnRejected(order.service, order.invocation, False, "fork", error.errno or 0, text))
        finally:
            for fd in opened:
                os.close(fd)

    def try_spawn(self, order: SpawnRequested, opened: list[int]) -> None:
        reads, writes = [], []
        for _ in order.streams:
            read, write = os.pipe2(os.O_CLOEXEC)
            opened += (read, write)
            reads.append(read)
            writes.append(write)
        cgroup_fd = None
        if order.cgroup is not None:
            cgroup_fd = os.open(order.cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.append(cgroup_fd)
        gate, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid, pidfd = self.forker.fork_sibling(cgroup_fd)
            if pid == 0:
                child_setup.become(order, theirs, writes, self.ground)
        except OSError:
            gate.close()
            raise
        finally:
            theirs.close()
        opened.append(pidfd)
        self.guardian.send(ProcessBorn(order.service, order.invocation, pid, order.streams), (pidfd, *reads))
        try:
            gate.send(b"g")
        except OSError:  # killed from outside already: its end is reported like any other
            pass
        self.selector.register(gate, selectors.EVENT_READ, order)

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


def _no_title(title: str) -> None:
    """The lean launcher's children exec at once."""


def _preload(given: dict[str, Any]) -> tuple[Any, Any]:
    """Import the worker runtime; (its main, setproctitle). Raises ``SystemExit`` when that started a thread."""
    from setproctitle import setproctitle  # noqa: PLC0415 - not in the lean launcher

    from svcd.worker_runtime import stub  # noqa: PLC0415

    setproctitle(f"svcd: fork-server {given['cluster']}")
    if len(os.listdir("/proc/self/task")) != 1:
        raise SystemExit("svcd: the fork server is not single-threaded: something that it imports starts threads")
    return stub.main, setproctitle


def main() -> None:
    """``launcher JSON``: {"part", "cluster", "soft_limit", "guardian_fd", "controller_fd"}."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    run_stub, set_title = _preload(given) if given["part"] == "fork-server" else (None, _no_title)
    if run_stub is None:
        clone.set_name("svcd: launcher")
    links = [Link(socket.socket(fileno=given[name])) for name in ("guardian_fd", "controller_fd")]
    null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    ground = Ground(os.getppid(), null_fd, given["soft_limit"], hard, run_stub, set_title)
    launcher = Launcher(links[0], links[1], ground)
    gc.collect()
    gc.freeze()  # what is here now is never collected: children do not touch its pages
    launcher.run()


if __name__ == "__main__":
    main()
