"""Containment: both ways find and kill every process of a run, and nothing else."""

from __future__ import annotations

import ctypes
import os
import secrets
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from svcd.supervisor.controller.processes import containment
from svcd.supervisor.controller.processes.containment import (
    CgroupContainment,
    Containment,
    SessionContainment,
    is_alive,
)

PR_SET_CHILD_SUBREAPER = 36

# A main process with a child in its own group and a grandchild that left the session; all ignore SIGTERM.
# Prints the pids, then reads a line: "exit" makes the main process end and leave the others behind.
TREE = """
import os, signal, sys
if len(sys.argv) > 1:
    open(sys.argv[1] + "/cgroup.procs", "w").write("0")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def stay(leave_session):
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        if leave_session:
            os.setsid()
        os.write(told, b"x")
        while True:
            signal.pause()
    os.read(ready, 1)
    return pid
print(os.getpid(), stay(False), stay(True), flush=True)
sys.stdin.readline()
"""


@pytest.fixture(params=["cgroup", "session"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def contained(kind: str) -> Iterator[Containment]:
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    made: Containment
    if kind == "cgroup":
        try:
            made = CgroupContainment(f"svcd-test-{secrets.token_hex(6)}", "1")
        except OSError as error:
            pytest.skip(f"no cgroup v2 hierarchy to write: {error}")
    else:
        made = SessionContainment(os.getpid(), set())
    yield made
    made.close()
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


class Tree:
    """The three processes above, inside ``run``."""

    def __init__(self, contained: Containment, run: str) -> None:
        group = contained.prepare(run)
        self.run = run
        self.process = subprocess.Popen(
            [sys.executable, "-c", TREE, *([group] if group else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, containment.MARK: run},
        )
        assert self.process.stdout is not None
        self.pids = [int(word) for word in self.process.stdout.readline().split()]

    def end_main(self) -> None:
        """The main process ends; its children hold its output open, so only its exit is waited for."""
        assert self.process.stdin is not None
        self.process.stdin.write("exit\n")
        self.process.stdin.close()
        self.process.wait()

    def reap(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        for pid in self.pids[1:]:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass


def _wait_dead(pid: int) -> None:
    """Wait on the process itself: its pidfd becomes readable when it ends."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], 30)[0], f"{pid} still lives"
    finally:
        os.close(pidfd)


def test_members_are_all_of_the_run_and_only_they(contained: Containment) -> None:
    tree, other = Tree(contained, "run-1"), Tree(contained, "run-2")
    try:
        assert sorted(contained.members("run-1", tree.pids[0])) == sorted(tree.pids)
        contained.kill("run-1", tree.pids[0])
        for pid in tree.pids:
            _wait_dead(pid)
        assert all(is_alive(pid) for pid in other.pids)
    finally:
        contained.kill("run-2", other.pids[0])
        for each in (tree, other):
            each.reap()
            contained.release(each.run)


def test_all_of_several_runs_die_though_nobody_knows_their_main_processes(contained: Containment) -> None:
    trees = [Tree(contained, "run-1"), Tree(contained, "run-2")]
    try:
        while contained.kill_all(["run-1", "run-2"]):
            pass
        for pid in (pid for tree in trees for pid in tree.pids):
            _wait_dead(pid)
    finally:
        for each in trees:
            each.reap()
            contained.release(each.run)


def test_who_is_of_a_run(contained: Containment) -> None:
    """The living, however far away they went; zombies; nobody else."""
    tree, other = Tree(contained, "run-1"), Tree(contained, "run-2")
    main = tree.pids[0]
    try:
        assert all(contained.has("run-1", main, pid) for pid in tree.pids)
        strangers = (*other.pids, os.getpid(), 1, 0, 1 << 22, 1 << 70)
        assert not any(contained.has("run-1", main, pid) for pid in strangers)
        os.kill(tree.pids[1], signal.SIGKILL)
        _wait_dead(tree.pids[1])
        assert contained.has("run-1", main, tree.pids[1]), "nobody has reaped it"
        tree.end_main()
        assert contained.has("run-1", main, tree.pids[2]), "an orphan by now"
        assert not contained.has("run-2", other.pids[0], tree.pids[2])
    finally:
        for each in (tree, other):
            contained.kill(each.run, each.pids[0])
            each.reap()
            contained.release(each.run)


def test_the_main_process_of_another_run_is_not_of_this_one() -> None:
    """Whatever its environment says: it may have been handed all of ours."""
    mains: set[int] = set()
    contained = SessionContainment(os.getpid(), mains)
    tree, other = Tree(contained, "run-1"), Tree(contained, "run-1")
    try:
        assert contained.has("run-1", tree.pids[0], other.pids[0])
        mains.add(other.pids[0])
        assert not contained.has("run-1", tree.pids[0], other.pids[0])
        assert not contained.has("run-1", tree.pids[0], other.pids[1])
    finally:
        for each in (tree, other):
            contained.kill("run-1", each.pids[0])
            each.reap()


def test_what_the_main_process_leaves_behind_is_seen_and_killed(contained: Containment) -> None:
    tree = Tree(contained, "run-1")
    try:
        tree.end_main()
        assert not contained.is_empty("run-1", tree.pids[0])
        assert sorted(contained.members("run-1", tree.pids[0])) == sorted(tree.pids[1:])
        containment.signal_members(contained, "run-1", tree.pids[0], signal.SIGTERM)
        assert all(is_alive(pid) for pid in tree.pids[1:]), "they ignore SIGTERM"
        contained.kill("run-1", tree.pids[0])
        for pid in tree.pids[1:]:
            _wait_dead(pid)
        tree.reap()
        assert contained.is_empty("run-1", tree.pids[0])
    finally:
        tree.reap()
        contained.release("run-1")


def test_a_run_without_processes_is_empty(contained: Containment) -> None:
    contained.prepare("run-1")
    dead = subprocess.Popen(["true"])
    dead.wait()
    assert contained.is_empty("run-1", dead.pid)
    assert contained.members("run-1", dead.pid) == []
    contained.release("run-1")


def test_nothing_is_left_of_the_groups() -> None:
    try:
        made = CgroupContainment(f"svcd-test-{secrets.token_hex(6)}", "1")
    except OSError as error:
        pytest.skip(f"no cgroup v2 hierarchy to write: {error}")
    base = Path(made.prepare("run-1") or "").parent
    made.prepare("run-2")
    made.release("run-1")
    assert [path.name for path in base.iterdir() if path.is_dir()] == ["run-2"]
    made.close()
    assert not base.exists()


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(child.pid)
    child.wait()


def test_what_a_killed_svcd_has_left_is_killed_and_removed_and_nothing_else() -> None:
    place, other = (f"svcd-test-{secrets.token_hex(6)}" for _ in range(2))
    try:
        earlier, stranger = CgroupContainment(place, "1"), CgroupContainment(other, "1")
    except OSError as error:
        pytest.skip(f"no cgroup v2 hierarchy to write: {error}")
    left, spared = Tree(earlier, "run-1"), Tree(stranger, "run-1")
    present = CgroupContainment(place, "2")
    try:
        for pid in left.pids:
            _wait_dead(pid)
        assert all(is_alive(pid) for pid in spared.pids)
        group = Path(present.prepare("run-9") or "").parent
        again = CgroupContainment(place, "3")
        assert sorted(path.name for path in group.parent.glob(f"{place}-*")) == [f"{place}-3"]
        again.close()
        assert list(group.parent.glob(f"{place}-*")) == []
    finally:
        stranger.kill("run-1", spared.pids[0])
        for pid in spared.pids:
            _wait_dead(pid)
        for tree in (left, spared):
            tree.reap()
        for each in (earlier, present, stranger):
            each.close()
