"""What the shell reads of the machine (views, stories, causes in words), and the page of states.

Must not test decisions.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from play import NEVER, Play, python, service, task

from svcd.supervisor.core import causes
from svcd.supervisor.core.diagram import mermaid, reachable, states_page
from svcd.supervisor.core.events import ExitStatus
from svcd.supervisor.core.states import WITH_PROCESS, State
from svcd.supervisor.core.transitions import TRANSITIONS
from svcd.supervisor.core.unit import STORY_LIMIT

PAGE = Path(__file__).resolve().parents[2] / "docs" / "states.md"


def test_the_page_of_states_is_up_to_date() -> None:
    assert PAGE.read_text() == states_page(), "run `make docs`"


def test_the_diagram_draws_every_transition() -> None:
    drawn = mermaid()
    for old in reachable():
        for new, why in TRANSITIONS[old].items():
            box = f"process --> {new.value}: {why}"
            assert f"    {old.value} --> {new.value}: {why}" in drawn or (old in WITH_PROCESS and box in drawn)


def test_a_view() -> None:
    play = Play(service("a")).later(5)
    play.start()
    play.later(1).runs("a")
    view = play.machine.services["a"]
    assert (view.name, view.state, view.desired, view.pid, view.invocation, view.restarts, view.since, view.cause) == (
        *("a", State.RUNNING, "up", 101, 1, 0, 6.0, "ready"),
    )


def test_invocations_are_never_reused() -> None:
    play = Play(service("a"), service("b")).all_up()
    seen = {play.run_of("a"), play.run_of("b")}
    for _ in range(3):
        play.restart("a")
        play.exits("a")
        play.runs("a")
        assert play.run_of("a") not in seen
        seen.add(play.run_of("a"))


def test_what_changed_names_waiting_services_whose_cause_did() -> None:
    play = Play(service("a"), service("b", "a"), service("c"))
    play.start("a", "b")
    play.spawn_fails("a")
    assert set(play.machine.changed) == {"a", "b"}
    play.start("nobody")
    assert play.machine.changed == ()


def test_as_desired_and_settled() -> None:
    play = Play(service("a"), service("b", "a", restart=NEVER), task("t"))
    as_desired = play.machine.as_desired
    assert play.machine.settled()
    assert [as_desired(name) for name in "abt"] == [True, True, True], "what nobody asked to run is as desired"
    play.start()
    assert [as_desired(name) for name in "abt"] == [False, False, False]
    play.runs("a", "t")
    assert [as_desired(name) for name in "abt"] == [True, False, True]
    play.runs("b")
    assert not play.machine.settled(), "a task is on its way until it has ended"
    play.exits("t")
    assert play.machine.settled()
    assert [as_desired(name) for name in "abt"] == [True, True, True]
    play.exits("b", 1)
    assert play.machine.settled()
    assert not as_desired("b")
    play.stop("b")
    assert as_desired("b")


def test_the_story_is_bounded_and_ends_with_the_present() -> None:
    play = Play(service("a")).all_up()
    for _ in range(STORY_LIMIT):
        play.restart("a")
        play.exits("a")
        play.runs("a")
    story = play.machine.story("a")
    assert len(story) == STORY_LIMIT
    assert story[-1].new is State.RUNNING
    assert all(first.new is second.old for first, second in pairwise(story))


def test_time_spent_is_told() -> None:
    play = Play(service("a")).all_up().later(7.5)
    play.stop("a")
    assert play.machine.story("a")[-1].spent_s == 7.5


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "0 s"), (0.05, "50 ms"), (0.1, "0.1 s"), (1.6, "1.6 s"), (10.0, "10 s"), (3600.0, "3600 s")],
)
def test_seconds(value: float, words: str) -> None:
    assert causes.seconds(value) == words


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (ExitStatus(code=1), "exit code 1"),
        (ExitStatus(signal=9), "signal SIGKILL"),
        (ExitStatus(signal=40), "signal 40"),
        (None, "no exit status"),
    ],
)
def test_exit_words(status: ExitStatus | None, words: str) -> None:
    assert causes.exit_words(status) == words


def test_what_is_lost_is_named_before_what_takes_its_time() -> None:
    play = Play(python("slow"), service("lost", restart=NEVER), service("web", "slow", "lost"))
    play.start("web")
    assert play.cause("web") == "for slow (loading)"
    play.spawn_fails("lost")
    assert play.cause("web") == "for lost (failed: cannot start lost: no such file)"
