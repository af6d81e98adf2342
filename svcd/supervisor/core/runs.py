"""The life of a run: its spawn, and what is heard of it until it is running, or says that it ends.

Must not hear what people want (``wishes``), nor when a service may start: it is called when it may. How a run that is
running is watched is for ``watching``, how it ends for ``endings``.
"""

from __future__ import annotations

from typing import Final

from svcd.supervisor.core import causes, edges, graph, restart
from svcd.supervisor.core.actions import (
    AwaitReadiness,
    KillHook,
    PublishNotice,
    SignalProcess,
    SpawnProcess,
    StubOrder,
    TellStub,
)
from svcd.supervisor.core.cluster import Cluster
from svcd.supervisor.core.endings import SIGCONT, Endings, note_end, verb_of
from svcd.supervisor.core.events import ExitStatus, StubPhase, TimerKind
from svcd.supervisor.core.pausing import Pausing
from svcd.supervisor.core.spec import Dependency, Hook, ReadyKind, Runner
from svcd.supervisor.core.states import State
from svcd.supervisor.core.transitions import IN_START
from svcd.supervisor.core.unit import Mark, Run, Unit
from svcd.supervisor.core.watching import Watching

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

    def __init__(self, cluster: Cluster, endings: Endings, watching: Watching, pausing: Pausing) -> None:
        self._cluster = cluster
        self._endings = endings
        self._watching = watching
        self._pausing = pausing

    # ---- beginning ----

    def spawn(self, unit: Unit, held: bool = False) -> None:
        """A new run. ``held``: it is loaded, and goes no further before ``release``."""
        cluster = self._cluster
        cluster.invocations += 1
        cluster.live += 1
        invocation = unit.last_invocation = cluster.invocations
        run = unit.run = Run(invocation, held=held)
        new = State.LOADING if unit.spec.runner is Runner.PYTHON else State.STARTING
        cluster.go(unit, new, unit.reason + self._borrow(unit))
        if Hook.PRE_START in unit.spec.hooks:
            self._endings.run_hook(unit, run, Hook.PRE_START, unit.reason)
        else:
            self._spawn_process(unit, run)

    def _spawn_process(self, unit: Unit, run: Run) -> None:
        run.spawned = True
        self._cluster.out.append(SpawnProcess(unit.name, run.invocation))
        self._bound_start(unit, run)

    def _bound_start(self, unit: Unit, run: Run) -> None:
        timeout_s = unit.spec.ready_timeout_s
        run.ready_deadline = self._cluster.at + timeout_s
        self._cluster.arm(unit, TimerKind.READY, timeout_s)

    @staticmethod
    def _borrow(unit: Unit) -> str:
        """Where a fallback serves in the place of what this run requires, the run relies on the fallback. Returns what
        there is to say of it.
        """
        words = ""
        for edge in list(unit.outgoing):
            server = edges.server_for(edge)
            if server is not edge.target and server.serving and not edges.is_spared(edge):
                graph.borrow(unit, server, Dependency(server.name, on_crash=edge.spec.on_crash), edge.target)
                words += f"; {server.name} serves in place of {edge.target.name}"
        return words

    def release(self, unit: Unit, run: Run) -> None:
        """What was loaded ahead of time is to run now."""
        run.held = False
        words = self._borrow(unit)
        self._cluster.enlist(unit)
        self._cluster.say(unit, unit.reason + words)
        self._cluster.touch(unit)
        if run.spawned:
            self._bound_start(unit, run)
        self._go_on(unit, run)

    def _go_on(self, unit: Unit, run: Run) -> None:
        """The stub has its code: on to running, if it is not held, as soon as it can be told."""
        if run.connected and run.coded and run.mark is None and not (run.held or run.begun):
            run.begun = True
            self._tell_stub(unit, run, StubOrder.INIT, StubOrder.START)

    def on_spawned(self, unit: Unit, run: Run, pid: int) -> bool:
        if run.pid is not None or run.exited or not run.spawned:
            return False
        run.pid = pid
        self._cluster.changed[unit.name] = None
        if run.killed:
            self._endings.kill_process(unit, run)
        elif unit.state is State.STOPPING and not run.connected:
            self._endings.signal(unit, run)  # it was to end before there was anybody to signal
        return True

    def on_main_named(self, unit: Unit, run: Run, pid: int) -> bool:
        if run.pid is None or run.exited:
            return False
        run.pid = pid
        self._cluster.changed[unit.name] = None
        return True

    def on_executed(self, unit: Unit, run: Run) -> bool:
        if run.executed or run.exited or not run.spawned:
            return False
        run.executed = True
        self._cluster.touch(unit)
        if unit.spec.runner is Runner.PROGRAM and unit.state is State.STARTING:
            self._started(unit, run)
        return True

    def on_connected(self, unit: Unit, run: Run) -> bool:
        if run.connected or run.exited or not run.spawned:
            return False
        run.connected = run.executed = True
        self._cluster.touch(unit)
        if unit.state is State.STOPPING:
            if run.hook is None:
                self._endings.tell_stub_to_stop(unit, run)
            return True
        if run.mark is None and not run.coded:
            run.coded = True
            self._tell_stub(unit, run, StubOrder.LOAD)
        self._go_on(unit, run)
        return True

    def _tell_stub(self, unit: Unit, run: Run, *orders: StubOrder) -> None:
        self._cluster.out.extend(TellStub(unit.name, run.invocation, order) for order in orders)

    def on_endpoint(self, unit: Unit, run: Run) -> bool:
        if run.exited or run.has_endpoint:
            return False
        run.has_endpoint = True
        return True

    def on_connection_lost(self, unit: Unit, run: Run) -> bool:
        """From now on it can only be signalled."""
        if not run.connected or run.exited:
            return False
        run.connected = False
        self._pausing.on_deaf(unit, run)
        self._cluster.out.append(PublishNotice(self._cluster.at, unit.name, "its stub's connection was lost"))
        if unit.state is State.DRAINING:
            self._endings.on_drained(unit, run)  # nobody is left to say when it is
        elif run.told and unit.state in IN_START:
            self._endings.enter_stopping(unit, run, run.mark_text)
            self._endings.signal(unit, run)
        return True

    def on_ready(self, unit: Unit, run: Run) -> bool:
        if not run.awaiting or run.hook is not None:
            return False
        self._ready(unit, run)
        return True

    def on_unready(self, unit: Unit, run: Run, reason: str) -> bool:
        if not run.awaiting or run.doomed or run.hook is not None:
            return False
        self._endings.condemn(unit, run, Mark.UNREADY, f"not ready: {reason}")
        return True

    def on_missed(self, unit: Unit, run: Run, reason: str) -> bool:
        """Not yet: for whoever asks, and for the words of a failed start."""
        if not run.awaiting or run.doomed or run.hook is not None:
            return False
        run.obstacle = reason
        self._cluster.say(unit, causes.readiness_words(unit, run))
        return True

    def _started(self, unit: Unit, run: Run) -> None:
        """The program runs, or the stub says so: ready at once, or after its probe."""
        if unit.spec.ready in (ReadyKind.IMMEDIATE, ReadyKind.STARTED):
            self._ready(unit, run)
            return
        words = causes.readiness_words(unit, run)
        if unit.state is not State.STARTING:
            self._cluster.go(unit, State.STARTING, words)
        if not run.awaiting:
            run.awaiting = True
            self._cluster.say(unit, words)
            self._cluster.out.append(AwaitReadiness(unit.name, run.invocation))

    def _ready(self, unit: Unit, run: Run) -> None:
        """Others may use it, once its post_start hook is over. What is to end is spared the hook."""
        if Hook.POST_START not in unit.spec.hooks or run.doomed:
            self._running(unit, run)
            return
        self._cluster.cancel(unit, TimerKind.READY)
        if unit.state is not State.STARTING:
            self._cluster.go(unit, State.STARTING, "ready; its post_start hook runs")
        else:
            self._cluster.say(unit, "ready; its post_start hook runs")
        self._endings.run_hook(unit, run, Hook.POST_START, "ready")

    def _running(self, unit: Unit, run: Run) -> None:
        run.running_since = self._cluster.at
        unit.stumbled = unit.given_up = False
        self._cluster.cancel(unit, TimerKind.READY)
        self._cluster.release_turn(unit)
        self._cluster.go(unit, State.RUNNING, "ready")
        self._watching.begin(unit, run)
        self._endings.release_stood_in(unit, f"{unit.name} is back")

    # ---- what a stub says ----

    def on_phase(self, unit: Unit, run: Run, phase: StubPhase, error: str | None) -> bool:
        if run.exited:
            return False
        if phase is StubPhase.STOPPING:
            return self.on_stopping(unit, run, error)
        if phase is StubPhase.LEAVING:
            return self._on_leaving(unit, run)
        if phase is StubPhase.DRAINED:
            return self._endings.on_drained(unit, run)
        if unit.state in (State.RUNNING, State.PAUSED):
            return self._pausing.on_phase(unit, run, phase, error)
        if not run.coded or unit.state not in IN_START or phase is StubPhase.PAUSED:
            return False
        if run.held and phase is not StubPhase.LOADED:
            return False  # it was not told to
        if phase is StubPhase.RUNNING:
            return self._on_start_over(unit, run)
        new = PHASE_STATES[phase]
        if RANK[new] <= RANK[unit.state]:
            return False
        cause = unit.cause if run.told else PHASE_CAUSES[phase]
        self._cluster.go(unit, new, cause)
        if run.held:
            self._cluster.cancel(unit, TimerKind.READY)
            self._cluster.release_turn(unit)
        return True

    def _on_start_over(self, unit: Unit, run: Run) -> bool:
        if run.awaiting or run.hook is not None:
            return False
        if run.told:
            self._endings.enter_stopping(unit, run, run.mark_text)  # the start is over, the queued stop begins
        else:
            self._started(unit, run)
        return True

    def on_stopping(self, unit: Unit, run: Run, error: str | None) -> bool:
        """The service says that it ends."""
        endings = self._endings
        if run.exited or not run.spawned:
            return False
        if unit.state is State.STOPPING:
            if error is None or run.mark is not Mark.SELF or run.error is not None:
                return False
            run.error = error
            self._cluster.say(unit, error)
            endings.spread_crash(unit, run, error)
            return True
        run.told = True
        if run.from_outside:
            endings.enter_stopping(unit, run, run.mark_text)
            return True
        words, verb, completes = self._note_own_end(unit, run, error)
        if run.hook is not None:
            self._cluster.out.append(KillHook(unit.name, run.invocation, run.hook))
        if run.frozen:
            self._cluster.out.append(SignalProcess(unit.name, run.invocation, SIGCONT, group=True))
        endings.enter_stopping(unit, run, words)
        endings.spread_crash(unit, run, words, verb, completes)
        return True

    def _on_leaving(self, unit: Unit, run: Run) -> bool:
        """The service wants to end, well, and has requests to finish first: whoever requires it hears of it now."""
        if run.mark is not None or not run.spawned:
            return False  # it is to end anyhow
        words, verb, completes = self._note_own_end(unit, run, None)
        run.mark_text = words
        self._endings.tell(unit, run)
        self._endings.spread_crash(unit, run, words, verb, completes)
        return True

    def _note_own_end(self, unit: Unit, run: Run, error: str | None) -> tuple[str, str, bool]:
        """It ends by itself: in which words, with which verb, and whether it stays so and is no crash."""
        endings, policy = self._endings, unit.spec.restart
        words = error or "stops by itself"
        note_end(run, self._cluster.at)
        hoped = endings.ending(unit, run, ExitStatus(code=0))
        verb = verb_of(error is None and restart.succeeded(policy, hoped))
        endings.note_crash(unit, words, verb)
        run.mark, run.error = Mark.SELF, error
        return words, verb, error is None and restart.completes(policy, hoped)

    # ---- hooks ----

    def on_hook_ended(self, unit: Unit, run: Run, hook: Hook, error: str | None) -> bool:
        if run.hook is not hook:
            return False
        run.hook = None
        self._cluster.cancel(unit, TimerKind.HOOK)
        if hook in (Hook.PRE_STOP, Hook.POST_STOP):
            self._endings.on_stop_hook(unit, run, hook, error)
        elif hook is Hook.PRE_START:
            self._on_pre_start_over(unit, run, error)
        elif unit.state is State.STARTING:
            self._on_post_start_over(unit, run, error)
        return True

    def _on_pre_start_over(self, unit: Unit, run: Run, error: str | None) -> None:
        """Its process, unless the hook failed, or the run is to end: there is none yet, and nobody can rely on it."""
        if run.mark is not None or error is not None:
            self._endings.start_failed(unit, run, f"pre_start hook: {error}")
        else:
            self._spawn_process(unit, run)

    def _on_post_start_over(self, unit: Unit, run: Run, error: str | None) -> None:
        if error is None:
            self._running(unit, run)
        elif not run.doomed:
            self._endings.condemn(unit, run, Mark.UNREADY, f"post_start hook: {error}")
