"""What the ledger keeps: the last changes, and of what repeats the last few, counted."""

from __future__ import annotations

from play import NEVER, Play, service, task

from svcd.supervisor.core.ledger import ALIKE, KEPT
from svcd.supervisor.core.ledger import Transaction as Change
from svcd.supervisor.core.spec import Backoff, Intensity, RestartPolicy

LOOPING = RestartPolicy(backoff=Backoff(initial_s=0.0), intensity=Intensity(None), reset_after_s=0.0)


def crashes(play: Play, name: str, times: int) -> None:
    """Each of them a change of its own: it runs in between."""
    for _ in range(times):
        play.later(1).exits(name, 1)
        play.runs(name)


def kept(play: Play) -> list[Change]:
    return list(play.machine.changes(KEPT))


def test_a_crash_loop_leaves_room_for_everything_else() -> None:
    play = Play(service("a", restart=LOOPING), service("b", "a"), service("c", restart=LOOPING)).all_up()
    play.restart("b")
    play.exits("b")
    play.runs("b")
    crashes(play, "c", 2)
    before = [each.cause for each in kept(play)]
    play.stop("b")
    play.exits("b")
    crashes(play, "a", KEPT + ALIKE)
    changes = kept(play)
    loop = [each for each in changes if each.cause == "a crashed: exit code 1"]
    assert [each.cause for each in changes[: len(before)]] == before
    assert len(loop) == ALIKE
    assert [each.earlier for each in loop] == [KEPT, *[0] * (ALIKE - 1)]
    assert loop[0].since == 3.0  # two seconds after those of c
    assert all(each.steps for each in loop)
    assert [each.earlier for each in changes if each not in loop] == [0] * (len(changes) - ALIKE)


def test_other_words_are_the_same_kind() -> None:
    play = Play(service("a", restart=LOOPING)).all_up()
    for number in range(2 * ALIKE):
        play.later(1).exits("a", 1 + number % 2)
        play.runs("a")
    assert [each.earlier for each in kept(play)[1:]] == [ALIKE, *[0] * (ALIKE - 1)]


def test_one_that_goes_on_is_kept() -> None:
    """The first crash of a took b along, which takes long to end."""
    play = Play(service("a", restart=LOOPING), service("b", "a")).all_up()
    crashes(play, "a", ALIKE + 3)
    loop = [each for each in kept(play) if each.cause == "a crashed: exit code 1"]
    assert [each.is_open for each in loop] == [True, *[False] * (ALIKE + 2)]
    play.exits("b")
    play.runs("b")
    crashes(play, "a", 1)
    loop = [each for each in kept(play) if each.cause == "a crashed: exit code 1"]
    assert (len(loop), loop[0].earlier) == (ALIKE, 4)


def test_runs_of_a_schedule_are_folded_and_what_people_ask_for_is_not() -> None:
    play = Play(task("t", scheduled=True, restart=NEVER))
    for _ in range(2 * ALIKE):
        play.later(1).schedule("t")
        play.runs("t")
        play.exits("t")
    runs = [each for each in kept(play) if each.cause == "schedule of t"]
    assert [each.earlier for each in runs] == [ALIKE, *[0] * (ALIKE - 1)]
    for _ in range(2 * ALIKE):
        play.start("t")
        play.runs("t")
        play.exits("t")
    assert [each.cause for each in kept(play)].count("start of t") == 2 * ALIKE
