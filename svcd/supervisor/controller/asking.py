"""What the core is asked, and who is told how each of these requests has ended: clients, stubs, the daemon itself.

Must not know what a request means, nor what its end does to whoever asked.
"""

from __future__ import annotations

from collections.abc import Callable

from svcd.supervisor.core.actions import AnswerRequest
from svcd.supervisor.core.events import Event

Make = Callable[[str], Event]
"""Given the id that its answer will carry."""

Told = Callable[[AnswerRequest], None]
"""Told once, perhaps before ``ask`` returns."""


class Asking:
    """``ask`` numbers a request and submits it; ``answer`` carries out the core's ``AnswerRequest``."""

    def __init__(self, submit: Callable[[Event], None]) -> None:
        self._submit = submit
        self._count = 0
        self._asked: dict[str, Told] = {}

    def ask(self, make: Make, told: Told) -> None:
        self._count += 1
        key = f"request-{self._count}"
        self._asked[key] = told
        self._submit(make(key))

    def answer(self, action: AnswerRequest) -> None:
        """The end of a request: it is of nobody's here that was asked without an id of ours."""
        told = self._asked.pop(action.request, None)
        if told is not None:
            told(action)
