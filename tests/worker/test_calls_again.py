"""What is asked again, and what never is: a call is begun once at most, unless twice is as good for its method."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from svcd.protocol.call_errors import DeadlineExceeded, Draining, ServiceUnavailable
from svcd.worker_runtime.calls.methods import methods_of, rpc
from svcd.worker_runtime.calls.peers import Peers
from svcd.worker_runtime.calls.routes import Address
from tests.worker.peers_stage import Stage, play, raised, settled


class Till:
    """Its first ``hang`` of each kind never answers."""

    peers: Peers
    begun = 0

    def __init__(self, answers: bool = False) -> None:
        self.answers = answers

    async def _asked(self) -> int:
        type(self).begun += 1
        if not self.answers:
            await asyncio.Event().wait()
        return type(self).begun

    @rpc
    async def charge(self) -> int:
        return await self._asked()

    @rpc(retry="safe")
    async def total(self) -> int:
        return await self._asked()

    @rpc(retry="safe")
    async def rows(self):  # type: ignore[no-untyped-def]
        yield 1

    @rpc
    async def tail(self):  # type: ignore[no-untyped-def]
        type(self).begun += 1
        yield 1
        await asyncio.Event().wait()


def _address(peers: Peers) -> Address:
    made: Address = peers.address  # type: ignore[attr-defined]
    return Address(made.calls, made.events, None, ("total",))


@pytest.fixture(autouse=True)
def _nothing_begun() -> None:
    Till.begun = 0


@pytest.mark.parametrize("withdrawn_first", [True, False])
def test_what_was_begun_is_not_asked_again_however_long_the_caller_waits(withdrawn_first: bool) -> None:
    async def scene(stage: Stage) -> None:
        old = stage.serve(Till(), announce=False)
        stage.announce("till", (_address(old),))
        call = asyncio.ensure_future(raised(stage.client().call("till.charge", wait=20)))
        await settled(lambda: Till.begun == 1)
        if withdrawn_first:
            stage.announce("till", ())
        old.close()
        assert type(await call) is ServiceUnavailable
        new = stage.serve(Till(answers=True), announce=False)
        stage.announce("till", (_address(new),))
        assert Till.begun == 1

    play(scene)


@pytest.mark.parametrize("withdrawn_first", [True, False])
def test_what_is_safe_is_asked_of_the_next_one(withdrawn_first: bool) -> None:
    async def scene(stage: Stage) -> None:
        old = stage.serve(Till(), announce=False)
        stage.announce("till", (_address(old),))
        call = asyncio.ensure_future(stage.client().call("till.total"))
        await settled(lambda: Till.begun == 1)
        if withdrawn_first:
            stage.announce("till", ())
        old.close()
        new = stage.serve(Till(answers=True), announce=False)
        stage.announce("till", (_address(new),))
        assert await call == 2

    play(scene)


def test_it_is_asked_again_within_the_deadline_only() -> None:
    async def scene(stage: Stage) -> None:
        for timeout in (0.1, 2, 20):  # as long as all that is to happen before needs here
            Till.begun = 0
            old = stage.serve(Till(), announce=False)
            stage.announce("till", (_address(old),))
            call = asyncio.ensure_future(raised(stage.client().call("till.total", timeout=timeout)))
            await settled(lambda call=call: Till.begun == 1 or call.done())  # type: ignore[misc]
            stage.announce("till", ())
            old.close()
            error = await call
            if type(error) is not DeadlineExceeded:  # which it would be if it was still served then
                break
        assert type(error) is ServiceUnavailable
        assert Till.begun == 1

    play(scene)


def test_streams_that_were_begun_are_not_asked_again() -> None:
    assert {name for name, each in methods_of(Till).items() if each.is_safe} == {"total"}

    async def scene(stage: Stage) -> None:
        old = stage.serve(Till(), announce=False)
        stage.announce("till", (_address(old),))
        rows = stage.client().stream("till.tail", wait=20)
        assert await anext(rows) == 1
        new = stage.serve(Till(), announce=False)
        stage.announce("till", (_address(new),))
        old.close()
        assert type(await raised(anext(rows))) is ServiceUnavailable
        assert await left(rows) == []
        assert Till.begun == 1

    play(scene)


async def left(rows: Any) -> list[Any]:
    return [row async for row in rows]


def test_a_stream_that_was_refused_is_asked_of_the_next_one() -> None:
    """It drains, and nobody else is there; then there is."""

    async def scene(stage: Stage) -> None:
        old = stage.serve(Till(), announce=False)
        stage.announce("till", (_address(old),))
        caller = stage.client()
        assert await left(caller.stream("till.rows")) == [1]
        old.offered.shut("it is about to stop")
        rows = asyncio.ensure_future(left(caller.stream("till.rows", wait=20)))
        links = caller._caller._links
        await settled(lambda: any(each.is_draining for each in links.values()))
        assert not rows.done()
        new = stage.serve(Till(), announce=False)
        stage.announce("till", (_address(new),))
        assert await rows == [1]

    play(scene)


def test_a_stream_that_was_refused_is_asked_of_another_instance_at_once() -> None:
    async def scene(stage: Stage) -> None:
        shut, other = stage.serve(Till()), stage.serve(Till())
        shut.offered.shut("it is about to stop")
        caller = stage.client()
        for _ in range(4):
            assert await left(caller.stream("till.rows")) == [1]
        assert other.offered.in_flight.count == 0

    play(scene)


@pytest.mark.parametrize("wait", [None, 0.05])
def test_a_stream_that_is_refused_for_long_enough_is_so_once(wait: float | None) -> None:
    async def scene(stage: Stage) -> None:
        stage.serve(Till()).offered.shut("it is about to stop")
        rows = stage.client().stream("till.rows", wait=wait)
        assert type(await raised(anext(rows))) is Draining
        assert await left(rows) == []

    play(scene)


@pytest.mark.parametrize("retry", ["always", ""])
def test_other_words_are_refused(retry: str) -> None:
    with pytest.raises(ValueError, match="say"):
        rpc(retry=retry)
