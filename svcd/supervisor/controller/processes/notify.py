"""The service manager's end of sd_notify(3): what a run says of itself on its NOTIFY_SOCKET.

Must not act on it: each assignment goes to whoever is named for it. A datagram counts if its sender's uid, as the
kernel says, is ours, root's or the service's, and its pid one of the run's own; of a sender that has ended already
(systemd-notify in a script, say) only the uid is left to look at.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import struct
from collections.abc import Callable
from typing import Final

from svcd.supervisor.controller.processes.containment import is_alive

LIMIT_BYTES: Final = 4096
TURN: Final = 64  # datagrams, before others have their turn
ALL_THERE: Final = 4096  # more than a socket ever holds
LINES: Final = re.compile("[\r\n]+")
CREDENTIALS: Final = struct.Struct("=3i")  # pid, uid, gid: struct ucred, unix(7)
DIGITS: Final = 20
DESCRIPTOR: Final = struct.Struct("=i")
DESCRIPTOR_LIMIT: Final = 253  # SCM_MAX_FD
CONTROL_BYTES: Final = socket.CMSG_SPACE(CREDENTIALS.size) + socket.CMSG_SPACE(DESCRIPTOR_LIMIT * DESCRIPTOR.size)

Assignments = dict[str, str]


class NotifySocket:
    """One run's: an abstract datagram socket with an unguessable name. ``receive`` gets the assignments of one
    datagram; ``is_own`` says whether a process belongs to the run, which it can once the run has a process: nothing is
    read before ``listen``.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        uids: frozenset[int],
        is_own: Callable[[int], bool],
        receive: Callable[[Assignments], None],
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
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket, self._read, TURN)

    def hear_out(self) -> None:
        """All that was said until now."""
        self._read(ALL_THERE)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _read(self, limit: int) -> None:
        for _ in range(limit):
            if self._socket.fileno() < 0:
                return
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(LIMIT_BYTES, CONTROL_BYTES, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            if self._may_speak(ancillary) and not flags & socket.MSG_TRUNC:
                self._receive(parse(data))

    def _may_speak(self, ancillary: list[tuple[int, int, bytes]]) -> bool:
        """Whether the sender may speak for this run. Descriptors that came along are closed: nothing of ours asks for
        them, and closing them is the answer to BARRIER=1.
        """
        found = False
        for level, kind, data in ancillary:
            if level != socket.SOL_SOCKET:
                continue
            if kind == socket.SCM_CREDENTIALS:
                pid, uid, _ = CREDENTIALS.unpack_from(data)
                found = uid in self._uids and (self._is_own(pid) or not is_alive(pid))
            elif kind == socket.SCM_RIGHTS:
                for (fd,) in DESCRIPTOR.iter_unpack(data[: len(data) // DESCRIPTOR.size * DESCRIPTOR.size]):
                    os.close(fd)
        return found


def parse(data: bytes) -> Assignments:
    """The assignments of a datagram; what is none is left out, of several to one name the last one counts."""
    text = data.removesuffix(b"\0").decode("utf-8", "replace")
    lines = (line.partition("=") for line in LINES.split(text))
    return {name: value for name, sign, value in lines if sign and name}


def whole_number(text: str | None) -> int | None:
    """None for what is none, or none that a program could mean: beyond 64 bits."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > DIGITS:
        return None
    return int(text)
