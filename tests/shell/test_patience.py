"""Patience: as long as it says, and longer on a machine that stands still meanwhile."""

from __future__ import annotations

import asyncio
import time

import pytest
from commanded import eventually, on_loop, settled

from svcd.supervisor.controller.patience import EARLY_S, Patience, within
from svcd.supervisor.controller.watching.timers import Timers
from svcd.supervisor.core.actions import ArmTimer, CancelTimer
from svcd.supervisor.core.events import TimerFired, TimerKind


@pytest.mark.parametrize("delay_s", [0.0, 0.0004, 0.02, 0.1])
def test_it_ends_after_its_time(delay_s: float) -> None:
    async def body() -> None:
        ended: list[float] = []
        began = time.monotonic()
        Patience(asyncio.get_running_loop(), delay_s, lambda: ended.append(time.monotonic()))
        assert ended == []
        await eventually(lambda: ended, "its end")
        assert ended[0] - began >= delay_s - 2 * EARLY_S
        await settled()
        assert len(ended) == 1

    on_loop(body)


def test_what_comes_after_a_stall_still_comes_in_time() -> None:
    async def body() -> None:
        ended: list[str] = []
        patience = Patience(asyncio.get_running_loop(), 0.4, lambda: ended.append("too early"))
        time.sleep(0.5)  # longer than all of it: nobody does anything
        await settled()
        assert ended == []
        patience.cancel()
        assert patience.cancelled()

    on_loop(body)


def test_a_service_has_its_time_though_the_machine_stood_still() -> None:
    async def body() -> None:
        fired: list[TimerFired] = []
        timers = Timers(asyncio.get_running_loop(), fired.append)
        timers.arm(ArmTimer("web", 7, TimerKind.STOP, 0.4))
        timers.arm(ArmTimer("db", 8, TimerKind.RESTART, 0.4))  # which waits for nobody
        time.sleep(0.5)
        await eventually(lambda: fired, "the timers that are over")
        assert [(each.service, each.invocation, each.kind) for each in fired] == [("db", 8, TimerKind.RESTART)]
        timers.cancel(CancelTimer("web", TimerKind.STOP))
        timers.arm(ArmTimer("web", 9, TimerKind.STOP, 0.01))
        await eventually(lambda: len(fired) == 2, "its own")
        assert (fired[1].service, fired[1].invocation) == ("web", 9)
        timers.cancel_all()

    on_loop(body)


def test_a_bound_on_what_is_awaited() -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with within(0.01):
                await loop.create_future()
        async with within(0.4):
            answer = loop.create_future()
            loop.call_later(0.45, answer.set_result, "in time")
            time.sleep(0.5)
            assert await answer == "in time"
        with pytest.raises(KeyError):
            async with within(0.01):
                raise KeyError
        await asyncio.sleep(0.05)  # and nothing of it comes later

    on_loop(body)
