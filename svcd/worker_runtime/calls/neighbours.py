"""The stub's dealings with other services: routes that it is told, its endpoint, who knocks there, lookups, the drain.

Must not know a service's life beyond the moments that it is told of, nor how calls travel (``peers`` does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from svcd.protocol.call_errors import PermissionDenied
from svcd.protocol.messages import (
    ChildChanged,
    ChildEnded,
    ChildRequestEnded,
    Drain,
    DrainProgress,
    EndpointOpened,
    EventsLost,
    GoOn,
    HandedOver,
    HandOver,
    Listener,
    ListenersExpected,
    LookupEnded,
    Message,
    PeerAsked,
    PeerDismissed,
    PeerIdentified,
    ReportUse,
    RouteChanged,
    ServiceLookup,
    UseReported,
)
from svcd.worker_runtime.calls.cancellation import InFlight
from svcd.worker_runtime.calls.methods import listeners_of, methods_of
from svcd.worker_runtime.calls.peers import Peers
from svcd.worker_runtime.calls.publishing import Listening
from svcd.worker_runtime.calls.routes import Routes
from svcd.worker_runtime.calls.wire_socket import Peer
from svcd.worker_runtime.computing.threads import Threads
from svcd.worker_runtime.offspring import Offspring
from svcd.worker_runtime.reports import Reports

PROGRESS_S: Final = 0.25  # between two reports of how many requests are in flight
LOSSES_S: Final = 1.0  # between two reports of how many events were lost
UP: Final = frozenset({"running", "paused"})
LEAVING: Final = "leaving"
LISTEN_S: Final = 1.0  # for publishers to answer
LISTENERS_TOLD: Final = 256
TOPICS_TOLD: Final = 16  # of each
CONTROLLER_S: Final = 10.0  # for an answer about who knocks


class Neighbours:
    """``receive`` what the controller says, ``join`` before the service's code runs, ``serve`` once it has started,
    ``close`` after it has stopped. All on the loop, which is ``loop`` where none runs yet.
    """

    def __init__(
        self, reports: Reports, send: Callable[[Message], None], loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self._reports = reports
        self._send = send
        self._permitted: set[str] = set()
        self.routes = Routes(self._permitted.__contains__, self._wake)
        self.peers: Peers | None = None
        self._next_token = 0
        self._questions: dict[int, asyncio.Future[Any]] = {}
        self._lookups: dict[tuple[str, bool], asyncio.Future[Any]] = {}
        self._waking: set[asyncio.Task[None]] = set()  # the loop itself only remembers tasks weakly
        self._drain: asyncio.Task[None] | None = None
        self._handing_over: asyncio.Task[None] | None = None
        self.rest: Callable[[bool], Awaitable[str | None]] = _nothing_to_rest
        self._losses: asyncio.TimerHandle | None = None
        self._directory, self._is_heard = "", False
        self.offspring = Offspring(reports, self._ask, send)
        self._made = None if loop is None else self._make_peers(loop)
        self._receivers: dict[type, Callable[[Any], None]] = {
            RouteChanged: self._on_route,
            PeerIdentified: self._on_identified,
            PeerDismissed: self._on_dismissed,
            LookupEnded: self._on_lookup_ended,
            Drain: self._on_drain,
            HandOver: self._on_hand_over,
            GoOn: self._on_go_on,
            ChildRequestEnded: lambda message: self._answer(message.token, message),
            ChildChanged: self.offspring.on_changed,
            ChildEnded: self.offspring.on_ended,
            ListenersExpected: self._on_expected,
            ReportUse: self._on_report_use,
        }

    def receive(self, message: Message) -> bool:
        """Whether it was for here."""
        receiver = self._receivers.get(type(message))
        if receiver is not None:
            receiver(message)
        return receiver is not None

    # ---- the service's life ----------------------------------------------------------------------------------------

    def join(self, directory: str, is_heard: bool, threads: Threads | None = None) -> Peers:
        """From here on the service may call others. What it offers will be opened in ``directory``; ``is_heard``:
        somebody may listen to what it publishes. ``threads``: in which its plain methods run.
        """
        self._directory, self._is_heard = directory, is_heard
        peers = self.peers = self._made or self._make_peers(asyncio.get_running_loop())
        peers.service_name = self._reports.service
        peers.threads = threads or peers.threads
        peers.publish_at(f"{directory}/events", self._tell_endpoint)
        self.offspring.join(peers.service, peers.threads.run)
        return peers

    def _make_peers(self, loop: asyncio.AbstractEventLoop) -> Peers:
        """Before it is known whose they are."""
        peers = Peers("", self.routes, self._who, None, self._on_error, self.start, loop=loop)
        peers.on_loss = self._lost_events
        return peers

    def serve(self, target: object) -> None:
        """Open what ``target`` offers, and tell. Raises ``OSError``; ``TypeError`` for annotations whose values cannot
        travel.
        """
        peers = self._joined()
        offers = bool(methods_of(type(target)))
        if offers or listeners_of(type(target)):
            peers.serve(target, f"{self._directory}/calls" if offers else None)
        if self._is_heard and peers.publisher is None:
            peers.open_publisher()  # which tells
        elif offers:
            self._tell_endpoint()
        self.offspring.begin(target)

    async def listen(self) -> None:
        """Who takes over does so when it hears what the one before it heard."""
        subscriptions = self._joined().subscriptions
        if subscriptions is not None:
            await subscriptions.wait_heard(LISTEN_S)

    def _joined(self) -> Peers:
        assert self.peers is not None, "join() comes first"
        return self.peers

    def _tell_endpoint(self) -> None:
        peers, reports = self._joined(), self._reports
        calls, events = peers.endpoint is not None, peers.publisher is not None
        methods = {} if peers.endpoint is None else peers.endpoint.methods
        safe = tuple(sorted(name for name, each in methods.items() if each.is_safe))
        self._send(EndpointOpened(reports.service, reports.invocation, calls, events, safe))

    def leave(self) -> bool:
        """The service wants to end: the controller is asked for a drain, if there is anything to drain. It orders the
        stop then.
        """
        if self._drain is not None:
            return True
        last = self._reports.last_state
        offers = self.peers is not None and self.peers.endpoint is not None
        if not offers or last is None or last.state not in UP:
            return last is not None and last.state == LEAVING
        self._reports.state(LEAVING)
        return True

    def stop(self, reason: str) -> None:
        """The service is to stop: whatever is in flight is over."""
        if self.peers is not None:
            self.peers.primary.cancel(reason)

    def pause(self, paused: bool) -> None:
        """While paused it takes no new requests."""
        if self.peers is not None and self.peers.endpoint is not None:
            self.peers.endpoint.resting = "it is paused" if paused else None

    def close(self) -> None:
        """After the service's own stop."""
        for task in (self._drain, self._handing_over):
            if task is not None:
                task.cancel()
        self.offspring.close()
        if self._drain is not None:
            self._drain.cancel()
        if self.peers is not None:
            self.peers.close()
        if self._losses is not None:
            self._losses.cancel()
            self._tell_losses()

    def _lost_events(self) -> None:
        if self._losses is None:
            self._losses = asyncio.get_running_loop().call_later(LOSSES_S, self._tell_losses)

    def _tell_losses(self) -> None:
        self._losses, reports = None, self._reports
        for publisher, subscriber, count in self._joined().take_losses():
            self._send(EventsLost(reports.service, reports.invocation, publisher, subscriber, count))

    def _on_error(self, _method: str, error: BaseException) -> None:
        self._reports.exception(error)

    # ---- what is asked of the controller ---------------------------------------------------------------------------

    def _ask(self, make: Callable[[int], Message]) -> asyncio.Future[Any]:
        self._next_token += 1
        token = self._next_token
        answer = self._questions[token] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda _answer: self._questions.pop(token, None))
        self._send(make(token))
        return answer

    def _answer(self, token: int, value: Any) -> None:
        answer = self._questions.get(token)
        if answer is not None and not answer.done():
            answer.set_result(value)

    async def _who(self, peer: Peer) -> str:
        """Raises ``PermissionDenied``."""
        reports = self._reports
        answer = self._ask(
            lambda token: PeerAsked(reports.service, reports.invocation, token, peer.pid, peer.uid),
        )
        try:
            async with asyncio.timeout(CONTROLLER_S):
                name, refusal = await answer
        except TimeoutError:
            raise PermissionDenied("cannot tell who calls: the controller does not answer") from None
        if refusal is not None:
            raise PermissionDenied(refusal)
        return str(name)

    def _on_identified(self, message: PeerIdentified) -> None:
        self._answer(message.token, (message.name, message.refusal))

    def _on_dismissed(self, message: PeerDismissed) -> None:
        """Not at once: whom it was told of just before comes through the door in this turn of the loop."""
        asyncio.get_running_loop().call_soon(self._joined().dismiss, message.name, message.reason)

    async def start(self, service: str) -> str | None:
        """Have it started; None once it runs, or why it does not."""
        return await self._look_up(service, start=True)

    async def _look_up(self, service: str, start: bool) -> str | None:
        """Who asks for the same at the same time shares one question."""
        key = service, start
        if key not in self._lookups:
            reports = self._reports
            answer = self._lookups[key] = self._ask(
                lambda token: ServiceLookup(reports.service, reports.invocation, token, service, start)
            )
            answer.add_done_callback(lambda _answer: self._lookups.pop(key, None))
        error: str | None = await asyncio.shield(self._lookups[key])
        return error

    def _on_lookup_ended(self, message: LookupEnded) -> None:
        self._answer(message.token, message.error)

    def _wake(self, service: str) -> None:
        """Somebody calls a service that starts on demand."""
        task = asyncio.get_running_loop().create_task(self._wake_up(service), name=f"wake {service}")
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)

    async def _wake_up(self, service: str) -> None:
        error = await self._look_up(service, start=False)
        if error is None:
            self.routes.came(service)
        else:
            self.routes.missed(service, error)

    # ---- what the controller says ----------------------------------------------------------------------------------

    def _on_route(self, message: RouteChanged) -> None:
        target = message.target
        (self._permitted.add if message.permitted else self._permitted.discard)(target)
        self.routes.take(target, message)

    def _on_report_use(self, _message: ReportUse) -> None:
        endpoint = None if self.peers is None else self.peers.endpoint
        count = 0 if endpoint is None else endpoint.in_flight.count
        used_at_s = None if endpoint is None else endpoint.used_at_s
        unused_s = None if used_at_s is None else asyncio.get_running_loop().time() - used_at_s
        self._send(UseReported(self._reports.service, self._reports.invocation, count, unused_s))

    def _on_drain(self, message: Drain) -> None:
        if self._drain is None:
            self._drain = asyncio.get_running_loop().create_task(self._drained(message), name="drain")

    async def _drained(self, message: Drain) -> None:
        """Nobody finds us any more. Late requests are served for the grace; then nothing new is taken. What does not
        end in time is the controller's to tell: it keeps the time, too.
        """
        endpoint = self._joined().endpoint
        if endpoint is not None:
            self._report_progress(endpoint.in_flight)
            await asyncio.sleep(message.grace_s)
            endpoint.shut(message.reason or "it is about to stop")
            if await endpoint.in_flight.wait_idle(message.timeout_s):
                return
        self._reports.state("drained")

    # ---- a successor -------------------------------------------------------------------------------------------------

    def _on_hand_over(self, message: HandOver) -> None:
        if self._handing_over is not None:
            self._handing_over.cancel()
        self._handing_over = asyncio.get_running_loop().create_task(self._hand_over(message), name="hand over")

    async def _hand_over(self, message: HandOver) -> None:
        """Requests that come now are for the successor; those in flight end here, then the service's own code rests."""
        error: str | None = None
        endpoint = self._joined().endpoint
        if endpoint is not None:
            endpoint.moved = message.reason or "it is being replaced"
            left = await endpoint.in_flight.wait_idle(message.timeout_s)
            if left:
                error = f"{left} request{'' if left == 1 else 's'} not finished within {message.timeout_s:g} s"
        if error is None:
            error = await self.rest(True)
        listeners = () if error is not None else self._listeners()
        self._send(HandedOver(self._reports.service, self._reports.invocation, error, listeners))

    def _listeners(self) -> tuple[Listener, ...]:
        return tuple(
            Listener(name, tuple(each.decode("utf-8", "replace") for each in beginnings[:TOPICS_TOLD]), pid)
            for name, beginnings, pid in self._joined().listeners()[:LISTENERS_TOLD]
        )

    def _on_expected(self, message: ListenersExpected) -> None:
        told = message.listeners
        self._joined().expect([Listening(each.name, tuple(map(str.encode, each.topics)), each.pid) for each in told])

    def _on_go_on(self, message: GoOn) -> None:
        if self._handing_over is not None:
            self._handing_over.cancel()
        self._handing_over = asyncio.get_running_loop().create_task(self._go_on(), name="go on")

    async def _go_on(self) -> None:
        """As if nothing had happened."""
        await self.rest(False)
        endpoint = self._joined().endpoint
        if endpoint is not None:
            endpoint.moved = None

    def _report_progress(self, in_flight: InFlight, last: int = -1) -> None:
        """Now, and every so often while it changes and the drain goes on."""
        if self._drain is not None and self._drain.done():
            return
        if in_flight.count != last:
            self._send(DrainProgress(self._reports.service, self._reports.invocation, in_flight.count))
        loop = asyncio.get_running_loop()
        loop.call_later(PROGRESS_S, self._report_progress, in_flight, in_flight.count)


async def _nothing_to_rest(_wanted: bool) -> str | None:
    return None
