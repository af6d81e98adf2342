"""When a service's state is exported: at an orderly stop, every so often, and whenever the controller asks.

Must not keep anything itself: what is exported goes to the controller. A failed export never ends the service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol

from svcd.protocol.errors import ProtocolError
from svcd.protocol.messages import ExportState, ServiceSpec, StateExported, StateSaved
from svcd.protocol.state_parts import parts_of
from svcd.worker_runtime.exceptions import one_line
from svcd.worker_runtime.orders import forgive
from svcd.worker_runtime.reports import Reports, print_text

SAVED_WITHIN_S: Final = 30.0


class Exporter(Protocol):
    """A service's code, as far as it is needed here."""

    def state_refusal(self) -> str | None:
        """Why its state cannot be kept, if so."""

    def has_state(self) -> bool:
        """Whether there is anything to export."""

    def export_state(self) -> Awaitable[Any]: ...


class Exports:
    """One export at a time. ``begin`` when the service runs, ``keep`` before its own ``stop``.

    ``is_connected``: whether there is somebody who would keep it.
    """

    def __init__(self, body: Exporter, spec: ServiceSpec, reports: Reports, loop: asyncio.AbstractEventLoop) -> None:
        self._body = body
        self._spec = spec
        self._reports = reports
        self._loop = loop
        self.is_connected: Callable[[], bool] = lambda: True
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()  # the loop itself only remembers tasks weakly
        self._saved: dict[int, asyncio.Future[None]] = {}
        self._own_token = 0
        self._running = False
        self._keeps = False
        self._timer: asyncio.TimerHandle | None = None
        self._regular: asyncio.Task[Any] | None = None

    def begin(self) -> None:
        """The service runs: from now on there is a state to export."""
        self._running = True
        if not self._spec.keep_state:
            return
        refusal = self._body.state_refusal()
        if refusal is not None:
            self._refuse(self._next_token(), refusal)
            return
        self._keeps = True
        self._export_later()

    def answer(self, message: ExportState) -> None:
        """The controller wants it."""
        if not self._running:
            self._refuse(message.token, "it does not run")
        elif not self._body.has_state():
            self._reports.tell(StateExported(self._spec.service, self._spec.invocation, message.token))
        else:
            self._start(self._export(message.token))

    async def keep(self) -> None:
        """For the last time: it is to stop, in good order. Returns once the state is safe, or after a while."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
        if self._regular is not None:
            self._regular.cancel()  # it may hang, and this one will be newer
        if not self._keeps or not self.is_connected():
            return
        try:
            await self._export_and_wait(self._spec.stop_timeout_s / 2)
        except asyncio.CancelledError as error:  # user code that means its own tasks, or raises it
            forgive()
            self._reports.exception(error, "export")
            self._refuse(self._own_token, "export_state() was cancelled")

    def end(self) -> None:
        """It stops badly: what was saved last stays."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()

    def take_saved(self, message: StateSaved) -> None:
        saved = self._saved.get(message.token)
        if saved is not None and not saved.done():
            saved.set_result(None)

    # ---- from time to time -------------------------------------------------------------------------------------------

    def _export_later(self) -> None:
        if self._running and self._spec.export_every_s > 0:
            self._timer = self._loop.call_later(self._spec.export_every_s, self._export_regularly)

    def _export_regularly(self) -> None:
        if not self.is_connected():
            self._export_later()
            return
        self._regular = self._start(self._export_and_wait(SAVED_WITHIN_S))
        self._regular.add_done_callback(lambda _task: self._export_later())

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._loop.create_task(work, name="export")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ---- one export --------------------------------------------------------------------------------------------------

    def _next_token(self) -> int:
        self._own_token -= 1
        return self._own_token

    async def _export_and_wait(self, timeout_s: float) -> None:
        token = self._next_token()
        saved = self._saved[token] = self._loop.create_future()
        try:
            if await self._export(token):
                await asyncio.wait({saved}, timeout=timeout_s)
        finally:
            del self._saved[token]

    async def _export(self, token: int) -> bool:
        """Whether there was something to send."""
        from svcd.worker_runtime.state import pack_state  # noqa: PLC0415 - for the few services that export

        async with self._lock:
            try:
                state = await self._body.export_state()
            except asyncio.CancelledError:
                if token > 0:  # somebody waits
                    self._refuse(token, "export_state() was cancelled")
                raise
            except BaseException as error:  # whatever user code raises: the service goes on
                self._reports.exception(error, "export")
                self._refuse(token, f"export_state() failed: {one_line(error)}")
                return False
            try:
                data, omitted = pack_state(state)
                parts = parts_of(data)
            except ProtocolError as error:
                self._refuse(token, str(error))
                return False
            for each in omitted:
                print_text(f"svcd: left out of the exported state: {each}\n")
            name, invocation = self._spec.service, self._spec.invocation
            for index, part in enumerate(parts):
                self._reports.tell(StateExported(name, invocation, token, index, len(parts), part, omitted))
            return True

    def _refuse(self, token: int, why: str) -> None:
        print_text(f"svcd: cannot export the state: {why}\n")
        self._reports.tell(StateExported(self._spec.service, self._spec.invocation, token, error=why))
