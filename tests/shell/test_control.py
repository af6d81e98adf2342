"""Control: well-formed messages reach the receiver with the kernel's word on who spoke; everything else is counted."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import zmq

from svcd.protocol import codec
from svcd.protocol.errors import ErrorCode
from svcd.protocol.limits import MAX_MESSAGE_BYTES
from svcd.protocol.messages import (
    ClusterStateChanged,
    GetStatus,
    Message,
    RequestAccepted,
    RequestRefused,
    SubscriptionConfirmed,
)
from svcd.supervisor.controller.control import TURN, Control, Peer

DEADLINE_S = 30.0
ASK = codec.encode(GetStatus())


class Scene:
    """A control with a receiver that answers every question."""

    def __init__(self, directory: Path) -> None:
        self.heard: list[tuple[Peer, bytes, Message]] = []
        self.control = Control(asyncio.get_running_loop(), self._receive)
        self.paths = [str(directory / name) for name in ("control", "events", "side")]
        self.control.open(*self.paths)
        self.context = zmq.Context()
        self.sockets: list[zmq.Socket[bytes]] = []

    def _receive(self, peer: Peer, correlation: bytes, message: Message) -> None:
        self.heard.append((peer, correlation, message))
        self.control.send(peer.route, correlation, RequestAccepted())

    def dealer(self, path: int = 0) -> zmq.Socket[bytes]:
        made = self.socket(zmq.DEALER)
        made.connect(f"ipc://{self.paths[path]}")
        return made

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        made = self.context.socket(kind)
        made.linger = 0
        self.sockets.append(made)
        return made

    def subscriber(self, *topics: bytes) -> zmq.Socket[bytes]:
        made = self.socket(zmq.SUB)
        for each in topics:
            made.subscribe(each)
        made.connect(f"ipc://{self.paths[1]}")
        return made

    async def told(self, subscriber: zmq.Socket[bytes]) -> tuple[bytes, Message]:
        """What is published to it next; the loop goes on meanwhile."""
        return await self.answer(subscriber)

    async def answer(self, dealer: zmq.Socket[bytes]) -> tuple[bytes, Message]:
        """The next answer; the loop goes on meanwhile."""
        async with asyncio.timeout(DEADLINE_S):
            while not await asyncio.to_thread(dealer.poll, 20):
                pass
        correlation, body = dealer.recv_multipart()
        return correlation, codec.decode(body)

    def close(self) -> None:
        for each in self.sockets:
            each.close()
        self.context.term()
        self.control.close()


def run(tmp_path: Path, body: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        scene = Scene(tmp_path)
        try:
            await body(scene)
        finally:
            scene.close()

    asyncio.run(whole())


def test_the_peer_is_who_the_kernel_says(tmp_path: Path) -> None:
    async def body(scene: Scene) -> None:
        for path in (0, 2):
            dealer = scene.dealer(path)
            dealer.send_multipart([b"c1", ASK])
            assert await scene.answer(dealer) == (b"c1", RequestAccepted())
            peer, correlation, message = scene.heard[-1]
            assert (peer.uid, peer.pid, correlation, message) == (os.geteuid(), os.getpid(), b"c1", GetStatus())

    run(tmp_path, body)


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"", b"", b""],
        [ASK],
        [b"x" * 17, ASK],
        [b"", b""],
        [b"", b"\xc1"],
        [b"", b"\x93\x01\xa3Foo\x80"],
        [b"", b"\x93\x02\xa9GetStatus\x80"],
        [b"", os.urandom(300)],
        [b"", b"\xdd\xff\xff\xff\xff"],
    ],
)
def test_garbage_is_counted_and_changes_nothing(tmp_path: Path, frames: list[bytes]) -> None:
    async def body(scene: Scene) -> None:
        dealer = scene.dealer()
        dealer.send_multipart(frames)
        dealer.send_multipart([b"ok", ASK])
        assert await scene.answer(dealer) == (b"ok", RequestAccepted())
        assert len(scene.heard) == 1
        assert sum(scene.control.rejected.values()) == 1

    run(tmp_path, body)


def test_who_waits_is_told_what_is_wrong(tmp_path: Path) -> None:
    async def body(scene: Scene) -> None:
        dealer = scene.dealer()
        dealer.send_multipart([b"c", b"\x93\x01\xa3Foo\x80"])
        correlation, message = await scene.answer(dealer)
        assert correlation == b"c"
        assert isinstance(message, RequestRefused)
        assert (message.code, message.text) == (ErrorCode.UNKNOWN_MESSAGE.value, "no message is called 'Foo'")

    run(tmp_path, body)


def test_a_huge_message_costs_its_sender_the_connection_and_nobody_else_anything(tmp_path: Path) -> None:
    async def body(scene: Scene) -> None:
        hostile, honest = scene.dealer(), scene.dealer()
        hostile.send_multipart([b"h", b"x" * (MAX_MESSAGE_BYTES + 1)])
        honest.send_multipart([b"c", ASK])
        assert await scene.answer(honest) == (b"c", RequestAccepted())
        assert [correlation for _, correlation, _ in scene.heard] == [b"c"]

    run(tmp_path, body)


def test_a_flood_is_answered_whole_and_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    async def body(scene: Scene) -> None:
        dealer, count = scene.dealer(), TURN * 5 + 3
        for number in range(count):
            dealer.send_multipart([str(number).encode(), ASK])
        ticks = 0
        async with asyncio.timeout(DEADLINE_S):
            while len(scene.heard) < count:
                await asyncio.sleep(0)
                ticks += 1
        assert ticks >= count // TURN
        answers = [await scene.answer(dealer) for _ in range(count)]
        assert [correlation for correlation, _ in answers] == [str(number).encode() for number in range(count)]

    run(tmp_path, body)


def test_what_has_come_can_be_heard_out_at_once(tmp_path: Path) -> None:
    async def body(scene: Scene) -> None:
        """The loop does not run meanwhile: nobody else takes anything."""
        dealer, sent, most = scene.dealer(), 0, 0
        deadline_s = time.monotonic() + DEADLINE_S
        while most <= TURN or len(scene.heard) < sent:
            assert time.monotonic() < deadline_s, f"at most {most} at once, {len(scene.heard)} of {sent}"
            if len(scene.heard) == sent:  # they may have come in small numbers
                for _ in range(TURN * 5 + 3):
                    dealer.send_multipart([b"", ASK])
                    sent += 1
            before = len(scene.heard)
            scene.control.hear_out()
            most = max(most, len(scene.heard) - before)

    run(tmp_path, body)


def test_one_that_is_closed_has_nothing_more_to_hear(tmp_path: Path) -> None:
    async def body(scene: Scene) -> None:
        scene.control.close()
        scene.control.hear_out()
        assert scene.heard == []

    run(tmp_path, body)


def test_a_peer_that_left_is_no_error(tmp_path: Path) -> None:
    async def body(scene: Scene) -> None:
        assert not scene.control.send(b"nobody", b"", RequestAccepted())
        assert scene.control.rejected["unreachable"] == 1

    run(tmp_path, body)


def test_events_reach_subscribers_with_their_tag(tmp_path: Path) -> None:
    async def body(scene: Scene) -> None:
        event = ClusterStateChanged(1, 2.0, "running", "")
        for number in (*range(20), 7):  # a word may have been used before
            subscriber = scene.subscriber(b"ClusterState", b"SubscriptionConfirmed:%d" % number)
            assert await scene.told(subscriber) == (
                b"SubscriptionConfirmed:%d" % number,
                SubscriptionConfirmed(str(number)),
            )
            scene.control.publish(event)  # once, at once
            assert await scene.told(subscriber) == (b"ClusterStateChanged", event)

    run(tmp_path, body)


@pytest.mark.parametrize("strange", [b"SubscriptionConfirmed:\xff", b"Confirmed:x", b"x" * 300])
def test_a_strange_subscription_is_answered_by_nothing_and_others_are(tmp_path: Path, strange: bytes) -> None:
    async def body(scene: Scene) -> None:
        hostile = scene.subscriber(strange, b"ClusterState")
        honest = scene.subscriber(b"SubscriptionConfirmed:honest")
        assert await scene.told(honest) == (b"SubscriptionConfirmed:honest", SubscriptionConfirmed("honest"))
        assert not hostile.poll(0)

    run(tmp_path, body)


def test_a_flood_of_subscriptions_holds_nobody_up(tmp_path: Path) -> None:
    async def body(scene: Scene) -> None:
        words = [b"SubscriptionConfirmed:%d" % number for number in range(TURN * 3 + 1)]
        subscriber = scene.subscriber(*words)
        assert sorted([(await scene.told(subscriber))[0] for _ in words]) == sorted(words)

    run(tmp_path, body)


def test_the_sockets_are_for_their_owner_alone(tmp_path: Path) -> None:
    async def body(scene: Scene) -> None:
        assert [os.stat(path).st_mode & 0o777 for path in scene.paths] == [0o600, 0o600, 0o666]

    run(tmp_path, body)
    assert list(tmp_path.iterdir()) == []
