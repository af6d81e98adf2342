"""Launchers that the controller asks for: started as it says, ended as it says, never started again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from guarded import Guarded, is_alive, wait_until

from svcd.supervisor.wiring import (
    PartDismissed,
    PartEnded,
    PartRequested,
    PartStarted,
    PreloadBegan,
    PreloadEnded,
    ProcessReaped,
)

SERVER = "fork-server.1"


def ask(guarded: Guarded, name: str, *modules: str, path: tuple[str, ...] = ()) -> None:
    settings = {"modules": list(modules), "path": list(path)} if modules else {}
    guarded.links["guardian"].send(PartRequested(name, settings))


def test_one_that_is_asked_for_imports_and_says_so(guarded: Guarded, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("")
    ask(guarded, SERVER, "json", "own", path=(str(tmp_path),))
    ended = guarded.wait_for(PreloadEnded, part=SERVER)
    assert [each.module for each in guarded.all(PreloadBegan)] == ["json", "own"]
    assert ended.refusal == ""
    assert str(tmp_path / "own.py") in ended.watched


def test_one_that_is_unfit_says_so_and_waits_to_be_dismissed(guarded: Guarded, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("1 / 0")
    ask(guarded, SERVER, "json", "own", path=(str(tmp_path),))
    ended = guarded.wait_for(PreloadEnded, part=SERVER)
    assert ended.module == "own"
    assert ended.refusal.startswith("cannot preload own: ZeroDivisionError")
    assert is_alive(guarded.part_pids[SERVER])
    guarded.links["guardian"].send(PartDismissed(SERVER))
    assert guarded.wait_for(PartEnded, part=SERVER).signal == signal.SIGKILL


@pytest.mark.parametrize("kind", ["launcher", "fork-server"])
def test_one_that_ends_is_not_started_again(guarded: Guarded, kind: str) -> None:
    ask(guarded, f"{kind}.1")
    pid = guarded.wait_part(f"{kind}.1")
    os.kill(pid, signal.SIGKILL)
    assert guarded.wait_for(PartEnded, part=f"{kind}.1").pid == pid
    assert guarded.run("a", "true").code == 0, "nothing else is touched"
    assert len(guarded.all(PartStarted, part=f"{kind}.1")) == 1
    ask(guarded, f"{kind}.2")
    guarded.wait_part(f"{kind}.2")


def test_however_often_they_end_the_rest_stays(guarded: Guarded) -> None:
    for number in range(10):
        ask(guarded, f"launcher.{number}")
        os.kill(guarded.wait_part(f"launcher.{number}"), signal.SIGTERM)  # which they block
        guarded.links["guardian"].send(PartDismissed(f"launcher.{number}"))
        guarded.wait_for(PartEnded, part=f"launcher.{number}")
    assert guarded.run("a", "true").code == 0


def test_the_births_of_one_are_heard_of_before_their_ends(guarded: Guarded) -> None:
    ask(guarded, "launcher.1")
    for number in range(50):
        guarded.send("launcher.1", guarded.order(f"s{number}", "true"))
    guarded.wait(lambda: len(guarded.all(ProcessReaped)) == 50, "all ends")
    assert all(each.service is not None for each in guarded.all(ProcessReaped))


def test_only_launchers_are_started_and_only_once(guarded: Guarded) -> None:
    old = guarded.wait_part("launcher")
    for name in ("launcher", "collector", "collector.1", "controller.7", "console", "nonsense", "", ".", "../x"):
        ask(guarded, name)
        guarded.links["guardian"].send(PartDismissed(name))
    ask(guarded, "fork-server")
    guarded.wait_part("fork-server")
    assert guarded.run("a", "true").code == 0
    assert guarded.part_pids["launcher"] == old
    assert {each.part for each in guarded.all(PartStarted)} == {"collector", "launcher", "fork-server"}
    assert guarded.all(PartEnded) == []


def test_the_plain_one_is_started_again(guarded: Guarded) -> None:
    ask(guarded, "fork-server")
    old = guarded.wait_part("fork-server")
    os.kill(old, signal.SIGKILL)
    guarded.wait_part("fork-server", after=old)


def test_one_in_the_middle_of_an_import_does_not_hold_up_the_end(guarded: Guarded, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import threading\nthreading.Event().wait()")
    ask(guarded, SERVER, "own", path=(str(tmp_path),))
    guarded.wait_for(PreloadBegan, part=SERVER)
    pid = guarded.part_pids[SERVER]
    assert guarded.end() == 0
    wait_until(lambda: not is_alive(pid), "its end")
