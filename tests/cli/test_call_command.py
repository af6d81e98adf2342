"""svcd call: what it sends, what it shows, and what it exits with; the service that answers is a real one.

Must not test the engine of calls: tests/worker does.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fake_daemon import PATIENCE_S, Directories, FakeDaemon, Outcome, row
from test_completion import offered

from svcd import Service, rpc
from svcd.cli.answers import plain
from svcd.protocol.messages import GetRoute, Message, RequestRefused, Route, RouteReported
from svcd.worker_runtime.calls.peers import Peers
from svcd.worker_runtime.calls.routes import Routes

Svcd = Callable[..., Outcome]


@dataclass
class Entry:
    who: str
    at: datetime


class Till(Service):
    @rpc
    def charge(self, user: str, cents: int) -> dict[str, int]:
        return {user: cents}

    @rpc
    def echo(self, value: Any) -> Any:
        return value

    @rpc
    def take(
        self, day: date = date.min, raw: bytes = b"", pause: timedelta = timedelta(0), names: list[str] | None = None
    ) -> list[Any]:
        return [day, raw, pause, names]

    @rpc
    def entry(self) -> Entry:
        return Entry("ann", datetime(2026, 1, 2, 3, 4, 5))

    @rpc
    def long(self) -> dict[str, str]:
        return {"first": "x" * 60, "second": "y" * 60}

    @rpc
    def nothing(self) -> None:
        pass

    @rpc
    def raw(self) -> bytes:
        return b"\x00\xffraw"

    @rpc
    def rude(self) -> str:
        return "\x1b]0;title\x07ring\x9b2J"

    @rpc
    def array(self) -> Any:
        return pytest.importorskip("numpy").arange(4).reshape(2, 2)

    @rpc
    def break_down(self) -> None:
        raise ValueError("the drawer\nis stuck")

    @rpc
    async def hold(self) -> None:
        await asyncio.Event().wait()

    @rpc
    async def count(self, to: int) -> AsyncIterator[Any]:
        for number in range(to):
            yield number

    @rpc
    async def words(self) -> AsyncIterator[Any]:
        yield "one"
        yield "two\nlines"
        yield {"three": 3}

    @rpc
    async def forever(self) -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()


@pytest.fixture
def till(daemon: FakeDaemon, directories: Directories) -> Iterator[FakeDaemon]:
    """A daemon that knows one service, which answers in a thread of this process."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    path = str(directories.run_dir / "calls")
    made: list[Peers] = []

    async def serve() -> None:
        made.append(Peers("till", Routes(), lambda peer: "client"))
        made[0].serve(Till(), path)

    asyncio.run_coroutine_threadsafe(serve(), loop).result(PATIENCE_S)

    def route(question: GetRoute) -> list[Message]:
        if question.service == "till":
            return [RouteReported("till", (Route(path, "", os.getpid()),))]
        if question.service == "down":
            return [RouteReported("down", (), "it is backoff: exit code 1; next try in 1.6 s")]
        if question.service == "secret":
            return [RequestRefused("not_permitted", "cannot call secret: web neither depends on it nor may")]
        return [RequestRefused("unknown_service", f"no service {question.service!r}; did you mean 'till'?")]

    daemon.replies[GetRoute] = route
    yield daemon

    async def close() -> None:
        made[0].close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run_coroutine_threadsafe(close(), loop).result(PATIENCE_S)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


SHOWN = {
    ("charge", "user=ann", "cents=5"): '{"ann": 5}\n',
    ("charge", "user=5", "cents=5"): '{"5": 5}\n',  # the annotation says what is a text
    ("charge", 'user="5"', "cents=5"): '{"5": 5}\n',
    ("charge", "user=a=b", "cents=-5"): '{"a=b": -5}\n',
    ("echo", "value=5"): "5\n",
    ("echo", "value=text"): "text\n",
    ("echo", "value="): "\n",
    ("echo", "value=null"): "",
    ("echo", "value=true"): "true\n",
    ("echo", "value=NaN"): "NaN\n",
    ("echo", 'value={"a": [1, 2.5, null]}'): '{"a": [1, 2.5, null]}\n',
    ("echo", "value=grüße"): "grüße\n",
    ("take", "day=2026-01-02", "raw=abc", "pause=1.5", 'names=["a", "b"]'): (
        '["2026-01-02", "YWJj", 1.5, ["a", "b"]]\n'
    ),
    ("entry",): '{"who": "ann", "at": "2026-01-02T03:04:05"}\n',
    ("nothing",): "",
    ("array",): "[[0, 1], [2, 3]]\n",
    ("long",): json.dumps({"first": "x" * 60, "second": "y" * 60}, indent=2) + "\n",
    ("count", "to=3"): "0\n1\n2\n",
    ("count", "to=0"): "",
    ("words",): 'one\n"two\\nlines"\n{"three": 3}\n',
}


@pytest.mark.parametrize("arguments", SHOWN, ids=" ".join)
def test_what_is_shown(till: FakeDaemon, svcd: Svcd, arguments: tuple[str, ...]) -> None:
    method, *rest = arguments
    assert svcd("call", f"till.{method}", *rest) == Outcome(0, SHOWN[arguments], "")


def test_json(till: FakeDaemon, svcd: Svcd) -> None:
    outcome = svcd("call", "till.entry", "--json")
    assert outcome.out == '{\n  "who": "ann",\n  "at": "2026-01-02T03:04:05"\n}\n'
    assert svcd("call", "till.nothing", "--json").out == "null\n"
    assert svcd("call", "till.echo", "value=grüße", "--json").out == '"gr\\u00fc\\u00dfe"\n'
    assert svcd("call", "till.words", "--json").out == '"one"\n"two\\nlines"\n{"three": 3}\n'


def test_bytes_are_as_they_are(till: FakeDaemon, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "svcd.cli", "call", "till.raw"], capture_output=True, timeout=PATIENCE_S, check=True
    )
    assert done.stdout == b"\x00\xffraw"


def test_what_has_no_json() -> None:
    assert plain({1: float("nan"), None: {b"\x01": -float("inf")}, "s": {2.5}}) == {
        "1": "nan",
        "null": {"AQ==": "-inf"},
        "s": [2.5],
    }


def test_a_terminal_gets_nothing_but_text(till: FakeDaemon) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "wb", buffering=0) as terminal:
        subprocess.run(
            [sys.executable, "-m", "svcd.cli", "call", "till.rude"], stdout=terminal, timeout=PATIENCE_S, check=True
        )
        assert screen.read(100) == b"ring2J\r\n"


USAGE = "hint: svcd call --help\n"
REFUSED = {
    ("till",): (2, f"svcd: 'till' is no method: name it SERVICE.METHOD\n{USAGE}"),
    (".charge",): (2, f"svcd: '.charge' is no method: name it SERVICE.METHOD\n{USAGE}"),
    ("till.charge", "ann"): (2, f"svcd: 'ann' is no argument: write KEY=VALUE\n{USAGE}"),
    ("till.charge", "user=a", "user=b"): (2, f"svcd: user is given twice\n{USAGE}"),
    ("till.charge", "--timeout", "0"): (2, f"svcd: a timeout must be more than 0\n{USAGE}"),
    ("till.charge", "--wait", "soon"): (
        2, f"svcd: invalid value for '--wait': 'soon' is no duration: write 10s, 500ms or 1m30s\n{USAGE}"
    ),
    ("tile.charge",): (2, "svcd: cannot call tile: no service 'tile'; did you mean 'till'?\n"),
    ("till.chrage",): (2, "svcd: cannot call till.chrage: it has no method 'chrage': did you mean 'charge'?\n"),
    ("till.charge", "user=ann", "cents=five"): (2, "svcd: cannot call till.charge: cents must be int, not 'five'\n"),
    ("till.charge", "user=ann", "cents=1.5"): (2, "svcd: cannot call till.charge: cents must be int, not float\n"),
    ("till.count", "to=x"): (2, "svcd: cannot call till.count: to must be int, not 'x'\n"),
    ("till.nothing", "x=1"): (
        2, "svcd: cannot call till.nothing: it has no parameter 'x': nothing() -> 'None'\n"
    ),
    ("till.hold", "--timeout", "50ms"): (
        3, "svcd: cannot call till.hold: it did not answer in time\nhint: --timeout T gives it longer\n"
    ),
    ("till.forever", "--timeout", "50ms"): (
        3, "svcd: cannot call till.forever: it did not answer in time\nhint: --timeout T gives it longer\n"
    ),
    ("down.x",): (
        3,
        (
            "svcd: cannot call down: it is backoff: exit code 1; next try in 1.6 s\n"
            "hint: svcd why down tells more; --wait T waits for it\n"
        ),
    ),
    ("down.x", "--wait", "20ms"): (3, "svcd: cannot call down: it is backoff: exit code 1; next try in 1.6 s\n"),
    ("secret.x",): (1, "svcd: cannot call secret: web neither depends on it nor may\n"),
}  # fmt: skip


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_what_is_refused(till: FakeDaemon, svcd: Svcd, arguments: tuple[str, ...]) -> None:
    code, said = REFUSED[arguments]
    for longer in ("50ms", "1s", "20s"):  # where time runs out, the call is to be the one that takes it
        outcome = svcd("call", *(longer if each == "50ms" else each for each in arguments))
        if outcome.err == said or "50ms" not in arguments:
            break
    assert (outcome.code, outcome.err) == (code, said)
    assert outcome.out in ("", "1\n")


def test_what_was_raised_there(till: FakeDaemon, svcd: Svcd) -> None:
    outcome = svcd("call", "till.break_down")
    assert (outcome.code, outcome.out) == (1, "")
    first, second, *_, last = outcome.err.splitlines()
    assert first == "svcd: cannot call till.break_down: it raised ValueError: the drawer"
    assert second == "Traceback (most recent call last):"
    assert last == "is stuck"


def test_without_a_cluster(directories: Directories, svcd: Svcd) -> None:
    outcome = svcd("call", "till.charge")
    assert outcome == Outcome(
        4,
        "",
        f"svcd: no cluster runs in {directories.run_dir}\n"
        "hint: svcd start FILE starts one; --cluster, --run-dir or SVCD_RUN_DIR say which one is meant\n",
    )


def test_within_a_service_its_own_cluster_is_meant(
    till: FakeDaemon, directories: Directories, svcd: Svcd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SVCD_CONTROL", str(directories.run_dir / "control"))
    monkeypatch.setenv("SVCD_RUN_DIR", "/nowhere")
    assert svcd("call", "till.echo", "value=5") == Outcome(0, "5\n", "")
    assert svcd("call", "--run-dir", "/nowhere", "till.echo", "value=5").code == 4
    monkeypatch.setenv("SVCD_CONTROL", str(tmp_path / "control"))
    outcome = svcd("call", "till.echo", "value=5")
    assert outcome.code == 4
    assert outcome.err.splitlines()[0] == f"svcd: cannot call till.echo: the cluster in {tmp_path} has ended"


def test_interrupted(till: FakeDaemon) -> None:
    command = [sys.executable, "-m", "svcd.cli", "call", "till.forever"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stderr is not None
        assert reader.stdout.readline() == b"1\n"
        reader.send_signal(signal.SIGINT)
        assert reader.wait(PATIENCE_S) == 130
        assert reader.stderr.read() == b"\n"


def test_a_reader_that_goes_away(till: FakeDaemon) -> None:
    command = f"{sys.executable} -m svcd.cli call till.count to=100000000 | head -n 2"
    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=PATIENCE_S, check=True)
    assert (done.stdout, done.stderr) == (b"0\n1\n", b"")


def test_services_are_offered(daemon: FakeDaemon) -> None:
    daemon.rows = [row("api.0", service="api"), row("till")]
    assert offered("svcd call t") == ["till."]
