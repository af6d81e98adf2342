"""Calls from this service to others: finds one to ask, waits for its answer no longer than the deadline, tells it to
leave what nobody waits for.

Must not know methods or annotations: names and values go in, values or a ``CallError`` come out.

A call is begun at most once. Only what has certainly not been begun (nothing of it was sent, or the callee has said so)
is asked of another instance, or of the same service's next one if the caller waits for that.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from svcd.protocol import call_wire, values
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
from svcd.protocol.call_wire import Call, Cancel, Credit, Failed, Item, Result
from svcd.protocol.errors import ProtocolError
from svcd.protocol.limits import MAX_CALL_BYTES
from svcd.protocol.values import Frames
from svcd.protocol.zmtp_large import Frame, Oversized
from svcd.worker_runtime.request import current
from svcd.worker_runtime.routes import Address, Routes
from svcd.worker_runtime.wire_socket import Handlers, Outgoing, WireSocket, dial

DEFAULT_TIMEOUT_S: Final = 30.0
STREAM_CREDIT: Final = 32  # items that may be under way
MAX_PENDING: Final = 8192  # of one connection
MAX_BACKLOG_BYTES: Final = 2 * MAX_CALL_BYTES
RESOLUTION_S: Final = 0.001  # of deadlines
REDIAL_S: Final = 0.01  # while more want to be accepted than a door's queue holds


Begin = Callable[["Pending"], Awaitable[tuple["Link", int]]]
"""Asks for a stream: where, and the id to cancel it by."""


class NotBegun(ServiceUnavailable):
    """It is certain that the callee has not begun with it: another may be asked."""


class _DoorFull(NotBegun):
    """More connect at once than its queue holds: a moment later it goes."""


class Pending:
    """One call, or one stream, that has not ended."""

    __slots__ = ("deadline_s", "ended", "error", "future", "items", "said", "what")

    def __init__(self, what: str, future: asyncio.Future[Any] | None) -> None:
        self.what = what
        self.future = future  # who waits: a call for its one answer, a stream for its next item
        self.items: deque[list[Frame]] | None = None
        self.ended = False
        self.error: CallError | None = None
        self.said: Outgoing | None = None
        self.deadline_s: float | None = None  # of a call; a stream keeps its own

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
        if len(self.pending) >= MAX_PENDING or self._wire.backlog_bytes > MAX_BACKLOG_BYTES:
            raise NotBegun(f"{self.service} has not answered {len(self.pending)} calls of this service: too many")
        self._next_id += 1
        id_ = self._next_id
        self.pending[id_] = pending
        deadline_us = None if deadline_s is None else int(deadline_s * 1_000_000)
        self._wire.say_at_once = len(self.pending) == 1
        pending.said = self._wire.say([call_wire.encode(Call(id_, method, deadline_us, credit)), *value])
        return id_

    def cancel(self, id_: int) -> None:
        """Nobody waits for it any more. What has not gone out yet never will."""
        pending = self.pending.pop(id_, None)
        if pending is None or not self.is_open:
            return
        assert pending.said is not None
        if not self._wire.withdraw(pending.said):
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
        pending = self.pending.get(message.id)
        if pending is None:  # it came too late
            return
        if isinstance(frames, Oversized):
            self.cancel(message.id)
            pending.fail(RemoteError(f"{pending.what} answered with {frames.size_bytes} bytes or more: too many"))
        elif type(message) is Result and pending.items is None:
            del self.pending[message.id]
            pending.ended = True
            if pending.future is not None and not pending.future.done():
                pending.future.set_result(frames)
        elif type(message) is Item and pending.items is not None:
            self._item(pending, frames)
        else:
            del self.pending[message.id]
            self._ended(pending, message)

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
            if pending.said is not None and not pending.said.begun:
                pending.fail(NotBegun(f"{self.service} cannot be reached: {why}"))
            else:
                pending.fail(ServiceUnavailable(f"{self.service} was lost before {pending.what} had ended: {why}"))


def _error(message: Failed) -> CallError:
    code = FailureCode(message.code)
    if code is FailureCode.RAISED:
        _, _, text = message.text.partition(": ")
        return RemoteError(message.text, message.type, text, message.traceback)
    return CLASSES[code](message.text)


class Caller:
    """All calls of one service. ``service.method`` names what is called."""

    def __init__(self, routes: Routes) -> None:
        self.routes = routes
        self._loop = asyncio.get_running_loop()
        self._links: dict[str, Link] = {}  # by the path of the socket
        self._open: set[Link] = set()  # these, and those whose route is gone and that have calls under way
        self._timer: asyncio.TimerHandle | None = None
        self._next_deadline_s = math.inf
        self._turn = 0
        routes.watch(self._route_changed)

    def close(self) -> None:
        for link in tuple(self._open):
            link.close()
        self._watch(math.inf)

    async def call(
        self, name: str, args: list[Any], named: dict[str, Any], timeout: float | None = None, wait: float = 0.0
    ) -> Any:
        """The result. ``timeout``: seconds for all of it, by default 30 and never beyond the deadline of the request
        that is being served; ``wait``: how many of them to wait for a service that does not run.
        """
        service, method = split(name)
        deadline_s = self.deadline(timeout, DEFAULT_TIMEOUT_S)
        value = packed(name, args, named)
        patience_s = self._loop.time() + wait
        while True:
            try:
                return await self._ask(self._link(service), name, method, value, deadline_s)
            except ServiceUnavailable as error:
                await self.wait_for_another(service, error, patience_s, deadline_s)

    async def _ask(self, link: Link, name: str, method: str, value: Frames, deadline_s: float | None) -> Any:
        pending = Pending(name, self._loop.create_future())
        pending.deadline_s = deadline_s
        id_ = link.begin(method, value, deadline_s, 0, pending)
        if deadline_s is not None and deadline_s < self._next_deadline_s:
            self._watch(deadline_s)
        try:
            assert pending.future is not None
            frames = await pending.future
        except BaseException:  # a timeout or a cancellation; if the callee has ended it, there is nothing to cancel
            link.cancel(id_)
            if pending.error is not None and pending.future is not None and pending.future.done():
                pending.future.exception()  # cancelled in the same moment: asyncio is not to complain of its loss
            raise
        finally:
            if link.is_withdrawn:
                link.done(id_)
        return unpacked(name, frames)

    def _watch(self, deadline_s: float) -> None:
        """One timer for all calls, at the earliest deadline: most calls are over by then, and it moves far on."""
        if self._timer is not None:
            self._timer.cancel()
        self._next_deadline_s = deadline_s
        self._timer = None if deadline_s == math.inf else self._loop.call_at(deadline_s, self._look_at_deadlines)

    def _look_at_deadlines(self) -> None:
        now, earliest_s = self._loop.time() + RESOLUTION_S, math.inf
        for link in self._open:
            for pending in tuple(link.pending.values()):
                if pending.deadline_s is None or pending.ended:
                    continue
                if pending.deadline_s <= now:
                    pending.expire()
                elif pending.deadline_s < earliest_s:
                    earliest_s = pending.deadline_s
        self._timer = None
        self._watch(earliest_s)

    async def wait_for_another(self, service: str, error: CallError, until_s: float, deadline_s: float | None) -> None:
        """Return when it makes sense to ask again; raise ``error`` when it does not."""
        if not isinstance(error, NotBegun | Draining) and self.routes.known(service):
            raise error  # it was begun, perhaps
        if any(not link.is_draining for link in self._candidates(service)) and isinstance(error, Draining):
            return
        if isinstance(error, _DoorFull) or until_s > (deadline_s or until_s):
            until_s = until_s if deadline_s is None else deadline_s
        left_s = until_s - self._loop.time()
        if left_s <= 0:
            raise error
        step_s = left_s if isinstance(error, Draining) or not self.routes.known(service) else min(left_s, REDIAL_S)
        await self.routes.wait_change(service, step_s)

    def deadline(self, timeout: float | None, default_s: float | None) -> float | None:
        """On the loop's clock. A request's own deadline holds for all that is called in its course."""
        request = current.get()
        inherited = None if request is None else request.deadline_s
        if timeout is None:
            if inherited is not None:
                return inherited
            return None if default_s is None else self._loop.time() + default_s
        if not timeout > 0:
            raise ValueError(f"a timeout must be more than 0 seconds, not {timeout!r}")
        own = self._loop.time() + timeout
        return own if inherited is None else min(own, inherited)

    # ---- whom to ask -------------------------------------------------------------------------------------------------

    def _candidates(self, service: str) -> list[Link]:
        return [link for each in self.routes.known(service) if (link := self._links.get(each.calls)) is not None]

    def _link(self, service: str) -> Link:
        """To the instance with the least in flight. Raises ``CallError``."""
        addresses = self.routes.lookup(service)
        if len(addresses) == 1:
            link = self._links.get(addresses[0].calls)
            return link if link is not None else self._connect(service, addresses[0])
        self._turn += 1
        turn = self._turn % len(addresses)
        error: CallError | None = None
        for address in sorted((*addresses[turn:], *addresses[:turn]), key=self._load):
            try:
                return self._links.get(address.calls) or self._connect(service, address)
            except NotBegun as failed:
                error = failed
        assert error is not None
        raise error

    def _load(self, address: Address) -> int:
        link = self._links.get(address.calls)
        return 0 if link is None else len(link.pending) + (MAX_PENDING if link.is_draining else 0)

    def _connect(self, service: str, address: Address) -> Link:
        try:
            link = Link(service, address, self._on_lost)
        except BlockingIOError:
            raise _DoorFull(f"{service} cannot be reached: too many wait to be let in") from None
        except OSError as error:
            raise NotBegun(f"{service} cannot be reached: {error.strerror or error}") from None
        self._links[address.calls] = link
        self._open.add(link)
        return link

    def _on_lost(self, link: Link) -> None:
        self._open.discard(link)
        self._forget(link)

    def _forget(self, link: Link) -> None:
        if self._links.get(link.address.calls) is link:
            del self._links[link.address.calls]

    def _route_changed(self, service: str) -> None:
        present = set(self.routes.known(service))
        for link in tuple(self._links.values()):
            if link.service == service and link.address not in present:
                self._forget(link)
                link.withdraw()

    # ---- streams -----------------------------------------------------------------------------------------------------

    def stream(
        self, name: str, args: list[Any], named: dict[str, Any], timeout: float | None = None, wait: float = 0.0
    ) -> Stream:
        """Its items, one by one; asked for with the first of them. ``timeout`` is for all of them together, by default
        what is left to the request that is being served.
        """
        service, method = split(name)
        value = packed(name, args, named)
        deadline_s = self.deadline(timeout, None)

        async def begin(pending: Pending) -> tuple[Link, int]:
            patience_s = self._loop.time() + wait
            while True:
                try:
                    link = self._link(service)
                    return link, link.begin(method, value, deadline_s, STREAM_CREDIT, pending)
                except ServiceUnavailable as error:
                    await self.wait_for_another(service, error, patience_s, deadline_s)

        return Stream(name, begin, deadline_s)


class Stream:
    """``async for``, or ``async with`` where it may be left early. The callee produces no further ahead than its
    credit, and stops when the stream is closed, forgotten or cancelled.
    """

    def __init__(
        self, name: str, begin: Callable[[Pending], Awaitable[tuple[Link, int]]], deadline_s: float | None
    ) -> None:
        self._name = name
        self._begin = begin
        self._deadline_s = deadline_s
        self._pending = Pending(name, None)
        self._pending.items = deque()
        self._link: Link | None = None
        self._id = 0
        self._consumed = 0

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        pending, items = self._pending, self._pending.items
        assert items is not None
        if self._link is None and not pending.ended:
            self._link, self._id = await self._begin(pending)
        while not items:
            if pending.ended:
                error, pending.error = pending.error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            await self._wait()
        frames = items.popleft()
        self._consumed += 1
        if self._consumed >= STREAM_CREDIT // 2 and not pending.ended and self._link is not None:
            self._link.more(self._id, self._consumed)
            self._consumed = 0
        try:
            return unpacked(self._name, frames)
        except CallError:
            await self.aclose()
            raise

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


def split(name: str) -> tuple[str, str]:
    """(service, method). Raises ``ValueError``."""
    service, dot, method = name.partition(".") if isinstance(name, str) else ("", "", "")
    if not (service and dot and method):
        raise ValueError(f'cannot call {name!r}: name it "service.method"')
    return service, method


def packed(name: str, args: list[Any], named: dict[str, Any]) -> Frames:
    """The arguments as they travel. Raises ``CallRefused``."""
    try:
        value = values.pack_arguments(args, named)
    except ProtocolError as error:
        raise CallRefused(f"cannot call {name}: {error}") from None
    size = sum(map(len, value)) if len(value) > 1 else 0
    if size > MAX_CALL_BYTES:
        raise CallRefused(f"cannot call {name}: {size} bytes; at most {MAX_CALL_BYTES} travel in one call. Use streams")
    return value


def unpacked(name: str, frames: list[Frame]) -> Any:
    """The value in an answer. Raises ``RemoteError``."""
    try:
        return values.unpack(frames[1:])
    except ProtocolError as error:
        raise RemoteError(f"{name} answered with {error}") from None
