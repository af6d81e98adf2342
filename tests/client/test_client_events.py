"""A client's subscription to the cluster's events: bounded, typed, and told of its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from controllers import PATIENCE_S, Controller

from svcd import ClusterStateChanged, ClusterUnavailable, DeadlineExceeded, NoticeGiven, ServiceTransitioned
from svcd.client import news
from svcd.client.news import Events

Scene = Callable[[Controller], Coroutine[Any, Any, None]]


def play(controller: Controller, scene: Scene) -> None:
    asyncio.run(asyncio.wait_for(scene(controller), PATIENCE_S))


def notice(sequence: int) -> NoticeGiven:
    return NoticeGiven(sequence, 0.0, "till", "text")


def moved(sequence: int) -> ServiceTransitioned:
    return ServiceTransitioned(sequence, 0.0, "till", 1, "starting", "running", "ready", 0.0)


def ended(sequence: int) -> ClusterStateChanged:
    return ClusterStateChanged(sequence, 0.0, "ended")


def test_all_of_them_until_the_end(controller: Controller) -> None:
    async def scene(controller: Controller) -> None:
        events = Events(controller.place, (), PATIENCE_S)
        await events.begun()
        sent = [notice(1), moved(2), ended(3)]
        for each in sent:
            controller.publish(each)
        assert [each async for each in events] == sent

    play(controller, scene)


def test_of_one_kind(controller: Controller) -> None:
    """The end is the end, whatever was asked for."""

    async def scene(controller: Controller) -> None:
        async with Events(controller.place, (ServiceTransitioned,), PATIENCE_S) as events:
            for each in (notice(1), moved(2), ended(3)):
                controller.publish(each)
            assert [each async for each in events] == [moved(2)]

    play(controller, scene)


def test_what_is_not_understood_is_passed_over(controller: Controller) -> None:
    async def scene(controller: Controller) -> None:
        async with Events(controller.place, (), PATIENCE_S) as events:
            controller.publish_frames(b"NoticeGiven", b"\xc1")
            controller.publish_frames(b"NoticeGiven")
            controller.publish_frames(b"NoticeGiven of a later version", b"\x93\x02\xa1a\x80")
            controller.publish(ended(1))
            assert [each async for each in events] == [ended(1)]

    play(controller, scene)


def test_who_does_not_read_loses_the_oldest(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "MAX_WAITING", 10)

    async def scene(controller: Controller) -> None:
        events = Events(controller.place, (), PATIENCE_S)
        await events.begun()
        for number in range(100):
            controller.publish(notice(number))
        controller.publish(ended(100))
        async with asyncio.timeout(PATIENCE_S):
            while not events._line.is_over:
                await asyncio.sleep(0.005)
        assert [each.sequence async for each in events] == list(range(91, 101))

    play(controller, scene)


def test_a_controller_that_comes_back_is_heard_again(controller: Controller) -> None:
    async def scene(controller: Controller) -> None:
        events = Events(controller.place, (), PATIENCE_S)
        await events.begun()
        await asyncio.to_thread(controller.close)
        async with asyncio.timeout(PATIENCE_S):
            while events._line.is_confirmed:
                await asyncio.sleep(0.005)
        await asyncio.to_thread(controller.open)
        await events.begun()
        controller.publish(ended(7))
        assert [each async for each in events] == [ended(7)]

    play(controller, scene)


def test_an_end_without_a_word(controller: Controller) -> None:
    async def scene(controller: Controller) -> None:
        events = Events(controller.place, (), PATIENCE_S)
        await asyncio.to_thread(controller.end)
        with pytest.raises(ClusterUnavailable, match="has ended"):
            await anext(events)
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        with pytest.raises(ClusterUnavailable, match="has ended"):
            Events(controller.place, (), None)

    play(controller, scene)


def test_a_controller_that_does_not_confirm(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    controller.confirms = False

    async def scene(controller: Controller) -> None:
        for patience_s, timeout, error, text in (
            (0.05, None, ClusterUnavailable, "has not confirmed within 0.05 s that it tells its events"),
            (30.0, 0.01, DeadlineExceeded, "did not confirm in time"),
        ):
            monkeypatch.setattr(news, "PATIENCE_S", patience_s)
            events = Events(controller.place, (), timeout)
            with pytest.raises(error, match=text):
                async with events:
                    raise AssertionError("it must not be entered")
            with pytest.raises(StopAsyncIteration):
                await anext(events)

    play(controller, scene)


def test_two_that_wait_for_the_same(controller: Controller) -> None:
    async def scene(controller: Controller) -> None:
        events = Events(controller.place, (), PATIENCE_S)
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="two tasks wait"):
            await anext(events)
        await events.aclose()
        with pytest.raises(StopAsyncIteration):
            await first

    play(controller, scene)


def test_what_is_forgotten_is_closed(controller: Controller) -> None:
    async def scene(controller: Controller) -> None:
        events = Events(controller.place, (), None)
        line = events._line
        assert not line.is_over
        del events
        async with asyncio.timeout(PATIENCE_S):
            while not line.is_over:
                await asyncio.sleep(0.005)

    play(controller, scene)
