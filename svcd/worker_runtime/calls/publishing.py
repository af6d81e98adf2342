"""Where a service publishes its events: each subscriber gets the topics that it wants, from a bounded queue of its own.

Must not wait for a subscriber, whatever it does: what does not fit in its queue is dropped for it, and counted.

A PUB as ZMTP has it: subscribers say ``1`` or ``0`` and the beginning of a topic. Who was to get an event and did not
sees that from the gap in the sequence of its events. ``SETTLED`` is ours: a subscriber has said all that it wants, and
is answered with an event that has no name.

Who replaces another publisher keeps a seat for each who has listened to that one, or had a seat there: what it
publishes before they have come waits for them in it, as long as their process lives.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from svcd.protocol import call_wire, values
from svcd.protocol.limits import MAX_CALL_BYTES, MAX_METHOD_LENGTH
from svcd.protocol.zmtp_large import Frame
from svcd.record import record
from svcd.worker_runtime.calls.accepting import CheckPeer, Door
from svcd.worker_runtime.calls.wire_socket import Handlers, Outgoing, WireSocket

MAX_SUBSCRIPTIONS: Final = 1024  # of one subscriber
TOPICS_KEPT: Final = 1024
SUBSCRIBER_BYTES: Final = 64 * 1024  # of one message of theirs

SEATS_KEPT_S: Final = 5.0  # for who does not come; a process that lives may stand still for longer
SETTLED: Final = b"\x02"

_UNSUBSCRIBE: Final = 0
_SUBSCRIBE: Final = 1


@record
class QueueBounds:
    """Of each subscriber's queue: a single larger event still fits an empty one."""

    events: int = 1024
    size_bytes: int = 64 * 1024 * 1024


class Listening(NamedTuple):
    """Who listens, and how the topics begin that it wants. ``pid``: of its process; 0 where that cannot be told."""

    name: str
    beginnings: tuple[bytes, ...]
    pid: int = 0


class Publisher:
    """``dropped`` counts what did not fit in some queue, over all subscribers; ``losses`` does so by their names, for
    whoever empties it. ``on_loss`` is called when something is in it.
    """

    def __init__(self, path: str, check_peer: CheckPeer, bounds: QueueBounds = QueueBounds()) -> None:
        self.loop = asyncio.get_running_loop()
        self.bounds = bounds
        self.dropped = 0
        self.losses: Counter[str] = Counter()
        self.on_loss: Callable[[], None] = lambda: None
        self.subscribers: set[Subscriber] = set()
        self._topics: dict[str, bytes] = {}  # that were checked
        self._seats: list[Seat] = []
        self._expiry: asyncio.TimerHandle | None = None
        self._door = Door(self.loop, path, check_peer, self._welcome)

    def open(self) -> None:
        """Raises ``OSError``."""
        self._door.open()

    def publish(self, topic: str, value: Any) -> None:
        """To all who want it now. Raises ``ProtocolError`` for what cannot travel, ``ValueError`` for a bad topic."""
        name = self._topics.get(topic) if type(topic) is str else None
        if name is None:
            name = check_topic(topic)
            if len(self._topics) < TOPICS_KEPT:
                self._topics[topic] = name
        frames: list[Frame] | None = None
        for subscriber in tuple(self.subscribers):
            if not subscriber.wants(name):
                continue
            if frames is None:
                frames = _packed(topic, value)
            if not subscriber.tell(topic, name, frames):
                self._lose(subscriber.name, 1)
        if self._seats:
            frames = frames or _packed(topic, value)
            self._keep_for_seats(topic, name, frames)
        if frames is None:
            _packed(topic, value)  # so that a value that cannot travel is an error without subscribers, too

    # ---- who has listened to the one before --------------------------------------------------------------------------

    def listeners(self) -> list[Listening]:
        """Who listens now, or has yet to come, and to what: for whoever replaces this publisher."""
        here = [Listening(each.name, each.beginnings, each.pid) for each in self.subscribers if each.beginnings]
        return here + [each.whose for each in self._seats]

    def reserve(self, listeners: Iterable[Listening]) -> None:
        """These are expected, and nobody else any more."""
        self._clear_seats()
        self._seats = [Seat(each, self.bounds) for each in listeners]
        self._look_at_seats_later()

    def _keep_for_seats(self, topic: str, name: bytes, frames: list[Frame]) -> None:
        for seat in self._seats:
            if name.startswith(seat.whose.beginnings) and not seat.keep(topic, name, frames):
                self._lose(seat.whose.name, 1)

    def seat(self, subscriber: Subscriber) -> None:
        """Somebody has said all that it wants: what waits here for who is called so is for it."""
        found = next((each for each in self._seats if each.whose.name == subscriber.name), None)
        if found is None:
            return
        self._seats.remove(found)
        for topic, name, frames in found.kept:
            if subscriber.wants(name) and not subscriber.tell(topic, name, frames):
                self._lose(subscriber.name, 1)

    def _look_at_seats_later(self) -> None:
        self._expiry = self.loop.call_later(SEATS_KEPT_S, self._look_at_seats) if self._seats else None

    def _look_at_seats(self) -> None:
        """Those whose process has ended meanwhile will not come."""
        self._clear_seats([each for each in self._seats if is_alive(each.whose.pid)])
        self._look_at_seats_later()

    def _clear_seats(self, but: list[Seat] | None = None) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        seats, self._seats, self._expiry = self._seats, but or [], None
        for each in seats:
            if each.kept and each not in self._seats:
                self._lose(each.whose.name, len(each.kept))

    def _lose(self, name: str, count: int) -> None:
        self.dropped += count
        self.losses[name] += count
        self.on_loss()

    # ---- the end -----------------------------------------------------------------------------------------------------

    def dismiss(self, name: str) -> None:
        """Whoever listens by that name does so no more, and will not."""
        self._seats = [each for each in self._seats if each.whose.name != name]
        for each in tuple(self.subscribers):
            if each.name == name:
                each.leave()

    def close(self) -> None:
        """What waits goes out as far as the kernel takes it; the rest is lost, counted."""
        self._door.close()
        self._clear_seats()
        for each in tuple(self.subscribers):
            left = each.finish()
            if left:
                self._lose(each.name, left)

    def _welcome(self, connected: socket.socket, name: str, refusal: str | None) -> None:
        if refusal is not None:  # a PUB has no words for a refusal
            connected.close()
            self._door.leave()
            return
        self.subscribers.add(Subscriber(self, connected, name))

    def gone(self, subscriber: Subscriber) -> None:
        self.subscribers.discard(subscriber)
        self._door.leave()


class Seat:
    """What somebody is to get who has not come yet."""

    def __init__(self, whose: Listening, bounds: QueueBounds) -> None:
        self.whose = whose
        self.kept: list[tuple[str, bytes, list[Frame]]] = []
        self._bounds = bounds
        self._size_bytes = 0

    def keep(self, topic: str, name: bytes, frames: list[Frame]) -> bool:
        """Whether there was room for it."""
        size = sum(map(len, frames))
        if len(self.kept) >= self._bounds.events or self._size_bytes + size > self._bounds.size_bytes:
            return False
        self._size_bytes += size
        self.kept.append((topic, name, frames))
        return True


class Subscriber:
    """One connection. ``sequence`` counts the events that it was to get, ``dropped`` those that it did not."""

    def __init__(self, publisher: Publisher, connected: socket.socket, name: str) -> None:
        self.name = name
        self.sequence = 0
        self.dropped = 0
        self._publisher = publisher
        self._topics: dict[bytes, int] = {}  # beginnings, and how often each was asked for
        self._beginnings: tuple[bytes, ...] = ()  # the same
        self._queue: deque[Outgoing] = deque()
        handlers = Handlers(lambda: None, self._taken, lambda why: self._publisher.gone(self))
        self._wire = WireSocket(publisher.loop, connected, b"PUB", SUBSCRIBER_BYTES, handlers)
        self.pid = self._wire.peer.pid

    def wants(self, topic: bytes) -> bool:
        return topic.startswith(self._beginnings)

    def tell(self, topic: str, name: bytes, value: Sequence[Frame]) -> bool:
        """Whether there was room for it."""
        self.sequence += 1
        queue, bounds = self._queue, self._publisher.bounds
        while queue and queue[0].begun:
            queue.popleft()
        size = sum(map(len, value))
        if len(queue) >= bounds.events or (queue and self._wire.backlog_bytes + size > bounds.size_bytes):
            self.dropped += 1
            return False
        queue.append(self._wire.say([name, call_wire.encode_event(topic, self.sequence), *value]))
        return True

    @property
    def beginnings(self) -> tuple[bytes, ...]:
        """Of the topics that it wants."""
        return self._beginnings

    def leave(self) -> None:
        self._wire.close()
        self._publisher.gone(self)

    def finish(self) -> int:
        """Say what waits, and leave; how much of it the kernel did not take."""
        self._wire.flush()
        left = sum(not each.begun for each in self._queue) + self._wire.half_out
        self.leave()
        return left

    def _taken(self, frames: list[Frame]) -> None:
        said = bytes(frames[0]) if len(frames) == 1 else b""
        if said == SETTLED:
            self._publisher.seat(self)
            self.tell("", b"", _packed("", None))
            return
        if not said or said[0] not in (_SUBSCRIBE, _UNSUBSCRIBE) or len(said) > MAX_METHOD_LENGTH:
            self.leave()
            return
        beginning, count = said[1:], self._topics.get(said[1:], 0)
        if said[0] == _SUBSCRIBE:
            if not count and len(self._topics) >= MAX_SUBSCRIPTIONS:
                self.leave()
                return
            self._topics[beginning] = count + 1
        elif count > 1:
            self._topics[beginning] = count - 1
        else:
            self._topics.pop(beginning, None)
        self._beginnings = tuple(self._topics)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, as far as we can see. What has ended and was not reaped yet counts."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def check_topic(topic: Any) -> bytes:
    """The topic as it travels. Raises ``ValueError``."""
    if not isinstance(topic, str) or not topic or "*" in topic or len(topic.encode()) > MAX_METHOD_LENGTH - 1:
        raise ValueError(f"cannot publish {topic!r}: a topic is a short text without '*'")
    return topic.encode()


def _packed(topic: str, value: Any) -> list[Frame]:
    frames = list[Frame](values.pack(value))
    if len(frames) == 1:
        return frames
    size = sum(map(len, frames))
    if size > MAX_CALL_BYTES:
        raise ValueError(f"cannot publish {topic}: {size} bytes; at most {MAX_CALL_BYTES} travel in one event")
    # An event may wait in queues after the method that published it has gone on: what it was made of may change then.
    return [frames[0], *(bytes(each) for each in frames[1:])]
