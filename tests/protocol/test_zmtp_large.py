"""Messages of any size over ZMTP: whatever the pieces, nothing is kept on a peer's word, and libzmq agrees."""

from __future__ import annotations

import mmap
import resource
import socket
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from svcd.protocol import zmtp
from svcd.protocol.zmtp import BadPeer
from svcd.protocol.zmtp_large import LARGE_BYTES, MAPPED_BYTES, REUSED_BYTES, Oversized, Receiver

DEADLINE_S = 30.0
HELLO = zmtp.hello(b"DEALER")
LIMIT = 4 * 1024 * 1024
GIBIBYTE = 1024**3


def receiver(limit: int = LIMIT) -> Receiver:
    made = Receiver(limit, 4, LARGE_BYTES)
    assert made.feed(HELLO) == []
    assert made.is_ready
    return made


def take(to: Receiver, data: bytes, step: int) -> list[list[Any]]:
    """As whoever reads a socket does it: into the room where there is one."""
    came, start = [], 0
    while start < len(data):
        if to.room is not None:
            count = min(len(to.room), len(data) - start, step)
            to.room[:count] = data[start : start + count]
            came += to.filled(count)
        else:
            count = min(step, len(data) - start)
            came += to.feed(data[start : start + count])
        start += count
    return came


SIZES = st.sampled_from([0, 1, 255, 256, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES * 3, MAPPED_BYTES])


@given(st.lists(st.lists(SIZES, max_size=3), max_size=3), st.integers(1000, 200_000))
def test_pieces_do_not_matter(sizes: list[list[int]], step: int) -> None:
    messages = [[b"head", *(bytes([index % 256]) * size for size in each)] for index, each in enumerate(sizes)]
    whole = HELLO + b"".join(bytes(piece) for each in messages for piece in zmtp.pack_pieces(each, LARGE_BYTES))
    came = take(Receiver(2 * LIMIT, 4, LARGE_BYTES), whole, step)
    assert [[bytes(frame) for frame in each] for each in came] == messages


def test_both_ways_of_packing_say_the_same() -> None:
    for message in ([b""], [b"a", b"b" * 300], [b"x" * LARGE_BYTES, b"y"], [b"a", b"b" * LARGE_BYTES]):
        assert b"".join(map(bytes, zmtp.pack_pieces(message, LARGE_BYTES))) == zmtp.pack(message)


@pytest.mark.parametrize("sizes", [[0], [255], [1, 255], [255, 0], [0, 1, 255], [255] * 4])
def test_a_message_of_short_frames_is_one_piece(sizes: list[int]) -> None:
    frames = [bytes(size) for size in sizes]
    assert zmtp.pack_short(frames) == zmtp.pack(frames)
    for index in range(len(frames)):
        assert zmtp.pack_short([*frames[:index], bytes(256), *frames[index + 1 :]]) is None


SMALL = st.lists(st.binary(max_size=255), min_size=1, max_size=4)


@given(st.lists(SMALL, max_size=8), st.integers(1, 300))
def test_small_messages_come_in_pieces_of_any_size(messages: list[list[bytes]], step: int) -> None:
    assert take(receiver(), b"".join(map(zmtp.pack, messages)), step) == messages


def test_small_messages_are_bounded_as_others_are() -> None:
    message = zmtp.pack([b"a", b"b" * 200, b"c"])
    of_two = Receiver(LIMIT, 2, LARGE_BYTES)
    with pytest.raises(BadPeer, match="a message of more than 2 frames"):
        take(of_two, HELLO + message, len(message))
    (oversized,) = take(receiver(100), message, len(message))
    assert isinstance(oversized, Oversized)


def test_who_has_sent_as_much_before_gets_memory_at_once() -> None:
    to, message = receiver(64 * LIMIT), zmtp.pack([b"head", b"x" * MAPPED_BYTES])
    places = [take(to, message, LARGE_BYTES)[0][1].obj for _ in range(2)]
    assert list(map(type, places)) == [mmap.mmap, bytearray]
    to = receiver(64 * LIMIT)
    places = [take(to, zmtp.pack([b"head", bytes(REUSED_BYTES + 1)]), MAPPED_BYTES)[0][1].obj for _ in range(2)]
    assert list(map(type, places)) == [mmap.mmap, mmap.mmap]


def test_large_frames_are_not_copied_on_the_way_out() -> None:
    large = bytearray(LARGE_BYTES)
    assert any(piece is large for piece in zmtp.pack_pieces([b"a", large, b"b"], LARGE_BYTES))


def long_frame(size: int, more: bool = False) -> bytes:
    return bytes([2 | more]) + size.to_bytes(8)


def test_what_is_too_large_is_told_before_any_of_it_has_come() -> None:
    """1 GiB is announced: refused by its announcement, while nothing of it is in memory, then or later."""
    incoming = receiver()
    (refused,) = incoming.feed(b"\x01\x04head" + long_frame(GIBIBYTE))
    assert isinstance(refused, Oversized)
    assert refused == [b"head"]
    assert refused.size_bytes == GIBIBYTE + 4
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    piece = bytes(65536)
    for _ in range(GIBIBYTE // len(piece)):
        assert incoming.feed(piece) == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB
    assert incoming.feed(zmtp.pack([b"next"])) == [[b"next"]]


def test_a_large_message_that_never_comes_costs_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    waiting = [receiver(GIBIBYTE) for _ in range(50)]
    for each in waiting:
        assert each.feed(b"\x01\x04head" + long_frame(200_000_000)) == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB; 10 GB were announced


def test_the_rest_of_a_message_that_is_too_large_is_skipped_with_it() -> None:
    incoming = receiver(1000)
    data = b"\x01\x04head" + long_frame(1001, more=True) + bytes(1001) + b"\x01\x01a" + b"\x00\x01b" + b"\x00\x01c"
    for step in (1, 7, 2000):
        assert take(incoming, data, step) == [[b"head"], [b"c"]]


def test_the_frames_count_together() -> None:
    incoming = receiver(1000)
    (refused,) = incoming.feed(b"\x01\x04head" + b"\x01\xff" + bytes(255) + b"\x02" + (742).to_bytes(8))
    assert isinstance(refused, Oversized)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x08\x00", "unknown flags"),
        (long_frame(LARGE_BYTES + 1), "a first frame of"),
        (b"\x01\x01a" * 4 + b"\x00\x01a", "more than 4 frames"),
        (b"\x06" + (2**40).to_bytes(8), "a command of"),
        (b"\x04\x0a\x05ERROR\x03no!", "it refuses us: no!"),
    ],
)
def test_it_is_found_out(data: bytes, words: str) -> None:
    with pytest.raises(BadPeer, match=words):
        receiver().feed(data)


def test_nothing_is_taken_before_the_handshake() -> None:
    with pytest.raises(BadPeer, match="before its handshake"):
        Receiver(LIMIT, 4, LARGE_BYTES).feed(HELLO[:64] + b"\x00\x01x")


@given(st.binary(max_size=400), st.booleans())
def test_garbage_is_refused_or_waited_with_and_nothing_else(data: bytes, greeted: bool) -> None:
    incoming = receiver() if greeted else Receiver(LIMIT, 4, LARGE_BYTES)
    try:
        take(incoming, data, 100)
    except BadPeer:
        pass


def test_libzmq_sends_us_what_it_is_sent(tmp_path: Path) -> None:
    context: zmq.Context[Any] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.linger = 0
    router.rcvtimeo = int(DEADLINE_S * 1000)
    plain = socket.socket(socket.AF_UNIX)
    try:
        router.bind(f"ipc://{tmp_path}/s")
        plain.settimeout(DEADLINE_S)
        plain.connect(f"{tmp_path}/s")
        plain.sendall(HELLO)
        incoming = Receiver(64 * LIMIT, 4, LARGE_BYTES)
        message = [b"head", b"small", b"x" * (MAPPED_BYTES * 3 + 1), b"y" * LARGE_BYTES]
        came: list[list[Any]] = []
        while not incoming.is_ready:
            came += incoming.feed(plain.recv(65536))
        for piece in zmtp.pack_pieces(message, LARGE_BYTES):
            plain.sendall(piece)
        route, *frames = router.recv_multipart()
        assert frames == message
        router.send_multipart([route, *frames])
        while not came:
            if incoming.room is not None:
                came += incoming.filled(plain.recv_into(incoming.room))
            else:
                came += incoming.feed(plain.recv(65536))
        assert [[bytes(frame) for frame in each] for each in came] == [message]
    finally:
        plain.close()
        router.close()
        context.term()
