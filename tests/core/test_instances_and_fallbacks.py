"""Instances of which any one is enough, some of them with a fallback that serves in their place.

Must not test groups and fallbacks by themselves: the books and the walks do.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from play import NEVER, Play, one_of, service

from svcd.supervisor.core.spec import StartMode


def covered() -> Play:
    """web requires a or b; a was given up, and its fallback serves; web runs by b."""
    play = Play(
        service("f"),
        service("a", fallback="f", restart=NEVER),
        service("b"),
        service("web", *one_of("g", "a", "b")),
    ).all_up()
    assert play.exits("a", 1) == ["a running > failed"]
    return play


def test_the_fallback_of_one_is_enough_while_the_other_ends() -> None:
    """One restart, and no circle of them until b has ended."""
    play = covered()
    assert play.restart("b") == ["web running > stopping", "signal web 15"]
    assert play.exits("web") == [
        "web stopping > waiting",
        "web waiting > starting",
        "spawn web",
        "b running > stopping",
        "signal b 15",
    ]
    assert play.cause("web") == "back after b was restarted by request; f serves in place of a"
    assert play.runs("web") == ["web starting > running"]
    assert play.exits("b")[-1] == "spawn b"
    assert play.runs("b")[-1] == "answer r2 done"
    assert play.state("web") == "running"


@pytest.mark.parametrize("ends", ["crash", "stop"])
def test_whoever_runs_by_a_fallback_does_not_care_for_the_others(ends: str) -> None:
    play = covered()
    play.restart("b")
    play.exits("web")
    play.runs("web")
    play.exits("b")
    play.runs("b")
    trace = play.exits("b", 1) if ends == "crash" else play.stop("b")
    assert not [line for line in trace if line.startswith(("web", "signal web"))]


def test_it_goes_with_the_fallback_that_it_runs_by() -> None:
    play = covered()
    play.restart("b")
    play.exits("web")
    play.runs("web")
    assert play.stop("f")[:2] == ["web running > stopping", "signal web 15"]


def test_what_a_stop_takes_along_knows_it_too() -> None:
    play = covered()
    assert play.machine.stopped_along(["b"]) == ("web",)
    play.restart("b")
    play.exits("web")
    play.runs("web")
    assert play.machine.stopped_along(["b"]) == ()
    assert play.machine.stopped_along(["f"]) == ("web",)
    assert play.machine.stopped_along(["b", "f"]) == ("web",)
    assert play.machine.stopped_along(["a"]) == ("web",)


def test_who_runs_by_a_fallback_is_left_alone_by_a_restart_of_whom_it_stands_in_for() -> None:
    """The plan, the answer's ``also`` and what is done agree."""
    play = Play(service("f", start=StartMode.MANUAL), service("a", fallback="f", restart=NEVER), service("web", "a"))
    play.goes_well(play.start())
    play.dies("a")
    play.runs("f")
    play.goes_well(play.exits("web"))
    play.start("a")
    assert play.states() == "f=running a=starting web=running"
    assert play.machine.stopped_along(["f"]) == ("web",)
    play.apply(replace(play.machine.services["a"].spec, watchdog_s=3.0))
    assert play.preview == ["restart a: its configuration has changed"]
    assert play.states() == "f=running a=stopping web=running"
