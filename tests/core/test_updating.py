"""Hot updates, as the core decides them: what each step orders, and that whatever fails leaves the old run alone.

Must not start a process: the steps are told by hand, in the order in which a shell hears of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from play import Play, python, service, task

from svcd.supervisor.core import events as ev
from svcd.supervisor.core.spec import HealthPolicy, ReadyKind, ServiceSpec, StopPolicy


def _running(spec: ServiceSpec | None = None, *others: ServiceSpec) -> Play:
    return Play(spec or python("api"), *others).all_up()


def _new(play: Play, **fields: object) -> ServiceSpec:
    return replace(play.machine.services["api"].spec, **{"watchdog_s": 7.0, **fields})  # type: ignore[arg-type]


def _loads(play: Play) -> list[str]:
    """From the request until the new code has been imported."""
    lines = play.update(_new(play))
    play.successor("api")
    return lines + play.runs("api") + play.connects("api") + play.reports("api", "loaded")


def _hands_over(play: Play) -> list[str]:
    """On until the old run is finishing its requests."""
    return _loads(play) + play.compared("api") + play.reports("api", "initialized")


def _starts(play: Play) -> list[str]:
    """On until the new start() goes on."""
    lines = _hands_over(play)
    lines += play.serving("api").hands_over("api")
    play.successor("api")
    return lines


def _switches(play: Play) -> list[str]:
    lines = _starts(play) + play.reports("api", "running")
    play.beside["api"] = 1  # the run that was
    return lines


def test_a_python_service_is_replaced_without_ever_not_running() -> None:
    play = _running()
    assert _loads(play) == ["spawn successor of api", "tell api load"]
    assert play.cause("api") == "being updated: comparing the interfaces"
    assert play.compared("api") == ["tell api init"]
    assert play.reports("api", "initialized") == ["hold api", "tell api hand over"]
    assert play.cause("api") == "being updated: the old one finishes its requests"
    assert play.serving("api").hands_over("api") == ["tell api import", "tell api start"]
    play.successor("api")
    assert play.reports("api", "starting") == []
    assert play.reports("api", "running") == [
        "switch api 1 > 2",
        "adopt api",
        "cease api",
        "notice api: updated: pid 102 has taken over from pid 101",
        "tell api stop",
    ]
    assert (play.state("api"), play.machine.services["api"].pid, play.run_of("api")) == ("running", 102, 2)
    assert play.machine.services["api"].spec.watchdog_s == 7.0
    play.beside["api"] = 1
    assert play.reports("api", "stopping") == []
    assert play.exits("api") == ["answer r2 done"]
    assert play.cause("api") == "ready"
    assert play.machine.settled()


def test_a_program_takes_over_once_it_is_ready() -> None:
    play = _running(service("api", ready=ReadyKind.NOTIFY))
    assert play.update(_new(play)) == ["spawn successor of api"]
    play.successor("api")
    assert play.runs("api") == ["probe api"]
    assert play.ready("api")[0] == "switch api 1 > 2"
    play.beside["api"] = 1
    assert play.exits("api") == ["answer r2 done"]


def test_the_old_program_gets_its_stop_signal() -> None:
    play = _running(service("api"))
    play.update(_new(play))
    play.successor("api")
    assert play.runs("api")[-1] == "signal api 15"


def test_dependents_notice_nothing() -> None:
    play = _running(python("api"), service("web", "api"))
    _switches(play)
    assert play.exits("api") == ["answer r2 done"]
    assert play.states() == "api=running web=running"


GOES_ON = "; the one before goes on"


@pytest.mark.parametrize(
    ("reach", "fail", "orders", "why"),
    [
        (_loads, lambda p: p.compared("api", "charge() is gone"), ["tell api stop"], "charge() is gone (--force"),
        (
            _loads,
            lambda p: p.reports("api", "stopping", "ValueError: bad"),
            [],
            "(comparing the interfaces): ValueError",
        ),
        (
            _hands_over,
            lambda p: p.serving("api").hands_over("api", "export_state() raised"),
            None,
            "export_state() raised",
        ),
        (
            _starts,
            lambda p: p.reports("api", "stopping", "OSError: no"),
            ["release api", "tell api go on"],
            "OSError: no",
        ),
        (_starts, lambda p: p.fires("api", "update"), None, "was not ready within 60 s (start())"),
        (
            _hands_over,
            lambda p: p.fires("api", "update"),
            None,
            "has not finished its requests, rested and exported its state within 20 s",
        ),
    ],
)
def test_whatever_goes_wrong_the_old_one_goes_on(
    reach: Callable[[Play], list[str]], fail: Callable[[Play], list[str]], orders: list[str] | None, why: str
) -> None:
    play = _running()
    reach(play)
    expected = ["release api", "tell api go on", "tell api stop"] if orders is None else orders
    assert fail(play) == expected
    assert play.machine.services["api"].pid == 101
    play.beside["api"] = 2
    lines = play.exits("api")
    assert why in lines[-1]
    assert lines[-1].startswith("answer r2 failed: cannot update api: ")
    assert lines[-1].endswith(GOES_ON)
    assert (play.state("api"), play.machine.services["api"].spec.watchdog_s) == ("running", None)
    assert play.machine.settled()


def test_a_successor_that_crashes_is_forgotten() -> None:
    play = _running()
    _starts(play)
    lines = play.dies("api", 11)
    assert lines[:2] == ["release api", "tell api go on"]
    assert lines[-1] == f"answer r2 failed: cannot update api: the new version ended (start()): signal SIGSEGV{GOES_ON}"


def test_one_that_cannot_be_spawned() -> None:
    play = _running()
    play.update(_new(play))
    lines = play.successor("api").spawn_fails("api")
    assert lines[-1] == f"answer r2 failed: cannot update api: cannot start the new version: no such file{GOES_ON}"


def test_force_takes_an_interface_that_breaks_callers() -> None:
    play = _running()
    play.update(_new(play), forced=True)
    play.successor("api").runs("api")
    play.connects("api")
    play.reports("api", "loaded")
    assert play.compared("api", "charge() is gone") == ["tell api init"]


def test_what_does_not_stop_in_time_is_killed() -> None:
    play = _running(python("api", stop=StopPolicy(timeout_s=3.0)))
    _switches(play)
    told = "notice api: the one before (pid 101) did not stop within 3 s: killed"
    assert play.fires("api", "update") == [told, "kill api"]
    assert play.dies("api", leftovers=True) == ["kill api"]
    assert play.leftovers_gone("api") == ["answer r2 done"]


# ---- what people and accidents do meanwhile ----


@pytest.mark.parametrize("reach", [_loads, _hands_over, _starts])
def test_the_old_one_crashes_meanwhile(reach: Callable[[Play], list[str]]) -> None:
    play = _running()
    reach(play)
    lines = play.later(20).serving("api").dies("api", 9)  # a first crash: its restart is immediate
    assert "tell api stop" in lines
    assert not [line for line in lines if line.startswith("spawn")]  # not before the successor has ended
    play.beside["api"] = 2
    lines = play.exits("api")
    assert "spawn api" in lines
    assert any(line.startswith("answer r2 failed: cannot update api: superseded") for line in lines)


@pytest.mark.parametrize("reach", [_loads, _hands_over, _starts])
def test_a_stop_supersedes(reach: Callable[[Play], list[str]]) -> None:
    play = _running()
    reach(play)
    play.stop("api")
    play.serving("api")
    assert play.exits("api")[-1] == "api stopping > stopped"  # not answered: something of it still lives
    play.beside["api"] = 2
    lines = play.exits("api")
    assert "answer r3 done" in lines
    assert any("superseded: stopped by request" in line for line in lines)


def test_a_restart_after_the_switch_waits_for_what_is_being_retired() -> None:
    play = _running()
    _switches(play)
    play.serving("api")
    play.restart("api")
    assert play.exits("api") == ["api stopping > waiting"]
    play.beside["api"] = 1
    assert "spawn api" in play.exits("api")


def test_a_change_of_its_configuration_supersedes() -> None:
    play = _running()
    _starts(play)
    lines = play.serving("api").apply(_new(play), restarts=False)
    assert lines[-3:] == ["release api", "tell api go on", "tell api stop"]


def test_two_updates_of_one_service_do_not_meet() -> None:
    play = _running()
    _loads(play)
    assert play.update(_new(play)) == ["answer r3 refused: cannot update api: an update of it is under way"]


@pytest.mark.parametrize("reach", [_loads, _starts, _switches])
def test_a_kill_reaches_both(reach: Callable[[Play], list[str]]) -> None:
    play = _running()
    reach(play)
    assert play.shut_down(ev.ShutdownLevel.KILL).count("kill api") == 2


@pytest.mark.parametrize("reach", [_loads, _starts, _switches])
def test_the_cluster_ends_when_both_have_ended(reach: Callable[[Play], list[str]]) -> None:
    play = _running()
    reach(play)
    play.shut_down()
    for invocation in (1, 2):
        play.beside["api"] = invocation
        lines = play.exits("api")
    assert lines[-1] == "end 0"


@pytest.mark.parametrize(
    ("spec", "new", "why"),
    [
        (task("api"), {}, "it is completed, not running"),
        (service("api"), {"runner": python("api").runner}, "a program and a Python service cannot take over"),
        (
            python("api"),
            {"dependencies": service("x", "db").dependencies},
            "the new version requires db, which does not run",
        ),
    ],
)
def test_what_cannot_be_updated(spec: ServiceSpec, new: dict[str, object], why: str) -> None:
    play = Play(spec, service("db"))
    play.goes_well(play.start("api"))
    (line,) = play.update(_new(play, **new))
    assert line.startswith("answer r2 refused: cannot update api: ")
    assert why in line


def test_health_checks_move_to_the_successor() -> None:
    play = _running(python("api", health=HealthPolicy()))
    lines = _switches(play)
    assert lines.index("cease api") < lines.index("switch api 1 > 2") < lines.index("check api")
