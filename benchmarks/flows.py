"""Streams and events between two processes, beside raw pyzmq between two processes, in turns within one run.

Must not start a cluster: it measures the engine, as a service's stub uses it.
Usage: ``python -m benchmarks.flows SIDE DIRECTORY`` is one end of it; ``measure`` starts both.

Neither side may lose an event here: they come in bursts that fit the queues of both, and two of them are under way.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from typing import Any

import zmq

from benchmarks.calls import cpu_s, end_soon, started
from benchmarks.table import Figure
from svcd.worker_runtime.calls.methods import on_event, rpc
from svcd.worker_runtime.calls.peers import Peers
from svcd.worker_runtime.calls.routes import Address, Routes

TURNS = 7
ITEMS, BLOCKS, EVENTS = 8000, 64, 16000
CREDIT, BURST = 32, 200  # two bursts, and the half queue that libzmq reckons in, are less than its 1000
PAYLOAD = "x" * 100
BLOCK_BYTES = 1024 * 1024
NAMES = ("items", "blocks", "events", "items cpu", "events cpu")

Seen = dict[str, list[float]]


class Source:
    """What flows."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._block = memoryview(bytearray(BLOCK_BYTES))

    @rpc
    async def items(self, count: int) -> AsyncIterator[str]:
        for _ in range(count):
            yield PAYLOAD

    @rpc
    async def blocks(self, count: int) -> AsyncIterator[memoryview]:
        for _ in range(count):
            yield self._block

    @rpc
    async def publish(self, count: int) -> None:
        for _ in range(count):
            self._peers.publish("told", PAYLOAD)

    @rpc
    async def end(self) -> None:
        end_soon()


class Hearer:
    """Whom it is told."""

    def __init__(self) -> None:
        self.heard = 0
        self._burst = asyncio.Event()

    @on_event("source.told")
    async def told(self, text: str) -> None:
        self.heard += 1
        if not self.heard % BURST:
            self._burst.set()

    async def wait_heard(self, count: int) -> None:
        while self.heard < count:
            self._burst.clear()
            await self._burst.wait()


async def serve(directory: str) -> None:
    """svcd's end that sends."""
    peers = Peers("source", Routes(), lambda peer: "benchmark")
    peers.serve(Source(peers), f"{directory}/calls", f"{directory}/events")
    print("ready", flush=True)
    await asyncio.Event().wait()


def serve_raw(directory: str) -> None:
    """The same with raw pyzmq: ``[how many, of what]`` is answered with so many."""
    context = zmq.Context()
    router: Any = context.socket(zmq.ROUTER)
    router.bind(f"ipc://{directory}/raw")
    publisher: Any = context.socket(zmq.PUB)
    publisher.bind(f"ipc://{directory}/raw-events")
    item, block = PAYLOAD.encode(), bytearray(BLOCK_BYTES)
    print("ready", flush=True)
    while True:
        caller, count, what = router.recv_multipart()
        for _ in range(int(count)):
            if what == b"items":
                router.send_multipart([caller, b"", item])
            elif what == b"blocks":
                router.send_multipart([caller, b"", block], copy=False)
            else:
                publisher.send_multipart([b"told", item])
        if what == b"end":
            os._exit(0)


class Raw:
    """The other end of ``serve_raw``."""

    def __init__(self, directory: str) -> None:
        context = zmq.Context.instance()
        self._dealer: Any = context.socket(zmq.DEALER)
        self._dealer.connect(f"ipc://{directory}/raw")
        self._subscriber: Any = context.socket(zmq.SUB)
        self._subscriber.connect(f"ipc://{directory}/raw-events")
        self._subscriber.subscribe(b"told")

    def stream(self, what: bytes, count: int, *, copy: bool) -> None:
        self._ask(CREDIT, what)
        asked = CREDIT
        for taken in range(1, count + 1):
            self._dealer.recv_multipart(copy=copy)
            if not taken % (CREDIT // 2) and asked < count:
                self._ask(CREDIT // 2, what)
                asked += CREDIT // 2

    def hear(self, count: int) -> None:
        self._ask(BURST, b"events")
        for _ in range(count // BURST - 1):
            self._ask(BURST, b"events")
            for _ in range(BURST):
                self._subscriber.recv_multipart()
        for _ in range(BURST):
            self._subscriber.recv_multipart()

    def _ask(self, count: int, what: bytes) -> None:
        self._dealer.send_multipart([b"%d" % count, what])

    def end(self) -> None:
        self._ask(0, b"end")


async def hear(peers: Peers, hearer: Hearer, count: int) -> None:
    before = hearer.heard
    await peers.call("source.publish", BURST)
    for asked in range(BURST, count, BURST):
        await peers.call("source.publish", BURST)
        await hearer.wait_heard(before + asked)
    await hearer.wait_heard(before + count)


async def drain(peers: Peers, name: str, count: int) -> None:
    async for _ in peers.stream(name, count):
        pass


async def ask(directory: str, pid: int, raw_pid: int) -> Seen:
    """The end that takes: both in turns. The pids are those of the other ends."""
    routes = Routes()
    routes.set_route("source", (Address(f"{directory}/calls", f"{directory}/events"),))
    peers, hearer, raw = Peers("benchmark", routes), Hearer(), Raw(directory)
    peers.serve(hearer, None)
    await asyncio.sleep(0.5)  # both subscriptions have arrived by then; who misses an event would wait for ever
    seen: Seen = {name: [] for prefix in ("", "raw ") for name in (prefix + each for each in NAMES)}
    for _ in range(TURNS + 1):
        with Timed(seen, "raw items", ITEMS, raw_pid):
            raw.stream(b"items", ITEMS, copy=True)
        with Timed(seen, "items", ITEMS, pid):
            await drain(peers, "source.items", ITEMS)
        with Timed(seen, "raw blocks", BLOCKS, None):
            raw.stream(b"blocks", BLOCKS, copy=False)
        with Timed(seen, "blocks", BLOCKS, None):
            await drain(peers, "source.blocks", BLOCKS)
        with Timed(seen, "raw events", EVENTS, raw_pid):
            raw.hear(EVENTS)
        with Timed(seen, "events", EVENTS, pid):
            await hear(peers, hearer, EVENTS)
    raw.end()
    await peers.call("source.end")
    assert peers.subscriptions is not None
    assert (peers.subscriptions.missed, peers.subscriptions.dropped) == (0, 0)
    return {name: found[1:] for name, found in seen.items()}  # the first turn warms up


class Timed:
    """Of what runs within it: how many in a second and, with ``other``, the CPU of each at both ends."""

    def __init__(self, seen: Seen, name: str, count: int, other: int | None) -> None:
        self._seen, self._name, self._count, self._other = seen, name, count, other

    def __enter__(self) -> None:
        self._cpu_s = 0.0 if self._other is None else cpu_s(self._other)
        self._began_s = time.perf_counter()

    def __exit__(self, *_error: object) -> None:
        self._seen[self._name].append(self._count / (time.perf_counter() - self._began_s))
        if self._other is not None:
            self._seen[f"{self._name} cpu"].append((cpu_s(self._other) - self._cpu_s) / self._count * 1e6)


def measure() -> list[Figure]:
    """Both sides of both, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="svcd-flows") as directory:
        sources = [started("benchmarks.flows", side, directory) for side in ("serve", "serve-raw")]
        for source in sources:
            assert source.stdout is not None
            source.stdout.readline()
        with started("benchmarks.flows", "ask", directory, *(str(each.pid) for each in sources)) as asking:
            seen: Seen = json.loads(asking.communicate()[0])
        for source in sources:
            source.communicate()
    found = {name: statistics.median(each) for name, each in seen.items()}
    return [
        Figure(f"stream of 100 bytes an item, {CREDIT} ahead", found["items"], "items/s", found["raw items"]),
        Figure("… CPU of each, both ends and all threads", found["items cpu"], "µs", found["raw items cpu"]),
        Figure("stream of blocks of 1 MiB", found["blocks"], "MiB/s", found["raw blocks"]),
        Figure("events of 100 bytes, one listener", found["events"], "events/s", found["raw events"]),
        Figure("… CPU of each, both ends and all threads", found["events cpu"], "µs", found["raw events cpu"]),
    ]


def main(side: str, directory: str, *pids: str) -> None:
    if side == "serve":
        asyncio.run(serve(directory))
    elif side == "serve-raw":
        serve_raw(directory)
    else:
        print(json.dumps(asyncio.run(ask(directory, *map(int, pids)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
