"""Calls between two processes, beside raw pyzmq between two processes, in turns within one run.

Must not start a cluster: it measures the engine of calls, as a service's stub uses it.
Usage: ``python -m benchmarks.calls SIDE DIRECTORY`` is one end of it; ``measure`` starts both.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import psutil
import zmq

from benchmarks.table import Figure
from svcd.worker_runtime.calls.methods import rpc
from svcd.worker_runtime.calls.peers import Peers
from svcd.worker_runtime.calls.routes import Address, Routes

TURNS = 9
CALLS, MANY, LARGE = 2000, 16000, 4
IN_FLIGHT = 64
PAYLOAD = "x" * 100
LARGE_BYTES = 64 * 1024 * 1024

Seen = dict[str, list[float]]


class Echo:
    """What is called."""

    @rpc
    async def echo(self, text: str) -> str:
        return text

    @rpc
    async def swallow(self, array: memoryview) -> int:
        return len(array)

    @rpc
    async def end(self) -> None:
        end_soon()


def end_soon() -> None:
    """Behind the answer."""
    asyncio.get_running_loop().call_later(0.1, os._exit, 0)


async def serve(directory: str) -> None:
    """The callee: svcd's, until it is told to end."""
    Peers("echo", Routes(), lambda peer: "benchmark").serve(Echo(), f"{directory}/svcd")
    print("ready", flush=True)
    await asyncio.Event().wait()


def serve_raw(directory: str) -> None:
    """The callee: raw pyzmq. It answers large frames with small ones."""
    router: Any = zmq.Context().socket(zmq.ROUTER)
    router.bind(f"ipc://{directory}/raw")
    print("ready", flush=True)
    while True:
        frames = router.recv_multipart(copy=False)
        if len(frames[-1].buffer) == 3:
            os._exit(0)
        if len(frames[-1].buffer) > 1000:
            frames[-1:] = [b"ok"]
        router.send_multipart(frames, copy=False)


def serve_raw_small(directory: str) -> None:
    """As above, copying, which is faster for small frames."""
    router: Any = zmq.Context().socket(zmq.ROUTER)
    router.bind(f"ipc://{directory}/raw-small")
    print("ready", flush=True)
    while True:
        frames = router.recv_multipart()
        if len(frames[-1]) == 3:
            os._exit(0)
        router.send_multipart(frames)


async def ask(directory: str, pid: int, raw_pid: int) -> Seen:
    """The caller: both in turns, so that whatever else the machine does meets both. The pids are the callees'."""
    routes = Routes()
    routes.set_route("echo", (Address(f"{directory}/svcd"),))
    peers = Peers("benchmark", routes)
    small, large = _raw(f"{directory}/raw-small"), _raw(f"{directory}/raw")
    seen: Seen = {name: [] for name in ("one", "raw one", "many", "raw many", "large", "raw large", "cpu", "raw cpu")}
    block = bytearray(LARGE_BYTES)
    for _ in range(TURNS + 1):
        seen["raw one"].append(_timed_raw_one(small))
        seen["one"].append(await _timed_one(peers))
        before = cpu_s(raw_pid)
        seen["raw many"].append(_timed_raw_many(small))
        seen["raw cpu"].append((cpu_s(raw_pid) - before) / MANY * 1e6)
        before = cpu_s(pid)
        seen["many"].append(await _timed_many(peers))
        seen["cpu"].append((cpu_s(pid) - before) / MANY * 1e6)
        seen["raw large"].append(_timed_raw_large(large, block))
        seen["large"].append(await _timed_large(peers, block))
    for socket in (small, large):
        socket.send_multipart([b"", b"end"])
    await peers.call("echo.end")
    return {name: found[1:] for name, found in seen.items()}  # the first turn warms up


def cpu_s(callee: int) -> float:
    """Of both ends, with all their threads."""
    times = psutil.Process(callee).cpu_times()
    return time.process_time() + times.user + times.system


def _raw(path: str) -> Any:
    dealer: Any = zmq.Context.instance().socket(zmq.DEALER)
    dealer.connect(f"ipc://{path}")
    return dealer


def _timed_raw_one(dealer: Any) -> float:
    frames = [b"", PAYLOAD.encode()]
    began = time.perf_counter()
    for _ in range(CALLS):
        dealer.send_multipart(frames)
        dealer.recv_multipart()
    return (time.perf_counter() - began) / CALLS * 1e6


async def _timed_one(peers: Peers) -> float:
    began = time.perf_counter()
    for _ in range(CALLS):
        await peers.call("echo.echo", text=PAYLOAD)
    return (time.perf_counter() - began) / CALLS * 1e6


def _timed_raw_many(dealer: Any) -> float:
    frames = [b"", PAYLOAD.encode()]
    began = time.perf_counter()
    for _ in range(IN_FLIGHT):
        dealer.send_multipart(frames)
    for _ in range(MANY - IN_FLIGHT):
        dealer.recv_multipart()
        dealer.send_multipart(frames)
    for _ in range(IN_FLIGHT):
        dealer.recv_multipart()
    return MANY / (time.perf_counter() - began)


async def _timed_many(peers: Peers) -> float:
    async def one_after_the_other() -> None:
        for _ in range(MANY // IN_FLIGHT):
            await peers.call("echo.echo", text=PAYLOAD)

    began = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(IN_FLIGHT)))
    return MANY / (time.perf_counter() - began)


def _timed_raw_large(dealer: Any, block: bytearray) -> float:
    began = time.perf_counter()
    for _ in range(LARGE):
        dealer.send_multipart([b"", block], copy=False)
        dealer.recv_multipart()
    return LARGE * LARGE_BYTES / 2**20 / (time.perf_counter() - began)


async def _timed_large(peers: Peers, block: bytearray) -> float:
    began = time.perf_counter()
    for _ in range(LARGE):
        assert await peers.call("echo.swallow", memoryview(block)) == LARGE_BYTES
    return LARGE * LARGE_BYTES / 2**20 / (time.perf_counter() - began)


def measure() -> list[Figure]:
    """Both sides of both, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="svcd-calls") as directory:
        callees = [started("benchmarks.calls", side, directory) for side in ("serve", "serve-raw", "serve-raw-small")]
        for callee in callees:
            assert callee.stdout is not None
            callee.stdout.readline()
        with started("benchmarks.calls", "ask", directory, str(callees[0].pid), str(callees[2].pid)) as asking:
            seen: Seen = json.loads(asking.communicate()[0])
        for callee in callees:
            callee.communicate()
    found = {name: statistics.median(each) for name, each in seen.items()}
    return [
        Figure("one call of 100 bytes at a time", found["one"], "µs", found["raw one"], "<= 1.3 x"),
        Figure(f"calls with {IN_FLIGHT} in flight", found["many"], "calls/s", found["raw many"], ">= 0.7 x"),
        Figure("… CPU of each, both ends and all threads", found["cpu"], "µs", found["raw cpu"]),
        Figure("buffers of 64 MiB", found["large"], "MiB/s", found["raw large"], ">= 0.7 x"),
    ]


def started(module: str, *words: str) -> subprocess.Popen[str]:
    """One end, in a process of its own."""
    command = [sys.executable, "-m", module, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def main(side: str, directory: str, *pids: str) -> None:
    if side == "serve":
        asyncio.run(serve(directory))
    elif side == "serve-raw":
        serve_raw(directory)
    elif side == "serve-raw-small":
        serve_raw_small(directory)
    else:
        print(json.dumps(asyncio.run(ask(directory, *map(int, pids)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
