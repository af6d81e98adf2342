"""A stream from another service, as it is read: item by item, giving credit as it goes, and left in good order.

Must not choose whom to ask: ``begin`` does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from svcd.protocol import values
from svcd.protocol.call_errors import CallError, RemoteError
from svcd.protocol.errors import ProtocolError
from svcd.protocol.zmtp_large import Frame
from svcd.worker_runtime.calls.link import STREAM_CREDIT, Link, Pending

Begin = Callable[[Pending, CallError | None], Awaitable[tuple[Link, int]]]
"""Asks for a stream: where, and the id to cancel it by. With the error that it was refused with before, once there is
somebody else to ask; raises it where it may not be asked again.
"""


class Stream:
    """``async for``, or ``async with`` where it may be left early. The callee produces no further ahead than its
    credit, and stops when the stream is closed, forgotten or cancelled.

    ``check`` makes of each item what the reader gets, or raises a ``CallError``.
    """

    def __init__(self, name: str, begin: Begin, deadline_s: float | None) -> None:
        self._name = name
        self._begin = begin
        self._deadline_s = deadline_s
        self._pending = _nothing_yet(name)
        self._has_begun = False  # an item has come
        self._link: Link | None = None
        self._id = 0
        self._consumed = 0
        self.check: Callable[[Any], Any] = _as_it_came

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        if self._link is None and not self._pending.ended:
            await self._ask()
        while not self._pending.items:
            if self._pending.ended:
                await self._end()
            else:
                await self._wait()
        frames = self._pending.items.popleft()
        self._has_begun = True
        self._consumed += 1
        if self._consumed >= STREAM_CREDIT // 2 and not self._pending.ended and self._link is not None:
            self._link.more(self._id, self._consumed)
            self._consumed = 0
        try:
            return self.check(unpacked(self._name, frames))
        except CallError:
            await self.aclose()
            raise

    async def _ask(self, refused: CallError | None = None) -> None:
        pending = _nothing_yet(self._name)
        self._link, self._id = await self._begin(pending, refused)
        self._pending = pending

    async def _end(self) -> None:
        """It is over, well or badly; or it was refused, and another is asked."""
        if self._link is not None:
            self._link.done(self._id)
        error, self._pending.error = self._pending.error, None
        if error is None:
            raise StopAsyncIteration
        if self._has_begun:
            raise error
        await self._ask(error)

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        if self._pending.future is not None:
            raise RuntimeError(f"two tasks wait for the same stream of {self._name}")
        self._pending.future = loop.create_future()
        timer = None if self._deadline_s is None else loop.call_at(self._deadline_s, self._expire)
        try:
            await self._pending.future
        except BaseException:
            self._cancel()
            raise
        finally:
            self._pending.future = None
            if timer is not None:
                timer.cancel()

    def _expire(self) -> None:
        if not self._pending.ended:
            self._cancel()
            self._pending.expire()

    def _cancel(self) -> None:
        if self._link is not None:
            self._link.cancel(self._id)
            self._link.done(self._id)
        self._pending.ended = True

    async def aclose(self) -> None:
        """Leave it: the callee's generator is closed."""
        self._cancel()
        self._pending.items = deque()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._link is not None and not self._pending.ended:
            self._link.forget(self._id)


def _nothing_yet(name: str) -> Pending:
    pending = Pending(name, None)
    pending.items = deque()
    return pending


def _as_it_came(item: Any) -> Any:
    return item


def unpacked(name: str, frames: list[Frame]) -> Any:
    """The value in an answer. Raises ``RemoteError``."""
    try:
        return values.unpack_from(frames, 1)
    except ProtocolError as error:
        raise RemoteError(f"{name} answered with {error}") from None
