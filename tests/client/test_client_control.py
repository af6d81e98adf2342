"""A client's connection to a controller that answers badly, late, not at all, or goes away and comes back."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from controllers import PATIENCE_S, Controller, answering, silent

from svcd import CallRefused, ClusterUnavailable, DeadlineExceeded, PermissionDenied, ServiceUnavailable
from svcd.client import control as module
from svcd.client import place
from svcd.client.control import Control
from svcd.client.finder import Finder
from svcd.protocol import codec, places
from svcd.protocol.errors import ErrorCode
from svcd.protocol.messages import (
    GetRoute,
    GetStatus,
    RequestAccepted,
    RequestRefused,
    Route,
    RouteReported,
    StatusReported,
)

STATUS = StatusReported("shop", 1, "running", 0, "/var/lib/svcd/shop", (), ())
HERE = RouteReported("till", (Route("/run/calls", "", 1),))
GONE = RouteReported("till", (), "it is stopped")

Scene = Callable[[Control], Coroutine[Any, Any, None]]


def play(controller: Controller, scene: Scene) -> None:
    async def run() -> None:
        control = Control(controller.place)
        await control.open()
        try:
            await asyncio.wait_for(scene(control), PATIENCE_S)
        finally:
            control.close()

    asyncio.run(run())


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


def test_an_answer(controller: Controller) -> None:
    async def scene(control: Control) -> None:
        assert await control.ask(GetStatus(), StatusReported) == STATUS

    controller.answer = answering(STATUS)
    play(controller, scene)


@pytest.mark.parametrize("code", [*ErrorCode, "of_a_later_version"])
def test_a_refusal(controller: Controller, code: ErrorCode | str) -> None:
    async def scene(control: Control) -> None:
        with pytest.raises((CallRefused, PermissionDenied, ServiceUnavailable), match="because"):
            await control.ask(GetStatus(), StatusReported)

    controller.answer = answering(RequestRefused(code.value if isinstance(code, ErrorCode) else code, "because"))
    play(controller, scene)


STRANGE = {
    "another message": lambda frames: [[frames[0], codec.encode(RequestAccepted())]],
    "no MessagePack": lambda frames: [[frames[0], b"\xc1"]],
    "nothing": lambda frames: [[frames[0], b""]],
    "too much": lambda frames: [[frames[0], bytes(9 * 1024 * 1024)]],
}


@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE)
def test_an_answer_that_makes_no_sense(controller: Controller, answer: Any) -> None:
    async def scene(control: Control) -> None:
        with pytest.raises(ClusterUnavailable, match="cannot understand the cluster in"):
            await control.ask(GetStatus(), StatusReported)
        controller.answer = answering(STATUS)
        assert await control.ask(GetStatus(), StatusReported) == STATUS

    controller.answer = answer
    play(controller, scene)


def test_answers_to_nobody(controller: Controller) -> None:
    def answer(frames: list[bytes]) -> list[list[bytes]]:
        body = codec.encode(STATUS)
        return [[b"99", body], [b"x" * 100, body], [body], [frames[0], body, body], [frames[0], body]]

    async def scene(control: Control) -> None:
        assert await control.ask(GetStatus(), StatusReported) == STATUS

    controller.answer = answer
    play(controller, scene)


def test_silence(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(control: Control) -> None:
        with pytest.raises(ClusterUnavailable, match=r"no answer within"):
            await control.ask(GetStatus(), StatusReported, 0.05)
        finder = Finder(control)
        with pytest.raises(DeadlineExceeded, match="cannot call till: the cluster did not say in time where it is"):
            await finder.find("till", asyncio.get_running_loop().time() + 0.05)

    play(controller, scene)


def test_somebody_else_listens_there(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    controller.close()
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)

    async def scene() -> None:
        control = Control(controller.place)
        with pytest.raises(ClusterUnavailable, match=r"no answer within 0\.2 s"):
            await control.open()
        control.close()

    with socket.socket(socket.AF_UNIX) as other:
        os.unlink(controller.place.control)
        other.bind(controller.place.control)
        other.listen()
        asyncio.run(scene())


def test_a_question_outlives_the_controller(controller: Controller) -> None:
    """One that was restarted is asked what the one before it has not answered."""

    async def scene(control: Control) -> None:
        asking = asyncio.ensure_future(control.ask(GetStatus(), StatusReported))
        await until(lambda: controller.asked)
        await asyncio.to_thread(controller.close)
        controller.answer = answering(STATUS)
        await asyncio.to_thread(controller.open)
        assert await asking == STATUS

    controller.answer = silent
    play(controller, scene)


def test_who_asks_while_the_controller_is_away(controller: Controller) -> None:
    async def scene(control: Control) -> None:
        await asyncio.to_thread(controller.close)
        asking = asyncio.ensure_future(control.ask(GetStatus(), StatusReported))
        await asyncio.sleep(0)
        await asyncio.to_thread(controller.open)
        assert await asking == STATUS

    controller.answer = answering(STATUS)
    play(controller, scene)


def test_who_asks_when_the_cluster_ends(controller: Controller) -> None:
    async def scene(control: Control) -> None:
        asking = asyncio.ensure_future(control.ask(GetStatus(), StatusReported))
        await until(lambda: controller.asked)
        await asyncio.to_thread(controller.end)
        with pytest.raises(ClusterUnavailable, match="has ended"):
            await asking
        with pytest.raises(ClusterUnavailable, match="has ended"):
            await control.ask(GetStatus(), StatusReported)

    play(controller, scene)


# ---- routes ----------------------------------------------------------------------------------------------------------


def test_routes_are_followed_to_a_new_controller(controller: Controller) -> None:
    async def scene(control: Control) -> None:
        finder = Finder(control)
        await finder.find("till", None)
        assert [each.calls for each in finder.routes.known("till")] == ["/run/calls"]
        await asyncio.to_thread(controller.close)
        controller.answer = answering(GONE)
        await asyncio.to_thread(controller.open)
        await until(lambda: not finder.routes.known("till"))
        with pytest.raises(ServiceUnavailable, match="cannot call till: it is stopped"):
            finder.routes.lookup("till")

    controller.answer = answering(HERE)
    play(controller, scene)


def test_those_who_look_for_the_same_at_the_same_time_ask_once(controller: Controller) -> None:
    async def scene(control: Control) -> None:
        finder = Finder(control)
        await asyncio.gather(*(finder.find("till", None) for _ in range(10)))
        assert controller.asked == [GetRoute("till", follow=True)]

    controller.answer = answering(HERE)
    play(controller, scene)


def test_what_was_refused_is_asked_again(controller: Controller) -> None:
    async def scene(control: Control) -> None:
        finder = Finder(control)
        for _ in range(2):
            with pytest.raises(CallRefused, match="cannot call till: no service 'till'"):
                await finder.find("till", None)
        controller.answer = answering(HERE)
        await finder.find("till", None)

    controller.answer = answering(RequestRefused("unknown_service", "no service 'till'"))
    play(controller, scene)


def test_what_is_old_is_asked_again_in_the_background(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svcd.client.finder.REFRESH_S", -1.0)

    async def scene(control: Control) -> None:
        finder = Finder(control)
        await finder.find("till", None)
        controller.answer = answering(GONE)
        await finder.find("till", None)
        await until(lambda: not finder.routes.known("till"))

    controller.answer = answering(HERE)
    play(controller, scene)


def test_who_waits_for_a_service_is_told_that_the_cluster_has_ended(controller: Controller) -> None:
    async def scene(control: Control) -> None:
        finder = Finder(control)
        await finder.find("till", None)
        waiting = asyncio.ensure_future(finder.routes.wait_change("till", PATIENCE_S))
        await asyncio.sleep(0)
        await asyncio.to_thread(controller.end)
        with pytest.raises(ClusterUnavailable, match="has ended"):
            await waiting

    controller.answer = answering(GONE)
    play(controller, scene)


# ---- where -----------------------------------------------------------------------------------------------------------


def test_which_cluster(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = controller.place.run_dir
    monkeypatch.delenv("SVCD_CONTROL", raising=False)
    monkeypatch.setenv("SVCD_RUN_DIR", str(run_dir))
    assert place.find() == controller.place
    monkeypatch.setenv("SVCD_RUN_DIR", "/nowhere")
    assert place.find(run_dir=run_dir) == controller.place
    monkeypatch.setenv("SVCD_CONTROL", f"{run_dir}/control")
    assert place.find() == controller.place
    monkeypatch.setenv("SVCD_CONTROL", f"{run_dir}/stubs/control")
    assert place.find() == place.Place(f"{run_dir}/stubs/control", run_dir)
    with pytest.raises(ClusterUnavailable, match="cluster nowhere does not run"):
        place.find("nowhere")


def test_a_program_is_told_how_a_program_chooses_between_several(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    running = [places.RunningCluster(name, tmp_path / name, 7) for name in ("lab", "shop")]
    monkeypatch.setattr(places, "running_clusters", lambda environ=None: running)
    for name in (place.CONTROL, "SVCD_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        ClusterUnavailable, match=r"^several clusters run: lab \(pid 7\), .*; say which: Client\(NAME\)$"
    ):
        place.find()


def test_whether_it_has_ended(controller: Controller) -> None:
    assert not controller.place.has_ended()
    controller.close()
    assert not controller.place.has_ended(), "only its controller is away"
    controller.end()
    assert controller.place.has_ended()
    assert place.Place("/nowhere/control", controller.place.run_dir / "lock").has_ended()
