"""Two services and more in one loop, joined by real sockets: what tests of calls, streams and events are played on.

Must not stand in for any part of what is tested.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from svcd.worker_runtime.calls.accepting import CheckPeer
from svcd.worker_runtime.calls.endpoint import Bounds
from svcd.worker_runtime.calls.peers import Peers
from svcd.worker_runtime.calls.publishing import QueueBounds
from svcd.worker_runtime.calls.routes import Address, Routes
from svcd.worker_runtime.calls.wire_socket import Peer

DEADLINE_S = 30.0


class Stage:
    """``serve`` puts a service on it, ``client`` one that only calls; all know all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.routes: list[Routes] = []
        self.found: dict[str, tuple[Address, ...]] = {}
        self.peers: list[Peers] = []
        self.errors: list[tuple[str, BaseException]] = []
        self.callers: list[Peer] = []

    def check(self, peer: Peer) -> str:
        self.callers.append(peer)
        return "tester"

    def client(self, name: str = "tester", check: CheckPeer | None = None, **routing: Any) -> Peers:
        routes = Routes(**routing)
        for service, addresses in self.found.items():
            routes.set_route(service, addresses)
        self.routes.append(routes)
        made = Peers(name, routes, check or self.check, None, lambda method, error: self.errors.append((method, error)))
        self.peers.append(made)
        return made

    def serve(
        self,
        target: object,
        name: str | None = None,
        check: CheckPeer | None = None,
        bounds: Bounds | None = None,
        queue_bounds: QueueBounds | None = None,
        announce: bool = True,
    ) -> Peers:
        name = name or type(target).__name__.lower()
        peers = self.client(name, check)
        number = len(self.peers)
        address = Address(str(self.directory / f"{name}{number}"), str(self.directory / f"{name}{number}.events"))
        target.peers = peers  # type: ignore[attr-defined]
        peers.serve(target, address.calls, address.events, bounds, queue_bounds)
        peers.address = address  # type: ignore[attr-defined]
        if announce:
            self.announce(name, (*self.found.get(name, ()), address))
        return peers

    def announce(self, name: str, addresses: tuple[Address, ...]) -> None:
        self.found[name] = addresses
        for routes in self.routes:
            if addresses:
                routes.set_route(name, addresses)
            else:
                routes.withdraw(name)

    def close(self) -> None:
        for each in self.peers:
            each.close()


def play(scene: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    """Run ``scene`` on a stage of its own. Nothing may be left on the loop afterwards."""

    async def run() -> None:
        with tempfile.TemporaryDirectory(prefix="peers") as directory:
            stage = Stage(Path(directory))
            try:
                await asyncio.wait_for(scene(stage), DEADLINE_S)
            finally:
                stage.close()
            await settled(lambda: len(asyncio.all_tasks()) == 1)
            assert not list(Path(directory).iterdir()), "a socket was left behind"

    asyncio.run(run())


async def settled(condition: Callable[[], bool]) -> None:
    """Until ``condition`` holds; the loop turns meanwhile."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.001)


async def raised(what: Awaitable[Any]) -> BaseException:
    """What it raises."""
    try:
        result = await what
    except Exception as error:
        return error
    raise AssertionError(f"it returned {result!r}")
