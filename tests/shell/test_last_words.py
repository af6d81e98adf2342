"""What a command has printed last is kept, whatever it prints, and costs little."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from commanded import Commanded, definition, eventually, on_loop

from svcd.supervisor.controller.processes import last_words
from svcd.supervisor.controller.processes.last_words import KEPT_BYTES, KEPT_LINES, LINE_LIMIT, LastWords
from svcd.supervisor.controller.watching import checks

Body = Callable[[Commanded], Coroutine[Any, Any, None]]
LONG_S = 30.0


def heard(*pieces: bytes) -> tuple[str, ...]:
    """What is kept of these."""
    found: list[tuple[str, ...]] = []

    async def body() -> None:
        words = LastWords(asyncio.get_running_loop())
        for each in pieces:
            await asyncio.to_thread(os.write, words.fd, each)
        words.passed()
        found.append(words.close())

    on_loop(body)
    return found[0]


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ((), ()),
        ((b"\n\n",), ()),
        ((b"on", b"e\ntwo"), ("one", "two")),
        ((b"a\n\nb\n",), ("a", "", "b")),
        ((b"\xff\x00bad\n",), ("\ufffd\x00bad",)),
        ((b"".join(b"%d\n" % number for number in range(99)),), tuple(map(str, range(99 - KEPT_LINES, 99)))),
        ((b"x" * 100_000,), ("x" * LINE_LIMIT,)),
    ],
)
def test_its_last_lines_are_kept(pieces: tuple[bytes, ...], lines: tuple[str, ...]) -> None:
    assert heard(*pieces) == lines


def test_a_flood_is_read_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever fills the pipe waits in between, and the loop does other things."""
    monkeypatch.setattr(last_words, "REST_S", 0.001)
    lines = heard(*[b"x" * 65_536] * 20, b"\nend\n")
    assert lines[-1] == "end"
    assert sum(map(len, lines)) <= KEPT_BYTES


def test_of_a_command_that_finds_fault_and_not_of_one_that_does_not(
    play: Callable[[Body], None], tmp_path: Path
) -> None:
    async def body(commanded: Commanded) -> None:
        said: list[tuple[str, tuple[str, ...]]] = []

        async def look(script: str) -> str | None:
            argv = ("/bin/sh", "-c", script)
            where = definition(workdir=str(tmp_path))
            check = checks.command(commanded.errands, where, argv, lambda *words: said.append(words))
            return await check(LONG_S)

        assert await look("echo out; echo err >&2; exit 3") is not None
        before = len(os.listdir("/proc/self/fd"))
        assert await look("echo fine") is None
        assert await look("exit 1") is not None
        assert said == [("web", ("out", "err")), ("web", ()), ("web", ())]
        assert "exit code 9" in (await look("yes | head -c 3000000; exit 9") or "")
        assert said[-1] == ("web", ("y",) * KEPT_LINES)
        await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before, "all to be closed")

    play(body)


def test_without_descriptors_it_is_run_all_the_same(
    play: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_flags: int) -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    async def body(commanded: Commanded) -> None:
        monkeypatch.setattr(os, "pipe2", none_left)
        assert await checks.command(commanded.errands, definition(), ("false",))(LONG_S) == "false: exit code 1"

    play(body)
