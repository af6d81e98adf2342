"""A client's connection to the controller: questions and their answers, and what the controller goes on telling.

Must not know what an answer means, nor start or stop services.

Questions that have no answer yet are asked again when the connection was lost and is there again: the controller may
have been restarted, and what is asked here changes nothing by being asked twice. All on one loop.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, Final, TypeVar

from svcd.client.place import Place
from svcd.protocol import codec
from svcd.protocol.call_errors import CallError, CallRefused, ClusterUnavailable, PermissionDenied, ServiceUnavailable
from svcd.protocol.errors import ErrorCode, ProtocolError
from svcd.protocol.limits import MAX_MESSAGE_BYTES
from svcd.protocol.messages import Message, RequestRefused
from svcd.protocol.zmtp_large import Frame, Oversized
from svcd.record import record
from svcd.worker_runtime.calls.wire_socket import Handlers, WireSocket, dial

PATIENCE_S: Final = 10.0  # for an answer
REDIAL_S: Final = 0.01
REDIAL_MAX_S: Final = 1.0
MAX_CORRELATION_BYTES: Final = 16

Told = Callable[["Message | CallError"], None]
"""Gets each answer, or the end of all answers."""

Answer = TypeVar("Answer", bound=Message)

REFUSALS: Final[dict[ErrorCode, type[CallError]]] = {
    ErrorCode.UNKNOWN_SERVICE: CallRefused,
    ErrorCode.SHUTTING_DOWN: ServiceUnavailable,
    ErrorCode.MALFORMED: ClusterUnavailable,
    ErrorCode.UNKNOWN_MESSAGE: ClusterUnavailable,
    ErrorCode.VERSION_MISMATCH: ClusterUnavailable,
    ErrorCode.TOO_LARGE: CallRefused,
    ErrorCode.NOT_PERMITTED: PermissionDenied,
    ErrorCode.REFUSED: ServiceUnavailable,
    ErrorCode.INTERNAL: ClusterUnavailable,
}
"""What a refused question raises."""

if set(REFUSALS) != set(ErrorCode):
    raise AssertionError("the table of refusals lacks one")


def refusal(code: str, text: str) -> CallError:
    """What a ``RequestRefused`` is to who has asked."""
    try:
        kind = REFUSALS[ErrorCode(code)]
    except ValueError:  # of a later version
        kind = ClusterUnavailable
    return kind(text)


@record
class _Asked:
    question: Message
    told: Told


class Control:
    """``open`` first, ``close`` last. When the cluster has ended everybody who waits is told; whoever asks after that
    finds the cluster that has been started in the same place since, if one has.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._loop = asyncio.get_running_loop()
        self._wire: WireSocket | None = None
        self._asked: dict[bytes, _Asked] = {}
        self._numbers = itertools.count(1)
        self._retry: asyncio.TimerHandle | None = None
        self._delay_s = REDIAL_S
        self._ready: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Raises ``ClusterUnavailable``."""
        self._ready = self._loop.create_future()
        self._connect()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._ready
        except TimeoutError:
            raise self._silence() from None
        finally:
            self._ready = None

    def close(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        self._fail(ClusterUnavailable("the client was closed"))

    # ---- questions ---------------------------------------------------------------------------------------------------

    async def ask(self, question: Message, kind: type[Answer], patience_s: float | None = PATIENCE_S) -> Answer:
        """The answer, of type ``kind``. Raises ``CallError``."""
        answer: asyncio.Future[Message] = self._loop.create_future()
        correlation = self.follow(question, lambda said: _settle(answer, said))
        try:
            async with asyncio.timeout(patience_s):
                message = await answer
        except TimeoutError:
            raise self._silence() from None
        finally:
            self.forget(correlation)
        if isinstance(message, RequestRefused):
            raise refusal(message.code, message.text)
        if not isinstance(message, kind):
            raise self._strange(f"it answered with {type(message).__name__}")
        return message

    def follow(self, question: Message, told: Told) -> bytes:
        """Ask, and have ``told`` called with every answer until ``forget``, or until it gets an error: nothing comes
        after that. What is returned is for ``forget`` and ``ask_again``.
        """
        correlation = b"%d" % next(self._numbers)
        self._asked[correlation] = _Asked(question, told)
        if self._wire is not None:
            self._say(correlation, question)
        elif self._retry is None:
            self._loop.call_soon(self._connect_if_wanted)
        return correlation

    def ask_again(self, correlation: bytes) -> None:
        asked = self._asked.get(correlation)
        if asked is not None and self._wire is not None:
            self._say(correlation, asked.question)

    def forget(self, correlation: bytes) -> None:
        self._asked.pop(correlation, None)

    def _say(self, correlation: bytes, question: Message) -> None:
        assert self._wire is not None
        try:
            self._wire.say((correlation, codec.encode(question)))
        except ProtocolError as error:
            self._tell(correlation, CallRefused(f"cannot ask the cluster: {error}"))

    def _tell(self, correlation: bytes, said: Message | CallError) -> None:
        asked = self._asked.get(correlation)
        if asked is None:  # nobody waits any more
            return
        if isinstance(said, CallError):
            self.forget(correlation)
        asked.told(said)

    def _fail(self, error: CallError) -> None:
        """Nobody will answer."""
        asked, self._asked = self._asked, {}
        for each in asked.values():
            each.told(error)
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)

    def _silence(self) -> ClusterUnavailable:
        return ClusterUnavailable(
            f"cannot reach the cluster in {self.place.run_dir}: no answer within {PATIENCE_S:g} s"
        )

    def _strange(self, why: str) -> ClusterUnavailable:
        return ClusterUnavailable(f"cannot understand the cluster in {self.place.run_dir}: {why}")

    # ---- coming and going --------------------------------------------------------------------------------------------

    def _connect_if_wanted(self) -> None:
        if self._asked and self._wire is None and self._retry is None:
            self._connect()

    def _connect(self) -> None:
        self._retry = None
        try:
            connected = dial(self.place.control)
        except OSError as error:
            self._unreachable(error)
            return
        handlers = Handlers(self._welcome, self._taken, self._lost)
        self._wire = WireSocket(self._loop, connected, b"DEALER", MAX_MESSAGE_BYTES, handlers)
        for correlation, each in tuple(self._asked.items()):
            self._say(correlation, each.question)

    def _unreachable(self, error: OSError) -> None:
        """It has ended; or it is not for us; or it is being restarted, and will be there in a moment."""
        if self.place.has_ended():
            self._fail(self.place.end())
        elif isinstance(error, PermissionError):
            self._fail(ClusterUnavailable(f"cannot reach the cluster in {self.place.run_dir}: {error.strerror}"))
        elif self._asked or self._ready is not None:
            self._retry = self._loop.call_later(self._delay_s, self._connect)
            self._delay_s = min(2 * self._delay_s, REDIAL_MAX_S)

    def _welcome(self) -> None:
        self._delay_s = REDIAL_S
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def _lost(self, why: str) -> None:
        self._wire = None
        if self._asked or self._ready is not None:
            self._retry = self._loop.call_later(self._delay_s, self._connect)
            self._delay_s = min(2 * self._delay_s, REDIAL_MAX_S)

    def _taken(self, frames: list[Frame]) -> None:
        if not frames or len(frames[0]) > MAX_CORRELATION_BYTES:
            return
        correlation = bytes(frames[0])
        if isinstance(frames, Oversized):
            self._tell(correlation, self._strange(f"an answer of {frames.size_bytes} bytes or more"))
        elif len(frames) == 2:
            self._tell(correlation, self._decoded(frames[1]))

    def _decoded(self, body: Frame) -> Message | CallError:
        try:
            return codec.decode(bytes(body))
        except ProtocolError as error:
            return self._strange(str(error))


def _settle(answer: asyncio.Future[Any], said: Message | CallError) -> None:
    if answer.done():
        return
    if isinstance(said, CallError):
        answer.set_exception(said)
    else:
        answer.set_result(said)
