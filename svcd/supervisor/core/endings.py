"""How a run ends: who is told when, what gets SIGKILL, and what becomes of the service then.

Must not hear what people want (``wishes``), nor when a service may start: it is called when it may end.
"""

from __future__ import annotations

from typing import Final

from svcd.supervisor.core import causes, restart
from svcd.supervisor.core.actions import (
    CeaseHealthChecks,
    KillHook,
    KillProcess,
    PublishNotice,
    RunHook,
    SignalProcess,
    StubOrder,
    TellParent,
    TellStub,
)
from svcd.supervisor.core.cluster import Cluster
from svcd.supervisor.core.draining import Draining
from svcd.supervisor.core.edges import relies
from svcd.supervisor.core.events import ExitStatus, ShutdownLevel, TimerKind
from svcd.supervisor.core.restart import Ending, Fate
from svcd.supervisor.core.spec import Hook, OnCrash, ReadyKind, RunEnd
from svcd.supervisor.core.states import State
from svcd.supervisor.core.transitions import IN_START
from svcd.supervisor.core.unit import CONDEMNED, Edge, Mark, Run, Unit

HURRIED_STOP_S: Final = 1.0  # every stop timeout, once the cluster is in a hurry
LEFTOVERS_S: Final = 1.0  # how long what a main process left behind has for its stop signal, at the most
SIGCONT: Final = 18
_SERVED: Final = frozenset({State.RUNNING, State.PAUSED, State.DRAINING})


class Endings:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._draining = Draining(cluster)

    # ---- who is to end ----

    def mark(self, unit: Unit, mark: Mark, text: str, for_dependents: str) -> None:
        """This run is to end, and before it every run that relies on it; whoever was marked before stays so."""
        pending = [(unit, mark, text)]
        while pending:
            each, why, words = pending.pop()
            run = each.run
            if run is None or (why is Mark.DEPENDENCY and (run.mark is not None or run.exited)):
                continue  # its end has its own reason already
            run.mark, run.mark_text = why, words
            self._cluster.enlist(each)
            self._cluster.touch(each)
            dependents = (edge.dependent for edge in reversed(each.incoming) if relies(edge))
            pending.extend((dependent, Mark.DEPENDENCY, for_dependents) for dependent in dependents)

    def on_held_late(self, edge: Edge) -> None:
        """A run that is to end has come to be relied on (the other instance is gone, the configuration has changed): it
        would wait for a dependent that has not been told.
        """
        run = edge.target.run
        if run is not None and relies(edge) and (run.from_outside or edge.spec.on_crash is OnCrash.RESTART):
            text = f"{edge.target.name} is about to stop"
            self.mark(edge.dependent, Mark.DEPENDENCY, text, text)

    def release_stood_in(self, unit: Unit, text: str) -> None:
        """Whoever runs against the fallback of this unit goes down, to come back against the unit itself."""
        for edge in list(unit.stood_in):
            self.mark(edge.dependent, Mark.DEPENDENCY, text, text)

    def condemn(self, unit: Unit, run: Run, mark: Mark, text: str) -> None:
        """svcd ends this run for what it failed at: a crash, whatever its exit status."""
        self.note_crash(unit, text)
        run.mark, run.mark_text, run.told = mark, text, True
        if mark is Mark.HUNG:
            run.kill_text = text
            self._die(unit, run, text)
        else:
            self.order_stop(unit, run)
        self.spread_crash(unit, run, text)

    # ---- telling it ----

    def tell(self, unit: Unit, run: Run) -> None:
        """Everyone who had to end before has: now it is told."""
        run.told = True
        if run.hook in (Hook.PRE_START, Hook.POST_START):
            self._cluster.out.append(KillHook(unit.name, run.invocation, run.hook))
        if not run.spawned or run.killed:  # its pre_start is being killed, or all of it is
            self._leave_running(unit, run)
            self._cluster.go(unit, State.STOPPING, run.mark_text)
        elif self._draining.is_due(unit, run) and not self._in_hurry():
            self._leave_running(unit, run)
            self._draining.begin(unit, run)
        elif run.from_outside and run.executed and unit.state in _SERVED and self._begins(unit, run, Hook.PRE_STOP):
            self._leave_running(unit, run)
            self._cluster.go(unit, State.STOPPING, run.mark_text)
            self.run_hook(unit, run, Hook.PRE_STOP, run.mark_text)
        elif self._can_queue(unit, run):
            self.tell_stub_to_stop(unit, run)
            self._cluster.say(unit, "stop queued: waits for the start to end")
        else:
            self.order_stop(unit, run)

    def on_drained(self, unit: Unit, run: Run, is_overdue: bool = False) -> bool:
        """The drain is over: on to the stop."""
        if unit.state is not State.DRAINING:
            return False
        self._draining.end(unit, run, is_overdue)
        self.tell(unit, run)
        return True

    def on_drain_progress(self, unit: Unit, run: Run, in_flight: int) -> bool:
        return self._draining.on_progress(unit, run, in_flight)

    def order_stop(self, unit: Unit, run: Run) -> None:
        """The stop itself, from now on within the stop timeout."""
        self.enter_stopping(unit, run, run.mark_text)
        if run.connected:
            self.tell_stub_to_stop(unit, run)
        else:
            self.signal(unit, run)

    def _can_queue(self, unit: Unit, run: Run) -> bool:
        """Whether a start is going on inside the stub, which it ends first."""
        starts = unit.state in IN_START and not run.awaiting and not run.held and run.hook is None
        return run.connected and starts and not run.overdue and not self._in_hurry()

    def hurry(self, unit: Unit, run: Run) -> None:
        """The cluster is in a hurry now: what was told to stop has a second more."""
        if run.hook is not None:
            self._cluster.arm(unit, TimerKind.HOOK, HURRIED_STOP_S)
        if run.exited:
            return
        if unit.state is State.DRAINING:
            self.on_drained(unit, run)
        elif run.told and unit.state is not State.STOPPING:
            self.enter_stopping(unit, run, run.mark_text)
        elif TimerKind.STOP in unit.timers:
            deadline = self._cluster.at + HURRIED_STOP_S
            if run.stop_deadline is not None and run.stop_deadline > deadline:
                run.stop_deadline = deadline
                self._cluster.arm(unit, TimerKind.STOP, HURRIED_STOP_S)

    def kill(self, unit: Unit, run: Run, cause: str) -> None:
        """Everything of it dies now, whatever the order."""
        run.told, run.kill_text = True, "killed"
        if run.hook is not None:
            self._cluster.out.append(KillHook(unit.name, run.invocation, run.hook))
        self._die(unit, run, cause)

    def _die(self, unit: Unit, run: Run, cause: str) -> None:
        self._leave_running(unit, run)
        self._cluster.cancel(unit, *TimerKind)
        if unit.state is State.STOPPING:
            self._cluster.say(unit, cause)
        else:
            self._cluster.go(unit, State.STOPPING, cause)
        self.kill_process(unit, run)

    def on_timer(self, unit: Unit, run: Run, kind: TimerKind) -> None:
        if kind is TimerKind.HOOK:
            if run.hook is not None:
                self._cluster.out.append(KillHook(unit.name, run.invocation, run.hook))
            return
        if kind is TimerKind.DRAIN:
            self.on_drained(unit, run, is_overdue=True)
            return
        if kind is TimerKind.STOP:
            run.kill_text = causes.killed_words(self._stop_timeout_s(unit))
            self._cluster.say(unit, run.kill_text)
        self.kill_process(unit, run)

    def on_overdue(self, unit: Unit, run: Run) -> None:
        """Not ready in time."""
        if run.told:
            self.enter_stopping(unit, run, run.mark_text)
        elif run.from_outside:
            run.overdue = True
        else:
            self.condemn(unit, run, Mark.UNREADY, causes.overdue_words(unit, run))

    def on_extended(self, unit: Unit, run: Run, by_s: float) -> bool:
        """The service asks for more time, in its start or in its stop."""
        cluster = self._cluster
        deadline = cluster.at + by_s
        if TimerKind.READY in unit.timers and unit.state in IN_START:
            if run.ready_deadline is not None and deadline > run.ready_deadline:
                run.ready_deadline = deadline
                cluster.arm(unit, TimerKind.READY, by_s)
            return True
        if TimerKind.STOP in unit.timers and not self._in_hurry():
            if run.stop_deadline is not None and deadline > run.stop_deadline:
                run.stop_deadline = deadline
                cluster.arm(unit, TimerKind.STOP, by_s)
            return True
        return False

    def enter_stopping(self, unit: Unit, run: Run, cause: str) -> None:
        """From now on its stop timeout runs."""
        self._leave_running(unit, run)
        timeout_s = self._stop_timeout_s(unit)
        run.stop_deadline = self._cluster.at + timeout_s
        if unit.state is State.STOPPING:
            self._cluster.say(unit, cause)
        else:
            self._cluster.go(unit, State.STOPPING, cause)
        self._cluster.arm(unit, TimerKind.STOP, timeout_s)

    def _leave_running(self, unit: Unit, run: Run) -> None:
        note_end(run, self._cluster.at)
        self._cluster.cancel(unit, TimerKind.READY, TimerKind.WATCHDOG, TimerKind.DRAIN)
        if unit.spec.health is not None and unit.state is State.RUNNING:
            self._cluster.out.append(CeaseHealthChecks(unit.name, run.invocation))

    def _stop_timeout_s(self, unit: Unit) -> float:
        timeout_s = unit.spec.stop.timeout_s
        return min(timeout_s, HURRIED_STOP_S) if self._in_hurry() else timeout_s

    def _in_hurry(self) -> bool:
        return self._cluster.level in (ShutdownLevel.NOW, ShutdownLevel.KILL)

    def signal(self, unit: Unit, run: Run) -> None:
        """The stop signal, and what makes a paused program hear it."""
        if run.pid is None and not run.leftovers:
            return
        out = self._cluster.out
        out.append(SignalProcess(unit.name, run.invocation, unit.spec.stop.signal, group=True))
        if run.frozen:
            out.append(SignalProcess(unit.name, run.invocation, SIGCONT, group=True))

    def kill_process(self, unit: Unit, run: Run) -> None:
        """SIGKILL to all of it; once it has a process, if it has none yet."""
        run.killed = True
        if run.pid is not None or run.leftovers:
            self._cluster.out.append(KillProcess(unit.name, run.invocation))

    def tell_stub_to_stop(self, unit: Unit, run: Run) -> None:
        self._cluster.out.append(TellStub(unit.name, run.invocation, StubOrder.STOP, run.mark_text))

    # ---- hooks ----

    def _begins(self, unit: Unit, run: Run, hook: Hook) -> bool:
        """Whether this hook is still to run, now."""
        return hook in unit.spec.hooks and hook not in run.hooks_done and not self._in_hurry()

    def run_hook(self, unit: Unit, run: Run, hook: Hook, cause: str) -> None:
        run.hook = hook
        run.hooks_done.add(hook)
        self._cluster.out.append(RunHook(unit.name, run.invocation, hook, cause))

    def on_stop_hook(self, unit: Unit, run: Run, hook: Hook, error: str | None) -> None:
        """A pre_stop or post_stop hook is over: the stop goes on, whatever came of it."""
        if error is not None:
            text = f"{hook.value} hook: {error}"
            run.remarks.append(text)
            self._cluster.out.append(PublishNotice(self._cluster.at, unit.name, text))
        if hook is Hook.POST_STOP:
            self.ended(unit, run)
        elif not run.exited and not run.killed:
            self.order_stop(unit, run)

    # ---- ended ----

    def on_exited(self, unit: Unit, run: Run, status: ExitStatus, leftovers: bool) -> bool:
        if run.exited or not run.spawned:
            return False
        note_end(run, self._cluster.at)
        run.exited, run.status, run.pid, run.frozen, run.leftovers = True, status, None, False, leftovers
        if self._is_unready(unit, run):
            run.start_failed, run.error = True, f"ended before it was ready: {causes.exit_words(status)}"
        words = causes.end_words(unit, run)
        if not run.from_outside:
            ending, policy = self.ending(unit, run, status), unit.spec.restart
            verb = verb_of(restart.succeeded(policy, ending))
            self.note_crash(unit, words, verb)
            self.spread_crash(unit, run, words, verb, restart.completes(policy, ending))
        self._leave_hook(unit, run)
        if leftovers:
            self._clear_leftovers(unit, run, causes.exit_words(status))
        else:
            self.ended(unit, run)
        return True

    def _is_unready(self, unit: Unit, run: Run) -> bool:
        """Whether it ended before it has shown that it serves, be it well: then it has gone into the background, most
        likely, or had nothing to do.
        """
        is_own = run.mark is None and run.error is None and not run.held
        return is_own and not unit.is_task and unit.spec.ready is not ReadyKind.IMMEDIATE and run.running_since is None

    def on_spawn_failed(self, unit: Unit, run: Run, reason: str) -> bool:
        if run.exited or not run.spawned:
            return False
        self.start_failed(unit, run, reason)
        return True

    def start_failed(self, unit: Unit, run: Run, reason: str) -> None:
        """There was nothing to run, or it could not be: no process is left."""
        if not run.from_outside:
            run.error = f"cannot start {unit.name}: {reason}"
            run.start_failed = True
            self.note_crash(unit, run.error)
            self.spread_crash(unit, run, run.error)
        run.exited, run.pid = True, None
        self._leave_hook(unit, run)
        self.ended(unit, run)

    def on_leftovers_gone(self, unit: Unit, run: Run) -> bool:
        if not run.leftovers:
            return False
        run.leftovers = False
        self.ended(unit, run)
        return True

    def _leave_hook(self, unit: Unit, run: Run) -> None:
        """There is nothing any more that this hook could be for."""
        if run.hook is not None:
            self._cluster.out.append(KillHook(unit.name, run.invocation, run.hook))
            self._cluster.cancel(unit, TimerKind.HOOK)
            run.hook = None

    def _clear_leftovers(self, unit: Unit, run: Run, words: str) -> None:
        cluster = self._cluster
        rest_s = self._stop_timeout_s(unit) if run.stop_deadline is None else run.stop_deadline - cluster.at
        self._leave_running(unit, run)
        cluster.cancel(unit, TimerKind.STOP)
        cause = f"{words}; clearing what it left behind"
        if unit.state is State.STOPPING:
            cluster.say(unit, cause)
            cluster.touch(unit)
        else:
            cluster.go(unit, State.STOPPING, cause)
        if run.killed or rest_s <= 0:
            self.kill_process(unit, run)
        else:
            self.signal(unit, run)
            cluster.arm(unit, TimerKind.LEFTOVERS, min(LEFTOVERS_S, rest_s))

    def note_crash(self, unit: Unit, words: str, verb: str = "crashed") -> None:
        """The first sign that a run ends by itself: what follows from it is one change, and part of the one that the
        unit is in the middle of.
        """
        run, own = unit.run, unit.transaction
        if run is None or run.mark is not None:
            return
        if own is None or unit.name not in own.moving:
            self._cluster.begin(f"{unit.name} {verb}: {words}", f"end of {unit.name}")
            self._cluster.enlist(unit)

    def spread_crash(self, unit: Unit, run: Run, words: str, verb: str = "crashed", completes: bool = False) -> None:
        """Tell whoever requires this run, once for each, that it ends by itself. ``completes``: and stays so."""
        text = f"{unit.name} {verb}: {words}"
        for edge in list(unit.incoming):
            dependent = edge.dependent
            if not relies(edge) or edge.lost_invocation == run.invocation:
                continue
            if completes and edge.met_by_completion:
                continue
            edge.lost_invocation = run.invocation
            if edge.spec.on_crash is OnCrash.RESTART:
                self.mark(dependent, Mark.DEPENDENCY, text, text)
            elif edge.spec.on_crash is OnCrash.NOTIFY:
                self._cluster.out.append(PublishNotice(self._cluster.at, dependent.name, f"{text}; it requires it"))

    def ending(self, unit: Unit, run: Run, status: ExitStatus | None) -> Ending:
        condemned = CONDEMNED.get(run.mark) if run.mark is not None else None
        never_ran = run.running_since is None and unit.spec.ready is not ReadyKind.IMMEDIATE
        end = condemned or (RunEnd.START if run.start_failed or never_ran else RunEnd.EXIT)
        if end is RunEnd.EXIT and status is not None and status.signal is not None:
            end = RunEnd.SIGNAL
        return Ending(
            at=self._cluster.at,
            status=status,
            at_fault=run.error is not None or condemned is not None,
            ours=run.killed or condemned is not None,
            ran_s=run.ran_s,
            is_task=unit.is_task,
            end=end,
        )

    def ended(self, unit: Unit, run: Run) -> None:
        """Nothing of the run is left: after its last hook, where does the service go from here?"""
        cluster = self._cluster
        cluster.cancel(unit, *TimerKind)
        if self._begins(unit, run, Hook.POST_STOP):
            words = run.mark_text if run.from_outside else causes.end_words(unit, run)
            if unit.state is not State.STOPPING:
                cluster.go(unit, State.STOPPING, words)
            self.run_hook(unit, run, Hook.POST_STOP, words)
            return
        cluster.give_back(unit)
        unit.run = None
        cluster.live -= 1
        cluster.release_turn(unit)
        cluster.leave_queue(unit)
        cluster.adopt(unit)
        if run.held and not unit.up and not run.from_outside:
            self._give_up(unit, State.FAILED, causes.end_words(unit, run))
        elif not unit.up:
            cluster.go(unit, State.STOPPED, causes.stopped_words(unit, run))
        elif run.from_outside:
            if run.mark is Mark.DEPENDENCY:
                unit.reason = f"back after {run.mark_text}"
            self.wait(unit, run)
        else:
            self._judge(unit, run)
            self._tell_parent(unit, run)

    def _tell_parent(self, unit: Unit, run: Run) -> None:
        """A child has ended by itself: that is its parent's business, whatever follows from it here."""
        parent = unit.parent
        if parent is not None and parent.run is not None and parent.may_have_children:
            error = None if unit.state is State.COMPLETED else causes.end_words(unit, run)
            self._cluster.out.append(TellParent(parent.name, parent.run.invocation, unit.name, run.invocation, error))

    def _judge(self, unit: Unit, run: Run) -> None:
        cluster, policy = self._cluster, unit.spec.restart
        words = causes.end_words(unit, run)
        unit.stumbled = run.running_since is None
        ending = self.ending(unit, run, run.status)
        verdict = restart.decide(policy, unit.record, ending, cluster.jitter)
        if verdict.fate is Fate.COMPLETE:
            unit.stumbled = unit.given_up = False
            cluster.go(unit, State.COMPLETED, words)
            self.release_stood_in(unit, f"{unit.name} has completed")
        elif verdict.fate is Fate.FAIL:
            self._give_up(unit, State.FAILED, words, causes.forbidding_words(policy, ending))
        elif verdict.fate is Fate.GIVE_UP:
            self._give_up(unit, State.UNAVAILABLE, causes.intensity_words(policy.intensity, words))
        else:
            self._restart(unit, verdict.delay_s, words)
            return
        if unit.queued:
            cluster.requests.look(unit, cluster.out)  # it runs again within this event
            unit.queued, unit.again, unit.reason = False, True, "its scheduled time had come meanwhile"

    def _give_up(self, unit: Unit, state: State, words: str, forbidden: str = "") -> None:
        cluster = self._cluster
        unit.given_up, unit.forbidden = unit.up, forbidden
        cluster.go(unit, state, words)
        if Hook.ON_FAILURE in unit.spec.hooks:
            cluster.out.append(RunHook(unit.name, unit.last_invocation or 0, Hook.ON_FAILURE, words))
        if unit.spec.essential and unit.up:
            cluster.essential_lost = f"essential service {unit.name} {state.value}: {words}"

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

    def wait(self, unit: Unit, run: Run | None = None) -> None:
        """It is to run: from here on only its requirements and its turn keep it. ``run``: what has ended just now."""
        self._cluster.cancel(unit, TimerKind.RESTART)
        unit.again = False
        words = causes.waiting_words(unit) if unit.blockers else unit.reason
        self._cluster.go(unit, State.WAITING, words if run is None else causes.with_remarks(words, run))


def verb_of(well: bool) -> str:
    """What a run did that ended by itself."""
    return "ended" if well else "crashed"


def note_end(run: Run, at: float) -> None:
    """The first sign of the end: until here it was running."""
    if run.running_since is not None and run.ran_s is None:
        run.ran_s = at - run.running_since
