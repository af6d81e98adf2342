"""Bounded threads that several kinds of work share, none of which can take them all.

Must not know what it runs, nor for whom: a job is a function whose outcome somebody waits for.

Each kind of work has a lane. A lane is given at most one thread less than there are, as long as it is not the only one:
whatever one kind of work does, another finds a thread. Threads are made when they are needed, and stay.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any, Final

from svcd.worker_runtime.lifetime.outcome import StateError

Caught = tuple[Any, BaseException | None]
Lost = Callable[[str, BaseException], None]
"""Told what a function raised that nobody waited for any more; in a thread of the pool."""

COMM_CHARACTERS: Final = 15  # of a thread's name that the kernel keeps
PAGE_BYTES: Final = 4096

_making = threading.Lock()  # threading.stack_size is the whole process'
_here = threading.local()


class Job:
    """One function to run once. ``on_abandoned``: called when nobody waits for it any more and it runs already."""

    __slots__ = ("_context", "call", "future", "is_abandoned", "on_abandoned", "what")

    def __init__(self, what: str, call: Callable[[], Any], on_abandoned: Callable[[], None] | None = None) -> None:
        self.what = what
        self.call = call
        self.on_abandoned = on_abandoned
        self.future: Future[Caught] = Future()
        self.is_abandoned = False
        self._context = copy_context()

    def run(self) -> Caught:
        """What came out of it. None of it is left to a future's own way with exceptions: no future carries a
        StopIteration, and none is to carry a SystemExit.
        """
        return self._context.run(_caught, self.call)


def _caught(call: Callable[[], Any]) -> Caught:
    try:
        return call(), None
    except BaseException as error:
        return None, error


class Lane:
    """One kind of work: what of it waits, and how many threads it has."""

    __slots__ = ("busy", "limit", "name", "queue")

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        self.busy = 0
        self.queue: deque[Job] = deque()


class ThreadPool:
    """``names``: its lanes. ``stack_size_bytes`` 0: as the system has it. ``pid``: the process that it is for, this
    one by default.
    """

    def __init__(
        self,
        limit: int,
        prefix: str,
        names: tuple[str, ...],
        stack_size_bytes: int = 0,
        on_lost: Lost = lambda what, error: None,
        pid: int | None = None,
    ) -> None:
        most = max(1, limit - 1) if len(names) > 1 else limit
        self.lanes = {name: Lane(name, most) for name in names}
        self._limit = limit
        self._prefix = prefix
        self._stack_size_bytes = -(-stack_size_bytes // PAGE_BYTES) * PAGE_BYTES
        self._on_lost = on_lost
        self._turns = deque(self.lanes.values())
        self._changed = threading.Condition(threading.Lock())
        self._spare = 0  # threads that wait for a job, or are about to look for one
        self._made = 0
        self._running: set[Job] = set()
        self._is_closed = False
        self._pid = os.getpid() if pid is None else pid

    # ---- for those who have something to run -------------------------------------------------------------------------

    async def run(
        self, lane: str, what: str, call: Callable[[], Any], on_abandoned: Callable[[], None] | None = None
    ) -> Any:
        """``call()`` in a thread, in this context, and what comes out of it. ``what``: its name, for errors.

        A cancellation takes it out of the queue; if it runs already, ``on_abandoned`` is called, and it ends alone.
        """
        job = Job(what, call, on_abandoned)
        self.submit(lane, job)
        try:
            value, error = await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            self.abandon(lane, job)
            raise
        if error is not None:
            raise error
        return value

    def run_sync(
        self, lane: str, what: str, call: Callable[[], Any], on_abandoned: Callable[[], None] | None = None
    ) -> Any:
        """The same, for a thread. One of this pool's own runs it itself: it would wait for its like otherwise."""
        if self.is_here:
            return call()
        job = Job(what, call, on_abandoned)
        self.submit(lane, job)
        value, error = job.future.result()
        if error is not None:
            raise error
        return value

    @property
    def is_here(self) -> bool:
        """Whether this is one of its threads."""
        return getattr(_here, "pool", None) is self

    def submit(self, lane: str, job: Job) -> None:
        """Raises ``StateError`` when there are no threads any more, ``RuntimeError`` when none can be made."""
        if os.getpid() != self._pid:
            raise StateError(f"cannot run {job.what} in a thread: this process was forked from the service's own")
        with self._changed:
            if self._is_closed:
                raise StateError(f"cannot run {job.what} in a thread: the service has stopped")
            queue = self.lanes[lane].queue
            queue.append(job)
            try:
                self._rouse()
            except RuntimeError as error:
                if self._made:  # those that there are will come to it
                    return
                queue.remove(job)
                raise RuntimeError(f"cannot run {job.what} in a thread: {error}") from None

    def abandon(self, lane: str, job: Job) -> None:
        """Nobody waits for it any more."""
        with self._changed:
            job.is_abandoned = job in self._running
            if job.future.cancel():
                try:
                    self.lanes[lane].queue.remove(job)
                except ValueError:  # a thread has just found it
                    pass
                return
        if not job.is_abandoned:  # it has ended in this very moment
            self._tell_lost(job)
        elif job.on_abandoned is not None:
            job.on_abandoned()

    # ---- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Nothing new: what has not begun never will, idle threads end. What runs goes on."""
        with self._changed:
            self._is_closed = True
            waiting = [job for lane in self.lanes.values() for job in lane.queue]
            for lane in self.lanes.values():
                lane.queue.clear()
            self._changed.notify_all()
        for job in waiting:
            if job.future.set_running_or_notify_cancel():
                error = StateError(f"{job.what} was not run: the service has stopped")
                job.future.set_result((None, error))

    def abandon_all(self) -> None:
        """Nobody waits any more for what runs."""
        with self._changed:
            running = tuple(self._running)
            for job in running:
                job.is_abandoned = True
        for job in running:
            if job.on_abandoned is not None:
                job.on_abandoned()

    def wait_idle(self, timeout_s: float) -> list[str]:
        """After ``close``: until nothing runs any more; what still does after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._running and (left_s := deadline - time.monotonic()) > 0:
                self._changed.wait(left_s)
            return sorted(job.what for job in self._running)

    # ---- threads -----------------------------------------------------------------------------------------------------

    def _rouse(self) -> None:
        """With the lock: see to it that somebody takes what can be taken."""
        ready = sum(min(len(lane.queue), lane.limit - lane.busy) for lane in self._turns)
        if ready > self._spare and self._made < self._limit:
            self._make_thread()
        elif ready:
            self._changed.notify()

    def _make_thread(self) -> None:
        number = f"-{self._made}"
        thread = threading.Thread(target=self._work, args=(number,), name=f"{self._prefix}{number}", daemon=True)
        with _making:
            before = threading.stack_size(self._stack_size_bytes) if self._stack_size_bytes else 0
            try:
                thread.start()
            finally:
                if self._stack_size_bytes:
                    threading.stack_size(before)
        self._made += 1
        self._spare += 1

    def _work(self, number: str) -> None:
        _here.pool = self
        _name_for_kernel(f"{self._prefix[: COMM_CHARACTERS - len(number)]}{number}")
        while (found := self._next()) is not None:
            lane, job = found
            outcome = job.run()
            self._done(lane, job)
            job.future.set_result(outcome)
            if job.is_abandoned:
                self._tell_lost(job)
            del found, job, outcome  # or what they hold would live as long as this thread is idle

    def _next(self) -> tuple[Lane, Job] | None:
        """The next job, waited for; None at the end."""
        with self._changed:
            while True:
                found = self._take()
                if found is not None:
                    self._spare -= 1
                    self._running.add(found[1])
                    try:
                        self._rouse()
                    except RuntimeError:  # no further thread can be made now
                        pass
                    return found
                if self._is_closed:
                    return None
                self._changed.wait()

    def _take(self) -> tuple[Lane, Job] | None:
        """With the lock: one job of the lane whose turn it is."""
        for _ in range(len(self._turns)):
            lane = self._turns[0]
            self._turns.rotate(-1)
            while lane.queue and lane.busy < lane.limit:
                job = lane.queue.popleft()
                if job.future.set_running_or_notify_cancel():
                    lane.busy += 1
                    return lane, job
        return None

    def _done(self, lane: Lane, job: Job) -> None:
        """Before anybody hears of it: what is asked for next is to find this thread."""
        with self._changed:
            lane.busy -= 1
            self._spare += 1
            self._running.discard(job)
            if self._is_closed:
                self._changed.notify_all()

    def _tell_lost(self, job: Job) -> None:
        error = job.future.result()[1]
        if error is not None:
            self._on_lost(job.what, error)


def _name_for_kernel(name: str) -> None:
    """What ``top -H`` and debuggers show."""
    try:
        with open("/proc/thread-self/comm", "w", encoding="utf-8") as file:
            file.write(name)
    except (OSError, UnicodeError):
        pass
