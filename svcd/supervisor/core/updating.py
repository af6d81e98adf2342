"""Hot updates: a successor is loaded beside a run, takes over its state and its requests, and the old run is retired.

Must not end the run that serves before the successor is ready to: until then, whatever goes wrong ends the successor
and leaves the old run as if nothing had happened. How the service ends otherwise is for ``endings``: who stops,
restarts or loses the old run meanwhile ends the update with it.

Order of a Python service: load, compare the interfaces, init; the old one takes no new requests, finishes those in
flight and exports its state; import, start; the successor is the run. A program has neither interface nor state: it is
started beside the old one, with the same sockets, and takes over once it is ready.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from svcd.record import entity
from svcd.supervisor.core import causes, events
from svcd.supervisor.core.actions import (
    AnswerRequest,
    ArmTimer,
    AwaitReadiness,
    CancelTimer,
    CeaseHealthChecks,
    HoldRoutes,
    KillProcess,
    Outcome,
    PublishNotice,
    ReleaseRoutes,
    ServiceResult,
    SignalProcess,
    SpawnSuccessor,
    StubOrder,
    SwitchRun,
    TellStub,
)
from svcd.supervisor.core.apply import Apply
from svcd.supervisor.core.cluster import Cluster
from svcd.supervisor.core.errors import CoreError
from svcd.supervisor.core.events import ShutdownLevel, StubPhase, TimerKind
from svcd.supervisor.core.spec import DependencyKind, ReadyKind, Runner, ServiceSpec
from svcd.supervisor.core.states import State
from svcd.supervisor.core.unit import Run, Unit
from svcd.supervisor.core.wishes import Wishes

HAND_OVER_S: Final = 10.0  # beyond the drain: for its pause() and export_state()
GIVEN_UP: Final = "the update was given up"
REPLACED: Final = "replaced by its new version"
HAS_CHILDREN: Final = "it has children, which belong to its run: restart it instead"
SERVED: Final = "the one before goes on"


class Step(Enum):
    """How far an update has come, in words for people."""

    LOADING = "loading"
    CHECKING = "comparing the interfaces"
    INITIALIZING = "init()"
    HANDING_OVER = "the old one finishes its requests"
    STARTING = "start()"
    PROBING = "waiting until it is ready"
    RETIRING = "retiring the old one"  # the successor is the run
    ABANDONING = "giving it up"  # the successor is to end


BEFORE_THE_SWITCH: Final = frozenset(Step) - {Step.RETIRING, Step.ABANDONING}


@entity
class Update:
    """``other``: the run beside the unit's own: the successor, and after the switch the old one. ``request`` None:
    nobody waits for the answer.
    """

    request: str | None
    unit: Unit
    spec: ServiceSpec
    before: ServiceSpec
    is_forced: bool
    old: Run
    other: Run
    step: Step = Step.LOADING
    failure: str = ""
    is_held: bool = False  # the old one has been told to hand over
    is_armed: bool = False


class Updates:
    """All updates that go on, one of a service at the most."""

    def __init__(self, cluster: Cluster, apply: Apply, wishes: Wishes) -> None:
        self._cluster = cluster
        self._apply = apply
        self._wishes = wishes
        self._open: dict[str, Update] = {}

    # ---- begin -------------------------------------------------------------------------------------------------------

    def begin(self, event: events.UpdateRequested) -> None:
        named = self._wishes.admit(event.request, "update", [event.spec.name])
        if named is None:
            return
        unit = named[event.spec.name]
        obstacle = self._obstacle(unit, event.spec)
        if obstacle is not None:
            self._wishes.refuse(event.request, f"cannot update {unit.name}: {obstacle}")
            return
        assert unit.run is not None
        self._cluster.begin(f"update of {unit.name}")
        self._cluster.enlist(unit)
        assert unit.transaction is not None
        self._cluster.ledger.keep(unit.transaction, unit.name)
        self._cluster.invocations += 1
        self._cluster.live += 1
        successor = Run(self._cluster.invocations, spawned=True)
        update = Update(event.request, unit, event.spec, unit.newest, event.forced, unit.run, successor)
        self._open[unit.name] = update
        unit.updating = True
        self._cluster.touch(unit)
        self._cluster.out.append(SpawnSuccessor(unit.name, successor.invocation))
        self._enter(update, Step.LOADING, event.spec.ready_timeout_s)

    def _obstacle(self, unit: Unit, spec: ServiceSpec) -> str | None:
        """Why it cannot be updated in place, in words."""
        run = unit.run
        if unit.updating:
            return "an update of it is under way"
        if run is None or run.doomed or unit.state is not State.RUNNING or not unit.up:
            is_about_to = run is not None and run.doomed and unit.state not in (State.STOPPING, State.DRAINING)
            return f"it is {unit.state.value}, {'about to stop' if is_about_to else 'not running'}"
        if unit.parent is not None:
            return f"it is a child of {unit.parent.name}, which alone can make it anew"
        if unit.children:
            return HAS_CHILDREN
        if unit.is_task:
            return "it is a task: its next run is the new version"
        if spec.runner is not unit.spec.runner:
            return "a program and a Python service cannot take over from each other"
        if run.is_to_pause or run.pausing is not None:
            return "it is being paused"
        if unit.spec.runner is Runner.PYTHON and not run.connected:
            return "its stub's connection was lost"
        lacking = self._lacking(spec)
        return f"the new version requires {lacking}, which does not run: start it first" if lacking else None

    def _lacking(self, spec: ServiceSpec) -> str | None:
        """A requirement that nothing meets now."""
        groups: dict[str, bool] = {}
        for each in spec.dependencies:
            target = self._cluster.units.get(each.target)
            is_up = target is not None and (target.serving or target.state in (State.COMPLETED, State.PAUSED))
            if each.kind is DependencyKind.REQUIRES:
                name = each.group or each.target
                groups[name] = groups.get(name, False) or is_up
        return next((name for name, is_met in groups.items() if not is_met), None)

    def abandon(self, request: str) -> None:
        """Nobody waits for the answer any more."""
        for update in self._open.values():
            if update.request == request:
                update.request = None

    @property
    def awaited(self) -> int:
        """How many of them somebody waits for."""
        return sum(update.request is not None for update in self._open.values())

    # ---- what is heard of the other run ------------------------------------------------------------------------------

    def of(self, service: str, invocation: int) -> Update | None:
        update = self._open.get(service)
        return update if update is not None and update.other.invocation == invocation else None

    def hear(self, update: Update, event: Any) -> bool:
        """News of the run beside the unit's own; returns whether it meant anything."""
        run = update.other
        if isinstance(event, events.ProcessSpawned):
            run.pid = event.pid
            if run.killed:
                self._kill(update)
        elif isinstance(event, events.MainProcessNamed):
            run.pid = event.pid
        elif isinstance(event, events.ProgramExecuted):
            self._on_executed(update)
        elif isinstance(event, events.StubConnected):
            self._on_connected(update)
        elif isinstance(event, events.StubReported):
            return self._on_phase(update, event.phase, event.error)
        elif isinstance(event, events.InterfaceChecked):
            return self._on_checked(update, event.differences)
        elif isinstance(event, events.EndpointOpened):
            run.has_endpoint = True
        elif isinstance(event, events.ReadinessReached) and update.step is Step.PROBING:
            self._switch(update)
        elif isinstance(event, events.ReadinessFailed) and update.step is Step.PROBING:
            self._fail(update, f"the new version is not ready: {event.reason}")
        elif isinstance(event, events.TimerFired):
            return self._on_timer(update)
        elif isinstance(event, events.ConnectionLost):
            run.connected = False
        elif isinstance(event, events.SpawnFailed):
            self._on_gone(update, f"cannot start the new version: {event.reason}")
        elif isinstance(event, events.ProcessExited):
            self._on_exited(update, event)
        elif isinstance(event, events.LeftoversGone):
            self._on_gone(update, "")
        else:
            return False
        return True

    def _on_executed(self, update: Update) -> None:
        update.other.executed = True
        if update.unit.spec.runner is Runner.PROGRAM and update.step is Step.LOADING:
            self._on_started(update)

    def _on_connected(self, update: Update) -> None:
        run = update.other
        run.connected = run.executed = True
        if update.step is Step.LOADING and not run.coded:
            run.coded = True
            self._tell(update.unit, run, StubOrder.LOAD)
        elif update.step is Step.ABANDONING and not run.killed:
            self._tell(update.unit, run, StubOrder.STOP, GIVEN_UP)
        elif update.step is Step.RETIRING and not run.killed:
            self._tell(update.unit, run, StubOrder.STOP, REPLACED)  # who knows whether it has heard it before

    def _on_phase(self, update: Update, phase: StubPhase, error: str | None) -> bool:
        if phase is StubPhase.STOPPING:
            if update.step in BEFORE_THE_SWITCH:
                where = update.step.value
                self._fail(update, f"the new version failed ({where}): {error or 'it ended by itself'}", is_ending=True)
            return True
        if phase is StubPhase.LEAVING and update.step in BEFORE_THE_SWITCH:
            self._fail(update, f"the new version failed ({update.step.value}): it ended by itself")
            return True
        if phase is StubPhase.LOADED and update.step is Step.LOADING:
            self._enter(update, Step.CHECKING)
        elif phase is StubPhase.INITIALIZED and update.step is Step.INITIALIZING:
            self._hand_over(update)
        elif phase is StubPhase.RUNNING and update.step is Step.STARTING:
            self._on_started(update)
        else:
            return False
        return True

    def _on_checked(self, update: Update, differences: tuple[str, ...]) -> bool:
        if update.step is not Step.CHECKING:
            return False
        if differences and not update.is_forced:
            text = f"the new version is not compatible: {'; '.join(differences)} (--force updates all the same)"
            self._fail(update, text)
            return True
        self._enter(update, Step.INITIALIZING)
        self._tell(update.unit, update.other, StubOrder.INIT)
        return True

    def _hand_over(self, update: Update) -> None:
        """The successor can start: from here on callers wait."""
        stop = update.unit.spec.stop
        update.is_held = True
        self._cluster.out.append(HoldRoutes(update.unit.name))
        self._tell(update.unit, update.old, StubOrder.HAND_OVER, "it is being updated")
        self._enter(update, Step.HANDING_OVER, stop.drain_timeout_s + HAND_OVER_S)

    def on_handed_over(self, unit: Unit, run: Run, error: str | None) -> bool:
        """The old run has finished its requests and exported its state, or could not."""
        update = self._open.get(unit.name)
        if update is None or run is not update.old or update.step is not Step.HANDING_OVER:
            return False
        if error is not None:
            self._fail(update, error)
            return True
        self._tell(unit, update.other, StubOrder.IMPORT)
        self._tell(unit, update.other, StubOrder.START)
        self._enter(update, Step.STARTING, update.spec.ready_timeout_s)
        return True

    def _on_started(self, update: Update) -> None:
        if update.spec.ready in (ReadyKind.IMMEDIATE, ReadyKind.STARTED):
            self._switch(update)
            return
        self._cluster.out.append(AwaitReadiness(update.unit.name, update.other.invocation))
        self._enter(update, Step.PROBING)

    # ---- the switch --------------------------------------------------------------------------------------------------

    def _switch(self, update: Update) -> None:
        """From here on the successor is the service."""
        unit, cluster = update.unit, self._cluster
        old, new = update.old, update.other
        if unit.children:
            self._fail(update, HAS_CHILDREN)
            return
        try:
            change = self._apply.look_at(update.spec)
        except CoreError as error:  # what it depends on has changed meanwhile
            self._fail(update, str(error))
            return
        if unit.spec.health is not None:
            cluster.out.append(CeaseHealthChecks(unit.name, old.invocation))
        cluster.cancel(unit, TimerKind.WATCHDOG)
        self._disarm(update)
        new.borrowed, old.borrowed = old.borrowed, []
        new.running_since = cluster.at
        new.begun = True  # who comes back after a lost connection is not told to begin again
        unit.run, unit.last_invocation, update.other = new, new.invocation, old
        cluster.out.append(SwitchRun(unit.name, old.invocation, new.invocation))
        self._apply.replace(update.spec, change)
        self._enter(update, Step.RETIRING, unit.spec.stop.timeout_s)
        text = f"updated: pid {new.pid} has taken over from pid {old.pid}"
        cluster.out.append(PublishNotice(cluster.at, unit.name, text))
        if old.connected:
            self._tell(unit, old, StubOrder.STOP, REPLACED)
        elif old.pid is not None:
            cluster.out.append(SignalProcess(unit.name, old.invocation, unit.spec.stop.signal, group=True))

    # ---- the end of it -----------------------------------------------------------------------------------------------

    def _fail(self, update: Update, why: str, is_ending: bool = False) -> None:
        """The successor ends; the old run goes on as if nothing had happened. ``is_ending``: it does so by itself."""
        unit, run = update.unit, update.other
        update.failure = why
        if update.is_held:
            self._cluster.out.append(ReleaseRoutes(unit.name))
            if unit.run is update.old and not update.old.doomed and update.old.connected:
                self._tell(unit, update.old, StubOrder.GO_ON)
        self._enter(update, Step.ABANDONING, update.spec.stop.timeout_s)
        if is_ending:
            return
        if run.connected:
            self._tell(unit, run, StubOrder.STOP, GIVEN_UP)
        else:
            self._kill(update)

    def look(self, unit: Unit) -> None:
        """The unit's own run has changed: who loses it, or wants it to end, ends the update."""
        update = self._open.get(unit.name)
        if update is None or update.step not in BEFORE_THE_SWITCH:
            return
        if unit.run is not update.old or update.old.doomed or unit.state is not State.RUNNING:
            self._fail(update, f"superseded: {update.old.mark_text or unit.cause or unit.state.value}")
        elif unit.newest is not update.before:
            self._fail(update, "superseded by a change of its configuration")

    def hurry(self) -> None:
        """The cluster is in a hurry, or kills."""
        if self._cluster.level in (ShutdownLevel.NOW, ShutdownLevel.KILL):
            for update in tuple(self._open.values()):
                self._kill(update)

    def _on_timer(self, update: Update) -> bool:
        if not update.is_armed:
            return False
        update.is_armed = False
        unit = update.unit
        if update.step is Step.RETIRING:
            self._say_of_the_old(update, causes.killed_words(unit.spec.stop.timeout_s))
            self._kill(update)
        elif update.step is Step.ABANDONING:
            self._kill(update)
        elif update.step is Step.HANDING_OVER:
            seconds = causes.seconds(unit.spec.stop.drain_timeout_s + HAND_OVER_S)
            self._fail(update, f"it has not finished its requests, rested and exported its state within {seconds}")
        else:
            seconds = causes.seconds(update.spec.ready_timeout_s)
            self._fail(update, f"the new version was not ready within {seconds} ({update.step.value})")
        return True

    def _say_of_the_old(self, update: Update, text: str) -> None:
        """It is the service no longer: its end is in no other word of it."""
        said = f"the one before{'' if update.old.pid is None else f' (pid {update.old.pid})'} {text}"
        self._cluster.out.append(PublishNotice(self._cluster.at, update.unit.name, said))

    def _kill(self, update: Update) -> None:
        update.other.killed = True
        if update.other.pid is not None or update.other.leftovers:
            self._cluster.out.append(KillProcess(update.unit.name, update.other.invocation))

    def _on_exited(self, update: Update, event: events.ProcessExited) -> None:
        run = update.other
        run.exited, run.pid, run.leftovers = True, None, event.leftovers
        if update.step in BEFORE_THE_SWITCH:
            why = f"the new version ended ({update.step.value}): {causes.exit_words(event.status)}"
            self._fail(update, why, is_ending=True)
        if event.leftovers:
            self._kill(update)
        else:
            self._on_gone(update, "")

    def _on_gone(self, update: Update, why: str) -> None:
        """Nothing of the run beside is left."""
        if update.step in BEFORE_THE_SWITCH:
            self._fail(update, why, is_ending=True)
        unit, cluster = update.unit, self._cluster
        self._disarm(update)
        del self._open[unit.name]
        unit.updating = False
        cluster.live -= 1
        cluster.touch(unit)
        failed = update.step is Step.ABANDONING
        goes_on = failed and unit.run is update.old and not update.old.doomed
        if unit.state is State.RUNNING and not unit.doomed:
            cluster.say(unit, "ready" if not failed else f"ready; not updated: {update.failure}")
        text = f"cannot update {unit.name}: {update.failure}{f'; {SERVED}' if goes_on else ''}" if failed else ""
        outcome = Outcome.FAILED if failed else Outcome.DONE
        if failed:
            cluster.out.append(PublishNotice(cluster.at, unit.name, text))
        if update.request is not None:
            results = (ServiceResult(unit.name, outcome, text),)
            cluster.out.append(AnswerRequest(update.request, outcome, results, text=text))

    # ---- small parts -------------------------------------------------------------------------------------------------

    def _enter(self, update: Update, step: Step, timeout_s: float | None = None) -> None:
        """``timeout_s`` None: the time that runs holds for this step, too."""
        update.step = step
        if timeout_s is not None:
            update.is_armed = True
            self._cluster.out.append(ArmTimer(update.unit.name, update.other.invocation, TimerKind.UPDATE, timeout_s))
        if update.unit.state is State.RUNNING and not update.unit.doomed:
            self._cluster.say(update.unit, f"being updated: {step.value}")

    def _disarm(self, update: Update) -> None:
        if update.is_armed:
            update.is_armed = False
            self._cluster.out.append(CancelTimer(update.unit.name, TimerKind.UPDATE))

    def _tell(self, unit: Unit, run: Run, order: StubOrder, reason: str = "") -> None:
        self._cluster.out.append(TellStub(unit.name, run.invocation, order, reason))
