"""Runs: whatever order the guardian and the launchers report in, the core hears one order."""

from __future__ import annotations

import itertools
import os

import pytest

from svcd.supervisor.controller.runs import Run, Runs
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

    def prepare(self, run: str) -> str | None:
        return None

    def members(self, run: str, pid: int) -> list[int]:
        return []

    def is_empty(self, run: str, pid: int) -> bool:
        return run not in self.full

    def kill(self, run: str, pid: int) -> None:
        self.killed.append(run)

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
