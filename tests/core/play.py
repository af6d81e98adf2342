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
from svcd.supervisor.core.machine import Machine
from svcd.supervisor.core.spec import (
    Condition,
    Dependency,
    DependencyKind,
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


def requires(target: str, condition: Condition = Condition.RUNNING, on_crash: OnCrash = OnCrash.RESTART) -> Dependency:
    return Dependency(target, DependencyKind.REQUIRES, condition, on_crash)


LINES: dict[type, Callable[[Any], str]] = {
    act.SpawnProcess: lambda a: f"spawn {a.service}",
    act.TellStub: lambda a: f"tell {a.service} {a.order.value}",
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


class Play:
    """A machine with services registered, at time 0. ``timers``: whether lines about timers are kept."""

    def __init__(self, *specs: ServiceSpec, max_parallel: int = 0, timers: bool = False) -> None:
        self.machine = Machine(max_parallel)
        self.timers = timers
        self.at = 0.0
        self.jitter = 0.0
        self.actions: list[act.Action] = []
        self.requests = 0
        self.pids = 100
        self.tell(ev.ServicesRegistered(0.0, specs))

    def tell(self, event: ev.Event) -> list[str]:
        self.actions = self.machine.handle(event)
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

    def stop(self, *names: str) -> list[str]:
        return self.tell(ev.StopRequested(self.at, self._request(), names))

    def restart(self, *names: str) -> list[str]:
        return self.tell(ev.RestartRequested(self.at, self._request(), names))

    def signal(self, number: int, *names: str) -> list[str]:
        return self.tell(ev.SignalRequested(self.at, self._request(), names, number))

    def shut_down(self, level: ev.ShutdownLevel = ev.ShutdownLevel.DRAIN) -> list[str]:
        return self.tell(ev.ShutdownRequested(self.at, self._request(), level))

    def unregister(self, name: str) -> list[str]:
        return self.tell(ev.ConfigurationApplied(self.at, self._request(), removed=(name,)))

    # ---- what happens to the present run of a service ----

    def run_of(self, name: str) -> int:
        return self.machine.services[name].invocation or 0

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

    def connects(self, name: str) -> list[str]:
        return self.tell(ev.StubConnected(self.at, name, self.run_of(name)))

    def loses_connection(self, name: str) -> list[str]:
        return self.tell(ev.ConnectionLost(self.at, name, self.run_of(name)))

    def reports(self, name: str, phase: str, error: str | None = None) -> list[str]:
        return self.tell(ev.StubReported(self.at, name, self.run_of(name), ev.StubPhase(phase), error))

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
        pending = self.start(*self.machine.services)
        while spawned := [line.split()[1] for line in pending if line.startswith("spawn ")]:
            pending = [line for name in spawned for line in self._comes_up(name)]
        return self

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
