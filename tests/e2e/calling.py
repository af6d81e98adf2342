"""Callers of sockets that svcd holds: who connects, and what he is told.

Must not wait for anything but an answer.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from clusters import PATIENCE_S
from stage import Stage

from svcd.protocol import messages

LISTENER = f"[{sys.executable}, -ISB, {Path(__file__).with_name('listener.py')}]"
HOST = "127.0.0.1"
Place = int | Path


class Answer(NamedTuple):
    pid: int
    name: str


def listener(*words: str) -> str:
    """The value of ``command:``."""
    return f"{LISTENER[:-1]}{''.join(f', {word}' for word in words)}]"


def connect(place: Place) -> socket.socket:
    """A connection to a port of this host, or to a Unix socket; it may not be served yet."""
    caller = socket.socket(socket.AF_INET if isinstance(place, int) else socket.AF_UNIX)
    caller.settimeout(PATIENCE_S)
    try:
        caller.connect((HOST, place) if isinstance(place, int) else str(place))
    except BaseException:
        caller.close()
        raise
    return caller


def told(caller: socket.socket) -> Answer:
    """Who has answered; the connection is over."""
    with caller:
        pid, name = caller.recv(100).decode().split()
        return Answer(int(pid), name)


def ask(place: Place) -> Answer:
    return told(connect(place))


@contextmanager
def staying(place: Place) -> Iterator[Answer]:
    """Connected, and served, all the while."""
    with connect(place) as caller:
        pid, name = caller.recv(100).decode().split()
        caller.sendall(b"stay")
        yield Answer(int(pid), name)


@contextmanager
def occupied(port: int) -> Iterator[None]:
    """Somebody else has this port."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((HOST, port))
        other.listen(1)
        yield


def move(stage: Stage, old: int, new: int) -> None:
    """Have the sockets at one port be at another: a change that nobody has checked, as when a port is taken between
    the check and the change.
    """
    found = stage.ask(messages.GetConfiguration())
    assert isinstance(found, messages.ConfigurationReported), found
    plan = found.plan.replace(f'"port":{old}', f'"port":{new}').replace(f'"port": {old}', f'"port": {new}')
    assert plan != found.plan
    stage.order(messages.ApplyConfiguration(plan))


def is_refused(port: int) -> bool:
    try:
        connect(port).close()
    except ConnectionRefusedError:
        return True
    return False
