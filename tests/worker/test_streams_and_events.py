"""Streams with their back-pressure, events with their bounded queues: what arrives, what is lost, and who is told."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from svcd.protocol.call_errors import (
    CallRefused,
    DeadlineExceeded,
    Draining,
    RemoteError,
    ServiceUnavailable,
)
from svcd.worker_runtime.calls.link import STREAM_CREDIT
from svcd.worker_runtime.calls.methods import on_event, rpc
from svcd.worker_runtime.calls.peers import Peers
from svcd.worker_runtime.calls.publishing import QueueBounds
from svcd.worker_runtime.calls.request import current
from svcd.worker_runtime.lifetime.outcome import StateError
from tests.worker.peers_stage import Stage, play, settled


class History:
    peers: Peers

    def __init__(self) -> None:
        self.made = 0
        self.closed = 0

    @rpc
    async def rows(self, count: int) -> AsyncIterator[int]:
        try:
            for index in range(count):
                self.made += 1
                yield index
        finally:
            self.closed += 1

    @rpc
    def plain_rows(self, count: int) -> Iterator[int]:
        try:
            for index in range(count):
                self.made += 1
                yield index
        finally:
            self.closed += 1

    @rpc
    async def blocks(self, count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            self.made += 1
            yield bytes(1_000_000)

    @rpc
    async def breaks(self) -> AsyncIterator[int]:
        yield 1
        raise ValueError("no more")

    @rpc
    async def lies(self) -> AsyncIterator[int]:
        yield "one"  # type: ignore[misc]

    @rpc
    async def follow(self) -> AsyncIterator[int]:
        """As long polls and tails do it: until it is told that the endpoint is shut."""
        request = current.get()
        assert request is not None
        yield 0
        await request.token.wait_async()
        yield 1

    @rpc
    async def one(self) -> int:
        return 1


async def taken(rows: Any) -> list[Any]:
    return [row async for row in rows]


# ---- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["rows", "plain_rows"])
@pytest.mark.parametrize("count", [0, 1, STREAM_CREDIT, STREAM_CREDIT + 1, 500])
def test_a_stream_from_its_beginning_to_its_end(method: str, count: int) -> None:
    async def scene(stage: Stage) -> None:
        history = History()
        served = stage.serve(history)
        caller = stage.client()
        assert await taken(caller.stream(f"history.{method}", count)) == list(range(count))
        assert served.endpoint is not None
        await settled(lambda: history.closed == 1)
        await settled(lambda: served.endpoint.in_flight.count == 0)  # type: ignore[union-attr]
        assert await taken(getattr(caller.service(History), method)(count=count)) == list(range(count))

    play(scene)


@pytest.mark.parametrize("method", ["rows", "plain_rows"])
def test_a_stream_does_not_run_ahead_of_who_reads_it(method: str) -> None:
    async def scene(stage: Stage) -> None:
        history = History()
        stage.serve(history)
        caller = stage.client()
        async with caller.stream(f"history.{method}", 10_000) as rows:
            assert await anext(rows) == 0
            for _ in range(20):  # each call is answered after whatever else was to be done
                await caller.call("history.one")
            await settled(lambda: history.made == STREAM_CREDIT)
            await caller.call("history.one")
            assert history.made == STREAM_CREDIT
            for index in range(1, 200):
                assert await anext(rows) == index
            assert history.made <= 200 + STREAM_CREDIT
        await settled(lambda: history.closed == 1)

    play(scene)


def test_large_items_arrive_in_order() -> None:
    async def scene(stage: Stage) -> None:
        stage.serve(History())
        sizes = [len(each) async for each in stage.client().stream("history.blocks", 100)]
        assert sizes == [1_000_000] * 100

    play(scene)


def test_several_streams_and_calls_share_a_connection() -> None:
    async def scene(stage: Stage) -> None:
        stage.serve(History())
        caller = stage.client()
        streams = [taken(caller.stream("history.rows", 300)) for _ in range(5)]
        *came, one = await asyncio.gather(*streams, caller.call("history.one"))
        assert came == [list(range(300))] * 5
        assert one == 1
        assert len(stage.callers) == 1

    play(scene)


def test_a_stream_that_is_left_or_forgotten_is_closed_over_there() -> None:
    async def scene(stage: Stage) -> None:
        history = History()
        stage.serve(history)
        caller = stage.client()
        async for _ in caller.stream("history.rows", 10_000):
            break
        gc.collect()
        await settled(lambda: history.closed == 1)
        async for _ in caller.service(History).rows(10_000):
            break
        gc.collect()
        await settled(lambda: history.closed == 2)
        async with caller.service(History).rows(10_000) as rows:
            assert await anext(rows) == 0
        await settled(lambda: history.closed == 3)
        reader = asyncio.ensure_future(taken(caller.stream("history.follow")))
        await caller.call("history.one")
        reader.cancel()
        await asyncio.wait({reader})
        assert reader.cancelled()

    play(scene)


def test_a_stream_that_is_never_begun_asks_nothing() -> None:
    async def scene(stage: Stage) -> None:
        history = History()
        stage.serve(history)
        stream = stage.client().stream("history.rows", 5)
        await stream.aclose()
        assert await taken(stream) == []
        assert history.made == 0

    play(scene)


def test_what_breaks_a_stream_comes_after_what_came_before_it() -> None:
    async def scene(stage: Stage) -> None:
        stage.serve(History())
        caller = stage.client()
        stream = caller.stream("history.breaks")
        assert await anext(stream) == 1
        with pytest.raises(RemoteError, match=r"history\.breaks raised ValueError: no more"):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        with pytest.raises(RemoteError, match="its result must be int, not str"):
            await taken(caller.stream("history.lies"))

    play(scene)


def test_calls_are_no_streams_and_streams_no_calls() -> None:
    async def scene(stage: Stage) -> None:
        stage.serve(History())
        caller = stage.client()
        with pytest.raises(CallRefused, match=r"history\.rows is a stream: ask for it with stream\(\)"):
            await caller.call("history.rows", 5)
        with pytest.raises(CallRefused, match=r"history\.one is no stream: ask with call\(\)"):
            await taken(caller.stream("history.one"))

    play(scene)


def test_the_deadline_of_a_stream_is_for_all_of_it() -> None:
    async def scene(stage: Stage) -> None:
        stage.serve(History())
        with pytest.raises(DeadlineExceeded):
            await taken(stage.client().stream("history.follow", timeout=0.05))

    play(scene)


def test_a_lost_callee_ends_the_stream_at_once() -> None:
    async def scene(stage: Stage) -> None:
        served = stage.serve(History())
        stream = stage.client().stream("history.follow")
        assert await anext(stream) == 0
        served.close()
        with pytest.raises(ServiceUnavailable, match="was lost"):
            await anext(stream)

    play(scene)


def test_a_caller_that_goes_ends_the_generator() -> None:
    async def scene(stage: Stage) -> None:
        history = History()
        stage.serve(history)
        caller = stage.client()
        stream = caller.stream("history.rows", 10_000)
        await anext(stream)
        caller.close()
        await settled(lambda: history.closed == 1)

    play(scene)


def test_a_stream_learns_that_its_endpoint_is_shut_and_may_end_well() -> None:
    async def scene(stage: Stage) -> None:
        served = stage.serve(History())
        caller = stage.client()
        stream = caller.stream("history.follow")
        assert await anext(stream) == 0
        drain = asyncio.ensure_future(served.drain(20))
        assert await taken(stream) == [1]
        assert await drain == 0
        with pytest.raises(Draining):
            await taken(caller.stream("history.rows", 1))

    play(scene)


# ---- events ----------------------------------------------------------------------------------------------------------


class Orders:
    peers: Peers


class Mailer:
    peers: Peers

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.all: list[Any] = []
        self.plain: list[Any] = []
        self.held: asyncio.Event | None = None

    @on_event("orders.created")
    async def created(self, event: int) -> None:
        self.heard.append(event)
        if self.held is not None:
            await self.held.wait()

    @on_event("orders.cre*", "orders.gone")
    async def several(self, event: Any) -> None:
        self.all.append(event)

    @on_event("orders.plain")
    def in_a_thread(self, event: Any) -> None:
        self.plain.append(event)
        if event == "bad":
            raise ValueError("bad")


async def subscribed(orders: Peers, topics: int = 1, count: int = 1) -> None:
    assert orders.publisher is not None
    publisher = orders.publisher
    await settled(lambda: [len(each._topics) for each in publisher.subscribers] == [topics] * count)


def test_events_reach_who_listens_in_their_order() -> None:
    async def scene(stage: Stage) -> None:
        mailer = Mailer()
        orders = stage.serve(Orders())
        stage.serve(mailer)
        await subscribed(orders, 4)
        for index in range(100):
            orders.publish("created", index)
        orders.publish("create", "begins so too")
        orders.publish("gone", None)
        orders.publish("gone.not", "another topic")
        orders.publish("plain", "one")
        orders.publish("plain", "bad")
        orders.publish("plain", "two")
        await settled(lambda: len(mailer.heard) == 100 and len(mailer.all) == 102 and len(mailer.plain) == 3)
        assert mailer.heard == list(range(100))
        assert mailer.all == [*range(100), "begins so too", None]
        assert mailer.plain == ["one", "bad", "two"]
        assert [method for method, _ in stage.errors] == ["in_a_thread"]

    play(scene)


def test_an_event_that_is_not_as_annotated_is_refused_and_told() -> None:
    async def scene(stage: Stage) -> None:
        mailer = Mailer()
        orders = stage.serve(Orders())
        heard = stage.serve(mailer).subscriptions
        await subscribed(orders, 4)
        orders.publish("created", "no int")
        orders.publish("created", 1)
        await settled(lambda: mailer.heard == [1])
        assert heard is not None
        assert heard.refused == 1
        assert str(stage.errors[0][1]) == "created() cannot hear orders.created: the event must be int, not str"

    play(scene)


def test_a_slow_method_loses_its_own_events_counted() -> None:
    async def scene(stage: Stage) -> None:
        mailer = Mailer()
        mailer.held = asyncio.Event()
        orders = stage.serve(Orders())
        peers = stage.serve(mailer)
        heard = peers.subscriptions
        assert heard is not None
        for inbox in heard.inboxes:
            inbox._limit = 10
        await subscribed(orders, 4)
        for index in range(100):
            orders.publish("created", index)
            await settled(lambda index=index: len(mailer.all) == index + 1)  # type: ignore[misc]
        assert heard.dropped == 89
        mailer.held.set()
        await settled(lambda: len(mailer.heard) == 11)
        assert mailer.heard == list(range(11))
        assert heard.missed == 0

    play(scene)


def test_a_subscriber_that_does_not_read_costs_a_bounded_queue_and_is_told_what_it_lost(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        orders = stage.serve(Orders(), queue_bounds=QueueBounds(events=20, size_bytes=5_000_000))
        mailer = Mailer()
        peers = stage.serve(mailer)
        await subscribed(orders, 4)
        publisher, heard = orders.publisher, peers.subscriptions
        assert publisher is not None
        assert heard is not None
        (line,) = heard._lines.values()
        assert line._wire is not None
        asyncio.get_running_loop().remove_reader(line._wire._fd)  # as a process that stands still
        for _ in range(500):
            orders.publish("created", 7)
            orders.publish("gone", bytes(100_000))
            await asyncio.sleep(0)
        (subscriber,) = publisher.subscribers
        assert publisher.dropped == subscriber.dropped > 500
        assert subscriber._wire.backlog_bytes <= 5_000_000
        asyncio.get_running_loop().add_reader(line._wire._fd, line._wire._read)
        await settled(lambda: subscriber._wire.backlog_bytes == 0)
        orders.publish("created", 8)
        await settled(lambda: mailer.heard[-1:] == [8])
        assert heard.missed == publisher.dropped

    play(scene)


def test_a_publisher_that_comes_back_is_heard_again() -> None:
    async def scene(stage: Stage) -> None:
        mailer = Mailer()
        first = stage.serve(Orders())
        stage.serve(mailer)
        await subscribed(first, 4)
        first.publish("created", 1)
        await settled(lambda: mailer.heard == [1])
        first.close()
        stage.announce("orders", ())
        second = stage.serve(Orders())
        await subscribed(second, 4)
        second.publish("created", 2)
        await settled(lambda: mailer.heard == [1, 2])

    play(scene)


def test_what_cannot_be_published() -> None:
    async def scene(stage: Stage) -> None:
        orders = stage.serve(Orders())
        with pytest.raises(ValueError, match=r"cannot publish created: .*object cannot travel"):
            orders.publish("created", object())
        for topic in ("", "a*", "x" * 500, None):
            with pytest.raises(ValueError, match="a topic is a short text"):
                orders.publish(topic, 1)  # type: ignore[arg-type]
        with pytest.raises(StateError, match="cannot publish: it is not up yet"):
            stage.client().publish("created")

    play(scene)


def test_events_are_published_from_threads_too() -> None:
    async def scene(stage: Stage) -> None:
        mailer = Mailer()
        orders = stage.serve(Orders())
        stage.serve(mailer)
        await subscribed(orders, 4)
        await asyncio.to_thread(orders.publish, "created", 5)
        await settled(lambda: mailer.heard == [5])

    play(scene)


@pytest.mark.parametrize("name", ["", "orders", "orders.", ".created", "*.created", "orders.*x", 5])
def test_an_event_of_no_name(name: Any) -> None:
    with pytest.raises(ValueError, match=r'an event is named "service\.topic"'):
        on_event(name)


# ---- libzmq as the other side ----------------------------------------------------------------------------------------


def test_libzmq_subscribes_and_calls() -> None:
    async def scene(stage: Stage) -> None:
        orders: Any = stage.serve(Orders())
        history: Any = stage.serve(History())
        context: zmq.Context[Any] = zmq.Context()
        sub, dealer = context.socket(zmq.SUB), context.socket(zmq.DEALER)
        try:
            sub.linger = dealer.linger = 0
            sub.rcvtimeo = dealer.rcvtimeo = 20_000
            sub.connect(f"ipc://{orders.address.events}")
            sub.subscribe("cre")
            dealer.connect(f"ipc://{history.address.calls}")
            await subscribed(orders)
            orders.publish("gone", 1)
            orders.publish("created", 2)
            topic, _head, value = await asyncio.to_thread(sub.recv_multipart)
            assert (topic, value) == (b"created", b"\x02")
            head = b"\x96\x01\x01\x07\xa3one\xc0\x00"  # [version 1, CALL, id 7, "one", no deadline, no stream]
            dealer.send_multipart([head, b"\x92\x90\x80"])
            assert await asyncio.to_thread(dealer.recv_multipart) == [b"\x93\x01\x04\x07", b"\x01"]
        finally:
            sub.close()
            dealer.close()
            context.term()

    play(scene)
