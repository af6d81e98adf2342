"""Startable by itself: every state and call, joined waits, failures, cancellations, orders to exit, ``async with``."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from startables import Boom, Gated, outcome_of, quiet, run, run_clean, watch

from svcd import AbortedError, Startable, State, StateError
from svcd.worker_runtime.life import AT_START, AT_STOP, FOLLOWING, Answer


async def brought_to(state: State) -> Gated:
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
    it.stop()
    for _ in range(2):
        await quiet()
        if it.gate is not None:
            it.let()
    await it.stop()
    assert it.state is State.STOPPED


def test_the_tables_are_total() -> None:
    for table in (FOLLOWING, AT_START, AT_STOP):
        assert set(table) == set(State)
    reached = {State.READY}
    for _ in State:
        reached |= {following for state in reached for following in FOLLOWING[state]}
    assert reached == set(State)


AFTER_START: dict[State, tuple[State | None, list[str]]] = {
    State.READY: (State.STARTING, ["start"]),
    State.STARTING: (State.STARTING, ["start"]),
    State.STARTED: (State.STARTED, ["start"]),
    State.STOPPING: (None, []),
    State.STOPPED: (None, []),
}


@pytest.mark.parametrize("state", State)
def test_start_in_every_state(state: State) -> None:
    async def main() -> None:
        it = await brought_to(state)
        expected, calls = AFTER_START[state]
        if expected is None:
            with pytest.raises(StateError, match=f"cannot start Gated: it is {state.value}, and runs only once"):
                it.start()
            assert AT_START[state] is Answer.REFUSE
            assert it.state is state
        else:
            outcome = it.start()
            assert it.state is expected  # at the call
            assert outcome.done() is (state is State.STARTED)
            assert it.start() is outcome
            await quiet()
            assert it.calls == calls
        await put_away(it)

    run_clean(main)


AFTER_STOP: dict[State, State] = {
    State.READY: State.STOPPED,
    State.STARTING: State.STARTING,
    State.STARTED: State.STOPPING,
    State.STOPPING: State.STOPPING,
    State.STOPPED: State.STOPPED,
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("error", [None, Boom("why")], ids=["well", "badly"])
def test_stop_in_every_state(state: State, error: Boom | None) -> None:
    async def main() -> None:
        it = await brought_to(state)
        calls = list(it.calls)
        if state is State.READY and error is not None:
            with pytest.raises(StateError, match="cannot stop Gated with an error: it was never started"):
                it.stop(error)
            assert it.state is State.READY
            assert it.errors == ()
        else:
            outcome = it.stop(error)
            assert it.state is AFTER_STOP[state]  # at the call
            assert outcome.done() is (it.state is State.STOPPED)
            assert it.stop() is outcome
            assert it.errors == (() if error is None else (error,))
            await quiet()
            assert it.calls == calls + ([("stop", error)] if state is State.STARTED else [])
        await put_away(it)
        assert [call for call in it.calls if call == "start"] == (["start"] if state is not State.READY else [])

    run_clean(main)


def test_what_was_stopped_before_it_started_never_starts() -> None:
    it = Gated()
    assert it.stop().done()  # needs no event loop
    assert it.ended.done()
    assert it.calls == []
    with pytest.raises(StateError, match="never started"):
        it.stop(Boom())
    with pytest.raises(StateError, match="it is stopped, and runs only once"):
        it.start()

    async def main() -> None:
        await it.stop()
        await it.ended

    run_clean(main)


def test_outside_a_loop_and_in_another_one_it_is_refused() -> None:
    it = Startable(name="pool")
    with pytest.raises(StateError, match="cannot start pool: no event loop runs in this thread"):
        it.start()
    with pytest.raises(StateError, match="never started"):
        it.stop(Boom())

    async def start() -> None:
        await it.start()

    async def stop() -> None:
        with pytest.raises(StateError, match="cannot stop pool: it belongs to another event loop"):
            it.stop()
        with pytest.raises(StateError, match="cannot start pool: it belongs to another event loop"):
            it.start()

    run_clean(start)
    run_clean(stop)
    with pytest.raises(StateError, match="no event loop runs"):
        it.stop()
    assert it.state is State.STARTED


# ---- waiting -------------------------------------------------------------------------------------------------------


def test_outcomes_are_awaited_often_and_by_several() -> None:
    async def main() -> None:
        it = Gated()
        starting = it.start()
        waiters = [watch(starting) for _ in range(3)]
        await quiet()
        it.let()
        assert [await waiter for waiter in waiters] == [None] * 3
        await starting
        await asyncio.gather(it.start(), starting)
        error = Boom("stop")
        stopping = it.stop()
        waiters = [watch(stopping), watch(it.stop())]
        await quiet()
        it.let(error)
        assert [await waiter for waiter in waiters] == [error, error]
        assert await outcome_of(stopping) is error
        assert await outcome_of(it.stop()) is error

    run_clean(main)


def test_a_cancelled_waiter_cancels_nobody_else() -> None:
    async def main() -> None:
        it = Gated()
        for begin in (it.start, it.stop):
            waiters = [asyncio.ensure_future(begin()) for _ in range(3)]
            await quiet()
            waiters[1].cancel()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(begin(), 0)
            await quiet()
            assert [waiter.done() for waiter in waiters] == [False, True, False]
            it.let()
            await quiet()
            assert [waiter.cancelled() for waiter in waiters] == [False, True, False]
        assert it.calls == ["start", ("stop", None)]

    run_clean(main)


def test_waiters_that_are_gone_are_not_kept() -> None:
    async def main() -> None:
        it = Gated()
        waiters = [asyncio.ensure_future(it.start()) for _ in range(3)]
        await quiet()
        assert len(it.start()._waiters) == 3
        for waiter in waiters:
            waiter.cancel()
        await quiet()
        assert len(it.start()._waiters) == 0
        it.let()
        await put_away(it)

    run_clean(main)


def test_the_traceback_does_not_grow_with_each_waiter() -> None:
    async def main() -> None:
        it = Startable(lambda: 1 / 0)
        outcome = it.start()
        await quiet()
        lengths = []
        for _ in range(3):
            error, length = await outcome_of(outcome), 0
            assert isinstance(error, ZeroDivisionError)
            traceback = error.__traceback__
            while traceback is not None:
                traceback, length = traceback.tb_next, length + 1
            lengths.append(length)
        assert len(set(lengths)) == 1

    run_clean(main)


def test_waiting_for_oneself_is_an_error_not_a_deadlock() -> None:
    seen: list[str] = []

    class Selfish(Startable):
        async def raw_start(self) -> None:
            for wait in (self.start(), self.stop(), self.ended):
                with pytest.raises(StateError, match="within it: that would last for ever") as caught:
                    await wait
                seen.append(str(caught.value).split(" within")[0])

        async def raw_stop(self, error: BaseException | None) -> None:
            with pytest.raises(StateError) as caught:
                await self.stop()
            seen.append(str(caught.value).split(" within")[0])
            await self.ended

    async def main() -> None:
        it = Selfish()
        await it.start()
        await it.stop()

    run_clean(main)
    waits = ["start() of Selfish", "stop() of Selfish", "the end of Selfish", "stop() of Selfish"]
    assert seen == [f"cannot wait for {wait}" for wait in waits]


# ---- stop while starting, failed starts ----------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, Boom("told")], ids=["well", "badly"])
@pytest.mark.parametrize("raised", [None, Boom("raw")], ids=["started", "failed"])
def test_a_stop_waits_for_the_start_to_end(given: Boom | None, raised: Boom | None) -> None:
    async def main() -> None:
        it, told = Gated(), []
        starting = watch(it.start(told.append))
        await quiet()
        stopping = watch(it.stop(given))
        await quiet()
        assert it.state is State.STARTING
        assert not it.ended.done()
        it.start(told.append)  # joins all the same
        it.let(raised)
        await quiet()
        reason = given or raised
        assert it.state is State.STOPPING
        assert it.calls == ["start", ("stop", reason)]
        assert told == [reason, reason]
        assert it.ended.error is reason
        assert starting.done() is (raised is None)  # a failed start is told when nothing is half open any more
        it.let()
        assert await starting is raised
        assert await stopping is None
        assert it.errors == tuple(error for error in (given, raised) if error is not None)

    run_clean(main)


def test_a_failed_start_is_followed_by_a_stop() -> None:
    async def main() -> None:
        it, told, error = Gated(), [], Boom("start")
        starting = watch(it.start(told.append))
        await quiet()
        it.let(error)
        await quiet()
        assert (it.state, told, starting.done()) == (State.STOPPING, [error], False)
        it.let()
        assert await starting is error
        assert (it.state, it.calls, it.errors) == (State.STOPPED, ["start", ("stop", error)], (error,))
        await it.stop()
        assert await outcome_of(it.ended) is error

    run_clean(main)


def test_when_the_stop_after_a_failed_start_fails_too_nothing_is_lost() -> None:
    async def main() -> None:
        it, first, second = Gated(), Boom("start"), OSError("stop")
        starting = it.start()
        await quiet()
        it.let(first)
        await quiet()
        it.let(second)
        assert await outcome_of(starting) is first
        assert await outcome_of(it.stop()) is second
        assert it.errors == (first, second)
        assert first.__notes__ == ["The stop of Gated that followed has failed too: OSError"]

    run_clean(main)


def test_the_first_error_counts_and_later_ones_are_kept() -> None:
    async def main() -> None:
        it, told = await brought_to(State.STARTED), []
        it.start(told.append)
        first, second, third = Boom(1), Boom(2), Boom(3)
        it.stop(first)
        it.stop(second)
        assert told == [first]
        await quiet()
        it.let()
        await it.stop(third)
        it.stop(first)
        assert it.errors == (first, second, third)
        assert it.calls[-1] == ("stop", first)
        assert await outcome_of(it.ended) is first

    run_clean(main)


def test_what_nobody_awaits_is_kept_and_not_complained_of() -> None:
    async def main() -> None:
        it = Startable(lambda: 1 / 0, lambda error: {}[error], name="wreck")
        it.start()
        await quiet()
        assert [type(error) for error in it.errors] == [ZeroDivisionError, KeyError]

    run_clean(main)


@pytest.mark.parametrize("error", ["text", 1, Boom], ids=["text", "number", "class"])
def test_an_error_that_is_no_exception_is_refused(error: Any) -> None:
    async def main() -> None:
        it = await brought_to(State.STARTED)
        with pytest.raises(TypeError, match=r"cannot stop Gated with \w+: an error is an exception, or None"):
            it.stop(error)
        assert it.state is State.STARTED
        await put_away(it)

    run_clean(main)


# ---- hooks ---------------------------------------------------------------------------------------------------------


def test_hooks_are_told_in_the_same_tick_before_the_raw_stop() -> None:
    async def main() -> None:
        it, error = await brought_to(State.STARTED), Boom("crash")
        told: list[Any] = []
        it.start(lambda given: told.append((given, it.state, it.ended.error, list(it.calls))))
        it.start(told.append)
        it.stop(error)
        assert told == [(error, State.STOPPING, error, ["start"]), error]  # nothing was awaited
        await quiet()
        it.let()
        await it.stop()
        assert len(told) == 2

    run_clean(main)


def test_hooks_that_raise_harm_nobody() -> None:
    async def main(complaints: list[dict[str, Any]]) -> None:
        it, told = await brought_to(State.STARTED), []

        def fail(_error: BaseException | None) -> None:
            raise Boom("hook")

        async def work() -> None: ...

        it.start(fail)
        it.start(lambda _error: (_ for _ in ()).throw(asyncio.CancelledError()))
        it.start(lambda _error: work())
        it.start(lambda _error: it.stop(Boom("again")))
        it.start(told.append)
        it.stop()
        assert told == [None]
        await quiet()
        assert it.calls == ["start", ("stop", None)]
        it.let()
        await it.stop()
        assert [type(each["exception"]) for each in complaints] == [Boom, asyncio.CancelledError, TypeError]
        assert complaints[0]["message"] == "a hook failed that was to be told that Gated is stopping"

    assert len(run(main)) == 3


@pytest.mark.parametrize("order", [SystemExit(3), KeyboardInterrupt()], ids=["exit", "interrupt"])
def test_an_order_to_exit_from_a_hook_leaves_the_loop_once_all_are_told(order: BaseException) -> None:
    told: list[BaseException | None] = []

    def leave(_error: BaseException | None) -> None:
        raise order

    async def main() -> None:
        it = Startable()
        await it.start(leave)
        it.start(told.append)
        await it.stop()
        told.append(Boom("still here"))
        await asyncio.sleep(0)

    with pytest.raises(type(order)) as caught:
        asyncio.run(main())
    assert caught.value is order
    assert told[0] is None


@pytest.mark.parametrize(
    ("hook", "words"),
    [(5, "cannot tell int of a stop: it is not callable"), (quiet, "cannot take an async function as a hook")],
    ids=["number", "async"],
)
def test_a_hook_that_cannot_be_called_is_refused(hook: Any, words: str) -> None:
    async def main() -> None:
        it = Gated()
        with pytest.raises(TypeError, match=words):
            it.start(hook)
        assert it.state is State.READY
        with pytest.raises(StateError, match="never started"):
            it.stop(Boom())

    run_clean(main)


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


def own_task(it: Startable) -> asyncio.Task[Any]:
    [task] = [task for task in asyncio.all_tasks() if task.get_name().startswith(type(it).__name__)]
    return task


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
    rooms = ["life", "outcome", "startable"]
    assert ended.stdout.split() == ["svcd", "svcd.worker_runtime", *(f"svcd.worker_runtime.{room}" for room in rooms)]
