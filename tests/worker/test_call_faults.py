"""Calls to and from processes that are killed, stand still or are enemies: errors at once, and nothing piles up."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from svcd.protocol import call_wire, zmtp
from svcd.protocol.call_errors import DeadlineExceeded, FailureCode, ServiceUnavailable
from svcd.protocol.call_wire import Call, Credit, Failed, Result
from svcd.worker_runtime.calls.routes import Address
from tests.worker.peers_stage import Stage, play, raised, settled
from tests.worker.test_streams_and_events import History

ROOT = Path(__file__).parents[2]
CALLEE = """
import asyncio, sys
from collections.abc import AsyncIterator
from svcd.worker_runtime.calls.methods import rpc
from svcd.worker_runtime.calls.peers import Peers
from svcd.worker_runtime.calls.routes import Routes

class Slow:
    begun = 0

    @rpc
    async def hang(self) -> None:
        Slow.begun += 1
        print("begun", flush=True)
        await asyncio.Event().wait()

    @rpc
    async def count(self) -> int:
        return Slow.begun

    @rpc
    async def note(self) -> None:
        Slow.begun += 1

async def main() -> None:
    Peers("slow", Routes(), lambda peer: "tester").serve(Slow(), sys.argv[1])
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
CALLER = """
import asyncio, sys
from svcd.worker_runtime.calls.peers import Peers
from svcd.worker_runtime.calls.routes import Address, Routes

async def main() -> None:
    routes = Routes()
    routes.set_route("history", (Address(sys.argv[1]),))
    peers = Peers("tester", routes)
    async for row in peers.stream("history.rows", 10_000):
        print("row", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def process(code: str, path: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs ``code``, once it has said its first line."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, env=environment) as made:
        try:
            assert made.stdout is not None
            yield made
        finally:
            made.kill()


async def said(by: subprocess.Popen[bytes]) -> str:
    assert by.stdout is not None
    return (await asyncio.to_thread(by.stdout.readline)).decode().strip()


def test_a_callee_that_is_killed_is_an_error_at_once() -> None:
    async def scene(stage: Stage) -> None:
        path = str(stage.directory / "slow")
        with process(CALLEE, path) as callee:
            assert await said(callee) == "ready"
            stage.announce("slow", (Address(path, None, callee.pid),))
            calls = [asyncio.ensure_future(stage.client().call("slow.hang", timeout=1000)) for _ in range(3)]
            for _ in calls:  # one that has not arrived yet would end otherwise
                assert await said(callee) == "begun"
            callee.kill()
            for each in calls:
                error = await raised(each)
                assert isinstance(error, ServiceUnavailable)
                assert "slow was lost before slow.hang had ended" in str(error)
            os.unlink(path)

    play(scene)


def test_a_callee_that_stands_still_does_not_hold_anybody_and_nothing_piles_up() -> None:
    async def scene(stage: Stage) -> None:
        path = str(stage.directory / "slow")
        with process(CALLEE, path) as callee:
            assert await said(callee) == "ready"
            stage.announce("slow", (Address(path),))
            caller = stage.client()
            assert await caller.call("slow.count") == 0
            callee.send_signal(signal.SIGSTOP)
            errors = await asyncio.gather(*(raised(caller.call("slow.note", timeout=0.05)) for _ in range(500)))
            assert {type(each) for each in errors} == {DeadlineExceeded}
            (link,) = caller._caller._open
            assert not link.pending
            callee.send_signal(signal.SIGCONT)
            assert await caller.call("slow.count") == 0, "what was over when it came was begun"
            callee.kill()
            os.unlink(path)

    play(scene)


def test_a_caller_that_is_killed_ends_its_stream() -> None:
    async def scene(stage: Stage) -> None:
        history = History()
        served = stage.serve(history)
        with process(CALLER, served.address.calls) as caller:  # type: ignore[attr-defined]
            assert await said(caller) == "row"
            assert history.closed == 0
            caller.kill()
            await settled(lambda: history.closed == 1)
        assert served.endpoint is not None
        await settled(lambda: served.endpoint.in_flight.count == 0)  # type: ignore[union-attr]

    play(scene)


# ---- enemies ---------------------------------------------------------------------------------------------------------

CALL = call_wire.encode(Call(1, "follow", None, 4))


@pytest.mark.parametrize(
    "said_bytes",
    [
        b"GET / HTTP/1.1\r\n\r\n" * 10,
        zmtp.hello(b"DEALER") + zmtp.pack([b"no head"]),
        zmtp.hello(b"DEALER") + zmtp.pack([b""]),
        zmtp.hello(b"DEALER") + zmtp.pack([call_wire.encode(Result(1)), b"\xc0"]),
        zmtp.hello(b"DEALER") + zmtp.pack([CALL, b"\x92\x90\x80"]) * 2,
        zmtp.hello(b"DEALER") + b"\x02" + (2**40).to_bytes(8),
        zmtp.hello(b"DEALER") + b"\x01\x01a" * 200,
    ],
)
def test_who_does_not_keep_to_the_protocol_loses_its_own_connection(said_bytes: bytes) -> None:
    async def scene(stage: Stage) -> None:
        served = stage.serve(History())
        friend = stage.client()
        rows = friend.stream("history.rows", 100)
        assert await anext(rows) == 0
        with socket.socket(socket.AF_UNIX) as enemy:
            enemy.settimeout(20)
            enemy.connect(served.address.calls)  # type: ignore[attr-defined]
            enemy.sendall(said_bytes)

            def read_to_the_end() -> None:
                try:
                    while enemy.recv(65536):
                        pass
                except ConnectionResetError:
                    pass

            await asyncio.to_thread(read_to_the_end)
        assert [row async for row in rows] == list(range(1, 100))

    play(scene)


def test_what_is_said_of_unknown_requests_is_ignored() -> None:
    async def scene(stage: Stage) -> None:
        served = stage.serve(History())
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(20)
            stranger.connect(served.address.calls)  # type: ignore[attr-defined]
            heads = [call_wire.encode(Credit(9, 2**62)), call_wire.encode(call_wire.Cancel(9))]
            stranger.sendall(zmtp.hello(b"DEALER") + b"".join(zmtp.pack([head]) for head in heads))
            one = call_wire.encode(Call(10, "one", None, 0))
            stranger.sendall(zmtp.pack([one, b"\x92\x90\x80"]))
            wanted = zmtp.pack([call_wire.encode(Result(10)), b"\x01"])
            came = b""
            while wanted not in came:
                came += await asyncio.to_thread(stranger.recv, 65536)

    play(scene)


def test_what_is_late_when_it_comes_is_not_begun() -> None:
    async def scene(stage: Stage) -> None:
        history = History()
        served = stage.serve(history)
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(20)
            caller.connect(served.address.calls)  # type: ignore[attr-defined]
            late = call_wire.encode(Call(1, "rows", 1, 4))
            caller.sendall(zmtp.hello(b"DEALER") + zmtp.pack([late, b"\x92\x91\x05\x80"]))
            came = b""
            while b"history.rows was not begun: its deadline is over" not in came:
                came += await asyncio.to_thread(caller.recv, 65536)
        assert history.made == 0

    play(scene)


@pytest.mark.parametrize("kind", ["call", "stream"])
def test_a_deadline_is_told_in_the_same_words_whoever_sees_it_pass_first(kind: str) -> None:
    """A caller that is held up for a moment finds its callee's word there."""

    async def scene(stage: Stage) -> None:
        path = str(stage.directory / "slow")

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(zmtp.hello(b"ROUTER"))
            await reader.readexactly(len(zmtp.hello(b"DEALER")) + 2)
            late = Failed(1, FailureCode.DEADLINE, "slow.note: its deadline is over", "", "")
            writer.write(zmtp.pack([call_wire.encode(late)]))
            await reader.read()
            writer.close()

        server = await asyncio.start_unix_server(answer, path)
        stage.announce("slow", (Address(path),))
        caller = stage.client()
        if kind == "call":
            error = await raised(caller.call("slow.note", timeout=20))
        else:
            error = await raised(anext(caller.stream("slow.note", timeout=20)))
        assert type(error) is DeadlineExceeded
        assert str(error) == "slow.note did not answer in time"
        caller.close()
        server.close()
        await server.wait_closed()
        Path(path).unlink(missing_ok=True)

    play(scene)


def test_a_callee_that_answers_nonsense_is_left() -> None:
    """An enemy on the other side of a call: the connection ends, and the call with it."""

    async def scene(stage: Stage) -> None:
        path = str(stage.directory / "enemy")

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(zmtp.hello(b"ROUTER"))
            await reader.readexactly(len(zmtp.hello(b"DEALER")) + 2)
            writer.write(zmtp.pack([b"nonsense"]))
            await reader.read()
            writer.close()

        server = await asyncio.start_unix_server(answer, path)
        stage.announce("enemy", (Address(path),))
        with pytest.raises(ServiceUnavailable, match=r"enemy was lost .* it sent a head that is no MessagePack"):
            await stage.client().call("enemy.anything")
        server.close()
        await server.wait_closed()
        Path(path).unlink(missing_ok=True)  # asyncio does so itself from Python 3.13 on

    play(scene)
