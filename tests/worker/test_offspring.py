"""Offspring: what a parent asks for its children, and what it is told of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from svcd.protocol.child_errors import (
    BadChildDefinition,
    ChildError,
    ChildErrorCode,
    ChildFailed,
    ChildNameTaken,
    ChildRefused,
    error_of,
)
from svcd.protocol.messages import (
    ChildChanged,
    ChildEnded,
    ChildOrderRequested,
    ChildRequestEnded,
    ChildServiceRequested,
    ExceptionRaised,
    Message,
)
from svcd.worker_runtime.offspring import Child, Offspring
from svcd.worker_runtime.reports import Reports

DEADLINE_S = 30.0


class Scene:
    """The parent ``pool``, whose controller is the test."""

    def __init__(self) -> None:
        self.said: list[Message] = []
        self.answers: list[asyncio.Future[ChildRequestEnded]] = []
        self.offspring = Offspring(Reports("pool", 7, self.said.append), self.ask, self.said.append)
        self.offspring.join(lambda of, name: name, self.run_plain)

    def ask(self, make: Callable[[int], Message]) -> asyncio.Future[ChildRequestEnded]:
        self.said.append(make(len(self.answers)))
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]

    async def run_plain(self, function: Callable[[], Any]) -> Any:
        return function()

    def answer(self, code: str = "", error: str = "", problems: tuple[str, ...] = ()) -> None:
        self.answers[-1].set_result(ChildRequestEnded(7, 0, code, error, problems))

    async def begin(self, name: str = "shard", wait: float | None = None, **written: Any) -> asyncio.Task[Child[Any]]:
        """As far as that it was asked for."""
        before = len(self.answers)
        task = asyncio.create_task(self.offspring.spawn(name, "a:B", True, wait, written))
        async with asyncio.timeout(DEADLINE_S):
            while len(self.answers) == before and not task.done():
                await asyncio.sleep(0)
        return task

    async def child(self, name: str = "shard") -> Child[Any]:
        task = await self.begin(name)
        self.answer()
        return await task


class Parent:
    def __init__(self) -> None:
        self.heard: list[tuple[str, str | None]] = []
        self.told = asyncio.Event()

    async def child_ended(self, child: Child[Any], error: ChildFailed | None) -> None:
        self.heard.append((child.name, None if error is None else str(error)))
        self.told.set()


def play(scenario: Callable[[Scene], Any]) -> None:
    async def run() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await scenario(Scene())

    asyncio.run(run())


def test_it_follows_what_the_controller_says() -> None:
    async def scenario(scene: Scene) -> None:
        task = await scene.begin(config={"n": 1}, tags=None)
        assert scene.said == [ChildServiceRequested("pool", 7, 0, "shard", {"python": "a:B", "config": {"n": 1}})]
        scene.offspring.on_changed(ChildChanged(7, "shard", "running", "ready"))
        assert dict(scene.offspring.children) == {}
        scene.answer()
        child = await task
        assert (child.state, child.cause, child.service) == ("running", "ready", "shard")
        assert dict(scene.offspring.children) == {"shard": child}
        scene.offspring.on_changed(ChildChanged(7, "stranger", "running"))
        scene.offspring.on_changed(ChildChanged(7, "shard", "removed"))
        assert (child.state, dict(scene.offspring.children)) == ("removed", {})

    play(scenario)


@pytest.mark.parametrize("code", [each.value for each in ChildErrorCode])
def test_refusals_leave_nothing(code: str) -> None:
    async def scenario(scene: Scene) -> None:
        task = await scene.begin()
        scene.answer(code, "cannot", ("one",))
        with pytest.raises(ChildError, match="cannot") as refused:
            await task
        assert refused.value.code.value == code
        assert dict(scene.offspring.children) == {}

    play(scenario)


def test_a_refusal_leaves_the_child_that_has_the_name() -> None:
    async def scenario(scene: Scene) -> None:
        child = await scene.child()
        task = await scene.begin()
        scene.answer("name_taken", "taken")
        with pytest.raises(ChildNameTaken):
            await task
        scene.offspring.on_changed(ChildChanged(7, "shard", "paused"))
        assert (child.state, dict(scene.offspring.children)) == ("paused", {"shard": child})

    play(scenario)


def test_whoever_is_cancelled_takes_it_back() -> None:
    async def scenario(scene: Scene) -> None:
        task = await scene.begin()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert scene.said[-1] == ChildOrderRequested("pool", 7, 0, "shard", "remove")

    play(scenario)


def test_what_is_not_up_in_time_is_taken_back() -> None:
    async def scenario(scene: Scene) -> None:
        task = await scene.begin(wait=0.001)
        while len(scene.answers) < 2:
            await asyncio.sleep(0.001)
        assert scene.said[-1] == ChildOrderRequested("pool", 7, 1, "shard", "remove")
        scene.answer("unknown", "gone")
        with pytest.raises(ChildFailed, match=r"it was not up within 0\.001 s"):
            await task

    play(scenario)


def test_what_cannot_travel_is_not_asked_for() -> None:
    async def scenario(scene: Scene) -> None:
        for bad, why in (
            (object(), "config: object cannot travel"),
            ({1: 2}, "config: a key in it is no text"),
            (2**70, "config: "),
            ("x" * 2**24, ""),
        ):
            task = await scene.begin(config={"x": bad}, path="/srv")
            with pytest.raises(BadChildDefinition) as caught:
                await task
            assert str(caught.value).startswith(f"cannot create shard: {why}")
            assert len(caught.value.problems) == 1
        task = await scene.begin(5)  # type: ignore[arg-type]  # on purpose
        with pytest.raises(BadChildDefinition, match="cannot create 5: the name must be a text, not int"):
            await task
        with pytest.raises(BadChildDefinition, match="cannot be imported"):
            await scene.offspring.spawn("shard", type("Local", (), {"__qualname__": "f.<locals>.C"}), True, None, {})
        assert scene.said == []

    play(scenario)


def test_ends_before_the_start_is_over_are_told_after_it() -> None:
    async def scenario(scene: Scene) -> None:
        parent = Parent()
        await scene.child()
        scene.offspring.on_ended(ChildEnded(7, "shard", "exit code 3"))
        scene.offspring.on_ended(ChildEnded(7, "stranger", "exit code 3"))
        await asyncio.sleep(0)
        assert parent.heard == []
        scene.offspring.begin(parent)
        await parent.told.wait()
        scene.offspring.on_ended(ChildEnded(7, "shard"))
        while len(parent.heard) < 2:
            await asyncio.sleep(0)
        assert parent.heard == [("shard", "shard has ended: exit code 3"), ("shard", None)]

    play(scenario)


def test_a_handler_that_raises_is_recorded() -> None:
    class Clumsy:
        def child_ended(self, child: Child[Any], error: ChildFailed | None) -> None:
            raise ValueError("clumsy")

    async def scenario(scene: Scene) -> None:
        await scene.child()
        scene.offspring.begin(Clumsy())
        scene.offspring.on_ended(ChildEnded(7, "shard", "x"))
        while not isinstance(scene.said[-1], ExceptionRaised):
            await asyncio.sleep(0)
        assert scene.said[-1].message == "clumsy"

    play(scenario)


def test_functions_look_at_the_ends_themselves() -> None:
    async def scenario(scene: Scene) -> None:
        child = await scene.child()
        scene.offspring.begin(None)
        ends = scene.offspring.ends()
        first = asyncio.ensure_future(anext(ends))
        await asyncio.sleep(0)
        scene.offspring.on_ended(ChildEnded(7, "shard", "x"))
        found, error = await first
        assert found is child
        assert isinstance(error, ChildFailed)
        await ends.aclose()  # type: ignore[attr-defined]  # a generator

    play(scenario)


def test_a_code_of_a_later_version_is_a_refusal() -> None:
    error = error_of("something new", "no")
    assert (type(error), str(error)) == (ChildRefused, "no")
