"""A service's plain methods and its ``ctx.blocking()``, on real connections and the same threads: neither starves."""

from __future__ import annotations

import asyncio
import threading

from peers_stage import DEADLINE_S, Stage, play, settled

from svcd import rpc
from svcd.worker_runtime.calls.peers import Peers
from svcd.worker_runtime.calls.routes import Address, Routes
from svcd.worker_runtime.computing.pools import Pools
from svcd.worker_runtime.computing.runtime_settings import RuntimeSettings

COUNT = 3


class Files:
    """Plain methods, one of which waits until it is let go."""

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.go = threading.Event()

    @rpc
    def wait(self) -> str:
        self.inside.release()
        assert self.go.wait(DEADLINE_S)
        return "went"

    @rpc
    def name(self) -> str:
        return threading.current_thread().name


class Service:
    """``Files`` as the runtime serves it, and somebody who calls it."""

    def __init__(self, stage: Stage) -> None:
        self.pools = Pools(RuntimeSettings(max_blocking_threads=COUNT), {})
        self.files = Files()
        peers = Peers("files", Routes(), stage.check, threads=self.pools.methods)
        stage.peers.append(peers)
        address = Address(str(stage.directory / "files"), str(stage.directory / "files.events"))
        peers.serve(self.files, address.calls, address.events)
        stage.announce("files", (address,))
        self.caller = stage.client()

    async def entered(self, count: int) -> None:
        for _ in range(count):
            await settled(lambda: self.files.inside.acquire(blocking=False))


def test_methods_that_hang_leave_a_thread_for_blocking_calls() -> None:
    async def scene(stage: Stage) -> None:
        service = Service(stage)
        calls = [asyncio.create_task(service.caller.call("files.wait")) for _ in range(5 * COUNT)]
        await service.entered(COUNT - 1)
        for number in range(10):
            assert await service.pools.blocking(abs, (-number,), {}) == number
        assert not service.files.inside.acquire(blocking=False)
        service.files.go.set()
        assert await asyncio.gather(*calls) == ["went"] * 5 * COUNT
        service.pools.close()

    play(scene)


def test_blocking_calls_that_hang_leave_a_thread_for_methods() -> None:
    async def scene(stage: Stage) -> None:
        service = Service(stage)
        calls = [asyncio.create_task(service.pools.blocking(service.files.wait, (), {})) for _ in range(5 * COUNT)]
        await service.entered(COUNT - 1)
        for _ in range(10):
            assert (await service.caller.call("files.name")).startswith("blocking-")
        service.files.go.set()
        await asyncio.gather(*calls)
        service.pools.close()

    play(scene)
