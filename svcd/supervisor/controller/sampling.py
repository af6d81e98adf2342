"""CPU and memory of the programs, sampled in small slices; Python services report their own.

Must not do anything while nobody could see it, and never hold up the loop for more than a slice.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from typing import Final

from svcd.supervisor.controller import clock
from svcd.supervisor.controller.containment import stat_fields

INTERVAL_S: Final = 5.0
SLICE: Final = 25
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
USER_TICKS, SYSTEM_TICKS, RSS_PAGES = 11, 12, 21  # places among the fields of /proc/PID/stat from the third one on

Target = tuple[str, int]


class Sampler:
    """Every ``INTERVAL_S`` seconds, asks ``targets`` for (service, pid) pairs and gives ``take`` what each uses."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        targets: Callable[[], Iterable[Target]],
        take: Callable[[str, float, float, int], None],
    ) -> None:
        self._loop = loop
        self._targets = targets
        self._take = take
        self._left: list[Target] = []
        self._timer: asyncio.TimerHandle | None = loop.call_later(INTERVAL_S, self._round)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _round(self) -> None:
        self._left = list(self._targets())
        self._slice()

    def _slice(self) -> None:
        batch, self._left = self._left[:SLICE], self._left[SLICE:]
        for service, pid in batch:
            self._sample(service, pid)
        delay_s = 0.0 if self._left else INTERVAL_S
        if self._timer is not None:
            self._timer = self._loop.call_later(delay_s, self._slice if self._left else self._round)

    def _sample(self, service: str, pid: int) -> None:
        fields = stat_fields(pid)
        if fields is not None:
            cpu_s = (int(fields[USER_TICKS]) + int(fields[SYSTEM_TICKS])) / TICKS_PER_S
            self._take(service, clock.now(), cpu_s, int(fields[RSS_PAGES]) * PAGE_BYTES)
