"""``Context``: what a service knows of itself, and what it can do in its cluster.

Must not know the controller, the wire or the order of a service's life; the runtime hands in what it needs of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

from svcd.worker_runtime.flags import Paused, Stopping
from svcd.worker_runtime.lifetime.outcome import StateError

if TYPE_CHECKING:  # a service that neither calls nor is called does not pay for it
    from svcd.protocol.child_errors import ChildFailed
    from svcd.worker_runtime.calls.cancellation import InFlight, Token
    from svcd.worker_runtime.calls.peers import Peers
    from svcd.worker_runtime.calls.request import Request
    from svcd.worker_runtime.calls.stream import Stream
    from svcd.worker_runtime.computing.pools import InPlace, Pools
    from svcd.worker_runtime.lifetime.startable import Startable
    from svcd.worker_runtime.offspring import Child, ChildDefinition, Offspring

Offered = TypeVar("Offered")
Given = ParamSpec("Given")
Returned = TypeVar("Returned")
StopRequest = Callable[["str | BaseException | None"], None]


class Context:
    """What a service knows of itself: ``self.ctx`` of a ``Service``, the argument of a function.

    ``name`` is the service's, ``cluster`` its cluster's; ``instance`` counts from 0 and ``invocation`` names this one
    run. ``config`` is the mapping from the cluster file. ``stopping`` tells when to stop, ``paused`` whether the
    service is paused (``svcd pause``): a function that never looks is paused by word alone. ``version`` is what the
    cluster file says, ``state_version`` that of the service whose state ``import_state`` is given. ``parent`` is the
    name of the service that has created this one.
    """

    __slots__ = (
        "_life",
        "_logger",
        "_offspring",
        "_peers",
        "_pools",
        "_request_stop",
        "cluster",
        "config",
        "instance",
        "invocation",
        "name",
        "parent",
        "paused",
        "state_version",
        "stopping",
        "version",
    )

    def __init__(
        self,
        name: str,
        cluster: str,
        instance: int,
        invocation: int,
        config: dict[str, Any],
        stopping: Stopping,
        request_stop: StopRequest,
    ) -> None:
        self.name = name
        self.cluster = cluster
        self.instance = instance
        self.invocation = invocation
        self.config = config
        self.stopping = stopping
        self._request_stop = request_stop
        self._logger: Any = None
        self._life: Startable | None = None
        self.version: str | None = None
        self.state_version: str | None = None
        self.paused = Paused()
        self._peers: Peers | None = None
        self._offspring: Offspring | None = None
        self.parent: str | None = None
        self._pools: Pools | InPlace | None = None

    @property
    def logger(self) -> Any:
        """A structlog logger, bound with service and invocation; it writes lines to stderr."""
        if self._logger is None:
            from svcd.worker_runtime.logger import make_logger  # noqa: PLC0415 - structlog takes 100 ms to import

            self._logger = make_logger(self.name, self.invocation)
        return self._logger

    def stop(self, error: str | BaseException | None = None) -> None:
        """Let this service stop by itself: well, or with ``error`` as a crash. Returns at once; from any thread.

        Who stops well and takes requests is drained first, as for any stop: nobody finds it any more, and what is in
        flight is finished before ``stopping`` is set. With an error it stops at once.

        Can be given to a Startable as its hook: ``start(on_stopping=ctx.stop)``.
        """
        if error is not None and not isinstance(error, str | BaseException):
            raise TypeError(f"cannot stop {self.name} with {type(error).__name__}: say why in words, or an exception")
        self._request_stop(error)

    # ---- its life ----------------------------------------------------------------------------------------------------

    def live(self, life: Startable) -> None:
        """For the runtime: this is the life of the service."""
        self._life = life

    @property
    def life(self) -> Startable:
        """The Startable that this service is: ``state``, ``ended``, ``start_part``, ``watch``, and for others to watch.

        ``starting`` from ``init`` on, ``started`` once ``start`` has ended. What is started with ``start_part`` stops
        after the service's own ``stop``, in reverse order; if it breaks, the service stops with its error, as a crash.
        """
        if self._life is None:
            raise StateError(f"{self.name} has no life: it does not run in a stub")
        return self._life

    # ---- code that would block the event loop ------------------------------------------------------------------------

    def equip(self, pools: Pools | InPlace) -> None:
        """For the runtime: from here on there are threads to run code in."""
        self._pools = pools

    @property
    def _equipped(self) -> Pools | InPlace:
        if self._pools is None:
            raise StateError(f"{self.name} has no threads to run code in: nothing runs it")
        return self._pools

    def compute(
        self, function: Callable[Given, Returned], /, *args: Given.args, **named: Given.kwargs
    ) -> Coroutine[Any, Any, Returned]:
        """What ``function`` returns, run beside the event loop: for what needs the processor.

        At most ``compute_threads`` of them run at a time, in threads or, with ``compute: processes``, in processes.
        What it raises is raised here; ``ComputeError`` is what a process could not take, bring back or survive. When
        nobody waits for it any more it is not begun; if it has begun, a thread goes on in vain, a process is killed.
        """
        return self._equipped.compute(function, args, named)

    def compute_sync(
        self, function: Callable[Given, Returned], /, *args: Given.args, **named: Given.kwargs
    ) -> Returned:
        """``compute`` for plain methods and threads. A computing thread, or process, just goes on with it."""
        result: Returned = self._equipped.compute_sync(function, args, named)
        return result

    def blocking(
        self, function: Callable[Given, Returned], /, *args: Given.args, **named: Given.kwargs
    ) -> Coroutine[Any, Any, Returned]:
        """What ``function`` returns, run in a thread: for what waits, for a disk or a server, without asyncio.

        ``max_blocking_threads`` are shared with the plain methods of this service; one is always left for those. A
        thread that blocks already needs nothing of the kind: it calls the function.
        """
        return self._equipped.blocking(function, args, named)

    # ---- other services ----------------------------------------------------------------------------------------------

    def join(self, peers: Peers) -> None:
        """For the runtime: from here on others can be called."""
        self._peers = peers

    @property
    def _joined(self) -> Peers:
        if self._peers is None:
            raise StateError(f"{self.name} cannot reach other services: it has not been connected with them")
        return self._peers

    def call(
        self, name: str, /, *args: Any, timeout: float | None = None, wait: float | None = None, **named: Any
    ) -> Coroutine[Any, Any, Any]:
        """The result of ``service.method``, asked with these arguments.

        ``timeout``: seconds until ``DeadlineExceeded``; by default what is left to the request that is being served, or
        30. ``wait``: how many of them to wait for a service that does not run. Raises ``ServiceUnavailable``,
        ``Draining``, ``DeadlineExceeded``, ``PermissionDenied``, ``CallRefused`` or ``RemoteError``, each a
        ``CallError``. Large arrays and buffers are sent as they are: let them be until the call has returned.
        """
        return self._joined.call(name, *args, timeout=timeout, wait=wait, **named)

    def call_sync(
        self, name: str, /, *args: Any, timeout: float | None = None, wait: float | None = None, **named: Any
    ) -> Any:
        """``call`` for plain methods. Raises ``StateError`` on a thread that runs an event loop."""
        return self._joined.call_sync(name, *args, timeout=timeout, wait=wait, **named)

    def stream(
        self, name: str, /, *args: Any, timeout: float | None = None, wait: float | None = None, **named: Any
    ) -> Stream:
        """The items of ``service.method``, for ``async for``; in ``async with`` where it may be left early."""
        return self._joined.stream(name, *args, timeout=timeout, wait=wait, **named)

    def service(
        self,
        of: type[Offered] | str,
        name: str | None = None,
        *,
        timeout: float | None = None,
        wait: float | None = None,
    ) -> Offered:
        """Something with the methods of another service: ``await ctx.service(Billing).charge(user="ann")``.

        ``of``: its class, against whose annotations arguments and results are checked on this side too, or its name.
        ``name``: what it is called in the cluster; by default the class' name in small letters.
        """
        return self._joined.service(of, name, timeout=timeout, wait=wait)

    async def lookup(
        self,
        of: type[Offered] | str,
        name: str | None = None,
        *,
        start: bool = False,
        timeout: float | None = None,
        wait: float | None = None,
    ) -> Offered:
        """What ``service`` gives, once that one runs: ``reports = await ctx.lookup("reports", start=True)``.

        ``start``: where it does not run, it is started first, with what it requires; who looks it up meanwhile waits
        for the same start. ``wait``: seconds to wait, by default none, or as long as a start takes. Raises
        ``ServiceUnavailable`` with the reason, or ``PermissionDenied``.
        """
        return await self._joined.lookup(of, name, start=start, timeout=timeout, wait=wait)

    def publish(self, topic: str, value: Any = None) -> None:
        """Tell all who listen to this service's ``topic``. Nobody is waited for; who is too slow loses it, counted."""
        self._joined.publish(topic, value)

    # ---- child services ----------------------------------------------------------------------------------------------

    def raise_children(self, offspring: Offspring, parent: str | None) -> None:
        """For the runtime: from here on there can be children."""
        self._offspring, self.parent = offspring, parent

    @property
    def _family(self) -> Offspring:
        if self._offspring is None:
            raise StateError(f"{self.name} cannot have children: it has not been connected with the controller")
        return self._offspring

    @overload
    async def spawn_service(
        self,
        name: str,
        python: type[Offered],
        *,
        start: bool = True,
        wait: float | None = None,
        **definition: Unpack[ChildDefinition],
    ) -> Child[Offered]: ...

    @overload
    async def spawn_service(
        self,
        name: str,
        python: str | None = None,
        *,
        start: bool = True,
        wait: float | None = None,
        **definition: Unpack[ChildDefinition],
    ) -> Child[Any]: ...

    async def spawn_service(
        self,
        name: str,
        python: str | type[Any] | None = None,
        *,
        start: bool = True,
        wait: float | None = None,
        **definition: Unpack[ChildDefinition],
    ) -> Child[Any]:
        """A child service, once it runs: ``await ctx.spawn_service("shard-3", Shard, config={"number": 3})``.

        It requires this service, ends before it and goes with it. ``python``: its class, or "module:name"; or ``code``,
        ``script`` or ``command``, and further keys as in cluster.yaml. ``start`` False: it is registered alone, and
        ``child.start()`` starts it. ``wait``: seconds, 0 for not at all, by default as long as its start takes.

        Raises a ``ChildError``, and nothing is left of the child then: ``SpawnNotPermitted``, ``ChildNameTaken``,
        ``BadChildDefinition``, ``ChildRefused``, or ``ChildFailed`` where it did not come up.
        """
        return await self._family.spawn(name, python, start, wait, {**definition})

    @property
    def children(self) -> Mapping[str, Child[Any]]:
        """The children that there are, by name."""
        return self._family.children

    def child_ends(self) -> AsyncIterator[tuple[Child[Any], ChildFailed | None]]:
        """Each child that ends by itself from now on, with its error, for ``async for``; as ``child_ended`` is told."""
        return self._family.ends()

    # ---- requests ----------------------------------------------------------------------------------------------------

    @property
    def request(self) -> Request | None:
        """The request that is being served here: its ``caller``, ``deadline_s`` and ``token``. None elsewhere."""
        return self._joined.request

    @property
    def primary_token(self) -> Token:
        """Cancelled when the service is to stop."""
        return self._joined.primary

    @property
    def endpoint_token(self) -> Token:
        """Below the primary one: cancelled when no new requests are taken."""
        return self._joined.offered.token

    @property
    def in_flight(self) -> InFlight:
        """The requests that were begun and have not ended."""
        return self._joined.offered.in_flight


_current: Context | None = None


def current_context() -> Context:
    """The ``Context`` of the service that this process runs, for code that was not handed it.

    A process runs one service, so this holds in each of its threads, whoever made them, and in its compute processes.
    Raises ``StateError`` where no service runs, and while its code is only being imported.
    """
    if _current is None:
        raise StateError("no service runs in this process, or its code is only being imported")
    return _current


def enter(ctx: Context | None) -> None:
    """For the runtime: this process runs that service from here on; None: no more."""
    global _current
    _current = ctx
