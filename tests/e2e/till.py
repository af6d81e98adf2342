"""A service to call from outside: its class is imported by the tests, and run by the clusters that they start.

Must not do anything that no test asks for.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from datetime import date

from svcd import Service, rpc


class Till(Service):
    def start(self) -> None:
        self.total = 0

    @rpc
    async def charge(self, user: str, cents: int) -> dict[str, int]:
        self.total += cents
        return {user: self.total}

    @rpc
    async def caller(self) -> str:
        assert self.ctx.request is not None
        return self.ctx.request.caller

    @rpc
    async def pid(self) -> int:
        return os.getpid()

    @rpc
    async def hold(self) -> None:
        """Never answers; writes when it begins, and when it was left."""
        sys.stdout.write("held\n")
        try:
            await asyncio.Event().wait()
        finally:
            sys.stdout.write("left\n")

    @rpc
    async def count(self, to: int) -> AsyncIterator[int]:
        try:
            for number in range(to):
                yield number
        finally:
            sys.stdout.write("closed\n")

    @rpc
    def open_until(self, day: date) -> date:
        return day

    @rpc
    async def break_down(self) -> None:
        raise ValueError("the drawer is stuck")
