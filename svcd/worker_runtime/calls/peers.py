"""All that a service has to do with other services, put together: what ``ctx`` offers of calls, streams and events.

Must not know the controller: routes, permissions and paths are handed in.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

from svcd.protocol.call_errors import CallRefused, PermissionDenied, RemoteError, ServiceUnavailable
from svcd.protocol.errors import ProtocolError
from svcd.worker_runtime.calls.accepting import CheckPeer
from svcd.worker_runtime.calls.annotations import Mismatch
from svcd.worker_runtime.calls.calling import Caller, patience
from svcd.worker_runtime.calls.cancellation import Token
from svcd.worker_runtime.calls.endpoint import Bounds, Endpoint, OnError
from svcd.worker_runtime.calls.listening import Subscriptions
from svcd.worker_runtime.calls.methods import Method, listeners_of, methods_of
from svcd.worker_runtime.calls.publishing import Listening, Publisher, QueueBounds
from svcd.worker_runtime.calls.request import Request, current
from svcd.worker_runtime.calls.routes import Routes
from svcd.worker_runtime.calls.stream import Stream
from svcd.worker_runtime.computing.threads import Threads
from svcd.worker_runtime.lifetime.outcome import StateError

Offered = TypeVar("Offered")
Start = Callable[[str], Awaitable[str | None]]
"""Have that service started; None once it runs, or why it does not."""


def nobody(_peer: object) -> str:
    """A ``CheckPeer`` that refuses everybody: what holds until somebody says better."""
    raise PermissionDenied("cannot call this service: it is not known yet who may")


class Peers:
    """``serve`` opens what a service offers; ``close`` ends everything. ``loop``: that which serves, by default the one
    that runs here.
    """

    def __init__(
        self,
        service: str,
        routes: Routes,
        check_peer: CheckPeer = nobody,
        primary: Token | None = None,
        on_error: OnError = lambda method, error: None,
        start: Start | None = None,
        threads: Threads | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """``start``: gets a service started for somebody who looks it up. ``threads``: those of the plain methods; by
        default eight of its own.
        """
        self.service_name = service
        self.primary = primary if primary is not None else Token()
        self.threads = threads if threads is not None else Threads()
        self.endpoint: Endpoint | None = None
        self.publisher: Publisher | None = None
        self.subscriptions: Subscriptions | None = None
        self._routes = routes
        self._check_peer = check_peer
        self._on_error = on_error
        self._loop = loop or asyncio.get_running_loop()
        self._caller = Caller(routes, loop=self._loop)
        self._start = start
        self._events_path: str | None = None
        self._on_publisher: Callable[[], None] = lambda: None
        self._queue_bounds = QueueBounds()
        self._expected: Sequence[Listening] = ()
        self.on_loss: Callable[[], None] = lambda: None  # events were lost: ``take_losses`` says which

    # ---- what it offers ----------------------------------------------------------------------------------------------

    def serve(
        self,
        target: object,
        calls_path: str | None,
        events_path: str | None = None,
        bounds: Bounds | None = None,
        queue_bounds: QueueBounds | None = None,
    ) -> None:
        """Open what ``target`` offers, and hear what it listens to. Raises ``OSError``; ``TypeError`` for annotations
        whose values cannot travel.
        """
        cls = type(target)
        methods, listeners = methods_of(cls), listeners_of(cls)
        self._queue_bounds = queue_bounds or self._queue_bounds
        if events_path is not None:
            self._events_path = events_path
            self.open_publisher()
        if listeners:
            self.subscriptions = Subscriptions(target, listeners, self._routes, self.threads.run, self._on_error)
            self.subscriptions.on_loss = self.on_loss
            self.subscriptions.open()
        if calls_path is not None:
            self.endpoint = Endpoint(
                calls_path,
                self.service_name,
                target,
                methods,
                self._check_peer,
                self.primary,
                self.threads.run,
                self._on_error,
                bounds or Bounds(),
            )
            self.endpoint.open()

    def publish_at(self, path: str, on_open: Callable[[], None]) -> None:
        """Open that with the first event that is published, and say so."""
        self._events_path, self._on_publisher = path, on_open

    def open_publisher(self) -> Publisher:
        """Raises ``OSError``; ``StateError`` when nobody has said where."""
        if self.publisher is None:
            if self._events_path is None:
                raise StateError(f"{self.service_name} cannot publish: it is not up yet")
            publisher = Publisher(self._events_path, self._check_peer, self._queue_bounds)
            publisher.open()
            publisher.on_loss = self.on_loss
            publisher.reserve(self._expected)
            self.publisher = publisher
            self._on_publisher()
        return self.publisher

    def listeners(self) -> Sequence[Listening]:
        """Who listens to its events, or is expected to, for whoever replaces it."""
        return self._expected if self.publisher is None else self.publisher.listeners()

    def expect(self, listeners: Sequence[Listening]) -> None:
        """Who has listened to the run that this one replaces."""
        self._expected = listeners
        if self.publisher is not None:
            self.publisher.reserve(listeners)

    def take_losses(self) -> list[tuple[str, str, int]]:
        """(publisher, subscriber, events) that were lost since this was asked last: queues were full."""
        own, found = self.service_name, []
        if self.publisher is not None:
            found += [(own, each, count) for each, count in self.publisher.losses.items()]
            self.publisher.losses.clear()
        if self.subscriptions is not None:
            found += [(each, own, count) for each, count in self.subscriptions.losses.items()]
            self.subscriptions.losses.clear()
        return found

    async def drain(self, timeout_s: float | None) -> int:
        """Take nothing new, wait for what is in flight; how many requests are left after ``timeout_s``."""
        return 0 if self.endpoint is None else await self.endpoint.drain(timeout_s)

    def dismiss(self, name: str, reason: str) -> None:
        """Whoever is here by that name may not be any more."""
        if self.endpoint is not None:
            self.endpoint.dismiss(name, reason)
        if self.publisher is not None:
            self.publisher.dismiss(name)

    def close(self) -> None:
        """Everything at once. What is still in flight is cancelled."""
        for part in (self.endpoint, self.subscriptions, self.publisher, self._caller, self.threads):
            if part is not None:
                part.close()

    @property
    def offered(self) -> Endpoint:
        """Raises ``StateError`` before ``serve``."""
        if self.endpoint is None:
            raise StateError(f"{self.service_name} does not serve requests: it is not up yet, or offers none")
        return self.endpoint

    @property
    def request(self) -> Request | None:
        """The request that is being served here, None where there is none."""
        return current.get()

    # ---- what it asks for --------------------------------------------------------------------------------------------

    def call(
        self, name: str, /, *args: Any, timeout: float | None = None, wait: float | None = None, **named: Any
    ) -> Coroutine[Any, Any, Any]:
        """The result of ``service.method``, asked with these arguments.

        ``timeout``: seconds until ``DeadlineExceeded``; by default what is left to the request that is being served, or
        30. ``wait``: how many of them to wait for a service that does not run. Raises a ``CallError``.
        """
        return self._caller.call(name, list(args), named, timeout, wait)

    def call_sync(
        self, name: str, /, *args: Any, timeout: float | None = None, wait: float | None = None, **named: Any
    ) -> Any:
        """``call`` for threads. Raises ``StateError`` on a thread that runs an event loop."""
        if asyncio._get_running_loop() is not None:
            raise StateError("ctx.call_sync() would block the event loop: use 'await ctx.call()'")
        request = current.get()

        async def ask() -> Any:
            current.set(request)  # the loop's own context knows nothing of it
            return await self._caller.call(name, list(args), named, timeout, wait)

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result()

    def stream(
        self, name: str, /, *args: Any, timeout: float | None = None, wait: float | None = None, **named: Any
    ) -> Stream:
        """The items of ``service.method``, for ``async for``."""
        return self._caller.stream(name, list(args), named, timeout, wait)

    def service(
        self,
        of: type[Offered] | str,
        name: str | None = None,
        *,
        timeout: float | None = None,
        wait: float | None = None,
    ) -> Offered:
        """Something with the methods of that service, each a call to it, or a stream.

        ``of``: its class, against whose annotations arguments and results are checked on this side too, or its name.
        ``name``: what it is called in the cluster, by default the class' name in small letters.
        """
        return proxy(self._caller, of, name, timeout, wait)

    async def lookup(
        self,
        of: type[Offered] | str,
        name: str | None = None,
        *,
        start: bool = False,
        timeout: float | None = None,
        wait: float | None = None,
    ) -> Offered:
        """``service``, once that one runs. ``start``: if it does not, it is started with what it requires; ``wait``:
        seconds to wait for it, by default none, or all where it starts. Raises ``ServiceUnavailable`` with the reason,
        or ``PermissionDenied``.
        """
        wait = None if wait is None else patience(wait)
        found = self.service(of, name, timeout=timeout)
        service = of if isinstance(of, str) else name or of.__name__.lower()
        if start and not self._caller.routes.known(service):
            await self._started(service, wait)
        else:
            await self._caller.wait_found(service, wait)
        return found

    async def _started(self, service: str, wait: float | None) -> None:
        if self._start is None:
            raise ServiceUnavailable(f"cannot start {service}: nobody here can")
        self._caller.routes.check_permitted(service)
        try:
            async with asyncio.timeout(wait):
                error = await self._start(service)
        except TimeoutError:
            raise ServiceUnavailable(f"cannot call {service}: it was not up within {wait:g} s") from None
        if error is not None:
            raise ServiceUnavailable(f"cannot call {service}: {error}")

    def publish(self, topic: str, value: Any = None) -> None:
        """Tell all who listen to this service's ``topic``. Nobody is waited for; who is too slow loses it, counted.

        From any thread. Raises ``ValueError`` for what cannot travel, where it is called on the loop's own thread.
        """
        if asyncio._get_running_loop() is self._loop:
            self._publish(topic, value)
        else:
            self._loop.call_soon_threadsafe(self._publish, topic, value)

    def _publish(self, topic: str, value: Any) -> None:
        try:
            (self.publisher or self.open_publisher()).publish(topic, value)
        except ProtocolError as error:
            raise ValueError(f"cannot publish {topic}: {error}") from None


class Proxy:
    """``ctx.service(...)``: its attributes are the methods of another service."""

    def __init__(
        self, caller: Caller, name: str, methods: dict[str, Method] | None, timeout: float | None, wait: float | None
    ) -> None:
        self._caller = caller
        self._name = name
        self._methods = methods
        self._timeout = timeout
        self._wait = wait

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)
        name = f"{self._name}.{method}"
        if self._methods is None:
            return functools.partial(self._call, name, None)
        row = self._methods.get(method)
        if row is None:
            raise AttributeError(
                f"{self._name} offers no {method!r}, but {', '.join(sorted(self._methods)) or 'nothing'}"
            )
        return functools.partial(self._stream if row.is_stream else self._call, name, row)

    def __repr__(self) -> str:
        return f"<methods of {self._name}>"

    def __dir__(self) -> list[str]:
        """For whoever tries it out in a shell."""
        return sorted(self._methods or ())

    async def _call(self, name: str, row: Method | None, /, *args: Any, **named: Any) -> Any:
        self._check(name, row, args, named)
        result = await self._caller.call(name, list(args), named, self._timeout, self._wait)
        return result if row is None else _checked(name, row, result)

    def _stream(self, name: str, row: Method, /, *args: Any, **named: Any) -> Stream:
        self._check(name, row, args, named)
        rows = self._caller.stream(name, list(args), named, self._timeout, self._wait)
        rows.check = functools.partial(_checked, name, row)
        return rows

    @staticmethod
    def _check(name: str, row: Method | None, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        if row is not None:
            try:
                row.arguments(list(args), named)
            except Mismatch as error:
                raise CallRefused(f"cannot call {name}: {error}") from None


def proxy(
    caller: Caller, of: type[Offered] | str, name: str | None, timeout: float | None, wait: float | None
) -> Offered:
    """The methods of a service, of whose class it is, or of that name alone."""
    if isinstance(of, str):
        return cast("Offered", Proxy(caller, of, None, timeout, wait))
    if not isinstance(of, type):
        raise TypeError(f"a service is looked up by its class or its name, not by {of!r}")
    return cast("Offered", Proxy(caller, name or of.__name__.lower(), methods_of(of), timeout, wait))


def _checked(name: str, row: Method, value: Any) -> Any:
    try:
        return row.result(value, "its result")
    except Mismatch as error:
        raise RemoteError(f"{name} answered otherwise than its class here says: {error}") from None
