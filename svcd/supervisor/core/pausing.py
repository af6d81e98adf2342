"""Pause and resume: programs by signal, at once; stubs by order, and when they have answered.

Must not answer requests: it moves a run between ``running`` and ``paused``, towards the latest wish.
"""

from __future__ import annotations

from typing import Final

from svcd.supervisor.core.actions import CeaseHealthChecks, SignalProcess, StubOrder, TellStub
from svcd.supervisor.core.cluster import Cluster
from svcd.supervisor.core.events import StubPhase, TimerKind
from svcd.supervisor.core.spec import Runner
from svcd.supervisor.core.states import State
from svcd.supervisor.core.unit import Run, Unit
from svcd.supervisor.core.watching import Watching

DEAF: Final = "its stub is not connected"
STOPPING_SIGNALS: Final = frozenset({19, 20})  # SIGSTOP, SIGTSTP: nothing else is heard before SIGCONT


class Pausing:
    def __init__(self, cluster: Cluster, watching: Watching) -> None:
        self._cluster = cluster
        self._watching = watching

    def wish(self, unit: Unit, run: Run, paused: bool) -> None:
        """From now on it is to be paused, or not."""
        run.is_to_pause, run.pause_error = paused, None
        self._follow(unit, run)

    def _follow(self, unit: Unit, run: Run) -> None:
        """One step towards what is wished, if it is time for one."""
        before = State.RUNNING if run.is_to_pause else State.PAUSED
        if run.doomed or run.pausing is not None or unit.state is not before:
            return
        self._cluster.enlist(unit)
        if unit.spec.runner is Runner.PROGRAM:
            self._signal(unit, run)
        elif run.connected:
            run.pausing = StubOrder.PAUSE if run.is_to_pause else StubOrder.RESUME
            self._cluster.out.append(TellStub(unit.name, run.invocation, run.pausing))
            self._cluster.say(unit, f"asked to {run.pausing.value}")
            self._cluster.touch(unit)
        else:
            self._leave_it(unit, run, DEAF)

    def _signal(self, unit: Unit, run: Run) -> None:
        policy = unit.spec.pause
        number = policy.signal if run.is_to_pause else policy.resume_signal
        self._cluster.out.append(SignalProcess(unit.name, run.invocation, number, group=True))
        if run.is_to_pause:
            run.frozen = number in STOPPING_SIGNALS
            self._paused(unit, run)
        else:
            run.frozen = False
            self._resumed(unit, run)

    def _paused(self, unit: Unit, run: Run) -> None:
        self._cluster.cancel(unit, TimerKind.WATCHDOG)
        if unit.spec.health is not None:
            self._cluster.out.append(CeaseHealthChecks(unit.name, run.invocation))
        self._cluster.go(unit, State.PAUSED, "paused by request")

    def _resumed(self, unit: Unit, run: Run) -> None:
        self._cluster.go(unit, State.RUNNING, "resumed by request")
        self._watching.begin(unit, run)

    # ---- what stubs answer ----

    def on_phase(self, unit: Unit, run: Run, phase: StubPhase, error: str | None) -> bool:
        """What came of a pause or a resume that the stub was told; returns whether it was."""
        if run.pausing is None or phase not in (StubPhase.PAUSED, StubPhase.RUNNING):
            return False
        is_paused, is_done = phase is StubPhase.PAUSED, (phase is StubPhase.PAUSED) == (run.pausing is StubOrder.PAUSE)
        run.pausing = None
        self._cluster.touch(unit)
        if is_paused and unit.state is State.RUNNING:
            self._paused(unit, run)
        elif not is_paused and unit.state is State.PAUSED:
            self._resumed(unit, run)
        if is_done and error is None:
            self._follow(unit, run)
        else:
            self._leave_it(unit, run, error or "it did not")
        return True

    def on_deaf(self, unit: Unit, run: Run) -> None:
        """Its connection is lost: there will be no answer."""
        if run.pausing is not None:
            run.pausing = None
            self._leave_it(unit, run, DEAF)

    def _leave_it(self, unit: Unit, run: Run, error: str) -> None:
        self._cluster.say(unit, f"cannot {'pause' if run.is_to_pause else 'resume'}: {error}")
        run.pause_error, run.is_to_pause = error, unit.state is State.PAUSED
        self._cluster.touch(unit)
