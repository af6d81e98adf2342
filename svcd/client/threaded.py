"""``Client``: calls, streams and the cluster's events, from a program without an event loop, for all of its threads.

Must not do anything of its own: an ``AsyncClient`` on a loop in a thread does it, and what is asked here waits for it.
"""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Final, TypeVar

from svcd.client.asynchronous import AsyncClient, PathLike, running_loop_here
from svcd.client.news import Event
from svcd.protocol.messages import StatusReported
from svcd.worker_runtime.lifetime.outcome import StateError

Got = TypeVar("Got")
Row = TypeVar("Row")

_END: Final[Any] = object()


class Client:
    """``with Client() as client:``, or ``close`` at the end. From any thread.

    ``cluster``: its name; ``run_dir``: its run directory. Without either: within a process that svcd runs, the cluster
    it belongs to; else that of ``SVCD_RUN_DIR``, or the only one that runs.
    """

    _is_open = False

    def __init__(self, cluster: str | None = None, *, run_dir: PathLike | None = None) -> None:
        """Raises ``ClusterUnavailable``."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._client = AsyncClient(cluster, run_dir=run_dir)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="svcd client", daemon=True)
        self._thread.start()
        self._is_open = True
        try:
            self.run(self._client.open)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """What is under way in other threads ends with ``StateError``. In a forked process it does nothing."""
        if os.getpid() != self._pid:
            self._is_open = False
            return
        self._check_thread()
        with self._lock:
            if not self._is_open:
                return
            self._is_open = False
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        """All that was asked for before this has begun by now, and ends here."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()
        await self._loop.shutdown_asyncgens()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._is_open and os.getpid() == self._pid:
            warnings.warn(f"a svcd.Client was not closed: {self!r}", ResourceWarning, stacklevel=1, source=self)
            self._loop.call_soon_threadsafe(self._loop.stop)

    # ---- services ----------------------------------------------------------------------------------------------------

    def call(
        self, name: str, /, *args: Any, timeout: float | None = None, wait: float | None = None, **named: Any
    ) -> Any:
        """The result of ``service.method``, asked with these arguments.

        ``timeout``: seconds until ``DeadlineExceeded``, by default 30. ``wait``: how many of them to wait for a service
        that does not run. One that starts on demand is started and waited for. Raises ``ServiceUnavailable``,
        ``Draining``, ``DeadlineExceeded``, ``PermissionDenied``, ``CallRefused`` or ``RemoteError``, each a
        ``CallError``. Ctrl-C cancels it.
        """
        return self.run(lambda: self._client.call(name, *args, timeout=timeout, wait=wait, **named))

    def stream(
        self, name: str, /, *args: Any, timeout: float | None = None, wait: float | None = None, **named: Any
    ) -> Rows[Any]:
        """The items of ``service.method``, for ``for``; in ``with`` where it may be left early.

        ``timeout``: seconds for all of them, by default none.
        """
        return Rows(self, self.run_here(lambda: self._client.stream(name, *args, timeout=timeout, wait=wait, **named)))

    def service(
        self,
        of: type | str,
        name: str | None = None,
        *,
        timeout: float | None = None,
        wait: float | None = None,
    ) -> Any:
        """Something with the methods of that service: ``client.service(Billing).charge(user="ann")``. Its streams are
        for ``for``.

        ``of``: its class, against whose annotations arguments and results are checked on this side too, or its name.
        ``name``: what it is called in the cluster; by default the class' name in small letters.
        """
        made: Any = self.run_here(lambda: self._client.service(of, name, timeout=timeout, wait=wait))
        return _Waiting(self, made)

    # ---- the cluster -------------------------------------------------------------------------------------------------

    def status(self, *services: str) -> StatusReported:
        """How the cluster stands, and these services, or all. Raises ``ClusterUnavailable``; ``CallRefused`` for an
        unknown name.
        """
        return self.run(lambda: self._client.status(*services))

    def events(self, *kinds: type, timeout: float | None = None) -> Rows[Event]:
        """What happens in the cluster from now on, for ``for``: ``ServiceTransitioned``, ``NoticeGiven``,
        ``ExceptionRecorded`` and ``ClusterStateChanged``, or only those of ``kinds``.

        Over when the cluster has ended; ``ClusterUnavailable`` where it was killed. ``timeout``: seconds for all of it.
        """

        async def begun() -> AsyncIterator[Event]:
            events = self._client.events(*kinds, timeout=timeout)
            await events.begun()
            return events

        return Rows(self, self.run(begun))

    @property
    def is_open(self) -> bool:
        """Whether it can be asked, in this process."""
        return self._is_open and os.getpid() == self._pid

    # ---- on the loop -------------------------------------------------------------------------------------------------

    def run(self, ask: Callable[[], Awaitable[Got]]) -> Got:
        """For the parts of a client: what ``ask()`` comes to, on the loop. Ctrl-C here cancels it."""

        async def asked() -> Got:
            return await ask()

        self._check_process()
        self._check_thread()
        with self._lock:  # so that ``close`` comes before or after it
            if not self._is_open:
                raise StateError("this client is closed")
            future = asyncio.run_coroutine_threadsafe(asked(), self._loop)
        try:
            return future.result()
        except CancelledError:
            raise StateError("this client was closed by another thread") from None
        except BaseException:
            future.cancel()
            raise

    def run_here(self, ask: Callable[[], Got]) -> Got:
        """For the parts of a client: ``run``, of what does not wait."""

        async def asked() -> Got:
            return ask()

        return self.run(asked)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise StateError(
                f"this client belongs to process {self._pid}, and this is {os.getpid()}, forked from it:"
                " make another client here"
            )

    @staticmethod
    def _check_thread() -> None:
        if running_loop_here():
            raise StateError("svcd.Client would block the event loop that runs in this thread: use svcd.AsyncClient")


class Rows(Iterator[Row]):
    """A stream, or events: ``for``, or ``with`` where it may be left early. For one thread at a time."""

    def __init__(self, client: Client, rows: AsyncIterator[Row]) -> None:
        self._client = client
        self._rows = rows

    def __next__(self) -> Row:
        row = self._client.run(self._next)
        if row is _END:
            raise StopIteration
        return row

    async def _next(self) -> Row:
        return await anext(self._rows, _END)

    def close(self) -> None:
        """Leave it: the callee's generator is closed. It has been left when its client is closed."""
        if self._client.is_open:
            self._client.run(self._rows.aclose)  # type: ignore[attr-defined]  # all that are given have it

    def __enter__(self) -> Rows[Row]:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class _Waiting:
    """A proxy of the ``AsyncClient``'s, whose methods are waited for."""

    def __init__(self, client: Client, proxy: Any) -> None:
        self._client = client
        self._proxy = proxy

    def __repr__(self) -> str:
        return repr(self._proxy)

    def __dir__(self) -> list[str]:
        return dir(self._proxy)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        found = getattr(self._proxy, method)

        def ask(*args: Any, **named: Any) -> Any:
            async def asked() -> Any:
                made = found(*args, **named)
                return made if hasattr(made, "__anext__") else await made

            result = self._client.run(asked)
            return Rows(self._client, result) if hasattr(result, "__anext__") else result

        return ask
