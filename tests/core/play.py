"""A tiny language for telling the machine what happens, one line per fact, and reading its orders as short lines.

Must not check anything: scenarios compare the lines.

    db starting > running      a transition          spawn db, kill db, probe db     actions
    tell web stop              to a stub             signal db 15                    to its process group
    arm db stop 10, disarm db  timers (``timers``)   answer r1 done                  the end of a request
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from svcd.supervisor.core import actions as act
from svcd.supervisor.core import events as ev
from svcd.supervisor.core.errors import CoreError
from svcd.supervisor.core.machine import Machine
from svcd.supervisor.core.preview import Step
from svcd.supervisor.core.spec import (
    Condition,
    Dependency,
    DependencyKind,
    Hook,
    OnCrash,
    RestartPolicy,
    Runner,
    ServiceSpec,
    ServiceType,
)

NEVER = RestartPolicy(mode=RestartPolicy().mode.NEVER)


def service(name: str, *needs: str | Dependency, **fields: Any) -> ServiceSpec:
    dependencies = tuple(Dependency(each) if isinstance(each, str) else each for each in needs)
    return ServiceSpec(name, dependencies=dependencies, **fields)


def python(name: str, *needs: str | Dependency, **fields: Any) -> ServiceSpec:
    return replace(service(name, *needs, **fields), runner=Runner.PYTHON)


def task(name: str, *needs: str | Dependency, **fields: Any) -> ServiceSpec:
    fields.setdefault("restart", NEVER)
    return replace(service(name, *needs, **fields), type=ServiceType.TASK)


def wants(target: str, condition: Condition = Condition.RUNNING) -> Dependency:
    return Dependency(target, DependencyKind.WANTS, condition)


def after(target: str) -> Dependency:
    return Dependency(target, DependencyKind.AFTER)


def one_of(group: str, *targets: str) -> tuple[Dependency, ...]:
    """The instances of one service, of which any is enough."""
    return tuple(Dependency(target, group=group) for target in targets)


def requires(target: str, condition: Condition = Condition.RUNNING, on_crash: OnCrash = OnCrash.RESTART) -> Dependency:
    return Dependency(target, DependencyKind.REQUIRES, condition, on_crash)


LINES: dict[type, Callable[[Any], str]] = {
    act.SpawnProcess: lambda a: f"spawn {a.service}",
    act.SpawnSuccessor: lambda a: f"spawn successor of {a.service}",
    act.HoldRoutes: lambda a: f"hold {a.service}",
    act.ReleaseRoutes: lambda a: f"release {a.service}",
    act.SwitchRun: lambda a: f"switch {a.service} {a.old} > {a.invocation}",
    act.TellStub: lambda a: f"tell {a.service} {a.order.value}",
    act.TellParent: lambda a: f"tell {a.service} of {a.child}" + (f": {a.error}" if a.error else ""),
    act.AwaitReadiness: lambda a: f"probe {a.service}",
    act.CheckHealth: lambda a: f"check {a.service}",
    act.CeaseHealthChecks: lambda a: f"cease {a.service}",
    act.RunHook: lambda a: f"hook {a.service} {a.hook.value}",
    act.KillHook: lambda a: f"kill hook {a.service} {a.hook.value}",
    act.AwaitDemand: lambda a: f"await {a.service}",
    act.CeaseAwaitingDemand: lambda a: f"cease awaiting {a.service}",
    act.AdoptSpec: lambda a: f"adopt {a.service}",
    act.ForgetService: lambda a: f"forget {a.service}",
    act.SignalProcess: lambda a: f"signal {a.service} {a.signal}" + ("" if a.group else " alone"),
    act.KillProcess: lambda a: f"kill {a.service}",
    act.ArmTimer: lambda a: f"arm {a.service} {a.kind.value} {a.delay_s:g}",
    act.CancelTimer: lambda a: f"disarm {a.service} {a.kind.value}",
    act.PublishTransition: lambda a: f"{a.service} {a.old.value} > {a.new.value}",
    act.PublishNotice: lambda a: f"notice {a.service}: {a.text}",
    act.AnswerRequest: lambda a: f"answer {a.request} {a.outcome.value}" + (f": {a.text}" if a.text else ""),
    act.EndCluster: lambda a: f"end {a.exit_code}",
}


SPAWNS = (act.SpawnProcess, act.SpawnSuccessor)


class Play:
    """A machine with services registered, at time 0. ``timers``: whether lines about timers are kept."""

    def __init__(self, *specs: ServiceSpec, max_parallel: int = 0, timers: bool = False) -> None:
        self.machine = Machine(max_parallel)
        self.timers = timers
        self.at = 0.0
        self.jitter = 0.0
        self.actions: list[act.Action] = []
        self.preview: list[str] = []
        self.requests = 0
        self.pids = 100
        self.spawned: dict[str, int] = {}
        self.beside: dict[str, int] = {}
        self.tell(ev.ServicesRegistered(0.0, specs))

    def tell(self, event: ev.Event) -> list[str]:
        self.actions = self.machine.handle(event)
        self.spawned.update((each.service, each.invocation) for each in self.actions if type(each) in SPAWNS)
        kept = [each for each in self.actions if self.timers or not isinstance(each, act.ArmTimer | act.CancelTimer)]
        return [LINES[type(each)](each) for each in kept]

    def later(self, seconds: float) -> Play:
        self.at += seconds
        return self

    # ---- requests: r1, r2, ... ----

    def _request(self) -> str:
        self.requests += 1
        return f"r{self.requests}"

    def start(self, *names: str) -> list[str]:
        return self.tell(ev.StartRequested(self.at, self._request(), names))

    def stop(self, *names: str, unneeded: bool = False) -> list[str]:
        return self.tell(ev.StopRequested(self.at, self._request(), names, unneeded))

    def restart(self, *names: str, rolling: bool = False) -> list[str]:
        return self.tell(ev.RestartRequested(self.at, self._request(), names, rolling))

    def pause(self, *names: str) -> list[str]:
        return self.tell(ev.PauseRequested(self.at, self._request(), names))

    def resume(self, *names: str) -> list[str]:
        return self.tell(ev.ResumeRequested(self.at, self._request(), names))

    def signal(self, number: int, *names: str) -> list[str]:
        return self.tell(ev.SignalRequested(self.at, self._request(), names, number))

    def shut_down(self, level: ev.ShutdownLevel = ev.ShutdownLevel.DRAIN) -> list[str]:
        return self.tell(ev.ShutdownRequested(self.at, self._request(), level))

    def unregister(self, name: str) -> list[str]:
        return self.apply(removed=(name,))

    def apply(
        self,
        *changed: ServiceSpec,
        added: tuple[ServiceSpec, ...] = (),
        removed: tuple[str, ...] = (),
        start: tuple[str, ...] = (),
        restarts: bool = True,
    ) -> list[str]:
        """A change of configuration; ``restarts``: whether what has changed needs it."""
        changes = tuple(ev.SpecChange(spec, restarts) for spec in changed)
        event = ev.ConfigurationApplied(self.at, self._request(), added, changes, removed, start)
        self.preview = [f"{step.verb.value} {step.service}: {step.why}" for step in self._preview(event)]
        return self.tell(event)

    def update(self, spec: ServiceSpec, forced: bool = False) -> list[str]:
        return self.tell(ev.UpdateRequested(self.at, self._request(), spec, forced))

    def _preview(self, event: ev.ConfigurationApplied) -> tuple[Step, ...]:
        try:
            return self.machine.preview(event)
        except CoreError:
            return ()

    def abandon(self, request: str) -> list[str]:
        return self.tell(ev.RequestAbandoned(self.at, request))

    # ---- what calls for a service ----

    def demand(self, name: str) -> list[str]:
        return self.tell(ev.DemandArose(self.at, name, "127.0.0.1:80"))

    def schedule(self, name: str) -> list[str]:
        return self.tell(ev.ScheduleFired(self.at, name))

    def idle(self, name: str) -> list[str]:
        return self.tell(ev.IdleReached(self.at, name, self.run_of(name)))

    # ---- what happens to the present run of a service ----

    def run_of(self, name: str) -> int:
        return self.beside.get(name) or self.machine.services[name].invocation or 0

    def successor(self, name: str) -> Play:
        """From here on news of ``name`` are news of the run that was spawned last."""
        self.beside[name] = self.spawned[name]
        return self

    def serving(self, name: str) -> Play:
        """... of the service's own run again."""
        del self.beside[name]
        return self

    def born(self, name: str) -> list[str]:
        self.pids += 1
        return self.tell(ev.ProcessSpawned(self.at, name, self.run_of(name), self.pids))

    def executed(self, name: str) -> list[str]:
        return self.tell(ev.ProgramExecuted(self.at, name, self.run_of(name)))

    def runs(self, *names: str) -> list[str]:
        """Spawned and executed: a program with immediate readiness is running then."""
        return [line for name in names for line in self.born(name) + self.executed(name)]

    def spawn_fails(self, name: str, reason: str = "no such file") -> list[str]:
        return self.tell(ev.SpawnFailed(self.at, name, self.run_of(name), reason, self.jitter))

    def exits(self, name: str, code: int = 0, leftovers: bool = False) -> list[str]:
        return self.ends(name, ev.ExitStatus(code=code), leftovers)

    def dies(self, name: str, signal: int = 9, leftovers: bool = False) -> list[str]:
        return self.ends(name, ev.ExitStatus(signal=signal), leftovers)

    def ends(self, name: str, status: ev.ExitStatus, leftovers: bool) -> list[str]:
        return self.tell(ev.ProcessExited(self.at, name, self.run_of(name), status, leftovers, self.jitter))

    def leftovers_gone(self, name: str) -> list[str]:
        return self.tell(ev.LeftoversGone(self.at, name, self.run_of(name), self.jitter))

    def ready(self, name: str) -> list[str]:
        return self.tell(ev.ReadinessReached(self.at, name, self.run_of(name)))

    def unready(self, name: str, reason: str) -> list[str]:
        return self.tell(ev.ReadinessFailed(self.at, name, self.run_of(name), reason))

    def missed(self, name: str, reason: str) -> list[str]:
        return self.tell(ev.ReadinessMissed(self.at, name, self.run_of(name), reason))

    def connects(self, name: str) -> list[str]:
        return self.tell(ev.StubConnected(self.at, name, self.run_of(name)))

    def loses_connection(self, name: str) -> list[str]:
        return self.tell(ev.ConnectionLost(self.at, name, self.run_of(name)))

    def reports(self, name: str, phase: str, error: str | None = None) -> list[str]:
        return self.tell(ev.StubReported(self.at, name, self.run_of(name), ev.StubPhase(phase), error))

    def opens_endpoint(self, name: str) -> list[str]:
        return self.tell(ev.EndpointOpened(self.at, name, self.run_of(name)))

    def compared(self, name: str, *differences: str) -> list[str]:
        return self.tell(ev.InterfaceChecked(self.at, name, self.run_of(name), differences))

    def hands_over(self, name: str, error: str | None = None) -> list[str]:
        return self.tell(ev.HandedOver(self.at, name, self.run_of(name), error))

    def drains(self, name: str, in_flight: int) -> list[str]:
        return self.tell(ev.DrainProgressed(self.at, name, self.run_of(name), in_flight))

    def named_main(self, name: str, pid: int) -> list[str]:
        return self.tell(ev.MainProcessNamed(self.at, name, self.run_of(name), pid))

    def healthy(self, name: str) -> list[str]:
        return self.tell(ev.HealthChecked(self.at, name, self.run_of(name), True))

    def unhealthy(self, name: str, text: str = "status 500") -> list[str]:
        return self.tell(ev.HealthChecked(self.at, name, self.run_of(name), False, text))

    def alive(self, name: str) -> list[str]:
        return self.tell(ev.WatchdogPinged(self.at, name, self.run_of(name)))

    def triggers(self, name: str) -> list[str]:
        return self.tell(ev.WatchdogTriggered(self.at, name, self.run_of(name)))

    def extends(self, name: str, by_s: float) -> list[str]:
        return self.tell(ev.TimeoutExtended(self.at, name, self.run_of(name), by_s))

    def announces_stop(self, name: str) -> list[str]:
        return self.tell(ev.StopAnnounced(self.at, name, self.run_of(name)))

    def hook_ends(self, name: str, hook: str, error: str | None = None) -> list[str]:
        return self.tell(ev.HookEnded(self.at, name, self.run_of(name), Hook(hook), error, self.jitter))

    def fires(self, name: str, kind: str) -> list[str]:
        return self.tell(ev.TimerFired(self.at, name, self.run_of(name), ev.TimerKind(kind), self.jitter))

    # ---- reading ----

    def state(self, name: str) -> str:
        return self.machine.services[name].state.value

    def states(self) -> str:
        return " ".join(f"{name}={view.state.value}" for name, view in self.machine.services.items())

    def cause(self, name: str) -> str:
        return self.machine.services[name].cause

    def all_up(self) -> Play:
        """Start everything, in order, as a world without accidents would; tasks complete."""
        return self.goes_well(self.start(*self.machine.services))

    def goes_well(self, lines: list[str]) -> Play:
        """What was ordered happens: processes come up, hooks succeed, and so on with what is ordered then."""
        while lines:
            lines = [following for line in lines for following in self._goes_well(line.split())]
        return self

    def _goes_well(self, words: list[str]) -> list[str]:
        if words[0] == "spawn":
            return self._comes_up(words[1])
        if words[0] == "hook" and words[2] != "on_failure":
            return self.hook_ends(words[1], words[2])
        return []

    def _comes_up(self, name: str) -> list[str]:
        spec = self.machine.services[name].spec
        lines = self.runs(name)
        if spec.runner is Runner.PYTHON:
            lines += self.connects(name) + self.reports(name, "running")
        if any(line == f"probe {name}" for line in lines):
            lines += self.ready(name)
        if spec.type is ServiceType.TASK:
            lines += self.exits(name)
        return lines
