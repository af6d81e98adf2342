"""A door of the data plane: listens on a path, accepts, and has each who comes checked by the kernel's word on it.

Must not know what is said after that. The file is removed when the door closes, if it is still ours.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from svcd.protocol.call_errors import PermissionDenied
from svcd.worker_runtime.calls.wire_socket import Peer, listen, peer_of

BACKLOG: Final = 512
MAX_CONNECTIONS: Final = 1024
ACCEPTS: Final = 64  # of one turn
RETRY_S: Final = 0.1  # when there are no descriptors left

CheckPeer = Callable[[Peer], str | Awaitable[str]]
"""The name of the service, or other words, for who that is; at once, or once it is known: until then the peer waits.
Raises ``PermissionDenied`` with the reason.
"""

Welcome = Callable[[socket.socket, str, str | None], None]
"""Takes the connected socket over, with the peer's name and, if it is refused, the reason."""


class Door:
    """``open`` and ``close`` once each. ``leave`` is to be said of each connection that has ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str, check_peer: CheckPeer, welcome: Welcome) -> None:
        self._loop = loop
        self._path = path
        self._check_peer = check_peer
        self._welcome = welcome
        self._listening: socket.socket | None = None
        self._inode: tuple[int, int] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._inside = 0
        self._asking: set[asyncio.Task[None]] = set()
        self.turned_away = 0

    def open(self) -> None:
        """Raises ``OSError``."""
        self._listening = listen(self._path, BACKLOG)
        self._inode = _inode(self._path)
        self._loop.add_reader(self._listening.fileno(), self._accept)

    def leave(self) -> None:
        self._inside -= 1

    def close(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        for task in self._asking:
            task.cancel()
        if self._listening is None:
            return
        self._loop.remove_reader(self._listening.fileno())
        self._listening.close()
        self._listening = None
        if self._inode == _inode(self._path):  # not the one of whoever came after us
            try:
                os.unlink(self._path)
            except OSError:
                pass

    def _accept(self) -> None:
        self._retry = None
        for _ in range(ACCEPTS):
            if self._listening is None:
                return
            try:
                connected, _ = self._listening.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                self._rest(error)
                return
            self._let_in(connected)

    def _let_in(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        if self._inside >= MAX_CONNECTIONS:
            self.turned_away += 1
            connected.close()
            return
        try:
            known = self._check_peer(peer_of(connected))
        except OSError:
            connected.close()
            return
        except Exception as error:
            self._inside += 1
            self._welcome(connected, "", _refusal(error))
            return
        self._inside += 1
        if isinstance(known, str):
            self._welcome(connected, known, None)
        else:
            task = self._loop.create_task(self._let_in_later(connected, known), name="check peer")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _let_in_later(self, connected: socket.socket, known: Awaitable[str]) -> None:
        name, refusal = "", None
        try:
            name = await known
        except asyncio.CancelledError:
            connected.close()
            raise
        except Exception as error:
            refusal = _refusal(error)
        self._welcome(connected, name, refusal)

    def _rest(self, error: OSError) -> None:
        """Out of descriptors or memory: who waits goes on waiting, and the loop does not spin."""
        if self._listening is None or error.errno == errno.EINTR:
            return
        self._loop.remove_reader(self._listening.fileno())
        self._retry = self._loop.call_later(RETRY_S, self._go_on)

    def _go_on(self) -> None:
        if self._listening is not None:
            self._loop.add_reader(self._listening.fileno(), self._accept)


def _refusal(error: Exception) -> str:
    """Where whoever knows does not, nobody gets in by that."""
    return str(error) if isinstance(error, PermissionDenied) else f"cannot tell who calls: {error}"


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino
