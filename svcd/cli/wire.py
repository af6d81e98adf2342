"""A blocking program's connections to the daemon's sockets: they come back when lost, and are waited for together.

Must not know what messages mean. ZMTP by ``protocol.zmtp``: importing libzmq takes longer than most commands do.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from svcd.protocol import zmtp
from svcd.protocol.limits import MAX_MESSAGE_BYTES

REDIAL_S: Final = 0.01
READ_BYTES: Final = 256 * 1024


class Wire:
    """A connection to ``path``, of whoever listens there now or later. ``messages``: what has come and was not taken.

    ``opening`` is said anew on each connection. What is said while there is none waits; what was said on one that was
    lost is lost with it. Nothing but the greeting is said before the peer is ready: libzmq may leave it unread.
    """

    def __init__(self, path: str, socket_type: bytes, opening: Sequence[Sequence[bytes]] = ()) -> None:
        self.messages: deque[list[bytes]] = deque()
        self._path = path
        self._hello, self._opening = zmtp.hello(socket_type), b"".join(map(zmtp.pack, opening))
        self._greeting = self._unsaid = b""
        self._socket: socket.socket | None = None
        self._incoming = zmtp.Incoming(MAX_MESSAGE_BYTES)
        self._dial_at = 0.0
        self._dial()

    def say(self, frames: Sequence[bytes]) -> None:
        self._unsaid += zmtp.pack(frames)
        self._write()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # ---- for ``wait`` ------------------------------------------------------------------------------------------------

    def interest(self) -> tuple[int, int] | None:
        """Descriptor and events of poll(2); None while there is no connection."""
        if self._socket is None:
            return None
        return self._socket.fileno(), select.POLLIN | (select.POLLOUT if self._to_say() else 0)

    def left_s(self) -> float | None:
        """Until something is to be done even if nothing comes."""
        return None if self._socket is not None else max(0.0, self._dial_at - time.monotonic())

    def turn(self) -> None:
        """Do what can be done now."""
        if self._socket is None and time.monotonic() >= self._dial_at:
            self._dial()
        self._read()
        self._write()

    def _dial(self) -> None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            made.connect(self._path)
        except OSError:  # not there yet, or not any more
            made.close()
            self._dial_at = time.monotonic() + REDIAL_S
            return
        self._socket, self._incoming = made, zmtp.Incoming(MAX_MESSAGE_BYTES)
        self._greeting, self._unsaid = self._hello, self._opening + self._unsaid
        self._write()

    def _read(self) -> None:
        while self._socket is not None:
            try:
                data = self._socket.recv(READ_BYTES)
                self.messages.extend(self._incoming.feed(data))
            except BlockingIOError:
                return
            except (OSError, zmtp.BadPeer):
                data = b""
            if not data:
                self._lose()
                return
            self._unsaid += self._incoming.answers
            self._incoming.answers = b""

    def _to_say(self) -> bytes:
        return self._greeting or (self._unsaid if self._incoming.is_ready else b"")

    def _write(self) -> None:
        try:
            while self._socket is not None and (data := self._to_say()):
                said = self._socket.send(data, socket.MSG_NOSIGNAL)  # SIGPIPE would end us (``main``)
                if self._greeting:
                    self._greeting = self._greeting[said:]
                else:
                    self._unsaid = self._unsaid[said:]
        except BlockingIOError:
            pass
        except OSError:
            self._read()  # what it said before it went

    def _lose(self) -> None:
        self.close()
        self._unsaid = b""
        self._dial_at = time.monotonic() + REDIAL_S


def wait(
    wires: Iterable[Wire], others: Mapping[int, int], timeout_s: float | None, beside: Iterable[Wire] = ()
) -> bool:
    """Until a wire has a message or one of ``others`` (descriptor -> events of poll(2)) has its event; False when
    ``timeout_s`` are over before. ``beside``: wires that go on meanwhile, whatever comes on them.
    """
    wires = list(wires)
    served = [*wires, *beside]
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        for wire in served:
            wire.turn()
        poll = select.poll()
        for fd, events in [*others.items(), *filter(None, (wire.interest() for wire in served))]:
            poll.register(fd, events)
        has_come = any(wire.messages for wire in wires)
        left_s = [each for each in (wire.left_s() for wire in served) if each is not None]
        if deadline is not None:
            left_s.append(max(0.0, deadline - time.monotonic()))
        ready = poll.poll(0 if has_come else _milliseconds(min(left_s, default=None)))
        if has_come or any(fd in others for fd, _ in ready):
            return True
        if deadline is not None and time.monotonic() >= deadline:
            for wire in wires:
                wire.turn()
            return any(wire.messages for wire in wires)


def _milliseconds(seconds: float | None) -> float | None:
    """Never 0 too early: that would be to wait by looking again and again."""
    return None if seconds is None else int(seconds * 1000 + 0.999)
