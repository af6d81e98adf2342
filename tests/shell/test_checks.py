"""Checks: one look at a port, a page or a command, which never raises and never outlasts its time."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from commanded import Body, Commanded, definition, eventually, on_loop

from svcd.supervisor.config.launch import HttpTarget
from svcd.supervisor.controller.watching import checks

LONG_S = 30.0
SHORT_S = 0.1
FOUND = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nall is well"


@asynccontextmanager
async def answering(*pieces: bytes, hang: bool = False) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that says this to everybody, whatever they ask: (port, what was asked)."""
    asked: list[bytes] = []
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked.append(await reader.read(65536))
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if hang:
                await over.wait()
        except ConnectionError:
            pass  # the checker had heard enough
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        over.set()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)


async def look(port: int, timeout_s: float = LONG_S, path: str = "/", **expected: object) -> str | None:
    target = HttpTarget(f"http://127.0.0.1:{port}{path}", **expected)  # type: ignore[arg-type]  # status or body
    return await checks.http(target)(timeout_s)


# ---- tcp ----


def test_a_port_answers_or_does_not() -> None:
    async def body() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            assert await checks.tcp("127.0.0.1", port)(LONG_S) is None
        assert await checks.tcp("127.0.0.1", port)(LONG_S) == f"cannot connect to 127.0.0.1:{port}: Connection refused"
        assert await checks.tcp("no.such.host.invalid", 1)(LONG_S) is not None

    on_loop(body)


def test_a_port_that_is_silent_is_given_up() -> None:
    async def body() -> None:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            port = server.getsockname()[1]
            found = None
            while found is None:  # each look stays in its queue, until that is full
                found = await checks.tcp("127.0.0.1", port)(SHORT_S)
            assert found == f"no connection to 127.0.0.1:{port} within 0.1 s"

    on_loop(body)


def test_to_be_connected_to_oneself_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens, but our own end was given the very port that we look for."""

    async def body() -> None:
        with socket.socket() as own:
            own.bind(("127.0.0.1", 0))
            own.connect(own.getsockname())
            port = own.getsockname()[1]
            original = asyncio.open_connection

            async def by_accident(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
                return await original(sock=own)

            monkeypatch.setattr(asyncio, "open_connection", by_accident)
            assert await checks.tcp("127.0.0.1", port)(LONG_S) == f"cannot connect to 127.0.0.1:{port}: nobody listens"
            await asyncio.sleep(0)

    on_loop(body)


# ---- http ----


def test_a_page_with_its_status_and_words() -> None:
    async def body() -> None:
        async with answering(FOUND) as (port, asked):
            assert await look(port, path="/up?deep=1") is None
            assert await look(port, body="^all .* well$") is None
            assert await look(port, body="ill") == f"http://127.0.0.1:{port}/: no 'ill' in its body"
            assert await look(port, status=204) == f"http://127.0.0.1:{port}/: status 200 instead of 204"
        head = asked[0].decode().lower()
        assert head.startswith("get /up?deep=1 http/1.1\r\n")
        assert f"host: 127.0.0.1:{port}\r\n" in head

    on_loop(body)


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async def body() -> None:
        async with answering(FOUND) as (other, others):
            moved = f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{other}/\r\nContent-Length: 0\r\n\r\n".encode()
            async with answering(moved) as (port, _):
                assert await look(port) == f"http://127.0.0.1:{port}/: status 302 instead of 200"
                assert await look(port, status=302) is None
            assert others == []

    on_loop(body)


def test_only_so_much_of_a_body_is_read() -> None:
    async def body() -> None:
        endless = b"x" * 65536
        head = b"HTTP/1.1 200 OK\r\n\r\n"
        async with answering(head, *[endless] * 17, b"the end") as (port, _):
            assert await look(port, body="the end") == f"http://127.0.0.1:{port}/: no 'the end' in its body"
        async with answering(head, *[endless] * 17, hang=True) as (port, _):
            assert await look(port, body="^x+$") is None, "what is beyond is not waited for"
            assert await look(port) is None, "nor is a body that nobody asks about"

    on_loop(body)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nall \r\n7\r\nis well\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "said", [CHUNKED, b"HTTP/1.1 100 Continue\r\n\r\n" + FOUND, b"HTTP/1.0 200 OK\r\n\r\nall is well\xff"], ids=str
)
def test_other_ways_to_say_it(said: bytes) -> None:
    async def body() -> None:
        async with answering(*(said[place : place + 1] for place in range(len(said)))) as (port, _):
            assert await look(port, body="all is well") is None

    on_loop(body)


@pytest.mark.parametrize(
    "said", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200", b"HTTP/1.1 OK 200\r\n\r\n", b"\0" * 100_000], ids=len
)
def test_what_is_no_page(said: bytes) -> None:
    async def body() -> None:
        async with answering(said) as (port, _):
            error = await look(port)
            assert error is not None
            assert error.startswith(f"http://127.0.0.1:{port}/: ")

    on_loop(body)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n"], ids=len)
def test_a_page_that_takes_too_long(said: bytes) -> None:
    async def body() -> None:
        async with answering(said, hang=True) as (port, _):
            assert await look(port, SHORT_S) == f"http://127.0.0.1:{port}/: no answer within 0.1 s"

    on_loop(body)


def test_nobody_there() -> None:
    async def body() -> None:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            port = holder.getsockname()[1]
            error = await look(port)
            assert error is not None
            assert error.startswith(f"http://127.0.0.1:{port}/: ")

    on_loop(body)


def test_nothing_stays_open_after_many_looks() -> None:
    async def body() -> None:
        async with answering(FOUND) as (port, _):
            assert await look(port) is None
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(30):
                assert await look(port, body="well") is None
            await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before, "them to be closed")

    on_loop(body)


# ---- commands ----


def test_a_command_says_yes_or_no(play: Callable[[Body], None], tmp_path: Path) -> None:
    async def body(commanded: Commanded) -> None:
        (tmp_path / "up").touch()
        where = definition(workdir=str(tmp_path))
        assert await checks.command(commanded.errands, where, ("test", "-e", "up"))(LONG_S) is None
        assert await checks.command(commanded.errands, where, ("test", "-e", "down"))(LONG_S) == "test: exit code 1"
        slow = checks.command(commanded.errands, where, ("sleep", "1000"))
        assert await slow(SHORT_S) == "sleep: no end within 0.1 s: killed"
        assert (await checks.command(commanded.errands, where, ("./none",))(LONG_S) or "").startswith("./none: cannot")

    play(body)


def test_who_stops_asking_ends_the_command(play: Callable[[Body], None], tmp_path: Path) -> None:
    async def body(commanded: Commanded) -> None:
        check = checks.command(commanded.errands, definition(workdir=str(tmp_path)), ("sh", "-c", ">here; sleep 1000"))
        asking = asyncio.create_task(check(LONG_S))  # type: ignore[arg-type]  # it is a coroutine
        await eventually((tmp_path / "here").exists, "the command")
        asking.cancel()
        await eventually(lambda: len(commanded.errands.runs) == 0, "its end")

    play(body)
