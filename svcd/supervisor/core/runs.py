"""The life of a run: its spawn, what is heard of it, how it is told to end, and what becomes of its service then.

Must not hear what people want (``wishes``), nor when a service may start: it is called when it may.
"""

from __future__ import annotations

from typing import Final

from svcd.supervisor.core import causes, restart
from svcd.supervisor.core.actions import (
    AwaitReadiness,
    KillProcess,
    PublishNotice,
    SignalProcess,
    SpawnProcess,
    StubOrder,
    TellStub,
)
from svcd.supervisor.core.cluster import Cluster
from svcd.supervisor.core.events import ExitStatus, ShutdownLevel, StubPhase, TimerKind
from svcd.supervisor.core.restart import Ending, Fate
from svcd.supervisor.core.spec import OnCrash, ReadyKind, Runner
from svcd.supervisor.core.states import State
from svcd.supervisor.core.transitions import IN_START
from svcd.supervisor.core.unit import Mark, Run, Unit

HURRIED_STOP_S: Final = 1.0  # every stop timeout, once the cluster is in a hurry
LEFTOVERS_S: Final = 1.0  # how long what a main process left behind has for its stop signal, at the most

PHASE_STATES: Final = {
    StubPhase.LOADED: State.LOADED,
    StubPhase.INITIALIZED: State.INITIALIZED,
    StubPhase.STARTING: State.STARTING,
}
PHASE_CAUSES: Final = {
    StubPhase.LOADED: "code imported",
    StubPhase.INITIALIZED: "init() done",
    StubPhase.STARTING: "start() begun",
}
RANK: Final = {
    State.LOADING: 0,
    State.LOADED: 1,
    State.INITIALIZED: 2,
    State.STARTING: 3,
    State.RUNNING: 4,
}


class Runs:
    """What is heard of a process. Each ``on_`` method returns whether the news meant anything."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    # ---- beginning ----

    def spawn(self, unit: Unit) -> None:
        cluster = self._cluster
        cluster.invocations += 1
        cluster.live += 1
        invocation = unit.last_invocation = cluster.invocations
        unit.run = Run(invocation)
        cluster.go(unit, State.LOADING if unit.spec.runner is Runner.PYTHON else State.STARTING, unit.reason)
        cluster.out.append(SpawnProcess(unit.name, invocation))
        cluster.arm(unit, TimerKind.READY, unit.spec.ready_timeout_s)

    def on_spawned(self, unit: Unit, run: Run, pid: int) -> bool:
        if run.pid is not None or run.exited:
            return False
        run.pid = pid
        self._cluster.changed[unit.name] = None
        if run.killed:
            self._kill(unit, run)
        elif unit.state is State.STOPPING and not run.connected:
            self._signal(unit, run)  # it was to end before there was anybody to signal
        return True

    def on_executed(self, unit: Unit, run: Run) -> bool:
        if run.executed or run.exited:
            return False
        run.executed = True
        self._cluster.touch(unit)
        if unit.spec.runner is Runner.PROGRAM and unit.state is State.STARTING:
            self._started(unit, run)
        return True

    def on_connected(self, unit: Unit, run: Run) -> bool:
        if run.connected or run.exited:
            return False
        run.connected = run.executed = True
        self._cluster.touch(unit)
        if unit.state is State.STOPPING:
            self._tell_stub_to_stop(unit, run)
        elif run.mark is None and not run.coded:
            run.coded = True
            for order in (StubOrder.LOAD, StubOrder.INIT, StubOrder.START):
                self._cluster.out.append(TellStub(unit.name, run.invocation, order))
        return True

    def on_connection_lost(self, unit: Unit, run: Run) -> bool:
        """From now on it can only be signalled."""
        if not run.connected or run.exited:
            return False
        run.connected = False
        self._cluster.out.append(PublishNotice(self._cluster.at, unit.name, "its stub's connection was lost"))
        if run.told and unit.state in IN_START:
            self._enter_stopping(unit, run, run.mark_text)
            self._signal(unit, run)
        return True

    def on_ready(self, unit: Unit, run: Run) -> bool:
        if not run.awaiting:
            return False
        self._running(unit, run)
        return True

    def on_unready(self, unit: Unit, run: Run, reason: str) -> bool:
        if not run.awaiting or run.doomed:
            return False
        self._give_up_start(unit, run, f"not ready: {reason}")
        return True

    def _started(self, unit: Unit, run: Run) -> None:
        """The program runs, or the stub says so: ready at once, or after its probe."""
        if unit.spec.ready in (ReadyKind.IMMEDIATE, ReadyKind.STARTED):
            self._running(unit, run)
            return
        if unit.state is not State.STARTING:
            self._cluster.go(unit, State.STARTING, "waits for its readiness")
        if not run.awaiting:
            run.awaiting = True
            self._cluster.out.append(AwaitReadiness(unit.name, run.invocation))

    def _running(self, unit: Unit, run: Run) -> None:
        run.running_since = self._cluster.at
        unit.stumbled = False
        self._cluster.cancel(unit, TimerKind.READY)
        self._cluster.release_turn(unit)
        self._cluster.go(unit, State.RUNNING, "ready")

    # ---- what a stub says ----

    def on_phase(self, unit: Unit, run: Run, phase: StubPhase, error: str | None) -> bool:
        if run.exited:
            return False
        if phase is StubPhase.STOPPING:
            return self._on_stopping(unit, run, error)
        if not run.coded or unit.state not in IN_START:
            return False
        if phase is StubPhase.RUNNING:
            if run.awaiting:
                return False
            if run.told:
                self._enter_stopping(unit, run, run.mark_text)  # the start is over, the queued stop begins
            else:
                self._started(unit, run)
            return True
        new = PHASE_STATES[phase]
        if RANK[new] <= RANK[unit.state]:
            return False
        cause = unit.cause if run.told else PHASE_CAUSES[phase]
        self._cluster.go(unit, new, cause)
        return True

    def _on_stopping(self, unit: Unit, run: Run, error: str | None) -> bool:
        if unit.state is State.STOPPING:
            if error is None or run.mark is not Mark.SELF or run.error is not None:
                return False
            run.error = error
            self._cluster.say(unit, error)
            self._spread_crash(unit, run, error, completes=False)
            return True
        run.told = True
        if run.from_outside:
            self._enter_stopping(unit, run, run.mark_text)
            return True
        self._note_end(run)
        run.mark, run.error = Mark.SELF, error
        words = error or "stops by itself"
        self._enter_stopping(unit, run, words)
        hoped = restart.completes(unit.spec.restart, self._ending(unit, run, ExitStatus(code=0)))
        self._spread_crash(unit, run, words, completes=hoped)
        return True

    # ---- ending ----

    def mark(self, unit: Unit, mark: Mark, text: str, for_dependents: str) -> None:
        """This run is to end, and before it every run that requires it; whoever was marked before stays so."""
        pending = [(unit, mark, text)]
        while pending:
            each, why, words = pending.pop()
            run = each.run
            if run is None or (run.mark is not None and why is Mark.DEPENDENCY):
                continue
            run.mark, run.mark_text = why, words
            self._cluster.touch(each)
            dependents = (edge.dependent for edge in reversed(each.incoming) if edge.hard)
            pending.extend((dependent, Mark.DEPENDENCY, for_dependents) for dependent in dependents)

    def tell(self, unit: Unit, run: Run) -> None:
        """Everyone who had to end before has: now it is told."""
        run.told = True
        if not run.connected:
            self._enter_stopping(unit, run, run.mark_text)
            self._signal(unit, run)
            return
        starts = unit.state in IN_START and not run.awaiting
        if starts and not run.overdue and not self._in_hurry():
            self._tell_stub_to_stop(unit, run)
            self._cluster.say(unit, "stop queued: waits for the start to end")
        else:
            self._enter_stopping(unit, run, run.mark_text)
            self._tell_stub_to_stop(unit, run)

    def hurry(self, unit: Unit, run: Run) -> None:
        """The cluster is in a hurry now: what was told to stop has a second more."""
        if run.exited:
            return
        if run.told and unit.state is not State.STOPPING:
            self._enter_stopping(unit, run, run.mark_text)
        elif TimerKind.STOP in unit.timers:
            deadline = self._cluster.at + HURRIED_STOP_S
            if run.stop_deadline is not None and run.stop_deadline > deadline:
                run.stop_deadline = deadline
                self._cluster.arm(unit, TimerKind.STOP, HURRIED_STOP_S)

    def kill(self, unit: Unit, run: Run, cause: str) -> None:
        """Everything of it dies now, whatever the order."""
        run.told, run.kill_text = True, "killed"
        self._cluster.cancel(unit, TimerKind.READY, TimerKind.STOP, TimerKind.LEFTOVERS)
        if unit.state is State.STOPPING:
            self._cluster.say(unit, cause)
        else:
            self._cluster.go(unit, State.STOPPING, cause)
        self._kill(unit, run)

    def on_timer(self, unit: Unit, run: Run, kind: TimerKind) -> None:
        if kind is TimerKind.READY:
            self._on_overdue(unit, run)
        elif kind is TimerKind.STOP:
            run.kill_text = causes.killed_words(self._stop_timeout_s(unit))
            self._cluster.say(unit, run.kill_text)
            self._kill(unit, run)
        else:
            self._kill(unit, run)

    def _on_overdue(self, unit: Unit, run: Run) -> None:
        if run.told:
            self._enter_stopping(unit, run, run.mark_text)
        elif run.from_outside:
            run.overdue = True
        else:
            self._give_up_start(unit, run, f"not ready within {causes.seconds(unit.spec.ready_timeout_s)}")

    def _give_up_start(self, unit: Unit, run: Run, text: str) -> None:
        run.mark, run.mark_text, run.told = Mark.UNREADY, text, True
        self._enter_stopping(unit, run, text)
        if run.connected:
            self._tell_stub_to_stop(unit, run)
        else:
            self._signal(unit, run)
        self._spread_crash(unit, run, text, completes=False)

    def _enter_stopping(self, unit: Unit, run: Run, cause: str) -> None:
        self._note_end(run)
        timeout_s = self._stop_timeout_s(unit)
        run.stop_deadline = self._cluster.at + timeout_s
        self._cluster.cancel(unit, TimerKind.READY)
        self._cluster.go(unit, State.STOPPING, cause)
        self._cluster.arm(unit, TimerKind.STOP, timeout_s)

    def _stop_timeout_s(self, unit: Unit) -> float:
        timeout_s = unit.spec.stop.timeout_s
        return min(timeout_s, HURRIED_STOP_S) if self._in_hurry() else timeout_s

    def _in_hurry(self) -> bool:
        return self._cluster.level in (ShutdownLevel.NOW, ShutdownLevel.KILL)

    def _signal(self, unit: Unit, run: Run) -> None:
        if run.pid is not None or run.exited:
            self._cluster.out.append(SignalProcess(unit.name, run.invocation, unit.spec.stop.signal, group=True))

    def _kill(self, unit: Unit, run: Run) -> None:
        run.killed = True
        if run.pid is not None or run.exited:
            self._cluster.out.append(KillProcess(unit.name, run.invocation))

    def _tell_stub_to_stop(self, unit: Unit, run: Run) -> None:
        self._cluster.out.append(TellStub(unit.name, run.invocation, StubOrder.STOP, run.mark_text))

    def _note_end(self, run: Run) -> None:
        """The first sign of the end: until here it was running."""
        if run.running_since is not None and run.ran_s is None:
            run.ran_s = self._cluster.at - run.running_since

    # ---- ended ----

    def on_exited(self, unit: Unit, run: Run, status: ExitStatus, leftovers: bool) -> bool:
        if run.exited:
            return False
        self._note_end(run)
        run.exited, run.status, run.pid = True, status, None
        words = causes.end_words(unit, run)
        if not run.from_outside:
            completes = restart.completes(unit.spec.restart, self._ending(unit, run, status))
            self._spread_crash(unit, run, words, completes)
        if leftovers:
            self._clear_leftovers(unit, run, causes.exit_words(status))
        else:
            self._ended(unit, run)
        return True

    def on_spawn_failed(self, unit: Unit, run: Run, reason: str) -> bool:
        if run.exited:
            return False
        if not run.from_outside:
            run.error = f"cannot start {unit.name}: {reason}"
            self._spread_crash(unit, run, run.error, completes=False)
        self._ended(unit, run)
        return True

    def on_leftovers_gone(self, unit: Unit, run: Run) -> bool:
        if not run.exited:
            return False
        self._ended(unit, run)
        return True

    def _clear_leftovers(self, unit: Unit, run: Run, words: str) -> None:
        cluster = self._cluster
        rest_s = self._stop_timeout_s(unit) if run.stop_deadline is None else run.stop_deadline - cluster.at
        cluster.cancel(unit, TimerKind.READY, TimerKind.STOP)
        cause = f"{words}; clearing what it left behind"
        if unit.state is State.STOPPING:
            cluster.say(unit, cause)
            cluster.touch(unit)
        else:
            cluster.go(unit, State.STOPPING, cause)
        if run.killed or rest_s <= 0:
            self._kill(unit, run)
        else:
            self._signal(unit, run)
            cluster.arm(unit, TimerKind.LEFTOVERS, min(LEFTOVERS_S, rest_s))

    def _spread_crash(self, unit: Unit, run: Run, words: str, completes: bool) -> None:
        """Tell whoever requires this run, once for each, that it ends by itself."""
        text = f"{unit.name} {'ended' if completes else 'crashed'}: {words}"
        for edge in unit.incoming:
            dependent = edge.dependent
            if not edge.hard or dependent.run is None or edge.lost_invocation == run.invocation:
                continue
            if completes and edge.met_by_completion:
                continue
            edge.lost_invocation = run.invocation
            if edge.spec.on_crash is OnCrash.RESTART:
                self.mark(dependent, Mark.DEPENDENCY, text, text)
            elif edge.spec.on_crash is OnCrash.NOTIFY:
                self._cluster.out.append(PublishNotice(self._cluster.at, dependent.name, f"{text}; it requires it"))

    def _ending(self, unit: Unit, run: Run, status: ExitStatus | None) -> Ending:
        unready = run.mark is Mark.UNREADY
        return Ending(
            at=self._cluster.at,
            status=status,
            at_fault=run.error is not None or unready,
            ours=run.killed or unready,
            ran_s=run.ran_s,
            is_task=unit.is_task,
        )

    def _ended(self, unit: Unit, run: Run) -> None:
        """Nothing of the run is left: where does the service go from here?"""
        cluster = self._cluster
        cluster.cancel(unit, *TimerKind)
        unit.run = None
        cluster.live -= 1
        cluster.release_turn(unit)
        if not unit.up:
            cluster.go(unit, State.STOPPED, causes.stopped_words(unit, run))
        elif run.from_outside:
            if run.mark is Mark.DEPENDENCY:
                unit.reason = f"back after {run.mark_text}"
            self.wait(unit)
        else:
            self._judge(unit, run)

    def _judge(self, unit: Unit, run: Run) -> None:
        cluster, policy = self._cluster, unit.spec.restart
        words = causes.end_words(unit, run)
        unit.stumbled = run.running_since is None
        verdict = restart.decide(policy, unit.record, self._ending(unit, run, run.status), cluster.jitter)
        if verdict.fate is Fate.COMPLETE:
            unit.stumbled = False
            cluster.go(unit, State.COMPLETED, words)
        elif verdict.fate is Fate.FAIL:
            cluster.go(unit, State.FAILED, words)
        elif verdict.fate is Fate.GIVE_UP:
            cluster.go(unit, State.UNAVAILABLE, causes.intensity_words(policy.intensity, words))
        else:
            self._restart(unit, verdict.delay_s, words)

    def _restart(self, unit: Unit, delay_s: float, words: str) -> None:
        unit.reason = f"restart after {words}"
        if delay_s <= 0:
            self.restart_now(unit)
            return
        unit.delay_s = delay_s
        self._cluster.go(unit, State.BACKOFF, causes.backoff_words(unit, words))
        self._cluster.arm(unit, TimerKind.RESTART, delay_s)

    def restart_now(self, unit: Unit) -> None:
        """An automatic restart happens now, be it that the service has to wait for others first."""
        restart.note_restart(unit.spec.restart, unit.record, self._cluster.at)
        unit.restarts += 1
        self.wait(unit)

    def wait(self, unit: Unit) -> None:
        """It is to run: from here on only its requirements and its turn keep it."""
        self._cluster.cancel(unit, TimerKind.RESTART)
        unit.again = False
        self._cluster.go(unit, State.WAITING, causes.waiting_words(unit) if unit.blockers else unit.reason)
