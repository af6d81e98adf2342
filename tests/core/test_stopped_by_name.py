"""What somebody has stopped by name stays down until somebody starts it: what calls for it waits, and is told why."""

from __future__ import annotations

from dataclasses import replace

import pytest
from play import Play, service, task, wants

from svcd.supervisor.core import events as ev
from svcd.supervisor.core.spec import Dependency, ServiceSpec, StartMode

LAZY = service("lazy", "db", start=StartMode.ON_DEMAND)
WHY = "requires db, which is down (stopped by request)"


def _db_stopped(*others: ServiceSpec) -> Play:
    """Whatever ``db`` needs is down, too."""
    specs = service("disk", start=StartMode.MANUAL), service("db", "disk", start=StartMode.MANUAL)
    play = Play(*specs, *others)
    play.stop("db")
    return play


def test_a_demand_for_what_requires_it_waits_for_it() -> None:
    play = _db_stopped(LAZY)
    assert play.demand("lazy") == ["lazy unloaded > waiting"]
    assert play.cause("lazy") == "for db (stopped by request)"
    assert play.machine.services["disk"].state.value == "unloaded"
    assert "spawn disk" in play.start("db")
    assert "spawn lazy" in play.runs("disk", "db")


def test_who_asks_on_behalf_of_a_demand_is_told_why() -> None:
    play = _db_stopped(LAZY)
    play.demand("lazy")
    asked = ev.StartRequested(play.at, "call", ("lazy",), overrules=False)
    assert play.tell(asked) == [f"answer call failed: cannot start lazy: {WHY}"]
    assert play.machine.services["db"].state.value == "stopped"


def test_a_person_who_starts_what_requires_it_overrules() -> None:
    play = _db_stopped(LAZY)
    assert "spawn disk" in play.start("lazy")
    assert play.machine.services["db"].up


def test_a_schedule_waits_for_it() -> None:
    play = _db_stopped(task("tick", "db", scheduled=True, start=StartMode.MANUAL))
    assert play.schedule("tick") == ["tick unloaded > waiting"]
    assert not play.machine.services["db"].up


def test_what_only_wants_it_goes_without() -> None:
    play = _db_stopped(replace(LAZY, dependencies=(wants("db"),)))
    assert "spawn lazy" in play.demand("lazy")
    assert not play.machine.services["db"].up


def test_a_change_of_configuration_does_not_start_it() -> None:
    """Neither for what is new, nor for what has changed; the plan says the same."""
    play = _db_stopped(service("web"))
    play.goes_well(play.start("web"))
    web = replace(play.machine.services["web"].spec, dependencies=(Dependency("db"),))
    play.apply(web, added=(service("new", "db"),))
    assert play.preview == ["restart web: its configuration has changed", "start new: new"]
    assert not play.machine.services["db"].up
    assert not play.machine.services["disk"].up
    assert play.cause("new") == "for db (stopped by request)"


def test_a_change_that_names_it_starts_it() -> None:
    play = _db_stopped(service("web"))
    play.apply(start=("db",))
    assert play.machine.services["db"].up


@pytest.mark.parametrize("how", ["idle", "completed"])
def test_its_cause_says_so_also_where_it_was_down_already(how: str) -> None:
    play = Play(service("lazy", start=StartMode.ON_DEMAND))
    play.goes_well(play.demand("lazy"))
    if how == "idle":
        play.idle("lazy")
        play.exits("lazy")
        assert play.cause("lazy") == "idle"
    else:
        play.exits("lazy")
    play.stop("lazy")
    assert play.cause("lazy") == ("stopped by request" if how == "idle" else "exit code 0")
    assert play.demand("lazy") == []
