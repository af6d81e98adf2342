"""What becomes true, for whoever waits in threads and in coroutines: ``Flag``, ``Stopping``, ``Paused``.

Must not know a service: it is told when it is so.
"""

from __future__ import annotations

import asyncio
import threading

from svcd.worker_runtime.lifetime.outcome import StateError


class Flag:
    """Something that becomes true. For threads ``wait``, for coroutines ``wait_async``, for both ``is_set``."""

    __slots__ = ("_event", "_is_set", "_lock", "_waiters", "_wording")

    def __init__(self, wording: str, is_set: bool = False) -> None:
        """``wording``: what users call its ``wait``, for the error."""
        self._wording = wording
        self._is_set = is_set
        self._event: threading.Event | None = None  # made for the first thread that waits: most services have none
        self._lock = threading.Lock()
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread until it is set, or for ``timeout`` seconds; True when it is.

        Raises ``StateError`` on a thread that runs an event loop: everything on the loop would stand still.
        """
        if asyncio._get_running_loop() is not None:
            name = self._wording
            raise StateError(f"ctx.{name}() would block the event loop: use 'await ctx.{name}_async()'")
        with self._lock:
            if self._is_set:
                return True
            if self._event is None:
                self._event = threading.Event()
        return self._event.wait(timeout)

    async def wait_async(self) -> None:
        """Return once it is set."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._is_set:
                return
            waiter = loop, loop.create_future()
            self._waiters.append(waiter)
        try:
            await waiter[1]
        finally:
            with self._lock:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    @property
    def awaited(self) -> bool:
        """Whether a coroutine is in ``wait_async`` right now."""
        return bool(self._waiters)

    def set(self) -> None:
        """For the runtime: wake everybody."""
        with self._lock:
            self._is_set = True
            if self._event is not None:
                self._event.set()
            waiters, self._waiters = self._waiters, []
        for loop, future in waiters:
            try:
                loop.call_soon_threadsafe(_wake, future)
            except RuntimeError:  # a loop of the service's own, closed by now
                pass

    def clear(self) -> None:
        """For the runtime: from here on who waits has to wait."""
        with self._lock:
            self._is_set = False
            if self._event is not None:
                self._event.clear()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Stopping(Flag):
    """Set once the service is to stop. For threads ``wait``, for coroutines ``wait_async``, for both ``is_set``."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("stopping.wait")


class Paused:
    """True while the service is paused: ``if ctx.paused``, or ``ctx.paused.is_set()``.

    Who looks for it can also wait for its end: threads in ``wait_over``, coroutines in ``wait_over_async``. Both return
    at once when the service is not paused, and when it is to stop.
    """

    __slots__ = ("_over",)

    def __init__(self) -> None:
        self._over = Flag("paused.wait_over", is_set=True)

    def __bool__(self) -> bool:
        return self.is_set()

    def is_set(self) -> bool:
        return not self._over.is_set()

    def wait_over(self, timeout: float | None = None) -> bool:
        """Block this thread while the service is paused, at most for ``timeout`` seconds; True when it goes on.

        Raises ``StateError`` on a thread that runs an event loop: everything on the loop would stand still.
        """
        return self._over.wait(timeout)

    async def wait_over_async(self) -> None:
        """Return once the service is not paused."""
        await self._over.wait_async()

    def begin(self) -> None:
        """For the runtime."""
        self._over.clear()

    def end(self) -> None:
        """For the runtime: wake everybody."""
        self._over.set()
