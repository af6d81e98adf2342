"""Every state against every event: what follows, written down once and for all.

Must not leave a cell out: what is not in the table must be ignored, and the table must name every state and event.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from play import Play, python, service
from table import EXPECTED

from svcd.supervisor.core import events as ev
from svcd.supervisor.core.diagram import reachable
from svcd.supervisor.core.spec import ReadyKind
from svcd.supervisor.core.states import State

STUB_STEPS = ("loaded", "initialized", "starting", "running")


def _program(**fields: object) -> Play:
    return Play(service("x", **fields), timers=True)


def _spawned(play: Play) -> Play:
    play.start("x")
    play.born("x")
    return play


def _stub(*phases: str) -> Play:
    play = _spawned(Play(python("x"), timers=True))
    play.connects("x")
    for phase in phases:
        play.reports("x", phase)
    return play


def _after(play: Play, *steps: Callable[[Play], object]) -> Play:
    for step in steps:
        step(play)
    return play


def _waiting() -> Play:
    play = Play(service("y"), service("x", "y"), timers=True)
    play.start("x")
    return play


def _unavailable() -> Play:
    none = service("x").restart.intensity.__class__(restarts=0)
    return _program(restart=service("x").restart.__class__(intensity=none))


SCENES: dict[str, tuple[State, Callable[[], Play]]] = {
    "unloaded": (State.UNLOADED, _program),
    "waiting": (State.WAITING, _waiting),
    "loading": (State.LOADING, lambda: _spawned(Play(python("x"), timers=True))),
    "loading, connected": (State.LOADING, _stub),
    "loaded": (State.LOADED, lambda: _stub("loaded")),
    "initialized": (State.INITIALIZED, lambda: _stub(*STUB_STEPS[:2])),
    "starting, stub": (State.STARTING, lambda: _stub(*STUB_STEPS[:3])),
    "starting": (State.STARTING, lambda: _spawned(_program())),
    "starting, probed": (
        State.STARTING,
        lambda: _after(_spawned(_program(ready=ReadyKind.TCP)), lambda p: p.executed("x")),
    ),
    "running, stub": (State.RUNNING, lambda: _stub(*STUB_STEPS)),
    "running": (State.RUNNING, lambda: _program().all_up()),
    "stopping, stub": (State.STOPPING, lambda: _after(_stub(*STUB_STEPS), lambda p: p.stop("x"))),
    "stopping": (State.STOPPING, lambda: _after(_program().all_up(), lambda p: p.stop("x"))),
    "stopping, leftovers": (State.STOPPING, lambda: _after(_program().all_up(), lambda p: p.exits("x", 1, True))),
    "stopped": (State.STOPPED, lambda: _after(_program().all_up(), lambda p: p.stop("x"), lambda p: p.exits("x"))),
    "completed": (State.COMPLETED, lambda: _after(_program().all_up(), lambda p: p.exits("x"))),
    "backoff": (State.BACKOFF, lambda: _after(_program().all_up(), lambda p: p.exits("x", 1))),
    "failed": (
        State.FAILED,
        lambda: _after(_program(restart=_never()).all_up(), lambda p: p.exits("x", 1)),
    ),
    "unavailable": (State.UNAVAILABLE, lambda: _after(_unavailable().all_up(), lambda p: p.exits("x", 1))),
}


def _never() -> object:
    policy = service("x").restart
    return policy.__class__(mode=policy.mode.NEVER)


EVENTS: dict[str, tuple[type, Callable[[Play], list[str]]]] = {
    "registered": (ev.ServicesRegistered, lambda p: p.tell(ev.ServicesRegistered(p.at, (service("new"),)))),
    "start": (ev.StartRequested, lambda p: p.start("x")),
    "stop": (ev.StopRequested, lambda p: p.stop("x")),
    "restart": (ev.RestartRequested, lambda p: p.restart("x")),
    "signal": (ev.SignalRequested, lambda p: p.signal(10, "x")),
    "drain": (ev.ShutdownRequested, lambda p: p.shut_down()),
    "now": (ev.ShutdownRequested, lambda p: p.shut_down(ev.ShutdownLevel.NOW)),
    "kill": (ev.ShutdownRequested, lambda p: p.shut_down(ev.ShutdownLevel.KILL)),
    "abandoned": (ev.RequestAbandoned, lambda p: p.tell(ev.RequestAbandoned(p.at, "r1"))),
    "born": (ev.ProcessSpawned, lambda p: p.born("x")),
    "spawn fails": (ev.SpawnFailed, lambda p: p.spawn_fails("x")),
    "executed": (ev.ProgramExecuted, lambda p: p.executed("x")),
    "ready": (ev.ReadinessReached, lambda p: p.ready("x")),
    "unready": (ev.ReadinessFailed, lambda p: p.unready("x", "no")),
    "exit 0": (ev.ProcessExited, lambda p: p.exits("x")),
    "exit 1": (ev.ProcessExited, lambda p: p.exits("x", 1)),
    "exit 1, leftovers": (ev.ProcessExited, lambda p: p.exits("x", 1, True)),
    "leftovers gone": (ev.LeftoversGone, lambda p: p.leftovers_gone("x")),
    "connected": (ev.StubConnected, lambda p: p.connects("x")),
    "connection lost": (ev.ConnectionLost, lambda p: p.loses_connection("x")),
    "loaded": (ev.StubReported, lambda p: p.reports("x", "loaded")),
    "initialized": (ev.StubReported, lambda p: p.reports("x", "initialized")),
    "starting": (ev.StubReported, lambda p: p.reports("x", "starting")),
    "running": (ev.StubReported, lambda p: p.reports("x", "running")),
    "stopping": (ev.StubReported, lambda p: p.reports("x", "stopping")),
    "stopping, error": (ev.StubReported, lambda p: p.reports("x", "stopping", "bad")),
    "ready timer": (ev.TimerFired, lambda p: p.fires("x", "ready")),
    "stop timer": (ev.TimerFired, lambda p: p.fires("x", "stop")),
    "restart timer": (ev.TimerFired, lambda p: p.fires("x", "restart")),
    "leftovers timer": (ev.TimerFired, lambda p: p.fires("x", "leftovers")),
}


def test_the_table_is_total() -> None:
    assert {state for state, _ in SCENES.values()} == reachable() == set(State) - {State.PAUSED, State.DRAINING}
    assert {kind for kind, _ in EVENTS.values()} == set(ev.Event.__args__)
    assert set(EXPECTED) == set(SCENES)
    assert all(set(row) <= set(EVENTS) for row in EXPECTED.values())


@pytest.mark.parametrize("scene", SCENES)
def test_the_scene_is_what_it_says(scene: str) -> None:
    state, make = SCENES[scene]
    assert make().machine.services["x"].state is state


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("scene", SCENES)
def test_cell(scene: str, event: str) -> None:
    play = SCENES[scene][1]()
    before, ignored = play.states(), play.machine.ignored
    lines = EVENTS[event][1](play)
    if event in EXPECTED[scene]:
        assert lines == EXPECTED[scene][event]
        assert play.machine.ignored == ignored
    else:
        assert lines == []
        assert play.states() == before
        assert play.machine.ignored == ignored + 1
