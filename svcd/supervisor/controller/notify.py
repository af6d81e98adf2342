"""The service manager's end of sd_notify(3): what a run says of itself on its NOTIFY_SOCKET.

Must not act on it: each assignment goes to whoever is named for it. A datagram counts if its sender's uid, as the
kernel says, is ours, root's or the service's, and its pid one of the run's own; of a sender that is gone already only
the uid is left to look at.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
from collections.abc import Callable
from typing import Final

LIMIT_BYTES: Final = 4096
CREDENTIALS: Final = struct.Struct("=3i")  # pid, uid, gid: struct ucred, unix(7)
DESCRIPTOR: Final = struct.Struct("=i")
DESCRIPTOR_LIMIT: Final = 253  # SCM_MAX_FD

Assignments = dict[str, str]


class NotifySocket:
    """One run's: an abstract datagram socket with an unguessable name. ``receive`` gets the assignments of one datagram
    and the pid of its sender; ``is_own`` says whether a process belongs to the run. Nothing is read before ``listen``:
    until the run's own process is known, nobody could be told from a stranger.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        uids: frozenset[int],
        is_own: Callable[[int], bool],
        receive: Callable[[Assignments, int], None],
    ) -> None:
        self._loop = loop
        self._uids = uids
        self._is_own = is_own
        self._receive = receive
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        name = f"svcd-notify-{secrets.token_hex(16)}"
        self._socket.bind("\0" + name)
        self.address = "@" + name

    def listen(self) -> None:
        """Hear what has been said meanwhile, and all that follows."""
        self._loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _read(self) -> None:
        while self._socket.fileno() >= 0:
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(
                    LIMIT_BYTES, socket.CMSG_SPACE(CREDENTIALS.size) + socket.CMSG_SPACE(DESCRIPTOR_LIMIT * 4)
                )
            except BlockingIOError:
                return
            pid = self._sender(ancillary)
            if pid is not None and not flags & socket.MSG_TRUNC:
                self._receive(parse(data), pid)

    def _sender(self, ancillary: list[tuple[int, int, bytes]]) -> int | None:
        """The pid of a sender who may speak for this run. Descriptors that came along are closed: nothing of ours asks
        for them, and closing them is the answer to BARRIER=1.
        """
        found = None
        for level, kind, data in ancillary:
            if level != socket.SOL_SOCKET:
                continue
            if kind == socket.SCM_CREDENTIALS:
                pid, uid, _ = CREDENTIALS.unpack_from(data)
                if uid in self._uids and (self._is_own(pid) or not os.path.exists(f"/proc/{pid}")):
                    found = pid
            elif kind == socket.SCM_RIGHTS:
                for (fd,) in DESCRIPTOR.iter_unpack(data[: len(data) // DESCRIPTOR.size * DESCRIPTOR.size]):
                    os.close(fd)
        return found


def parse(data: bytes) -> Assignments:
    """The assignments of a datagram; what is none is left out, of several to one name the last one counts."""
    lines = (line.partition("=") for line in data.decode("utf-8", "replace").split("\n"))
    return {name: value for name, sign, value in lines if sign and name}


def microseconds(text: str) -> float | None:
    """A number of microseconds, in seconds; None for anything else."""
    return int(text) / 1e6 if text.isascii() and text.isdigit() and len(text) < 20 else None
