"""The cluster's events, as they come: a subscription to what the controller publishes.

Must not remember what was: who wants to know how things stand asks for the status.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import deque
from typing import Final

from svcd.client.place import Place
from svcd.protocol import codec
from svcd.protocol.call_errors import CallError, ClusterUnavailable, DeadlineExceeded
from svcd.protocol.errors import ProtocolError
from svcd.protocol.limits import MAX_MESSAGE_BYTES
from svcd.protocol.messages import (
    ClusterStateChanged,
    ExceptionRecorded,
    Message,
    NoticeGiven,
    ServiceTransitioned,
    SubscriptionConfirmed,
)
from svcd.protocol.messages.published import CONFIRMATION
from svcd.protocol.zmtp import SUBSCRIBE
from svcd.protocol.zmtp_large import Frame
from svcd.worker_runtime.calls.calling import seconds
from svcd.worker_runtime.calls.wire_socket import Handlers, WireSocket, dial

MAX_WAITING: Final = 10_000
REDIAL_S: Final = 0.02
REDIAL_MAX_S: Final = 1.0
ENDED: Final = "ended"
PATIENCE_S: Final = 10.0  # for a controller to confirm a subscription, which takes it less than a millisecond

_numbers: Final = itertools.count(1)

Event = ServiceTransitioned | NoticeGiven | ExceptionRecorded | ClusterStateChanged
KINDS: Final = (ServiceTransitioned, NoticeGiven, ExceptionRecorded, ClusterStateChanged)


class Events:
    """``async with``, and ``async for`` in it: everything that happens from the moment at which it is entered is heard.
    By ``async for`` alone those of the first moments may be missed. Over when the cluster has ended. Numbers
    (``sequence``) that are missing are events that were lost: who is slower than they come keeps the last ten thousand.
    """

    def __init__(self, place: Place, kinds: tuple[type, ...], timeout: float | None) -> None:
        """No ``kinds``: all. Raises ``ClusterUnavailable``; ``TypeError`` for what is no kind of event."""
        for each in kinds:
            if each not in KINDS:
                raise TypeError(f"{each!r} is no event: there are {', '.join(kind.__name__ for kind in KINDS)}")
        self._loop = asyncio.get_running_loop()
        self._deadline_s = None if timeout is None else self._loop.time() + seconds("a timeout", timeout)
        self._line = Line(place, frozenset(each.__name__ for each in kinds or KINDS), self._loop)
        self._line.connect()
        if self._line.error is not None:
            raise self._line.error

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Event:
        line = self._line
        while not line.waiting:
            self._raise_error()
            if line.is_over:
                raise StopAsyncIteration
            if not await self._wait(self._deadline_s):
                line.end(DeadlineExceeded("no such event came in time"))
        return line.waiting.popleft()

    async def begun(self) -> None:
        """Once what happens is heard. Raises ``ClusterUnavailable``, ``DeadlineExceeded``."""
        line, patience_s = self._line, self._loop.time() + PATIENCE_S
        deadline_s = patience_s if self._deadline_s is None else min(self._deadline_s, patience_s)
        while not (line.is_confirmed or line.is_over):
            if await self._wait(deadline_s):
                continue
            line.end(
                ClusterUnavailable(f"the controller has not confirmed within {PATIENCE_S:g} s that it tells its events")
                if deadline_s == patience_s
                else DeadlineExceeded("the controller did not confirm in time that it tells its events")
            )
        self._raise_error()

    def _raise_error(self) -> None:
        error, self._line.error = self._line.error, None
        if error is not None:
            raise error

    async def _wait(self, deadline_s: float | None) -> bool:
        """For news; False when there was none until ``deadline_s``."""
        line = self._line
        if line.wake is not None:
            raise RuntimeError("two tasks wait for the same events")
        line.wake = self._loop.create_future()
        try:
            async with asyncio.timeout_at(deadline_s):
                await line.wake
        except TimeoutError:
            return False
        finally:
            line.wake = None
        return True

    async def aclose(self) -> None:
        """Hear no more."""
        self._line.waiting.clear()
        self._line.end()

    async def __aenter__(self) -> Events:
        await self.begun()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        """The loop knows the line, and not this: who forgets it lets it end."""
        line = getattr(self, "_line", None)
        if line is not None and not line.is_over:
            try:
                self._loop.call_soon_threadsafe(line.end)
            except RuntimeError:  # the loop is closed, and the connection with it
                pass


class Line:
    """The connection, made again when it is lost, and what has come and not been taken. ``is_over``: nothing more
    comes; ``error``: why, if it was not the cluster's end or one's own. ``is_confirmed``: whether whatever happens from
    now on comes here.
    """

    def __init__(self, place: Place, topics: frozenset[str], loop: asyncio.AbstractEventLoop) -> None:
        self._place = place
        self._topics = topics
        self._loop = loop
        self.waiting: deque[Event] = deque(maxlen=MAX_WAITING)
        self.wake: asyncio.Future[None] | None = None
        self.error: CallError | None = None
        self.is_over = False
        self.is_confirmed = False
        self._word = f"{os.getpid()}.{next(_numbers)}"
        self._wire: WireSocket | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._delay_s = REDIAL_S

    def connect(self) -> None:
        self._retry = None
        try:
            connected = dial(self._place.events)
        except OSError as error:
            self._unreachable(error)
            return
        handlers = Handlers(self._welcome, self._taken, self._lost)
        self._wire = WireSocket(self._loop, connected, b"SUB", MAX_MESSAGE_BYTES, handlers)
        for topic in sorted({*self._topics, ClusterStateChanged.__name__}):  # that one tells the end
            self._wire.say((SUBSCRIBE + topic.encode(),))
        self._wire.say((SUBSCRIBE + CONFIRMATION + self._word.encode(),))  # and tell when you do

    def _unreachable(self, error: OSError) -> None:
        if self._place.has_ended():
            self.end(self._place.end())
        elif isinstance(error, PermissionError):
            self.end(ClusterUnavailable(f"cannot hear the events of {self._place.run_dir}: {error.strerror}"))
        else:
            self._retry = self._loop.call_later(self._delay_s, self.connect)
            self._delay_s = min(2 * self._delay_s, REDIAL_MAX_S)

    def _welcome(self) -> None:
        self._delay_s = REDIAL_S

    def _lost(self, why: str) -> None:
        self._wire = None
        self.is_confirmed = False
        if not self.is_over:
            self._retry = self._loop.call_later(self._delay_s, self.connect)
            self._delay_s = min(2 * self._delay_s, REDIAL_MAX_S)

    def _taken(self, frames: list[Frame]) -> None:
        """What cannot be understood is passed over: it is of another version."""
        try:
            event: Message = codec.decode(bytes(frames[-1]))
        except (ProtocolError, IndexError):
            return
        if isinstance(event, SubscriptionConfirmed) and event.word == self._word:
            self.is_confirmed = True
            self._rouse()
        if not isinstance(event, Event):
            return
        if type(event).__name__ in self._topics:
            self.waiting.append(event)
        is_last = isinstance(event, ClusterStateChanged) and event.state == ENDED
        if is_last:
            self.end()
        else:
            self._rouse()

    def end(self, error: CallError | None = None) -> None:
        """Nothing more is heard; what has come is still there."""
        if self.is_over:
            return
        self.is_over, self.error = True, error
        if self._retry is not None:
            self._retry.cancel()
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        self._rouse()

    def _rouse(self) -> None:
        if self.wake is not None and not self.wake.done():
            self.wake.set_result(None)
