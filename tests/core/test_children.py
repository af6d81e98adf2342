"""Scenarios of services that belong to a run of another.

Must not repeat what the random model checks of every order: here are the lines, one by one.
"""

from __future__ import annotations

from typing import Any

import pytest
from play import NEVER, Play, python, requires, service, wants

from svcd.supervisor.core import events as ev
from svcd.supervisor.core.spec import Condition, Dependency, Hook, ServiceSpec, StartMode


def child(name: str, parent: str, *needs: str | Dependency, **fields: Any) -> ServiceSpec:
    own = Dependency(parent, condition=Condition.SPAWNED)
    return service(name, *needs, own, parent=parent, start=StartMode.MANUAL, **fields)


def create(play: Play, *specs: ServiceSpec) -> list[str]:
    return [line for each in specs for line in play.apply(added=(each,), start=(each.name,))]


def family(*others: ServiceSpec, **fields: Any) -> Play:
    """A running parent ``p`` with two running children, ``a`` and ``b``."""
    play = Play(service("p", **fields), *others).all_up()
    play.goes_well(create(play, child("a", "p"), child("b", "p")))
    return play


def test_a_child_starts_while_its_parent_does() -> None:
    play = Play(python("p"), max_parallel=1)
    play.start("p")
    play.born("p")
    play.connects("p")
    play.reports("p", "loaded")
    assert create(play, child("a", "p")) == ["a unloaded > waiting", "a waiting > starting", "spawn a"]
    assert play.runs("a") == ["a starting > running", "answer r2 done"]


def test_a_parent_that_is_removed_while_it_waits_for_them_is_down() -> None:
    """It was to start again, once the children of its last run had ended."""
    play = family(restart=NEVER)
    play.exits("p", 1)
    play.start("p")
    assert play.cause("p") == "for a (stopping), a child of its last run, to end"
    assert "p waiting > stopped" in play.apply(removed=("p",))
    assert play.cause("p") == "removed from the configuration"
    play.exits("a")
    assert play.exits("b")[-2:] == ["forget p", "answer r5 done"]


def test_nothing_else_starts_it() -> None:
    play = Play(service("p")).all_up()
    assert play.apply(added=(child("a", "p"),)) == ["answer r2 done"]
    assert play.start() == ["answer r3 done"]
    assert play.states() == "p=running a=unloaded"


def test_a_stop_of_the_parent_ends_and_forgets_them_first() -> None:
    play = family()
    assert play.stop("p") == [
        "a running > stopping",
        "signal a 15",
        "b running > stopping",
        "signal b 15",
    ]
    assert play.exits("a") == ["a stopping > stopped", "forget a"]
    assert play.exits("b") == ["b stopping > stopped", "forget b", "p running > stopping", "signal p 15"]
    assert play.exits("p") == ["p stopping > stopped", "answer r4 done"]
    assert play.states() == "p=stopped"


def test_a_crash_of_the_parent_is_the_end_of_them_and_its_next_run_begins_without() -> None:
    play = family()
    assert "a running > stopping" in play.dies("p")
    play.fires("p", "restart")
    assert play.cause("p") == "for a (stopping), a child of its last run, to end"
    assert play.exits("a") == ["a stopping > stopped", "forget a"]
    assert play.cause("p") == "for b (stopping), a child of its last run, to end"
    assert play.exits("b") == ["b stopping > stopped", "forget b", "p waiting > starting", "spawn p"]


def test_what_never_ran_is_forgotten_at_once() -> None:
    play = Play(service("p")).all_up()
    play.apply(added=(child("a", "p"),))
    assert "forget a" in play.stop("p")


def test_whoever_waits_for_a_child_hears_of_the_end_of_its_parent() -> None:
    play = Play(service("p")).all_up()
    create(play, child("a", "p"))
    lines = play.stop("p")
    assert "answer r2 superseded: superseded by the end of its parent p" in lines


def test_a_shutdown_ends_them_before_their_parent() -> None:
    play = family()
    play.shut_down()
    play.exits("a")
    assert play.exits("b")[-2:] == ["p running > stopping", "signal p 15"]
    assert play.exits("p") == ["p stopping > stopped", "answer r4 done", "end 0"]


def test_a_hook_of_the_parent_waits_for_them() -> None:
    play = family(hooks=frozenset({Hook.PRE_STOP}))
    assert "hook p pre_stop" not in play.stop("p")
    play.exits("a")
    assert "hook p pre_stop" in play.exits("b")


def test_children_of_children_go_from_the_last_to_the_first() -> None:
    play = Play(service("p")).all_up()
    play.goes_well(create(play, child("a", "p")))
    play.goes_well(create(play, child("aa", "a")))
    assert play.stop("p") == ["aa running > stopping", "signal aa 15"]
    assert play.exits("aa") == ["aa stopping > stopped", "forget aa", "a running > stopping", "signal a 15"]
    assert play.exits("a") == ["a stopping > stopped", "forget a", "p running > stopping", "signal p 15"]


def test_a_crash_is_told_to_the_parent_and_the_policy_acts() -> None:
    play = family()
    assert play.dies("a") == ["a running > backoff", "tell p of a: signal SIGKILL"]
    play = Play(service("p")).all_up()
    play.goes_well(create(play, child("a", "p", restart=NEVER)))
    assert play.exits("a", 3) == ["a running > failed", "tell p of a: exit code 3"]
    assert play.start("a") == ["a failed > waiting", "a waiting > starting", "spawn a"]
    play.runs("a")
    assert play.exits("a") == ["a running > completed", "tell p of a"]


def test_a_stop_by_name_is_not_told_as_an_end() -> None:
    play = family()
    play.stop("a")
    assert play.exits("a") == ["a stopping > stopped", "answer r4 done"]
    assert play.start("a") == ["a stopped > waiting", "a waiting > starting", "spawn a"]


def test_nobody_is_told_once_the_parent_is_to_end() -> None:
    play = family()
    play.stop("p")
    assert play.dies("a") == ["a stopping > stopped", "forget a"]


def test_a_pause_of_the_parent_does_not_touch_them() -> None:
    play = family()
    play.pause("p")
    assert play.states() == "p=paused a=running b=running"
    assert play.dies("a")[0] == "a running > backoff"
    assert play.fires("a", "restart")[-1] == "spawn a"


def test_a_child_never_runs_against_its_parents_fallback() -> None:
    play = Play(service("f", start=StartMode.MANUAL), service("p", fallback="f", restart=NEVER))
    play.goes_well(play.start("p"))
    play.goes_well(create(play, child("a", "p")))
    play.goes_well(play.dies("p"))
    play.exits("a")
    assert play.states() == "f=running p=failed"


def test_a_removal_of_the_parent_takes_them_along() -> None:
    play = family()
    play.unregister("p")
    assert play.preview == ["stop a: a child of p", "stop b: a child of p", "stop p: no longer in the configuration"]
    play.exits("a")
    play.exits("b")
    assert play.exits("p")[-2:] == ["forget p", "answer r4 done"]


def test_a_change_that_restarts_the_parent_shows_their_end() -> None:
    play = family()
    play.apply(service("p"))
    assert play.preview == ["stop a: a child of p", "stop b: a child of p", "restart p: its configuration has changed"]
    play.exits("a")
    play.exits("b")
    play.exits("p")
    play.goes_well(["spawn p"])
    assert play.states() == "p=running"


def test_a_restart_of_what_a_child_requires_brings_it_back() -> None:
    play = Play(service("db"), service("p")).all_up()
    play.goes_well(create(play, child("a", "p", "db")))
    play.restart("db")
    assert play.exits("a")[0] == "a stopping > waiting"
    play.exits("db")
    assert "spawn a" in play.runs("db")


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (child("x", "nobody"), "cannot register x: it depends on nobody, which is not registered"),
        (child("x", "down"), "cannot register x: its parent down does not run, or is about to stop"),
        (child("a", "p"), "cannot register a: there is a service of that name already"),
        (child("db", "p"), "cannot register db: there is a service of that name already"),
        (child("x", "p", "none"), "cannot register x: it depends on none, which is not registered"),
        (child("x", "db", "a"), "x: a is a child of p: only children of p, and theirs, may depend on it"),
        (service("x", "a"), "x: a is a child of p: only children of p, and theirs, may depend on it"),
        (service("x", fallback="a"), "x: a is a child of p: only children of p, and theirs, may depend on it"),
        (child("x", "p", "x"), "cannot register x: its dependencies form a cycle: x -> x"),
    ],
)
def test_what_is_refused(spec: ServiceSpec, text: str) -> None:
    play = family(service("db"), service("down"))
    play.stop("down")
    play.exits("down")
    before = play.states()
    (line,) = play.apply(added=(spec,))
    assert line.startswith("answer r5 refused: ")
    assert line.endswith(text)
    assert play.states() == before


def test_not_deeper_than_four() -> None:
    play = Play(service("c0")).all_up()
    for number in range(1, 5):
        play.goes_well(create(play, child(f"c{number}", f"c{number - 1}")))
    (line,) = create(play, child("c5", "c4"))
    assert line.endswith("cannot register c5: children of children go 4 deep, and no deeper")


def test_a_change_of_configuration_does_not_reach_them() -> None:
    play = family()
    assert play.apply(child("a", "p")) == [
        "answer r4 refused: cannot change a: it is a child of p, which alone can make it anew"
    ]


def test_a_sibling_that_is_required_stays() -> None:
    play = family()
    play.goes_well(create(play, child("c", "p", requires("a"), wants("b"))))
    assert play.unregister("a") == ["answer r5 refused: cannot remove a: required by c"]
    assert play.unregister("b")[:2] == ["b running > stopping", "signal b 15"]
    assert play.cause("b") == "removed by its parent"


def test_a_name_that_a_service_of_the_files_still_wants_is_not_free() -> None:
    play = Play(service("gone"), service("web", wants("gone")), service("p")).all_up()
    play.unregister("gone")
    play.exits("gone")
    (line,) = create(play, child("gone", "p"))
    assert line.endswith("cannot register gone: there is a service of that name already")


def test_a_name_is_free_again_when_nothing_is_left_of_it() -> None:
    play = family()
    play.unregister("a")
    (line,) = create(play, child("a", "p"))
    assert "it is being removed, and has not ended yet" in line
    play.exits("a")
    assert create(play, child("a", "p"))[-1] == "spawn a"


def test_it_is_not_replaced_in_place_nor_is_its_parent() -> None:
    play = family()
    for name, why in (("a", "it is a child of p"), ("p", "it has children, which belong to its run")):
        event = ev.UpdateRequested(play.at, f"u-{name}", play.machine.services[name].spec)
        (line,) = play.tell(event)
        assert line.startswith(f"answer u-{name} refused: cannot update {name}: {why}")


def test_a_crash_in_the_middle_of_an_update_takes_them_along() -> None:
    play = Play(service("p")).all_up()
    play.tell(ev.UpdateRequested(play.at, "u", play.machine.services["p"].spec))
    play.goes_well(create(play, child("a", "p")))
    assert "a running > stopping" in play.dies("p")
