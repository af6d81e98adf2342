"""Timers: each fires once, and who had no time because everything stood still is given it before its silence counts."""

from __future__ import annotations

import asyncio
import socket
import time

from svcd.supervisor.controller.clock import OVERSLEPT_S
from svcd.supervisor.controller.watching.timers import Timers
from svcd.supervisor.core.actions import ArmTimer, CancelTimer
from svcd.supervisor.core.events import TimerFired, TimerKind

SOON_S = 0.01
DEADLINE_S = 30.0


class Scene:
    def __init__(self) -> None:
        self.fired: list[TimerFired] = []
        self.any = asyncio.Event()
        self.timers = Timers(asyncio.get_running_loop(), self._take)

    def _take(self, event: TimerFired) -> None:
        self.fired.append(event)
        self.any.set()

    def arm(self, kind: TimerKind, delay_s: float = SOON_S) -> None:
        self.timers.arm(ArmTimer("a", 7, kind, delay_s))

    async def until_any(self) -> list[tuple[str, int, TimerKind]]:
        async with asyncio.timeout(DEADLINE_S):
            await self.any.wait()
        return [(each.service, each.invocation, each.kind) for each in self.fired]


def stand_still() -> None:
    """As when the machine does."""
    time.sleep(SOON_S + 2 * OVERSLEPT_S)


def test_it_fires_once_and_not_when_it_was_cancelled() -> None:
    async def body() -> None:
        scene = Scene()
        scene.arm(TimerKind.READY, 3600.0)
        scene.arm(TimerKind.READY)
        scene.arm(TimerKind.STOP)
        scene.timers.cancel(CancelTimer("a", TimerKind.STOP))
        assert await scene.until_any() == [("a", 7, TimerKind.READY)]
        scene.timers.cancel(CancelTimer("a", TimerKind.READY))

    asyncio.run(body())


def test_what_was_said_while_everything_stood_still_is_heard_first() -> None:
    async def body() -> None:
        scene, loop = Scene(), asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        heard = asyncio.Event()

        def hear() -> None:
            ours.recv(1)
            scene.timers.cancel(CancelTimer("a", TimerKind.WATCHDOG))
            heard.set()

        with ours, theirs:
            loop.add_reader(ours, hear)
            scene.arm(TimerKind.WATCHDOG)
            theirs.send(b"!")
            stand_still()
            async with asyncio.timeout(DEADLINE_S):
                await heard.wait()
            loop.remove_reader(ours)
        assert scene.fired == []

    asyncio.run(body())


def test_who_says_nothing_afterwards_either_has_had_its_time() -> None:
    async def body() -> None:
        scene = Scene()
        scene.arm(TimerKind.WATCHDOG)
        stand_still()
        assert await scene.until_any() == [("a", 7, TimerKind.WATCHDOG)]

    asyncio.run(body())


def test_what_nobody_has_to_do_anything_in_is_not_put_off() -> None:
    async def body() -> None:
        scene = Scene()
        scene.arm(TimerKind.WATCHDOG)
        scene.arm(TimerKind.RESTART)
        stand_still()
        assert await scene.until_any() == [("a", 7, TimerKind.RESTART)]
        scene.timers.cancel_all()

    asyncio.run(body())
