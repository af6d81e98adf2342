"""``ctx.compute()`` in real processes: what goes there and back, what goes wrong, and that none of them is left.

Must not wait for luck: what is to be under way writes its pid to a file.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import computing
import pytest

from svcd import ComputeError, StateError
from svcd.worker_runtime.computing.pools import Pools
from svcd.worker_runtime.computing.runtime_settings import RuntimeSettings

DEADLINE_S = 30.0
CONTEXT = {"name": "web", "cluster": "shop", "instance": 2, "invocation": 7, "config": {"a": [1]}}
Scene = Callable[[Pools], Coroutine[Any, Any, None]]


def play(scene: Scene, count: int = 1, lost: Any = None, **settings: Any) -> None:
    """Run ``scene`` with pools of its own, and close them."""

    async def run() -> None:
        made = RuntimeSettings(compute="processes", compute_threads=count, **settings)
        told = {"context": CONTEXT, "code": None, "title": "svcd: compute shop/web"}
        pools = Pools(made, told, (lambda what, error: None) if lost is None else lost)
        try:
            await asyncio.wait_for(scene(pools), DEADLINE_S)
        finally:
            pools.close()

    asyncio.run(run())


def ask(pools: Pools, function: Callable[..., Any], *args: Any, **named: Any) -> Coroutine[Any, Any, Any]:
    return pools.compute(function, args, named)


async def refused(pools: Pools, function: Callable[..., Any], *args: Any) -> ComputeError:
    with pytest.raises(ComputeError) as raised:
        await ask(pools, function, *args)
    assert await ask(pools, computing.add, 1, 2) == 3  # and all is well afterwards
    return raised.value


async def hanging(pools: Pools, path: Path) -> tuple[asyncio.Task[Any], int]:
    """A computation that does not end by itself, and its pid."""
    task = asyncio.create_task(ask(pools, computing.say_and_hang, str(path)))
    while not path.exists():
        assert not task.done(), task
        await asyncio.sleep(0.005)
    return task, int(path.read_text())


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# ---- there and back --------------------------------------------------------------------------------------------------


def test_arguments_go_there_and_results_come_back() -> None:
    async def scene(pools: Pools) -> None:
        assert await ask(pools, computing.add, 1, other=2, twice=True) == 6
        assert await ask(pools, partial(computing.add, 1), 2) == 3
        for value in (None, "ä", b"\0" * 5_000_000, {"a": (1, 2.5)}, ValueError("a value")):
            assert repr(await ask(pools, computing.echo, value)) == repr(value)

    play(scene)


def test_there_are_as_many_as_asked_for_and_they_are_kept() -> None:
    async def scene(pools: Pools) -> None:
        one = await ask(pools, computing.pid)
        assert one != os.getpid()
        assert {await ask(pools, computing.pid) for _ in range(10)} == {one}
        pids = set(await asyncio.gather(*(ask(pools, computing.pid) for _ in range(50))))
        assert one in pids
        assert len(pids) <= 3

    play(scene, count=3)


def test_they_belong_to_the_service() -> None:
    """Its children, in its process group, and told of it."""

    async def scene(pools: Pools) -> None:
        assert await ask(pools, computing.parent_and_group) == (os.getpid(), os.getpgrp())
        assert await ask(pools, computing.told) == ("web", "shop", 2, 7, {"a": [1]}, "crunch")
        title = Path(f"/proc/{await ask(pools, computing.pid)}/cmdline").read_text().rstrip("\0")
        assert title == "svcd: compute shop/web 0"
        assert await ask(pools, computing.nested) == 21

    play(scene, thread_prefix="crunch")


def test_programs_that_are_started_there_find_no_signal_ignored_by_us() -> None:
    async def scene(pools: Pools) -> None:
        ignored = int(await ask(pools, computing.signals_of_a_child), 16)
        assert not ignored & (1 << (signal.SIGINT - 1) | 1 << (signal.SIGTERM - 1))

    play(scene)


def test_signals_for_the_whole_group_do_not_end_it() -> None:
    async def scene(pools: Pools) -> None:
        pid = await ask(pools, computing.pid)
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(pid, number)
        assert await ask(pools, computing.pid) == pid

    play(scene)


def test_threads_that_are_the_first_to_ask_all_use_the_same_processes() -> None:
    async def scene(pools: Pools) -> None:
        together = threading.Barrier(8)

        def first() -> int:
            together.wait(DEADLINE_S)
            pid: int = pools.compute_sync(computing.pid, (), {})
            return pid

        assert len(set(await asyncio.gather(*(asyncio.to_thread(first) for _ in range(8))))) == 1

    async def with_threads(pools: Pools) -> None:
        with ThreadPoolExecutor(8) as executor:
            asyncio.get_running_loop().set_default_executor(executor)
            await scene(pools)

    play(with_threads)


def test_threads_of_the_service_ask_as_well() -> None:
    async def scene(pools: Pools) -> None:
        in_thread = partial(pools.compute_sync, computing.add, (1, 2), {})
        assert await pools.blocking(in_thread, (), {}) == 3
        assert await asyncio.to_thread(in_thread) == 3
        with pytest.raises(StateError, match=r"use 'await ctx\.compute\(\)'$"):
            in_thread()

    play(scene)


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_what_it_raises_is_raised_with_its_traceback() -> None:
    async def scene(pools: Pools) -> None:
        with pytest.raises(LookupError, match=r"^no such thing$") as raised:
            await ask(pools, computing.fail, "no such thing")
        printed = "".join(traceback.format_exception(raised.value))
        assert "raise LookupError(text)" in printed
        assert "compute_process.py" not in printed  # our own frames say nothing to anybody
        with pytest.raises(RuntimeError, match="outer") as raised:
            await ask(pools, computing.chain)
        assert "LookupError: inner" in "".join(traceback.format_exception(raised.value))

    play(scene)


def test_a_wish_to_exit_is_the_service_s() -> None:
    async def scene(pools: Pools) -> None:
        with pytest.raises(SystemExit) as raised:
            await ask(pools, computing.quit_, 3)
        assert raised.value.code == 3

    play(scene)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (computing.raise_picky, "raise_picky() raised Picky: 1 and 2"),
        (computing.raise_unpickled, "raise_unpickled() raised Unpickled: holds a lock"),
        (computing.raise_changeling, "raise_changeling() raised Changeling: of two natures"),
        (computing.raise_hostile, "raise_hostile() raised Hostile: <SystemExit in its __str__>"),
    ],
)
def test_an_exception_that_cannot_travel_is_told_in_words(function: Callable[[], None], text: str) -> None:
    async def scene(pools: Pools) -> None:
        error = await refused(pools, function)
        assert str(error) == text
        assert f"in {function.__name__}" in str(error.__cause__)

    play(scene)


def test_a_result_that_cannot_travel_is_refused() -> None:
    async def scene(pools: Pools) -> None:
        text = str(await refused(pools, computing.lock))
        assert text == (
            "cannot bring back what lock() returned: it cannot be pickled: "
            "TypeError: cannot pickle '_thread.lock' object; return plain values"
        )
        assert str(await refused(pools, computing.bomb)) == "cannot read what bomb() returned: boom"

    play(scene)


def test_arguments_that_cannot_travel_are_refused_before_anything_is_done() -> None:
    async def scene(pools: Pools) -> None:
        text = str(await refused(pools, computing.echo, threading.Lock()))
        assert text.startswith("cannot compute echo() in a process: it or its arguments cannot be pickled (TypeError: ")
        assert text.endswith("plain values, or runtime: {compute: threads}")
        text = str(await refused(pools, lambda: 1))
        assert "<lambda>() in a process" in text
        text = str(await refused(pools, computing.echo, computing.Bomb()))
        assert text == "cannot find echo() or its arguments in a compute process: LookupError: boom"

    play(scene)


@pytest.mark.parametrize(
    ("function", "how"),
    [
        (partial(computing.leave, 3), "cannot compute leave(): its process ended with exit code 3"),
        (computing.kill_itself, "cannot compute kill_itself(): its process was killed by SIGKILL"),
    ],
)
def test_a_process_that_ends_is_told_and_replaced(function: Callable[[], None], how: str) -> None:
    async def scene(pools: Pools) -> None:
        before = await ask(pools, computing.pid)
        assert str(await refused(pools, function)) == how
        assert await ask(pools, computing.pid) != before

    play(scene)


def test_one_that_is_killed_while_it_idles_is_replaced_unnoticed() -> None:
    async def scene(pools: Pools) -> None:
        pid = await ask(pools, computing.pid)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert await ask(pools, computing.add, 1, 2) == 3

    play(scene)


def test_no_interpreter_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(pools: Pools) -> None:
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(ComputeError, match=r"^cannot make a process for add\(\): No such file or directory$"):
            await ask(pools, computing.add, 1, 2)

    play(scene)


def test_async_functions_and_what_is_none_are_refused() -> None:
    async def work() -> None: ...

    async def scene(pools: Pools) -> None:
        for run in (pools.compute, pools.blocking):
            with pytest.raises(TypeError, match=r"work\(\) in a thread: it is async, so await it$"):
                run(work, (), {})
            with pytest.raises(TypeError, match=r"^cannot run int\(\): ctx\.\w+\(\) takes a function and its arg"):
                run(7, (), {})  # type: ignore[arg-type]

    play(scene)


# ---- nobody waits any more, and the end ------------------------------------------------------------------------------


def test_what_nobody_waits_for_any_more_is_killed(tmp_path: Path) -> None:
    lost: list[object] = []

    async def scene(pools: Pools) -> None:
        task, pid = await hanging(pools, tmp_path / "pid")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await ask(pools, computing.pid) != pid  # the same thread has taken note of the end
        assert is_gone(pid)

    play(scene, lost=lambda *told: lost.append(told))
    assert lost == []  # that it was killed is our own doing


def test_an_end_kills_what_runs(tmp_path: Path) -> None:
    async def scene(pools: Pools) -> None:
        task, pid = await hanging(pools, tmp_path / "pid")
        waiting = asyncio.create_task(ask(pools, computing.pid))
        await asyncio.sleep(0)
        pools.close()
        assert is_gone(pid)
        with pytest.raises(ComputeError):
            await task
        with pytest.raises(StateError, match="was not run: the service has stopped"):
            await waiting
        with pytest.raises(StateError, match="the service has stopped"):
            await ask(pools, computing.pid)

    play(scene)


def test_a_service_that_is_killed_leaves_none_behind(tmp_path: Path) -> None:
    """The kernel ends them, even in the middle of a computation."""
    program = f"""
    import asyncio, sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    import computing
    from svcd.worker_runtime.computing.pools import Pools
    from svcd.worker_runtime.computing.runtime_settings import RuntimeSettings
    async def main():
        pools = Pools(RuntimeSettings(compute="processes"), {{"context": {CONTEXT!r}, "code": None, "title": "x"}})
        await pools.compute(computing.say_and_hang, ({str(tmp_path / "pid")!r},), {{}})
    asyncio.run(main())
    """
    service = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    try:
        while not (tmp_path / "pid").exists():
            assert service.poll() is None
            threading.Event().wait(0.005)
        descriptor = os.pidfd_open(int((tmp_path / "pid").read_text()))
    finally:
        service.kill()
        service.wait()
    try:
        poll = select.poll()
        poll.register(descriptor)
        if not poll.poll(DEADLINE_S * 1000):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            pytest.fail("it lives on")
    finally:
        os.close(descriptor)
