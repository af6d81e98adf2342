"""What was sold, counted by a pool of child services: each keeps the orders of its own share of the users.

Must not keep orders itself: a shard that has crashed reads them anew.
"""

import asyncio
import zlib
from collections import Counter
from collections.abc import Iterable
from typing import Any

from shop.orders import Orders
from shop.values import Order
from svcd import Child, Service, rpc

PATIENCE_S = 5.0


class Reports(Service):
    async def init(self, config: dict[str, Any]) -> None:
        self.size: int = config["shards"]

    async def start(self) -> None:
        await asyncio.gather(*map(self._spawn, range(self.size)))

    async def _spawn(self, number: int) -> "Child[Shard]":
        config = {"number": number, "of": self.size}
        return await self.ctx.spawn_service(f"shard-{number}", Shard, config=config, depends_on=["orders"])

    @rpc(retry="safe")
    async def sold(self) -> dict[str, int]:
        """Cents by product, the best sold first. A shard that is being restarted is waited for."""
        shards = (self.ctx.service(Shard, name, wait=PATIENCE_S) for name in self.ctx.children)
        total = Counter[str]()
        for part in await asyncio.gather(*(shard.sold() for shard in shards)):
            total.update(part)
        return dict(total.most_common())


class Shard(Service):
    async def init(self, config: dict[str, Any]) -> None:
        self.number, self.of = config["number"], config["of"]
        self.orders: dict[int, Order] = {}
        self.seen = 0

    @rpc(retry="safe")
    async def sold(self) -> dict[str, int]:
        """It reads what is new, and adds up beside the event loop."""
        async for order in self.ctx.service(Orders).history(after=self.seen):
            self._take(order)
        return await self.ctx.compute(add_up, list(self.orders.values()))

    def _take(self, order: Order) -> None:
        """Who asks at the same time brings the same orders: each counts once."""
        self.seen = max(self.seen, order.number)
        if zlib.crc32(order.user.encode()) % self.of == self.number:
            self.orders[order.number] = order


def add_up(orders: Iterable[Order]) -> dict[str, int]:
    total = Counter[str]()
    for order in orders:
        total[order.product] += order.receipt.cents
    return dict(total)
