"""The stub's DEALER to the controller: connects, says RemoteReady at each connect, sends, receives, notices a loss.

Must not know what the messages mean to the service.

The socket is libzmq's own, not ``zmq.asyncio``: its descriptor is edge-triggered, so after each send and each receive
the socket is asked again whether there is something to read. Only the thread that runs the loop may use it.
A loss is seen by libzmq when the peer closes or dies; nothing is sent for the sake of that (no heartbeats).
What was under way at that moment is lost, and nobody acknowledges; so the last state is said again on a return.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import Final

import zmq

from svcd.protocol import codec
from svcd.protocol.errors import ProtocolError
from svcd.protocol.limits import MAX_MESSAGE_BYTES
from svcd.protocol.messages import ExceptionRaised, LoopAlive, Message, ResourceSampled, StateChanged
from svcd.worker_runtime.reports import print_text

TURN: Final = 64  # messages per turn of the loop
HELD_LIMIT: Final = 256  # messages kept while the controller is away; the oldest exceptions go first
RECONNECT_MS: Final = 50
RECONNECT_MAX_MS: Final = 1000
LINGER_MS: Final = 1000
COMPLAINTS: Final = 5

_MONITOR: Final = "inproc://connection"
_MONITOR_EVENT: Final = struct.Struct("=HI")
_WATCHED: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


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
    ) -> None:
        self._loop = loop
        self._greeting = greeting
        self._receive = receive
        self._on_lost = on_lost
        self._on_back = on_back
        self._held: deque[Message] = deque()
        self._complaints = 0
        self._again = False
        self._connected = False
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing is queued for a controller that is away: we hold it
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self._socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        self._socket.monitor(_MONITOR, _WATCHED)
        self._monitor = self._context.socket(zmq.PAIR)
        self._monitor.setsockopt(zmq.LINGER, 0)
        self._monitor.connect(_MONITOR)
        self._fds = (_descriptor_of(self._socket), _descriptor_of(self._monitor))
        self._socket.connect(f"ipc://{path}")
        loop.add_reader(self._fds[0], self._drain)
        loop.add_reader(self._fds[1], self._drain_monitor)
        self._drain_monitor()

    def send(self, message: Message) -> None:
        """Send, or hold until the controller is back. Samples and signs of life are not held: they would be
        old.
        """
        if isinstance(message, ResourceSampled | LoopAlive):
            if self._connected and not self._held:
                self._put(message)
            return
        self._held.append(message)
        self._flush()
        while len(self._held) > HELD_LIMIT:
            self._drop_one()

    def close(self, linger_ms: int = LINGER_MS) -> None:
        """Close; what was sent goes out first if the controller takes it within ``linger_ms``."""
        for fd in self._fds:
            self._loop.remove_reader(fd)
        self._socket.disable_monitor()
        self._monitor.close()
        self._socket.close(linger_ms if self._connected else 0)
        self._context.term()

    # ---- sending -------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        while self._connected and self._held and self._put(self._held[0]):
            self._held.popleft()

    def _put(self, message: Message) -> bool:
        """Hand to libzmq; False when it cannot take it now."""
        try:
            body = codec.encode(message)
        except ProtocolError as error:
            self._complain(f"cannot tell the controller {type(message).__name__}: {error}")
            return True
        self._socket.getsockopt(zmq.EVENTS)  # lets libzmq see connections that came or went
        try:
            self._socket.send_multipart((b"", body), zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        finally:
            self._look_again()
        return True

    def _drop_one(self) -> None:
        """States are worth more than records of exceptions."""
        for index, held in enumerate(self._held):
            if isinstance(held, ExceptionRaised):
                del self._held[index]
                return
        self._held.popleft()

    def _greet(self) -> None:
        """On a new connection: who we are, then what was held, then where we stand if that was not among it."""
        first, *state = self._greeting()
        held = [each for each in self._held if type(each) is not type(first)]
        if not any(isinstance(each, StateChanged) for each in held):
            held += state
        self._held = deque((first, *held))
        self._flush()

    # ---- receiving -----------------------------------------------------------------------------------------------

    def _look_again(self) -> None:
        if not self._again and _is_readable(self._socket):
            self._again = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._again = False
        self._flush()  # the descriptor also says that there is room again
        for _ in range(TURN):
            if self._socket.closed:
                return
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.ZMQError:
                return
            self._take(frames)
        self._look_again()

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

    # ---- the state of the connection -------------------------------------------------------------------------------

    def _drain_monitor(self) -> None:
        while not self._monitor.closed:
            try:
                frames = self._monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.ZMQError:
                return
            event, _ = _MONITOR_EVENT.unpack_from(frames[0])
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._connected = True
                self._greet()
                self._on_back()
            elif event == zmq.EVENT_DISCONNECTED:
                self._connected = False
                self._on_lost()


def _descriptor_of(socket: zmq.Socket[bytes]) -> int:
    descriptor = socket.getsockopt(zmq.FD)
    assert isinstance(descriptor, int)
    return descriptor


def _is_readable(socket: zmq.Socket[bytes]) -> bool:
    events = socket.getsockopt(zmq.EVENTS)
    return isinstance(events, int) and bool(events & zmq.POLLIN)
