"""Deadlines: what was lost because we stood still is given once more, and no more than that.

Must not wait: the clock and the loop's timers are played.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from svcd.supervisor.controller import clock
from svcd.supervisor.controller.patience import STOOD_STILL_S, Deadline, within


class Played:
    """A clock, and a loop of which only one timer is wanted."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.armed: list[tuple[float, Callable[[], None]]] = []
        self.delays_s: list[float] = []

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Played:
        assert not self.armed
        self.armed.append((self.now_s + delay_s, call))
        self.delays_s.append(delay_s)
        return self

    def cancel(self) -> None:
        self.armed.clear()

    def run(self, late_s: float = 0.0) -> None:
        """To the moment of the timer, and so far beyond it."""
        due_s, call = self.armed.pop()
        self.now_s = due_s + late_s
        call()


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    made = Played()
    monkeypatch.setattr(clock, "now", lambda: made.now_s)
    return made


def deadline(played: Played, patience_s: float) -> tuple[Deadline, list[str]]:
    missed: list[str] = []
    return Deadline(cast("asyncio.AbstractEventLoop", played), patience_s, missed.append, "missed"), missed


@pytest.mark.parametrize(
    ("late_s", "delays_s"),
    [
        ([0.0], [10]),
        ([STOOD_STILL_S / 2], [10]),  # a turn of the loop that took a while
        ([4.0, 0.0], [10, 4]),
        ([4.0, 4.0, 0.0], [10, 4, 4]),
        ([4.0, 4.0, 4.0, 0.0], [10, 4, 4, 2]),
        ([3600.0, 0.0], [10, 10]),
        ([3600.0, 3600.0], [10, 10]),  # who is always late keeps it too
    ],
)
def test_what_was_lost_is_given_once_more(played: Played, late_s: list[float], delays_s: list[float]) -> None:
    _, missed = deadline(played, 10)
    for index, each in enumerate(late_s):
        assert missed == [], index
        played.run(each)
    assert missed == ["missed"]
    assert played.delays_s == pytest.approx(delays_s)
    assert not played.armed


@pytest.mark.parametrize("turns", [0, 1])
def test_it_can_be_called_off(played: Played, turns: int) -> None:
    made, missed = deadline(played, 10)
    for _ in range(turns):
        played.run(late_s=5)
    made.cancel()
    assert not played.armed
    assert missed == []


def test_what_takes_too_long_is_ended() -> None:
    async def body() -> None:
        with pytest.raises(TimeoutError):
            async with within(0.001):
                await asyncio.get_running_loop().create_future()

    asyncio.run(body())


def test_what_ends_in_time_is_left_alone() -> None:
    async def body() -> Any:
        async with within(1000):
            await asyncio.sleep(0)
        return [handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]

    assert asyncio.run(body()) == []
