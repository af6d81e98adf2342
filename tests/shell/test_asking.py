"""Who asks the core is told the end of it: once, and nobody else is."""

from __future__ import annotations

from typing import Any

from svcd.supervisor.controller.asking import Asking
from svcd.supervisor.core.actions import AnswerRequest, Outcome
from svcd.supervisor.core.events import StartRequested


class Scene:
    def __init__(self) -> None:
        self.submitted: list[Any] = []
        self.told: list[tuple[str, Outcome]] = []
        self.asking = Asking(self.submitted.append)

    def ask(self, who: str) -> str:
        """The id of the request."""
        self.asking.ask(lambda key: StartRequested(1.0, key, (who,)), lambda end: self.told.append((who, end.outcome)))
        return str(self.submitted[-1].request)

    def end(self, request: str, outcome: Outcome = Outcome.DONE) -> None:
        self.asking.answer(AnswerRequest(request, outcome))


def test_each_is_told_its_own_end_once_in_whatever_order() -> None:
    scene = Scene()
    first, second = scene.ask("a"), scene.ask("b")
    assert first != second
    scene.end(second, Outcome.FAILED)
    scene.end(first)
    scene.end(first)
    assert scene.told == [("b", Outcome.FAILED), ("a", Outcome.DONE)]


def test_an_id_of_somebody_else_is_nobodys_here() -> None:
    scene = Scene()
    scene.ask("a")
    scene.end("another")
    assert scene.told == []


def test_an_answer_may_come_at_once() -> None:
    scene = Scene()
    scene.asking = Asking(lambda event: scene.end(getattr(event, "request", "")))
    scene.asking.ask(lambda key: StartRequested(1.0, key, ()), lambda end: scene.told.append(("a", end.outcome)))
    assert scene.told == [("a", Outcome.DONE)]
