"""A link's last words: what the other end said before it closed is heard, whatever it had not read itself."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from svcd.supervisor.wiring import ClusterEnded, Link, SignalReceived


@pytest.fixture
def ends() -> Iterator[tuple[Link, Link]]:
    links = [Link(each) for each in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)]
    yield links[0], links[1]
    for link in links:
        link.close()


@pytest.mark.parametrize("unread", [0, 1, 3])
@pytest.mark.parametrize("writes_first", [False, True])
def test_they_are_heard(ends: tuple[Link, Link], unread: int, writes_first: bool) -> None:
    ours, theirs = ends
    for _ in range(unread):
        ours.send(SignalReceived(15))
    for code in (0, 1, 2):
        theirs.send(ClusterEnded(code))
    theirs.close()
    if writes_first:
        ours.send(SignalReceived(2))
        ours.flush()
    assert [message for message, _ in ours.receive()] == [ClusterEnded(0), ClusterEnded(1), ClusterEnded(2)]
    assert ours.closed
