"""The services' timers: one of each kind per service, on the event loop.

Must not know what a timer is for, beyond who waits in it; it only says that it fired.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from svcd.supervisor.controller import clock
from svcd.supervisor.core.actions import ArmTimer, CancelTimer
from svcd.supervisor.core.events import TimerFired, TimerKind

FOR_A_SERVICE: Final = frozenset(
    {TimerKind.READY, TimerKind.DRAIN, TimerKind.STOP, TimerKind.WATCHDOG, TimerKind.UPDATE}
)
"""The time that a service has to do something."""


class Timers:
    """Arms, replaces and cancels; ``submit`` gets a ``TimerFired`` for each that runs out."""

    def __init__(self, loop: asyncio.AbstractEventLoop, submit: Callable[[TimerFired], None]) -> None:
        self._loop = loop
        self._submit = submit
        self._armed: dict[tuple[str, TimerKind], asyncio.TimerHandle] = {}

    def arm(self, action: ArmTimer) -> None:
        key = (action.service, action.kind)
        self._drop(key)
        due = clock.now() + action.delay_s if action.kind in FOR_A_SERVICE else None
        self._armed[key] = self._loop.call_later(action.delay_s, self._fire, key, action.invocation, due)

    def cancel(self, action: CancelTimer) -> None:
        self._drop((action.service, action.kind))

    def cancel_all(self) -> None:
        for key in list(self._armed):
            self._drop(key)

    def _drop(self, key: tuple[str, TimerKind]) -> None:
        handle = self._armed.pop(key, None)
        if handle is not None:
            handle.cancel()

    def _fire(self, key: tuple[str, TimerKind], invocation: int, due: float | None) -> None:
        """``due``: when that should have been; None where it does not matter, or not any more."""
        late_s = 0.0 if due is None else clock.overslept_s(due)
        if late_s:
            self._armed[key] = self._loop.call_later(late_s, self._fire, key, invocation, None)
            return
        del self._armed[key]
        self._submit(TimerFired(clock.now(), key[0], invocation, key[1], clock.jitter()))
