"""The tables: which state may follow which, and in which states an event about a process means anything.

Must not decide which of the legal steps is taken, nor why: that is the machine's.

The rules, in words. A service without a process gets one only through ``waiting``. What has a process goes forward
(loading, loaded, initialized, starting, running; steps may be skipped, none is taken back), or to ``stopping``, be it
after ``draining``, or, its
process gone, to where its end leads: ``stopped`` as asked, ``waiting`` when it is to come back, ``completed``,
``backoff``, ``failed`` or ``unavailable`` when it ended by itself. From there it is woken (``waiting``) or put to
rest (``stopped``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from svcd.supervisor.core import events
from svcd.supervisor.core.states import WITH_PROCESS, State

ASKED: Final = "asked to run"
STOPPED: Final = "stopped as asked"

_ENDS: Final[Mapping[State, str]] = {
    State.WAITING: "ended, comes back",
    State.STOPPED: "ended as asked",
    State.COMPLETED: "ended by itself, success",
    State.BACKOFF: "crashed, restarts",
    State.FAILED: "crashed, no restart",
    State.UNAVAILABLE: "crashed too often",
}
_STOP: Final[Mapping[State, str]] = {State.STOPPING: "told to stop, or stops by itself"}
_DRAIN: Final[Mapping[State, str]] = {State.DRAINING: "told to stop, finishes requests first"}

TRANSITIONS: Final[Mapping[State, Mapping[State, str]]] = {
    State.UNLOADED: {State.WAITING: ASKED, State.STOPPED: STOPPED},
    State.WAITING: {
        State.LOADING: "spawned (Python)",
        State.STARTING: "spawned (program)",
        State.STOPPED: STOPPED,
    },
    State.LOADING: {
        State.LOADED: "code imported",
        State.INITIALIZED: "init done",
        State.STARTING: "start begun",
        State.RUNNING: "ready",
        **_STOP,
        **_ENDS,
    },
    State.LOADED: {
        State.INITIALIZED: "init done",
        State.STARTING: "start begun",
        State.RUNNING: "ready",
        **_STOP,
        **_ENDS,
    },
    State.INITIALIZED: {State.STARTING: "start begun", State.RUNNING: "ready", **_STOP, **_ENDS},
    State.STARTING: {State.RUNNING: "ready", **_STOP, **_ENDS},
    State.RUNNING: {State.PAUSED: "paused", **_DRAIN, **_STOP, **_ENDS},
    State.PAUSED: {State.RUNNING: "resumed", **_DRAIN, **_STOP, **_ENDS},
    State.DRAINING: {**_STOP, **_ENDS},
    State.STOPPING: {**_ENDS},
    State.STOPPED: {State.WAITING: ASKED},
    State.COMPLETED: {State.WAITING: ASKED},
    State.BACKOFF: {State.WAITING: "delay over, or asked to run", State.STOPPED: STOPPED},
    State.FAILED: {State.WAITING: ASKED, State.STOPPED: STOPPED},
    State.UNAVAILABLE: {State.WAITING: ASKED, State.STOPPED: STOPPED},
}
"""State -> the states that may follow it, each with the reason in a few words (for diagrams)."""

IN_START: Final = frozenset({State.LOADING, State.LOADED, State.INITIALIZED, State.STARTING})
_STUB_SPEAKS: Final = IN_START | {State.RUNNING, State.PAUSED, State.DRAINING, State.STOPPING}

ACCEPTED: Final[Mapping[type, frozenset[State]]] = {
    events.ProcessSpawned: WITH_PROCESS,
    events.MainProcessNamed: WITH_PROCESS,
    events.SpawnFailed: WITH_PROCESS,
    events.ProgramExecuted: WITH_PROCESS,
    events.ReadinessReached: frozenset({State.STARTING}),
    events.ReadinessFailed: frozenset({State.STARTING}),
    events.ReadinessMissed: frozenset({State.STARTING}),
    events.ProcessExited: WITH_PROCESS,
    events.LeftoversGone: frozenset({State.STOPPING}),
    events.IdleReached: frozenset({State.RUNNING}),
    events.HealthChecked: frozenset({State.RUNNING}),
    events.WatchdogPinged: frozenset({State.RUNNING}),
    events.WatchdogTriggered: frozenset({State.RUNNING}),
    events.TimeoutExtended: IN_START | {State.RUNNING, State.STOPPING},
    events.StopAnnounced: frozenset({State.STARTING, State.RUNNING, State.PAUSED}),
    events.HookEnded: WITH_PROCESS,
    events.StubConnected: WITH_PROCESS,
    events.StubReported: _STUB_SPEAKS,
    events.EndpointOpened: IN_START | {State.RUNNING, State.PAUSED},
    events.InterfaceChecked: frozenset(),
    events.HandedOver: frozenset({State.RUNNING}),
    events.DrainProgressed: frozenset({State.DRAINING}),
    events.ConnectionLost: WITH_PROCESS,
    events.TimerFired: frozenset(State),
}
"""Events of one invocation -> the states in which they mean something; in every other they come too late."""

ACCEPTED_TIMER: Final[Mapping[events.TimerKind, frozenset[State]]] = {
    events.TimerKind.READY: IN_START,
    events.TimerKind.DRAIN: frozenset({State.DRAINING}),
    events.TimerKind.STOP: frozenset({State.STOPPING}),
    events.TimerKind.RESTART: frozenset({State.BACKOFF}),
    events.TimerKind.LEFTOVERS: frozenset({State.STOPPING}),
    events.TimerKind.WATCHDOG: frozenset({State.RUNNING}),
    events.TimerKind.UPDATE: frozenset(),
    events.TimerKind.HOOK: WITH_PROCESS,
}
"""Timers -> the states in which they may be armed, and in which their end means something."""


def _assert_total() -> None:
    if set(TRANSITIONS) != set(State):
        raise AssertionError("the table of transitions lacks a state")
    if set(ACCEPTED_TIMER) != set(events.TimerKind):
        raise AssertionError("the table of timers lacks a kind")


_assert_total()
