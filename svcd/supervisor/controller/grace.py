"""A moment's patience with news from another process of svcd's own.

Must not be used for what a service or a person is given time for: that is counted by the clock alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

TURNS: Final = 5


class Grace:
    """Calls ``call`` after ``delay_s``, of which a stall uses up one part only: when the whole machine has stood still,
    what we wait for has stood still with it, and is to have its moment now.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, delay_s: float, call: Callable[[], None]) -> None:
        self._loop = loop
        self._turn_s = delay_s / TURNS
        self._call = call
        self._left = TURNS
        self._timer = loop.call_later(self._turn_s, self._turn)

    def cancel(self) -> None:
        self._timer.cancel()

    def cancelled(self) -> bool:
        return self._timer.cancelled()

    def _turn(self) -> None:
        self._left -= 1
        if self._left:
            self._timer = self._loop.call_later(self._turn_s, self._turn)
        else:
            self._call()
