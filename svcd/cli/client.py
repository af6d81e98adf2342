"""A synchronous client of one daemon: asks, waits, checks.

Must not print, nor know how anything is shown.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

import zmq

from svcd.cli.failures import Exit, Failure
from svcd.protocol import codec
from svcd.protocol.errors import ErrorCode, ProtocolError
from svcd.protocol.messages import Message, RequestAccepted, RequestEnded, RequestRefused

ANSWER_TIMEOUT_S: Final = 10.0
USAGE_CODES: Final = frozenset({ErrorCode.UNKNOWN_SERVICE.value, ErrorCode.MALFORMED.value})

Answer = TypeVar("Answer", bound=Message)


class TimedOut(Exception):  # noqa: N818 - it says what is
    """No end of the request within the time given; it stays in force."""


class Client:
    """One connection to the control socket in ``run_dir``, and on demand one to the stream of events."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._context = zmq.Context()
        self._control = self._context.socket(zmq.DEALER)
        self._control.setsockopt(zmq.LINGER, 0)
        self._control.connect(f"ipc://{run_dir / 'control'}")
        self._events: zmq.Socket[bytes] | None = None
        self._numbers = itertools.count(1)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._context.destroy(linger=0)

    # ---- questions -----------------------------------------------------------------------------------------------

    def ask(self, question: Message, kind: type[Answer], timeout_s: float = ANSWER_TIMEOUT_S) -> Answer:
        """The answer of type ``kind``; a refusal, or silence, is a ``Failure``."""
        correlation = self._send(question)
        answer = self._receive(correlation, time.monotonic() + timeout_s)
        if answer is None:
            raise Failure(f"the daemon in {self._run_dir} does not answer", Exit.NO_DAEMON)
        if not isinstance(answer, kind):
            raise Failure(f"the daemon answered with {type(answer).__name__}; is it of another version?")
        return answer

    def begin(self, order: Message) -> tuple[bytes, RequestAccepted]:
        """Send an order; what the daemon says at once, and the correlation to wait for its end with."""
        correlation = self._send(order)
        answer = self._receive(correlation, time.monotonic() + ANSWER_TIMEOUT_S)
        if not isinstance(answer, RequestAccepted):
            raise Failure(f"the daemon in {self._run_dir} does not answer", Exit.NO_DAEMON)
        return correlation, answer

    def wait_end(self, correlation: bytes, timeout_s: float | None) -> RequestEnded:
        """The end of the request. Raises ``TimedOut`` after ``timeout_s`` seconds (None: never)."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            answer = self._receive(correlation, deadline)
            if answer is None:
                raise TimedOut
            if isinstance(answer, RequestEnded):
                return answer

    def _send(self, message: Message) -> bytes:
        correlation = b"%d" % next(self._numbers)
        self._control.send_multipart((correlation, codec.encode(message)))
        return correlation

    def _receive(self, correlation: bytes, deadline: float | None) -> Message | None:
        """The next message for ``correlation``, or None at the deadline. Raises ``Failure`` on a refusal."""
        while True:
            wait_ms = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000))
            if not self._control.poll(wait_ms):
                return None
            frames = self._control.recv_multipart()
            if len(frames) != 2 or frames[0] != correlation:
                continue
            try:
                message = codec.decode(frames[1])
            except ProtocolError as error:
                raise Failure(f"cannot understand the daemon: {error}") from None
            if isinstance(message, RequestRefused):
                raise Failure(message.text, Exit.USAGE if message.code in USAGE_CODES else Exit.OTHER)
            return message

    # ---- events --------------------------------------------------------------------------------------------------

    def subscribe(self) -> None:
        """Begin to receive the stream of events."""
        self._events = self._context.socket(zmq.SUB)
        self._events.setsockopt(zmq.LINGER, 0)
        self._events.setsockopt(zmq.RCVHWM, 100_000)
        self._events.subscribe(b"")
        self._events.connect(f"ipc://{self._run_dir / 'events'}")

    def next_event(self, timeout_s: float) -> Message | None:
        """The next event, or None after ``timeout_s`` seconds."""
        if self._events is None or not self._events.poll(int(timeout_s * 1000)):
            return None
        try:
            return codec.decode(self._events.recv_multipart()[1])
        except (ProtocolError, IndexError):
            return None
