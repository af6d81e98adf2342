"""A grace is as long as it says, and longer on a machine that stands still meanwhile."""

from __future__ import annotations

import asyncio
import time

from commanded import eventually, on_loop, settled

from svcd.supervisor.controller.grace import TURNS, Grace


def test_it_is_over_after_its_time() -> None:
    async def body() -> None:
        loop, ended = asyncio.get_running_loop(), list[float]()
        began = loop.time()
        Grace(loop, 0.05, lambda: ended.append(loop.time()))
        await eventually(lambda: ended, "its end")
        assert ended[0] - began >= 0.05 - 0.001 * TURNS

    on_loop(body)


def test_what_comes_after_a_stall_still_comes_in_time() -> None:
    async def body() -> None:
        loop, ended = asyncio.get_running_loop(), list[str]()
        grace = Grace(loop, 0.1, lambda: ended.append("too early"))
        time.sleep(0.2)  # longer than all of it: nobody does anything
        await settled()
        assert ended == []
        grace.cancel()
        assert grace.cancelled()
        await asyncio.sleep(0.15)
        assert ended == []

    on_loop(body)
