"""What is asked again, and what never is: a call is begun once at most, unless twice is as good for its method."""

from __future__ import annotations

import asyncio

import pytest

from svcd.protocol.call_errors import ServiceUnavailable
from svcd.worker_runtime.methods import methods_of, rpc
from svcd.worker_runtime.peers import Peers
from svcd.worker_runtime.routes import Address
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
        old = stage.serve(Till(), announce=False)
        stage.announce("till", (_address(old),))
        call = asyncio.ensure_future(raised(stage.client().call("till.total", timeout=0.2)))
        await settled(lambda: Till.begun == 1)
        stage.announce("till", ())
        old.close()
        assert type(await call) is ServiceUnavailable

    play(scene)


def test_streams_are_not_asked_again() -> None:
    assert {name for name, each in methods_of(Till).items() if each.is_safe} == {"total"}


@pytest.mark.parametrize("retry", ["always", ""])
def test_other_words_are_refused(retry: str) -> None:
    with pytest.raises(ValueError, match="say"):
        rpc(retry=retry)
