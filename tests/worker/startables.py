"""What the tests of Startable share: a body whose raw calls are let go one by one, and a loop that hears everything.

Must not know the rules that it helps to test.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from svcd import Outcome, Startable, State

DEADLINE_S = 30.0
QUIET_TICKS = 12  # more than any chain of callbacks here is long


class Boom(Exception):  # noqa: N818 - the shorter word reads better
    """What goes wrong on purpose."""


class Gated(Startable):
    """Its raw start and stop last until ``let`` is called; ``calls`` says what has begun, and with which error."""

    def __init__(self, calls: list[Any] | None = None) -> None:
        self.calls: list[Any] = [] if calls is None else calls
        self.gate: asyncio.Future[None] | None = None

    async def raw_start(self) -> None:
        self.calls.append("start")
        await self._wait()

    async def raw_stop(self, error: BaseException | None) -> None:
        self.calls.append(("stop", error))
        await self._wait()

    async def _wait(self) -> None:
        self.gate = asyncio.get_running_loop().create_future()
        try:
            await self.gate
        finally:
            self.gate = None

    def let(self, error: BaseException | None = None) -> None:
        """The raw call that runs ends, well or with ``error``."""
        assert self.gate is not None, "no raw call is running"
        if error is None:
            self.gate.set_result(None)
        elif isinstance(error, asyncio.CancelledError):
            self.gate.cancel()
        else:
            self.gate.set_exception(error)


async def quiet(ticks: int = QUIET_TICKS) -> None:
    """Until nothing more follows from what has been done."""
    for _ in range(ticks):
        await asyncio.sleep(0)


async def outcome_of(awaitable: Awaitable[object]) -> BaseException | None:
    """What awaiting it raises."""
    try:
        await awaitable
    except BaseException as error:
        return error
    return None


def watch(outcome: Outcome) -> asyncio.Task[BaseException | None]:
    """A waiter of its own."""
    return asyncio.ensure_future(outcome_of(outcome))


def run(main: Callable[[list[dict[str, Any]]], Coroutine[Any, Any, object]]) -> list[dict[str, Any]]:
    """Run ``main`` on a loop; no task may be left, and what the loop complained of is returned and given to it."""
    complaints: list[dict[str, Any]] = []

    async def whole() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        await asyncio.wait_for(main(complaints), DEADLINE_S)
        await quiet()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        gc.collect()

    asyncio.run(whole())
    gc.collect()
    return complaints


def run_clean(main: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """``run``, for what nobody complains of."""
    assert run(lambda _complaints: main()) == []


async def brought_to(state: State) -> Gated:
    """One that stands there."""
    it = Gated()
    if state is State.READY:
        return it
    it.start()
    await quiet()
    if state is not State.STARTING:
        it.let()
        await quiet()
    if state in (State.STOPPING, State.STOPPED):
        it.stop()
        await quiet()
    if state is State.STOPPED:
        it.let()
        await quiet()
    assert it.state is state
    return it


async def put_away(it: Gated) -> None:
    """To its end, from wherever it stands."""
    it.stop()
    for _ in range(2):
        await quiet()
        if it.gate is not None:
            it.let()
    await it.stop()
    assert it.state is State.STOPPED


def own_task(it: Startable) -> asyncio.Task[Any]:
    """The one in which its raw calls run."""
    [task] = [task for task in asyncio.all_tasks() if task.get_name().startswith(type(it).__name__)]
    return task
