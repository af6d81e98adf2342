"""One request that a service is serving: who asked, until when, and whether anybody still waits for it.

Must not run or answer it.
"""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import Any, Final

from svcd.worker_runtime.calls.cancellation import Token


class Request:
    """``ctx.request`` within a method. ``token`` is cancelled when the request is, and when its endpoint is shut: then
    the method may go on, but had better come to its end. ``deadline_s`` is on the loop's clock.
    """

    __slots__ = (
        "_above",
        "_token",
        "_why",
        "caller",
        "credit",
        "deadline_s",
        "has_begun",
        "id",
        "is_stopped",
        "is_sync",
        "is_waiting",
        "method",
        "task",
    )

    def __init__(
        self, id_: int, method: str, caller: str, deadline_s: float | None, above: Token, is_sync: bool, credit: int = 0
    ) -> None:
        """``above``: the endpoint's token."""
        self.id = id_
        self.method = method
        self.caller = caller
        self.deadline_s = deadline_s
        self._above = above
        self._token: Token | None = None
        self._why: str | None = None
        self.is_sync = is_sync
        self.credit = credit
        self.is_waiting: asyncio.Future[None] | None = None
        self.task: asyncio.Task[Any] | None = None  # the loop itself only remembers tasks weakly
        self.has_begun = False  # what has not is not cancelled as a task: it would never come to its own end
        self.is_stopped = False  # nobody waits for its answer any more

    @property
    def token(self) -> Token:
        """Made for whoever asks for it first: most requests are over before anybody does."""
        if self._token is None:
            with _making:
                self._token = self._token or self._above.child()
            if self._why is not None:  # looked at after it was made: ``stop`` sees it or we see why
                self._token.cancel(self._why)
        return self._token

    def end(self) -> None:
        """For the endpoint: it has ended, well or badly."""
        if self._token is not None:
            self._token.detach()

    def stop(self, reason: str) -> None:
        """For the endpoint: nobody waits for it. A coroutine is cancelled; a thread finds its token cancelled."""
        if self.is_stopped:
            return
        self.is_stopped = True
        self._why = reason
        if self._token is not None:
            self._token.cancel(reason)
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
        while not self.credit and not self.is_stopped:
            self.is_waiting = asyncio.get_running_loop().create_future()
            try:
                await self.is_waiting
            finally:
                self.is_waiting = None


_making: Final = threading.Lock()  # a method may hand its request to threads, and they ask for its token as well

current: Final[ContextVar[Request | None]] = ContextVar("svcd_request", default=None)
"""The request that this code serves. Tasks and pool threads begun by it have it too."""
