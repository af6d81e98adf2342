"""Deadlines that others are held to, on the event loop. What they cannot have done because this very process stood
still is not held against them: a machine that was frozen, swapped or stopped finds its services as they were.

Must not know whose deadline it is, nor what it is for.

A loop that comes back after a while runs the timers that are due before it reads what has arrived meanwhile: a sign of
life that lies in the socket would come too late. And where everything stood still, there is none yet: whoever was to
give it has to run first. Both are met by waiting once more, for as long as was lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from svcd.supervisor.controller import clock

STOOD_STILL_S: Final = 0.1
"""Who is told of a moment so long after it did not run meanwhile: a turn of our loop takes milliseconds."""


class Deadline:
    """Calls ``missed(*args)`` when ``patience_s`` seconds have passed in which this process ran; ``cancel`` ends that.

    What was lost is given once more up to ``patience_s`` in all: in that, all that was asked could have been done anew,
    and a process that is always late keeps its deadlines too.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, patience_s: float, missed: Callable[..., object], *args: Any
    ) -> None:
        self._loop = loop
        self._allowance_s = patience_s
        self._missed = missed
        self._args = args
        self._arm(patience_s)

    def cancel(self) -> None:
        self._timer.cancel()

    def _arm(self, delay_s: float) -> None:
        self._due_at = clock.now() + delay_s
        self._timer = self._loop.call_later(delay_s, self._due)

    def _due(self) -> None:
        lost_s = clock.now() - self._due_at
        given_s = min(lost_s, self._allowance_s)
        if lost_s < STOOD_STILL_S or given_s <= 0:
            self._missed(*self._args)
        else:
            self._allowance_s -= given_s
            self._arm(given_s)


@asynccontextmanager
async def within(patience_s: float) -> AsyncIterator[None]:
    """As ``asyncio.timeout``: raises ``TimeoutError`` where what is done in it takes longer."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as scope:
        deadline = Deadline(loop, patience_s, lambda: scope.reschedule(loop.time()))
        try:
            yield
        finally:
            deadline.cancel()
