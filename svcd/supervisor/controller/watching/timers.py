"""The services' timers: one of each kind per service, on the event loop.

Must not know what a timer is for; it only says that it fired.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from svcd.supervisor.controller import clock
from svcd.supervisor.controller.patience import Deadline
from svcd.supervisor.core.actions import ArmTimer, CancelTimer
from svcd.supervisor.core.events import TimerFired, TimerKind


class Timers:
    """Arms, replaces and cancels; ``submit`` gets a ``TimerFired`` for each that runs out."""

    def __init__(self, loop: asyncio.AbstractEventLoop, submit: Callable[[TimerFired], None]) -> None:
        self._loop = loop
        self._submit = submit
        self._armed: dict[tuple[str, TimerKind], asyncio.TimerHandle | Deadline] = {}

    def arm(self, action: ArmTimer) -> None:
        key = (action.service, action.kind)
        self._drop(key)
        if action.kind is TimerKind.RESTART:  # nobody else has to do anything until then
            self._armed[key] = self._loop.call_later(action.delay_s, self._fire, key, action.invocation)
        else:
            self._armed[key] = Deadline(self._loop, action.delay_s, self._fire, key, action.invocation)

    def cancel(self, action: CancelTimer) -> None:
        self._drop((action.service, action.kind))

    def cancel_all(self) -> None:
        for key in list(self._armed):
            self._drop(key)

    def _drop(self, key: tuple[str, TimerKind]) -> None:
        handle = self._armed.pop(key, None)
        if handle is not None:
            handle.cancel()

    def _fire(self, key: tuple[str, TimerKind], invocation: int) -> None:
        del self._armed[key]
        self._submit(TimerFired(clock.now(), key[0], invocation, key[1], clock.jitter()))
