"""Startables inside real Python services: what breaks takes the service down with its error, in order.

Must not test Startable itself: test_startable.py and test_startable_raw.py do.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from svcd.protocol.messages import ExceptionRaised

SERVICE = """
import asyncio, signal, svcd

class Link(svcd.Startable):
    def raw_start(self):
        print("link up")
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self.stop, ConnectionError("the peer is gone"))
    async def raw_stop(self, error):
        await asyncio.sleep(0)
        print("link down:", error)

class Web(svcd.Service):
    async def start(self):
        self.link = Link()
        await self.link.start(on_stopping=self.ctx.stop)
    async def stop(self, reason):
        await self.link.stop()
        print("stop:", reason)
"""
UP = ("loaded", "initialized", "starting", "running")


def test_what_breaks_inside_takes_the_service_down(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code=SERVICE)
    stub.expect_states(*UP)
    os.kill(stub.process.pid, signal.SIGUSR1)
    raised = stub.expect(ExceptionRaised)
    assert (raised.type, raised.message) == ("ConnectionError", "the peer is gone")
    assert stub.expect_states("stopping").error == "ConnectionError: the peer is gone"
    code, out, _ = stub.end()
    assert code == 1
    assert out.splitlines() == ["link up", "link down: the peer is gone", "stop: it asked for it"]


def test_a_service_stops_what_is_inside(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code=SERVICE)
    stub.expect_states(*UP)
    stub.stop("asked")
    stub.expect_states("stopping")
    assert stub.end()[:2] == (0, "link up\nlink down: None\nstop: asked\n")


def test_an_exit_in_a_raw_start_ends_the_service_with_its_code(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(
        code="""
import svcd, sys
async def main(ctx):
    await svcd.Startable(lambda: sys.exit(3), lambda error: print(repr(error))).start()
"""
    )
    stub.expect_states(*UP, "stopping")
    assert stub.end()[:2] == (3, "SystemExit(3)\n")
