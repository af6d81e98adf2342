"""Startable by itself: every state and call, joined waits, stops during starts, hooks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from startables import Boom, Gated, brought_to, outcome_of, put_away, quiet, run, run_clean, watch

from svcd import Startable, State, StateError
from svcd.worker_runtime.lifetime.life import AT_START, AT_STOP, FOLLOWING, Answer


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
