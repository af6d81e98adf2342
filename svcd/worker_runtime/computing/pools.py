"""What ``ctx.compute()`` and ``ctx.blocking()`` run in, put together as the settings say.

Must not outlive the service: ``close`` ends it all, within a bound.

Three kinds of plain code run beside the event loop, and none can starve another. A service's ``init``, ``start`` and
``stop`` have a thread of their own (``body``). Its other plain methods and ``ctx.blocking()`` share
``max_blocking_threads``, of which each leaves the other one at least. ``ctx.compute()`` has its own.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import threading
import time
from collections.abc import Callable, Coroutine
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final

from svcd.worker_runtime.computing.compute_errors import Abandoned
from svcd.worker_runtime.computing.runtime_settings import PROCESSES, RuntimeSettings
from svcd.worker_runtime.computing.thread_pool import Lost, ThreadPool
from svcd.worker_runtime.computing.threads import METHODS, Threads
from svcd.worker_runtime.lifetime.outcome import StateError

if TYPE_CHECKING:
    from svcd.protocol.messages import ServiceSpec
    from svcd.worker_runtime.context import Context
if TYPE_CHECKING:  # who computes in threads does not pay for processes
    from svcd.worker_runtime.computing.process_pool import Call, ProcessPool

BLOCKING: Final = "blocking"
COMPUTE: Final = "compute"
LEFTOVERS_S: Final = 0.5  # for functions that still run when the service has ended
LEFTOVERS_SHARE: Final = 0.1  # of the stop timeout, where that is less: nobody is to be killed for them


def _forget(_what: str, _error: BaseException) -> None:
    return


class Pools:
    """``told``: what compute processes are told of the service. ``methods``: the threads of its plain methods."""

    def __init__(
        self, settings: RuntimeSettings, told: dict[str, Any], on_lost: Lost = _forget, leftovers_s: float = LEFTOVERS_S
    ) -> None:
        self._settings = settings
        self._told = told
        self._on_lost = on_lost
        self._leftovers_s = leftovers_s
        self._in_processes = settings.compute == PROCESSES and settings.compute_threads > 0
        self._lane = COMPUTE if settings.compute_threads else BLOCKING
        self._processes: ProcessPool | None = None
        self._threads: tuple[ThreadPool, ThreadPool] | None = None  # made for the first who asks: most never do
        self._making = threading.Lock()  # several threads may be the first to ask
        self._is_closed = False
        self._pid = os.getpid()
        self.methods = Threads(self._shared)

    def _shared(self) -> ThreadPool:
        """Of all that waits, and of the plain methods."""
        return self._made()[0]

    def _computing(self) -> ThreadPool:
        return self._made()[1]

    def _made(self) -> tuple[ThreadPool, ThreadPool]:
        with self._making:
            if self._threads is None:
                self._threads = self._make()
                if self._is_closed:
                    self._threads[0].close()
                    self._threads[1].close()
            return self._threads

    def _make(self) -> tuple[ThreadPool, ThreadPool]:
        settings, pid = self._settings, self._pid
        count, size, lanes = settings.compute_threads, settings.stack_size_bytes, (BLOCKING, METHODS)
        shared = ThreadPool(settings.max_blocking_threads, BLOCKING, lanes, 0 if count else size, self._lost, pid)
        if not count:
            return shared, shared
        own_size = 0 if self._in_processes else size  # of threads that only wait for their process
        return shared, ThreadPool(count, settings.thread_prefix, (COMPUTE,), own_size, self._lost, pid)

    def _lost(self, what: str, error: BaseException) -> None:
        if not isinstance(error, Abandoned):
            self._on_lost(what, error)

    def compute(self, function: Callable[..., Any], args: Any, named: dict[str, Any]) -> Coroutine[Any, Any, Any]:
        what = _checked(function, "compute", "a thread calls ctx.compute_sync()")
        if self._in_processes:
            call = self._call(what, function, args, named)
            return self._computing().run(self._lane, what, call.run, call.abandon)
        return self._computing().run(self._lane, what, functools.partial(function, *args, **named))

    def compute_sync(self, function: Callable[..., Any], args: Any, named: dict[str, Any]) -> Any:
        if asyncio._get_running_loop() is not None:
            raise StateError("ctx.compute_sync() would block the event loop: use 'await ctx.compute()'")
        what = _checked(function, "compute")
        if self._in_processes:
            call = self._call(what, function, args, named)
            return self._computing().run_sync(self._lane, what, call.run, call.abandon)
        return self._computing().run_sync(self._lane, what, functools.partial(function, *args, **named))

    def blocking(self, function: Callable[..., Any], args: Any, named: dict[str, Any]) -> Coroutine[Any, Any, Any]:
        what = _checked(function, "blocking", "a thread calls the function itself")
        return self._shared().run(BLOCKING, what, functools.partial(function, *args, **named))

    def _call(self, what: str, function: Callable[..., Any], args: Any, named: dict[str, Any]) -> Call:
        from svcd.worker_runtime.computing import process_pool  # noqa: PLC0415 - see above

        with self._making:
            if self._processes is None:
                of_threads = {"stack_size_bytes": self._settings.stack_size_bytes, "name": self._settings.thread_prefix}
                self._processes = process_pool.ProcessPool({**self._told, **of_threads})
        return process_pool.Call(self._processes, what, function, args, named)

    def close(self, complain: Callable[[str], None] = lambda text: None) -> None:
        """What has not begun never will; compute processes are killed; threads get a moment to end."""
        with self._making:
            self._is_closed = True
            pools = set(self._threads or ())
        for pool in pools:
            pool.close()
        for pool in pools:
            pool.abandon_all()
        if self._processes is not None:
            self._processes.close()
        deadline = time.monotonic() + self._leftovers_s
        for pool in pools:
            for what in pool.wait_idle(deadline - time.monotonic()):
                complain(f"svcd: {what} still runs, and ends with the process\n")


def pools_for(ctx: Context, spec: ServiceSpec, loop: asyncio.AbstractEventLoop) -> Pools:
    """Those of a service. What a function raises that nobody waits for any more goes to the loop's exception handler.

    Raises ``BadRuntime``.
    """
    settings = RuntimeSettings.read(spec.runtime)
    context = {name: getattr(ctx, name) for name in ("name", "cluster", "instance", "invocation", "config")}
    if settings.compute == PROCESSES:
        context["config"] = deepcopy(ctx.config)  # as it came: what the service makes of it may not be picklable
    title = f"svcd: {settings.thread_prefix} {ctx.cluster}/{ctx.name}"

    def on_lost(what: str, error: BaseException) -> None:
        message = {"message": f"{what} failed when nobody waited for it any more", "exception": error}
        try:
            loop.call_soon_threadsafe(loop.call_exception_handler, message)
        except RuntimeError:  # the loop is closed: the end is near anyhow
            pass

    leftovers_s = min(LEFTOVERS_S, spec.stop_timeout_s * LEFTOVERS_SHARE)
    return Pools(settings, {"context": context, "code": spec.code, "title": title}, on_lost, leftovers_s)


class InPlace:
    """The same for code that is in a compute process already: it just goes on there."""

    def compute(self, function: Callable[..., Any], args: Any, named: dict[str, Any]) -> Coroutine[Any, Any, Any]:
        _checked(function, "compute", "use ctx.compute_sync()")
        return self._now(function, args, named)

    def compute_sync(self, function: Callable[..., Any], args: Any, named: dict[str, Any]) -> Any:
        _checked(function, "compute")
        return function(*args, **named)

    def blocking(self, function: Callable[..., Any], args: Any, named: dict[str, Any]) -> Coroutine[Any, Any, Any]:
        _checked(function, "blocking", "call the function itself")
        return self._now(function, args, named)

    @staticmethod
    async def _now(function: Callable[..., Any], args: Any, named: dict[str, Any]) -> Any:
        return function(*args, **named)


def _checked(function: Callable[..., Any], verb: str, in_thread: str | None = None) -> str:
    """What the function is called in errors. Raises ``TypeError``, and ``StateError`` where nothing can be awaited."""
    what = name_of(function)
    if not callable(function):
        raise TypeError(f"cannot run {what}: ctx.{verb}() takes a function and its arguments")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"cannot run {what} in a thread: it is async, so await it")
    if in_thread is not None and asyncio._get_running_loop() is None:
        raise StateError(f"ctx.{verb}() is for coroutines, and no event loop runs here: {in_thread}")
    return what


def name_of(function: object) -> str:
    """``crunch()``."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{str(name).replace('<locals>.', '')}()"
