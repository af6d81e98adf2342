"""The one road to the core: events go in one at a time, each event's actions are carried out in their order.

Must not decide anything, and must not know what an action does: executors are handed in by type.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from svcd.supervisor.core.actions import Action
from svcd.supervisor.core.events import Event
from svcd.supervisor.core.machine import Machine


def _nobody_hears(changed: tuple[str, ...]) -> None:
    """Until the engine is connected."""


class Engine:
    """Feeds ``machine`` and carries out what it orders.

    An executor may submit further events (an effect that failed at once, say); they wait for their turn, so that the
    machine never sees an event in the middle of another's actions.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._executors: Mapping[type, Callable[[Any], None]] = {}
        self._changed: Callable[[tuple[str, ...]], None] = _nobody_hears
        self._waiting: deque[Event] = deque()
        self._busy = False

    def connect(
        self, executors: Mapping[type, Callable[[Any], None]], changed: Callable[[tuple[str, ...]], None]
    ) -> None:
        """Say who carries out which type of action, every type having one, and who hears whose view has changed.

        Raises:
            ValueError: when an action type has no executor.
        """
        missing = [kind.__name__ for kind in Action.__args__ if kind not in executors]
        if missing:
            raise ValueError(f"no executor for {', '.join(missing)}")
        self._executors = executors
        self._changed = changed

    def submit(self, event: Event) -> None:
        """Tell the core what happened and carry out its orders, now or, inside of another event, right after it."""
        self._waiting.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while self._waiting:
                orders = self.machine.handle(self._waiting.popleft())
                self._changed(self.machine.changed)
                for action in orders:
                    self._executors[type(action)](action)
        finally:
            self._busy = False
