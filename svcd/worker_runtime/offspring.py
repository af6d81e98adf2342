"""The children of this service, on the parent's side: what is asked for them, where they stand, what is told of them.

Must not decide what becomes of a child, nor check its definition: the controller does, and its words come back.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Generic, TypedDict, TypeVar

from svcd.protocol import codec
from svcd.protocol.child_errors import BadChildDefinition, ChildError, ChildFailed, error_of
from svcd.protocol.errors import ProtocolError
from svcd.protocol.messages import (
    ChildChanged,
    ChildEnded,
    ChildOrderRequested,
    ChildRequestEnded,
    ChildServiceRequested,
    Message,
)
from svcd.record import replace
from svcd.worker_runtime.computing.threads import is_async
from svcd.worker_runtime.reports import Reports

HANDLER: Final = "child_ended"
KEPT: Final = 1000  # ends that wait for somebody to look at them; then the oldest go
REMOVED: Final = "removed"

Offered = TypeVar("Offered")
Ask = Callable[[Callable[[int], Message]], "asyncio.Future[ChildRequestEnded]"]
RunPlain = Callable[[Callable[[], Any]], Awaitable[Any]]
Find = Callable[..., Any]
"""``ctx.service``."""


class ChildDefinition(TypedDict, total=False):
    """The keys of a child in ``spawn_service``, each as in cluster.yaml."""

    code: str
    script: str | os.PathLike[str]
    command: str | list[str]
    path: list[str]
    config: dict[str, Any]
    type: str
    env: dict[str, str | None]
    tags: list[str]
    depends_on: list[str] | dict[str, Any]
    ready: str | dict[str, Any]
    restart: dict[str, Any]
    stop: dict[str, Any]
    logs: dict[str, Any]
    permissions: dict[str, Any]


class Child(Generic[Offered]):
    """A child service, for its parent. ``service`` has its methods; ``state`` is its state's word, ``removed`` once it
    is gone, and ``cause`` says why it is in it.
    """

    def __init__(self, name: str, service: Offered, order: Callable[[str, str], Awaitable[None]]) -> None:
        self.name = name
        self.service = service
        self.state = "unloaded"
        self.cause = ""
        self._order = order

    def __repr__(self) -> str:
        return f"<Child {self.name}: {self.state}>"

    async def start(self) -> None:
        """Return once it runs; joins a start in progress. Raises ``ChildFailed``, ``ChildRefused``."""
        await self._order(self.name, "start")

    async def stop(self) -> None:
        """Return once it has stopped. It stays registered, and down until it is started again."""
        await self._order(self.name, "stop")

    async def restart(self) -> None:
        """Return once another run of it is up. Raises ``ChildFailed``, ``ChildRefused``."""
        await self._order(self.name, "restart")

    async def remove(self) -> None:
        """Return once it has stopped and nothing is left of it but its logs. Raises ``ChildRefused`` while another
        child requires it.
        """
        await self._order(self.name, "remove")


class Offspring:
    """``receive`` what the controller says, ``begin`` once the service has started: what is told of children before
    that waits. ``find`` makes something with the methods of a service of a name.
    """

    def __init__(self, reports: Reports, ask: Ask, send: Callable[[Message], None]) -> None:
        self._reports = reports
        self._ask = ask
        self._send = send
        self._find: Find | None = None
        self._children: dict[str, Child[Any]] = {}
        self._making: dict[str, Child[Any]] = {}
        self.children: Mapping[str, Child[Any]] = MappingProxyType(self._children)
        self._handler: Callable[[Child[Any], ChildFailed | None], Any] | None = None
        self._run_plain: RunPlain | None = None
        self._waiting: deque[tuple[Child[Any], ChildFailed | None]] | None = deque(maxlen=KEPT)
        self._watchers: list[asyncio.Queue[tuple[Child[Any], ChildFailed | None]]] = []
        self._handling: set[asyncio.Task[None]] = set()  # the loop itself only remembers tasks weakly

    # ---- the service's life ----------------------------------------------------------------------------------------

    def join(self, find: Find, run_plain: RunPlain) -> None:
        self._find, self._run_plain = find, run_plain

    def begin(self, target: object) -> None:
        """The service has started: its ``child_ended``, if it has one of its own, hears of its children."""
        self._handler = getattr(target, HANDLER, None)
        waiting, self._waiting = self._waiting, None
        for child, error in waiting or ():
            self._handle(child, error)

    def close(self) -> None:
        for task in self._handling:
            task.cancel()

    # ---- what the service asks for ---------------------------------------------------------------------------------

    async def spawn(
        self, name: str, python: str | type[Any] | None, start: bool, wait: float | None, written: dict[str, Any]
    ) -> Child[Any]:
        """See ``Context.spawn_service``."""
        cls = python if isinstance(python, type) else None
        definition = _plain({"python": python if cls is None else _entry(name, cls), **written})
        assert self._find is not None, "join() comes first"
        child: Child[Any] = Child(name, self._find(name if cls is None else cls, name), self._order)
        is_first = name not in self._making and name not in self._children
        if is_first:
            self._making[name] = child
        try:
            await self._create(name, definition, start, wait)
        finally:
            if is_first:
                self._making.pop(name, None)
        self._children[name] = child
        return child

    async def _create(self, name: str, definition: dict[str, Any], start: bool, wait: float | None) -> None:
        reports = self._reports
        is_awaited = wait is None or wait > 0

        def make(token: int) -> ChildServiceRequested:
            return ChildServiceRequested(
                reports.service, reports.invocation, token, name, definition, start, is_awaited
            )

        _check(definition, make(0))
        try:
            async with asyncio.timeout(wait if is_awaited else None):
                _raise(await self._ask(make))
        except TimeoutError:
            await self._take_back(name)
            raise ChildFailed(f"cannot create {name}: it was not up within {wait:g} s") from None
        except asyncio.CancelledError:
            self._send(ChildOrderRequested(reports.service, reports.invocation, 0, name, "remove"))
            raise

    async def _take_back(self, name: str) -> None:
        try:
            await self._order(name, "remove")
        except ChildError:  # it is gone already
            pass

    async def _order(self, name: str, order: str) -> None:
        reports = self._reports
        _raise(
            await self._ask(
                lambda token: ChildOrderRequested(reports.service, reports.invocation, token, name, order),
            )
        )

    async def ends(self) -> AsyncIterator[tuple[Child[Any], ChildFailed | None]]:
        """Each child that ends by itself, from now on, with the error that it ended with."""
        queue: asyncio.Queue[tuple[Child[Any], ChildFailed | None]] = asyncio.Queue(KEPT)
        self._watchers.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove(queue)

    # ---- what the controller says ----------------------------------------------------------------------------------

    def on_changed(self, message: ChildChanged) -> None:
        child = self._making.get(message.child) or self._children.get(message.child)
        if child is None:
            return
        child.state, child.cause = message.state, message.cause
        if message.state == REMOVED and self._children.get(message.child) is child:
            del self._children[message.child]

    def on_ended(self, message: ChildEnded) -> None:
        """What is being created tells whoever creates it."""
        child = self._children.get(message.child)
        if child is None:
            return
        error = None if message.error is None else ChildFailed(f"{child.name} has ended: {message.error}")
        if self._waiting is not None:
            self._waiting.append((child, error))
        else:
            self._handle(child, error)

    def _handle(self, child: Child[Any], error: ChildFailed | None) -> None:
        for queue in self._watchers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait((child, error))
        if self._handler is not None:
            task = asyncio.get_running_loop().create_task(self._call(self._handler, child, error), name=HANDLER)
            self._handling.add(task)
            task.add_done_callback(self._handling.discard)

    async def _call(self, handler: Callable[..., Any], child: Child[Any], error: ChildFailed | None) -> None:
        assert self._run_plain is not None
        try:
            if is_async(handler):
                await handler(child, error)
            else:
                await self._run_plain(lambda: handler(child, error))
        except Exception as raised:
            self._reports.exception(raised)


def _plain(written: dict[str, Any]) -> dict[str, Any]:
    """As it travels: what is not said is left out."""
    return {
        key: os.fspath(value) if isinstance(value, os.PathLike) else value
        for key, value in written.items()
        if value is not None
    }


def _entry(name: str, cls: type[Any]) -> str:
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        problem = f"python: {cls.__qualname__} cannot be imported; put it at the top of a module"
        raise BadChildDefinition(f"cannot create {name}: {problem}", (problem,))
    return f"{cls.__module__}:{cls.__qualname__}"


def _check(definition: dict[str, Any], message: ChildServiceRequested) -> None:
    """Whether it can travel; if not, which of its keys cannot."""
    name: Any = message.name
    if not isinstance(name, str):
        problem = f"the name must be a text, not {type(name).__name__}"
        raise BadChildDefinition(f"cannot create {name!r}: {problem}", (problem,))
    if not (problem := _obstacle(message)):
        return
    named = [(key, _obstacle(replace(message, definition={key: value}))) for key, value in definition.items()]
    problems = tuple(f"{key}: {why}" for key, why in named if why) or (problem,)  # or it is too large as a whole
    raise BadChildDefinition(f"cannot create {name}: {'; '.join(problems)}", problems)


def _obstacle(message: Message) -> str:
    """Why it cannot travel; empty where it can."""
    try:
        codec.decode(codec.encode(message))
    except ProtocolError as error:
        text = str(error).removeprefix(f"cannot encode {type(message).__name__}: ")
        return "a key in it is no text" if "map key" in text else text
    return ""


def _raise(end: ChildRequestEnded) -> None:
    if end.code:
        raise error_of(end.code, end.error, end.problems)
