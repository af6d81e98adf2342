"""Cancellation tokens as a tree, and the tracker of what is in flight."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svcd.worker_runtime.calls.cancellation import InFlight, Token
from svcd.worker_runtime.lifetime.outcome import StateError

DEADLINE_S = 30.0


def test_a_cancelled_token_has_cancelled_those_below_it() -> None:
    primary = Token()
    endpoint, other = primary.child(), primary.child()
    request = endpoint.child()
    endpoint.cancel("shut")
    assert (primary.reason, other.reason) == (None, None)
    assert (endpoint.reason, request.reason) == ("shut", "shut")
    primary.cancel("stop")
    assert (endpoint.reason, other.reason, primary.reason) == ("shut", "stop", "stop")
    assert endpoint.child().reason == "shut", "what is made below a cancelled one is cancelled"


def test_it_is_cancelled_once_and_callbacks_are_called_once() -> None:
    token, called = Token(), list[str]()
    token.call(lambda: called.append("a"))
    token.child().call(lambda: called.append("child"))
    token.cancel("first")
    token.cancel("second")
    token.call(lambda: called.append("late"))
    assert token.reason == "first"
    assert called == ["child", "a", "late"]


def test_everybody_is_told_before_anybody_reacts() -> None:
    token, seen = Token(), list[bool]()
    child = token.child()
    child.call(lambda: seen.append(token.is_cancelled()))
    token.cancel("now")
    assert seen == [True]


def test_who_is_detached_leaves_nothing_behind() -> None:
    token = Token()
    for _ in range(3):
        token.child().detach()
    kept = token.child()
    assert list(token._children or ()) == [kept]
    kept.cancel("done")
    assert not token._children


@given(st.lists(st.integers(0, 100), min_size=1, max_size=40), st.integers(0, 40))
def test_any_tree(parents: list[int], cancelled: int) -> None:
    tokens = [Token()]
    above = [-1]
    for each in parents:
        above.append(each % len(tokens))
        tokens.append(tokens[above[-1]].child())
    root = cancelled % len(tokens)
    tokens[root].cancel("it")

    def is_below(index: int) -> bool:
        while index not in (root, -1):
            index = above[index]
        return index == root

    assert [each.is_cancelled() for each in tokens] == [is_below(index) for index in range(len(tokens))]


def test_threads_and_coroutines_wait_for_it() -> None:
    async def scene() -> None:
        token = Token().child()
        found: list[bool] = []
        thread = threading.Thread(target=lambda: found.append(token.wait(DEADLINE_S)))
        thread.start()
        waits = asyncio.ensure_future(token.wait_async())
        await asyncio.sleep(0)
        with pytest.raises(StateError, match=r"await ctx\.token\.wait_async\(\)"):
            token.wait()
        assert token.parent is not None
        token.parent.cancel("now")
        await asyncio.wait_for(waits, DEADLINE_S)
        await asyncio.to_thread(thread.join, DEADLINE_S)
        assert found == [True]
        await token.wait_async()

    asyncio.run(scene())


def test_a_wait_with_a_bound() -> None:
    assert Token().wait(0.001) is False


def test_what_is_in_flight_is_waited_for() -> None:
    async def scene() -> None:
        tracker, counts = InFlight(), list[int]()
        tracker.changed = counts.append
        assert await tracker.wait_idle(None) == 0
        for _ in range(3):
            tracker.begin()
        assert await tracker.wait_idle(0) == 3
        assert await tracker.wait_idle(0.001) == 3
        waits = asyncio.ensure_future(tracker.wait_idle(DEADLINE_S))
        await asyncio.sleep(0)
        for _ in range(3):
            assert not waits.done()
            tracker.end()
        assert await waits == 0
        assert counts == [2, 1, 0]

    asyncio.run(scene())
