"""A service's own code behind one face: a ``Service`` object, or a function, sync or async.

Must not report or decide: it calls, and lets come out what comes out.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Final, Protocol

from svcd.worker_runtime.computing.threads import is_async
from svcd.worker_runtime.context import Context
from svcd.worker_runtime.service import Service

Caught = BaseException | None

ANSWER_LIMIT: Final = 400  # characters of a strange answer that are passed on


class Body(Protocol):
    """``changed`` of the constructors is called when ``ended`` may have become true."""

    @property
    def target(self) -> object: ...  # what has methods that others may call; None for a function
    async def init(self, config: dict[str, Any]) -> None: ...
    async def start(self) -> None: ...
    async def stop(self, reason: str) -> None: ...
    async def pause(self) -> None: ...
    async def resume(self) -> None: ...
    async def check_health(self, method: str) -> str | None: ...
    def state_refusal(self) -> str | None: ...
    def has_state(self) -> bool: ...
    async def export_state(self) -> Any: ...
    async def import_state(self, state: Any, version: str | None) -> None: ...
    def ended(self) -> bool: ...
    def outcome(self) -> Caught: ...


class StateMismatch(Exception):  # noqa: N818 - it says what it found
    """A state that this code cannot take."""


class OwnThread:
    """One thread for all plain methods of a service, made when first needed: what ``init`` opens in it (a SQLite
    connection, say), ``stop`` may close in it.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """``function(*args)``, and what it returns awaited where it can be."""
        if is_async(function):
            return await function(*args)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="service")
        context = copy_context()
        loop = asyncio.get_running_loop()
        result, error = await loop.run_in_executor(self._pool, lambda: context.run(_call_caught, function, args))
        if error is not None:
            raise error
        return await result if inspect.isawaitable(result) else result


def _call_caught(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, Caught]:
    """Nothing may be left to the pool: a StopIteration or a SystemExit would get lost in it."""
    try:
        return function(*args), None
    except BaseException as error:
        return None, error


class ServiceBody:
    """A subclass of ``Service``; made at ``init``."""

    def __init__(self, cls: type[Service], ctx: Context) -> None:
        self._cls = cls
        self._ctx = ctx
        self._thread = OwnThread()
        self._service: Service | None = None

    @property
    def target(self) -> object:
        return self._service

    async def init(self, config: dict[str, Any]) -> None:
        service = self._cls.__new__(self._cls)
        service.ctx = self._ctx
        service.__init__()  # type: ignore[misc]  # on purpose in two steps: self.ctx is there in __init__
        self._service = service
        await self._call("init", config)

    async def start(self) -> None:
        await self._call("start")

    async def stop(self, reason: str) -> None:
        if self._service is not None:
            await self._call("stop", reason)

    async def pause(self) -> None:
        await self._call("pause")

    async def resume(self) -> None:
        await self._call("resume")

    async def check_health(self, method: str) -> str | None:
        """None and True are healthy; whatever else the method returns is what is wrong."""
        found = getattr(self._service, method, None)
        if not callable(found):
            return f"{self._cls.__name__} has no method {method!r}"
        result = await self._thread.call(found)
        return None if result is None or result is True else f"{method}() returned {result!r}"[:ANSWER_LIMIT]

    def state_refusal(self) -> str | None:
        missing = [f"{name}()" for name in ("export_state", "import_state") if self._is_base(name)]
        return f"{self._cls.__name__} has no {' and no '.join(missing)}" if missing else None

    def has_state(self) -> bool:
        return not self._is_base("export_state")

    async def export_state(self) -> Any:
        return await self._thread.call(getattr(self._service, "export_state"))  # noqa: B009 - the user's own, as below

    async def import_state(self, state: Any, version: str | None) -> None:
        """What its annotation says is made of the state. Raises ``StateMismatch`` where it does not fit."""
        from svcd.worker_runtime.calls.annotations import Mismatch  # noqa: PLC0415 - for the few services that import
        from svcd.worker_runtime.calls.methods import state_check  # noqa: PLC0415

        if self._is_base("import_state"):
            raise StateMismatch(f"{self._cls.__name__} has no import_state(), and there is a state to be imported")
        check = state_check(self._cls.import_state, self._cls.__name__)
        try:
            state = check(state, "state")
        except Mismatch as error:
            raise StateMismatch(f"cannot import the state: {error}") from None
        self._ctx.state_version = version
        await self._call("import_state", state)

    def _is_base(self, name: str) -> bool:
        return getattr(self._cls, name) is getattr(Service, name)

    def ended(self) -> bool:
        return False

    def outcome(self) -> Caught:
        return None

    async def _call(self, name: str, *args: Any) -> None:
        if not self._is_base(name):  # the base's own do nothing: no thread for them
            await self._thread.call(getattr(self._service, name), *args)


class FunctionBody:
    """A function of the context. Its return ends the service.

    On stop an async one is cancelled, unless it is waiting in ``ctx.stopping.wait_async()``, which wakes it; a sync
    one is expected to watch ``ctx.stopping``.
    """

    def __init__(self, function: Callable[[Any], Any], ctx: Context, changed: Callable[[], None]) -> None:
        self._function = function
        self._ctx = ctx
        self._changed = changed
        self._thread = OwnThread()
        self._task: asyncio.Task[Caught] | None = None

    @property
    def target(self) -> object:
        return None

    async def init(self, config: dict[str, Any]) -> None:
        return

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="service")
        self._task.add_done_callback(lambda _task: self._changed())

    async def stop(self, reason: str) -> None:
        if self._task is None or self._task.done():
            return
        cancelled = is_async(self._function) and not self._woken
        if cancelled:
            self._task.cancel()
        await asyncio.wait({self._task})
        error = self.outcome()
        if error is not None and not (cancelled and isinstance(error, asyncio.CancelledError)):
            raise error

    async def pause(self) -> None:
        """It may look at ``ctx.paused``; nothing else happens to it."""

    async def resume(self) -> None:
        """See ``pause``."""

    async def check_health(self, method: str) -> str | None:
        return f"a function has no method {method!r}"

    def state_refusal(self) -> str | None:
        return "a function has no export_state(): only a Service has"

    def has_state(self) -> bool:
        return False

    async def export_state(self) -> Any:
        raise StateMismatch(self.state_refusal())

    async def import_state(self, state: Any, version: str | None) -> None:
        raise StateMismatch("a function has no import_state(), and there is a state to be imported")

    def stop_asked(self) -> None:
        """To be told before ``ctx.stopping`` is set: whether the function is about to be woken by it."""
        self._woken = self._ctx.stopping.awaited

    _woken = False

    def ended(self) -> bool:
        return self._task is not None and self._task.done()

    def outcome(self) -> Caught:
        if self._task is None:
            return None
        return asyncio.CancelledError("cancelled by itself") if self._task.cancelled() else self._task.result()

    async def _run(self) -> Caught:
        try:
            await self._thread.call(self._function, self._ctx)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a SystemExit would tear the loop down from here
            return error
        return None
