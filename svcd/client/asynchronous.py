"""``AsyncClient``: calls, streams and the cluster's events, from an asyncio program that is no service.

Must not serve anything, nor start or stop services: ``svcd start`` does.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from svcd.client import place
from svcd.client.control import Control
from svcd.client.finder import Finder
from svcd.protocol.messages import GetStatus, StatusReported
from svcd.worker_runtime.calls.calling import Caller
from svcd.worker_runtime.calls.stream import Stream
from svcd.worker_runtime.lifetime.outcome import StateError

if TYPE_CHECKING:
    from svcd.client.news import Events

Offered = TypeVar("Offered")
PathLike = str | os.PathLike[str]


class AsyncClient:
    """``async with AsyncClient() as client:``, or ``open`` and ``close``. For the tasks of one loop.

    ``cluster``: its name; ``run_dir``: its run directory. Without either: within a process that svcd runs, the cluster
    it belongs to; else that of ``SVCD_RUN_DIR``, or the only one that runs.
    """

    def __init__(self, cluster: str | None = None, *, run_dir: PathLike | None = None) -> None:
        self._cluster = cluster
        self._run_dir = run_dir
        self._pid = os.getpid()
        self._control: Control | None = None
        self._finder: Finder | None = None
        self._open_caller: Caller | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._events: WeakSet[Events] = WeakSet()

    async def open(self) -> None:
        """Raises ``ClusterUnavailable``, also as a ``ServiceUnavailable``."""
        self._check_process()
        if self._control is not None:
            raise StateError("this client is open already")
        control = Control(place.find(self._cluster, self._run_dir))
        try:
            await control.open()
        except BaseException:
            control.close()
            raise
        self._loop = asyncio.get_running_loop()
        self._control = control
        self._finder = Finder(control)
        self._open_caller = Caller(self._finder.routes, self._finder.find)

    async def close(self) -> None:
        """What is under way ends with ``ServiceUnavailable``."""
        control, caller, finder = self._control, self._open_caller, self._finder
        self._control, self._open_caller, self._finder = None, None, None
        if os.getpid() != self._pid:  # the sockets' readers are in the parent's epoll: they are its own
            return
        if control is not None and caller is not None and finder is not None:
            finder.close()
            control.close()
            caller.close()
            for each in tuple(self._events):
                await each.aclose()

    async def __aenter__(self) -> AsyncClient:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---- services ----------------------------------------------------------------------------------------------------

    def call(
        self, name: str, /, *args: Any, timeout: float | None = None, wait: float | None = None, **named: Any
    ) -> Coroutine[Any, Any, Any]:
        """The result of ``service.method``, asked with these arguments.

        ``timeout``: seconds until ``DeadlineExceeded``, by default 30. ``wait``: how many of them to wait for a service
        that does not run. One that starts on demand is started and waited for. Raises ``ServiceUnavailable``,
        ``Draining``, ``DeadlineExceeded``, ``PermissionDenied``, ``CallRefused`` or ``RemoteError``, each a
        ``CallError``.
        """
        return self._caller.call(name, list(args), named, timeout, wait)

    def call_typed(
        self, name: str, texts: dict[str, str], timeout: float | None = None, wait: float | None = None
    ) -> Coroutine[Any, Any, Any]:
        """``call`` with arguments as somebody has typed them: the method's annotations say what is made of each."""
        return self._caller.call(name, [], {}, timeout, wait, texts)

    def stream(
        self, name: str, /, *args: Any, timeout: float | None = None, wait: float | None = None, **named: Any
    ) -> Stream:
        """The items of ``service.method``, for ``async for``; in ``async with`` where it may be left early.

        ``timeout``: seconds for all of them, by default none.
        """
        return self._caller.stream(name, list(args), named, timeout, wait)

    def stream_typed(
        self, name: str, texts: dict[str, str], timeout: float | None = None, wait: float | None = None
    ) -> Stream:
        """``stream``, as ``call_typed``."""
        return self._caller.stream(name, [], {}, timeout, wait, texts)

    def service(
        self,
        of: type[Offered] | str,
        name: str | None = None,
        *,
        timeout: float | None = None,
        wait: float | None = None,
    ) -> Offered:
        """Something with the methods of that service: ``await client.service(Billing).charge(user="ann")``.

        ``of``: its class, against whose annotations arguments and results are checked on this side too, or its name.
        ``name``: what it is called in the cluster; by default the class' name in small letters.
        """
        from svcd.worker_runtime.calls.peers import proxy  # noqa: PLC0415 - a quarter of all there is to import

        return proxy(self._caller, of, name, timeout, wait)

    # ---- the cluster -------------------------------------------------------------------------------------------------

    async def status(self, *services: str) -> StatusReported:
        """How the cluster stands, and these services, or all. Raises ``ClusterUnavailable``; ``CallRefused`` for an
        unknown name.
        """
        return await self._opened.ask(GetStatus(services), StatusReported)

    def events(self, *kinds: type, timeout: float | None = None) -> Events:
        """What happens in the cluster from now on, for ``async for``: ``ServiceTransitioned``, ``NoticeGiven``,
        ``ExceptionRecorded`` and ``ClusterStateChanged``, or only those of ``kinds``.

        Over when the cluster has ended; ``ClusterUnavailable`` where it was killed. ``timeout``: seconds for all of it.
        Entered by ``async with``, it misses nothing of what happens after that; else those of the first moments may be
        missed.
        """
        from svcd.client.news import Events  # noqa: PLC0415 - most never listen

        made = Events(self._opened.place, kinds, timeout)
        self._events.add(made)
        return made

    # ---- what must be so ---------------------------------------------------------------------------------------------

    def _check_place(self) -> None:
        """The process and the loop that it was opened in."""
        self._check_process()
        if self._loop is not None and asyncio._get_running_loop() is not self._loop:
            raise StateError("this client belongs to another event loop: make another client here, or use svcd.Client")

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise StateError(
                f"this client belongs to process {self._pid}, and this is {os.getpid()}, forked from it:"
                " make another client here"
            )

    @property
    def _opened(self) -> Control:
        self._check_place()
        if self._control is None:
            raise StateError("this client is not open: use 'async with', or 'await client.open()'")
        return self._control

    @property
    def _caller(self) -> Caller:
        assert self._opened is not None  # or it says what is wrong
        assert self._open_caller is not None
        return self._open_caller


def running_loop_here() -> bool:
    """Whether an event loop runs in this thread: it must not be blocked."""
    return asyncio._get_running_loop() is not None
