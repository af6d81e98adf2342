"""Messages between parts, and the links that carry them."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svcd.supervisor import wiring
from svcd.supervisor.wiring import (
    INLINE_LIMIT_BYTES,
    Link,
    ProcessBorn,
    SignalReceived,
    SpawnRequested,
    StreamEnded,
    WiringError,
    decode,
    encode,
)

SAMPLES: dict[str, Any] = {
    "str": "näme",
    "int": 7,
    "float": 0.25,
    "bool": True,
    "int | None": None,
    "str | None": "x",
    "dict[str, str]": {"PATH": "/bin", "RAW": "\udcff"},
    "dict[str, Any]": {"path": "/a", "keep": 3},
    "dict[str, Any] | None": {"deep": [1, {"a": None}]},
    "tuple[int, ...]": (1, 2),
    "tuple[str, ...]": ("LISTEN_PID",),
    "tuple[str, ...] | None": ("a", "b c"),
    "tuple[dict[str, Any], ...]": ({"stream": "stdout"},),
}


def sample(kind: type) -> Any:
    return kind(**{each.name: SAMPLES[str(each.type)] for each in dataclasses.fields(kind)})


@pytest.fixture
def pair() -> Iterator[tuple[Link, Link]]:
    ours, theirs = (Link(each) for each in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for fd in (read, write):
        try:
            os.close(fd)
        except OSError:
            pass


# ---- encoding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", wiring.MESSAGE_TYPES.values(), ids=lambda kind: kind.__name__)
def test_every_message_comes_back_as_it_was(kind: type) -> None:
    assert decode(encode(sample(kind))) == sample(kind)


def test_every_message_of_the_module_is_known() -> None:
    defined = {name for name, each in vars(wiring).items() if isinstance(each, type) and dataclasses.is_dataclass(each)}
    assert defined == set(wiring.MESSAGE_TYPES)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'{"type": "Stranger"}',
        b'{"type": ["a"]}',
        b'{"type": "StreamEnded"}',
        b'{"type": "StreamEnded", "stream_id": 1, "more": 2}',
        b"[" * 100_000,
        b"memfd",
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(WiringError):
        decode(data)


@pytest.mark.parametrize("message", ["text", {"type": "StreamEnded"}, StreamEnded(object())])  # type: ignore[arg-type]
def test_what_is_no_message_is_not_sent(message: Any) -> None:
    with pytest.raises(WiringError):
        encode(message)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        decode(data)
    except WiringError:
        pass


# ---- links -----------------------------------------------------------------------------------------------------------


def test_more_than_the_socket_takes_waits_and_keeps_its_order(pair: tuple[Link, Link]) -> None:
    ours, theirs = pair
    for number in range(1000):
        ours.send(SignalReceived(number))
    assert ours.wants_write
    received: list[int] = []
    while len(received) < 1000:
        received += [message.signal for message, _ in theirs.receive()]
        ours.flush()
    assert received == list(range(1000))
    assert not ours.wants_write
    assert ours.flush()


def test_descriptors_may_be_closed_by_the_sender_at_once(pair: tuple[Link, Link], pipe: tuple[int, int]) -> None:
    ours, theirs = pair
    for number in range(50):
        read, write = os.pipe()
        os.write(write, b"%d" % number)
        ours.send(SignalReceived(number), (read,))
        os.close(read)
        os.close(write)
    received: list[int] = []
    while len(received) < 50:
        for message, fds in theirs.receive():
            assert fcntl.fcntl(fds[0], fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            assert os.read(fds[0], 10) == b"%d" % message.signal
            os.close(fds[0])
            received.append(message.signal)
        ours.flush()
    assert received == list(range(50))


@pytest.mark.parametrize("size", [INLINE_LIMIT_BYTES - 200, INLINE_LIMIT_BYTES, 3 * 1024 * 1024])
def test_a_message_of_any_size_arrives_whole(pair: tuple[Link, Link], pipe: tuple[int, int], size: int) -> None:
    ours, theirs = pair
    order = SpawnRequested("s", 1, "t", ("x",), {"BIG": "y" * size}, "/")
    ours.send(order, pipe)
    ((message, fds),) = theirs.receive()
    assert message == order
    os.write(fds[1], b"!")
    assert os.read(pipe[0], 2) == b"!"
    for fd in fds:
        os.close(fd)


def test_large_messages_wait_too(pair: tuple[Link, Link]) -> None:
    ours, theirs = pair
    orders = [SpawnRequested("s", number, "t", ("x",), {"BIG": "y" * 50_000}, "/") for number in range(40)]
    for order in orders:
        ours.send(order)
    received: list[Any] = []
    while len(received) < 40:
        received += [message for message, _ in theirs.receive()]
        ours.flush()
    assert received == orders


def test_a_long_message_cannot_change_under_its_reader() -> None:
    memfd = wiring._sealed(b"x" * 10)
    try:
        with pytest.raises(PermissionError):
            os.ftruncate(memfd, 0)
        with pytest.raises(PermissionError):
            os.pwrite(memfd, b"y", 0)
    finally:
        os.close(memfd)


@pytest.mark.parametrize("data", [b"garbage", b'{"type": "Stranger"}', b"memfd"])
def test_garbage_closes_the_link_but_not_what_came_before(
    pair: tuple[Link, Link], pipe: tuple[int, int], data: bytes
) -> None:
    ours, theirs = pair
    ours.send(SignalReceived(1))
    raw = socket.socket(fileno=os.dup(ours.fileno()))
    socket.send_fds(raw, [data], [pipe[0]] if data != b"memfd" else [])
    raw.close()
    assert [message for message, _ in theirs.receive()] == [SignalReceived(1)]
    assert theirs.closed


def test_a_link_that_nobody_hears_forgets_what_waits(pair: tuple[Link, Link], pipe: tuple[int, int]) -> None:
    ours, theirs = pair
    for number in range(100):
        ours.send(ProcessBorn("s", number, 1), (pipe[0],))
    theirs.close()
    ours.flush()
    assert not ours.wants_write
    ours.send(SignalReceived(15))
    assert not ours.wants_write
    assert ours.receive() == []
    assert ours.closed


def test_a_closed_link_takes_nothing(pair: tuple[Link, Link]) -> None:
    ours, theirs = pair
    ours.close()
    ours.send(SignalReceived(15))
    assert ours.flush()
    assert ours.receive() == []
    assert theirs.receive() == []
    assert theirs.closed


def test_it_is_writable_again_when_the_other_end_has_read(pair: tuple[Link, Link]) -> None:
    ours, theirs = pair
    while not ours.wants_write:
        ours.send(SignalReceived(15))
    assert select.select([], [ours], [], 0)[1] == []
    theirs.receive()
    assert select.select([], [ours], [], 30)[1] == [ours]
    assert ours.flush()
