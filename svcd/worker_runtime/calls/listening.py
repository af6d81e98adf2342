"""What a service hears of others: connects to the publishers it listens to, and calls its methods with their events.

Must not know how events are published. Each method has a bounded queue and one event at a time: a slow one loses
its own events, counted, and nobody else's.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from svcd.protocol import call_wire, values
from svcd.protocol.errors import ProtocolError
from svcd.protocol.limits import MAX_CALL_BYTES
from svcd.protocol.zmtp import SUBSCRIBE
from svcd.protocol.zmtp_large import Frame, Oversized
from svcd.worker_runtime.calls.annotations import Mismatch
from svcd.worker_runtime.calls.endpoint import OnError, RunSync
from svcd.worker_runtime.calls.methods import Listener, bound
from svcd.worker_runtime.calls.publishing import SETTLED
from svcd.worker_runtime.calls.routes import Address, Routes
from svcd.worker_runtime.calls.wire_socket import Handlers, WireSocket, dial

QUEUE_EVENTS: Final = 1024
REDIAL_S: Final = 0.05
REDIAL_MAX_S: Final = 1.0
TURNS: Final = 5


class Subscriptions:
    """All that one service listens to. A publisher whose route is gone is heard until it closes: what it has published
    before that is not lost. ``missed``: events that publishers had for it and could not send; ``dropped``:
    that came and found a method's queue full; ``refused``: that were not what the method's annotation says.
    """

    def __init__(
        self,
        target: object,
        listeners: list[Listener],
        routes: Routes,
        run_sync: RunSync,
        on_error: OnError,
        queue_events: int = QUEUE_EVENTS,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._routes = routes
        self._lines: dict[tuple[str, Address], Line] = {}
        self._leaving: dict[tuple[str, Address], Line] = {}  # those whose route is gone
        self._heard: list[asyncio.Future[None]] = []
        self.missed = 0
        self.refused = 0
        self.losses: Counter[str] = Counter()  # of full queues, by publisher, for whoever empties it
        self.on_loss: Callable[[], None] = lambda: None
        self.inboxes = [Inbox(each, bound(target, each.name), run_sync, on_error, queue_events) for each in listeners]
        self._services = {each.service for each in listeners}
        self._inboxes_of = {
            name: [each for each in self.inboxes if each.listener.service == name] for name in self._services
        }
        routes.watch(self._route_changed)

    @property
    def dropped(self) -> int:
        return sum(each.dropped for each in self.inboxes)

    def open(self) -> None:
        for service in self._services:
            self._route_changed(service)

    def close(self) -> None:
        """Nothing more is heard; the methods that run are cancelled."""
        self._services = set()
        for line in (*self._lines.values(), *self._leaving.values()):
            line.close()
        self._lines.clear()
        self._leaving.clear()
        for inbox in self.inboxes:
            inbox.close()

    def _route_changed(self, service: str) -> None:
        if service not in self._services:
            return
        present = {each for each in self._routes.known(service) if each.events is not None}
        for key in [key for key in self._lines if key[0] == service and key[1] not in present]:
            line = self._leaving[key] = self._lines.pop(key)
            line.leave()
        topics = sorted({each.listener.topic for each in self._inboxes_of[service]})
        for address in present:
            key = service, address
            if key in self._lines:
                continue
            left = self._leaving.pop(key, None)  # its route is there again
            if left is not None:
                left.stay()
            self._lines[key] = left or Line(self, service, address, topics)

    def left(self, line: Line) -> None:
        """A line whose route is gone has ended."""
        self._leaving = {key: each for key, each in self._leaving.items() if each is not line}

    async def wait_heard(self, timeout_s: float) -> None:
        """Until every publisher that is there knows what is wanted of it, or for so long. A stall uses up one turn of
        it only: publishers stand still with us.
        """
        left_s, turn_s = timeout_s, timeout_s / TURNS
        while left_s > 0 and any(not each.is_heard for each in self._lines.values()):
            heard, began_s = self.loop.create_future(), self.loop.time()
            self._heard.append(heard)
            await asyncio.wait((heard,), timeout=turn_s)
            left_s -= min(self.loop.time() - began_s, turn_s)

    def line_heard(self) -> None:
        """One more publisher does."""
        heard, self._heard = self._heard, []
        for each in heard:
            if not each.done():
                each.set_result(None)

    def take(self, service: str, frames: list[Frame]) -> int | None:
        """The sequence of an event that came; None for what is none."""
        try:
            head = call_wire.decode_for_listener(frames[1])
        except (ProtocolError, IndexError):
            return None
        if head.topic.encode("utf-8", "replace") != bytes(frames[0]):
            return None
        for inbox in self._inboxes_of[service]:
            if inbox.hears(head.topic):
                self._put(inbox, frames)
        return head.sequence

    def _put(self, inbox: Inbox, frames: list[Frame]) -> None:
        """Each method gets a value of its own: what one changes, another does not see."""
        try:
            is_kept = inbox.put(inbox.listener.check(values.unpack_from(frames, 2), "the event"))
        except (ProtocolError, Mismatch, RecursionError) as error:
            self.refused += 1
            listener = inbox.listener
            inbox.complain(Mismatch(f"{listener.name}() cannot hear {listener.service}.{listener.topic}: {error}"))
            return
        if not is_kept:
            self.losses[inbox.listener.service] += 1
            self.on_loss()


class Line:
    """The connection to one publisher; made again when it is lost, as long as its route is there. ``is_heard``: the
    publisher knows what is wanted of it.
    """

    def __init__(self, owner: Subscriptions, service: str, address: Address, topics: list[str]) -> None:
        self._owner = owner
        self._service = service
        self._address = address
        self._topics = topics
        self._wire: WireSocket | None = None
        self._sequence = 0
        self._retry: asyncio.TimerHandle | None = None
        self._delay_s = REDIAL_S
        self._is_leaving = False
        self.is_heard = False
        self._connect()

    def leave(self) -> None:
        """Its route is gone: what comes until it closes is still heard."""
        self._is_leaving = True
        if self._wire is None:
            self.close()
            self._owner.left(self)

    def stay(self) -> None:
        self._is_leaving = False

    def close(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        if self._wire is not None:
            self._wire.close()

    def _connect(self) -> None:
        self._retry = None
        handlers = Handlers(self._ready, self._taken, self._lost)
        assert self._address.events is not None
        try:
            connected = dial(self._address.events)
        except OSError:
            self._connect_later()
            return
        self._sequence = 0
        self._wire = WireSocket(self._owner.loop, connected, b"SUB", MAX_CALL_BYTES, handlers)
        if self._address.pid is not None and self._wire.peer.pid != self._address.pid:
            self._wire.close()
            self._connect_later()
            return
        for topic in self._topics:
            self._wire.say((SUBSCRIBE + topic.removesuffix("*").encode(),))
        self._wire.say((SETTLED,))

    def _connect_later(self) -> None:
        self._retry = self._owner.loop.call_later(self._delay_s, self._connect)
        self._delay_s = min(self._delay_s * 2, REDIAL_MAX_S)

    def _ready(self) -> None:
        self._delay_s = REDIAL_S

    def _lost(self, why: str) -> None:
        self._wire, self.is_heard = None, False
        if self._is_leaving:
            self._owner.left(self)
        else:
            self._connect_later()

    def _taken(self, frames: list[Frame]) -> None:
        if isinstance(frames, Oversized):  # its number is seen to be missing with the next one
            return
        if not self.is_heard and not frames[0]:  # the event without a name: the answer to ``SETTLED``
            self.is_heard = True
            self._owner.line_heard()
        sequence = self._owner.take(self._service, frames)
        if sequence is not None:
            self._owner.missed += max(0, sequence - self._sequence - 1)
            self._sequence = sequence


class Inbox:
    """One method, and the events that wait for it."""

    def __init__(
        self, listener: Listener, method: Callable[[Any], Any], run_sync: RunSync, on_error: OnError, limit: int
    ) -> None:
        self.listener = listener
        self.dropped = 0
        self._wanted = listener.topic
        self._begins = self._wanted[:-1] if self._wanted.endswith("*") else None
        self._method = method
        self._run_sync = run_sync
        self._on_error = on_error
        self._limit = limit
        self._waiting: deque[Any] = deque()
        self._task: asyncio.Task[None] | None = None

    def hears(self, topic: str) -> bool:
        return topic == self._wanted or (self._begins is not None and topic.startswith(self._begins))

    def put(self, value: Any) -> bool:
        """Whether there was room for it."""
        if len(self._waiting) >= self._limit:
            self.dropped += 1
            return False
        self._waiting.append(value)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work(), name=self.listener.name)
        return True

    def complain(self, error: BaseException) -> None:
        self._on_error(self.listener.name, error)

    def close(self) -> None:
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    async def _work(self) -> None:
        try:
            while self._waiting:
                value = self._waiting.popleft()
                try:
                    if self.listener.is_async:
                        await self._method(value)
                    else:
                        await self._run_sync(partial(self._method, value))
                except Exception as error:  # whatever user code raises; the next event is another matter
                    self.complain(error)
        finally:
            self._task = None
