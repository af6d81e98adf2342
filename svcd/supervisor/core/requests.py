"""The open requests: who waits for what of which service, and the one answer that each gets.

Must not move a service: it looks at units and says whether a goal is reached, failed or overtaken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum
from typing import Final

from svcd.record import entity, field
from svcd.supervisor.core import causes
from svcd.supervisor.core.actions import Action, AnswerRequest, Outcome, ServiceResult
from svcd.supervisor.core.errors import DuplicateRequest
from svcd.supervisor.core.ledger import Transaction
from svcd.supervisor.core.states import State
from svcd.supervisor.core.unit import Unit


class Intent(Enum):
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    PAUSE = "pause"
    RESUME = "resume"
    SHUTDOWN = "shutdown"
    REMOVAL = "unregistration"
    ORPHANED = "end of the parent"


_OF_STATE: Final = frozenset({Intent.PAUSE, Intent.RESUME})
OVERTAKES: Final = {
    Intent.START: frozenset({Intent.STOP, Intent.PAUSE}),
    Intent.STOP: frozenset({Intent.START, Intent.RESTART}) | _OF_STATE,
    Intent.RESTART: frozenset({Intent.STOP, Intent.RESTART}) | _OF_STATE,
    Intent.PAUSE: frozenset({Intent.RESUME}),
    Intent.RESUME: frozenset({Intent.PAUSE}),
    Intent.SHUTDOWN: frozenset({Intent.START, Intent.STOP, Intent.RESTART}) | _OF_STATE,
    Intent.REMOVAL: frozenset({Intent.START, Intent.STOP, Intent.RESTART}) | _OF_STATE,
    Intent.ORPHANED: frozenset({Intent.START, Intent.RESTART}) | _OF_STATE,
}
"""What is asked now -> which open goals of the same service it overtakes; it joins the others."""

if set(OVERTAKES) != set(Intent):
    raise AssertionError("the table of intents lacks one")


@entity
class Request:
    """``open_goals``: service -> the last invocation before the request, for what is not settled yet.

    ``intents``: where a service's own differs from the request's. ``turns``: of a rolling restart, who has not had its
    turn yet, in order; ``change``: the one transaction that all its turns are.
    """

    id: str
    intent: Intent
    names: tuple[str, ...]
    also: tuple[str, ...] = ()
    intents: dict[str, Intent] = field(default_factory=dict)
    turns: deque[str] = field(default_factory=deque)
    change: Transaction | None = None
    open_goals: dict[str, int | None] = field(default_factory=dict)
    results: dict[str, ServiceResult] = field(default_factory=dict)
    is_abandoned: bool = False  # nobody waits for the answer

    def intent_of(self, name: str) -> Intent:
        return self.intents.get(name, self.intent)


def verdict_on(request: Request, unit: Unit) -> ServiceResult | None:
    """What has become of one goal, or None while it is open."""
    intent = request.intent_of(unit.name)
    if unit.name in request.turns or intent is Intent.REMOVAL:
        return None
    if intent is Intent.STOP:
        return ServiceResult(unit.name, Outcome.DONE) if _is_down(unit) else None
    if intent in _OF_STATE:
        return _verdict_on_pause(intent, unit)
    is_new = intent is not Intent.RESTART or unit.last_invocation != request.open_goals[unit.name]
    if unit.state is State.COMPLETED or (unit.state is State.RUNNING and not unit.doomed and not unit.is_task):
        return ServiceResult(unit.name, Outcome.DONE) if is_new else None
    if unit.state in (State.FAILED, State.UNAVAILABLE):
        return ServiceResult(unit.name, Outcome.FAILED, causes.failed_words(unit))
    if unit.stuck:
        return ServiceResult(unit.name, Outcome.FAILED, causes.stuck_words(unit))
    if is_new and unit.is_task and unit.state is State.PAUSED and unit.run is not None and not unit.run.pausing:
        return ServiceResult(unit.name, Outcome.SUPERSEDED, f"superseded by a pause of {unit.name}")
    return None


def _is_down(unit: Unit) -> bool:
    return unit.run is None and not (unit.up or unit.updating)


def _verdict_on_pause(intent: Intent, unit: Unit) -> ServiceResult | None:
    wanted, before = (State.PAUSED, State.RUNNING) if intent is Intent.PAUSE else (State.RUNNING, State.PAUSED)
    run = unit.run
    if run is None or run.doomed or unit.state not in (wanted, before):
        is_about_to = run is not None and run.doomed and unit.state is not State.STOPPING
        standing = f"{unit.state.value}, about to stop" if is_about_to else unit.state.value
        return ServiceResult(unit.name, Outcome.FAILED, f"cannot {intent.value} {unit.name}: it is {standing}")
    if run.pausing:
        return None
    if unit.state is wanted:
        return ServiceResult(unit.name, Outcome.DONE)
    text = f"cannot {intent.value} {unit.name}: {run.pause_error or 'it did not'}"
    return ServiceResult(unit.name, Outcome.FAILED, text)


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
        self.due: dict[Request, None] = {}  # rolling restarts whose next turn has come
        self._waiting_for: dict[str, dict[Request, None]] = {}

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
            self._waiting_for.setdefault(unit.name, {})[request] = None

    def check_new(self, request_id: str) -> None:
        if request_id in self._open:
            raise DuplicateRequest(request_id)

    def abandon(self, request_id: str) -> None:
        """Nobody waits for the answer any more. A rolling restart goes on all the same."""
        request = self._open.pop(request_id, None)
        if request is None:
            return
        request.is_abandoned = True
        if not request.turns:
            for name in request.open_goals:
                self._forget_goal(name, request)

    def overtake(self, name: str, intent: Intent, text: str, out: list[Action]) -> None:
        """A later request wants something else of this service."""
        for request in list(self._waiting_for.get(name, ())):
            if request.intent_of(name) in OVERTAKES[intent]:
                self._settle(request, ServiceResult(name, Outcome.SUPERSEDED, f"superseded by {text}"), out)

    def gone(self, name: str, out: list[Action]) -> None:
        """A service was removed: that is what some waited for."""
        for request in list(self._waiting_for.get(name, ())):
            self._settle(request, ServiceResult(name, Outcome.DONE), out)

    def look(self, unit: Unit, out: list[Action]) -> None:
        """Settle what this unit's present standing settles."""
        for request in list(self._waiting_for.get(unit.name, ())):
            result = verdict_on(request, unit)
            if result is not None:
                self._settle(request, result, out)

    def close_if_done(self, request: Request, out: list[Action]) -> None:
        if request.open_goals or request.is_abandoned or self._open.get(request.id) is not request:
            return
        del self._open[request.id]
        results = tuple(request.results[name] for name in request.names)
        text = "; ".join(dict.fromkeys(each.text for each in results if each.text))
        out.append(AnswerRequest(request.id, overall(results), results, request.also, text))

    def _settle(self, request: Request, result: ServiceResult, out: list[Action]) -> None:
        del request.open_goals[result.service]
        self._forget_goal(result.service, request)
        request.results[result.service] = result
        if result.service in request.turns:
            request.turns.remove(result.service)
        elif request.turns:
            self._pass_turn(request, result, out)
        self.close_if_done(request, out)

    def _pass_turn(self, request: Request, result: ServiceResult, out: list[Action]) -> None:
        """One service of a rolling restart is done: the next one's turn, or, after a failure, nobody's."""
        if result.outcome is Outcome.DONE:
            self.due[request] = None
            return
        text = f"not restarted: {result.service} did not come back"
        for name in tuple(request.turns):
            self._settle(request, ServiceResult(name, Outcome.FAILED, f"{name} was {text}"), out)

    def _forget_goal(self, name: str, request: Request) -> None:
        waiting = self._waiting_for[name]
        del waiting[request]
        if not waiting:
            del self._waiting_for[name]
