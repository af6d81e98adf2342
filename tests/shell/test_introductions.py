"""Introductions: real processes knock, and are known by their pids for what they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from neighbourhood import Neighbourhood, defined

from svcd.protocol.call_errors import PermissionDenied
from svcd.supervisor.config.launch import ClusterSpec
from svcd.supervisor.controller.processes.runs import Run, Runs
from svcd.supervisor.controller.python import introductions
from svcd.supervisor.controller.python.introductions import CLIENT, Introductions

STRANGER_UID = 65534
FAMILY = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-ISc", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
sys.stdin.read()
child.communicate()
"""


class Members:
    """A containment that the test fills: which processes are of which run."""

    def __init__(self) -> None:
        self.of: dict[str, set[int]] = {}

    def prepare(self, run: str) -> str | None:
        return None

    def has(self, run: str, pid: int, other: int) -> bool:
        return other in self.of.get(run, ())

    def release(self, run: str) -> None:
        pass


class Scene:
    """web may call db; other may not. ``guardian`` is this process: its children are services."""

    def __init__(self) -> None:
        scene = Neighbourhood(
            defined("db", fallback="spare"),
            defined("spare"),
            defined("pool.0"),
            defined("web", "db", may_call=("pool",)),
            defined("other"),
        )
        self.registry = scene.registry
        self.members = Members()
        self.runs = Runs(lambda event: None, self.members, set())  # type: ignore[arg-type]  # what is used of it
        self.errands = Runs(lambda event: None, self.members, set())  # type: ignore[arg-type]
        self.introductions = Introductions((self.runs, self.errands), self.registry, os.getpid())

    def runs_as(self, service: str, invocation: int, pid: int, runs: Runs | None = None) -> Run:
        run = Run(service, invocation, f"mark-{invocation}", "launcher")
        (runs or self.runs).open(run)
        (runs or self.runs).born(invocation, pid, os.open("/dev/null", os.O_RDONLY))
        return run

    def close(self) -> None:
        for runs in (self.runs, self.errands):
            for run in runs.all():
                assert run.pidfd is not None
                os.close(run.pidfd)


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


@pytest.fixture
def family() -> Iterator[tuple[int, int]]:
    """A process and its child."""
    with subprocess.Popen(
        [sys.executable, "-ISc", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        yield parent.pid, int(parent.stdout.readline())
        parent.communicate()


def test_a_service_is_known_by_its_main_process_and_by_its_children(scene: Scene, family: tuple[int, int]) -> None:
    scene.runs_as("web", 7, family[0])
    for pid in family:
        assert scene.introductions.name_of("db", pid, 0) == "web"
        assert scene.introductions.name_of("db", pid, STRANGER_UID) == "web"


def test_who_may_not_call_is_refused_though_the_uid_might(scene: Scene, family: tuple[int, int]) -> None:
    scene.runs_as("other", 7, family[0])
    for pid in family:
        with pytest.raises(PermissionDenied, match=r"^other neither depends on it nor has the permission$"):
            scene.introductions.name_of("db", pid, 0)


def test_an_errand_is_of_the_service_that_it_is_for(scene: Scene, family: tuple[int, int]) -> None:
    scene.runs_as("web", 7, family[0], scene.errands)
    assert scene.introductions.name_of("db", family[1], 0) == "web"


def test_an_orphan_is_of_the_run_that_its_group_says(scene: Scene, family: tuple[int, int]) -> None:
    """The guardian is its parent now: here that is so for a process that nobody has born as a run."""
    scene.runs_as("web", 7, 4_000_000)
    with pytest.raises(PermissionDenied, match="of some service that has ended"):
        scene.introductions.name_of("db", family[0], 0)
    scene.members.of["mark-7"] = {family[0]}
    assert scene.introductions.name_of("db", family[0], 0) == "web"


def test_who_is_no_service_is_a_client_if_his_user_commands_the_cluster(scene: Scene) -> None:
    assert scene.introductions.name_of("db", 1, 0) == CLIENT
    assert scene.introductions.name_of("db", os.getppid(), os.geteuid()) == CLIENT
    with pytest.raises(PermissionDenied, match=f"^uid {STRANGER_UID} may not call services of this cluster$"):
        scene.introductions.name_of("db", 1, STRANGER_UID)


def test_who_is_gone_is_nobodys(scene: Scene) -> None:
    """Its pid says nothing any more; its user still does."""
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert scene.introductions.run_of(gone.pid) is None


def test_ancestors_are_looked_at_within_a_bound(
    scene: Scene, family: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(introductions, "parent_of", lambda pid: pid)
    assert scene.introductions.run_of(family[1]) is None


def test_who_may_call_whom(scene: Scene) -> None:
    may_call = scene.introductions.may_call
    assert may_call("web", "db")
    assert may_call("web", "pool.0"), "named by the name that the file has for all of them"
    assert may_call("web", "spare"), "it stands in for db"
    assert not may_call("web", "other")
    assert not may_call("db", "web")
    assert not may_call("web", "none")
    assert not may_call("none", "db")


def test_a_permission_that_is_taken_away_lets_nobody_in(scene: Scene, family: tuple[int, int]) -> None:
    scene.runs_as("web", 7, family[0])
    scene.registry.change(ClusterSpec("shop", (), (defined("db"), defined("web"))))
    with pytest.raises(PermissionDenied):
        scene.introductions.name_of("db", family[0], 0)


def test_a_run_is_found_by_its_pid_as_long_as_it_lasts(scene: Scene, family: tuple[int, int]) -> None:
    run = scene.runs_as("web", 7, family[0])
    assert scene.runs.of_pid(family[0]) is run
    scene.members.of["mark-7"] = {family[1]}
    assert scene.runs.adopt_main(run, family[1])
    assert (scene.runs.of_pid(family[0]), scene.runs.of_pid(family[1])) == (None, run)
    scene.runs.rejected(7, "gone", born=False)
    assert scene.runs.of_pid(family[1]) is None
