"""What a service's context offers of other services: joined and not, as a service's author writes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from svcd import Context, RemoteError, Service, StateError, on_event, rpc
from svcd.worker_runtime.flags import Stopping
from tests.worker.peers_stage import Stage, play, settled


class Billing(Service):
    def __init__(self) -> None:
        self.heard: list[str] = []

    @rpc
    async def charge(self, user: str, cents: int) -> dict[str, int]:
        assert self.ctx.request is not None
        assert self.ctx.in_flight.count == 1
        assert self.ctx.request.token.parent is self.ctx.endpoint_token
        assert self.ctx.endpoint_token.parent is self.ctx.primary_token
        self.ctx.publish("charged", user)
        return {user: cents}

    @rpc
    async def history(self, user: str) -> AsyncIterator[str]:
        yield user

    @rpc
    def plain(self) -> Any:
        return self.ctx.call_sync("billing.nothing")

    @on_event("billing.charged")
    async def charged(self, user: str) -> None:
        self.heard.append(user)


def context(name: str) -> Context:
    return Context(name, "shop", 0, 1, {}, Stopping(), lambda error: None)


def test_as_in_the_design() -> None:
    async def scene(stage: Stage) -> None:
        billing = Billing()
        billing.ctx = context("billing")
        billing.ctx.join(stage.serve(billing))
        publisher = stage.peers[0].publisher
        assert publisher is not None
        await settled(lambda: [bool(each._topics) for each in publisher.subscribers] == [True])
        ctx = context("web")
        ctx.join(stage.client("web"))
        assert await ctx.call("billing.charge", user="ann", cents=5) == {"ann": 5}
        assert await ctx.service(Billing, timeout=20.0).charge(user="bob", cents=1) == {"bob": 1}
        assert [row async for row in ctx.stream("billing.history", user="ann")] == ["ann"]
        assert [row async for row in ctx.service(Billing).history(user="ann")] == ["ann"]
        with pytest.raises(RemoteError, match="billing has no method 'nothing'"):
            await ctx.call("billing.plain")
        await settled(lambda: billing.heard == ["ann", "bob"])
        assert ctx.request is None
        with pytest.raises(StateError, match=r"use 'await ctx\.call"):
            ctx.call_sync("billing.charge", user="ann", cents=5)
        with pytest.raises(StateError, match="web does not serve requests"):
            _ = ctx.in_flight

    play(scene)


def test_who_is_not_connected_is_told_so() -> None:
    ctx = context("web")
    with pytest.raises(StateError, match="web cannot reach other services"):
        asyncio.run(ctx.call("billing.charge"))
    with pytest.raises(StateError, match="web cannot reach other services"):
        ctx.publish("created")
