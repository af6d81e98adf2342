"""Our end of ZMTP against libzmq's, and against peers that do not keep to it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from svcd.protocol import zmtp
from svcd.protocol.zmtp import BadPeer, Incoming

DEADLINE_S = 30.0
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER"
LIMIT = 1000


def ready() -> Incoming:
    incoming = Incoming(LIMIT)
    assert incoming.feed(GREETING + READY) == []
    assert incoming.is_ready
    return incoming


# ---- libzmq ----------------------------------------------------------------------------------------------------------


class Ends:
    def __init__(self, directory: Path) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.linger = 0
        self.router.rcvtimeo = int(DEADLINE_S * 1000)
        self.path = str(directory / "s")
        self.incoming = Incoming(100_000_000)

    def connect(self) -> None:
        self.router.bind(f"ipc://{self.path}")
        self.plain = socket.socket(socket.AF_UNIX)
        self.plain.settimeout(DEADLINE_S)
        self.plain.connect(self.path)
        self.plain.sendall(zmtp.hello(b"DEALER"))
        while not self.incoming.is_ready:
            assert self.read() == []

    def read(self) -> list[list[bytes]]:
        data = self.plain.recv(65536)
        assert data, "it has hung up"
        return self.incoming.feed(data)

    def close(self) -> None:
        self.plain.close()
        self.router.close()
        self.context.term()


@pytest.fixture
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ends]:
    made = Ends(tmp_path_factory.mktemp("z"))
    yield made
    made.close()


MESSAGES = [
    [b"", b"body"],
    [b""],
    [b"x" * 255, b"y" * 256],
    [b"", b"z" * 1_000_000],
    [bytes(range(256))] * 15,
]


def test_messages_reach_libzmq_and_come_back(ends: Ends) -> None:
    ends.connect()
    for message in MESSAGES:
        ends.plain.sendall(zmtp.pack(message))
    for message in MESSAGES:
        route, *frames = ends.router.recv_multipart()
        assert frames == message
        ends.router.send_multipart([route, *frames])
    came: list[list[bytes]] = []
    while len(came) < len(MESSAGES):
        came += ends.read()
    assert came == MESSAGES


def test_a_ping_is_answered(ends: Ends) -> None:
    """libzmq hangs up on who does not answer in time, and sends pings to nobody of version 3.0: so one by hand."""
    incoming = ready()
    assert incoming.feed(b"\x04\x0a\x04PING\x00\x05abc") == []
    assert incoming.answers == b"\x04\x08\x04PONGabc"
    ends.router.heartbeat_ivl = 10
    ends.router.heartbeat_timeout = 1000
    ends.connect()
    ends.plain.sendall(zmtp.pack([b"alive"]))
    assert ends.router.recv_multipart()[1:] == [b"alive"]


def test_libzmq_sees_us_go(ends: Ends) -> None:
    monitor = ends.router.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    ends.connect()
    ends.plain.sendall(zmtp.pack([b"last words"]))
    ends.plain.close()
    assert ends.router.recv_multipart()[1:] == [b"last words"]
    assert monitor.poll(DEADLINE_S * 1000)
    ends.router.disable_monitor()
    monitor.close()


# ---- whatever the pieces -------------------------------------------------------------------------------------------


@given(
    messages=st.lists(st.lists(st.binary(max_size=400), min_size=1, max_size=2), max_size=5),
    cuts=st.lists(st.integers(0, 3000)),
)
def test_pieces_do_not_matter(messages: list[list[bytes]], cuts: list[int]) -> None:
    whole = GREETING + READY + b"".join(map(zmtp.pack, messages))
    incoming, came, start = Incoming(LIMIT), [], 0
    for end in [*sorted(each for each in cuts if each < len(whole)), len(whole)]:
        came += incoming.feed(whole[start:end])
        start = end
    assert incoming.is_ready
    assert came == messages


@given(st.binary(max_size=300), st.booleans())
def test_garbage_is_refused_or_waited_with_and_nothing_else(data: bytes, greeted: bool) -> None:
    incoming = ready() if greeted else Incoming(LIMIT)
    try:
        incoming.feed(data)
    except BadPeer:
        pass
    assert len(incoming._bytes) <= LIMIT + 300


# ---- peers that do not keep to it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\n", "no ZMTP"),
        (b"\xff" + bytes(9), "no ZMTP"),
        (GREETING.replace(b"\x7f\x03", b"\x7f\x02"), "another version"),
        (GREETING.replace(b"NULL", b"CURV"), "another version or mechanism"),
        (GREETING + b"\x00\x01x", "a message before its handshake"),
        (GREETING + b"\x04\x0a\x05ERROR\x03no!", "it refuses us: no!"),
        (GREETING + b"\x04\x03\x05ERR", None),
        (GREETING + b"\x04\x00", None),
        (GREETING + READY + b"\x08\x00", "unknown flags"),
        (GREETING + READY + b"\x02" + (LIMIT + 1).to_bytes(8), "more than 1000 bytes"),
        (GREETING + READY + b"\x02" + b"\xff" * 8, "more than 1000 bytes"),
        (GREETING + READY + b"\x01\xff" + b"x" * 255 + b"\x03" + (LIMIT - 254).to_bytes(8), "more than 1000 bytes"),
        (GREETING + READY + b"\x01\x00" * 17, "more than 16 frames"),
        (GREETING + READY + b"\x04\xff" + b"\x09SUBSCRIBE".ljust(255, b"x"), None),
    ],
)
def test_it_is_found_out_before_anything_is_kept(data: bytes, words: str | None) -> None:
    incoming = Incoming(LIMIT)
    if words is None:
        assert incoming.feed(data) == []
    else:
        with pytest.raises(BadPeer, match=words):
            incoming.feed(data)


def test_the_bound_is_for_each_message() -> None:
    incoming = ready()
    for _ in range(5):
        assert incoming.feed(zmtp.pack([b"", b"x" * LIMIT])) == [[b"", b"x" * LIMIT]]
