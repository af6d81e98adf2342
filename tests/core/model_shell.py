"""A shell for the machine in which processes are records: it carries out actions, and asserts what must hold whenever
one is carried out.

Must not decide what happens (``model_world`` does): it only refuses what no shell could do.
"""

from __future__ import annotations

from model_process import PHASES, Process, RunningHook

from svcd.supervisor.core import actions as act
from svcd.supervisor.core import events as ev
from svcd.supervisor.core.machine import Machine
from svcd.supervisor.core.spec import (
    Condition,
    Dependency,
    DependencyKind,
    Hook,
    ReadyKind,
    RestartMode,
    ServiceSpec,
    ServiceType,
)
from svcd.supervisor.core.states import State
from svcd.supervisor.core.transitions import TRANSITIONS
from svcd.supervisor.core.unit import Unit

TERM, STOP, CONT = 15, 19, 18
CONDEMNED = ("not ready", "unhealthy", "watchdog", "post_start")  # how the causes of those begin who go in any case
ENDED_BY_ITSELF = frozenset({State.BACKOFF, State.COMPLETED, State.FAILED, State.UNAVAILABLE})
ENDED_BADLY = frozenset({State.FAILED, State.UNAVAILABLE})


class ModelShell:
    """The machine under test, and what a shell knows. ``specs``: in force; ``newest``: to come."""

    def __init__(self, specs: tuple[ServiceSpec, ...], max_parallel: int = 0) -> None:
        self.machine = Machine(max_parallel)
        self.max_parallel = max_parallel
        self.specs: dict[str, ServiceSpec] = {}
        self.newest: dict[str, ServiceSpec] = {}
        self.at = 100.0
        self.jitter = 0.0
        self.count = 0  # of events
        self.log: list[str] = []
        self.processes: dict[str, Process] = {}
        self.beside: dict[str, Process] = {}  # successors, and those that were replaced, until they have ended
        self.updates: dict[str, ServiceSpec] = {}
        self.hooks: list[RunningHook] = []
        self.listening: set[str] = set()
        self.timers: dict[tuple[str, ev.TimerKind], tuple[int, float]] = {}
        self.states: dict[str, State] = {}
        self.restarts: dict[str, list[float]] = {}
        self.up_at: dict[str, int] = {}  # number of the event when it last was up
        self.statuses: dict[str, ev.ExitStatus | None] = {}
        self.preloaded: set[str] = set()  # those whose last run began ahead of time
        self.asked: dict[str, str] = {}  # request -> verb
        self.asked_at: dict[str, int] = {}  # request -> number of the event
        self.before: dict[str, dict[str, int | None]] = {}  # request -> service -> its invocation then
        self.abandoned: set[str] = set()
        self.answers: dict[str, act.AnswerRequest] = {}
        self.ended: list[int] = []  # exit codes of the cluster
        self.made_by: dict[str, int | None] = {}  # child -> the run that has created it
        self.untold: set[str] = set()  # children that have ended by themselves within this event
        self.has_mourned = False  # an essential service was lost
        self.is_killing = False
        self.is_hurrying = False
        self._wished: dict[str, str] = {}
        self.enter(specs)
        self.tell(ev.ServicesRegistered(self.at, specs))

    def enter(self, specs: tuple[ServiceSpec, ...]) -> None:
        for spec in specs:
            self.newest[spec.name] = self.specs[spec.name] = spec
            self.states[spec.name] = State.UNLOADED
            self.restarts[spec.name] = []
            self.up_at[spec.name] = -1
            if spec.parent is not None and spec.parent in self.processes:
                self.made_by[spec.name] = self.processes[spec.parent].invocation

    def unit(self, name: str) -> Unit:
        return self.machine._cluster.units[name]

    def tell(self, event: ev.Event) -> list[act.Action]:
        self.count += 1
        self.log.append(f"{self.at:g} {event}")
        self._note_who_is_up()
        services = self.machine.services
        counts = {name: view.restarts for name, view in services.items()}
        self._wished = {name: view.desired for name, view in services.items()}
        actions = self.machine.handle(event)
        for action in actions:
            self.log.append(f"    {action}")
            getattr(self, f"do_{type(action).__name__}")(action)
        for name, view in services.items():
            self._compare_restarts(name, view.restarts - counts.get(name, 0))
        assert not self.untold, f"nobody tells the parent of {self.untold}"
        assert not self.has_mourned or self.machine.is_ending, "an essential service was lost, and nothing follows"
        for process in self.processes.values():
            stays = process.alive and process.is_frozen and process.is_asked_to_end and not process.is_killed
            assert not stays, f"{process.service} was told to stop, and cannot hear it"
        return actions

    def _note_who_is_up(self) -> None:
        for name, state in self.states.items():
            if state in (State.RUNNING, State.COMPLETED):
                self.up_at[name] = self.count

    # ---- processes ----

    def _process(self, service: str, invocation: int) -> Process:
        process = self.processes[service]
        if service in self.beside and self.beside[service].invocation == invocation:
            process = self.beside[service]
        assert process.invocation == invocation, "an order for a run that is over"
        return process

    def do_SpawnProcess(self, action: act.SpawnProcess) -> None:  # noqa: N802 - named after the action
        name = action.service
        old = self.processes.get(name)
        assert old is None or not old.lives, f"two live invocations of {name}"
        assert name not in self.beside, f"spawned while a replaced one of {name} lives"
        assert old is None or action.invocation > old.invocation
        assert not any(each.service == name and not each.is_killed for each in self.hooks), "spawned while a hook runs"
        run = self.unit(name).run
        assert run is not None
        self._note_preload(name)
        self._check_family(name)
        if not run.held and Hook.PRE_START not in run.hooks_done:  # else it was ready when the hook began
            self._check_requirements(name)
        self.processes[name] = Process(name, action.invocation, ahead=run.held)

    def _check_family(self, service: str) -> None:
        """A child begins while the run that has created it goes on, and a run begins without children."""
        parent = self.specs[service].parent
        if parent is not None:
            process = self.processes[parent]
            assert process.alive
            assert process.executed
            assert process.invocation == self.made_by[service], f"{service} is of an earlier run"
        assert not any(each.parent == service for each in self.specs.values()), f"{service} begins with children"

    def do_TellParent(self, action: act.TellParent) -> None:  # noqa: N802
        assert self._process(action.service, action.invocation).alive
        assert self.specs[action.child].parent == action.service
        assert (action.error is None) == (self.states[action.child] is State.COMPLETED)
        self.untold.discard(action.child)

    def _note_end(self, service: str, new: State) -> None:
        unit = self.machine._cluster.units.get(service)
        if new in ENDED_BY_ITSELF and unit is not None and unit.parent is not None and unit.parent.may_have_children:
            self.untold.add(service)

    def do_SpawnSuccessor(self, action: act.SpawnSuccessor) -> None:  # noqa: N802
        name = action.service
        assert name not in self.beside, f"three live invocations of {name}"
        assert self.processes[name].alive
        assert action.invocation > self.processes[name].invocation
        self.beside[name] = Process(name, action.invocation)

    def do_SwitchRun(self, action: act.SwitchRun) -> None:  # noqa: N802
        name = action.service
        old, new = self.processes[name], self.beside[name]
        assert (old.invocation, new.invocation) == (action.old, action.invocation)
        assert old.alive
        assert new.is_up
        assert new.has_started or new.executed
        self.processes[name], self.beside[name] = new, old
        self.newest[name] = self.updates[name]
        self.statuses[name] = None

    def do_HoldRoutes(self, action: act.HoldRoutes) -> None:  # noqa: N802
        assert self.states[action.service] is State.RUNNING

    def do_ReleaseRoutes(self, action: act.ReleaseRoutes) -> None:  # noqa: N802
        assert action.service in self.states

    def _note_preload(self, service: str) -> None:
        run = self.unit(service).run
        self.preloaded.discard(service)
        if run is not None and run.held:
            self.preloaded.add(service)

    def _check_requirements(self, service: str) -> None:
        assert self._wished.get(service, "up") == "up" or self.unit(service).desired == "up"
        for dependency in self.newest[service].dependencies:
            if dependency.kind is DependencyKind.REQUIRES:
                assert self.is_met(service, dependency), f"{service} spawned while {dependency.target} is not ready"

    def is_met(self, service: str, dependency: Dependency) -> bool:
        """Ready, or an instance beside it is, or its fallback."""
        group = dependency.group
        one_of = [each for each in self.newest[service].dependencies if group is not None and each.group == group]
        return any(self.is_ready(each) or self._is_covered(each) for each in (one_of or [dependency]))

    def _is_covered(self, dependency: Dependency) -> bool:
        name = dependency.target
        for _ in range(8):
            fallback = self.newest[name].fallback
            if fallback is None or self.states[name] not in ENDED_BADLY:
                break
            name = fallback
        process = self.processes.get(name)
        is_up = process is not None and process.is_up and self.states[name] is State.RUNNING
        return name != dependency.target and is_up and self._is_well(name, dependency)

    def is_ready(self, dependency: Dependency) -> bool:
        """By what the model knows, without looking into the machine."""
        process, state = self.processes.get(dependency.target), self.states[dependency.target]
        is_task = self.specs[dependency.target].type is ServiceType.TASK
        if state is State.COMPLETED:
            return is_task or dependency.condition is Condition.COMPLETED
        if dependency.condition is Condition.COMPLETED or (is_task and dependency.condition is not Condition.SPAWNED):
            return False
        if process is None or not process.is_up:
            return False
        if dependency.condition is Condition.SPAWNED:
            return process.executed
        return state is State.RUNNING and self._is_well(dependency.target, dependency)

    def _is_well(self, name: str, dependency: Dependency) -> bool:
        if dependency.condition is not Condition.HEALTHY or self.specs[name].health is None:
            return True
        return self.machine.services[name].healthy is True

    def do_TellStub(self, action: act.TellStub) -> None:  # noqa: N802
        process = self._process(action.service, action.invocation)
        assert process.connected, "nobody to tell"
        if action.order in (act.StubOrder.PAUSE, act.StubOrder.RESUME):
            assert process.pausing is None
            assert process.is_paused is (action.order is act.StubOrder.RESUME)
            process.pausing = action.order
            return
        if action.order in (act.StubOrder.HAND_OVER, act.StubOrder.GO_ON):
            assert process is self.processes[action.service], "told to the successor"
            process.is_handing_over = action.order is act.StubOrder.HAND_OVER
            return
        assert action.order not in process.told, "told twice"
        process.told.add(action.order)
        if action.order is act.StubOrder.STOP:
            if not process.is_stopping and process is self.processes[action.service]:
                self._check_stop_order(process)
            process.is_stopping = True
            process.is_asked_to_end = True
        else:
            process.to_reach.extend(PHASES[action.order])

    def do_AwaitReadiness(self, action: act.AwaitReadiness) -> None:  # noqa: N802
        process = self._process(action.service, action.invocation)
        assert not process.probes
        is_successor = self.beside.get(action.service) is process
        spec = (self.updates if is_successor else self.specs)[action.service]
        assert spec.ready not in (ReadyKind.IMMEDIATE, ReadyKind.STARTED)
        process.probes = True

    def do_SignalProcess(self, action: act.SignalProcess) -> None:  # noqa: N802
        process = self._process(action.service, action.invocation)
        assert process.born
        assert process.lives
        pause = self.specs[action.service].pause
        if not action.group:
            return
        if action.signal == TERM:
            if process.alive and not process.is_stopping and process is self.processes[action.service]:
                self._check_stop_order(process)
            process.is_asked_to_end = True
        elif action.signal in (pause.signal, pause.resume_signal):
            process.is_paused = action.signal == pause.signal
            process.is_frozen = action.signal == STOP
        assert action.signal != CONT or not process.is_frozen

    def do_KillProcess(self, action: act.KillProcess) -> None:  # noqa: N802
        process = self._process(action.service, action.invocation)
        assert process.born
        assert process.lives
        process.is_killed = True

    def _check_stop_order(self, process: Process) -> None:
        """Whoever relies on it has ended, unless it goes for what it did itself."""
        run = self.unit(process.service).run
        is_condemned = self.unit(process.service).cause.startswith((*CONDEMNED, "stops by itself"))
        if run is None or not run.from_outside or is_condemned or self.is_killing:
            return
        if process.invocation != run.invocation:  # it takes over, or was replaced: nobody relies on it
            return
        for other in self.processes.values():
            if other.lives and other is not process and self._relies(other, process.service):
                raise AssertionError(f"{process.service} told to stop before {other.service} ended")

    def _relies(self, process: Process, target: str) -> bool:
        run = self.unit(process.service).run
        if run is None or run.held:
            return False
        if self._is_lent(process, target):
            return False
        return any(
            each.target == target and each.kind is DependencyKind.REQUIRES and not self._has_another(process, each)
            for each in self.newest[process.service].dependencies
        )

    def _has_another(self, process: Process, dependency: Dependency) -> bool:
        """Whether another instance of the same service serves, or the fallback of one in its place."""
        if dependency.group is None:
            return False
        beside = [each for each in self.newest[process.service].dependencies if each.group == dependency.group]
        beside.remove(dependency)
        return any(
            self._is_lent(process, each.target) or (self.is_ready(each) and not self.unit(each.target).doomed)
            for each in beside
        )

    def _is_lent(self, process: Process, target: str) -> bool:
        """Whether this run relies on the fallback of the target."""
        run = self.unit(process.service).run
        return run is not None and any(
            edge.instead_of is not None and edge.instead_of.name == target for edge in run.borrowed
        )

    # ---- health, hooks, demand ----

    def do_CheckHealth(self, action: act.CheckHealth) -> None:  # noqa: N802
        process = self._process(action.service, action.invocation)
        assert not process.is_checked
        process.is_checked = True

    def do_CeaseHealthChecks(self, action: act.CeaseHealthChecks) -> None:  # noqa: N802
        self._process(action.service, action.invocation).is_checked = False

    def do_RunHook(self, action: act.RunHook) -> None:  # noqa: N802
        assert action.hook in self.specs[action.service].hooks
        assert action.cause
        if action.hook is Hook.ON_FAILURE:
            assert self.states[action.service] in ENDED_BADLY
            return
        others = [each for each in self.hooks if each.service == action.service and not each.is_killed]
        assert not others, "two hooks at the same time"
        run = self.unit(action.service).run
        assert run is not None
        process = self.processes.get(action.service)
        lives = process is not None and process.alive
        assert lives is (action.hook in (Hook.POST_START, Hook.PRE_STOP)), f"{action.hook} at the wrong moment"
        if action.hook is Hook.PRE_START:
            self._note_preload(action.service)
            if not run.held:
                self._check_requirements(action.service)
        self.hooks.append(RunningHook(action.service, action.invocation, action.hook))

    def do_KillHook(self, action: act.KillHook) -> None:  # noqa: N802
        for each in self.hooks:
            if (each.service, each.invocation, each.hook) == (action.service, action.invocation, action.hook):
                each.is_killed = True

    def do_AwaitDemand(self, action: act.AwaitDemand) -> None:  # noqa: N802
        assert action.service not in self.listening
        process = self.processes.get(action.service)
        assert process is None or not process.lives
        self.listening.add(action.service)

    def do_CeaseAwaitingDemand(self, action: act.CeaseAwaitingDemand) -> None:  # noqa: N802
        self.listening.remove(action.service)

    # ---- configuration ----

    def do_AdoptSpec(self, action: act.AdoptSpec) -> None:  # noqa: N802
        process = self.processes.get(action.service)
        assert process is None or not process.lives or not process.is_stale, "a process of the old configuration lives"
        old, new = self.specs[action.service], self.newest[action.service]
        self.specs[action.service] = new
        view = self.machine.services.get(action.service)
        if old.restart.intensity != new.restart.intensity and view is not None:
            known = self.unit(action.service).record.times  # what lay outside the old window may be forgotten
            self.restarts[action.service] = [each for each in self.restarts[action.service] if each in known]

    def do_ForgetService(self, action: act.ForgetService) -> None:  # noqa: N802
        process = self.processes.pop(action.service, None)
        assert process is None or not process.lives
        assert action.service not in self.beside
        assert action.service not in self.listening
        assert not any(name == action.service for name, _ in self.timers)
        for known in (self.specs, self.newest, self.states, self.restarts, self.up_at):
            del known[action.service]  # type: ignore[attr-defined]  # dictionaries of different values

    # ---- timers ----

    def do_ArmTimer(self, action: act.ArmTimer) -> None:  # noqa: N802
        assert action.delay_s >= 0
        self.timers[action.service, action.kind] = (action.invocation, self.at + action.delay_s)

    def do_CancelTimer(self, action: act.CancelTimer) -> None:  # noqa: N802
        assert (action.service, action.kind) in self.timers, "a timer that was not armed"
        del self.timers[action.service, action.kind]

    # ---- what is told ----

    def do_PublishTransition(self, action: act.PublishTransition) -> None:  # noqa: N802
        assert action.old is self.states[action.service], "a transition from another state than the last"
        assert action.new in TRANSITIONS[action.old]
        assert action.cause
        assert action.spent_s >= 0
        transaction = self.machine.change(action.transaction)
        assert transaction is not None
        assert action in transaction.steps or transaction.omitted
        self.states[action.service] = action.new
        self._note_end(action.service, action.new)
        if action.new in (State.RUNNING, State.COMPLETED):
            self.up_at[action.service] = self.count
        if action.new in (State.DRAINING, State.STOPPING):
            self._note_stop(action.service)
            self._check_drain(action.service, action.old, action.new)
        self._check_fate(action.service, action.new)

    def _check_drain(self, service: str, old: State, new: State) -> None:
        """Who takes requests is drained before it is stopped, unless it cannot hear, or nobody has the time."""
        process, run = self.processes.get(service), self.unit(service).run
        if process is None or run is None:
            return
        assert new is not State.DRAINING or (process.has_endpoint and process.connected)
        hears = (
            process.connected and process.alive and not (process.is_ending or process.is_frozen or process.is_killed)
        )
        is_asked = run.from_outside and not (run.exited or self.is_hurrying)
        if new is State.STOPPING and old in (State.RUNNING, State.PAUSED) and is_asked and hears:
            assert not process.has_endpoint, f"{service} is stopped without a drain"

    def _note_stop(self, service: str) -> None:
        """Its order may come later, after its birth or a hook: what counts is who relies on it now."""
        process = self.processes.get(service)
        if process is not None and process.alive and not (process.is_asked_to_end or process.is_stopping):
            self._check_stop_order(process)
            process.is_stopping = True

    def _check_fate(self, service: str, state: State) -> None:
        """Where a run's end leads must agree with how it ended."""
        policy = self.specs[service].restart
        is_ahead = service in self.preloaded and self._wished[service] == "down"
        if state is State.UNAVAILABLE:
            limit = policy.intensity.restarts
            assert limit is not None
            assert self._restarts_in_window(service) >= limit, "given up before the intensity was reached"
        elif state is State.FAILED:
            modes = {policy.mode, *(mode for _, mode in policy.by_cause)}
            may_fail = RestartMode.NEVER in modes or bool(policy.prevent_codes)
            assert is_ahead or may_fail, "failed though its policy restarts it"
        elif state is State.COMPLETED:
            assert self.statuses[service] == ev.ExitStatus(code=0), "completed though it crashed"
        if state in ENDED_BADLY and self.specs[service].essential and not is_ahead:
            self.has_mourned = True

    def _restarts_in_window(self, service: str) -> int:
        within_s = self.specs[service].restart.intensity.within_s
        return sum(1 for each in self.restarts[service] if self.at - within_s < each <= self.at)

    def _compare_restarts(self, service: str, more: int) -> None:
        limit = self.specs[service].restart.intensity.restarts
        if more < 0:
            self.restarts[service].clear()
        elif more > 0 and limit is not None:
            self.restarts[service].append(self.at)
            assert self._restarts_in_window(service) <= limit, "restarted more often than its intensity"

    def do_PublishNotice(self, action: act.PublishNotice) -> None:  # noqa: N802
        assert action.text

    def do_AnswerRequest(self, action: act.AnswerRequest) -> None:  # noqa: N802
        assert action.request in self.asked
        assert action.request not in self.answers, "answered twice"
        assert action.request not in self.abandoned, "answered though nobody waits"
        for result in action.results:
            is_done = result.outcome is act.Outcome.DONE
            assert is_done == (not result.text), "a reason for success, or none for failure"
            if is_done and len(action.results) == 1 and result.service in self.states:
                self._check_done(action.request, result.service)
        self.answers[action.request] = action

    def _check_done(self, request: str, service: str) -> None:
        verb, view = self.asked[request], self.machine.services.get(service)
        assert view is not None
        if verb in ("start", "restart", "restart, rolling"):
            assert self.up_at[service] >= self.asked_at[request]
        if verb in ("restart", "restart, rolling"):
            assert view.invocation != self.before[request][service], "done without a restart"
        if verb == "update":
            assert view.invocation != self.before[request][service], "done without a successor"
        if verb in ("stop", "stop, unneeded"):
            assert service not in self.beside
            assert view.desired == "down"
            assert service not in self.processes or not self.processes[service].lives
        if verb in ("pause", "resume"):
            assert view.state is (State.PAUSED if verb == "pause" else State.RUNNING)

    def do_EndCluster(self, action: act.EndCluster) -> None:  # noqa: N802
        assert not self.ended
        assert action.exit_code == (1 if self.has_mourned else 0)
        assert not self.beside, "ended while a replaced one lives"
        assert not any(process.lives for process in self.processes.values()), "ended while something lives"
        self.ended.append(action.exit_code)
