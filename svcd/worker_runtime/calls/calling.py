"""Calls from this service to others: finds one to ask, waits for its answer no longer than the deadline, tells it to
leave what nobody waits for.

Must not know methods or annotations: names and values go in, values or a ``CallError`` come out.

A call is begun at most once. Only what has certainly not been begun (nothing of it was sent, or the callee has said so)
is asked of another instance, or of the same service's next one if the caller waits for that.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

from svcd.protocol import values
from svcd.protocol.call_errors import CallError, CallRefused, Draining, Moved, ServiceUnavailable
from svcd.protocol.errors import ProtocolError
from svcd.protocol.limits import MAX_CALL_BYTES
from svcd.protocol.values import Frames
from svcd.protocol.zmtp_large import Frame
from svcd.worker_runtime.calls.link import MAX_PENDING, STREAM_CREDIT, Link, NotBegun, Pending, Unreached
from svcd.worker_runtime.calls.request import current
from svcd.worker_runtime.calls.routes import Address, Routes
from svcd.worker_runtime.calls.stream import Stream, unpacked

DEFAULT_TIMEOUT_S: Final = 30.0
Find = Callable[[str, float | None], Awaitable[None]]
"""Sees to it that the routes know of a service, until the deadline on the loop's clock. Raises ``CallError``."""

LONGEST_WAIT_S: Final = 86400.0  # at a time
LONGEST_TIMEOUT_S: Final = 1e9  # longer is for ever: the wire carries microseconds in 64 bits
RESOLUTION_S: Final = 0.001  # of deadlines
REDIAL_S: Final = 0.01  # while more want to be accepted than a door's queue holds


CERTAIN: Final = (NotBegun, Draining, Moved)
"""Whoever gets one of these was not served, and may ask again."""


class _DoorFull(NotBegun):
    """More connect at once than its queue holds: a moment later it goes."""


class Caller:
    """All calls of one service. ``service.method`` names what is called. ``find``: for who is told of a route only when
    asking for it.
    """

    def __init__(self, routes: Routes, find: Find | None = None, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.routes = routes
        self._find = find
        self._loop = loop or asyncio.get_running_loop()
        self._links: dict[str, Link] = {}  # by the path of the socket
        self._shunned: dict[str, str] = {}  # path -> service: lost since its route was told; others come first
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
        self,
        name: str,
        args: list[Any],
        named: dict[str, Any],
        timeout: float | None = None,
        wait: float | None = None,
        typed: dict[str, str] | None = None,
    ) -> Any:
        """The result. ``timeout``: seconds for all of it, by default 30 and never beyond the deadline of the request
        that is being served; ``wait``: how many of them to wait for a service that does not run, by default none,
        or all where asking for it starts it. ``typed``: arguments as texts, of which the callee makes values.
        """
        service, method = split(name)
        began_s = self._loop.time()
        deadline_s = self.deadline(timeout, DEFAULT_TIMEOUT_S, began_s)
        wait_s = None if wait is None else patience(wait)
        value = packed(name, args, named, typed)
        if self._find is not None:
            await self._find(service, deadline_s)
            began_s = self._loop.time()
        is_lost = False  # once, after it was begun
        while True:
            try:
                link = self._link(service)
                future: asyncio.Future[list[Frame]] = asyncio.Future(loop=self._loop)
                pending = Pending(name, future, deadline_s)
                link.begin(method, value, deadline_s, 0, pending)
                if deadline_s is not None and deadline_s < self._next_deadline_s:
                    self._watch(deadline_s)
                try:
                    frames = await future
                except BaseException:
                    self._leave(link, pending)
                    raise
                if link.is_withdrawn:
                    link.done(pending.id)
                return unpacked(name, frames)
            except ServiceUnavailable as error:
                if not isinstance(error, CERTAIN):  # it was begun, perhaps
                    if not self.routes.is_safe(service, method):
                        raise
                    is_lost = True
                patience_s = math.inf if is_lost else self._patience_s(service, wait_s, began_s)
                await self.wait_for_another(service, error, patience_s, deadline_s)

    @staticmethod
    def _leave(link: Link, pending: Pending) -> None:
        """A timeout or a cancellation; if the callee has ended it, there is nothing to cancel."""
        link.cancel(pending.id)
        if pending.error is not None and pending.future is not None and pending.future.done():
            pending.future.exception()  # cancelled in the same moment: asyncio is not to complain of its loss
        if link.is_withdrawn:
            link.done(pending.id)

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
        """Return when it makes sense to ask again; raise ``error`` when it does not, or when nobody is there in time.

        That it may be asked again is the caller's to know.
        """
        if isinstance(error, Moved) or service in self.routes.held:
            until_s = math.inf
        if isinstance(error, (Draining, Unreached)) and any(map(self._may_take, self.routes.known(service))):
            return
        if isinstance(error, _DoorFull) or until_s > (deadline_s or until_s):
            until_s = until_s if deadline_s is None else deadline_s
        until_s = min(until_s, self._loop.time() + LONGEST_WAIT_S)
        left_s = until_s - self._loop.time()
        if left_s <= 0:
            await asyncio.sleep(0)  # who asks again at once must not keep the loop from hearing that somebody is there
            raise (ServiceUnavailable(str(error)) if isinstance(error, NotBegun) else error) from None
        is_known = self.routes.known(service) and service not in self.routes.held
        step_s = left_s if isinstance(error, Draining) or not is_known else min(left_s, REDIAL_S)
        try:
            await self.routes.wait_change(service, step_s)
        except ServiceUnavailable as missed:
            raise missed from None  # than which ``error`` says less

    async def wait_found(self, service: str, wait: float | None) -> None:
        """Until there is somebody to ask. Raises ``CallError``."""
        until_s = self._patience_s(service, None if wait is None else patience(wait), self._loop.time())
        while True:
            try:
                self.routes.lookup(service)
            except ServiceUnavailable as error:
                await self.wait_for_another(service, error, until_s, None)
            else:
                return

    def _patience_s(self, service: str, wait_s: float | None, began_s: float) -> float:
        """Until when to wait for a service that does not run."""
        if wait_s is None:
            return math.inf if service in self.routes.on_demand else began_s
        return began_s + wait_s

    @staticmethod
    def deadline(timeout: float | None, default_s: float | None, now_s: float) -> float | None:
        """On the loop's clock. A request's own deadline holds for all that is called in its course. Raises
        ``ValueError`` and ``TypeError`` for what is no timeout.
        """
        request = current.get()
        inherited = None if request is None else request.deadline_s
        if timeout is None:
            if inherited is not None:
                return inherited
            return None if default_s is None else now_s + default_s
        timeout_s = seconds("a timeout", timeout)
        if not timeout_s > 0:
            raise ValueError(f"a timeout must be more than 0 seconds, not {timeout!r}")
        if timeout_s > LONGEST_TIMEOUT_S:
            return inherited
        own = now_s + timeout_s
        return own if inherited is None else min(own, inherited)

    # ---- whom to ask -------------------------------------------------------------------------------------------------

    def _may_take(self, address: Address) -> bool:
        """Whether it has not said that it takes nothing new, nor was lost."""
        link = self._links.get(address.calls)
        return address.calls not in self._shunned if link is None else not link.is_draining

    def _link(self, service: str) -> Link:
        """To the instance with the least in flight. Raises ``CallError``."""
        try:
            addresses = self.routes.lookup(service)
        except ServiceUnavailable as error:
            raise NotBegun(str(error)) from None
        if len(addresses) == 1:
            link = self._links.get(addresses[0].calls)
            return link if link is not None else self._connect(service, addresses[0])
        self._turn += 1
        turn = self._turn % len(addresses)
        refusal: CallError | None = None
        for address in sorted((*addresses[turn:], *addresses[:turn]), key=self._load):
            try:
                return self._links.get(address.calls) or self._connect(service, address)
            except NotBegun as failed:
                refusal = failed
        assert refusal is not None
        raise refusal

    def _load(self, address: Address) -> int:
        link = self._links.get(address.calls)
        if link is None:
            return MAX_PENDING if address.calls in self._shunned else 0
        return len(link.pending) + (MAX_PENDING if link.is_draining else 0)

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
        if not link.is_withdrawn:
            self._shunned[link.address.calls] = link.service

    def _forget(self, link: Link) -> None:
        if self._links.get(link.address.calls) is link:
            del self._links[link.address.calls]

    def _route_changed(self, service: str) -> None:
        present = set(self.routes.known(service))
        for path in [path for path, its in self._shunned.items() if its == service]:
            del self._shunned[path]
        for link in tuple(self._links.values()):
            if link.service == service and link.address not in present:
                self._forget(link)
                link.withdraw()

    # ---- streams -----------------------------------------------------------------------------------------------------

    def stream(
        self,
        name: str,
        args: list[Any],
        named: dict[str, Any],
        timeout: float | None = None,
        wait: float | None = None,
        typed: dict[str, str] | None = None,
    ) -> Stream:
        """Its items, one by one; asked for with the first of them. ``timeout`` is for all of them together, by default
        what is left to the request that is being served.
        """
        service, method = split(name)
        value = packed(name, args, named, typed)
        deadline_s = self.deadline(timeout, None, self._loop.time())
        wait_s = None if wait is None else patience(wait)
        patience_s: float | None = None  # from when it is asked for first

        async def begin(pending: Pending, refused: CallError | None) -> tuple[Link, int]:
            nonlocal patience_s
            if refused is not None and not isinstance(refused, CERTAIN):
                raise refused
            if self._find is not None:
                await self._find(service, deadline_s)
            if patience_s is None:
                patience_s = self._patience_s(service, wait_s, self._loop.time())
            if refused is not None:
                await self.wait_for_another(service, refused, patience_s, deadline_s)
            while True:
                try:
                    link = self._link(service)
                    return link, link.begin(method, value, deadline_s, STREAM_CREDIT, pending)
                except NotBegun as error:
                    await self.wait_for_another(service, error, patience_s, deadline_s)

        return Stream(name, begin, deadline_s)


def split(name: str) -> tuple[str, str]:
    """(service, method). Raises ``ValueError``."""
    service, _, method = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    if service and method:
        return service, method
    raise ValueError(f'cannot call {name!r}: name it "service.method"')


def seconds(what: str, given: Any) -> float:
    """What a program has given as a time: no text ("5s"), no timedelta. Raises ``TypeError``."""
    if isinstance(given, str | bytes) or not hasattr(type(given), "__float__"):
        raise TypeError(f"{what} is a number of seconds, not {given!r}")
    return float(given)


def patience(wait: Any) -> float:
    """The seconds of ``wait=``. Raises ``TypeError`` and ``ValueError``."""
    wait_s = seconds("a wait", wait)
    if not wait_s >= 0:
        raise ValueError(f"a wait must be 0 seconds or more, not {wait!r}")
    return wait_s


def packed(name: str, args: list[Any], named: dict[str, Any], typed: dict[str, str] | None = None) -> Frames:
    """The arguments as they travel. Raises ``CallRefused``."""
    try:
        value = values.pack_arguments(args, named) if typed is None else values.pack([args, named, typed])
    except ProtocolError as error:
        raise CallRefused(f"cannot call {name}: {error}") from None
    if len(value) > 1 and (size := sum(map(len, value))) > MAX_CALL_BYTES:
        raise CallRefused(f"cannot call {name}: {size} bytes; at most {MAX_CALL_BYTES} travel in one call. Use streams")
    return value
