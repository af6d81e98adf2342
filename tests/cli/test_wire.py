"""The command line's connections against libzmq's: what is asked is answered, whoever comes first, goes or comes back.

Must not know svcd's messages.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from svcd.cli.wire import Wire, wait
from svcd.protocol import zmtp

PATIENCE_S = 60.0


Bound = Callable[[int], zmq.Socket[bytes]]


@pytest.fixture
def bound(path: str) -> Iterator[Bound]:
    """Makes a socket of libzmq's that listens on the path; with pings between, and in the middle of, everything."""
    context = zmq.Context()
    made: list[zmq.Socket[bytes]] = []

    def make(kind: int) -> zmq.Socket[bytes]:
        made.append(context.socket(kind))
        made[-1].linger = 0
        made[-1].setsockopt(zmq.HEARTBEAT_IVL, 5)
        made[-1].setsockopt(zmq.HEARTBEAT_TIMEOUT, 60_000)
        made[-1].bind(f"ipc://{path}")
        return made[-1]

    yield make
    for each in made:
        each.close()
    context.term()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return os.path.relpath(tmp_path / "s")


def echo(router: zmq.Socket[bytes], count: int) -> None:
    for _ in range(count):
        router.send_multipart(router.recv_multipart())


def test_what_is_asked_is_answered(bound: Bound, path: str) -> None:
    """On many connections: the peer may read the greeting and what follows at once, or not."""
    router = bound(zmq.ROUTER)
    server = threading.Thread(target=echo, args=(router, 200))
    server.start()
    for number in range(200):
        wire = Wire(path, b"DEALER")
        wire.say((b"%d" % number, b"body"))
        assert wait((wire,), {}, PATIENCE_S)
        assert wire.messages.popleft() == [b"%d" % number, b"body"]
        wire.close()
    server.join(PATIENCE_S)


def test_large_messages_in_both_directions(bound: Bound, path: str) -> None:
    router = bound(zmq.ROUTER)
    server = threading.Thread(target=echo, args=(router, 8))
    server.start()
    wire = Wire(path, b"DEALER")
    bodies = [os.urandom(1_500_000) for _ in range(8)]
    for body in bodies:
        wire.say((b"c", body))
    for body in bodies:
        assert wait((wire,), {}, PATIENCE_S)
        assert wire.messages.popleft() == [b"c", body]
    server.join(PATIENCE_S)
    wire.close()


def test_who_comes_first_waits(bound: Bound, path: str) -> None:
    wire = Wire(path, b"DEALER")
    wire.say((b"c", b"early"))
    assert not wait((wire,), {}, 0.03)
    router = bound(zmq.ROUTER)
    server = threading.Thread(target=echo, args=(router, 1))
    server.start()
    assert wait((wire,), {}, PATIENCE_S)
    assert wire.messages.popleft() == [b"c", b"early"]
    server.join(PATIENCE_S)
    wire.close()


def test_a_subscription_is_made_again_with_each_connection(bound: Bound, path: str) -> None:
    wire = Wire(path, b"SUB", [(b"\x01wanted",)])
    for _ in range(2):
        publisher = bound(zmq.XPUB)
        assert _serve_until(wire, lambda heard=publisher: bool(heard.poll(0)))
        assert publisher.recv() == b"\x01wanted"
        publisher.send_multipart([b"other", b"1"])
        publisher.send_multipart([b"wanted", b"2"])
        assert wait((wire,), {}, PATIENCE_S)
        assert wire.messages.popleft() == [b"wanted", b"2"]
        publisher.close()
        assert _serve_until(wire, lambda: wire.interest() is None)
    wire.close()


def _serve_until(wire: Wire, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        wait((wire,), {}, 0.01)
        if time.monotonic() > deadline:
            return False
    return True


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", zmtp.hello(b"ROUTER") + b"\xff" * 64])
def test_a_peer_that_makes_no_sense_is_left(path: str, words: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        wire = Wire(path, b"DEALER")
        peer, _ = listener.accept()
        peer.sendall(words)
        assert _serve_until(wire, lambda: not peer.recv(4096))
        peer.close()
        wire.close()


def test_other_descriptors_end_the_wait(path: str) -> None:
    reading, writing = os.pipe()
    wire = Wire(path, b"DEALER")
    assert not wait((wire,), {reading: select.POLLIN}, 0.0)
    os.write(writing, b"x")
    assert wait((wire,), {reading: select.POLLIN}, None)
    os.close(reading)
    assert wait((wire,), {writing: select.POLLERR}, None)
    os.close(writing)
    wire.close()


def test_a_peer_that_goes_away_is_no_broken_pipe(path: str) -> None:
    """The command line has SIGPIPE do what it does by default."""
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            wire = Wire(path, b"DEALER")
            listener.accept()[0].close()
        wire.say((b"c", b"nobody reads this"))
        assert _serve_until(wire, lambda: wire.interest() is None)
        wire.close()
    finally:
        signal.signal(signal.SIGPIPE, before)
