"""The world around the model shell: what people ask, what may happen next, how time passes.

Must not choose: whoever holds it picks from ``possible()``, and ``come_to_rest`` takes what a well-meaning world does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from model_process import Happening, Process, RunningHook
from model_shell import ModelShell

from svcd.supervisor.core import actions as act
from svcd.supervisor.core import events as ev
from svcd.supervisor.core.errors import CoreError
from svcd.supervisor.core.preview import Step
from svcd.supervisor.core.spec import Runner, ServiceSpec, ServiceType, StartMode
from svcd.supervisor.core.states import State

Can = Callable[..., Happening]
KILLED = ev.ExitStatus(signal=9)
ASKS: dict[str, Callable[[float, str, tuple[str, ...]], ev.Event]] = {
    "start": ev.StartRequested,
    "stop": ev.StopRequested,
    "stop, unneeded": partial(ev.StopRequested, unneeded=True),
    "restart": ev.RestartRequested,
    "restart, rolling": partial(ev.RestartRequested, rolling=True),
    "pause": ev.PauseRequested,
    "resume": ev.ResumeRequested,
    "signal": partial(ev.SignalRequested, signal=1),
}


class ModelWorld(ModelShell):
    def __init__(self, specs: tuple[ServiceSpec, ...], max_parallel: int = 0) -> None:
        self.late: list[ev.Event] = []  # facts that were overtaken by others
        self.next_pid = 1000
        self.dismissed: set[str] = set()  # removed by a change of configuration
        super().__init__(specs, max_parallel)

    # ---- what people do ----

    def _request(self, verb: str) -> str:
        request = f"r{len(self.asked)}"
        self.asked[request], self.asked_at[request] = verb, self.count + 1
        self.before[request] = {name: view.invocation for name, view in self.machine.services.items()}
        return request

    def ask(self, verb: str, services: tuple[str, ...] = ()) -> str:
        request = self._request(verb)
        self.tell(ASKS[verb](self.at, request, services))
        return request

    def update(self, spec: ServiceSpec, forced: bool) -> None:
        request = self._request("update")
        if spec.name not in self.beside:
            self.updates[spec.name] = spec
        self.tell(ev.UpdateRequested(self.at, request, spec, forced))

    def shut_down(self, level: ev.ShutdownLevel) -> None:
        request = self._request("shutdown")
        self.is_killing = self.is_killing or level is ev.ShutdownLevel.KILL
        self.is_hurrying = self.is_hurrying or level is not ev.ShutdownLevel.DRAIN
        self.tell(ev.ShutdownRequested(self.at, request, level))

    def abandon(self, request: str) -> None:
        self.abandoned.add(request)
        self.tell(ev.RequestAbandoned(self.at, request))

    def register(self, spec: ServiceSpec) -> None:
        if spec.name not in self.specs:
            self.enter((spec,))
        try:
            self.tell(ev.ServicesRegistered(self.at, (spec,)))
        except CoreError:
            if spec.name not in self.machine.services:
                for known in (self.specs, self.newest, self.states, self.restarts, self.up_at):
                    del known[spec.name]  # type: ignore[attr-defined]  # dictionaries of different values

    def apply(
        self,
        added: tuple[ServiceSpec, ...] = (),
        changed: tuple[ev.SpecChange, ...] = (),
        removed: tuple[str, ...] = (),
        start: tuple[str, ...] = (),
    ) -> tuple[Step, ...] | None:
        """A change of configuration; returns what its preview said, or None if it was refused."""
        request = self._request("apply")
        event = ev.ConfigurationApplied(self.at, request, added, changed, removed, start)
        known = (self.specs, self.newest, self.states, self.restarts, self.up_at)
        kept = [dict(each) for each in known]  # type: ignore[call-overload]  # dictionaries of different values
        steps = self._preview(event)
        self.enter(tuple(each for each in added if each.name not in self.specs))
        for each in changed:
            self.newest[each.spec.name] = each.spec
            process = self.processes.get(each.spec.name)
            is_taken = steps is not None and not self.machine.is_ending
            if process is not None and process.lives and each.needs_restart and is_taken:
                process.is_stale = True
        self.tell(event)
        answer = self.answers.get(request)
        if answer is None or answer.outcome is not act.Outcome.REFUSED:
            assert steps is not None, "applied, though its preview was refused"
            self.dismissed.update(removed)
            return steps
        for each, before in zip(known, kept, strict=True):
            each.clear()  # type: ignore[attr-defined]
            each.update(before)  # type: ignore[attr-defined]
        assert steps is None or self.machine.is_ending
        assert set(self.machine.services) == set(self.specs)
        return None

    def _preview(self, event: ev.ConfigurationApplied) -> tuple[Step, ...] | None:
        names = {*(each.spec.name for each in event.changed), *event.removed}
        if not names <= set(self.machine.services):
            return None
        try:
            return self.machine.preview(event)
        except CoreError:
            return None

    # ---- what may happen ----

    def possible(self) -> list[Happening]:
        found: list[Happening] = []
        for process in (*self.processes.values(), *self.beside.values()):
            found.extend(self._of(process))
        for hook in self.hooks:
            found.extend(self._of_hook(hook))
        for name, unit in self.machine.services.items():
            found.extend(self._calls_for(name, unit.spec, unit.state))
        for event in self.late:
            found.append(Happening("late", getattr(event, "service", ""), True, partial(self._deliver_late, event)))
        return found

    def _calls_for(self, name: str, spec: ServiceSpec, state: State) -> Iterator[Happening]:
        if name in self.listening:
            yield Happening("demand", name, False, partial(self._demand, name))
        if spec.scheduled:
            yield Happening("schedule", name, False, partial(self._schedule, name))
        if spec.start is StartMode.ON_DEMAND and state is State.RUNNING:
            yield Happening("idle", name, False, partial(self._idle, name))

    def _of_hook(self, hook: RunningHook) -> Iterator[Happening]:
        bad = "killed" if hook.is_killed else "exit code 1"
        yield Happening(f"{hook.hook.value} ends", hook.service, True, partial(self._hook_ends, hook, None))
        yield Happening(f"{hook.hook.value} fails", hook.service, False, partial(self._hook_ends, hook, bad))

    def _of(self, process: Process) -> Iterator[Happening]:
        def can(kind: str, happen: Callable[[], None], is_kind: bool = True) -> Happening:
            return Happening(kind, process.service, is_kind, happen)

        if process.alive and not process.born:
            yield can("born", partial(self._born, process))
            yield can("spawn fails", partial(self._spawn_fails, process), False)
        elif process.leftovers:
            is_kind = process.is_asked_to_end or process.is_killed
            yield can("leftovers gone", partial(self._leftovers_gone, process), is_kind)
        elif process.alive and process.is_killed:
            yield can("dies", partial(self._exits, process, KILLED, False))
            yield can("dies, not all of it", partial(self._exits, process, KILLED, True), False)
        elif process.alive:
            yield from self._ends_of(process, can)
            if not process.is_frozen:
                yield from self._life_of(process, can)

    def _ends_of(self, process: Process, can: Can) -> Iterator[Happening]:
        yield can("crashes", partial(self._exits, process, ev.ExitStatus(signal=11), False), False)
        if process.is_frozen:
            return
        is_task = self.specs[process.service].type is ServiceType.TASK
        is_done = is_task and process.executed and (process.has_started or not self._is_python(process))
        obeys = process.is_asked_to_end or is_done
        yield can("exits 0", partial(self._exits, process, ev.ExitStatus(code=0), False), obeys)
        for code in (0, 1):
            for leftovers in (False, True):
                status = ev.ExitStatus(code=code)
                yield can(f"exits {code}, {leftovers}", partial(self._exits, process, status, leftovers), False)

    def _is_python(self, process: Process) -> bool:
        return self.specs[process.service].runner is Runner.PYTHON

    def _life_of(self, process: Process, can: Can) -> Iterator[Happening]:
        if process.is_checked:
            unit = self.unit(process.service)
            is_kind = unit.healthy is not True and not unit.doomed
            yield can("healthy", partial(self._checked, process, True), is_kind)
            yield can("unhealthy", partial(self._checked, process, False), False)
        if process.probes:
            yield can("probed", partial(self._probed, process, True))
            yield can("probe fails", partial(self._probed, process, False), False)
            yield can("probe misses", partial(self._missed, process), False)
        if not process.executed:
            yield can("executed", partial(self._executed, process))
            yield can("exec fails", partial(self._spawn_fails, process), False)
            return
        if self._is_python(process):
            yield from self._stub_life_of(process, can)
        if not process.is_asked_to_end:
            yield can("alive", partial(self._says, process, ev.WatchdogPinged), False)
            yield can("triggers", partial(self._says, process, ev.WatchdogTriggered), False)
            yield can("extends", partial(self._extends, process), False)
            yield can("names another", partial(self._names_another, process), False)
            yield can("announces its stop", partial(self._announces, process), False)

    def _stub_life_of(self, process: Process, can: Can) -> Iterator[Happening]:
        if not process.connected:
            yield can("connects", partial(self._connects, process))
            return
        yield can("loses its connection", partial(self._loses_connection, process), False)
        if process.is_ending:
            return
        if process.pausing is not None:
            yield can("pauses or resumes", partial(self._answers_pause, process, None))
            yield can("does not pause", partial(self._answers_pause, process, "RuntimeError: no"), False)
        is_starting = process.reached[-1:] == [ev.StubPhase.STARTING]
        if act.StubOrder.STOP in process.told and not is_starting:
            yield can("stops", partial(self._reports, process, ev.StubPhase.STOPPING, None))
        if act.StubOrder.DRAIN in process.told and not process.is_drained:
            yield can("drains", partial(self._drains, process))
            yield can("drains slowly", partial(self._says_in_flight, process), False)
        if process.has_started and not process.has_endpoint:
            yield can("opens its endpoint", partial(self._opens_endpoint, process))
        if process.is_handing_over:
            yield can("hands over", partial(self._hands_over, process, None))
            yield can("cannot hand over", partial(self._hands_over, process, "export_state() raised"), False)
        is_successor = self.beside.get(process.service) is process
        if is_successor and ev.StubPhase.LOADED in process.reached and not process.is_compared:
            yield can("is compatible", partial(self._is_compared, process, ()))
            yield can("is not compatible", partial(self._is_compared, process, ("charge() is gone",)), False)
        if process.to_reach:
            yield can("goes on", partial(self._reports, process, process.to_reach[0], None))
        is_to_end = process.is_leaving or process.told & {act.StubOrder.DRAIN, act.StubOrder.STOP}
        if process.has_endpoint and not is_to_end:
            yield can("wants to leave", partial(self._wants_to_leave, process), False)
        for error in (None, "ValueError: bad"):
            yield can(f"ends itself {error}", partial(self._reports, process, ev.StubPhase.STOPPING, error), False)

    # ---- happenings ----

    def _hands_over(self, process: Process, error: str | None) -> None:
        process.is_handing_over = False
        self.tell(ev.HandedOver(self.at, process.service, process.invocation, error))

    def _is_compared(self, process: Process, differences: tuple[str, ...]) -> None:
        process.is_compared = True
        self.tell(ev.InterfaceChecked(self.at, process.service, process.invocation, differences))

    def _leaves(self, process: Process, status: ev.ExitStatus | None) -> None:
        """How the service's own run has ended is remembered; what ran beside it is gone."""
        if self.beside.get(process.service) is not process:
            self.statuses[process.service] = status
        elif not process.lives:
            del self.beside[process.service]

    def _deliver_late(self, event: ev.Event) -> None:
        self.late.remove(event)
        self.tell(event)

    def _opens_endpoint(self, process: Process) -> None:
        process.has_endpoint = True
        self._says(process, ev.EndpointOpened)

    def _wants_to_leave(self, process: Process) -> None:
        process.is_leaving = True
        self.tell(ev.StubReported(self.at, process.service, process.invocation, ev.StubPhase.LEAVING))

    def _drains(self, process: Process) -> None:
        process.is_drained = True
        event = ev.StubReported(self.at, process.service, process.invocation, ev.StubPhase.DRAINED)
        self.tell(event)

    def _says_in_flight(self, process: Process) -> None:
        self.tell(ev.DrainProgressed(self.at, process.service, process.invocation, 3))

    def _demand(self, service: str) -> None:
        self.listening.discard(service)
        self.tell(ev.DemandArose(self.at, service, "somebody"))

    def _schedule(self, service: str) -> None:
        self.tell(ev.ScheduleFired(self.at, service))

    def _idle(self, service: str) -> None:
        self.tell(ev.IdleReached(self.at, service, self.machine.services[service].invocation or 0))

    def _hook_ends(self, hook: RunningHook, error: str | None) -> None:
        self.hooks.remove(hook)
        self.tell(ev.HookEnded(self.at, hook.service, hook.invocation, hook.hook, error, self.jitter))

    def _born(self, process: Process) -> None:
        self.next_pid += 1
        process.born, process.pid = True, self.next_pid
        self.tell(ev.ProcessSpawned(self.at, process.service, process.invocation, self.next_pid))

    def _spawn_fails(self, process: Process) -> None:
        process.alive, process.pid = False, None
        process.probes = process.is_checked = False
        self._leaves(process, None)
        self.tell(ev.SpawnFailed(self.at, process.service, process.invocation, "no such file", self.jitter))

    def _executed(self, process: Process) -> None:
        process.executed = True
        self.tell(ev.ProgramExecuted(self.at, process.service, process.invocation))

    def _says(self, process: Process, fact: Callable[[float, str, int], ev.Event]) -> None:
        self.tell(fact(self.at, process.service, process.invocation))

    def _extends(self, process: Process) -> None:
        self.tell(ev.TimeoutExtended(self.at, process.service, process.invocation, 20.0))

    def _names_another(self, process: Process) -> None:
        self.next_pid += 1
        process.pid = self.next_pid
        self.tell(ev.MainProcessNamed(self.at, process.service, process.invocation, self.next_pid))

    def _announces(self, process: Process) -> None:
        if not self._is_python(process):
            process.is_asked_to_end = True  # by itself: it will end
        self._says(process, ev.StopAnnounced)

    def _checked(self, process: Process, healthy: bool) -> None:
        self.tell(ev.HealthChecked(self.at, process.service, process.invocation, healthy, "" if healthy else "no"))

    def _probed(self, process: Process, ok: bool) -> None:
        process.probes = False
        if ok:
            self.tell(ev.ReadinessReached(self.at, process.service, process.invocation))
        else:
            self.tell(ev.ReadinessFailed(self.at, process.service, process.invocation, "it says no"))

    def _missed(self, process: Process) -> None:
        self.tell(ev.ReadinessMissed(self.at, process.service, process.invocation, "nobody listens"))

    def _connects(self, process: Process) -> None:
        process.connected = True
        process.told -= {act.StubOrder.STOP}  # who knows whether it was heard
        self.tell(ev.StubConnected(self.at, process.service, process.invocation))

    def _loses_connection(self, process: Process) -> None:
        process.connected, process.pausing = False, None
        self.tell(ev.ConnectionLost(self.at, process.service, process.invocation))

    def _reports(self, process: Process, phase: ev.StubPhase, error: str | None) -> None:
        if phase is ev.StubPhase.STOPPING:
            process.is_asked_to_end = process.is_ending = True
            process.probes = False
        else:
            process.reached.append(process.to_reach.pop(0))
        self.tell(ev.StubReported(self.at, process.service, process.invocation, phase, error))

    def _answers_pause(self, process: Process, error: str | None) -> None:
        order, process.pausing = process.pausing, None
        if error is None:
            process.is_paused = order is act.StubOrder.PAUSE
        phase = ev.StubPhase.PAUSED if process.is_paused else ev.StubPhase.RUNNING
        self.tell(ev.StubReported(self.at, process.service, process.invocation, phase, error))

    def _exits(self, process: Process, status: ev.ExitStatus, leftovers: bool) -> None:
        process.alive, process.leftovers, process.pid = False, leftovers, None
        process.is_checked = process.probes = False
        if not process.executed:
            self.late.append(ev.ProgramExecuted(self.at, process.service, process.invocation))
        self._leaves(process, status)
        self.tell(ev.ProcessExited(self.at, process.service, process.invocation, status, leftovers, self.jitter))

    def _leftovers_gone(self, process: Process) -> None:
        process.leftovers = False
        if self.beside.get(process.service) is process:
            del self.beside[process.service]
        self.tell(ev.LeftoversGone(self.at, process.service, process.invocation, self.jitter))

    # ---- time ----

    def _earliest(self, watchdogs: bool = True) -> tuple[str, ev.TimerKind] | None:
        keys = [key for key in self.timers if watchdogs or key[1] is not ev.TimerKind.WATCHDOG]
        return min(keys, key=lambda key: self.timers[key][1], default=None)

    def fire(self, watchdogs: bool = True) -> bool:
        """The next timer runs out; returns whether there was one. ``watchdogs`` False: nobody falls silent."""
        key = self._earliest(watchdogs)
        if key is None:
            return False
        invocation, due = self.timers.pop(key)
        self.at = max(self.at, due)
        self.tell(ev.TimerFired(self.at, key[0], invocation, key[1], self.jitter))
        return True

    def wait(self, seconds: float) -> None:
        """Time passes, but not beyond the next timer."""
        key = self._earliest()
        self.at = self.at + seconds if key is None else min(self.at + seconds, max(self.at, self.timers[key][1]))

    def goes_well(self) -> bool:
        """One thing that a well-meaning world does; returns whether there was one."""
        kind = next((each for each in self.possible() if each.is_kind), None)
        if kind is not None:
            kind.happen()
        return kind is not None

    def come_to_rest(self, limit: int = 5000) -> None:
        """A well-meaning world from here on: starts succeed, what is told to end ends, nobody falls silent."""
        for _ in range(limit):
            if not self.goes_well() and not self.fire(watchdogs=False):
                return
        raise AssertionError("it does not come to rest")
