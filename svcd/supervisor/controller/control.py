"""The control plane's sockets: a ROUTER for stubs and clients, an XPUB for the stream of events.

Must not know what a message means: it checks who speaks, decodes, hands over, and counts what it rejects.

The XPUB is a PUB that says who has subscribed to what: a subscription becomes effective some time after it was sent,
and one who has to know when asks by one more (``SubscriptionConfirmed``).

Routing ids are the ROUTER's own choice, one per connection, so nobody can take over another's. Who a peer is comes
from the kernel (``Peer-Address`` on ipc is ``localhost:UID:GID:PID``, from SO_PEERCRED at the time of the connect).
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import zmq

from svcd.protocol import codec
from svcd.protocol.errors import ProtocolError
from svcd.protocol.limits import MAX_MESSAGE_BYTES
from svcd.protocol.messages import Message, RequestRefused, SubscriptionConfirmed
from svcd.protocol.messages.published import CONFIRMATION
from svcd.protocol.zmtp import SUBSCRIBE
from svcd.record import record

# pyzmq's enumerations cost more than the calls they are passed to
POLLIN: Final = int(zmq.POLLIN)
NOBLOCK: Final = int(zmq.NOBLOCK)
EVENTS: Final = int(zmq.EVENTS)

TURN: Final = 64  # messages handled before the loop gets to do something else
OUT_TURNS: Final = 64  # of them, where what has come must be heard before something else is done
MAX_CORRELATION_BYTES: Final = 16
MAX_SUBSCRIPTION_BYTES: Final = 256
ASKING: Final = SUBSCRIBE + CONFIRMATION
END_LINGER_MS: Final = 500


@record
class Peer:
    """One connection: where to send, and who the kernel says is there."""

    route: bytes
    uid: int
    pid: int


Receive = Callable[[Peer, bytes, Message], None]


class Control:
    """Owns both sockets. ``receive`` gets (peer, correlation, message) of everything that is well formed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Receive) -> None:
        self._loop = loop
        self._receive = receive
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 16384)
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.LINGER, END_LINGER_MS)
        self._router.setsockopt(zmq.BACKLOG, 4096)
        self._publisher = self._context.socket(zmq.XPUB)
        self._publisher.setsockopt(zmq.MAXMSGSIZE, MAX_SUBSCRIPTION_BYTES)
        self._publisher.setsockopt(zmq.XPUB_VERBOSE, 1)  # also of a word that somebody else has used
        self._publisher.setsockopt(zmq.LINGER, END_LINGER_MS)
        self._publisher.setsockopt(zmq.SNDHWM, 100_000)
        self._fd = _number(self._router.getsockopt(zmq.FD))
        self._publisher_fd = _number(self._publisher.getsockopt(zmq.FD))
        self._again = False
        self._confirming = False
        self._closed = False
        self._paths: dict[str, int] = {}  # with the inode of the socket that is ours
        self.rejected: Counter[str] = Counter()
        """How many messages were turned away, by reason."""

    def open(self, control: str, events: str, stub_control: str | None) -> None:
        """Bind; ``stub_control`` is a second door for stubs that run as another user."""
        self._bind(self._router, control, 0o600)
        self._bind(self._publisher, events, 0o600)
        if stub_control is not None:
            self._bind(self._router, stub_control, 0o666)
        self._loop.add_reader(self._fd, self.drain)
        self._loop.add_reader(self._publisher_fd, self._confirm)
        self.drain()
        self._confirm()

    def _bind(self, own: zmq.Socket[bytes], path: str, mode: int) -> None:
        own.bind(f"ipc://{path}")
        os.chmod(path, mode)
        self._paths[path] = os.stat(path).st_ino

    def close(self) -> None:
        """Close after what was sent has gone out, or half a second; the sockets' files go, too."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._fd)
        self._loop.remove_reader(self._publisher_fd)
        self._router.close()
        self._publisher.close()
        self._context.term()
        for path, inode in self._paths.items():
            try:
                if os.stat(path).st_ino == inode:  # not of a svcd that has been started here since
                    os.unlink(path)
            except FileNotFoundError:
                pass

    def send(self, route: bytes, correlation: bytes, message: Message) -> bool:
        """Send to one peer; False when it is gone or does not read."""
        return self.send_encoded(route, correlation, codec.encode(message))

    def send_encoded(self, route: bytes, correlation: bytes, body: bytes) -> bool:
        if self._closed:
            return False
        try:
            self._router.send_multipart((route, correlation, body), NOBLOCK)
        except zmq.ZMQError:
            self.rejected["unreachable"] += 1
            return False
        finally:
            self._look_again()  # sending may have used up the descriptor's edge
        return True

    def publish(self, message: Message) -> None:
        if not self._closed:
            self._publisher.send_multipart((type(message).__name__.encode(), codec.encode(message)), NOBLOCK)
            self._confirm_again()  # sending may have used up the descriptor's edge, as above

    # ---- subscriptions -------------------------------------------------------------------------------------------

    def _confirm(self) -> None:
        """Take up to ``TURN`` subscriptions, which are in force when they are read, and answer those that ask."""
        self._confirming = False
        for _ in range(TURN):
            if self._closed:
                return
            try:
                said = self._publisher.recv_multipart(NOBLOCK)[0]
            except zmq.Again:
                return
            word = said.removeprefix(ASKING)
            if word != said and word.isascii():
                answer = codec.encode(SubscriptionConfirmed(word.decode()))
                self._publisher.send_multipart((said.removeprefix(SUBSCRIBE), answer), NOBLOCK)
        self._confirm_again()

    def _confirm_again(self) -> None:
        if not self._confirming and _number(self._publisher.getsockopt(EVENTS)) & POLLIN:
            self._confirming = True
            self._loop.call_soon(self._confirm)

    # ---- receiving ----------------------------------------------------------------------------------------------

    def _look_again(self) -> None:
        if not self._again and _number(self._router.getsockopt(EVENTS)) & POLLIN:
            self._again = True
            self._loop.call_soon(self.drain)

    def drain(self) -> None:
        """Take up to ``TURN`` messages; the descriptor is edge-triggered, so a rest is fetched without
        waiting for it.
        """
        self._again = False
        if self._take_some():
            self._look_again()

    def hear_out(self) -> None:
        """Take what has come by now, all of it, unless somebody floods us."""
        for _ in range(OUT_TURNS):
            if not self._take_some():
                return
        self._look_again()

    def _take_some(self) -> bool:
        """Up to ``TURN`` messages; whether there may be more."""
        for _ in range(TURN):
            if self._closed:
                return False
            try:
                frames = self._router.recv_multipart(NOBLOCK, copy=False)
            except zmq.Again:
                return False
            self._take(frames)
        return True

    def _take(self, frames: list[Any]) -> None:
        route = frames[0].bytes
        peer = _peer_of(route, frames[-1])
        if peer is None or len(frames) != 3 or len(frames[1]) > MAX_CORRELATION_BYTES:
            self.rejected["malformed"] += 1
            return
        correlation = frames[1].bytes
        try:
            message = codec.decode(frames[2].buffer)
        except ProtocolError as error:
            self.rejected[type(error).__name__] += 1
            if correlation:  # somebody waits
                self.send(route, correlation, RequestRefused(error.code.value, str(error)))
            return
        self._receive(peer, correlation, message)


def _peer_of(route: bytes, frame: Any) -> Peer | None:
    try:
        _, uid, _, pid = frame.get("Peer-Address").rsplit(":", 3)
        return Peer(route, int(uid), int(pid))
    except (zmq.ZMQError, ValueError, AttributeError):
        return None


def _number(option: int | bytes) -> int:
    """The value of a socket option that is a number."""
    assert isinstance(option, int)
    return option
