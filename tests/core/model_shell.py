"""A shell for the machine in which processes are records: it carries out actions, and knows what may happen next.

Must not decide what happens: whoever holds it picks from ``possible()``; it only refuses what no shell could do, and
asserts what must hold whenever an action is carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

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
    Runner,
    ServiceSpec,
    ServiceType,
    StartMode,
)
from svcd.supervisor.core.states import State
from svcd.supervisor.core.transitions import TRANSITIONS

TERM = 15
KILL = 9


@dataclass(slots=True, eq=False)
class Process:
    """What the model knows of one invocation. ``alive``: the main process; ``leftovers``: what it left behind."""

    service: str
    invocation: int
    born: bool = False
    executed: bool = False
    alive: bool = True
    leftovers: bool = False
    connected: bool = False
    orders: list[act.StubOrder] = field(default_factory=list)
    phase: ev.StubPhase | None = None
    is_asked_to_end: bool = False
    is_killed: bool = False
    probes: bool = False
    probed: bool = False
    status: ev.ExitStatus | None = None
    ahead: bool = False  # loaded ahead of time
    is_checked: bool = False  # its health is
    is_pausing: bool | None = None  # the stub was told to pause (True) or to resume (False)
    is_paused: bool = False

    @property
    def lives(self) -> bool:
        return self.alive or self.leftovers


@dataclass(slots=True, eq=False)
class RunningHook:
    service: str
    invocation: int
    hook: Hook
    is_killed: bool = False


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that may happen now. ``kind`` says what; ``is_kind`` whether a well-meaning world would do it."""

    kind: str
    service: str
    is_kind: bool
    happen: Callable[[], None] = field(repr=False)


CONDEMNED = ("not ready", "unhealthy", "watchdog", "post_start")  # how the causes of those begin who go in any case
PHASES = {
    act.StubOrder.LOAD: (ev.StubPhase.LOADED,),
    act.StubOrder.INIT: (ev.StubPhase.INITIALIZED,),
    act.StubOrder.START: (ev.StubPhase.STARTING, ev.StubPhase.RUNNING),
}
ORDER = [
    ev.StubPhase.LOADED,
    ev.StubPhase.INITIALIZED,
    ev.StubPhase.STARTING,
    ev.StubPhase.RUNNING,
    ev.StubPhase.STOPPING,
]


class ModelShell:
    """The machine under test with a world around it."""

    def __init__(self, specs: tuple[ServiceSpec, ...], max_parallel: int = 0) -> None:
        self.machine = Machine(max_parallel)
        self.max_parallel = max_parallel
        self.specs = {spec.name: spec for spec in specs}  # in force
        self.newest = dict(self.specs)
        self.hooks: list[RunningHook] = []
        self.listening: set[str] = set()
        self.at = 100.0
        self.jitter = 0.0
        self.processes: dict[str, Process] = {}
        self.late: list[ev.Event] = []  # facts that were overtaken by others
        self.timers: dict[tuple[str, ev.TimerKind], tuple[int, float]] = {}
        self.states = dict.fromkeys(self.specs, State.UNLOADED)
        self.restarts: dict[str, list[float]] = {name: [] for name in self.specs}
        self.asked: dict[str, str] = {}  # request -> verb
        self.asked_at: dict[str, int] = {}  # request -> number of the event
        self.up_at: dict[str, int] = dict.fromkeys(self.specs, -1)  # number of the event when it last was up
        self.count = 0
        self.abandoned: set[str] = set()
        self.answers: dict[str, act.AnswerRequest] = {}
        self.ended = 0
        self.preloaded: set[str] = set()  # those whose last run began ahead of time
        self.is_killing = False
        self.next_pid = 1000
        self.last_ending: dict[str, tuple[ev.ExitStatus | None, bool]] = {}
        self.tell(ev.ServicesRegistered(self.at, specs))

    # ---- telling ----

    def tell(self, event: ev.Event) -> list[act.Action]:
        self.count += 1
        for name, state in self.states.items():
            if state in (State.RUNNING, State.COMPLETED):
                self.up_at[name] = self.count
        counts = {name: view.restarts for name, view in self.machine.services.items()}
        actions = self.machine.handle(event)
        for action in actions:
            getattr(self, f"do_{type(action).__name__}")(action)
        for name, view in self.machine.services.items():
            if view.restarts > counts.get(name, 0):
                self._on_restart(name)
            elif view.restarts < counts.get(name, 0):
                self.restarts.setdefault(name, []).clear()
        return actions

    def ask(self, verb: str, services: tuple[str, ...] = (), signal: int = 1) -> str:
        request = f"r{len(self.asked)}"
        self.asked[request], self.asked_at[request] = verb, self.count + 1
        if verb in ("start", "restart", "restart, rolling"):
            for name in services or tuple(self.specs):
                self.restarts.setdefault(name, []).clear()
        if verb == "start":
            self.tell(ev.StartRequested(self.at, request, services))
        elif verb == "stop":
            self.tell(ev.StopRequested(self.at, request, services))
        elif verb == "restart":
            self.tell(ev.RestartRequested(self.at, request, services))
        elif verb == "restart, rolling":
            self.tell(ev.RestartRequested(self.at, request, services, rolling=True))
        elif verb == "stop, unneeded":
            self.tell(ev.StopRequested(self.at, request, services, unneeded=True))
        elif verb == "pause":
            self.tell(ev.PauseRequested(self.at, request, services))
        elif verb == "resume":
            self.tell(ev.ResumeRequested(self.at, request, services))
        elif verb == "signal":
            self.tell(ev.SignalRequested(self.at, request, services, signal))
        else:
            level = ev.ShutdownLevel[verb]
            self.is_killing = self.is_killing or level is ev.ShutdownLevel.KILL
            self.tell(ev.ShutdownRequested(self.at, request, level))
        return request

    def apply(
        self, added: tuple[ServiceSpec, ...], changed: tuple[ev.SpecChange, ...], removed: tuple[str, ...]
    ) -> str:
        """A change of configuration, which may be refused."""
        request = f"r{len(self.asked)}"
        self.asked[request], self.asked_at[request] = "apply", self.count + 1
        event = ev.ConfigurationApplied(self.at, request, added, changed, removed)
        before = set(self.machine.services)
        for each in changed:
            self.newest[each.spec.name] = each.spec
        for spec in added:
            self.newest[spec.name] = self.specs[spec.name] = spec
            self.states.setdefault(spec.name, State.UNLOADED)
            self.restarts.setdefault(spec.name, [])
            self.up_at.setdefault(spec.name, -1)
        old = {name: unit.newest for name, unit in self.machine._cluster.units.items()}
        self.tell(event)
        answer = self.answers.get(request)
        if answer is not None and answer.outcome is act.Outcome.REFUSED:
            assert set(self.machine.services) == before
            self.newest = {name: old.get(name, spec) for name, spec in self.newest.items()}
        return request

    def abandon(self, request: str) -> None:
        self.abandoned.add(request)
        self.tell(ev.RequestAbandoned(self.at, request))

    # ---- what may happen ----

    def possible(self) -> list[Happening]:
        found: list[Happening] = []
        for process in list(self.processes.values()):
            found.extend(self._of(process))
        for hook in self.hooks:
            bad = "killed" if hook.is_killed else "exit code 1"
            found.append(Happening(f"{hook.hook.value} ends", hook.service, True, partial(self._hook_ends, hook, None)))
            found.append(
                Happening(f"{hook.hook.value} fails", hook.service, False, partial(self._hook_ends, hook, bad))
            )
        for name, unit in self.machine.services.items():
            if name in self.listening:
                found.append(Happening("demand", name, False, partial(self._demand, name)))
            if unit.spec.scheduled:
                found.append(Happening("schedule", name, False, partial(self._schedule, name)))
            if unit.spec.start is StartMode.ON_DEMAND and unit.state is State.RUNNING:
                found.append(Happening("idle", name, False, partial(self._idle, name)))
        for event in self.late:
            found.append(Happening("late", getattr(event, "service", ""), True, partial(self._deliver_late, event)))
        return found

    def _of(self, process: Process) -> Iterator[Happening]:
        def can(kind: str, happen: Callable[[], None], is_kind: bool = True) -> Happening:
            return Happening(kind, process.service, is_kind, happen)

        if not process.born:
            yield can("born", partial(self._born, process))
            yield can("spawn fails", partial(self._spawn_fails, process), False)
            return
        if process.leftovers:
            is_kind = process.is_asked_to_end or process.is_killed
            yield can("leftovers gone", partial(self._leftovers_gone, process), is_kind)
        if not process.alive:
            return
        if process.is_killed:
            yield can("dies", partial(self._exits, process, ev.ExitStatus(signal=KILL), False))
            return
        yield from self._life_of(process, can)

    def _life_of(self, process: Process, can: Callable[..., Happening]) -> Iterator[Happening]:
        spec = self.specs[process.service]
        if process.is_checked:
            yield can("healthy", partial(self._checked, process, True), False)
            yield can("unhealthy", partial(self._checked, process, False), False)
        if process.executed and not process.is_asked_to_end:
            yield can("alive", partial(self._alive, process), False)
            yield can("triggers", partial(self._triggers, process), False)
            yield can("extends", partial(self._extends, process), False)
            yield can("announces its stop", partial(self._announces, process), False)
        if not process.executed:
            yield can("executed", partial(self._executed, process))
            yield can("exec fails", partial(self._spawn_fails, process), False)
        elif spec.runner is Runner.PYTHON:
            yield from self._stub_life_of(process, can)
        if process.probes and not process.probed:
            yield can("probed", partial(self._probed, process, True))
            yield can("probe fails", partial(self._probed, process, False), False)
        is_done = spec.type is ServiceType.TASK and process.executed and self._started(process)
        obeys = process.is_asked_to_end
        yield can("exits 0", partial(self._exits, process, ev.ExitStatus(code=0), False), is_done or obeys)
        for code in (0, 1):
            for leftovers in (False, True):
                status = ev.ExitStatus(code=code)
                yield can(f"exits {code}, {leftovers}", partial(self._exits, process, status, leftovers), False)
        yield can("crashes", partial(self._exits, process, ev.ExitStatus(signal=11), False), False)

    def _started(self, process: Process) -> bool:
        return self.specs[process.service].runner is Runner.PROGRAM or process.phase is ev.StubPhase.RUNNING

    def _stub_life_of(self, process: Process, can: Callable[..., Happening]) -> Iterator[Happening]:
        if not process.connected:
            yield can("connects", partial(self._connects, process))
            return
        if process.phase is ev.StubPhase.STOPPING:
            return
        if process.is_pausing is not None:
            yield can("pauses or resumes", partial(self._answers_pause, process, None))
            yield can("does not pause", partial(self._answers_pause, process, "RuntimeError: no"), False)
        if act.StubOrder.STOP in process.orders and (process.phase is not ev.StubPhase.STARTING):
            yield can("stops", partial(self._reports, process, ev.StubPhase.STOPPING, None))
        following = self._following(process)
        if following is not None:
            yield can("goes on", partial(self._reports, process, following, None))
        for error in (None, "ValueError: bad"):
            yield can(f"ends itself {error}", partial(self._reports, process, ev.StubPhase.STOPPING, error), False)
        yield can("loses its connection", partial(self._loses_connection, process), False)

    def _demand(self, service: str) -> None:
        self.listening.discard(service)
        self.restarts[service].clear()
        self.tell(ev.DemandArose(self.at, service, "somebody"))

    def _schedule(self, service: str) -> None:
        self.tell(ev.ScheduleFired(self.at, service))

    def _idle(self, service: str) -> None:
        self.tell(ev.IdleReached(self.at, service, self.machine.services[service].invocation or 0))

    def _hook_ends(self, hook: RunningHook, error: str | None) -> None:
        self.hooks.remove(hook)
        self.last_ending.setdefault(hook.service, (None, True))
        self.tell(ev.HookEnded(self.at, hook.service, hook.invocation, hook.hook, error, self.jitter))

    def _checked(self, process: Process, healthy: bool) -> None:
        self.tell(ev.HealthChecked(self.at, process.service, process.invocation, healthy, "" if healthy else "no"))

    def _alive(self, process: Process) -> None:
        self.tell(ev.WatchdogPinged(self.at, process.service, process.invocation))

    def _triggers(self, process: Process) -> None:
        self.tell(ev.WatchdogTriggered(self.at, process.service, process.invocation))

    def _extends(self, process: Process) -> None:
        self.tell(ev.TimeoutExtended(self.at, process.service, process.invocation, 20.0))

    def _announces(self, process: Process) -> None:
        self.tell(ev.StopAnnounced(self.at, process.service, process.invocation))

    def _answers_pause(self, process: Process, error: str | None) -> None:
        wanted, process.is_pausing = process.is_pausing, None
        if error is None:
            process.is_paused = bool(wanted)
        phase = ev.StubPhase.PAUSED if process.is_paused else ev.StubPhase.RUNNING
        self.tell(ev.StubReported(self.at, process.service, process.invocation, phase, error))

    def _following(self, process: Process) -> ev.StubPhase | None:
        told = [phase for order in process.orders for phase in PHASES.get(order, ())]
        index = 0 if process.phase is None else ORDER.index(process.phase) + 1
        return told[index] if index < len(told) else None

    def _deliver_late(self, event: ev.Event) -> None:
        self.late.remove(event)
        self.tell(event)

    def _born(self, process: Process) -> None:
        process.born = True
        self.next_pid += 1
        self.tell(ev.ProcessSpawned(self.at, process.service, process.invocation, self.next_pid))

    def _spawn_fails(self, process: Process) -> None:
        process.alive = False
        self.last_ending[process.service] = (None, True)
        self.tell(ev.SpawnFailed(self.at, process.service, process.invocation, "no such file", self.jitter))

    def _executed(self, process: Process) -> None:
        process.executed = True
        self.tell(ev.ProgramExecuted(self.at, process.service, process.invocation))

    def _connects(self, process: Process) -> None:
        process.connected = True
        self.tell(ev.StubConnected(self.at, process.service, process.invocation))

    def _loses_connection(self, process: Process) -> None:
        process.phase = ev.StubPhase.STOPPING  # nothing is heard of it any more
        process.orders.clear()
        self.tell(ev.ConnectionLost(self.at, process.service, process.invocation))

    def _reports(self, process: Process, phase: ev.StubPhase, error: str | None) -> None:
        process.phase = phase
        if phase is ev.StubPhase.STOPPING:
            process.is_asked_to_end = True  # by itself: it will end
            process.probes = False
        self.tell(ev.StubReported(self.at, process.service, process.invocation, phase, error))

    def _probed(self, process: Process, ok: bool) -> None:
        process.probed = True
        if ok:
            self.tell(ev.ReadinessReached(self.at, process.service, process.invocation))
        else:
            self.tell(ev.ReadinessFailed(self.at, process.service, process.invocation, "it says no"))

    def _exits(self, process: Process, status: ev.ExitStatus, leftovers: bool) -> None:
        process.alive, process.leftovers, process.status = False, leftovers, status
        if not process.executed:
            self.late.append(ev.ProgramExecuted(self.at, process.service, process.invocation))
        self.last_ending[process.service] = (status, False)
        self.tell(ev.ProcessExited(self.at, process.service, process.invocation, status, leftovers, self.jitter))

    def _leftovers_gone(self, process: Process) -> None:
        process.leftovers = False
        self.tell(ev.LeftoversGone(self.at, process.service, process.invocation, self.jitter))

    # ---- time ----

    def earliest(self, watchdogs: bool = True) -> tuple[str, ev.TimerKind] | None:
        keys = [key for key in self.timers if watchdogs or key[1] is not ev.TimerKind.WATCHDOG]
        return min(keys, key=lambda key: self.timers[key][1], default=None)

    def fire(self, watchdogs: bool = True) -> None:
        """The next timer runs out."""
        key = self.earliest(watchdogs)
        assert key is not None
        invocation, due = self.timers.pop(key)
        self.at = max(self.at, due)
        self.tell(ev.TimerFired(self.at, key[0], invocation, key[1], self.jitter))

    def wait(self, seconds: float) -> None:
        """Time passes, but not beyond the next timer."""
        key = self.earliest()
        self.at = self.at + seconds if key is None else min(self.at + seconds, max(self.at, self.timers[key][1]))

    def come_to_rest(self, limit: int = 5000) -> None:
        """A well-meaning world from here on: starts succeed, what is told to end ends, nobody falls silent."""
        for _ in range(limit):
            kind = next((each for each in self.possible() if each.is_kind), None)
            if kind is not None:
                kind.happen()
            elif self.earliest(watchdogs=False):
                self.fire(watchdogs=False)
            else:
                return
        raise AssertionError("it does not come to rest")

    # ---- carrying out, and what must hold then ----

    def _process(self, service: str, invocation: int) -> Process:
        process = self.processes[service]
        assert process.invocation == invocation, "an order for a run that is over"
        return process

    def do_SpawnProcess(self, action: act.SpawnProcess) -> None:  # noqa: N802 - named after the action
        old = self.processes.get(action.service)
        assert old is None or not old.lives, f"two live invocations of {action.service}"
        assert old is None or action.invocation > old.invocation
        unit = self.machine._cluster.units[action.service]
        assert unit.run is not None
        self.preloaded.discard(action.service)
        if unit.run.held:
            self.preloaded.add(action.service)
            self.processes[action.service] = Process(action.service, action.invocation, ahead=True)
            return
        assert unit.desired == "up" or unit.run.hook is None
        hooks = [each for each in self.hooks if each.service == action.service and not each.is_killed]
        assert not hooks, "spawned while a hook runs"
        if Hook.PRE_START not in self.specs[action.service].hooks:  # else it was ready when the hook began
            self._check_requirements(action.service)
        self.processes[action.service] = Process(action.service, action.invocation)

    def _check_requirements(self, service: str) -> None:
        for dependency in self.newest[service].dependencies:
            if dependency.kind is DependencyKind.REQUIRES:
                assert self.is_met(service, dependency), f"{service} spawned while {dependency.target} is not ready"

    def is_met(self, service: str, dependency: Dependency) -> bool:
        """Ready, or an instance beside it is, or its fallback."""
        group = [
            each
            for each in self.newest[service].dependencies
            if each.group is not None and each.group == dependency.group
        ]
        return any(map(self.is_ready, [dependency, *group])) or self.is_covered(dependency)

    def is_covered(self, dependency: Dependency) -> bool:
        name = dependency.target
        for _ in range(8):
            fallback = self.newest[name].fallback
            if fallback is None or self.states[name] not in (State.FAILED, State.UNAVAILABLE):
                break
            name = fallback
        process = self.processes.get(name)
        ending = process is None or process.is_asked_to_end or process.is_killed or not process.alive
        return name != dependency.target and self.states[name] is State.RUNNING and not ending

    def is_ready(self, dependency: Dependency) -> bool:
        """By what the model knows, without looking into the machine."""
        process, state = self.processes.get(dependency.target), self.states[dependency.target]
        is_task = self.specs[dependency.target].type is ServiceType.TASK
        if dependency.condition is Condition.COMPLETED or (is_task and dependency.condition is not Condition.SPAWNED):
            return state is State.COMPLETED
        if is_task and state is State.COMPLETED:
            return True
        if process is None or not process.alive or process.is_asked_to_end or process.is_killed:
            return False
        if dependency.condition is Condition.SPAWNED:
            return process.executed
        if dependency.condition is Condition.HEALTHY and self.specs[dependency.target].health is not None:
            return state is State.RUNNING and self.machine.services[dependency.target].healthy is True
        return state is State.RUNNING

    def do_TellStub(self, action: act.TellStub) -> None:  # noqa: N802
        process = self._process(action.service, action.invocation)
        assert process.connected, "nobody to tell"
        if action.order in (act.StubOrder.PAUSE, act.StubOrder.RESUME):
            assert process.is_pausing is None
            process.is_pausing = action.order is act.StubOrder.PAUSE
            return
        assert action.order not in process.orders, "told twice"
        if action.order is act.StubOrder.STOP:
            self._check_stop_order(process)
            process.is_asked_to_end = True
        process.orders.append(action.order)

    def do_AwaitReadiness(self, action: act.AwaitReadiness) -> None:  # noqa: N802
        process = self._process(action.service, action.invocation)
        assert not process.probes
        assert self.specs[action.service].ready not in (ReadyKind.IMMEDIATE, ReadyKind.STARTED)
        process.probes = True

    def do_SignalProcess(self, action: act.SignalProcess) -> None:  # noqa: N802
        process = self._process(action.service, action.invocation)
        assert process.born
        assert process.lives
        if action.group and action.signal == TERM:
            if process.alive:
                self._check_stop_order(process)
            process.is_asked_to_end = True

    def _check_stop_order(self, process: Process) -> None:
        """Whoever requires it has ended, but for a run that has failed to start and goes in any case."""
        unit = self.machine._cluster.units[process.service]
        if unit.cause.startswith(CONDEMNED) or self.is_killing:
            return
        stood_in = {edge.dependent.name for edge in unit.stood_in}
        for name, spec in self.newest.items():
            for dependency in spec.dependencies:
                if dependency.target == process.service and dependency.kind is DependencyKind.REQUIRES:
                    if name in stood_in or self._has_sibling(name, dependency):
                        continue
                    other = self.processes.get(name)
                    leans = other is not None and not (other.ahead and act.StubOrder.START not in other.orders)
                    assert not leans or not other.lives, f"{process.service} told to stop before {name} ended"

    def _has_sibling(self, service: str, dependency: Dependency) -> bool:
        """Whether the dependent can do without this one: another instance serves."""
        if dependency.group is None:
            return False
        targets = [each.target for each in self.newest[service].dependencies if each.group == dependency.group]
        units = self.machine._cluster.units
        return any(units[each].serving for each in targets if each != dependency.target and each in units)

    def do_CheckHealth(self, action: act.CheckHealth) -> None:  # noqa: N802
        process = self._process(action.service, action.invocation)
        assert not process.is_checked
        process.is_checked = True

    def do_CeaseHealthChecks(self, action: act.CeaseHealthChecks) -> None:  # noqa: N802
        self._process(action.service, action.invocation).is_checked = False

    def do_RunHook(self, action: act.RunHook) -> None:  # noqa: N802
        if action.hook is Hook.ON_FAILURE:
            assert self.states[action.service] in (State.FAILED, State.UNAVAILABLE)
            return
        assert action.hook in self.specs[action.service].hooks
        others = [each for each in self.hooks if each.service == action.service and not each.is_killed]
        assert not others, "two hooks at the same time"
        if action.hook is Hook.PRE_START:
            held = self.machine._cluster.units[action.service].run
            if held is not None and not held.held:
                self._check_requirements(action.service)
        if action.hook is Hook.POST_STOP:
            process = self.processes.get(action.service)
            assert process is None or process.invocation < action.invocation or not process.lives
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
        self.listening.discard(action.service)

    def do_AdoptSpec(self, action: act.AdoptSpec) -> None:  # noqa: N802
        self.specs[action.service] = self.newest[action.service]

    def do_ForgetService(self, action: act.ForgetService) -> None:  # noqa: N802
        process = self.processes.pop(action.service, None)
        assert process is None or not process.lives
        for known in (self.specs, self.newest, self.states, self.restarts, self.up_at):
            known.pop(action.service, None)  # type: ignore[attr-defined]
        self.listening.discard(action.service)

    def do_KillProcess(self, action: act.KillProcess) -> None:  # noqa: N802
        process = self._process(action.service, action.invocation)
        assert process.born
        assert process.lives
        process.is_killed = True

    def do_ArmTimer(self, action: act.ArmTimer) -> None:  # noqa: N802
        assert action.delay_s >= 0
        self.timers[action.service, action.kind] = (action.invocation, self.at + action.delay_s)

    def do_CancelTimer(self, action: act.CancelTimer) -> None:  # noqa: N802
        assert (action.service, action.kind) in self.timers, "a timer that was not armed"
        del self.timers[action.service, action.kind]

    def do_PublishTransition(self, action: act.PublishTransition) -> None:  # noqa: N802
        assert action.old is self.states[action.service], "a transition from another state than the last"
        assert action.new in TRANSITIONS[action.old]
        assert action.cause
        assert action.spent_s >= 0
        self.states[action.service] = action.new
        if action.new in (State.RUNNING, State.COMPLETED):
            self.up_at[action.service] = self.count
        self._check_fate(action)

    def _check_fate(self, action: act.PublishTransition) -> None:
        """Where a run's end leads must agree with how it ended."""
        policy = self.specs[action.service].restart
        if action.new is State.UNAVAILABLE:
            limit = policy.intensity.restarts
            assert limit is not None
            assert self._restarts_in_window(action.service) >= limit, "given up before the intensity was reached"
        elif action.new is State.FAILED:
            ahead = action.service in self.preloaded
            assert ahead or policy.mode is RestartMode.NEVER, "failed though its policy restarts it"
        elif action.new is State.COMPLETED:
            status, _ = self.last_ending[action.service]
            assert status == ev.ExitStatus(code=0), "completed though it crashed"

    def _restarts_in_window(self, service: str) -> int:
        within_s = self.specs[service].restart.intensity.within_s
        return sum(1 for each in self.restarts[service] if self.at - within_s < each <= self.at)

    def _on_restart(self, service: str) -> None:
        self.restarts[service].append(self.at)
        limit = self.specs[service].restart.intensity.restarts
        assert limit is None or self._restarts_in_window(service) <= limit, "restarted more often than its intensity"

    def do_PublishNotice(self, action: act.PublishNotice) -> None:  # noqa: N802
        assert action.text

    def do_AnswerRequest(self, action: act.AnswerRequest) -> None:  # noqa: N802
        assert action.request in self.asked
        assert action.request not in self.answers, "answered twice"
        assert action.request not in self.abandoned, "answered though nobody waits"
        for result in action.results:
            assert (result.outcome is act.Outcome.DONE) == (not result.text), (
                "a reason for success, or none for failure"
            )
            if result.outcome is act.Outcome.DONE and self.asked[action.request] in ("start", "restart"):
                assert self.up_at.get(result.service, self.count) >= self.asked_at[action.request]
        self.answers[action.request] = action

    def do_EndCluster(self, action: act.EndCluster) -> None:  # noqa: N802
        self.ended += 1
        assert self.ended == 1
        assert not any(process.lives for process in self.processes.values()), "ended while something lives"
