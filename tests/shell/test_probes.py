"""Probes: a service is ready when its delay is over, its port answers, or it said so on its own socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from svcd.supervisor.config.launch import ReadyProbe
from svcd.supervisor.controller.probes import Probe
from svcd.supervisor.core.events import ReadinessReached
from svcd.supervisor.core.spec import ReadyKind

DEADLINE_S = 30.0


class Heard:
    """Collects what a probe submits; ``wait`` ends with the first."""

    def __init__(self) -> None:
        self.events: list[ReadinessReached] = []
        self._first = asyncio.Event()

    def __call__(self, event: ReadinessReached) -> None:
        self.events.append(event)
        self._first.set()

    async def wait(self) -> ReadinessReached:
        async with asyncio.timeout(DEADLINE_S):
            await self._first.wait()
        return self.events[0]


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(body())


def probe(heard: Heard, kind: ReadyKind, spec: ReadyProbe | None = None, uids: frozenset[int] | None = None) -> Probe:
    trusted = frozenset({os.geteuid()}) if uids is None else uids
    return Probe(asyncio.get_running_loop(), heard, "web", 3, spec or ReadyProbe(), kind, trusted)


def say(address: str, text: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(text, "\0" + address.removeprefix("@"))


async def settle() -> None:
    """Let the loop handle everything that has arrived."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_delay() -> None:
    async def body() -> None:
        heard = Heard()
        made = probe(heard, ReadyKind.DELAY, ReadyProbe(delay_s=0.01))
        made.begin()
        event = await heard.wait()
        assert (event.service, event.invocation) == ("web", 3)
        made.close()

    run(body)


def test_tcp_waits_until_something_listens() -> None:
    async def body() -> None:
        heard = Heard()
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            made = probe(heard, ReadyKind.TCP, ReadyProbe(tcp_host="127.0.0.1", tcp_port=holder.getsockname()[1]))
            made.begin()
            for _ in range(3):
                assert not await made._answers()
            assert heard.events == []
            holder.listen()
            await heard.wait()
            made.close()

    run(body)


def test_notify_counts_before_and_after_the_core_asks() -> None:
    for early in (True, False):

        async def body(early: bool = early) -> None:
            heard = Heard()
            made = probe(heard, ReadyKind.NOTIFY)
            address = made.environment["NOTIFY_SOCKET"]
            if early:
                say(address, b"STATUS=warming up\nREADY=1\n")
                await settle()
                assert heard.events == [], "the core has not asked yet"
                made.begin()
            else:
                made.begin()
                say(address, b"READY=1")
            await heard.wait()
            made.close()

        run(body)


def test_notify_ignores_other_words_and_other_users() -> None:
    async def body() -> None:
        heard, deaf = Heard(), Heard()
        made = probe(heard, ReadyKind.NOTIFY)
        stranger = probe(deaf, ReadyKind.NOTIFY, uids=frozenset({os.geteuid() + 1}))
        for each in (made, stranger):
            each.begin()
        for text in (b"", b"READY=0", b"NOTREADY=1", b"\xff" * 5000, b"READY=1x"):
            say(made.environment["NOTIFY_SOCKET"], text)
        say(stranger.environment["NOTIFY_SOCKET"], b"READY=1")
        await settle()
        assert (heard.events, deaf.events) == ([], [])
        say(made.environment["NOTIFY_SOCKET"], b"READY=1")
        await heard.wait()
        for each in (made, stranger):
            each.close()

    run(body)


def test_descriptors_sent_along_are_not_kept() -> None:
    async def body() -> None:
        heard = Heard()
        made = probe(heard, ReadyKind.NOTIFY)
        made.begin()
        before = len(os.listdir("/proc/self/fd"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect("\0" + made.environment["NOTIFY_SOCKET"].removeprefix("@"))
            socket.send_fds(sender, [b"READY=1"], [0, 0, 0])
        await heard.wait()
        assert len(os.listdir("/proc/self/fd")) == before
        made.close()

    run(body)
