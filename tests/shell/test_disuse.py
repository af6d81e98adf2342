"""Disuse: stubs are asked when it may be time, and what they say decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from svcd.protocol.messages import UseReported
from svcd.supervisor.config.launch import LaunchSpec, Program, PythonCode, ServiceDefinition
from svcd.supervisor.controller.watching.disuse import DisuseWatch
from svcd.supervisor.core.events import IdleReached
from svcd.supervisor.core.spec import ServiceSpec

DEADLINE_S = 30.0
SOON_S = 0.03


def service(timeout_s: float | None, run: Any = None) -> ServiceDefinition:
    launch = LaunchSpec(run or PythonCode(entry="a:b"), "/", idle_timeout_s=timeout_s)
    return ServiceDefinition(ServiceSpec("a"), launch)


class Scene:
    """``answers``: what the stub says, one after the other; then nothing."""

    def __init__(self, *answers: UseReported) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []
        self.events: list[IdleReached] = []
        self.watch = DisuseWatch(asyncio.get_running_loop(), self.events.append, self.ask)

    def ask(self, invocation: int) -> None:
        self.asked.append(invocation)
        if self.answers:
            self.watch.take(self.answers.pop(0))

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.001)


def used(in_flight: int, unused_s: float | None, invocation: int = 7) -> UseReported:
    return UseReported("a", invocation, in_flight, unused_s)


def play(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(body())


def test_who_was_never_called_is_idle_after_its_time() -> None:
    async def body() -> None:
        scene = Scene(used(0, None))
        scene.watch.begin(service(SOON_S), 7)
        assert scene.asked == []
        await scene.until(lambda: scene.events)
        assert [(each.service, each.invocation) for each in scene.events] == [("a", 7)]
        scene.watch.close()

    play(body)


def test_what_is_in_flight_or_has_just_ended_is_use() -> None:
    async def body() -> None:
        scene = Scene(used(3, None), used(1, 1000.0), used(0, 0.0), used(0, 1000.0))
        scene.watch.begin(service(SOON_S), 7)
        await scene.until(lambda: scene.events)
        assert scene.asked == [7] * 4
        assert scene.answers == []
        scene.watch.close()

    play(body)


def test_a_stub_that_does_not_answer_is_asked_again_and_not_taken_for_idle() -> None:
    async def body() -> None:
        scene = Scene()
        scene.watch.begin(service(SOON_S), 7)
        await scene.until(lambda: len(scene.asked) >= 3)
        assert scene.events == []
        scene.watch.close()

    play(body)


def test_what_is_not_of_this_run_is_ignored() -> None:
    async def body() -> None:
        scene = Scene(used(0, None, invocation=6))
        scene.watch.begin(service(SOON_S), 7)
        scene.watch.take(UseReported("b", 7, 0, None))
        await scene.until(lambda: len(scene.asked) >= 2)
        assert scene.events == []
        scene.watch.end("a")
        scene.watch.take(used(0, None))
        assert scene.events == []

    play(body)


def test_only_python_services_with_an_idle_timeout_are_watched() -> None:
    async def body() -> None:
        scene = Scene()
        scene.watch.begin(service(None), 7)
        scene.watch.begin(service(SOON_S, Program(("true",))), 7)
        scene.watch.adopt(service(SOON_S))
        assert not scene.watch._watched

    play(body)


def test_another_timeout_holds_from_now_on() -> None:
    async def body() -> None:
        scene = Scene(used(0, None))
        scene.watch.begin(service(3600.0), 7)
        scene.watch.adopt(service(SOON_S))
        await scene.until(lambda: scene.events)
        scene.watch.close()

    play(body)
