"""Idleness: who is used, by what the kernel's tables tell, and who is not."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from svcd.supervisor.config.launch import (
    HealthProbe,
    HttpTarget,
    LaunchSpec,
    Program,
    ServiceDefinition,
    SocketSpec,
)
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.processes.listening import Listener, Owner, listen
from svcd.supervisor.controller.processes.sockets import HeldSockets
from svcd.supervisor.controller.watching.idle import IdleWatch, Tables, Watched
from svcd.supervisor.core.events import IdleReached
from svcd.supervisor.core.spec import ServiceSpec

DEADLINE_S = 30.0
PLACES = ("127.0.0.1", "::1", "*", "unix")
SOON_S = 0.05
LONG_S = 3600.0


def spec(place: str, directory: Path, kind: str = "stream") -> SocketSpec:
    if place == "unix":
        return SocketSpec("web", kind, path=str(directory / "a b.sock"))
    return SocketSpec("web", kind, place, 0)


def service(
    *sockets: SocketSpec, idle_s: float | None = SOON_S, health: HealthProbe | None = None
) -> ServiceDefinition:
    launch = LaunchSpec(Program(("true",)), "/", sockets=sockets, idle_timeout_s=idle_s, health=health)
    return ServiceDefinition(ServiceSpec("a"), launch)


def connect(listener: Listener) -> socket.socket:
    caller = socket.socket(listener.socket.family)
    caller.settimeout(DEADLINE_S)
    where = listener.socket.getsockname()
    caller.connect(where if listener.spec.path else ("::1" if ":" in where[0] else "127.0.0.1", where[1]))
    assert select.select([listener.socket], [], [], DEADLINE_S)[0]  # and that is known at the other end
    return caller


def until(condition: Callable[[], Any]) -> None:
    """For what the kernel does by itself, a moment later where it has much to do."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture(params=PLACES)
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    with contextlib.closing(listen(spec(request.param, tmp_path), Owner())) as made:
        yield made


# ---- the tables ------------------------------------------------------------------------------------------------------


def test_a_socket_that_nobody_uses(listener: Listener) -> None:
    assert Tables().unused_for(listener, True) is None


def test_who_waits_to_be_taken_uses_it(listener: Listener) -> None:
    with connect(listener):
        assert Tables().unused_for(listener, False) == 0.0


def test_who_is_connected_uses_it_until_the_service_closes(listener: Listener) -> None:
    caller = connect(listener)
    taken, _ = listener.socket.accept()
    assert Tables().unused_for(listener, False) == 0.0
    caller.close()
    assert Tables().unused_for(listener, False) == 0.0, "the service may still be at it"
    taken.close()
    until(lambda: Tables().unused_for(listener, False) is None)


@pytest.mark.parametrize("first", ["caller", "service"])
def test_a_connection_that_has_ended_leaves_a_trace(listener: Listener, first: str) -> None:
    if listener.spec.path is not None:
        pytest.skip("not in a Unix socket")
    caller = connect(listener)
    taken, _ = listener.socket.accept()
    ends = (caller, taken) if first == "caller" else (taken, caller)
    ends[0].close()
    assert ends[1].recv(1) == b""
    ends[1].close()
    until(lambda: Tables().unused_for(listener, False) is None)  # the last of it has gone to and fro
    found = Tables().unused_for(listener, True)
    assert found is not None
    assert 0.0 <= found < DEADLINE_S


def test_other_sockets_do_not_count(listener: Listener) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        with socket.create_connection(other.getsockname(), DEADLINE_S):
            assert Tables().unused_for(listener, True) is None


def test_a_longer_path_is_another(tmp_path: Path) -> None:
    short, long = SocketSpec("a", path=str(tmp_path / "a")), SocketSpec("b", path=str(tmp_path / "a") + ".b")
    with contextlib.ExitStack() as stack:
        one, other = (stack.enter_context(contextlib.closing(listen(each, Owner()))) for each in (short, long))
        stack.enter_context(connect(other))
        assert Tables().unused_for(one, True) is None
        assert Tables().unused_for(other, True) == 0.0


# ---- the watch -------------------------------------------------------------------------------------------------------


class Heard:
    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.events: list[IdleReached] = []
        self.held = HeldSockets(loop, lambda event: None, self._arrived)
        self.idle = IdleWatch(loop, self.events.append, self.held)

    def _arrived(self, name: str) -> None:
        self.idle.arrived(name)

    def begin(self, definition: ServiceDefinition, invocation: int = 7) -> None:
        self.held.adopt(definition)
        self.idle.begin(definition, invocation)

    @property
    def watched(self) -> Watched:
        return self.idle._watched["a"]

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.001)


def run(body: Callable[[Heard], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        heard = Heard()
        try:
            await body(heard)
        finally:
            heard.idle.close()
            heard.held.close()

    asyncio.run(whole())


def test_nobody_comes() -> None:
    async def body(heard: Heard) -> None:
        began = clock.now()
        heard.begin(service(SocketSpec("web", host="127.0.0.1", port=0)))
        await heard.until(lambda: heard.events)
        assert (heard.events[0].service, heard.events[0].invocation) == ("a", 7)
        assert heard.events[0].at - began >= SOON_S
        await heard.until(lambda: len(heard.events) >= 2)
        assert heard.events[1].at - heard.events[0].at >= SOON_S, "it was needed all the same: a whole timeout later"

    run(body)


@pytest.mark.parametrize("place", PLACES)
def test_who_is_connected_keeps_it_up(place: str, tmp_path: Path) -> None:
    async def body(heard: Heard) -> None:
        heard.begin(service(spec(place, tmp_path)))
        listener = heard.held.listeners("a")[0]
        with connect(listener):
            looks: list[float] = [heard.watched.used_at]
            while len(looks) < 5:
                await heard.until(lambda: heard.watched.used_at > looks[-1])
                looks.append(heard.watched.used_at)
            assert heard.events == []
            taken, _ = listener.socket.accept()
        taken.close()
        heard.watched.traces = False  # the minute of TIME_WAIT is not waited for here
        await heard.until(lambda: heard.events)

    run(body)


def test_whoever_came_and_went_counts() -> None:
    async def body(heard: Heard) -> None:
        heard.begin(service(SocketSpec("web", host="127.0.0.1", port=0), idle_s=LONG_S))
        listener = heard.held.listeners("a")[0]
        heard.watched.used_at -= LONG_S - 1
        caller = connect(listener)
        taken, _ = listener.socket.accept()
        caller.close()
        taken.close()
        heard.idle._look()
        assert heard.watched.used_at > clock.now() - DEADLINE_S
        assert heard.events == []

    run(body)


def test_arrivals_count_between_two_looks(tmp_path: Path) -> None:
    async def body(heard: Heard) -> None:
        heard.begin(service(spec("unix", tmp_path), idle_s=LONG_S))
        heard.watched.used_at -= LONG_S - 1
        with connect(heard.held.listeners("a")[0]):
            await heard.until(lambda: heard.watched.used_at > clock.now() - DEADLINE_S)

    run(body)


def test_health_checks_are_no_use() -> None:
    async def body(heard: Heard) -> None:
        checked = HealthProbe(http=HttpTarget("http://127.0.0.1/"))
        heard.begin(service(SocketSpec("web", host="127.0.0.1", port=0), health=checked))
        listener = heard.held.listeners("a")[0]
        caller = connect(listener)
        taken, _ = listener.socket.accept()
        caller.close()
        taken.close()
        await heard.until(lambda: heard.events)

    run(body)


def test_what_does_not_run_is_not_idle() -> None:
    async def body(heard: Heard) -> None:
        heard.begin(service(SocketSpec("web", host="127.0.0.1", port=0)))
        heard.idle.end("a")
        heard.idle.end("a")
        heard.idle.arrived("a")
        heard.begin(service(SocketSpec("web", host="127.0.0.1", port=0), idle_s=None))
        heard.begin(service(idle_s=SOON_S))
        heard.begin(service(SocketSpec("web", "dgram", "127.0.0.1", 0), idle_s=SOON_S))
        assert heard.idle._watched == {}

    run(body)


def test_a_new_timeout_holds_at_once() -> None:
    async def body(heard: Heard) -> None:
        port = SocketSpec("web", host="127.0.0.1", port=0)
        heard.begin(service(port, idle_s=LONG_S))
        heard.idle.adopt(service(port, idle_s=SOON_S))
        await heard.until(lambda: heard.events)
        heard.idle.adopt(service(port, idle_s=None))
        assert heard.idle._watched == {}

    run(body)
