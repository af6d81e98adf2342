"""Where a service answers calls: each is checked, run, answered, and stopped when nobody waits for it any more.

Must not know who may call (``check_peer`` says that), nor where callers find it.

Nothing is run that could not be answered: an unknown method, arguments that do not fit, a deadline that is over, too
much in flight already, or an endpoint that is shut are told in place of a result, with the certainty that nothing was
begun. What a caller breaks costs it its own connection.
"""

from __future__ import annotations

import asyncio
import difflib
import inspect
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic  # the loop's clock, and the wire's
from typing import Any, Final

from svcd.protocol import call_wire, values
from svcd.protocol.call_errors import DeadlineExceeded, FailureCode
from svcd.protocol.call_wire import Call, Cancel, Closed, Credit, End, Failed, Item
from svcd.protocol.errors import ProtocolError
from svcd.protocol.limits import MAX_CALL_BYTES
from svcd.protocol.zmtp_large import Frame, Oversized
from svcd.record import record
from svcd.worker_runtime.calls import eager, typed
from svcd.worker_runtime.calls.accepting import CheckPeer, Door
from svcd.worker_runtime.calls.annotations import Mismatch
from svcd.worker_runtime.calls.cancellation import InFlight, Token
from svcd.worker_runtime.calls.methods import Method, bound
from svcd.worker_runtime.calls.request import Request, current
from svcd.worker_runtime.calls.wire_socket import Handlers, WireSocket
from svcd.worker_runtime.exceptions import describe, one_line

SWEEP_S: Final = 0.25  # how late a deadline is enforced here; the caller keeps it exactly
RESOLUTION_S: Final = 0.005  # of deadlines
TURN_ITEMS: Final = 32  # of a stream that never waits, until others get their turn
DENIED_BYTES: Final = 64 * 1024

RunSync = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a plain function in a thread, in the present context."""

OnError = Callable[[str, BaseException], None]
"""Told of each exception that a method let out, after it was answered."""


@record
class Bounds:
    """What an endpoint takes: bytes of one message, requests in flight altogether and of one caller."""

    message_bytes: int = MAX_CALL_BYTES
    in_flight: int = 4096
    in_flight_of_one: int = 2048


class Endpoint:
    """``shut`` ends the taking of new requests, ``close`` everything. ``token`` is the endpoint-shutdown token."""

    def __init__(
        self,
        path: str,
        service: str,
        target: object,
        methods: dict[str, Method],
        check_peer: CheckPeer,
        primary: Token,
        run_sync: RunSync,
        on_error: OnError = lambda method, error: None,
        bounds: Bounds = Bounds(),
    ) -> None:
        self.service = service
        self.functions = {name: bound(target, name) for name in methods}
        self.methods = methods
        self.run_sync = run_sync
        self.on_error = on_error
        self.bounds = bounds
        self.token = primary.child()
        self.in_flight = InFlight()
        self.loop = asyncio.get_running_loop()
        self.malformed = 0
        self.moved: str | None = None  # why a successor is the one to ask
        self.used_at_s: float | None = None  # when the last request ended, on the loop's clock
        self.resting: str | None = None  # why it takes no requests just now
        self.callers: set[Conversation] = set()
        self._door = Door(self.loop, path, check_peer, self._welcome)
        self._sweep: asyncio.TimerHandle | None = None
        primary.call(lambda: self.stop_all(primary.reason or "the service stops"))

    def open(self) -> None:
        """Raises ``OSError``."""
        self._door.open()

    def shut(self, reason: str = "it is about to stop") -> None:
        """From here on every request gets ``Draining``. Those in flight find their tokens cancelled, and go on."""
        self.token.cancel(reason)

    async def drain(self, timeout_s: float | None) -> int:
        """Shut, and wait for what is in flight; how many are left after ``timeout_s``."""
        self.shut()
        return await self.in_flight.wait_idle(timeout_s)

    def stop_all(self, reason: str) -> None:
        """Cancel what is in flight; its callers are told."""
        text = f"{self.service} was stopped before it answered: {reason}"
        for caller in tuple(self.callers):
            for request in tuple(caller.requests.values()):
                if not request.is_stopped:
                    caller.fail(request.id, FailureCode.UNAVAILABLE, text)
                request.stop(reason)

    def dismiss(self, name: str, reason: str) -> None:
        """Whoever calls by that name may not any more: what it has under way is cancelled, and it is told why."""
        for caller in tuple(self.callers):
            if caller.name == name:
                caller.dismiss(reason)

    def close(self) -> None:
        """Everything at once: what is in flight is cancelled, its callers see the connection end."""
        self._door.close()
        self.shut()
        if self._sweep is not None:
            self._sweep.cancel()
        for caller in tuple(self.callers):
            caller.finish("the endpoint was closed")

    def watch_deadlines(self) -> None:
        """One timer for all: a request's own would cost as much as its answer."""
        if self._sweep is None:
            self._sweep = self.loop.call_later(SWEEP_S, self._look_at_deadlines)

    def _look_at_deadlines(self) -> None:
        self._sweep = None
        now, any_left = self.loop.time(), False
        for caller in self.callers:
            for request in tuple(caller.requests.values()):
                if request.deadline_s is None or request.is_stopped:
                    continue
                any_left = True
                if request.deadline_s < now:
                    text = f"{self.service}.{request.method}: its deadline is over"
                    caller.fail(request.id, FailureCode.DEADLINE, text)
                    request.stop("its deadline is over")
        if any_left:
            self.watch_deadlines()

    def _welcome(self, connected: socket.socket, name: str, refusal: str | None) -> None:
        self.callers.add(Conversation(self, connected, name, refusal))

    def gone(self, caller: Conversation) -> None:
        self.callers.discard(caller)
        self._door.leave()

    def unknown(self, method: str) -> str:
        """The words for a method that is not offered."""
        close = difflib.get_close_matches(method, self.methods, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"it offers {', '.join(sorted(self.methods)) or 'nothing'}"
        return f"{self.service} has no method {method!r}: {hint}"


class Conversation:
    """One caller's connection."""

    def __init__(self, endpoint: Endpoint, connected: socket.socket, name: str, refusal: str | None) -> None:
        self._endpoint = endpoint
        self.name = name
        self._refusal = refusal
        self.requests: dict[int, Request] = {}
        self._last_id = 0
        limit_bytes = endpoint.bounds.message_bytes if refusal is None else DENIED_BYTES
        handlers = Handlers(lambda: None, self._taken, self._lost)
        self._wire = WireSocket(endpoint.loop, connected, b"ROUTER", limit_bytes, handlers)

    def finish(self, reason: str) -> None:
        """``leave``, and say what was not begun: requests that are on their way here, or wait to be read."""
        self._wire.finish(lambda: (call_wire.encode(Closed(self._last_id + 1)),))
        self._lost(reason)

    def dismiss(self, reason: str) -> None:
        for request in tuple(self.requests.values()):
            if not request.is_stopped:
                self.fail(request.id, FailureCode.DENIED, reason)
        self._refusal = reason  # of what is read before the end
        self.finish(reason)

    def leave(self, reason: str) -> None:
        self._wire.close()
        self._lost(reason)

    def _lost(self, why: str) -> None:
        self._endpoint.gone(self)
        for request in tuple(self.requests.values()):
            request.stop(f"its caller is gone: {why}")

    def fail(self, id_: int, code: FailureCode, text: str, kind: str = "", traceback: str = "") -> None:
        self._wire.say((call_wire.encode(Failed(id_, code, text, kind, traceback)),))

    # ---- what it says ------------------------------------------------------------------------------------------------

    def _taken(self, frames: list[Frame]) -> None:
        try:
            if not frames:
                raise ProtocolError("no head")
            message = call_wire.decode_for_callee(frames[0])
        except ProtocolError:
            self._endpoint.malformed += 1
            self.leave("it does not speak the protocol")
            return
        if type(message) is Call:
            self._asked(message, frames)
        elif (request := self.requests.get(message.id)) is not None:  # else: it has ended in the meantime
            if type(message) is Credit:
                request.more(message.items)
            elif type(message) is Cancel:
                request.stop("its caller does not wait for it any more")

    def _asked(self, call: Call, frames: list[Frame]) -> None:
        if call.id > self._last_id:
            self._last_id = call.id
        elif call.id in self.requests:
            self._endpoint.malformed += 1
            self.leave("it used an id twice")
            return
        refusal = self._refused(call, frames)
        if refusal is not None:
            self.fail(call.id, *refusal)
            return
        method = self._endpoint.methods[call.method]
        try:
            value = values.unpack_from(frames, 1)
            arguments = self._arguments(method, value)
        except (ProtocolError, Mismatch, RecursionError) as error:
            text = f"cannot call {self._endpoint.service}.{call.method}: {error}"
            self.fail(call.id, FailureCode.REFUSED, text)
            return
        self._begin(call, method, arguments)

    def _refused(
        self, call: Call, frames: list[Frame]
    ) -> tuple[FailureCode, str, str] | tuple[FailureCode, str] | None:
        """Why this is not begun, from the head alone: what follows it is not even looked at then."""
        endpoint, bounds = self._endpoint, self._endpoint.bounds
        if self._refusal is not None:
            return FailureCode.DENIED, self._refusal
        if endpoint.token.reason is not None:
            return FailureCode.DRAINING, f"{endpoint.service} takes no new requests: {endpoint.token.reason}"
        if endpoint.moved is not None:
            return FailureCode.MOVED, f"{endpoint.service} takes no requests: {endpoint.moved}"
        if endpoint.resting is not None:
            return FailureCode.UNAVAILABLE, f"{endpoint.service} takes no requests now: {endpoint.resting}"
        method = endpoint.methods.get(call.method)
        if method is None:
            return FailureCode.REFUSED, endpoint.unknown(call.method)
        if method.is_stream is not bool(call.credit):
            is_what = "a stream: ask for it with stream()" if method.is_stream else "no stream: ask with call()"
            kind = "stream" if method.is_stream else "call"
            return FailureCode.REFUSED, f"{endpoint.service}.{call.method} is {is_what}", kind
        if type(frames) is Oversized:
            return FailureCode.REFUSED, (
                f"cannot call {endpoint.service}.{call.method}: {frames.size_bytes} bytes or more;"
                f" it takes {bounds.message_bytes}"
            )
        if call.deadline_us is not None and call.deadline_us < monotonic() * 1_000_000:
            return FailureCode.DEADLINE, f"{endpoint.service}.{call.method} was not begun: its deadline is over"
        if endpoint.in_flight.count >= bounds.in_flight or len(self.requests) >= bounds.in_flight_of_one:
            return FailureCode.UNAVAILABLE, f"{endpoint.service} has {endpoint.in_flight.count} requests in flight"
        return None

    @staticmethod
    def _arguments(method: Method, value: Any) -> dict[str, Any]:
        if type(value) is not list or len(value) < 2 or type(value[0]) is not list or type(value[1]) is not dict:
            raise Mismatch("its arguments are not of the form [arguments, named arguments]")
        if len(value) > 2:
            return typed.arguments(method, value[0], value[1], value[2:])
        return method.arguments(value[0], value[1])

    # ---- what is done about it ---------------------------------------------------------------------------------------

    def _begin(self, call: Call, method: Method, arguments: dict[str, Any]) -> None:
        endpoint = self._endpoint
        id_, name, deadline_us, credit = call
        deadline_s = None if deadline_us is None else deadline_us / 1_000_000
        request = Request(id_, name, self.name, deadline_s, endpoint.token, not method.is_async, credit)
        self.requests[id_] = request
        self._wire.say_at_once = len(self.requests) == 1
        endpoint.in_flight.begin()
        task = eager.begin(endpoint.loop, self._run(request, method, arguments), name)
        if task is None:
            return
        request.task = task
        if request.is_stopped and method.is_async:  # within its first step: the endpoint was closed by it, say
            task.cancel()
        elif deadline_s is not None:
            endpoint.watch_deadlines()

    async def _run(self, request: Request, method: Method, arguments: dict[str, Any]) -> None:
        current.set(request)
        try:
            if not request.is_stopped:
                request.has_begun = True
                function = self._endpoint.functions[method.name]
                if method.is_stream:
                    await self._serve_stream(request, method, function, arguments)
                else:
                    if method.is_async:
                        result = await function(**arguments)
                    else:
                        result = await self._endpoint.run_sync(partial(function, **arguments))
                    if not request.is_stopped:
                        self._say_value(call_wire.encode_result(request.id), method, result)
        except BaseException as error:  # whatever user code raises
            self._raised(request, error)
            if isinstance(error, SystemExit | KeyboardInterrupt):  # the service wants to end, and says so to its stub
                raise
        finally:
            request.end()
            self.requests.pop(request.id, None)
            self._wire.say_at_once = len(self.requests) <= 1
            self._endpoint.used_at_s = monotonic()
            self._endpoint.in_flight.end()

    async def _serve_stream(self, request: Request, method: Method, function: Any, arguments: dict[str, Any]) -> None:
        rows = function(**arguments)
        try:
            await self._say_rows(request, method, rows if method.is_async else _Threaded(rows, self._endpoint.run_sync))
        finally:
            close = rows.aclose() if method.is_async else self._endpoint.run_sync(rows.close)
            await close
        if not request.is_stopped:
            self._wire.say((call_wire.encode(End(request.id)),))

    async def _say_rows(self, request: Request, method: Method, rows: Any) -> None:
        """One item for each that the caller takes: the generator does not run ahead of it."""
        head, count = call_wire.encode(Item(request.id)), 0
        while True:
            if not request.credit:
                await request.wait_credit()
            if request.is_stopped:
                return
            try:
                row = await anext(rows)
            except StopAsyncIteration:
                return
            request.credit -= 1
            self._say_value(head, method, row)
            count += 1
            if self._wire.backlog_bytes:
                await self._wire.wait_drained()
            if not count % TURN_ITEMS:
                await asyncio.sleep(0)

    def _say_value(self, head: bytes, method: Method, value: Any) -> None:
        check = method.result
        try:
            if check.quick is not None and type(value) not in check.quick:
                value = check.convert(value, "its result")
            frames = values.pack(value)
        except (ProtocolError, Mismatch, RecursionError) as error:
            raise self._bad(method, _why_bad(value, error)) from None
        size, limit = sum(map(len, frames)), self._endpoint.bounds.message_bytes
        if size > limit:
            raise self._bad(method, f"its result of {size} bytes is too large to travel in one piece: {limit} can")
        self._wire.say_for_good([head, *frames])

    def _bad(self, method: Method, words: str) -> BadResult:
        return BadResult(f"{self._endpoint.service}.{method.name}", words)

    def _is_over(self, request: Request) -> bool:
        return request.deadline_s is not None and request.deadline_s <= self._endpoint.loop.time() + RESOLUTION_S

    def _raised(self, request: Request, error: BaseException) -> None:
        if request.is_stopped:  # nobody to tell, and a CancelledError is our own doing
            if not isinstance(error, asyncio.CancelledError):
                self._endpoint.on_error(request.method, error)
            return
        if isinstance(error, DeadlineExceeded) and self._is_over(request):  # what it has asked had the same deadline
            self.fail(request.id, FailureCode.DEADLINE, f"{self._endpoint.service}.{request.method}: {error}")
            return
        told = describe(error, self._endpoint.service, 0, "run")
        what = f"BadResult: {error.words}" if isinstance(error, BadResult) else one_line(error)
        text = f"{self._endpoint.service}.{request.method} raised {what}"
        self.fail(request.id, FailureCode.RAISED, text, told.type, told.traceback)
        self._endpoint.on_error(request.method, error)


class BadResult(TypeError):  # noqa: N818 - it says what it found
    """A method returned what it does not promise, or what cannot travel. No line of it is to blame: it is named."""

    def __init__(self, method: str, words: str) -> None:
        super().__init__(f"{method}: {words}")
        self.words = words


def _why_bad(value: Any, error: Exception) -> str:
    """Somebody has forgotten an ``await``, most likely, where that is the result."""
    if not inspect.iscoroutine(value):
        return str(error)
    value.close()  # or Python complains of it as well
    return f"it returned the coroutine {value.__name__}(): await it in an async method; plain ones have ctx.call_sync()"


class _Threaded:
    """A plain generator, each of its steps in a thread."""

    def __init__(self, rows: Any, run_sync: RunSync) -> None:
        self._rows = rows
        self._run_sync = run_sync

    async def __anext__(self) -> Any:
        is_over, row = await self._run_sync(self._next)
        if is_over:
            raise StopAsyncIteration
        return row

    def _next(self) -> tuple[bool, Any]:
        try:
            return False, next(self._rows)
        except StopIteration:  # which no future can carry
            return True, None
