"""Customers that order and visit until they are stopped; then it says how many did, and whether anything went wrong.

Must not forgive: an order that fails, or that billing has charged twice or not at all, is told.
"""

import asyncio
import signal
import sys
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable

from shop.billing import Billing
from shop.orders import Orders
from svcd import AsyncClient

CUSTOMERS, VISITORS = 8, 2
THINKING_S = 0.02
USER = "load"


class Crowd:
    """``charged``: cents, by the receipts that were handed out; ``orders``: their number, by version of billing."""

    def __init__(self, client: AsyncClient, url: str) -> None:
        self.client = client
        self.url = url
        self.orders = Counter[str]()
        self.charged = self.visits = 0
        self.failures: list[str] = []

    async def order(self) -> None:
        order = await self.client.service(Orders).place(USER, "tea")
        self.orders[order.receipt.version] += 1
        self.charged += order.receipt.cents

    async def visit(self) -> None:
        """A new connection each time, as most visitors come."""
        await asyncio.to_thread(lambda: urllib.request.urlopen(self.url, timeout=30).read())
        self.visits += 1

    async def repeat(self, act: Callable[[], Awaitable[None]], stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                await act()
            except Exception as error:  # whatever it is, it is what a customer would have seen
                self.failures.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(THINKING_S)


async def run(url: str) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with AsyncClient() as client:
        billing = client.service(Billing)
        before = await billing.paid(USER)
        crowd = Crowd(client, url)
        await crowd.order()
        print("ordering", flush=True)
        async with asyncio.TaskGroup() as group:
            for act in [crowd.order] * CUSTOMERS + [crowd.visit] * VISITORS:
                group.create_task(crowd.repeat(act, stopping))
        tell(crowd, await billing.paid(USER) - before)


def tell(crowd: Crowd, charged: int) -> None:
    versions = ", ".join(f"{number} by version {version}" for version, number in sorted(crowd.orders.items()))
    print(f"{crowd.orders.total()} orders ({versions}), {crowd.visits} visits")
    print(f"failures: {'; '.join(crowd.failures[:5]) or 'none'}")
    print(f"charged once each: {'yes' if charged == crowd.charged else f'no, {charged} for {crowd.charged} cents'}")


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1]))
