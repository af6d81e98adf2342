"""The console, which comes up beside us: a cluster that is over before it could ask anything is told to it as well.

Must not tell anything itself: a status answers the console's first question like anybody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

CONSOLE: Final = "console"
PATIENCE_S: Final = 5.0
LOOK_EVERY_S: Final = 0.01


class Audience:
    """``parts``: name -> pid of svcd's parts, those that run."""

    def __init__(self, parts: Mapping[str, int]) -> None:
        self._parts = parts
        self._has_asked = False

    def asked(self, pid: int) -> None:
        """A client has a question."""
        if not self._has_asked and pid == self._parts.get(CONSOLE):
            self._has_asked = True

    async def wait(self) -> None:
        """Until the console has asked, if there is one: no longer than it may reasonably take to come up."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + PATIENCE_S
        while CONSOLE in self._parts and not self._has_asked and loop.time() < deadline_s:
            await asyncio.sleep(LOOK_EVERY_S)
