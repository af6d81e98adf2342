"""Startables made of Startables: parts of one's own, what somebody else has started; methods guarded by state."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from startables import Boom, Gated, outcome_of, quiet, run_clean, watch

from svcd import Startable, State, StateError, guarded


class Named(Gated):
    """A part that writes into a common list."""

    def __init__(self, name: str, said: list[str]) -> None:
        super().__init__()
        self.said = said
        self.label = name

    async def raw_start(self) -> None:
        self.said.append(f"+{self.label}")

    async def raw_stop(self, error: BaseException | None) -> None:
        self.said.append(f"-{self.label}")


class Shop(Startable):
    """A parent of two."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.store, self.till = Named("store", self.said), Named("till", self.said)

    async def raw_start(self) -> None:
        await self.start_part(self.store)
        await self.start_part(self.till)
        self.said.append("+shop")

    async def raw_stop(self, error: BaseException | None) -> None:
        assert self.store.state is State.STARTED or error is not None
        self.said.append("-shop")


# ---- composition ---------------------------------------------------------------------------------------------------


def test_parts_start_in_order_and_stop_in_reverse_after_their_parent() -> None:
    async def main() -> None:
        shop = Shop()
        await shop.start()
        await shop.stop()
        assert shop.said == ["+store", "+till", "+shop", "-shop", "-till", "-store"]
        assert shop.store.errors == shop.till.errors == ()

    run_clean(main)


def test_a_part_that_crashes_stops_its_parent_in_the_same_tick() -> None:
    async def main() -> None:
        shop, told, error = Shop(), [], Boom("store")
        await shop.start(told.append)
        shop.store.stop(error)
        assert shop.state is State.STOPPING
        assert told == [error]
        assert shop.till.state is State.STARTED  # what the parent may still need to stop
        await shop.stop()
        assert shop.said[3:] in (["-store", "-shop", "-till"], ["-shop", "-store", "-till"])
        assert (shop.errors, shop.till.errors) == ((error,), ())

    run_clean(main)


def test_a_part_that_fails_to_start_fails_its_parent_and_the_others_stop() -> None:
    async def main() -> None:
        shop, error, told = Shop(), Boom("till"), []
        shop.till = Startable(lambda: outcome_raiser(error))  # type: ignore[assignment]
        assert await outcome_of(shop.start(told.append)) is error
        assert shop.said == ["+store", "-shop", "-store"]
        assert (shop.errors, told) == ((error,), [error])
        assert shop.state is shop.store.state is shop.till.state is State.STOPPED

    run_clean(main)


def outcome_raiser(error: BaseException) -> None:
    raise error


def test_a_part_that_crashes_while_its_parent_starts() -> None:
    async def main() -> None:
        error, store, till = Boom("store"), Gated(), Gated()

        async def begin() -> None:
            await shop.start_part(store)
            await shop.start_part(till)

        shop = Startable(begin, name="shop")
        starting = watch(shop.start())
        await quiet()
        store.let()
        await quiet()
        store.stop(error)
        assert (shop.state, till.state) == (State.STARTING, State.STARTING)  # which is not interrupted
        await quiet()
        store.let()
        till.let()
        await quiet()
        assert await starting is None
        assert (shop.state, shop.ended.error) == (State.STOPPING, error)
        till.let()
        await shop.stop()
        assert (store.state, till.state) == (State.STOPPED, State.STOPPED)

    run_clean(main)


def test_parts_started_at_once_are_all_put_away_when_one_fails() -> None:
    async def main() -> None:
        slow, error = Gated(), Boom()

        async def begin() -> None:
            await asyncio.gather(shop.start_part(slow), shop.start_part(Startable(lambda: outcome_raiser(error))))

        shop = Startable(begin)
        starting = watch(shop.start())
        await quiet()
        assert (shop.state, slow.state) == (State.STOPPING, State.STARTING)
        slow.let()
        await quiet()
        slow.let()
        assert await starting is error
        assert slow.calls == ["start", ("stop", None)]

    run_clean(main)


def test_all_parts_are_stopped_whatever_goes_wrong_and_all_of_it_is_told() -> None:
    async def main() -> None:
        first, second, third = Boom(1), Boom(2), Boom(3)

        def begin() -> None:
            for error in (first, second):
                shop.start_part(Startable(None, lambda _error, error=error: outcome_raiser(error)))

        shop = Startable(begin, lambda _error: outcome_raiser(third), name="shop")
        await shop.start()
        await quiet()
        found = await outcome_of(shop.stop())
        assert isinstance(found, ExceptionGroup)
        assert found.exceptions == (third, second, first)
        assert shop.errors == (third, second, first)

    run_clean(main)


def test_the_one_error_of_a_part_comes_out_as_it_is() -> None:
    async def main() -> None:
        error = Boom()
        shop = Startable(lambda: shop.start_part(Startable(None, lambda _error: outcome_raiser(error))))
        await shop.start()
        assert await outcome_of(shop.stop()) is error

    run_clean(main)


def test_a_part_can_be_added_later_but_not_to_what_is_stopping() -> None:
    async def main() -> None:
        shop, part, late = Gated(), Startable(), Startable(name="late")
        with pytest.raises(StateError, match="cannot start late for Gated: that one is ready, not starting or started"):
            shop.start_part(late)
        shop.start()
        await quiet()
        shop.let()
        await quiet()
        await shop.start_part(part)
        shop.stop()
        with pytest.raises(StateError, match="cannot start late for Gated: that one is stopping"):
            shop.start_part(late)
        with pytest.raises(StateError, match="cannot watch late for Gated: that one is stopping"):
            shop.watch(late)
        await quiet()
        assert part.state is State.STARTED  # the raw stop may need it
        shop.let()
        await shop.stop()
        assert (part.state, late.state) == (State.STOPPED, State.READY)

    run_clean(main)


def test_what_somebody_else_has_started_is_no_part() -> None:
    async def main() -> None:
        async with Startable(name="db") as db, Startable(name="shop") as shop:
            with pytest.raises(StateError, match="cannot start db as a part of shop: it is started; use watch"):
                shop.start_part(db)

    run_clean(main)


# ---- aggregation ---------------------------------------------------------------------------------------------------


def test_who_watches_is_told_and_does_not_own() -> None:
    async def main() -> None:
        db = Startable(name="db")
        await db.start()
        shop = Startable(lambda: shop.watch(db))
        await shop.start()
        await shop.stop()
        assert db.state is State.STARTED
        shop = Startable(lambda: shop.watch(db))
        await shop.start()
        error = Boom("db")
        db.stop(error)
        assert shop.state is State.STOPPING  # in the same tick
        await shop.stop()
        await db.stop()
        assert shop.errors == (error,)

    run_clean(main)


def test_what_is_watched_forgets_who_is_gone() -> None:
    async def main() -> None:
        told: list[str] = []

        class Shop(Startable):
            def stop(self, error: BaseException | None = None) -> Any:
                told.append(str(error))
                return super().stop(error)

        db = Startable()
        await db.start()
        shop = Shop(lambda: shop.watch(db))
        await shop.start()
        await shop.stop()
        await db.stop(Boom("late"))
        assert told == ["None"]

    run_clean(main)


@pytest.mark.parametrize("state", [State.READY, State.STOPPED])
def test_only_what_was_started_can_be_watched(state: State) -> None:
    async def main() -> None:
        db = Startable(name="db")
        if state is State.STOPPED:
            db.stop()
        async with Startable(name="shop") as shop:
            with pytest.raises(StateError, match=f"cannot watch db for shop: it is {state.value}, not started"):
                shop.watch(db)

    run_clean(main)


def test_a_start_in_progress_is_joined_and_its_failure_told() -> None:
    async def main() -> None:
        db, error = Gated(), Boom("db")
        db.start()

        async def begin() -> None:
            await shop.watch(db)

        shop = Startable(begin)
        starting = watch(shop.start())
        await quiet()
        db.let(error)
        await quiet()
        db.let()
        assert await starting is error

    run_clean(main)


def test_a_deep_tree_ends_in_one_tick_and_in_order() -> None:
    async def main() -> None:
        said: list[int] = []
        depth = 30

        def level(number: int) -> Startable:
            below = None if number == depth else level(number + 1)
            it = Startable(lambda: below and it.start_part(below), lambda _error: said.append(number))
            made.append(it)
            return it

        made: list[Startable] = []
        root = level(0)
        await root.start()
        await quiet(3 * depth)
        error = Boom()
        made[0].stop(error)
        assert {it.state for it in made} == {State.STOPPING}
        await root.stop()
        assert sorted(said) == list(range(depth + 1))
        assert root.errors == (error,)

    run_clean(main)


# ---- guarded methods -----------------------------------------------------------------------------------------------


class Pool(Startable):
    """One method of each kind."""

    closed = 0

    @guarded(State.STARTED)
    def take(self, what: int, *, twice: bool = False) -> int:
        """Take it."""
        return what * (2 if twice else 1)

    @guarded(State.STARTED, State.STOPPING)
    async def give(self, what: int) -> int:
        await asyncio.sleep(0)
        return what

    @guarded(State.STARTED)
    async def count(self, limit: int) -> AsyncIterator[int]:
        number = 0
        try:
            while number < limit:
                number = (yield number) or number + 1
        finally:
            await asyncio.sleep(0)
            self.closed += 1

    @asynccontextmanager
    @guarded(State.STARTED)
    async def borrowed(self) -> AsyncIterator[str]:
        try:
            yield "it"
        except Boom as error:
            raise KeyError("turned") from error

    @property
    @guarded(State.STARTED)
    def size(self) -> int:
        return 3


@pytest.mark.parametrize("state", State)
def test_guarded_methods_in_every_state(state: State) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        pool = Pool(gate.wait if state is State.STARTING else None, lambda _error: gate.wait())
        if state is not State.READY:
            pool.start()
            await quiet()
        if state in (State.STOPPING, State.STOPPED):
            pool.stop()
        if state is State.STOPPED:
            gate.set()
            await pool.stop()
        assert pool.state is state
        if state is State.STARTED:
            assert (pool.take(2, twice=True), pool.size) == (4, 3)
            assert [number async for number in pool.count(3)] == [0, 1, 2]
            async with pool.borrowed() as it:
                assert it == "it"
        else:
            with pytest.raises(
                StateError, match=rf"cannot call take\(\) of Pool: it is {state.value}, not started"
            ) as caught:
                pool.take(2)
            assert caught.value.__cause__ is None
            with pytest.raises(StateError):
                _ = pool.size
            counting = pool.count(3)
            with pytest.raises(StateError, match=r"cannot call count\(\)"):
                await anext(counting)
            with pytest.raises(StateError):
                await pool.borrowed().__aenter__()
        giving = pool.give(5)
        if state in (State.STARTED, State.STOPPING):
            assert await giving == 5
        else:
            with pytest.raises(StateError, match=rf"cannot call give\(\) of Pool: it is {state.value}, not started or"):
                await giving
        gate.set()
        await pool.stop()

    run_clean(main)


def test_a_guard_keeps_the_kind_and_the_name() -> None:
    assert inspect.iscoroutinefunction(Pool.give)
    assert inspect.isasyncgenfunction(Pool.count)
    assert not inspect.iscoroutinefunction(Pool.take)
    assert (Pool.take.__name__, Pool.take.__doc__) == ("take", "Take it.")
    assert str(inspect.signature(Pool.take)) == "(self, what: 'int', *, twice: 'bool' = False) -> 'int'"


def test_a_guard_says_what_it_stopped_with() -> None:
    async def main() -> None:
        pool, error = Pool(), Boom()
        await pool.start()
        pool.stop(error)
        with pytest.raises(StateError) as caught:
            pool.take(1)
        assert caught.value.__cause__ is error
        await pool.stop()

    run_clean(main)


def test_a_stream_is_told_when_its_state_is_left() -> None:
    async def main() -> None:
        pool = Pool()
        await pool.start()
        stream = pool.count(9)
        assert await anext(stream) == 0
        pool.stop(Boom())
        with pytest.raises(StateError, match="it is stopping, not started"):
            await anext(stream)
        assert pool.closed == 1
        assert await anext(stream, "over") == "over"
        await pool.stop()

    run_clean(main)


def test_a_stream_takes_what_is_sent_thrown_and_closed() -> None:
    async def main() -> None:
        async with Pool() as pool:
            stream: Any = pool.count(9)
            assert await anext(stream) == 0
            assert await stream.asend(7) == 7
            assert await outcome_of(stream.athrow(Boom())) is not None
            assert pool.closed == 1
            closing: Any = pool.count(9)
            await anext(closing)
            await closing.aclose()
            assert pool.closed == 2
            with pytest.raises(KeyError, match="turned"):
                async with pool.borrowed():
                    raise Boom

    run_clean(main)


def test_a_guard_needs_its_states() -> None:
    for states in ((), ("started",), (Pool.take,)):
        with pytest.raises(TypeError, match=r"write @guarded\(State.STARTED\)"):
            guarded(*states)  # type: ignore[arg-type]


def test_whatever_says_its_state_can_be_guarded() -> None:
    class Wrapped:
        def __init__(self) -> None:
            self._life = Startable()

        @property
        def state(self) -> State:
            return self._life.state

        @guarded(State.READY)
        def prepare(self) -> str:
            return "done"

    wrapped = Wrapped()
    assert wrapped.prepare() == "done"
    wrapped._life.stop()
    with pytest.raises(StateError):
        wrapped.prepare()
