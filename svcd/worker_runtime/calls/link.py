"""One connection to another service's instance, and the calls and streams that are under way on it.

Must not choose whom to ask, nor keep deadlines: what was begun ends with an answer, a cancellation or the connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from svcd.protocol import call_wire
from svcd.protocol.call_errors import (
    CLASSES,
    CallError,
    CallRefused,
    DeadlineExceeded,
    Draining,
    FailureCode,
    RemoteError,
    ServiceUnavailable,
)
from svcd.protocol.call_wire import Cancel, Closed, Credit, Failed, Item, Result
from svcd.protocol.errors import ProtocolError
from svcd.protocol.limits import MAX_CALL_BYTES
from svcd.protocol.values import Frames
from svcd.protocol.zmtp_large import Frame, Oversized
from svcd.worker_runtime.calls.routes import Address
from svcd.worker_runtime.calls.wire_socket import Handlers, Outgoing, WireSocket, dial

STREAM_CREDIT: Final = 32  # items that may be under way
MAX_PENDING: Final = 8192  # of one connection
MAX_BACKLOG_BYTES: Final = 2 * MAX_CALL_BYTES


class NotBegun(ServiceUnavailable):
    """It is certain that the callee has not begun with it: another may be asked."""


class Unreached(NotBegun):
    """The connection was lost before it went out."""


class Pending(Outgoing):
    """One call, or one stream, that has not ended: first a message that waits to go out, then one to be answered."""

    __slots__ = ("deadline_s", "ended", "error", "future", "id", "items", "what")

    def __init__(self, what: str, future: asyncio.Future[Any] | None, deadline_s: float | None = None) -> None:
        self.frames, self.size_bytes, self.begun, self.withdrawn = (), 0, False, False
        self.id = 0  # on its link
        self.what = what
        self.future = future  # who waits: a call for its one answer, a stream for its next item
        self.items: deque[list[Frame]] | None = None
        self.ended = False
        self.error: CallError | None = None
        self.deadline_s = deadline_s  # of a call; a stream keeps its own

    def fail(self, error: CallError) -> None:
        self.error, self.ended = error, True
        if self.future is not None and not self.future.done():
            if self.items is None:
                self.future.set_exception(error)
            else:
                self.future.set_result(None)

    def expire(self) -> None:
        self.fail(DeadlineExceeded(f"{self.what} did not answer in time"))


class Link:
    """The connection to one instance. Made when it is first called; ``on_lost`` is told its end."""

    def __init__(self, service: str, address: Address, on_lost: Callable[[Link], None]) -> None:
        """Raises ``OSError``."""
        self.service = service
        self.address = address
        self.pending: dict[int, Pending] = {}
        self.is_open = True
        self.is_draining = False
        self.is_withdrawn = False  # its route is gone: it ends with what is under way on it
        self._on_lost = on_lost
        self._next_id = 0
        loop = self._loop = asyncio.get_running_loop()
        connected = dial(address.calls)
        self._wire = WireSocket(
            loop, connected, b"DEALER", MAX_CALL_BYTES, Handlers(lambda: None, self._taken, self._lost)
        )
        if address.pid is not None and self._wire.peer.pid != address.pid:
            self._wire.close()
            raise OSError(f"another process than {address.pid} listens there")

    def begin(self, method: str, value: Frames, deadline_s: float | None, credit: int, pending: Pending) -> int:
        """Ask; the id to cancel it by. Raises ``NotBegun``."""
        wire, count = self._wire, len(self.pending)
        if count >= MAX_PENDING or wire.backlog_bytes > MAX_BACKLOG_BYTES:
            raise NotBegun(f"{self.service} has not answered {count} calls of this service: too many")
        pending.id = id_ = self._next_id = self._next_id + 1
        deadline_us = None if deadline_s is None else int(deadline_s * 1_000_000)
        head = call_wire.encode_call(id_, method, deadline_us, credit)
        self.pending[id_] = pending
        wire.say_at_once = not count
        wire.say([head, *value], pending)
        return id_

    def cancel(self, id_: int) -> None:
        """Nobody waits for it any more. What has not gone out yet never will."""
        pending = self.pending.pop(id_, None)
        if pending is None or not self.is_open:
            return
        if not self._wire.withdraw(pending):
            self._wire.say((call_wire.encode(Cancel(id_)),))

    def forget(self, id_: int) -> None:
        """``cancel`` from any thread, as the garbage collector has it."""
        try:
            self._loop.call_soon_threadsafe(self.cancel, id_)
        except RuntimeError:  # the loop is closed, and the connection with it
            pass

    def more(self, id_: int, items: int) -> None:
        if id_ in self.pending and self.is_open:
            self._wire.say((call_wire.encode(Credit(id_, items)),))

    def done(self, id_: int) -> None:
        self.pending.pop(id_, None)
        if self.is_withdrawn and not self.pending:
            self.close()

    def withdraw(self) -> None:
        """Its route is gone: what is under way may end, and then it is closed."""
        self.is_withdrawn = True
        if not self.pending:
            self.close()

    def close(self, why: str = "the connection was closed") -> None:
        if self.is_open:
            self._wire.close()
            self._lost(why)

    # ---- what comes --------------------------------------------------------------------------------------------------

    def _taken(self, frames: list[Frame]) -> None:
        try:
            if not frames:
                raise ProtocolError("a message without a head")
            message = call_wire.decode_for_caller(frames[0])
        except ProtocolError as error:
            self.close(f"it sent {error}")
            return
        cls = type(message)
        if cls is Closed:
            self._closed(message.id)
            return
        pending = self.pending.get(message.id)
        if pending is None:  # it came too late
            return
        if type(frames) is Oversized:
            self.cancel(message.id)
            pending.fail(RemoteError(f"{pending.what} answered with {frames.size_bytes} bytes or more: too many"))
        elif cls is Result and pending.items is None:
            del self.pending[message.id]
            pending.ended = True
            future = pending.future
            if future is not None and not future.done():
                future.set_result(frames)
        elif cls is Item and pending.items is not None:
            self._item(pending, frames)
        else:
            del self.pending[message.id]
            self._ended(pending, message)

    def _closed(self, first: int) -> None:
        """It ends in good order, and has not begun anything from that id on."""
        self.is_draining = True
        for id_ in [each for each in self.pending if each >= first]:
            pending = self.pending.pop(id_)
            pending.fail(Draining(f"{self.service} has ended before it began with {pending.what}"))

    def _item(self, pending: Pending, frames: list[Frame]) -> None:
        assert pending.items is not None
        if len(pending.items) >= STREAM_CREDIT:
            self.close("it sent more of a stream than was asked for")
            return
        pending.items.append(frames)
        if pending.future is not None and not pending.future.done():
            pending.future.set_result(None)

    def _ended(self, pending: Pending, message: Any) -> None:
        if type(message) is Failed:
            if message.code == FailureCode.DRAINING:
                self.is_draining = True
            if message.code == FailureCode.DEADLINE:  # ours: both ends see it pass, and who is first is chance
                pending.expire()
            else:
                pending.fail(_error(message))
        elif pending.items is not None:
            pending.ended = True
            if pending.future is not None and not pending.future.done():
                pending.future.set_result(None)
        else:
            pending.fail(RemoteError(f"{pending.what} answered with the end of a stream"))

    def _lost(self, why: str) -> None:
        self.is_open = False
        self._on_lost(self)
        lost, self.pending = self.pending, {}
        for pending in lost.values():
            if not pending.begun:
                pending.fail(Unreached(f"{self.service} cannot be reached: {why}"))
            else:
                pending.fail(ServiceUnavailable(f"{self.service} was lost before {pending.what} had ended: {why}"))


def _error(message: Failed) -> CallError:
    code = FailureCode(message.code)
    if code is FailureCode.RAISED:
        _, _, text = message.text.partition(": ")
        return RemoteError(message.text, message.type, text, message.traceback)
    if code is FailureCode.REFUSED:
        return CallRefused(message.text, message.type)
    return CLASSES[code](message.text)
