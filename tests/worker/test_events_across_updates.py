"""Events of a publisher that is replaced by another: what was published is heard, or counted as lost."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from svcd.worker_runtime.calls import publishing
from svcd.worker_runtime.calls.methods import on_event
from svcd.worker_runtime.calls.peers import Peers
from svcd.worker_runtime.calls.publishing import Listening, Publisher, QueueBounds
from svcd.worker_runtime.calls.routes import Address
from tests.worker.peers_stage import Stage, play, settled


class Clock:
    peers: Peers


class Audience:
    peers: Peers

    def __init__(self) -> None:
        self.heard: list[int] = []

    @on_event("clock.ticked")
    async def ticked(self, number: int) -> None:
        self.heard.append(number)


LISTENS = [Listening("audience", (b"ticked",))]


def address(peers: Peers) -> Address:
    made: Address = peers.address  # type: ignore[attr-defined]
    return made


async def listening(stage: Stage, clock: Peers) -> tuple[Audience, Peers]:
    """Somebody who hears that clock."""
    audience = Audience()
    peers = stage.serve(audience, check=lambda peer: "clock")
    assert peers.subscriptions is not None
    await peers.subscriptions.wait_heard(20)
    assert clock.publisher is not None
    assert clock.publisher.listeners() == [Listening("audience", (b"ticked",), os.getpid())]
    return audience, peers


def clock_of(stage: Stage, announce: bool = True) -> Peers:
    return stage.serve(Clock(), check=lambda peer: "audience", announce=announce)


def test_what_was_published_before_the_route_went_is_heard() -> None:
    async def scene(stage: Stage) -> None:
        old = clock_of(stage)
        audience, peers = await listening(stage, old)
        new = clock_of(stage, announce=False)
        for number in range(100):
            old.publish("ticked", number)
        stage.announce("clock", (address(new),))  # before anything of it was read
        old.publish("ticked", 100)
        old.close()
        await settled(lambda: audience.heard == list(range(101)))
        assert peers.subscriptions is not None
        await settled(lambda: not peers.subscriptions._leaving)  # type: ignore[union-attr]

    play(scene)


def test_who_has_begun_to_listen_is_heard_though_the_machine_stood_still() -> None:
    async def scene(stage: Stage) -> None:
        clock_of(stage)
        peers = stage.serve(Audience(), check=lambda peer: "clock")
        assert peers.subscriptions is not None
        waiting = asyncio.ensure_future(peers.subscriptions.wait_heard(0.3))
        await asyncio.sleep(0)
        time.sleep(0.4)  # longer than all of it
        await waiting
        assert [each.is_heard for each in peers.subscriptions._lines.values()] == [True]

    play(scene)


def test_a_route_that_is_there_again_is_no_second_line() -> None:
    async def scene(stage: Stage) -> None:
        clock = clock_of(stage)
        audience, _ = await listening(stage, clock)
        stage.announce("clock", ())
        clock.publish("ticked", 1)
        stage.announce("clock", (address(clock),))
        clock.publish("ticked", 2)
        await settled(lambda: audience.heard == [1, 2])
        assert clock.publisher is not None
        assert len(clock.publisher.subscribers) == 1

    play(scene)


def test_what_the_successor_publishes_waits_for_who_listened_before() -> None:
    async def scene(stage: Stage) -> None:
        new = stage.client("clock", lambda peer: "audience")
        place = Address("", str(stage.directory / "late.events"))
        opened: list[bool] = []
        new.expect(LISTENS)
        assert place.events is not None
        new.publish_at(place.events, lambda: opened.append(True))
        for number in range(5):
            new.publish("ticked", number)
        new.publish("tocked", 99)
        audience = Audience()
        stage.found["clock"] = (place,)
        stage.serve(audience)
        await settled(lambda: audience.heard == list(range(5)))
        new.publish("ticked", 5)
        await settled(lambda: audience.heard == list(range(6)))
        assert new.take_losses() == []

    play(scene)


def test_one_that_has_published_before_it_knows_whom_to_expect() -> None:
    async def scene(stage: Stage) -> None:
        new = stage.client("clock", lambda peer: "audience")
        place = Address("", str(stage.directory / "early.events"))
        assert place.events is not None
        new.publish_at(place.events, lambda: None)
        new.publish("ticked", 0)  # in its init, where nobody is told of it
        new.expect(LISTENS)
        new.publish("ticked", 1)
        audience = Audience()
        stage.found["clock"] = (place,)
        stage.serve(audience)
        await settled(lambda: audience.heard == [1])

    play(scene)


def test_who_does_not_come_has_lost_them_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "SEATS_KEPT_S", 0.02)

    async def scene(stage: Stage) -> None:
        clock = stage.client("clock")
        told: list[bool] = []
        clock.on_loss = lambda: told.append(True)
        clock.expect(LISTENS)
        clock.publish_at(str(stage.directory / "clock.events"), lambda: None)
        for number in range(3):
            clock.publish("ticked", number)
        await settled(lambda: bool(told))
        assert clock.take_losses() == [("clock", "audience", 3)]
        clock.publish("ticked", 4)
        assert clock.take_losses() == []

    play(scene)


def test_whose_process_lives_may_come_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """As who has come may read late. One that replaces the publisher meanwhile expects it, too."""
    monkeypatch.setattr(publishing, "SEATS_KEPT_S", 0.01)

    async def scene(stage: Stage) -> None:
        clock = stage.client("clock", lambda peer: "audience")
        here = Listening("audience", (b"ticked",), os.getpid())
        gone = Listening("gone", (b"ticked",), child_that_has_ended())
        clock.expect([here, gone])
        place = Address("", str(stage.directory / "clock.events"))
        assert place.events is not None
        assert clock.listeners() == [here, gone]  # before it has published anything
        clock.publish_at(place.events, lambda: None)
        clock.publish("ticked", 1)
        assert clock.publisher is not None
        await settled(lambda: clock.listeners() == [here])
        assert clock.take_losses() == [("clock", "gone", 1)]
        clock.publish("ticked", 2)
        audience = Audience()
        stage.found["clock"] = (place,)
        stage.serve(audience)
        await settled(lambda: audience.heard == [1, 2])
        assert clock.listeners() == [here]
        assert clock.take_losses() == []

    play(scene)


def child_that_has_ended() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        return child.pid


def test_who_may_not_listen_any_more_has_no_seat() -> None:
    async def scene(stage: Stage) -> None:
        clock = stage.client("clock")
        clock.expect(LISTENS)
        clock.publish_at(str(stage.directory / "clock.events"), lambda: None)
        clock.publish("ticked", 1)
        clock.dismiss("audience", "its permission was taken away")
        assert clock.listeners() == []

    play(scene)


def test_a_seat_has_bounds(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        publisher = Publisher(str(stage.directory / "x.events"), stage.check, QueueBounds(events=2))
        publisher.open()
        publisher.reserve(LISTENS)
        for number in range(5):
            publisher.publish("ticked", number)
        assert publisher.losses["audience"] == 3
        publisher.close()
        assert publisher.losses["audience"] == 5

    play(scene)


def test_what_did_not_go_out_at_the_end_is_counted() -> None:
    """The listener does not read: what neither it nor the kernel has taken is lost."""

    async def scene(stage: Stage) -> None:
        clock = clock_of(stage)
        _, peers = await listening(stage, clock)
        assert clock.publisher is not None
        (subscriber,) = clock.publisher.subscribers
        (line,) = peers.subscriptions._lines.values()  # type: ignore[union-attr]
        asyncio.get_running_loop().remove_reader(line._wire._fd)  # type: ignore[union-attr]
        for _ in range(20):
            clock.publish("ticked", bytes(1_000_000))
        await asyncio.sleep(0)
        waiting = sum(not each.begun for each in subscriber._queue)
        assert waiting > 0
        clock.close()
        half_out = 1  # the kernel takes less than one of them
        assert clock.take_losses() == [("clock", "audience", waiting + half_out)]

    play(scene)
