"""Functions for compute processes, which import them from here.

Must not need anything that a fresh interpreter lacks.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import svcd


def add(one: int, other: int, *, twice: bool = False) -> int:
    return (one + other) * (2 if twice else 1)


def echo(value: Any) -> Any:
    return value


def pid() -> int:
    return os.getpid()


def parent_and_group() -> tuple[int, int]:
    return os.getppid(), os.getpgrp()


def told() -> tuple[Any, ...]:
    """What a function can know of its service here."""
    ctx = svcd.current_context()
    return ctx.name, ctx.cluster, ctx.instance, ctx.invocation, ctx.config, threading.current_thread().name


def nested() -> int:
    """Asks for more of the same from within."""
    ctx = svcd.current_context()

    async def ask() -> int:
        return await ctx.compute(add, 1, 2) + await ctx.blocking(add, 3, 4)

    return ctx.compute_sync(add, 5, 6) + asyncio.run(ask())


def stop_service() -> None:
    svcd.current_context().stop("from afar")


def fail(text: str) -> None:
    raise LookupError(text)


def chain() -> None:
    try:
        fail("inner")
    except LookupError as error:
        raise RuntimeError("outer") from error


class Picky(Exception):  # noqa: N818
    """Can be pickled, but not be made again of what was pickled."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


class Unpickled(Exception):  # noqa: N818
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class Changeling(Exception):  # noqa: N818
    """Comes out of a pickle as something else."""

    def __reduce__(self) -> Any:
        return KeyboardInterrupt, ()


class Hostile(Exception):  # noqa: N818
    """Whatever is done with it fails."""

    def __str__(self) -> str:
        raise SystemExit(9)

    def __reduce__(self) -> Any:
        raise SystemExit(9)


def raise_picky() -> None:
    raise Picky(1, 2)


def raise_unpickled() -> None:
    raise Unpickled


def raise_changeling() -> None:
    raise Changeling("of two natures")


def raise_hostile() -> None:
    raise Hostile


def leave(code: int) -> None:
    os._exit(code)


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def lock() -> Any:
    return threading.Lock()


class Bomb:
    """Goes off where it is unpickled."""

    def __reduce__(self) -> Any:
        return fail, ("boom",)


def bomb() -> Bomb:
    return Bomb()


def quit_(code: int) -> None:
    sys.exit(code)


def say_and_hang(path: str) -> None:
    """Writes its pid there, at once and whole, and never ends by itself."""
    with open(f"{path}.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{path}.new", path)
    while True:
        time.sleep(1)


def signals_of_a_child() -> str:
    """What a program that is started here finds ignored."""
    code = "import re; print(re.search('SigIgn:\\t(.*)', open('/proc/self/status').read())[1])"
    return subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True).stdout.strip()
