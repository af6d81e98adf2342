"""Runs: whatever order the guardian and the launchers report in, the core hears one order."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Collection, Iterator

import pytest

from svcd.supervisor.controller.processes.runs import Run, Runs
from svcd.supervisor.core.events import (
    ExitStatus,
    LeftoversGone,
    ProcessExited,
    ProcessSpawned,
    ProgramExecuted,
    SpawnFailed,
)


class Contained:
    """A containment whose content the test says."""

    def __init__(self) -> None:
        self.full: set[str] = set()
        self.released: list[str] = []
        self.killed: list[str] = []
        self.own: set[int] = set()

    def prepare(self, run: str) -> str | None:
        return None

    def members(self, run: str, pid: int) -> list[int]:
        return []

    def is_empty(self, run: str, pid: int) -> bool:
        return run not in self.full

    def has(self, run: str, pid: int, other: int) -> bool:
        return other in self.own

    def kill(self, run: str, pid: int) -> None:
        self.killed.append(run)

    def kill_all(self, runs: Collection[str]) -> bool:
        return False

    def release(self, run: str) -> None:
        self.released.append(run)

    def close(self) -> None:
        pass


class Scene:
    def __init__(self) -> None:
        self.events: list[object] = []
        self.contained = Contained()
        self.runs = Runs(self.events.append, self.contained, set())
        self.runs.open(Run("web", 7, "mark-7", "launcher"))

    def born(self) -> None:
        self.runs.born(7, 4242, os.open("/dev/null", os.O_RDONLY))

    def executed(self) -> None:
        self.runs.executed(7)

    def rejected(self) -> None:
        self.runs.rejected(7, "no such file", born=True)

    def reaped(self) -> None:
        self.runs.reaped(7, ExitStatus(code=3))

    @property
    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize("order", list(itertools.permutations(["born", "executed", "reaped"])))
def test_success_is_told_in_one_order(scene: Scene, order: tuple[str, ...]) -> None:
    for name in order:
        getattr(scene, name)()
    assert scene.names == ["ProcessSpawned", "ProgramExecuted", "ProcessExited"]
    assert isinstance(scene.events[-1], ProcessExited)
    assert scene.events[-1].status == ExitStatus(code=3)
    assert len(scene.runs) == 0
    assert scene.contained.released == ["mark-7"]


@pytest.mark.parametrize("order", list(itertools.permutations(["born", "rejected", "reaped"])))
def test_failed_exec_is_one_failure_after_the_process_is_gone(scene: Scene, order: tuple[str, ...]) -> None:
    for name in order:
        getattr(scene, name)()
    assert scene.names[-1] == "SpawnFailed"
    assert "ProcessExited" not in scene.names
    assert scene.names.count("SpawnFailed") == 1
    assert isinstance(scene.events[-1], SpawnFailed)
    assert scene.events[-1].reason == "no such file"


def test_a_refusal_without_a_process_fails_at_once(scene: Scene) -> None:
    scene.runs.rejected(7, "out of pids", born=False)
    assert scene.names == ["SpawnFailed"]
    assert len(scene.runs) == 0


def test_leftovers_keep_the_run_until_the_last_orphan_is_reaped(scene: Scene) -> None:
    scene.born()
    scene.executed()
    scene.contained.full.add("mark-7")
    scene.reaped()
    assert isinstance(scene.events[-1], ProcessExited)
    assert scene.events[-1].leftovers
    scene.runs.orphan_reaped()
    assert len(scene.runs) == 1, "something of it still lives"
    scene.contained.full.clear()
    scene.runs.orphan_reaped()
    assert isinstance(scene.events[-1], LeftoversGone)
    assert len(scene.runs) == 0


def test_the_launchers_death_settles_what_it_left_open(scene: Scene) -> None:
    scene.runs.launcher_lost("fork-server")
    assert scene.names == []
    scene.runs.launcher_lost("launcher")
    assert scene.names == ["SpawnFailed"]


def test_the_launchers_death_leaves_a_living_process_alone(scene: Scene) -> None:
    scene.born()
    scene.runs.launcher_lost("launcher")
    assert scene.names == ["ProcessSpawned", "ProgramExecuted"]
    scene.reaped()
    assert scene.names[-1] == "ProcessExited"


def test_kill_reaches_all_that_is_left(scene: Scene) -> None:
    scene.runs.kill(7)
    assert scene.contained.killed == [], "there is no process yet"
    scene.born()
    scene.executed()
    scene.contained.full.add("mark-7")
    scene.reaped()
    scene.runs.kill(7)
    assert scene.contained.killed == ["mark-7"]
    scene.contained.full.clear()
    scene.runs.orphan_reaped()


def test_spawned_is_told_once(scene: Scene) -> None:
    scene.born()
    scene.executed()
    scene.executed()
    assert [type(event) for event in scene.events] == [ProcessSpawned, ProgramExecuted]
    scene.reaped()


# ---- what is heard around birth and end ----


def test_steps_at_birth_come_when_its_process_is_known(scene: Scene) -> None:
    steps: list[int | None] = []
    run = scene.runs.get(7)
    assert run is not None
    run.at_birth.append(lambda: steps.append(run.pid))
    assert steps == []
    scene.born()
    assert steps == [4242]
    scene.executed()
    scene.reaped()
    assert steps == [4242]


def test_what_it_said_before_its_end_comes_before_its_end(scene: Scene) -> None:
    run = scene.runs.get(7)
    assert run is not None
    run.before_end.append(lambda: scene.events.append("its last words"))
    scene.born()
    scene.executed()
    scene.reaped()
    assert scene.events[-2] == "its last words"
    assert scene.names[-1] == "ProcessExited"


def test_how_a_run_ended_is_known_of_that_run_alone(scene: Scene) -> None:
    assert scene.runs.status_of("web", 7) is None
    scene.born()
    scene.executed()
    scene.reaped()
    assert scene.runs.status_of("web", 7) == ExitStatus(code=3)
    assert scene.runs.status_of("web", 8) is None, "it never ran: a hook before it failed"
    assert scene.runs.status_of("api", 7) is None
    scene.runs.forget("web")
    scene.runs.forget("web")
    assert scene.runs.status_of("web", 7) is None


def test_a_program_that_was_never_executed_has_not_ended(scene: Scene) -> None:
    scene.born()
    scene.rejected()
    scene.runs.reaped(7, ExitStatus(code=127))
    assert scene.runs.status_of("web", 7) is None


# ---- another main process ----


@pytest.fixture
def other() -> Iterator[int]:
    """A living process."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process.pid
        process.kill()


def adopts(scene: Scene, pid: int) -> bool:
    run = scene.runs.get(7)
    assert run is not None
    return scene.runs.adopt_main(run, pid)


def test_after_an_adoption_only_the_new_ones_end_counts(scene: Scene, other: int) -> None:
    scene.born()
    scene.executed()
    scene.contained.own = {other}
    assert adopts(scene, other)
    assert scene.names[-1] == "MainProcessNamed"
    scene.runs.reaped(7, ExitStatus(code=0), 4242)
    assert scene.names[-1] == "MainProcessNamed"
    scene.runs.orphan_reaped(1234, ExitStatus(code=1))
    assert scene.names[-1] == "MainProcessNamed"
    scene.runs.orphan_reaped(other, ExitStatus(signal=9))
    assert isinstance(scene.events[-1], ProcessExited)
    assert scene.events[-1].status == ExitStatus(signal=9)
    assert len(scene.runs) == 0


def test_an_adoption_that_is_heard_at_the_very_end_counts(scene: Scene, other: int) -> None:
    """A daemon's first process says MAINPID and ends at once: we may hear of its end first."""
    scene.contained.own = {other}
    run = scene.runs.get(7)
    assert run is not None
    run.before_end.append(lambda: adopts(scene, other) and None)
    scene.born()
    scene.executed()
    scene.runs.reaped(7, ExitStatus(code=0), 4242)
    assert scene.names[-1] == "MainProcessNamed"
    run.before_end.clear()
    scene.runs.main_ended(run, other, ExitStatus(code=5))
    assert scene.names[-1] == "ProcessExited"
    scene.runs.main_ended(run, other, ExitStatus(code=6))
    assert scene.names.count("ProcessExited") == 1


def test_a_first_process_that_outlives_the_adopted_one_is_what_it_left_behind(scene: Scene, other: int) -> None:
    scene.born()
    scene.executed()
    scene.contained.own = {other}
    assert adopts(scene, other)
    scene.contained.full.add("mark-7")
    scene.runs.orphan_reaped(other, ExitStatus(code=0))
    assert isinstance(scene.events[-1], ProcessExited)
    assert scene.events[-1].leftovers
    scene.contained.full.clear()
    scene.runs.reaped(7, ExitStatus(signal=15), 4242)
    assert scene.names[-1] == "LeftoversGone"
    assert len(scene.runs) == 0


def test_who_cannot_be_adopted(scene: Scene, other: int) -> None:
    assert not adopts(scene, other), "before there is a process"
    scene.born()
    scene.executed()
    assert not adopts(scene, other), "no process of this run"
    scene.contained.own = {other, 4242, 1 << 22, 1 << 70, 0}
    for pid in (4242, 1 << 22, 1 << 70, 0):
        assert not adopts(scene, pid)
    os.kill(other, signal.SIGKILL)
    os.waitid(os.P_PID, other, os.WEXITED | os.WNOWAIT)
    assert not adopts(scene, other), "a zombie"
    scene.reaped()


def test_the_main_process_of_another_run_is_not_adopted(scene: Scene, other: int) -> None:
    scene.born()
    scene.executed()
    scene.contained.own = {other}
    scene.runs.open(Run("api", 8, "mark-8", "launcher"))
    scene.runs.born(8, other, os.open("/dev/null", os.O_RDONLY))
    assert not adopts(scene, other)
    scene.reaped()
    scene.runs.executed(8)
    scene.runs.reaped(8, ExitStatus(code=0))
