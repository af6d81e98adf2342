"""The cluster's events, as they come: a subscription to what the controller publishes.

Must not remember what was: who wants to know how things stand asks for the status.
"""

from __future__ import annotations

import asyncio
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
)
from svcd.protocol.zmtp_large import Frame
from svcd.worker_runtime.wire_socket import Handlers, WireSocket, dial

MAX_WAITING: Final = 10_000
REDIAL_S: Final = 0.02
REDIAL_MAX_S: Final = 1.0
ENDED: Final = "ended"

Event = ServiceTransitioned | NoticeGiven | ExceptionRecorded | ClusterStateChanged
KINDS: Final = (ServiceTransitioned, NoticeGiven, ExceptionRecorded, ClusterStateChanged)


class Events:
    """``async for``, or ``async with`` where it may be left early. Heard from the moment it is made; over when the
    cluster has ended. Numbers (``sequence``) that are missing are events that were lost: who is slower than they come
    keeps the last ten thousand.
    """

    def __init__(self, place: Place, kinds: tuple[type, ...], timeout: float | None) -> None:
        """No ``kinds``: all. Raises ``ClusterUnavailable``; ``TypeError`` for what is no kind of event."""
        for each in kinds:
            if each not in KINDS:
                raise TypeError(f"{each!r} is no event: there are {', '.join(kind.__name__ for kind in KINDS)}")
        self._place = place
        self._topics = {each.__name__ for each in kinds or KINDS}
        self._loop = asyncio.get_running_loop()
        self._deadline_s = None if timeout is None else self._loop.time() + timeout
        self._waiting: deque[Event] = deque(maxlen=MAX_WAITING)
        self._wake: asyncio.Future[None] | None = None
        self._wire: WireSocket | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._delay_s = REDIAL_S
        self._error: CallError | None = None
        self._is_over = False
        self._connect()
        if self._error is not None:
            raise self._error

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Event:
        while not self._waiting:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._is_over:
                raise StopAsyncIteration
            await self._wait()
        return self._waiting.popleft()

    async def _wait(self) -> None:
        if self._wake is not None:
            raise RuntimeError("two tasks wait for the same events")
        self._wake = self._loop.create_future()
        try:
            async with asyncio.timeout_at(self._deadline_s):
                await self._wake
        except TimeoutError:
            self._end(DeadlineExceeded("no such event came in time"))
        finally:
            self._wake = None

    async def aclose(self) -> None:
        """Hear no more."""
        self._waiting.clear()
        self._end()

    async def __aenter__(self) -> Events:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        wire = getattr(self, "_wire", None)
        if wire is not None:
            try:
                self._loop.call_soon_threadsafe(wire.close)
            except RuntimeError:  # the loop is closed, and the connection with it
                pass

    # ---- the connection ----------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._retry = None
        try:
            connected = dial(self._place.events)
        except OSError as error:
            self._unreachable(error)
            return
        handlers = Handlers(self._welcome, self._taken, self._lost)
        self._wire = WireSocket(self._loop, connected, b"SUB", MAX_MESSAGE_BYTES, handlers)
        for topic in sorted({*self._topics, ClusterStateChanged.__name__}):  # that one tells the end
            self._wire.say((b"\x01" + topic.encode(),))

    def _unreachable(self, error: OSError) -> None:
        if self._place.has_ended():
            self._end(self._place.end())
        elif isinstance(error, PermissionError):
            self._end(ClusterUnavailable(f"cannot hear the events of {self._place.run_dir}: {error.strerror}"))
        else:
            self._retry = self._loop.call_later(self._delay_s, self._connect)
            self._delay_s = min(2 * self._delay_s, REDIAL_MAX_S)

    def _welcome(self) -> None:
        self._delay_s = REDIAL_S

    def _lost(self, why: str) -> None:
        self._wire = None
        if not self._is_over:
            self._retry = self._loop.call_later(self._delay_s, self._connect)
            self._delay_s = min(2 * self._delay_s, REDIAL_MAX_S)

    def _taken(self, frames: list[Frame]) -> None:
        """What cannot be understood is passed over: it is of another version."""
        try:
            event: Message = codec.decode(bytes(frames[-1]))
        except (ProtocolError, IndexError):
            return
        if not isinstance(event, Event):
            return
        if type(event).__name__ in self._topics:
            self._waiting.append(event)
        is_last = isinstance(event, ClusterStateChanged) and event.state == ENDED
        if is_last:
            self._end()
        else:
            self._rouse()

    def _end(self, error: CallError | None = None) -> None:
        if self._is_over:
            return
        self._is_over, self._error = True, error
        if self._retry is not None:
            self._retry.cancel()
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
