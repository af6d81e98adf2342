"""What raw starts and stops may be and raise: failures, cancellations, orders to exit; one task; ``async with``."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from startables import Boom, Gated, brought_to, outcome_of, own_task, quiet, run_clean, watch

from svcd import AbortedError, Startable, State, StateError

# ---- raw calls -----------------------------------------------------------------------------------------------------


def test_functions_sync_and_async_and_what_can_be_awaited() -> None:
    seen: list[Any] = []

    async def begin() -> None:
        seen.append("async")

    async def main() -> None:
        raws: list[Callable[[], Awaitable[object] | object]] = [
            lambda: seen.append("sync"),
            begin,
            lambda: begin(),  # noqa: PLW0108 - sync, and yet to be awaited
            lambda: Startable(begin).start(),
        ]
        for raw in raws:
            it = Startable(raw, seen.append)
            await it.start()
            await it.stop()
        await Startable().start()

    run_clean(main)
    assert seen == ["sync", None, "async", None, "async", None, "async", None]


def test_a_generator_is_no_raw_start() -> None:
    async def main() -> None:
        def plain() -> Any:
            yield

        async def other() -> Any:
            yield

        for raw in (plain, other):
            with pytest.raises(TypeError, match="the raw start of pool cannot be a generator: nobody would run it"):
                await Startable(raw, name="pool").start()

    run_clean(main)


def test_raw_calls_run_in_the_tick_after() -> None:
    async def main() -> None:
        calls: list[str] = []
        it = Startable(lambda: calls.append("start"), lambda error: calls.append("stop"))
        it.start()
        assert calls == []
        await asyncio.sleep(0)
        assert calls == ["start"]
        assert it.state is State.STARTED
        it.stop()
        assert calls == ["start"]
        await asyncio.sleep(0)
        assert (calls, it.state) == (["start", "stop"], State.STOPPED)

    run_clean(main)


@pytest.mark.parametrize("error", [StopIteration(), StopAsyncIteration(), GeneratorExit(), asyncio.CancelledError()])
@pytest.mark.parametrize("which", ["start", "stop"])
def test_exceptions_that_mean_something_to_python(error: BaseException, which: str) -> None:
    def fail() -> None:
        raise error

    async def main() -> None:
        it = Startable(fail) if which == "start" else Startable(None, lambda _error: fail())
        if which == "stop":
            await it.start()
        found = await outcome_of(it.start() if which == "start" else it.stop())
        assert isinstance(found, RuntimeError | StopAsyncIteration)
        if isinstance(error, GeneratorExit | asyncio.CancelledError):
            assert isinstance(found, AbortedError)
            assert str(found) == f"the raw {which} of Startable was cancelled"
            assert it.errors == (found,)
        assert error in (found, found.__cause__)
        await outcome_of(it.stop())
        assert it.state is State.STOPPED

    run_clean(main)


@pytest.mark.parametrize("begun", [False, True], ids=["before its first step", "under way"])
def test_a_cancelled_raw_start_is_a_failed_start(begun: bool) -> None:
    async def main() -> None:
        it, told = Gated(), []
        starting = watch(it.start(told.append))
        if begun:
            await quiet()
        task = own_task(it)
        task.cancel()
        await quiet()
        assert it.state is State.STOPPING
        assert task.cancelling() == 0  # the raw stop is a fresh start for those who look, such as asyncio.timeout
        it.let()
        error = await starting
        assert isinstance(error, AbortedError)
        assert isinstance(error.__cause__, asyncio.CancelledError)
        assert told == [error]
        assert it.calls == ["start"] * begun + [("stop", error)]
        await it.stop()

    run_clean(main)


@pytest.mark.parametrize("begun", [False, True], ids=["before its first step", "under way"])
def test_a_cancelled_raw_stop_is_a_failed_stop(begun: bool) -> None:
    async def main() -> None:
        it = await brought_to(State.STARTED)
        stopping = watch(it.stop())
        if begun:
            await quiet()
        own_task(it).cancel()
        assert isinstance(await stopping, AbortedError)
        assert it.state is State.STOPPED

    run_clean(main)


def test_the_end_of_the_loop_stops_what_is_starting() -> None:
    stopped: list[type] = []

    async def stop(error: BaseException | None) -> None:
        await asyncio.sleep(0)
        stopped.append(type(error))

    async def main() -> None:
        for _ in range(2):
            Startable(asyncio.Event().wait, stop).start()
            await asyncio.sleep(0)

    asyncio.run(main())
    assert stopped == [AbortedError, AbortedError]


@pytest.mark.parametrize("order", [SystemExit(3), KeyboardInterrupt()], ids=["exit", "interrupt"])
@pytest.mark.parametrize("which", ["start", "stop"])
def test_an_order_to_exit_goes_to_who_waits(order: BaseException, which: str) -> None:
    def leave(*_args: object) -> None:
        raise order

    async def main() -> None:
        it = Startable(leave) if which == "start" else Startable(None, leave)
        if which == "stop":
            await it.start()
        with pytest.raises(type(order)) as caught:
            await (it.start() if which == "start" else it.stop())
        assert caught.value is order
        assert it.state is State.STOPPED
        await asyncio.sleep(0)

    run_clean(main)


@pytest.mark.parametrize("which", ["start", "stop"])
def test_an_order_to_exit_that_nobody_waits_for_ends_the_loop(which: str) -> None:
    def leave(*_args: object) -> None:
        raise SystemExit(3)

    async def main() -> None:
        it = Startable(leave) if which == "start" else Startable(None, leave)
        if which == "stop":
            await it.start()
            it.stop()
        else:
            waiter = asyncio.ensure_future(it.start())
            await asyncio.sleep(0)
            waiter.cancel()
        await quiet()
        pytest.fail("the loop goes on")

    with pytest.raises(SystemExit) as caught:
        asyncio.run(main())
    assert caught.value.code == 3


# ---- async with ----------------------------------------------------------------------------------------------------


def test_as_a_block() -> None:
    calls: list[Any] = []

    async def main() -> None:
        async with Startable(lambda: calls.append("start"), calls.append) as it:
            assert it.state is State.STARTED
            calls.append("block")
        assert it.state is State.STOPPED
        error = Boom("block")
        with pytest.raises(Boom) as caught:
            async with Startable(None, calls.append):
                raise error
        assert caught.value is error
        assert calls == ["start", "block", None, error]

    run_clean(main)


def test_what_stopped_it_within_its_block_is_raised_where_nothing_else_is() -> None:
    async def main() -> None:
        error = Boom("crash")
        with pytest.raises(Boom) as caught:
            async with Startable() as it:
                it.stop(error)
        assert caught.value is error
        with pytest.raises(KeyError):  # noqa: PT012 - the block is what is tested
            async with Startable() as it:
                it.stop(error)
                raise KeyError
        assert it.errors[0] is error

    run_clean(main)


def test_a_block_is_not_entered_when_the_start_fails_or_is_overtaken() -> None:
    async def main() -> None:
        error = Boom("told")
        for given, raised in ((None, StateError), (error, Boom)):
            it = Gated()
            entering = asyncio.ensure_future(it.__aenter__())
            await quiet()
            it.stop(given)
            it.let()
            await quiet()
            assert not entering.done()
            it.let()
            with pytest.raises(raised):
                await entering
            assert it.state is State.STOPPED
        with pytest.raises(ZeroDivisionError):
            async with Startable(lambda: 1 / 0):
                pytest.fail("entered")

    run_clean(main)


def test_who_is_cancelled_while_entering_leaves_a_stop_behind() -> None:
    async def main() -> None:
        it = Gated()
        entering = asyncio.ensure_future(it.__aenter__())
        await quiet()
        entering.cancel()
        await quiet()
        assert (entering.cancelled(), it.state) == (True, State.STARTING)
        it.let()
        await quiet()
        assert it.calls == ["start", ("stop", None)]
        it.let()
        await it.stop()

    run_clean(main)


def test_a_cancelled_block_stops_without_an_error() -> None:
    async def main() -> None:
        it = Startable()

        async def block() -> None:
            async with it:
                await asyncio.Event().wait()

        task = asyncio.ensure_future(block())
        await quiet()
        task.cancel()
        await quiet()
        assert task.cancelled()
        assert (it.state, it.errors) == (State.STOPPED, ())

    run_clean(main)


# ---- raw start and stop in one task --------------------------------------------------------------------------------


VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="outside")


class Crew(Startable, one_task=True):
    """A task group, entered by the raw start and left by the raw stop."""

    async def raw_start(self) -> None:
        VARIABLE.set("inside")
        self.task = asyncio.current_task()
        self.group = await asyncio.TaskGroup().__aenter__()

    async def raw_stop(self, error: BaseException | None) -> None:
        assert asyncio.current_task() is self.task
        assert VARIABLE.get() == "inside"
        given = (type(error.__cause__), error.__cause__, None) if error is not None else (None, None, None)
        await self.group.__aexit__(*given)


def test_in_one_task_a_task_group_can_be_held() -> None:
    async def main() -> None:
        crew, seen = Crew(), []
        async with crew:
            crew.group.create_task(asyncio.sleep(0)).add_done_callback(seen.append)
        assert len(seen) == 1
        assert (crew.state, crew.errors, VARIABLE.get()) == (State.STOPPED, (), "outside")

    run_clean(main)


def test_in_one_task_a_failing_group_is_a_stop_by_itself() -> None:
    async def main() -> None:
        crew, told, error = Crew(), [], Boom("member")

        async def fail() -> None:
            raise error

        await crew.start(told.append)
        crew.group.create_task(fail())
        await quiet()
        assert [type(each) for each in told] == [AbortedError]
        found = await outcome_of(crew.stop())
        assert isinstance(found, ExceptionGroup)
        assert found.exceptions == (error,)
        assert crew.errors == (told[0], found)

    run_clean(main)


@pytest.mark.parametrize("first", ["cancelled", "stopped"])
def test_in_one_task_a_stop_and_a_cancellation_in_the_same_tick(first: str) -> None:
    async def main() -> None:
        it = Gated()
        Startable.__init__(it, one_task=True)
        it.start()
        await quiet()
        it.let()
        await quiet()
        steps = [own_task(it).cancel, it.stop]
        for step in steps if first == "cancelled" else steps[::-1]:
            step()
        assert it.state is State.STOPPING
        await quiet()
        assert it.calls == ["start", ("stop", None)]
        it.let()
        await it.stop()
        assert [type(error) for error in it.errors] == [AbortedError]

    run_clean(main)


def test_in_one_task_the_end_of_the_loop_stops_it() -> None:
    stopped: list[BaseException | None] = []

    async def main() -> None:
        await Startable(None, stopped.append, one_task=True, name="crew").start()

    asyncio.run(main())
    assert str(stopped) == "[AbortedError('the task of crew was cancelled')]"


def test_one_task_is_inherited_and_can_be_left() -> None:
    class Heir(Crew):
        pass

    class Other(Crew, one_task=False):
        async def raw_start(self) -> None: ...
        async def raw_stop(self, error: BaseException | None) -> None: ...

    async def main() -> None:
        before = len(asyncio.all_tasks())
        async with Heir():
            assert len(asyncio.all_tasks()) == before + 1
        async with Other():
            assert len(asyncio.all_tasks()) == before

    run_clean(main)


# ---- by itself -----------------------------------------------------------------------------------------------------


def test_a_subclass_may_use_any_name_and_need_not_call_super() -> None:
    class Crowded(Startable):
        def __init__(self, port: int) -> None:
            self.port = port
            self.name = self._name = self._life = self._task = self._hooks = self._parts = self._error = "mine"

    async def main() -> None:
        async with Crowded(80) as it:
            assert repr(it) == "<Crowded: started>"
            assert it.port == 80

    run_clean(main)
    assert repr(Startable(name="pool")) == "<pool: ready>"


def test_outcomes_say_what_they_are() -> None:
    async def main() -> None:
        it = Startable(name="pool")
        starting = it.start()
        assert repr(starting) == "<start() of pool: lasting>"
        await starting
        assert (repr(starting), starting.error, starting.done()) == ("<start() of pool: well>", None, True)
        it.stop(Boom())
        assert repr(it.ended) == "<the end of pool: Boom>"
        await it.stop()

    run_clean(main)


def test_it_works_with_eager_tasks_and_on_uvloop() -> None:
    """In a process of its own: uvloop keeps descriptors."""
    code = """
import asyncio, uvloop
from svcd import Startable, State
async def main():
    error = OSError()
    it = Startable(lambda: None, lambda error: None)
    it.start()
    assert it.state is State.STARTING
    await it.start()
    it.stop(error)
    await it.stop()
    return it.state is State.STOPPED and it.errors == (error,)
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    print(runner.run(main()))
with asyncio.Runner() as runner:
    runner.get_loop().set_task_factory(getattr(asyncio, "eager_task_factory", None))
    print(runner.run(main()))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.split() == ["True", "True"]


def test_importing_it_costs_asyncio_and_nothing_else_of_ours() -> None:
    code = "import sys, asyncio, svcd; svcd.Startable; print(*sorted(n for n in sys.modules if n.startswith('svcd')))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    rooms = ["lifetime", "lifetime.life", "lifetime.outcome", "lifetime.startable"]
    assert ended.stdout.split() == ["svcd", "svcd.worker_runtime", *(f"svcd.worker_runtime.{room}" for room in rooms)]
