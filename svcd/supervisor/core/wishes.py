"""What people want: requests become desired states and marks; everything else follows from those.

Must not wait for anything nor know processes beyond marking their runs: answers come from ``requests`` when it is time.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

from svcd.supervisor.core import events, graph
from svcd.supervisor.core.actions import AnswerRequest, Outcome, ServiceResult, SignalProcess
from svcd.supervisor.core.cluster import Cluster
from svcd.supervisor.core.requests import Intent, Request
from svcd.supervisor.core.runs import Runs
from svcd.supervisor.core.spec import StartMode
from svcd.supervisor.core.states import State
from svcd.supervisor.core.unit import Mark, Unit

STOPPED_BY_NAME: Final = "stopped by request"
SHUTDOWN: Final = "cluster shutdown"
RESTARTED: Final = "restarted by request"
ASKED: Final = "asked to run"


class Wishes:
    def __init__(self, cluster: Cluster, runs: Runs) -> None:
        self._cluster = cluster
        self._runs = runs
        self._shutdowns: list[Request] = []
        self._is_over = False

    # ---- start, restart ----

    def start(self, event: events.StartRequested) -> None:
        names = event.services or tuple(
            unit.name for unit in self._cluster.units.values() if unit.spec.start is StartMode.EAGER
        )
        named = self._admit(event.request, "start", names)
        if named is None:
            return
        moved = [unit for unit in graph.closure(named.values()) if self._wake(unit, named)]
        also = tuple(unit.name for unit in moved if unit.name not in named)
        self._open(Request(event.request, Intent.START, tuple(named), also), named.values())

    def restart(self, event: events.RestartRequested) -> None:
        named = self._admit(event.request, "restart", event.services)
        if named is None:
            return
        taken_along = [unit for unit in graph.stop_order(named.values()) if unit.name not in named]
        for unit in named.values():
            self._cluster.requests.overtake(unit.name, Intent.RESTART, f"a restart of {unit.name}", self._cluster.out)
        moved = [unit for unit in graph.closure(named.values()) if self._wake(unit, named)]
        for unit in named.values():
            unit.reason = RESTARTED
            self._runs.mark(unit, Mark.RESTART, RESTARTED, f"{unit.name} was {RESTARTED}")
        also = dict.fromkeys(unit.name for unit in (*taken_along, *moved) if unit.name not in named)
        self._open(Request(event.request, Intent.RESTART, tuple(named), tuple(also)), named.values())

    def _wake(self, unit: Unit, named: dict[str, Unit]) -> bool:
        """Desired up; returns whether that changes anything. Who is named gets a clean record and another try."""
        is_named = unit.name in named
        run = unit.run
        by = unit.name if is_named else ", ".join(named)
        self._cluster.requests.overtake(unit.name, Intent.START, f"a start of {by}", self._cluster.out)
        gone = unit.state in (State.FAILED, State.UNAVAILABLE) or (unit.state is State.COMPLETED and not unit.is_task)
        moved = not unit.up or gone
        if is_named or moved:
            self._clear_record(unit)
        if moved:
            unit.reason = ASKED
        unit.up = True
        if run is None:
            retries = unit.state in (State.COMPLETED, State.BACKOFF)
            unit.again = gone or (is_named and retries)
        elif is_named and run.doomed and not run.from_outside:
            run.mark, run.mark_text = Mark.RESTART, ASKED
        self._cluster.touch(unit)
        return moved

    @staticmethod
    def _clear_record(unit: Unit) -> None:
        unit.record.clear()
        unit.restarts = 0
        unit.stumbled = False

    # ---- stop ----

    def stop(self, event: events.StopRequested) -> None:
        named = self._admit(event.request, "stop", event.services)
        if named is None:
            return
        also = tuple(unit.name for unit in graph.stop_order(named.values()) if unit.name not in named)
        for unit in named.values():
            self._cluster.requests.overtake(unit.name, Intent.STOP, f"a stop of {unit.name}", self._cluster.out)
            self._put_down(unit, STOPPED_BY_NAME)
            if unit.state in (State.UNLOADED, State.FAILED, State.UNAVAILABLE):
                self._cluster.go(unit, State.STOPPED, STOPPED_BY_NAME)
        self._open(Request(event.request, Intent.STOP, tuple(named), also), named.values())

    def _put_down(self, unit: Unit, text: str) -> None:
        unit.up, unit.again, unit.down_text = False, False, text
        self._runs.mark(unit, Mark.ASKED, text, f"{unit.name} was {text}")
        self._cluster.touch(unit)

    # ---- shutdown ----

    def shut_down(self, event: events.ShutdownRequested) -> None:
        cluster = self._cluster
        if event.request is not None:
            request = Request(event.request, Intent.SHUTDOWN, ())
            cluster.requests.open(request, ())
            self._shutdowns.append(request)
        old = cluster.level
        if old is not None and old.value >= event.level.value:
            return
        cluster.level = event.level
        if old is None:
            for unit in cluster.units.values():
                cluster.requests.overtake(unit.name, Intent.SHUTDOWN, "the shutdown", cluster.out)
                self._put_down(unit, SHUTDOWN)
        if event.level is events.ShutdownLevel.DRAIN:
            return
        for unit in cluster.units.values():
            if unit.run is not None and event.level is events.ShutdownLevel.NOW:
                self._runs.hurry(unit, unit.run)
            elif unit.run is not None:
                self._runs.kill(unit, unit.run, f"{SHUTDOWN}: killed")

    def end_if_down(self) -> bool:
        """Once nothing runs any more after a shutdown: answer those who wait. Returns whether this was the end."""
        cluster = self._cluster
        if cluster.level is None or cluster.live:
            return False
        for request in self._shutdowns:
            cluster.requests.close_if_done(request, cluster.out)
        self._shutdowns.clear()
        was_over, self._is_over = self._is_over, True
        return not was_over

    # ---- answered at once ----

    def signal(self, event: events.SignalRequested) -> None:
        named = self._admit(event.request, "signal", event.services)
        if named is None:
            return
        results = []
        for unit in named.values():
            if unit.pid is None or unit.run is None:
                text = f"cannot signal {unit.name}: it has no process ({unit.state.value})"
                results.append(ServiceResult(unit.name, Outcome.FAILED, text))
            else:
                self._cluster.out.append(SignalProcess(unit.name, unit.run.invocation, event.signal, group=False))
                results.append(ServiceResult(unit.name, Outcome.DONE))
        failed = [each.text for each in results if each.text]
        outcome = Outcome.FAILED if failed else Outcome.DONE
        self._cluster.out.append(AnswerRequest(event.request, outcome, tuple(results), text="; ".join(failed)))

    def unregister(self, event: events.ServiceUnregistered) -> None:
        named = self._admit(event.request, "unregister", (event.service,))
        if named is None:
            return
        unit = named[event.service]
        others = [edge.dependent.name for edge in unit.incoming if edge.hard]
        if others:
            self._refuse(event.request, f"cannot unregister {unit.name}: required by {', '.join(others)}")
            return
        if unit.run is not None:
            self._refuse(event.request, f"cannot unregister {unit.name}: it is {unit.state.value}; stop it first")
            return
        self._remove(unit)
        result = ServiceResult(unit.name, Outcome.DONE)
        self._cluster.out.append(AnswerRequest(event.request, Outcome.DONE, (result,)))

    def _remove(self, unit: Unit) -> None:
        cluster = self._cluster
        cluster.requests.overtake(unit.name, Intent.REMOVAL, f"the unregistration of {unit.name}", cluster.out)
        cluster.cancel(unit, *events.TimerKind)
        cluster.leave_queue(unit)
        for edge in unit.incoming:
            cluster.touch(edge.dependent)
        graph.disconnect(unit)
        del cluster.units[unit.name]
        cluster.forget(unit)

    # ---- admission ----

    def _admit(self, request: str, verb: str, names: Iterable[str]) -> dict[str, Unit] | None:
        """The named units, each once, or None when the request was refused."""
        cluster = self._cluster
        cluster.requests.check_new(request)
        if cluster.level is not None and verb in ("start", "restart"):
            self._refuse(request, f"cannot {verb}: the cluster is shutting down")
            return None
        unknown = [name for name in dict.fromkeys(names) if name not in cluster.units]
        if unknown:
            self._refuse(request, f"cannot {verb}: {'; '.join(map(self._unknown_words, unknown))}")
            return None
        return {name: cluster.units[name] for name in names}

    def _unknown_words(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._cluster.units, 1)
        return f"no service {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")

    def _refuse(self, request: str, text: str) -> None:
        self._cluster.out.append(AnswerRequest(request, Outcome.REFUSED, text=text))

    def _open(self, request: Request, units: Iterable[Unit]) -> None:
        self._cluster.requests.open(request, units)
        for name in request.open_goals:
            self._cluster.touch(self._cluster.units[name])
        self._cluster.requests.close_if_done(request, self._cluster.out)
