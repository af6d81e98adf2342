"""Neighbours: what the stub is told of others, what it asks the controller, and the drain."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from svcd.protocol import messages
from svcd.protocol.call_errors import Draining, PermissionDenied, ServiceUnavailable
from svcd.worker_runtime.calls import neighbours
from svcd.worker_runtime.calls.methods import on_event, rpc
from svcd.worker_runtime.calls.neighbours import Neighbours
from svcd.worker_runtime.calls.wire_socket import Peer
from svcd.worker_runtime.reports import Reports
from tests.worker.peers_stage import raised, settled

DEADLINE_S = 30.0
M = TypeVar("M", bound=messages.Message)


class Billing:
    def __init__(self) -> None:
        self.begun = 0
        self.go_on = asyncio.Event()

    @rpc
    async def wait(self) -> str:
        self.begun += 1
        await self.go_on.wait()
        return "done"

    @on_event("billing.said")
    async def heard(self, word: str) -> None:
        self.begun += 1
        await self.go_on.wait()


class Scene:
    """A stub of ``billing`` which may call itself; what it says to the controller is in ``said``."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.said: list[messages.Message] = []
        self.neighbours = Neighbours(Reports("billing", 7, self.said.append), self.said.append)

    def of(self, kind: type[M]) -> list[M]:
        return [each for each in self.said if isinstance(each, kind)]

    def tell(self, *told: messages.Message) -> None:
        for each in told:
            assert self.neighbours.receive(each)

    def serve(self, target: object, is_heard: bool = False) -> None:
        self.neighbours.join(self.directory, is_heard)
        self.neighbours.serve(target)

    def find_itself(self, **more: Any) -> None:
        """It may call itself, as another service would."""
        route = messages.Route(f"{self.directory}/calls", f"{self.directory}/events", os.getpid())
        self.tell(messages.RouteChanged(7, "billing", (route,), **more))

    async def let_in(self) -> None:
        await settled(lambda: len(self.of(messages.PeerAsked)) > 0)
        for each in self.of(messages.PeerAsked):
            self.tell(messages.PeerIdentified(7, each.token, "web"))


def play(body: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory(prefix="near") as directory:
            scene = Scene(directory)
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await body(scene)
            finally:
                scene.neighbours.close()
            await settled(lambda: len(asyncio.all_tasks()) == 1)
            assert not list(Path(directory).iterdir())

    asyncio.run(run())


def test_what_is_opened_is_told() -> None:
    async def body(scene: Scene) -> None:
        scene.serve(Billing())
        assert scene.of(messages.EndpointOpened) == [messages.EndpointOpened("billing", 7, calls=True, events=False)]
        scene.neighbours.peers.publish("said", 1)  # type: ignore[union-attr]
        assert scene.said[-1] == messages.EndpointOpened("billing", 7, calls=True, events=True)

    play(body)


@pytest.mark.parametrize(("target", "is_heard", "told"), [(object(), False, []), (object(), True, [(False, True)])])
def test_who_offers_nothing_opens_nothing_unless_somebody_may_listen(
    target: object, is_heard: bool, told: list[tuple[bool, bool]]
) -> None:
    async def body(scene: Scene) -> None:
        scene.serve(target, is_heard)
        assert [(each.calls, each.events) for each in scene.of(messages.EndpointOpened)] == told

    play(body)


def test_routes_permissions_and_demand_are_as_the_controller_says() -> None:
    async def body(scene: Scene) -> None:
        routes = scene.neighbours.routes
        with pytest.raises(PermissionDenied):
            routes.lookup("db")
        scene.tell(messages.RouteChanged(7, "db", (), "it is stopped", on_demand=True))
        with pytest.raises(ServiceUnavailable, match="cannot call db: it is stopped"):
            routes.lookup("db")
        assert routes.on_demand == {"db"}
        scene.tell(messages.RouteChanged(7, "db", (messages.Route("/c", "", 5),)))
        assert [(each.calls, each.events, each.pid) for each in routes.lookup("db")] == [("/c", None, 5)]
        assert routes.on_demand == set()
        scene.tell(messages.RouteChanged(7, "db", (), "it is not permitted any more", permitted=False))
        with pytest.raises(PermissionDenied):
            routes.lookup("db")
        assert not scene.neighbours.receive(messages.Ping(7))

    play(body)


def test_who_knocks_is_asked_of_the_controller() -> None:
    async def body(scene: Scene) -> None:
        asked = [asyncio.ensure_future(scene.neighbours._who(Peer(pid, 9, 9))) for pid in (1, 2)]
        await settled(lambda: len(scene.of(messages.PeerAsked)) == 2)
        first, second = scene.of(messages.PeerAsked)
        assert (first.pid, first.uid, second.pid) == (1, 9, 2)
        scene.tell(
            messages.PeerIdentified(7, second.token, "", "cannot call billing: because"),
            messages.PeerIdentified(7, first.token, "web"),
            messages.PeerIdentified(7, first.token, "again"),
            messages.PeerIdentified(7, 999, "nobody"),
        )
        assert await asked[0] == "web"
        assert str(await raised(asked[1])) == "cannot call billing: because"

    play(body)


def test_a_controller_that_does_not_answer_lets_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "CONTROLLER_S", 0.02)

    async def body(scene: Scene) -> None:
        error = await raised(scene.neighbours._who(Peer(1, 9, 9)))
        assert isinstance(error, PermissionDenied)
        assert str(error) == "cannot tell who calls: the controller does not answer"
        assert not scene.neighbours._questions

    play(body)


def test_lookups_of_the_same_share_one_question_and_outlive_who_gives_up() -> None:
    async def body(scene: Scene) -> None:
        asked = [asyncio.ensure_future(scene.neighbours.start("db")) for _ in range(5)]
        await settled(lambda: bool(scene.said))
        asked[0].cancel()
        other = asyncio.ensure_future(scene.neighbours.start("mail"))
        await settled(lambda: len(scene.said) == 2)
        first, second = scene.of(messages.ServiceLookup)
        assert (first.target, first.start, second.target) == ("db", True, "mail")
        scene.tell(messages.LookupEnded(7, second.token, "it has failed"), messages.LookupEnded(7, first.token))
        assert [await each for each in asked[1:]] == [None] * 4
        assert await other == "it has failed"
        again = asyncio.ensure_future(scene.neighbours.start("db"))
        await settled(lambda: len(scene.said) == 3)
        scene.tell(messages.LookupEnded(7, scene.of(messages.ServiceLookup)[-1].token))
        assert await again is None

    play(body)


def test_a_call_of_what_starts_on_demand_asks_for_it_once_and_hears_why_not() -> None:
    async def body(scene: Scene) -> None:
        peers = scene.neighbours.join(scene.directory, False)
        scene.tell(messages.RouteChanged(7, "db", (), "it is unloaded", on_demand=True))
        calls = [asyncio.ensure_future(raised(peers.call("db.x"))) for _ in range(4)]
        await settled(lambda: bool(scene.said))
        (lookup,) = scene.of(messages.ServiceLookup)
        assert (lookup.target, lookup.start) == ("db", False)
        scene.tell(messages.LookupEnded(7, lookup.token, "it is stopped: stopped by request"))
        for each in calls:
            assert str(await each) == "cannot call db: it is stopped: stopped by request"
        assert len(scene.of(messages.ServiceLookup)) == 1

    play(body)


class Grace:
    """``asyncio`` as the room sees it: a sleep is over when the test says so."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []
        self.over = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)
        await self.over.wait()


def test_a_drain_serves_late_requests_then_refuses_and_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "PROGRESS_S", 0.01)

    async def body(scene: Scene) -> None:
        grace = Grace()
        monkeypatch.setattr(neighbours, "asyncio", grace)
        target = Billing()
        scene.serve(target)
        peers = scene.neighbours.peers
        assert peers is not None
        scene.find_itself()
        call = asyncio.ensure_future(peers.call("billing.wait"))
        await scene.let_in()
        await settled(lambda: target.begun == 1)
        scene.tell(messages.Drain(7, "because", grace_s=7.5, timeout_s=20.0), messages.Drain(7, "again"))
        late = asyncio.ensure_future(peers.call("billing.wait"))
        await settled(lambda: target.begun == 2)
        assert (grace.slept_s, peers.offered.token.reason) == ([7.5], None)
        grace.over.set()
        await settled(lambda: peers.offered.token.reason == "because")
        error = await raised(peers.call("billing.wait"))
        assert isinstance(error, Draining)
        assert scene.of(messages.StateChanged) == []
        await settled(lambda: scene.of(messages.DrainProgress)[-1].in_flight == 2)
        target.go_on.set()
        assert [await call, await late] == ["done"] * 2
        await settled(lambda: scene.of(messages.StateChanged) == [messages.StateChanged("billing", 7, "drained")])
        assert scene.of(messages.DrainProgress)[0].in_flight == 1

    play(body)


def test_a_drain_that_is_out_of_time_leaves_it_to_the_controller() -> None:
    async def body(scene: Scene) -> None:
        target = Billing()
        scene.serve(target)
        scene.find_itself()
        peers = scene.neighbours.peers
        assert peers is not None
        call = asyncio.ensure_future(raised(peers.call("billing.wait")))
        await scene.let_in()
        await settled(lambda: target.begun == 1)
        scene.tell(messages.Drain(7, "because", timeout_s=0.01))
        drain = scene.neighbours._drain
        assert drain is not None
        await drain
        assert scene.of(messages.StateChanged) == []
        scene.neighbours.stop("it is time")
        error = await call
        assert isinstance(error, ServiceUnavailable)
        assert str(error) == "billing was stopped before it answered: it is time"

    play(body)


def test_who_offers_nothing_is_drained_at_once() -> None:
    async def body(scene: Scene) -> None:
        scene.serve(object())
        scene.tell(messages.Drain(7, "because"))
        await settled(lambda: scene.of(messages.StateChanged) == [messages.StateChanged("billing", 7, "drained")])

    play(body)


def test_use_is_reported() -> None:
    async def body(scene: Scene) -> None:
        scene.tell(messages.ReportUse(7))
        target = Billing()
        scene.serve(target)
        scene.find_itself()
        scene.tell(messages.ReportUse(7))
        peers = scene.neighbours.peers
        assert peers is not None
        call = asyncio.ensure_future(peers.call("billing.wait"))
        await scene.let_in()
        await settled(lambda: target.begun == 1)
        scene.tell(messages.ReportUse(7))
        target.go_on.set()
        await call
        scene.tell(messages.ReportUse(7))
        told = [(each.in_flight, each.unused_s) for each in scene.of(messages.UseReported)]
        assert told[:3] == [(0, None), (0, None), (1, None)]
        assert told[3][0] == 0
        assert told[3][1] is not None
        assert 0 <= told[3][1] < DEADLINE_S

    play(body)


def test_lost_events_are_told_with_who_lost_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "LOSSES_S", 0.01)

    async def body(scene: Scene) -> None:
        target = Billing()
        scene.serve(target, is_heard=True)
        scene.find_itself()
        await scene.let_in()
        peers = scene.neighbours.peers
        assert peers is not None
        assert peers.publisher is not None
        assert peers.subscriptions is not None
        publisher, inbox = peers.publisher, peers.subscriptions.inboxes[0]
        await settled(lambda: any(each._topics for each in publisher.subscribers))
        inbox._limit = 3
        peers.publish("said", "x")
        await settled(lambda: target.begun == 1)
        for _ in range(10):
            peers.publish("said", "x")
        await settled(lambda: sum(each.count for each in scene.of(messages.EventsLost)) == 7)
        assert {(each.publisher, each.subscriber) for each in scene.of(messages.EventsLost)} == {("billing", "billing")}
        target.go_on.set()

    play(body)
