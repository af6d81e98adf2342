"""State that outlives its service's runs (``state: keep``): saved when it comes, handed over before the next start.

Must not wait on a disk: files are written and read in one thread of their own, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from svcd.protocol.messages import ExceptionRaised, Message, StateSaved
from svcd.record import record, replace
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.journal import Journal
from svcd.supervisor.controller.processes.runs import Runs
from svcd.supervisor.controller.python import statefile
from svcd.supervisor.controller.python.exchange import Exchange, Exported, ExportFailed
from svcd.supervisor.controller.python.statefile import BadStateFile, SavedState
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core.actions import StubOrder, TellStub

CLOSE_WITHIN_S: Final = 5.0
SHOWN: Final = 3  # omissions in one notice; the service's own log has them all
SUPERSEDED: Final = "a newer one came before it was written"
TAKEN_OVER: Final = 0  # as a token: nobody waits to hear that it is saved

Result = TypeVar("Result")


@record
class _Writing:
    """One state that is to be written, and whom to tell."""

    saved: SavedState
    invocation: int
    token: int
    omitted: tuple[str, ...]


class Keeping:
    """Carries the orders to stubs, so that a start comes after the state. ``tell`` and ``send`` are the stubs' own.

    A service that floods us with states has one being written and one waiting; the newest counts.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        directory: Path,
        registry: Registry,
        runs: Runs,
        exchange: Exchange,
        tell: Callable[[TellStub], None],
        send: Callable[[int, Message], None],
        notice: Callable[[str, str], None],
        journal: Journal,
    ) -> None:
        self._loop = loop
        self._directory = directory
        self._registry = registry
        self._runs = runs
        self._exchange = exchange
        self._tell = tell
        self._send = send
        self._notice = notice
        self._journal = journal
        self._thread: ThreadPoolExecutor | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._next: dict[str, _Writing] = {}
        self._writers: dict[str, asyncio.Task[None]] = {}
        self._digests: dict[str, bytes] = {}  # of what is in the files, as far as we have written them
        self._told: dict[str, str] = {}
        self._imported: set[int] = set()
        self.is_current: Callable[[str, int], bool] = lambda service, invocation: True  # it is the service's own run
        exchange.on_unasked = self._take

    def tell(self, action: TellStub) -> None:
        """Executor of ``TellStub``."""
        definition = self._registry.get(action.service)
        if action.order is StubOrder.START and definition is not None and definition.launch.state.keep:
            self._do(self._start(action))
        else:
            self._tell(action)

    def take_exception(self, message: ExceptionRaised) -> None:
        """What a service has made of its state may be worth a word."""
        if message.phase == "import" and message.invocation in self._imported:
            path = statefile.path_of(self._directory, message.service)
            self._notice(message.service, f"it has refused its saved state; to start it without, remove {path}")

    def forget(self, service: str) -> None:
        """It was removed; its file stays."""
        self._digests.pop(service, None)
        self._told.pop(service, None)

    async def close(self) -> None:
        """Once what is being written is there, or after a while."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_WITHIN_S)
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    # ---- before a start ----------------------------------------------------------------------------------------------

    async def _start(self, action: TellStub) -> None:
        writer = self._writers.get(action.service)
        if writer is not None:
            await asyncio.wait({writer})
        saved, problem = await self._in_thread(self._load, action.service)
        if problem:
            self._notice(action.service, problem)
        run = self._runs.get(action.invocation)
        if run is None or self._registry.get(action.service) is None:  # it has ended meanwhile
            return
        if saved is not None:
            self._exchange.import_into(action.invocation, saved.state, saved.version)
            self._imported.add(action.invocation)
            run.clean_up.append(lambda: self._imported.discard(action.invocation))
            self._journal.note(
                "state handed over",
                service=action.service,
                invocation=action.invocation,
                saved_at=saved.at,
                version=saved.version,
            )
        self._tell(action)

    def _load(self, service: str) -> tuple[SavedState | None, str]:
        """In the thread. What cannot be used is put aside, so that nothing is lost and nothing stands in the way."""
        try:
            return statefile.read(self._directory, service), ""
        except BadStateFile as bad:
            reason = str(bad)
        except OSError as error:
            reason = error.strerror or str(error)
        path = statefile.path_of(self._directory, service)
        text = f"it starts without its saved state: cannot use {path}: {reason}"
        try:
            return None, f"{text}; it is now {statefile.set_aside(self._directory, service).name}"
        except OSError as error:
            return None, f"{text}; cannot put it aside either: {error.strerror or error}"

    # ---- what comes --------------------------------------------------------------------------------------------------

    def _take(self, service: str, invocation: int, token: int, exported: Exported | ExportFailed) -> None:
        definition = self._registry.get(service)
        if definition is None:
            return
        if not self.is_current(service, invocation):  # its successor has this state, and more
            self._send(invocation, StateSaved(invocation, token, SUPERSEDED))
            return
        if not definition.launch.state.keep:
            return
        if isinstance(exported, ExportFailed):
            self._say(service, f"cannot save its state: {exported}")
        elif exported.state is not None:
            self._save(service, invocation, token, exported.state, exported)

    def taken_over(self, service: str, invocation: int, exported: Exported) -> None:
        """A successor has begun with this state: it comes back with that, too. What it lacks has been told."""
        if exported.state is not None:
            self._save(service, invocation, TAKEN_OVER, exported.state, replace(exported, omitted=()))

    def _save(self, service: str, invocation: int, token: int, state: bytes, exported: Exported) -> None:
        older = self._next.get(service)
        if older is not None:
            self._send(older.invocation, StateSaved(older.invocation, older.token, SUPERSEDED))
        saved = SavedState(service, exported.version, clock.wall(), state)
        self._next[service] = _Writing(saved, invocation, token, exported.omitted)
        if service not in self._writers:
            self._writers[service] = self._do(self._write_all(service))

    async def _write_all(self, service: str) -> None:
        try:
            while (writing := self._next.pop(service, None)) is not None:
                problem = await self._in_thread(self._write, writing.saved)
                self._send(writing.invocation, StateSaved(writing.invocation, writing.token, problem or None))
                if problem:
                    self._say(service, f"cannot save its state: {problem}")
                else:
                    self._say(service, _omission_words(writing.omitted))
        finally:
            del self._writers[service]

    def _write(self, saved: SavedState) -> str:
        """In the thread; what went wrong. What is there already is not written again."""
        digest, path = statefile.digest_of(saved), statefile.path_of(self._directory, saved.service)
        try:
            if self._digests.get(saved.service) != digest or not path.exists():
                statefile.write(self._directory, saved)
        except OSError as error:
            return f"cannot write {path}: {error.strerror or error}"
        self._digests[saved.service] = digest
        return ""

    def _say(self, service: str, text: str) -> None:
        """Once, until there is something else to say."""
        if self._told.get(service, "") != text:
            self._told[service] = text
            if text:
                self._notice(service, text)

    # ---- small parts -------------------------------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _in_thread(self, function: Callable[..., Result], *args: Any) -> Result:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="states")
        return await self._loop.run_in_executor(self._thread, function, *args)


def _omission_words(omitted: tuple[str, ...]) -> str:
    if not omitted:
        return ""
    more = f", and {len(omitted) - SHOWN} more" if len(omitted) > SHOWN else ""
    return f"its state was saved without {', '.join(omitted[:SHOWN])}{more}"
