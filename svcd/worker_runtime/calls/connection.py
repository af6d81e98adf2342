"""The stub's connection to the controller: connects, says RemoteReady each time, sends, receives, notices a loss.

Must not know what the messages mean to the service.

A DEALER to the controller's ROUTER, on a plain socket of this process' own loop: only the thread that runs the loop may
use it. A loss is seen when the peer closes or dies; nothing is sent for the sake of that (no heartbeats). What was
under way at that moment is lost, and nobody acknowledges but the last word of one that fails; so the last state is said
again on a return.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from svcd.protocol import codec, zmtp
from svcd.protocol.errors import ProtocolError
from svcd.protocol.limits import MAX_MESSAGE_BYTES
from svcd.protocol.messages import (
    EndAnnounced,
    EndNoted,
    ExceptionRaised,
    LoopAlive,
    Message,
    ResourceSampled,
    StateChanged,
)
from svcd.worker_runtime.calls.wire_socket import dial
from svcd.worker_runtime.reports import print_text

HELD_LIMIT: Final = 256  # messages kept while the controller is away; the oldest exceptions go first
RECONNECT_S: Final = 0.05
RECONNECT_MAX_S: Final = 1.0
LINGER_S: Final = 1.0
NOTED_WITHIN_S: Final = 5.0  # a controller that takes longer has not seen our end either
COMPLAINTS: Final = 5
READ_BYTES: Final = 16384
PATH_LIMIT_BYTES: Final = 107  # of a Unix socket's address (unix(7))

Dial = Callable[[str], socket.socket]
"""A socket that is connected to that path. Raises ``OSError``."""
_HELLO: Final = zmtp.hello(b"DEALER")


class Connection:
    """``greeting``: what is said first on every connection. ``on_lost`` and ``on_back`` tell of its end and return."""

    def __init__(
        self,
        path: str,
        loop: asyncio.AbstractEventLoop,
        greeting: Callable[[], list[Message]],
        receive: Callable[[Message], None],
        on_lost: Callable[[], None],
        on_back: Callable[[], None],
        dial: Dial = dial,
    ) -> None:
        if len(os.fsencode(path)) > PATH_LIMIT_BYTES:
            raise ValueError(f"{path} is longer than the {PATH_LIMIT_BYTES} bytes of a socket's address")
        self._path = path
        self._loop = loop
        self._greeting = greeting
        self._receive = receive
        self._on_lost = on_lost
        self._on_back = on_back
        self._dial = dial
        self._held: deque[Message] = deque()
        self._complaints = 0
        self._connected = False  # as far as that the controller has answered our hello
        self._socket: socket.socket | None = None
        self._incoming = zmtp.Incoming(MAX_MESSAGE_BYTES)
        self._rest = b""  # of what was said last: the socket did not take it all
        self._under_way: Message | None = None  # whose rest that is
        self._delay_s = RECONNECT_S
        self._retry: asyncio.TimerHandle | None = None
        self._connect()

    def send(self, message: Message) -> None:
        """Send, or hold until the controller is back. Samples and signs of life are not held: they would be
        old.
        """
        if isinstance(message, ResourceSampled | LoopAlive):
            if self._connected and not self._held and not self._rest:
                self._put(message)
            return
        self._held.append(message)
        self._flush()
        while len(self._held) > HELD_LIMIT:
            self._drop_one()

    def close(self, linger_s: float = LINGER_S, last: EndAnnounced | None = None) -> None:
        """Close; what was said goes out first if the controller takes it within ``linger_s``. ``last``: said as well,
        and its answer waited for, as long as the controller is there.
        """
        if self._retry is not None:
            self._retry.cancel()
        if self._socket is None:
            return
        if self._connected and linger_s > 0:
            if last is not None:
                self._held.append(last)
            self._say_the_rest(self._socket, linger_s)
            if last is not None:
                self._wait_noted(self._socket)
        self._hang_up()

    # ---- coming and going ------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._retry = None
        try:
            self._socket = self._dial(self._path)
        except OSError:  # not there, not listening, too many before us, or out of descriptors
            self._retry = self._loop.call_later(self._delay_s, self._connect)
            self._delay_s = min(self._delay_s * 2, RECONNECT_MAX_S)
            return
        self._loop.add_reader(self._socket.fileno(), self._drain)
        self._say(_HELLO)

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
        self._socket, self._rest = None, b""
        self._connected = False

    def _lose(self) -> None:
        """The connection is over; what had not gone out is kept for the next one."""
        was_connected = self._connected
        self._hang_up()
        if self._under_way is not None:
            self._held.appendleft(self._under_way)
            self._under_way = None
        self._incoming = zmtp.Incoming(MAX_MESSAGE_BYTES)
        self._retry = self._loop.call_later(self._delay_s, self._connect)
        if was_connected:
            self._on_lost()

    def _answered(self) -> None:
        """The controller is there: who we are, then what was held, then where we stand if that was not among it."""
        self._connected = True
        self._delay_s = RECONNECT_S
        first, *state = self._greeting()
        held = [each for each in self._held if type(each) is not type(first)]
        if not any(isinstance(each, StateChanged) for each in held):
            held += state
        self._held = deque((first, *held))
        self._flush()
        self._on_back()

    # ---- sending -------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        while self._connected and self._held and not self._rest:
            self._put(self._held.popleft())

    def _put(self, message: Message) -> None:
        try:
            packed = _packed(message)
        except ProtocolError as error:
            self._complain(f"cannot tell the controller {type(message).__name__}: {error}")
            return
        self._under_way = message
        self._say(packed)

    def _say(self, data: bytes) -> None:
        """Hand to the kernel; what it does not take now follows as soon as it can."""
        assert self._socket is not None
        waited = bool(self._rest)
        try:
            count = self._socket.send(data, socket.MSG_NOSIGNAL)
        except OSError:  # full, or gone: the loop will tell
            count = 0
        self._rest = data[count:]
        if not self._rest:
            self._under_way = None
        if self._rest and not waited:
            self._loop.add_writer(self._socket.fileno(), self._say_more)

    def _say_more(self) -> None:
        self._say(self._rest)
        if not self._rest and self._socket is not None:
            self._loop.remove_writer(self._socket.fileno())
            self._flush()

    def _say_the_rest(self, connected: socket.socket, linger_s: float) -> None:
        data = self._rest
        for message in self._held:
            try:
                data += _packed(message)
            except ProtocolError:
                pass
        connected.settimeout(linger_s)
        try:
            connected.sendall(data, socket.MSG_NOSIGNAL)
        except OSError:  # it does not read, or is gone
            pass

    def _wait_noted(self, connected: socket.socket) -> None:
        """Whatever else the controller says by now comes too late."""
        deadline_s = time.monotonic() + NOTED_WITHIN_S
        try:
            while (left_s := deadline_s - time.monotonic()) > 0:
                connected.settimeout(left_s)
                data = connected.recv(READ_BYTES)
                if not data or any(_is_noted(frames) for frames in self._incoming.feed(data)):
                    return
        except (OSError, zmtp.BadPeer):  # it does not answer, or is gone
            pass

    def _drop_one(self) -> None:
        """States are worth more than records of exceptions."""
        for index, held in enumerate(self._held):
            if isinstance(held, ExceptionRaised):
                del self._held[index]
                return
        self._held.popleft()

    # ---- receiving -----------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """One piece at a time, so that the service gets its turn."""
        assert self._socket is not None
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        try:
            found = self._incoming.feed(data)
        except zmtp.BadPeer as error:
            self._complain(f"cut the connection to the controller: {error}")
            self._lose()
            return
        if self._incoming.answers:
            self._answer()
        if self._incoming.is_ready and not self._connected:
            self._answered()
        for frames in found:
            self._take(frames)

    def _answer(self) -> None:
        answers, self._incoming.answers = self._incoming.answers, b""
        if self._rest:
            self._rest += answers
        else:
            self._say(answers)

    def _take(self, frames: list[bytes]) -> None:
        if len(frames) != 2:
            self._complain(f"ignored {len(frames)} frames from the controller: a message has two")
            return
        try:
            message = codec.decode(frames[1])
        except ProtocolError as error:
            self._complain(f"ignored a message from the controller: {error}")
            return
        self._receive(message)

    def _complain(self, text: str) -> None:
        self._complaints += 1
        if self._complaints <= COMPLAINTS:
            print_text(f"svcd: {text}\n")


def _is_noted(frames: list[bytes]) -> bool:
    try:
        return isinstance(codec.decode(frames[-1]), EndNoted)
    except ProtocolError:
        return False


def _packed(message: Message) -> bytes:
    return zmtp.pack((b"", codec.encode(message)))
