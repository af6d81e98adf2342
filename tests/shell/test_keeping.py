"""Exported states at the controller: asked for, put together, saved, and handed over before a start.

The stubs are played by the test, files and threads are real.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from svcd.protocol.messages import (
    ExceptionRaised,
    ExportState,
    ImportState,
    Message,
    StateExported,
    StateSaved,
)
from svcd.protocol.state_parts import parts_of
from svcd.supervisor.config.launch import ClusterSpec, LaunchSpec, PythonCode, ServiceDefinition, StatePolicy
from svcd.supervisor.controller.journal import Journal
from svcd.supervisor.controller.processes.runs import Run
from svcd.supervisor.controller.python import statefile
from svcd.supervisor.controller.python.exchange import Exchange, Exported, ExportFailed
from svcd.supervisor.controller.python.keeping import Keeping
from svcd.supervisor.controller.python.statefile import SavedState
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core.actions import StubOrder, TellStub
from svcd.supervisor.core.spec import Runner, ServiceSpec

DEADLINE_S = 30.0
LARGE = bytes(range(256)) * 10_000  # three parts


def definition(name: str, keep: bool) -> ServiceDefinition:
    launch = LaunchSpec(PythonCode(entry="a:b"), "/", state=StatePolicy(keep), version="1.0")
    return ServiceDefinition(ServiceSpec(name, Runner.PYTHON), launch)


class Known:
    """Stands where the runs are."""

    def __init__(self) -> None:
        self.runs = {7: Run("web", 7, "mark-7", "fork-server"), 8: Run("idle", 8, "mark-8", "fork-server")}

    def get(self, invocation: int | None) -> Run | None:
        return self.runs.get(invocation or 0)

    def end(self, invocation: int) -> None:
        for step in self.runs.pop(invocation).clean_up:
            step()


class Scene:
    def __init__(self, tmp_path: Path) -> None:
        loop = asyncio.get_running_loop()
        self.directory = tmp_path / "state"
        self.sent: list[Message | TellStub] = []
        self.notices: list[tuple[str, str]] = []
        self.arrived = asyncio.Event()
        self.known = Known()
        registry = Registry(ClusterSpec("shop", (), (definition("web", True), definition("idle", False))))
        self.exchange = Exchange(loop, self.known, registry, self._send)  # type: ignore[arg-type]  # only get is used
        self.keeping = Keeping(
            loop,
            self.directory,
            registry,
            self.known,  # type: ignore[arg-type]  # only get is used
            self.exchange,
            self._put,
            self._send,
            lambda service, text: self.notices.append((service, text)),
            Journal(loop, tmp_path / "svcd.log"),
        )

    def _send(self, invocation: int, message: Message) -> None:
        self._put(message)

    def _put(self, what: Message | TellStub) -> None:
        self.sent.append(what)
        self.arrived.set()

    async def wait_sent(self, count: int) -> list[Message | TellStub]:
        async with asyncio.timeout(DEADLINE_S):
            while len(self.sent) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.sent

    def says(self, state: bytes, token: int, omitted: tuple[str, ...] = (), service: str = "web") -> None:
        parts = parts_of(state)
        invocation = 7 if service == "web" else 8
        for index, part in enumerate(parts):
            self.exchange.receive(StateExported(service, invocation, token, index, len(parts), part, omitted))


Body = Callable[[Scene], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Body], None]:
    async def whole(body: Body) -> None:
        scene = Scene(tmp_path)
        try:
            await body(scene)
        finally:
            await scene.keeping.close()
            scene.keeping._journal.close()

    return lambda body: asyncio.run(whole(body))


# ---- asked for -------------------------------------------------------------------------------------------------------


def test_an_export_on_order(play: Callable[[Body], None]) -> None:
    async def body(scene: Scene) -> None:
        one, two = (asyncio.create_task(scene.exchange.export(7)) for _ in range(2))
        assert await scene.wait_sent(2) == [ExportState(7, 1), ExportState(7, 2)]
        scene.says(LARGE, 2, ("x",))
        assert await two == Exported(LARGE, "1.0", ("x",))
        scene.says(b"", 1)
        assert await one == Exported(b"", "1.0")
        scene.says(b"late", 1)
        scene.says(b"foreign", 99)
        assert not any(scene.exchange._assemblies.values())

    play(body)


def test_a_service_without_a_state(play: Callable[[Body], None]) -> None:
    async def body(scene: Scene) -> None:
        asked = asyncio.create_task(scene.exchange.export(7))
        await scene.wait_sent(1)
        scene.exchange.receive(StateExported("web", 7, 1))
        assert await asked == Exported(None)

    play(body)


@pytest.mark.parametrize(
    ("does", "text"),
    [
        (lambda scene: scene.exchange.receive(StateExported("web", 7, 1, error="x" * 999)), "x" * 300),
        (lambda scene: scene.exchange.receive(StateExported("web", 7, 1, 1, 2, b"")), "a part of a state that"),
        (lambda scene: scene.known.end(7), "it ended before it had exported its state"),
        (lambda scene: None, "export_state(): no answer within 0.02 s"),
    ],
    ids=["error", "parts", "end", "silence"],
)
def test_an_export_that_fails(play: Callable[[Body], None], does: Callable[[Scene], None], text: str) -> None:
    async def body(scene: Scene) -> None:
        asked = asyncio.create_task(scene.exchange.export(7, timeout_s=0.02 if "answer" in text else DEADLINE_S))
        await scene.wait_sent(1)
        does(scene)
        with pytest.raises(ExportFailed) as failed:
            await asked
        assert str(failed.value).startswith(text)
        assert not scene.exchange._waiting
        with pytest.raises(ExportFailed, match="it does not run"):
            await scene.exchange.export(9)

    play(body)


def test_a_hand_over(play: Callable[[Body], None]) -> None:
    async def body(scene: Scene) -> None:
        scene.exchange.import_into(7, LARGE, "0.9")
        assert all(isinstance(each, ImportState) and each.version == "0.9" for each in scene.sent)
        assert b"".join(each.data for each in scene.sent if isinstance(each, ImportState)) == LARGE

    play(body)


# ---- kept ------------------------------------------------------------------------------------------------------------

START = TellStub("web", 7, StubOrder.START)


def test_what_comes_unasked_is_saved_and_then_confirmed(play: Callable[[Body], None]) -> None:
    async def body(scene: Scene) -> None:
        scene.says(LARGE, -1)
        assert await scene.wait_sent(1) == [StateSaved(7, -1)]
        saved = statefile.read(scene.directory, "web")
        assert saved is not None
        assert (saved.state, saved.version) == (LARGE, "1.0")
        assert scene.notices == []

    play(body)


def test_a_start_comes_after_the_state_and_all_other_orders_at_once(play: Callable[[Body], None]) -> None:
    async def body(scene: Scene) -> None:
        init, stop = TellStub("web", 7, StubOrder.INIT), TellStub("web", 7, StubOrder.STOP)
        other = TellStub("idle", 8, StubOrder.START)
        scene.says(b"newest", -1)  # not written yet: the start waits for it
        for action in (init, START, other, stop):
            scene.keeping.tell(action)
        assert scene.sent == [init, other, stop]
        assert await scene.wait_sent(6) == [
            init,
            other,
            stop,
            StateSaved(7, -1),
            ImportState(7, 0, 1, b"newest", "1.0"),
            START,
        ]

    play(body)


def test_without_a_state_it_just_starts(play: Callable[[Body], None]) -> None:
    async def body(scene: Scene) -> None:
        scene.keeping.tell(START)
        assert await scene.wait_sent(1) == [START]
        assert scene.notices == []

    play(body)


def test_who_has_ended_meanwhile_is_told_nothing(play: Callable[[Body], None]) -> None:
    async def body(scene: Scene) -> None:
        statefile.write(scene.directory, SavedState("web", None, 1.0, b"state"))
        scene.keeping.tell(START)
        scene.known.end(7)
        await scene.keeping.close()
        assert scene.sent == []

    play(body)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, list[bytes]]:
    """Writes wait for the event; what was written."""
    gate, written, write = threading.Event(), list[bytes](), statefile.write

    def slow(directory: Path, saved: SavedState) -> None:
        assert gate.wait(DEADLINE_S)
        written.append(saved.state)
        write(directory, saved)

    monkeypatch.setattr(statefile, "write", slow)
    return gate, written


def test_a_flood_leaves_the_newest(
    play: Callable[[Body], None], slow_disk: tuple[threading.Event, list[bytes]]
) -> None:
    gate, written = slow_disk

    async def body(scene: Scene) -> None:
        for number in range(1, 6):
            scene.says(b"%d" % number, -number)
            await asyncio.sleep(0)  # the first is under way
        superseded = [message for message in scene.sent if isinstance(message, StateSaved) and message.error]
        gate.set()
        await scene.wait_sent(5)
        assert [each.token for each in superseded] == [-2, -3, -4]
        assert written == [b"1", b"5"]

    play(body)


def test_a_start_waits_for_all_that_is_to_be_written(
    play: Callable[[Body], None], slow_disk: tuple[threading.Event, list[bytes]]
) -> None:
    async def body(scene: Scene) -> None:
        for number in (1, 2):
            scene.says(b"%d" % number, -number)
            await asyncio.sleep(0)
        scene.keeping.tell(START)
        await asyncio.sleep(0)
        slow_disk[0].set()
        assert (await scene.wait_sent(4))[2:] == [ImportState(7, 0, 1, b"2", "1.0"), START]

    play(body)


def test_the_same_again_is_not_written_again(play: Callable[[Body], None]) -> None:
    async def body(scene: Scene) -> None:
        path = scene.directory / "web"
        for number, same in ((1, False), (2, True), (3, False)):
            before = path.stat().st_ino if path.exists() else 0
            scene.says(b"state", -number)
            await scene.wait_sent(number)
            assert (path.stat().st_ino == before) is same
            if number == 2:
                path.unlink()  # somebody wants it away: the next one is there again

    play(body)


def test_what_is_said_is_said_once(play: Callable[[Body], None]) -> None:
    async def body(scene: Scene) -> None:
        omitted = tuple(f"state[{number}]: open cannot travel" for number in range(5))
        for token in (-1, -2):
            scene.says(b"state%d" % token, token, omitted)
            await scene.wait_sent(-token)
        for token in (-3, -4):
            scene.exchange.receive(StateExported("web", 7, token, error="export_state() failed: no"))
        scene.says(b"fine", -5)
        await scene.wait_sent(3)
        scene.exchange.receive(StateExported("web", 7, -6, error="export_state() failed: no"))
        failed = ("web", "cannot save its state: export_state() failed: no")
        words = f"its state was saved without {', '.join(omitted[:3])}, and 2 more"
        assert scene.notices == [("web", words), failed, failed]

    play(body)


def test_who_keeps_no_state_writes_none(play: Callable[[Body], None]) -> None:
    async def body(scene: Scene) -> None:
        scene.says(b"state", -1, service="idle")
        await scene.keeping.close()
        assert (scene.sent, scene.notices, scene.directory.exists()) == ([], [], False)

    play(body)


def test_only_the_state_that_was_saved_can_be_refused(play: Callable[[Body], None]) -> None:
    async def body(scene: Scene) -> None:
        refused = ExceptionRaised("web", 7, "import", "ValueError", "no", "")
        scene.keeping.take_exception(refused)
        assert scene.notices == []
        statefile.write(scene.directory, SavedState("web", None, 1.0, b"state"))
        scene.keeping.tell(START)
        await scene.wait_sent(2)
        scene.keeping.take_exception(refused)
        text = f"it has refused its saved state; to start it without, remove {scene.directory / 'web'}"
        assert scene.notices == [("web", text)]
        scene.known.end(7)
        scene.keeping.take_exception(refused)
        assert len(scene.notices) == 1

    play(body)
