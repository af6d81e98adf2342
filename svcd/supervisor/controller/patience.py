"""Patience with others: with services, and with svcd's own other processes.

Must not know what is waited for, nor what follows when it does not come.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from svcd.supervisor.controller import clock

TURNS: Final = 5
LATE_S: Final = 0.05  # how late a turn may come on a machine that is busy, and does not stand still
EARLY_S: Final = 0.001  # what loops are exact to


class Patience:
    """Calls ``call`` after ``delay_s``, of which a stall uses up one turn only.

    When the whole machine has stood still, for however long, so has whoever is waited for. Were the clock alone to
    decide, the end of a stall would be the end of every short timeout, while what was to come within it is on its way,
    or there already and not read.
    """

    __slots__ = ("_began_s", "_call", "_left_s", "_loop", "_timer", "_turn_s")

    def __init__(self, loop: asyncio.AbstractEventLoop, delay_s: float, call: Callable[[], None]) -> None:
        self._loop = loop
        self._call = call
        self._left_s = delay_s
        self._turn_s = delay_s / TURNS
        self._begin()

    def cancel(self) -> None:
        self._timer.cancel()

    def cancelled(self) -> bool:
        return self._timer.cancelled()

    def _begin(self) -> None:
        self._began_s = clock.now()
        self._timer = self._loop.call_later(min(self._turn_s, self._left_s), self._turn)

    def _turn(self) -> None:
        self._left_s -= min(clock.now() - self._began_s, self._turn_s + LATE_S)
        if self._left_s > EARLY_S:
            self._begin()
        else:
            self._call()


@asynccontextmanager
async def within(delay_s: float) -> AsyncIterator[None]:
    """``asyncio.timeout`` with patience."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as bound:
        patience = Patience(loop, delay_s, lambda: bound.reschedule(loop.time()))
        try:
            yield
        finally:
            patience.cancel()
