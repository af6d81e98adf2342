"""Threads that several kinds of work share: bounds, fairness, context, names, stacks, cancellation, the end.

Must not wait for luck: work that is to be under way says so, and ends when it is told.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svcd.worker_runtime.computing.thread_pool import Job, ThreadPool
from svcd.worker_runtime.lifetime.outcome import StateError

DEADLINE_S = 30.0
WORD: ContextVar[str] = ContextVar("word", default="none")


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), DEADLINE_S))


class Gate:
    """Work that says when it has begun, and ends when it is let go."""

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self, result: object = None) -> object:
        self.inside.release()
        assert self.go.wait(DEADLINE_S)
        return result

    async def entered(self, count: int = 1) -> None:
        for _ in range(count):
            assert await asyncio.to_thread(self.inside.acquire, timeout=DEADLINE_S)


def closed(pool: ThreadPool) -> None:
    """With its threads gone, which the next test would count."""
    pool.close()
    assert pool.wait_idle(DEADLINE_S) == []
    for thread in threading.enumerate():
        if thread.name.startswith(f"{pool._prefix}-"):
            thread.join(DEADLINE_S)
            assert not thread.is_alive()


def begin(pool: ThreadPool, lane: str, work: Callable[[], Any]) -> asyncio.Task[Any]:
    return asyncio.create_task(pool.run(lane, "work()", work))


# ---- what comes out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), StopAsyncIteration(), asyncio.CancelledError()])
def test_what_it_raises_comes_out(error: BaseException) -> None:
    def fail() -> None:
        raise error

    async def scene() -> None:
        pool = ThreadPool(1, "work", ("only",))
        with pytest.raises(type(error)) as raised:
            await pool.run("only", "fail()", fail)
        assert raised.value is error
        assert await pool.run("only", "seven()", lambda: 7) == 7  # its thread is as good as before
        closed(pool)

    play(scene)


def test_it_runs_in_the_context_of_who_asks() -> None:
    async def ask(pool: ThreadPool, word: str) -> str:
        WORD.set(word)
        return await pool.run("only", "WORD.get()", WORD.get)

    async def scene() -> None:
        pool = ThreadPool(2, "work", ("only",))
        assert await asyncio.gather(*(ask(pool, str(number)) for number in range(20))) == list(map(str, range(20)))
        closed(pool)

    play(scene)


def test_what_it_changes_in_the_context_stays_with_it() -> None:
    async def scene() -> None:
        pool = ThreadPool(1, "work", ("only",))
        await pool.run("only", "WORD.set()", lambda: WORD.set("mine"))
        assert (WORD.get(), await pool.run("only", "WORD.get()", WORD.get)) == ("none", "none")
        closed(pool)

    play(scene)


# ---- threads ---------------------------------------------------------------------------------------------------------


def test_threads_have_names_that_the_kernel_knows() -> None:
    def names() -> tuple[str, str]:
        return threading.current_thread().name, Path("/proc/thread-self/comm").read_text().strip()

    async def scene() -> None:
        pool = ThreadPool(1, "a-rather-long-prefix", ("only",))
        assert await pool.run("only", "names()", names) == ("a-rather-long-prefix-0", "a-rather-long-0"[:13] + "-0")
        closed(pool)

    play(scene)


STACK = """
import ctypes, sys, threading
from svcd.worker_runtime.computing.thread_pool import ThreadPool

def stack_bytes():  # of this thread, by what pthread itself says
    lib = ctypes.CDLL(None)
    lib.pthread_self.restype = ctypes.c_ulong
    attributes, size = ctypes.create_string_buffer(256), ctypes.c_size_t()
    assert lib.pthread_getattr_np(ctypes.c_ulong(lib.pthread_self()), attributes) == 0
    assert lib.pthread_attr_getstacksize(attributes, ctypes.byref(size)) == 0
    return size.value

pool = ThreadPool(1, "work", ("only",), int(sys.argv[1]))
print(pool.run_sync("only", "stack_bytes()", stack_bytes), threading.stack_size())
"""


@pytest.mark.parametrize("size", [256 * 1024, 2 * 1024 * 1024 + 1, 64 * 1024 * 1024])
def test_the_stack_has_the_size_that_was_asked_for_and_others_have_theirs(size: int) -> None:
    """In a process of its own: the C library gives a larger one of a thread that has ended to the next."""
    ended = subprocess.run(
        [sys.executable, "-c", STACK, str(size)], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == f"{-(-size // 4096) * 4096} 0\n"


def test_the_smallest_stack_is_enough_for_ordinary_python() -> None:
    def work() -> int:
        import decimal  # noqa: PLC0415
        import json  # noqa: PLC0415

        def deep(depth: int) -> int:
            return 0 if not depth else 1 + deep(depth - 1)

        text = json.dumps({"a": [1.5, {"b": str(decimal.Decimal(7))}] * 100})
        return deep(sys.getrecursionlimit() // 2) + len(json.loads(text))

    async def scene() -> None:
        pool = ThreadPool(1, "work", ("only",), 256 * 1024)
        assert await pool.run("only", "work()", work) == sys.getrecursionlimit() // 2 + 1
        closed(pool)

    play(scene)


def test_threads_are_made_when_needed_and_kept() -> None:
    async def scene() -> None:
        before = threading.active_count()
        pool = ThreadPool(4, "work", ("only",))
        assert threading.active_count() == before
        idents = {await pool.run("only", "get_ident()", threading.get_ident) for _ in range(20)}
        assert len(idents) == 1
        gate = Gate()
        tasks = [begin(pool, "only", gate) for _ in range(10)]
        await gate.entered(4)
        assert sum(each.name.startswith("work-") for each in threading.enumerate()) == 4
        gate.go.set()
        await asyncio.gather(*tasks)
        closed(pool)

    play(scene)


def test_no_thread_to_be_had_is_an_error_only_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def scene() -> None:
        pool, gate = ThreadPool(2, "work", ("only",)), Gate()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match=r"^cannot run work\(\) in a thread: can't start new thread$"):
                await pool.run("only", "work()", int)
        first = begin(pool, "only", gate)
        await gate.entered()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            job = Job("work()", int)
            pool.submit("only", job)  # waits for the one that there is
            gate.go.set()
            assert await asyncio.wrap_future(job.future) == (0, None)
        await first
        closed(pool)

    play(scene)


# ---- fairness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hog", "other"), [("blocking", "methods"), ("methods", "blocking")])
@pytest.mark.parametrize("limit", [2, 5])
def test_whatever_one_kind_does_the_other_finds_a_thread(hog: str, other: str, limit: int) -> None:
    async def scene() -> None:
        pool, gate = ThreadPool(limit, "work", ("blocking", "methods")), Gate()
        hogs = [begin(pool, hog, gate) for _ in range(3 * limit)]
        await gate.entered(limit - 1)
        for number in range(20):
            assert await pool.run(other, "work()", lambda number=number: number) == number
        assert not gate.inside.acquire(blocking=False)  # and has not given the last one away
        gate.go.set()
        await asyncio.gather(*hogs)
        closed(pool)

    play(scene)


def test_one_kind_alone_has_every_thread() -> None:
    async def scene() -> None:
        pool, gate = ThreadPool(3, "work", ("only",)), Gate()
        tasks = [begin(pool, "only", gate) for _ in range(3)]
        await gate.entered(3)
        gate.go.set()
        await asyncio.gather(*tasks)
        closed(pool)

    play(scene)


@settings(deadline=None, max_examples=30)
@given(
    limit=st.integers(2, 4),
    work=st.lists(st.tuples(st.sampled_from(["a", "b"]), st.booleans(), st.booleans()), max_size=30),
)
def test_all_that_is_waited_for_is_done_and_no_bound_is_broken(limit: int, work: list[tuple[str, bool, bool]]) -> None:
    """(lane, raises, is cancelled) each; random bursts never lose a wake-up."""
    busy, most = {"a": 0, "b": 0}, {"a": 0, "b": 0, "all": 0}
    lock = threading.Lock()

    def step(lane: str, raises: bool) -> str:
        with lock:
            busy[lane] += 1
            most[lane] = max(most[lane], busy[lane])
            most["all"] = max(most["all"], busy["a"] + busy["b"])
        os.sched_yield()
        with lock:
            busy[lane] -= 1
        if raises:
            raise KeyError(lane)
        return lane

    async def scene() -> None:
        pool = ThreadPool(limit, "work", ("a", "b"))
        tasks = [begin(pool, lane, lambda lane=lane, raises=raises: step(lane, raises)) for lane, raises, _ in work]
        await asyncio.sleep(0)
        for task, (_, _, is_cancelled) in zip(tasks, work, strict=True):
            if is_cancelled:
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result, (lane, raises, is_cancelled) in zip(results, work, strict=True):
            if isinstance(result, asyncio.CancelledError):
                assert is_cancelled
            else:
                assert (type(result) is KeyError) if raises else (result == lane)
        closed(pool)

    play(scene)
    assert max(most["a"], most["b"]) <= limit - 1
    assert most["all"] <= limit


# ---- nobody waits any more -------------------------------------------------------------------------------------------


def test_what_has_not_begun_never_does_once_it_is_cancelled() -> None:
    async def scene() -> None:
        pool, gate, done = ThreadPool(1, "work", ("only",)), Gate(), list[str]()
        first = begin(pool, "only", gate)
        await gate.entered()
        second, third = begin(pool, "only", lambda: done.append("2")), begin(pool, "only", lambda: done.append("3"))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait({second})
        assert len(pool.lanes["only"].queue) == 1  # and what it holds is let go of
        gate.go.set()
        await asyncio.gather(first, third)
        assert done == ["3"]
        assert second.cancelled()
        closed(pool)

    play(scene)


def test_what_has_begun_goes_on_alone_and_its_failure_is_told() -> None:
    lost: list[tuple[str, str]] = []

    async def scene() -> None:
        pool = ThreadPool(1, "work", ("only",), 0, lambda what, error: lost.append((what, str(error))))
        gate, abandoned = Gate(), threading.Event()

        def fail() -> None:
            gate()
            raise ValueError("too late")

        task = asyncio.create_task(pool.run("only", "fail()", fail, abandoned.set))
        await gate.entered()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert abandoned.is_set()
        gate.go.set()
        assert await pool.run("only", "seven()", lambda: 7) == 7
        closed(pool)

    play(scene)
    assert lost == [("fail()", "too late")]


# ---- the end ---------------------------------------------------------------------------------------------------------


def test_the_end_leaves_no_thread_and_tells_who_waits() -> None:
    async def scene() -> None:
        pool, gate = ThreadPool(1, "work", ("only",)), Gate()
        first = begin(pool, "only", gate)
        await gate.entered()
        waiting = begin(pool, "only", int)
        await asyncio.sleep(0)
        pool.close()
        assert pool.wait_idle(0.01) == ["work()"]
        with pytest.raises(StateError, match=r"^work\(\) was not run: the service has stopped$"):
            await waiting
        with pytest.raises(StateError, match=r"^cannot run late\(\) in a thread: the service has stopped$"):
            await pool.run("only", "late()", int)
        gate.go.set()
        await first
        closed(pool)

    play(scene)


def test_a_fork_of_the_process_has_no_threads_and_is_told_so() -> None:
    pool = ThreadPool(1, "work", ("only",))
    assert pool.run_sync("only", "seven()", lambda: 7) == 7
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            pool.run_sync("only", "seven()", lambda: 7)
        except StateError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    told = os.read(read, 1000).decode()
    os.close(read)
    closed(pool)
    assert told == "cannot run seven() in a thread: this process was forked from the service's own"


def test_a_thread_of_the_pool_does_not_wait_for_its_like() -> None:
    async def scene() -> None:
        pool = ThreadPool(1, "work", ("only",))
        nested = await pool.run("only", "outer()", lambda: pool.run_sync("only", "inner()", threading.get_ident))
        assert nested == await pool.run("only", "get_ident()", threading.get_ident)
        closed(pool)

    play(scene)
