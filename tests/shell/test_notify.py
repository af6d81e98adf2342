"""sd_notify: what is said on a run's own socket, by whom, and what is not listened to."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from commanded import eventually, on_loop, settled

from svcd.supervisor.controller.processes.notify import TURN, Assignments, NotifySocket, parse, whole_number

SAY = """
import os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
    told.sendto(sys.argv[2].encode(), "\\0" + sys.argv[1])
print("said", flush=True)
sys.stdin.read()
"""


class Hears:
    """A socket, and what came through it. ``own``: the processes of the run."""

    def __init__(self, uids: frozenset[int] | None = None) -> None:
        self.heard: list[Assignments] = []
        self.own = {os.getpid()}
        trusted = frozenset({os.geteuid()}) if uids is None else uids
        loop = asyncio.get_running_loop()
        self.socket = NotifySocket(loop, trusted, lambda pid: pid in self.own, self.heard.append)
        self.name = self.socket.address.removeprefix("@")

    def say(self, text: bytes, *fds: int) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.connect(f"\0{self.name}")
            if fds:
                socket.send_fds(told, [text], fds)
            else:
                told.send(text)

    @contextmanager
    def says(self, text: str) -> Iterator[subprocess.Popen[str]]:
        """Another process says it, and lives on."""
        with subprocess.Popen(
            [sys.executable, "-c", SAY, self.name, text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "said\n"
            yield process


def test_words_are_heard_in_their_order() -> None:
    async def body() -> None:
        hears = Hears()
        hears.socket.listen()
        hears.say(b"STATUS=warming up\nREADY=1\n")
        hears.say(b"WATCHDOG=1")
        await eventually(lambda: len(hears.heard) == 2, "both")
        assert hears.heard == [{"STATUS": "warming up", "READY": "1"}, {"WATCHDOG": "1"}]
        hears.socket.close()
        hears.socket.close()

    on_loop(body)


def test_what_is_said_before_anybody_listens_waits() -> None:
    """A program may be ready before we know its pid; who it is can be told only then."""

    async def body() -> None:
        hears = Hears()
        hears.own.clear()
        hears.say(b"READY=1")
        await settled()
        assert hears.heard == []
        hears.own.add(os.getpid())
        hears.socket.listen()
        await eventually(lambda: hears.heard, "it")
        hears.socket.close()
        hears.socket.listen()  # its run may be over already

    on_loop(body)


def test_all_that_was_said_can_be_asked_for() -> None:
    async def body() -> None:
        hears = Hears()
        hears.say(b"MAINPID=7")
        hears.say(b"READY=1")
        hears.socket.hear_out()
        assert hears.heard == [{"MAINPID": "7"}, {"READY": "1"}]
        hears.socket.close()
        hears.socket.hear_out()

    on_loop(body)


def test_strangers_are_not_heard() -> None:
    async def body() -> None:
        hears, deaf = Hears(), Hears(uids=frozenset({os.geteuid() + 1}))
        for each in (hears, deaf):
            each.socket.listen()
        with hears.says("READY=1"), deaf.says("READY=1"):
            deaf.say(b"READY=1")
            hears.say(b"LAST=1")
            await eventually(lambda: hears.heard, "the last word")
        assert hears.heard == [{"LAST": "1"}]
        assert deaf.heard == []
        for each in (hears, deaf):
            each.socket.close()

    on_loop(body)


@pytest.mark.parametrize("reaped", [False, True])
def test_who_spoke_and_ended_is_heard(reaped: bool) -> None:
    """systemd-notify in a script: gone, or a zombie, before we look at whose word it was."""

    async def body() -> None:
        hears = Hears()
        with hears.says("READY=1") as process:
            assert process.stdin is not None
            process.stdin.close()
            os.waitid(os.P_PID, process.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))
            hears.socket.listen()
            await eventually(lambda: hears.heard, "it")
        hears.socket.close()

    on_loop(body)


def at_its_end(pipe: int) -> bool:
    """Nobody has its other end any more."""
    os.set_blocking(pipe, False)
    try:
        return os.read(pipe, 1) == b""
    except BlockingIOError:
        return False


def test_a_barrier_is_answered_and_descriptors_are_not_kept() -> None:
    async def body() -> None:
        hears = Hears()
        hears.socket.listen()
        ours, theirs = os.pipe()
        hears.say(b"BARRIER=1", theirs)
        hears.say(b"FDSTORE=1\nFDNAME=x", *[theirs] * 20)
        os.close(theirs)
        before = len(os.listdir("/proc/self/fd"))
        await eventually(lambda: at_its_end(ours), "every copy to be closed")
        assert len(os.listdir("/proc/self/fd")) == before
        os.close(ours)
        hears.socket.close()

    on_loop(body)


def test_a_strangers_descriptors_are_not_kept_either() -> None:
    async def body() -> None:
        hears = Hears()
        hears.own.clear()
        hears.socket.listen()
        ours, theirs = os.pipe()
        hears.say(b"READY=1", theirs)
        os.close(theirs)
        await eventually(lambda: at_its_end(ours), "it to be closed")
        os.close(ours)
        assert hears.heard == []
        hears.socket.close()

    on_loop(body)


def test_a_datagram_that_is_too_long_is_dropped_whole() -> None:
    async def body() -> None:
        hears = Hears()
        hears.socket.listen()
        hears.say(b"READY=1\n" + b"x" * 5000)
        hears.say(b"LAST=1")
        await eventually(lambda: hears.heard, "the last word")
        assert hears.heard == [{"LAST": "1"}]
        hears.socket.close()

    on_loop(body)


def test_a_flood_leaves_others_their_turn() -> None:
    async def body() -> None:
        hears = Hears()
        loop = asyncio.get_running_loop()
        told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        told.connect(f"\0{hears.name}")
        other = asyncio.Event()
        deaf = len(hears.heard)

        def on_each(said: Assignments) -> None:
            hears.heard.append(said)
            told.send(b"WATCHDOG=1")  # there is always one more
            if len(hears.heard) == 1:
                loop.call_soon(other.set)

        hears.socket._receive = on_each
        hears.socket.listen()
        told.send(b"WATCHDOG=1")
        await other.wait()
        assert deaf < len(hears.heard) <= 2 * TURN
        told.close()
        hears.socket._receive = hears.heard.append
        hears.socket.close()

    on_loop(body)


@pytest.mark.parametrize(
    ("data", "assignments"),
    [
        (b"", {}),
        (b"READY=1", {"READY": "1"}),
        (b"READY=1\0", {"READY": "1"}),
        (b"A=1\r\nB=2\n\n", {"A": "1", "B": "2"}),
        (b"STATUS=a=b=c", {"STATUS": "a=b=c"}),
        (b"STATUS=", {"STATUS": ""}),
        (b"=1\nREADY\n=", {}),
        (b"READY=1\nREADY=0", {"READY": "0"}),
        (b"STATUS=\xff\xfe", {"STATUS": "\ufffd\ufffd"}),
    ],
    ids=str,
)
def test_assignments(data: bytes, assignments: Assignments) -> None:
    assert parse(data) == assignments


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("30000000", 30_000_000),
        ("18446744073709551615", 2**64 - 1),
        ("", None),
        (None, None),
        ("-1", None),
        (" 1", None),
        ("1e3", None),
        ("\u00b2", None),  # a digit to str.isdigit, no number to int
        ("\u0661", None),
        ("9" * 21, None),
        ("9" * 5000, None),
    ],
    ids=str,
)
def test_numbers(text: str | None, number: int | None) -> None:
    assert whole_number(text) == number
