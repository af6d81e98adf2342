"""The limits: loops that spawn, fork, wait and kill, and do nothing else. Each is run in an interpreter of its own.

Must not use any of svcd's machinery, except that the fork loop has imported what the fork server has imported.
Usage: ``python -m benchmarks.bare NAME ARGUMENT…``; the answer is a line of JSON.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.marks import Marks
from benchmarks.service import say

Spawn = Callable[[int], int]


def _vfork(first: str, file: str) -> Spawn:
    """The fastest that Linux has, posix_spawn, with both output streams on pipes: capturing output needs that."""
    kept: list[int] = []

    def spawn(number: int) -> int:
        out, err = os.pipe(), os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, out[1], 1), (os.POSIX_SPAWN_DUP2, err[1], 2)]
        pid = os.posix_spawn(first, [first, file, str(number)], os.environ, file_actions=actions, setsid=True)
        os.close(out[1])
        os.close(err[1])
        kept.extend((out[0], err[0]))
        return pid

    return spawn


def _forked(live: Callable[[int], object]) -> Spawn:
    """Fork, with a session and both output streams on pipes, as capturing output needs; the child does not return
    from ``live``, which gets its number.
    """
    kept: list[int] = []

    def spawn(number: int) -> int:
        out, err = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os.dup2(out[1], 1)
            os.dup2(err[1], 2)
            live(number)
        os.close(out[1])
        os.close(err[1])
        kept.extend((out[0], err[0]))
        return pid

    return spawn


def _program(first: str, file: str) -> Spawn:
    """fork and exec: what anybody needs who sets something up in between (user, limits, death)."""
    return _forked(lambda number: os.execv(first, [first, file, str(number)]))


def _freeze() -> None:
    """What a fork server has imported and does before it forks."""
    import gc  # noqa: PLC0415

    import svcd.worker_runtime.stub  # noqa: F401, PLC0415

    gc.collect()
    gc.freeze()


def _fork(file: str) -> Spawn:
    """Fork from a warm interpreter."""
    _freeze()

    def live(number: int) -> None:
        say(file, str(number), time.monotonic_ns())
        while True:
            signal.pause()

    return _forked(live)


def _loop(file: str) -> Spawn:
    """Fork as above, and in each do what any Python service has to, rehearsed: an event loop, three words with
    somebody on a Unix socket, a module imported, an object of its class started. Nothing is decided or watched.
    """
    directory = tempfile.mkdtemp()
    path = f"{directory}/echo"
    Path(directory, "mine.py").write_text("class Mine:\n    async def start(self): pass\n")
    sys.path.insert(0, directory)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(4096)
    echo = os.fork()
    if echo == 0:
        asyncio.run(_echo(listening))
    listening.close()
    atexit.register(_clear, echo, directory)
    for _ in range(8):
        asyncio.run(_live(path))
        sys.modules.pop("mine")
    _freeze()

    async def serve(number: int) -> None:
        _connected = await _live(path)
        say(file, str(number), time.monotonic_ns())
        await asyncio.Event().wait()

    return _forked(lambda number: asyncio.run(serve(number)))


async def _live(path: str) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_unix_connection(path)
    for _ in range(3):
        writer.write(bytes(200))
        await reader.readexactly(200)
    await importlib.import_module("mine").Mine().start()
    return writer


async def _echo(listening: socket.socket) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.read(1000):
            writer.write(said)

    server = await asyncio.start_unix_server(answer, sock=listening)
    await server.serve_forever()


def _clear(echo: int, directory: str) -> None:
    os.kill(echo, signal.SIGKILL)
    os.waitpid(echo, 0)
    shutil.rmtree(directory)


def _end(pids: list[int]) -> float:
    """Seconds from the first signal to the last reaping."""
    began = time.monotonic()
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    for pid in pids:
        os.waitpid(pid, 0)
    return time.monotonic() - began


def boot(spawn: Spawn, marks: Marks, count: int) -> dict[str, float]:
    """``count`` processes; until the last one's first instruction, and how long their end takes."""
    began = time.monotonic_ns()
    pids = [spawn(number) for number in range(count)]
    last = max(when for _, when in marks.wait_count(count))
    return {"boot_s": (last - began) / 1e9, "end_s": _end(pids)}


def replace(spawn: Spawn, marks: Marks, rounds: int, burst: int) -> dict[str, list[float]]:
    """Kill ``burst`` processes, wait for each end and spawn its replacement; milliseconds until it ran."""
    pids = [spawn(number) for number in range(burst)]
    marks.wait_count(burst)
    times = []
    for _ in range(rounds):
        began = time.monotonic_ns()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        replacements = []
        for _ in pids:
            os.waitpid(-1, 0)
            replacements.append(spawn(0))
        pids = replacements
        times.append(max(when for _, when in marks.wait_more(burst)) - began)
    _end(pids)
    return {"ms": [each / 1e6 for each in times]}


def main(name: str, first: str, file: str, *numbers: str) -> None:
    marks = Marks(Path(file))
    kind, what = name.split("-")
    if what in ("fork", "loop"):
        spawn = {"fork": _fork, "loop": _loop}[what](file)
    else:
        spawn = {"program": _program, "vfork": _vfork}[what](first, file)
    answer = boot(spawn, marks, *map(int, numbers)) if kind == "boot" else replace(spawn, marks, *map(int, numbers))
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
