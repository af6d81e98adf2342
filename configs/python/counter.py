"""A service as a class: it counts, a step a second.

Must not block: its methods share one event loop.
"""

import asyncio
from typing import Any

from svcd import Service


class Counter(Service):
    async def init(self, config: dict[str, Any]) -> None:
        self.step: int = config.get("step", 1)
        self.total = 0

    async def start(self) -> None:
        self.counting = asyncio.create_task(self._count())

    async def stop(self, reason: str) -> None:
        self.counting.cancel()
        self.ctx.logger.info("counted", total=self.total, reason=reason)

    async def _count(self) -> None:
        while True:
            self.total += self.step
            print(f"total {self.total}", flush=True)
            await asyncio.sleep(1)
