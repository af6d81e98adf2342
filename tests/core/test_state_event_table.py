"""Every state against every event: what follows, written down once and for all in table.txt.

Must not leave a cell out: what is not in the table must be ignored, and the table must name every state and event. Must
not compute the table: a change there is a change of what svcd does, and is read by a person.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from play import Play, python, service, task

from svcd.supervisor.core import events as ev
from svcd.supervisor.core.diagram import reachable
from svcd.supervisor.core.spec import (
    Condition,
    Dependency,
    HealthPolicy,
    Hook,
    Overlap,
    ReadyKind,
    ServiceSpec,
    StartMode,
)
from svcd.supervisor.core.states import State

TABLE = Path(__file__).with_name("table.txt")
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


def _with_child() -> Play:
    play = _program().all_up()
    own = Dependency("x", condition=Condition.SPAWNED)
    spec = service("c", own, parent="x", start=StartMode.MANUAL)
    return play.goes_well(play.apply(added=(spec,), start=("c",)))


def _hooked(*hooks: Hook) -> Play:
    return _program(hooks=frozenset(hooks))


def _preloaded(*phases: str) -> Play:
    play = Play(python("x", start=StartMode.PRELOAD), timers=True)
    play.start()
    play.born("x")
    play.connects("x")
    for phase in phases:
        play.reports("x", phase)
    return play


def _watched() -> Play:
    return _program(health=HealthPolicy(failure_threshold=1), watchdog_s=30.0).all_up()


def _unavailable() -> Play:
    none = service("x").restart.intensity.__class__(restarts=0)
    return _program(restart=service("x").restart.__class__(intensity=none))


SCENES: dict[str, tuple[State, Callable[[], Play]]] = {
    "unloaded": (State.UNLOADED, _program),
    "waiting": (State.WAITING, _waiting),
    "waiting, a child ends": (
        State.WAITING,
        lambda: _after(_with_child(), lambda p: p.dies("x"), lambda p: p.fires("x", "restart")),
    ),
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
    "running, with a child": (State.RUNNING, _with_child),
    "running, watched": (State.RUNNING, _watched),
    "running, pausing": (State.RUNNING, lambda: _after(_stub(*STUB_STEPS), lambda p: p.pause("x"))),
    "running, scheduled": (
        State.RUNNING,
        lambda: _spawned_task(Play(task("x", scheduled=True, overlap=Overlap.KILL), timers=True)),
    ),
    "loaded, held": (State.LOADED, lambda: _preloaded("loaded")),
    "loading, held": (State.LOADING, _preloaded),
    "starting, pre_start": (State.STARTING, lambda: _after(_hooked(Hook.PRE_START), lambda p: p.start("x"))),
    "starting, post_start": (
        State.STARTING,
        lambda: _after(_spawned(_hooked(Hook.POST_START)), lambda p: p.executed("x")),
    ),
    "paused": (State.PAUSED, lambda: _after(_watched(), lambda p: p.pause("x"))),
    "paused, stub": (
        State.PAUSED,
        lambda: _after(_stub(*STUB_STEPS), lambda p: p.pause("x"), lambda p: p.reports("x", "paused")),
    ),
    "stopping, pre_stop": (State.STOPPING, lambda: _after(_hooked(Hook.PRE_STOP).all_up(), lambda p: p.stop("x"))),
    "stopping, post_stop": (
        State.STOPPING,
        lambda: _after(_hooked(Hook.POST_STOP).all_up(), lambda p: p.exits("x", 1)),
    ),
    "stopping, pre_stop, in a hurry": (
        State.STOPPING,
        lambda: _after(
            _hooked(Hook.PRE_STOP).all_up(),
            lambda p: p.stop("x"),
            lambda p: p.shut_down(ev.ShutdownLevel.NOW),
        ),
    ),
    "running, on demand": (State.RUNNING, lambda: _program(start=StartMode.ON_DEMAND).all_up()),
    "stopped, on demand": (
        State.STOPPED,
        lambda: _after(
            _program(start=StartMode.ON_DEMAND).all_up(),
            lambda p: p.idle("x"),
            lambda p: p.exits("x"),
        ),
    ),
    "draining": (
        State.DRAINING,
        lambda: _after(_stub(*STUB_STEPS), lambda p: p.opens_endpoint("x"), lambda p: p.stop("x")),
    ),
    "running, takes requests": (State.RUNNING, lambda: _after(_stub(*STUB_STEPS), lambda p: p.opens_endpoint("x"))),
    "draining, of itself": (
        State.DRAINING,
        lambda: _after(_stub(*STUB_STEPS), lambda p: p.opens_endpoint("x"), lambda p: p.reports("x", "leaving")),
    ),
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


def _spawned_task(play: Play) -> Play:
    play.start("x")
    play.runs("x")
    return play


def _changed(play: Play) -> ServiceSpec:
    """Something of no consequence is different."""
    spec = play.machine.services["x"].spec
    return replace(spec, stop=replace(spec.stop, drain_grace_s=spec.stop.drain_grace_s + 1))


def _hook_ends(hook: str, error: str | None, play: Play) -> list[str]:
    return play.hook_ends("x", hook, error)


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
    "pause": (ev.PauseRequested, lambda p: p.pause("x")),
    "resume": (ev.ResumeRequested, lambda p: p.resume("x")),
    "rolling": (ev.RestartRequested, lambda p: p.restart("x", rolling=True)),
    "unneeded": (ev.StopRequested, lambda p: p.stop(unneeded=True)),
    "changed": (ev.ConfigurationApplied, lambda p: p.apply(_changed(p))),
    "changed, no restart": (ev.ConfigurationApplied, lambda p: p.apply(_changed(p), restarts=False)),
    "removed": (ev.ConfigurationApplied, lambda p: p.unregister("x")),
    "update": (ev.UpdateRequested, lambda p: p.update(_changed(p))),
    "compared": (ev.InterfaceChecked, lambda p: p.compared("x")),
    "handed over": (ev.HandedOver, lambda p: p.hands_over("x")),
    "demand": (ev.DemandArose, lambda p: p.demand("x")),
    "schedule": (ev.ScheduleFired, lambda p: p.schedule("x")),
    "idle": (ev.IdleReached, lambda p: p.idle("x")),
    "main named": (ev.MainProcessNamed, lambda p: p.named_main("x", 4321)),
    "healthy": (ev.HealthChecked, lambda p: p.healthy("x")),
    "unhealthy": (ev.HealthChecked, lambda p: p.unhealthy("x")),
    "alive": (ev.WatchdogPinged, lambda p: p.alive("x")),
    "triggered": (ev.WatchdogTriggered, lambda p: p.triggers("x")),
    "extended": (ev.TimeoutExtended, lambda p: p.extends("x", 100)),
    "stop announced": (ev.StopAnnounced, lambda p: p.announces_stop("x")),
    **{
        f"{hook.value} {name}": (ev.HookEnded, partial(_hook_ends, hook.value, error))
        for hook in Hook
        for name, error in (("ended", None), ("failed", "exit code 3"))
        if hook is not Hook.ON_FAILURE  # it is not answered
    },
    "paused": (ev.StubReported, lambda p: p.reports("x", "paused")),
    "born": (ev.ProcessSpawned, lambda p: p.born("x")),
    "spawn fails": (ev.SpawnFailed, lambda p: p.spawn_fails("x")),
    "executed": (ev.ProgramExecuted, lambda p: p.executed("x")),
    "ready": (ev.ReadinessReached, lambda p: p.ready("x")),
    "unready": (ev.ReadinessFailed, lambda p: p.unready("x", "no")),
    "missed": (ev.ReadinessMissed, lambda p: p.missed("x", "nobody listens")),
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
    "endpoint opened": (ev.EndpointOpened, lambda p: p.opens_endpoint("x")),
    "drain progressed": (ev.DrainProgressed, lambda p: p.drains("x", 3)),
    "leaving": (ev.StubReported, lambda p: p.reports("x", "leaving")),
    "drained": (ev.StubReported, lambda p: p.reports("x", "drained")),
    "ready timer": (ev.TimerFired, lambda p: p.fires("x", "ready")),
    "drain timer": (ev.TimerFired, lambda p: p.fires("x", "drain")),
    "stop timer": (ev.TimerFired, lambda p: p.fires("x", "stop")),
    "restart timer": (ev.TimerFired, lambda p: p.fires("x", "restart")),
    "leftovers timer": (ev.TimerFired, lambda p: p.fires("x", "leftovers")),
    "watchdog timer": (ev.TimerFired, lambda p: p.fires("x", "watchdog")),
    "update timer": (ev.TimerFired, lambda p: p.fires("x", "update")),
    "hook timer": (ev.TimerFired, lambda p: p.fires("x", "hook")),
}


def _read_table() -> dict[str, dict[str, list[str]]]:
    """``[scene]``, and under it ``event | action; action``."""
    found: dict[str, dict[str, list[str]]] = {}
    for line in TABLE.read_text().splitlines():
        if line.startswith("["):
            row = found[line.strip("[]")] = {}
        elif line and not line.startswith("#"):
            event, _, actions = line.partition("|")
            row[event.strip()] = [each.strip() for each in actions.split(";") if each.strip()]
    return found


EXPECTED = _read_table()


def test_the_table_is_total() -> None:
    assert {state for state, _ in SCENES.values()} == reachable() == set(State)
    assert {kind for kind, _ in EVENTS.values()} == set(ev.Event.__args__)
    assert {name for name in EVENTS if name.endswith(" timer")} == {f"{kind.value} timer" for kind in ev.TimerKind}
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
