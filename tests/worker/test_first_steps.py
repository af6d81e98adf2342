"""A request's first step runs as it is read: it is a task like any other all the same, and what it does to the loop,
to the endpoint or to itself meanwhile harms nobody else.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from svcd.protocol.call_errors import ServiceUnavailable
from svcd.worker_runtime.calls import eager
from svcd.worker_runtime.calls.cancellation import Token
from svcd.worker_runtime.calls.methods import rpc
from svcd.worker_runtime.calls.peers import Peers
from svcd.worker_runtime.calls.request import Request, current
from tests.worker.peers_stage import Stage, play, raised, settled

mood: ContextVar[str] = ContextVar("mood", default="calm")


class Desk:
    peers: Peers

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[Any] | None] = []
        self.ended: list[str] = []

    @rpc
    async def look(self) -> list[str]:
        """What this request finds, before and after it has changed it."""
        self.tasks.append(asyncio.current_task())
        before = mood.get()
        mood.set("wild")
        return [before, mood.get()]

    @rpc
    async def note(self, text: str) -> None:
        self.ended.append("noted")

    @rpc
    async def wait_within(self, timeout: float) -> str:
        try:
            async with asyncio.timeout(timeout), asyncio.TaskGroup() as group:
                group.create_task(asyncio.Event().wait())
        except TimeoutError:
            return "over"
        raise AssertionError

    @rpc
    async def close_up(self) -> None:
        self.peers.close()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise

    @rpc
    async def token(self) -> bool:
        request = current.get()
        assert request is not None
        assert self.peers.endpoint is not None
        return request.token is request.token and request.token.parent is self.peers.endpoint.token


def test_each_request_has_a_task_and_a_context_of_its_own() -> None:
    async def scene(stage: Stage) -> None:
        desk = Desk()
        stage.serve(desk)
        caller = stage.client()
        answers = await asyncio.gather(*(caller.call("desk.look") for _ in range(40)))
        assert answers == [["calm", "wild"]] * 40
        assert len(set(desk.tasks)) == 40
        assert all(task is not None and task.done() and task.get_name() == "look" for task in desk.tasks)
        assert mood.get() == "calm"

    play(scene)


def test_a_first_step_may_set_a_timeout_and_begin_tasks() -> None:
    async def scene(stage: Stage) -> None:
        stage.serve(Desk())
        assert await stage.client().call("desk.wait_within", 0.01) == "over"

    play(scene)


def test_a_request_that_closes_its_endpoint_before_it_waits_is_cancelled_when_it_does() -> None:
    async def scene(stage: Stage) -> None:
        desk = Desk()
        stage.serve(desk)
        assert type(await raised(stage.client().call("desk.close_up"))) is ServiceUnavailable
        await settled(lambda: desk.ended == ["cancelled"])

    play(scene)


def test_what_came_with_a_request_that_closes_its_endpoint_is_certain_not_to_have_begun() -> None:
    async def scene(stage: Stage) -> None:
        desk = Desk()
        stage.serve(desk)
        caller = stage.client()
        await caller.call("desk.look")
        text = "x" * 3000  # so that some are read with it, and some wait to be read
        asked = [caller.call("desk.close_up"), *(caller.call("desk.note", text) for _ in range(60))]
        closing, *others = await asyncio.gather(*asked, return_exceptions=True)
        assert "was lost before desk.close_up had ended" in str(closing)
        assert {str(each) for each in others} <= {
            "desk takes no new requests: it is about to stop",
            "desk has ended before it began with desk.note",
        }
        assert desk.ended == ["cancelled"]

    play(scene)


def test_a_request_has_one_token_below_the_endpoints_made_when_asked_for() -> None:
    async def scene(stage: Stage) -> None:
        served = stage.serve(Desk())
        caller = stage.client()
        assert await caller.call("desk.token")
        assert served.endpoint is not None
        await settled(lambda: not served.endpoint.token._children)  # type: ignore[union-attr]

    play(scene)


@pytest.mark.parametrize("is_asked_first", [True, False])
def test_the_token_of_a_request_that_was_stopped_says_why(is_asked_first: bool) -> None:
    request = Request(1, "look", "tester", None, Token(), is_sync=True)
    token = request.token if is_asked_first else None
    request.stop("nobody waits")
    assert request.token.reason == "nobody waits"
    assert token in (None, request.token)


def test_a_child_of_a_cancelled_token_is_cancelled() -> None:
    above = Token()
    request = Request(1, "look", "tester", None, above, is_sync=True)
    above.cancel("shut")
    assert request.token.reason == "shut"
    assert not request.is_stopped


# ---- the task itself -------------------------------------------------------------------------------------------------


async def end(seen: list[str], word: str) -> None:
    seen.append(word)


async def wait_and_end(seen: list[str], word: str) -> None:
    await asyncio.sleep(0)
    seen.append(word)


def within_callback(what: Any) -> Any:
    """What ``what()`` returns as a callback of a loop, once the loop has ended all that it has begun."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        found = loop.create_future()
        loop.call_soon(lambda: found.set_result(what(loop)))
        result = await found
        await settled(lambda: len(asyncio.all_tasks()) == 1)
        return result

    return asyncio.run(main())


def test_what_does_not_wait_has_ended_and_what_waits_is_a_task() -> None:
    seen: list[str] = []

    def begin(loop: asyncio.AbstractEventLoop) -> list[str]:
        assert eager.begin(loop, end(seen, "at once"), "one") is None
        task = eager.begin(loop, wait_and_end(seen, "later"), "two")
        assert task is not None
        assert task.get_name() == "two"
        assert "call_soon" not in vars(loop)
        return [*seen]

    assert within_callback(begin) == ["at once"]
    assert seen == ["at once", "later"]


def test_within_a_task_it_comes_to_its_end_as_well() -> None:
    seen: list[str] = []

    async def main() -> None:
        eager.begin(asyncio.get_running_loop(), wait_and_end(seen, "later"), "two")
        await settled(lambda: seen == ["later"])

    asyncio.run(main())


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_who_ends_the_process_in_a_first_step_ends_the_loops_run_and_not_what_is_begun_with_it(
    error: BaseException,
) -> None:
    seen: list[str] = []

    async def leave() -> None:
        raise error

    def begin(loop: asyncio.AbstractEventLoop) -> None:
        assert eager.begin(loop, leave(), "leave") is None
        assert eager.begin(loop, end(seen, "the next"), "next") is None

    with pytest.raises(type(error)):
        within_callback(begin)
    assert seen == ["the next"]


def test_what_else_is_queued_while_a_task_is_made_is_not_lost() -> None:
    """Finalizers do so, when the garbage collector comes by; here a task's name does."""
    seen: list[str] = []

    class Name(str):
        __slots__ = ()

        def __str__(self) -> str:
            asyncio.get_running_loop().call_soon(seen.append, "queued")
            return "loud"

    def begin(loop: asyncio.AbstractEventLoop) -> list[str]:
        assert eager.begin(loop, end(seen, "task"), Name()) is None
        return [*seen]

    assert within_callback(begin) == ["task"]
    assert seen == ["task", "queued"]
