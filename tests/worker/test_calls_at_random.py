"""Many calls and streams at once, cancelled, timed out and cut off at random: each ends, none is begun twice, and
nothing of them is left on either side.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from svcd.protocol.call_errors import CallError, RemoteError
from svcd.worker_runtime.calls.methods import rpc
from svcd.worker_runtime.calls.peers import Peers
from svcd.worker_runtime.calls.routes import Address
from tests.worker.peers_stage import Stage, play, settled

ROUNDS = 60
SIZES = (0, 200, 300, 40_000, 70_000, 2_000_000)  # of what goes in one frame, long ones, and of one's own
TIMEOUTS_S = (None, 0.005, 0.05)


class Shop:
    peers: Peers

    def __init__(self, begun: Counter[int]) -> None:
        self._begun = begun

    @rpc
    async def quick(self, number: int) -> int:
        self._begun[number] += 1
        return number

    @rpc
    async def slow(self, number: int, wait_s: float) -> int:
        self._begun[number] += 1
        await asyncio.sleep(wait_s)
        return number

    @rpc
    async def broken(self, number: int) -> int:
        self._begun[number] += 1
        raise ValueError("no")

    @rpc
    def plain(self, number: int) -> int:
        self._begun[number] += 1
        return number

    @rpc
    async def large(self, number: int, block: bytes) -> bytes:
        self._begun[number] += 1
        return block

    @rpc
    async def rows(self, count: int) -> AsyncIterator[int]:
        for index in range(count):
            yield index


class Customers:
    """``ask`` one thing or another; ``outcomes`` says how that ended."""

    def __init__(self, caller: Peers, chance: random.Random) -> None:
        self._caller = caller
        self._chance = chance
        self._next = 0
        self.outcomes: Counter[str] = Counter()
        self._ways: list[Callable[[int, float | None], Awaitable[None]]] = [
            *(self._quick,) * 4,
            self._slow,
            self._broken,
            self._plain,
            self._large,
            self._rows,
        ]

    async def ask(self) -> None:
        self._next += 1
        try:
            await self._chance.choice(self._ways)(self._next, self._chance.choice(TIMEOUTS_S))
        except CallError as error:
            self.outcomes[type(error).__name__] += 1
        else:
            self.outcomes["answered"] += 1

    async def _quick(self, number: int, timeout: float | None) -> None:
        assert await self._caller.call("shop.quick", number, timeout=timeout) == number

    async def _slow(self, number: int, timeout: float | None) -> None:
        assert await self._caller.call("shop.slow", number, self._chance.random() / 20, timeout=timeout) == number

    async def _broken(self, number: int, timeout: float | None) -> None:
        with pytest.raises(CallError) as caught:
            await self._caller.call("shop.broken", number, timeout=timeout)
        if type(caught.value) is RemoteError:
            assert caught.value.type == "ValueError"

    async def _plain(self, number: int, timeout: float | None) -> None:
        assert await self._caller.call("shop.plain", number, timeout=timeout) == number

    async def _large(self, number: int, timeout: float | None) -> None:
        block = bytes(self._chance.choice(SIZES))
        assert await self._caller.call("shop.large", number, block, timeout=timeout) == block

    async def _rows(self, _number: int, timeout: float | None) -> None:
        count, taken = self._chance.randrange(100), list[int]()
        async with self._caller.stream("shop.rows", count, timeout=timeout) as rows:
            async for row in rows:
                taken.append(row)
                if self._chance.random() < 0.01:
                    break
        assert taken == list(range(len(taken)))


@pytest.mark.parametrize("seed", range(3))
def test_each_call_ends_and_none_is_begun_twice(seed: int) -> None:
    chance, begun = random.Random(seed), Counter[int]()

    async def scene(stage: Stage) -> None:
        shops = [stage.serve(Shop(begun), "shop"), stage.serve(Shop(begun), "shop")]
        caller = stage.client()
        customers, asking = Customers(caller, chance), list[asyncio.Task[None]]()
        for _ in range(ROUNDS):
            asking += [asyncio.create_task(customers.ask()) for _ in range(chance.randrange(1, 60))]
            await asyncio.sleep(chance.choice((0, 0, 0, 0.001, 0.01)))
            for each in asking:
                if chance.random() < 0.01:
                    each.cancel()
            if chance.random() < 0.1:
                shops.append(stage.serve(Shop(begun), "shop"))
                await leave(stage, shops, chance)
        for error in await asyncio.gather(*asking, return_exceptions=True):
            assert error is None or type(error) is asyncio.CancelledError
        assert set(begun.values()) == {1}
        assert customers.outcomes["answered"] > ROUNDS
        await settled(lambda: all(each.offered.in_flight.count == 0 for each in shops))
        assert not any(each.offered.token._children for each in shops)
        links = caller._caller._links.values()
        await settled(lambda: not any(each.pending or each._wire.backlog_bytes for each in links))

    async def leave(stage: Stage, shops: list[Peers], chance: random.Random) -> None:
        """The oldest: it drains first, or not."""
        oldest = shops.pop(0)
        gone: Address = oldest.address  # type: ignore[attr-defined]
        stage.announce("shop", tuple(each for each in stage.found["shop"] if each != gone))
        if chance.random() < 0.5:
            await oldest.drain(chance.choice((0, 0.02)))
        oldest.close()

    play(scene)
