"""CPU and memory of the programs, sampled with psutil in small slices; Python services report their own.

Must not do anything while nobody could see it, and never hold up the loop for more than a slice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from svcd.supervisor.controller import clock

if TYPE_CHECKING:
    import psutil

INTERVAL_S: Final = 5.0
SLICE: Final = 25

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
        self._known: dict[int, psutil.Process] = {}
        self._left: list[Target] = []
        self._timer: asyncio.TimerHandle | None = loop.call_later(INTERVAL_S, self._round)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _round(self) -> None:
        self._left = list(self._targets())
        pids = {pid for _, pid in self._left}
        self._known = {pid: process for pid, process in self._known.items() if pid in pids}
        self._slice()

    def _slice(self) -> None:
        batch, self._left = self._left[:SLICE], self._left[SLICE:]
        for service, pid in batch:
            self._sample(service, pid)
        delay_s = 0.0 if self._left else INTERVAL_S
        if self._timer is not None:
            self._timer = self._loop.call_later(delay_s, self._slice if self._left else self._round)

    def _sample(self, service: str, pid: int) -> None:
        import psutil  # noqa: PLC0415 - 6 ms of a start, and nobody is sampled before the first interval is over

        try:
            process = self._known.get(pid) or self._known.setdefault(pid, psutil.Process(pid))
            with process.oneshot():
                times, memory = process.cpu_times(), process.memory_info()
        except psutil.Error:
            return
        self._take(service, clock.now(), times.user + times.system, memory.rss)
