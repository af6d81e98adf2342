"""The controller's links to svcd's other parts: the guardian, the launchers, the collector.

Must not interpret what comes in beyond passing it to the one who is named for its type.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from svcd.supervisor.wiring import Link, PartEnded, PartStarted

Receiver = Callable[[Any, list[int]], None]


class LoopLink:
    """A ``wiring.Link`` on an event loop: reads when there is something, writes when there is room."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: Link,
        receive: Receiver,
        on_closed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._link = link
        self._receive = receive
        self._on_closed = on_closed
        self._writing = False
        self._fd = link.fileno()
        loop.add_reader(self._fd, self._readable)

    def send(self, message: Any, fds: tuple[int, ...] = ()) -> None:
        self._link.send(message, fds)
        self._watch_writes()

    @property
    def wants_write(self) -> bool:
        return self._fd >= 0 and self._link.wants_write

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            if self._writing:
                self._loop.remove_writer(self._fd)
            self._fd = -1
            self._link.close()

    def _readable(self) -> None:
        for message, fds in self._link.receive():
            self._receive(message, fds)
        if self._link.closed and self._fd >= 0:
            self.close()
            self._on_closed()

    def _writable(self) -> None:
        self._link.flush()
        self._watch_writes()

    def _watch_writes(self) -> None:
        if self._fd < 0 or self._link.wants_write == self._writing:
            return
        self._writing = self._link.wants_write
        if self._writing:
            self._loop.add_writer(self._fd, self._writable)
        else:
            self._loop.remove_writer(self._fd)


class Parts:
    """All links. Messages to a part that does not run (yet, or any more) wait until the guardian says that it does."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        guardian: Link,
        receivers: Mapping[type, Receiver],
        on_guardian_lost: Callable[[], None],
    ) -> None:
        self._loop = loop
        self.receivers = dict(receivers)
        self.pids: dict[str, int] = {}
        self._links: dict[str, LoopLink] = {}
        self._waiting: defaultdict[str, list[tuple[Any, tuple[int, ...]]]] = defaultdict(list)
        self._guardian = LoopLink(loop, guardian, self._dispatch, on_guardian_lost)

    def send(self, part: str, message: Any, fds: tuple[int, ...] = ()) -> None:
        """``fds`` stay the caller's. Raises ``OSError`` when no descriptors are left for keeping them."""
        link = self._links.get(part)
        if link is None:
            self._waiting[part].append((message, _copies(fds)))
        else:
            link.send(message, fds)

    def send_guardian(self, message: Any) -> None:
        self._guardian.send(message)

    def runs(self, part: str) -> bool:
        return part in self._links

    async def drained(self) -> None:
        """Wait until the guardian has been sent all that was meant for it."""
        while self._guardian.wants_write:
            await asyncio.sleep(0.005)

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        for _, fds in (each for waiting in self._waiting.values() for each in waiting):
            _close_all(fds)
        self._waiting.clear()
        self._guardian.close()

    def started(self, message: PartStarted, fds: list[int]) -> None:
        """A part came up; the descriptor, if any, is our end of its direct link."""
        self.pids[message.part] = message.pid
        if not fds:
            return
        part = message.part
        old = self._links.pop(part, None)
        if old is not None:
            old.close()
        sock = socket.socket(fileno=fds[0])
        self._links[part] = LoopLink(self._loop, Link(sock), self._dispatch, lambda: self._drop(part))
        for waiting, passed in self._waiting.pop(part, []):
            try:
                self._links[part].send(waiting, passed)
            finally:
                _close_all(passed)

    def ended(self, message: PartEnded) -> None:
        if self.pids.get(message.part) == message.pid:
            del self.pids[message.part]
            self._drop(message.part)

    def _drop(self, part: str) -> None:
        link = self._links.pop(part, None)
        if link is not None:
            link.close()

    def _dispatch(self, message: Any, fds: list[int]) -> None:
        receiver = self.receivers.get(type(message))
        if receiver is not None:
            receiver(message, fds)


def _copies(fds: tuple[int, ...]) -> tuple[int, ...]:
    made: list[int] = []
    try:
        for fd in fds:
            made.append(os.dup(fd))
    except OSError:
        _close_all(made)
        raise
    return tuple(made)


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
