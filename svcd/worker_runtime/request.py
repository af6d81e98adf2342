"""One request that a service is serving: who asked, until when, and whether anybody still waits for it.

Must not run or answer it.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any, Final

from svcd.worker_runtime.cancellation import Token


class Request:
    """``ctx.request`` within a method. ``token`` is cancelled when the request is, and when its endpoint is shut: then
    the method may go on, but had better come to its end. ``deadline_s`` is on the loop's clock.
    """

    __slots__ = (
        "_stopped",
        "caller",
        "credit",
        "deadline_s",
        "has_begun",
        "id",
        "is_sync",
        "is_waiting",
        "method",
        "task",
        "token",
    )

    def __init__(
        self, id_: int, method: str, caller: str, deadline_s: float | None, token: Token, is_sync: bool
    ) -> None:
        self.id = id_
        self.method = method
        self.caller = caller
        self.deadline_s = deadline_s
        self.token = token
        self.is_sync = is_sync
        self.credit = 0
        self.is_waiting: asyncio.Future[None] | None = None
        self.task: asyncio.Task[Any] | None = None  # the loop itself only remembers tasks weakly
        self.has_begun = False  # what has not is not cancelled as a task: it would never come to its own end
        self._stopped = False

    @property
    def is_stopped(self) -> bool:
        """Nobody waits for its answer any more."""
        return self._stopped

    def stop(self, reason: str) -> None:
        """For the endpoint: nobody waits for it. A coroutine is cancelled; a thread finds its token cancelled."""
        if self._stopped:
            return
        self._stopped = True
        self.token.cancel(reason)
        if self.task is not None and self.has_begun and not self.is_sync:
            self.task.cancel()
        self.more(0)

    def more(self, items: int) -> None:
        """For the endpoint: the caller takes so many items more of the stream."""
        self.credit += items
        if self.is_waiting is not None and not self.is_waiting.done():
            self.is_waiting.set_result(None)

    async def wait_credit(self) -> None:
        """Until the caller takes another item, or nobody waits for it."""
        while not self.credit and not self._stopped:
            self.is_waiting = asyncio.get_running_loop().create_future()
            try:
                await self.is_waiting
            finally:
                self.is_waiting = None


current: Final[ContextVar[Request | None]] = ContextVar("svcd_request", default=None)
"""The request that this code serves. Tasks and pool threads begun by it have it too."""
