"""A synchronous client of one running daemon: asks, waits, hears at once when the daemon ends.

Must not print, nor know how an answer is shown.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

import zmq

from svcd.cli.columns import one_line
from svcd.cli.exits import CommandFailed, Exit
from svcd.protocol import codec
from svcd.protocol.errors import ErrorCode, ProtocolError
from svcd.protocol.limits import MAX_MESSAGE_BYTES
from svcd.protocol.messages import Message, PlanReported, RequestAccepted, RequestEnded, RequestRefused

ANSWER_PATIENCE_S: Final = 10.0
RECONNECT_MS: Final = 10
LAST_WORDS_MS: Final = 100
EVENTS_KEPT: Final = 100_000

REFUSAL_EXITS: Final = {
    ErrorCode.UNKNOWN_SERVICE: Exit.USAGE,
    ErrorCode.SHUTTING_DOWN: Exit.NOT_AS_DESIRED,
    ErrorCode.MALFORMED: Exit.USAGE,
    ErrorCode.UNKNOWN_MESSAGE: Exit.OTHER,
    ErrorCode.VERSION_MISMATCH: Exit.OTHER,
    ErrorCode.TOO_LARGE: Exit.USAGE,
    ErrorCode.NOT_PERMITTED: Exit.OTHER,
    ErrorCode.REFUSED: Exit.OTHER,
    ErrorCode.INTERNAL: Exit.OTHER,
}
"""What a refused request exits with."""

if set(REFUSAL_EXITS) != set(ErrorCode):
    raise AssertionError("the table of refusals lacks one")

Answer = TypeVar("Answer", bound=Message)


class TimedOut(Exception):  # noqa: N818 - it says what is
    """The time given ran out; what was asked stays in force."""


class DaemonEnded(CommandFailed):
    """The daemon's process is gone."""


class Client:
    """One connection to the daemon in ``run_dir``. ``pid``: the guardian's; its end is then noticed at once.

    ``daemon_fd``: instead of it, a descriptor that can be read once the daemon ends; from here on it is the client's.
    ``purpose`` completes "cannot …" where a request is refused.
    """

    def __init__(
        self, run_dir: Path, pid: int | None = None, purpose: str = "do that", daemon_fd: int | None = None
    ) -> None:
        self.run_dir = run_dir
        self.purpose = purpose
        self._daemon_fd = _open_process(pid) if daemon_fd is None else daemon_fd
        self._context = zmq.Context()
        self._context.setsockopt(zmq.LINGER, 0)
        self._context.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self._context.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        self._control = self._context.socket(zmq.DEALER)
        self._control.connect(f"ipc://{run_dir / 'control'}")
        self._events: zmq.Socket[bytes] | None = None
        self._numbers = itertools.count(1)
        self._poller = zmq.Poller()
        self._poller.register(self._control, zmq.POLLIN)
        self.watch(self._daemon_fd)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._context.destroy(linger=0)
        if self._daemon_fd is not None:
            os.close(self._daemon_fd)
            self._daemon_fd = None

    def watch(self, fd: int | None) -> None:
        """Let ``wait`` return when ``fd`` can be read, too."""
        if fd is not None:
            self._poller.register(fd, zmq.POLLIN)

    def watch_reader(self, fd: int) -> None:
        """Let ``wait`` return when nobody can read any more what is written to ``fd``, too."""
        self._poller.register(fd, zmq.POLLERR)

    def is_gone(self) -> bool:
        """Whether the daemon's process has ended."""
        return self._daemon_fd is not None and bool(zmq.zmq_poll([(self._daemon_fd, zmq.POLLIN)], 0))

    @staticmethod
    def has_reader(fd: int) -> bool:
        """False once the terminal behind ``fd`` has hung up, or the pipe is closed at its other end."""
        return not zmq.zmq_poll([(fd, zmq.POLLERR)], 0)

    # ---- questions -----------------------------------------------------------------------------------------------

    def ask(self, question: Message, kind: type[Answer], patience_s: float = ANSWER_PATIENCE_S) -> Answer:
        """The answer to ``question``, of type ``kind``. Raises ``CommandFailed`` for a refusal, or silence."""
        return self._expect(self._send(question), kind, patience_s)

    def begin(self, order: Message) -> tuple[bytes, RequestAccepted]:
        """Send an order; its correlation, for ``wait_end``, and what the daemon says at once."""
        correlation = self._send(order)
        return correlation, self._expect(correlation, RequestAccepted, ANSWER_PATIENCE_S)

    def begin_change(self, order: Message) -> tuple[bytes, PlanReported]:
        """Send a change of configuration; its correlation, and what it will do. ``wait_accepted`` comes next."""
        correlation = self._send(order)
        return correlation, self._expect(correlation, PlanReported, ANSWER_PATIENCE_S)

    def wait_accepted(self, correlation: bytes) -> RequestAccepted:
        return self._expect(correlation, RequestAccepted, ANSWER_PATIENCE_S)

    def wait_end(self, correlation: bytes, deadline: float | None = None) -> RequestEnded:
        """The end of a request. ``deadline`` is monotonic; raises ``TimedOut`` then, ``DaemonEnded`` if it is gone."""
        answer = self._receive(correlation, deadline)
        if answer is None:
            raise TimedOut
        if not isinstance(answer, RequestEnded):
            raise self._strange(answer)
        return answer

    def wait_gone(self, deadline: float | None = None) -> None:
        """Until the daemon's process has ended. Raises ``TimedOut`` at the monotonic ``deadline``."""
        if self._daemon_fd is not None and not zmq.zmq_poll([(self._daemon_fd, zmq.POLLIN)], _left_ms(deadline)):
            raise TimedOut

    def _send(self, message: Message) -> bytes:
        correlation = b"%d" % next(self._numbers)
        try:
            self._control.send_multipart((correlation, codec.encode(message)), zmq.NOBLOCK)
        except ProtocolError as error:
            raise CommandFailed(f"cannot ask the daemon: {error}", Exit.USAGE) from None
        return correlation

    def _expect(self, correlation: bytes, kind: type[Answer], patience_s: float) -> Answer:
        answer = self._receive(correlation, time.monotonic() + patience_s)
        if answer is None:
            raise CommandFailed(
                f"cannot reach the daemon in {self.run_dir}: no answer within {patience_s:g} s", Exit.NO_DAEMON
            )
        if not isinstance(answer, kind):
            raise self._strange(answer)
        return answer

    def _receive(self, correlation: bytes, deadline: float | None) -> Message | None:
        """The next message for ``correlation``; None at the deadline. Answers to earlier questions are passed over."""
        while True:
            frames = self._next_frames(deadline)
            if frames is None:
                return None
            if len(frames) == 2 and frames[0] == correlation:
                return self._checked(frames[1])

    def _next_frames(self, deadline: float | None) -> list[bytes] | None:
        while True:
            try:
                return self._control.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                pass
            if self.is_gone():
                if self._control.poll(LAST_WORDS_MS):  # they may still be on their way through our own socket
                    return self._control.recv_multipart(zmq.NOBLOCK)
                raise DaemonEnded("the daemon has ended before it answered", Exit.NO_DAEMON)
            left_ms = _left_ms(deadline)
            if left_ms == 0:
                return None
            sources = [(self._control, zmq.POLLIN)]
            if self._daemon_fd is not None:
                sources.append((self._daemon_fd, zmq.POLLIN))  # type: ignore[arg-type]  # poll takes both
            zmq.zmq_poll(sources, left_ms)

    def _checked(self, body: bytes) -> Message:
        """The message in ``body``; a refusal is raised."""
        try:
            message = codec.decode(body)
        except ProtocolError as error:
            raise CommandFailed(f"cannot understand the daemon: {error}") from None
        if isinstance(message, RequestRefused):
            try:
                code = REFUSAL_EXITS[ErrorCode(message.code)]
            except ValueError:  # of a later version
                code = Exit.OTHER
            raise CommandFailed(_refusal(self.purpose, one_line(message.text)), code)
        return message

    def _strange(self, answer: Message) -> CommandFailed:
        return CommandFailed(f"cannot understand the daemon: it answered with {type(answer).__name__}")

    # ---- events --------------------------------------------------------------------------------------------------

    def subscribe(self, topic: bytes = b"") -> None:
        """Begin to receive events whose type begins with ``topic``. Those of the first moments may be missed."""
        self._events = self._context.socket(zmq.SUB)
        self._events.setsockopt(zmq.RCVHWM, EVENTS_KEPT)
        self._events.subscribe(topic)
        self._events.connect(f"ipc://{self.run_dir / 'events'}")
        self._poller.register(self._events, zmq.POLLIN)

    def wait(self, timeout_s: float | None) -> None:
        """Until an event, an answer, a watched descriptor or the daemon's end is there, or the time is over."""
        self._poller.poll(None if timeout_s is None else max(0, round(timeout_s * 1000)))

    def wait_last_events(self) -> None:
        """Until an event is there: the daemon has ended, but its last words may still be on their way to us."""
        if self._events is not None:
            self._events.poll(LAST_WORDS_MS)

    def next_event(self) -> Message | None:
        """An event that is there already, or None. What cannot be understood is passed over."""
        while self._events is not None:
            try:
                frames = self._events.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return None
            try:
                return codec.decode(frames[-1])
            except ProtocolError:
                continue
        return None


def _refusal(purpose: str, text: str) -> str:
    """What was asked for, and why not, once: the daemon may call the same thing by another word."""
    said = re.fullmatch(r"cannot \w+( [\w.-]+)?: (.*)", text)
    return f"cannot {purpose}: {text}" if said is None else f"cannot {purpose}{said[1] or ''}: {said[2]}"


def _left_ms(deadline: float | None) -> int:
    """Milliseconds until the monotonic ``deadline``, as poll wants them: -1 for ever, and never 0 too early."""
    return -1 if deadline is None else max(0, int((deadline - time.monotonic()) * 1000 + 0.999))


def _open_process(pid: int | None) -> int | None:
    """A descriptor that can be read once ``pid`` has ended; None when it cannot be had (silence will tell then)."""
    if pid is None:
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise DaemonEnded(f"the daemon (pid {pid}) has just ended", Exit.NO_DAEMON) from None
    except OSError:
        return None
