"""The open requests: who waits for what of which service, and the one answer that each gets.

Must not move a service: it looks at units and says whether a goal is reached, failed or overtaken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from svcd.supervisor.core import causes
from svcd.supervisor.core.actions import Action, AnswerRequest, Outcome, ServiceResult
from svcd.supervisor.core.errors import DuplicateRequest
from svcd.supervisor.core.states import State
from svcd.supervisor.core.unit import Unit


class Intent(Enum):
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    SHUTDOWN = "shutdown"
    REMOVAL = "unregistration"


OVERTAKES: Final = {
    Intent.START: frozenset({Intent.STOP}),
    Intent.STOP: frozenset({Intent.START, Intent.RESTART}),
    Intent.RESTART: frozenset({Intent.STOP, Intent.RESTART}),
    Intent.SHUTDOWN: frozenset({Intent.START, Intent.STOP, Intent.RESTART}),
    Intent.REMOVAL: frozenset({Intent.START, Intent.STOP, Intent.RESTART}),
}
"""What is asked now -> which open goals of the same service it overtakes; it joins the others."""

if set(OVERTAKES) != set(Intent):
    raise AssertionError("the table of intents lacks one")


@dataclass(slots=True, eq=False)
class Request:
    """``open_goals``: service -> the last invocation before the request, for what is not settled yet."""

    id: str
    intent: Intent
    names: tuple[str, ...]
    also: tuple[str, ...] = ()
    open_goals: dict[str, int | None] = field(default_factory=dict)
    results: dict[str, ServiceResult] = field(default_factory=dict)


def verdict_on(request: Request, unit: Unit) -> ServiceResult | None:
    """What has become of one goal, or None while it is open."""
    if request.intent is Intent.STOP:
        return ServiceResult(unit.name, Outcome.DONE) if unit.run is None and not unit.up else None
    if request.intent is Intent.RESTART and unit.last_invocation == request.open_goals[unit.name]:
        is_new = False
    else:
        is_new = True
    if unit.state is State.COMPLETED or (unit.state is State.RUNNING and not unit.doomed and not unit.is_task):
        return ServiceResult(unit.name, Outcome.DONE) if is_new else None
    if unit.state in (State.FAILED, State.UNAVAILABLE):
        return ServiceResult(unit.name, Outcome.FAILED, causes.failed_words(unit))
    if unit.stuck:
        return ServiceResult(unit.name, Outcome.FAILED, causes.stuck_words(unit))
    return None


def overall(results: Iterable[ServiceResult]) -> Outcome:
    outcomes = {each.outcome for each in results}
    for worst in (Outcome.FAILED, Outcome.SUPERSEDED):
        if worst in outcomes:
            return worst
    return Outcome.DONE


class Requests:
    """All open requests. Answers are appended to ``out``, exactly one for each request that was not abandoned."""

    def __init__(self) -> None:
        self._open: dict[str, Request] = {}
        self._waiting_for: dict[str, dict[str, Request]] = {}

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._open

    def __len__(self) -> int:
        return len(self._open)

    def open(self, request: Request, units: Iterable[Unit]) -> None:
        """Raises ``DuplicateRequest`` for an id that is in use."""
        self.check_new(request.id)
        self._open[request.id] = request
        for unit in units:
            request.open_goals[unit.name] = unit.last_invocation
            self._waiting_for.setdefault(unit.name, {})[request.id] = request

    def check_new(self, request_id: str) -> None:
        if request_id in self._open:
            raise DuplicateRequest(request_id)

    def abandon(self, request_id: str) -> None:
        request = self._open.pop(request_id, None)
        if request is not None:
            for name in request.open_goals:
                self._forget_goal(name, request_id)

    def overtake(self, name: str, intent: Intent, text: str, out: list[Action]) -> None:
        """A later request wants something else of this service."""
        for request in list(self._waiting_for.get(name, {}).values()):
            if request.intent in OVERTAKES[intent]:
                self._settle(request, ServiceResult(name, Outcome.SUPERSEDED, f"superseded by {text}"), out)

    def look(self, unit: Unit, out: list[Action]) -> None:
        """Settle what this unit's present standing settles."""
        for request in list(self._waiting_for.get(unit.name, {}).values()):
            result = verdict_on(request, unit)
            if result is not None:
                self._settle(request, result, out)

    def close_if_done(self, request: Request, out: list[Action]) -> None:
        if request.open_goals or self._open.get(request.id) is not request:
            return
        del self._open[request.id]
        results = tuple(request.results[name] for name in request.names)
        text = "; ".join(dict.fromkeys(each.text for each in results if each.text))
        out.append(AnswerRequest(request.id, overall(results), results, request.also, text))

    def _settle(self, request: Request, result: ServiceResult, out: list[Action]) -> None:
        del request.open_goals[result.service]
        self._forget_goal(result.service, request.id)
        request.results[result.service] = result
        self.close_if_done(request, out)

    def _forget_goal(self, name: str, request_id: str) -> None:
        waiting = self._waiting_for[name]
        del waiting[request_id]
        if not waiting:
            del self._waiting_for[name]
