"""A synchronous client of one running daemon: asks, waits, hears at once when the daemon ends.

Must not print, nor know how an answer is shown.
"""

from __future__ import annotations

import itertools
import os
import re
import select
import time
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

from svcd.cli.columns import one_line
from svcd.cli.exits import CommandFailed, Exit
from svcd.cli.wire import Wire, wait
from svcd.protocol import codec
from svcd.protocol.errors import ErrorCode, ProtocolError
from svcd.protocol.messages import (
    Message,
    PlanReported,
    RequestAccepted,
    RequestEnded,
    RequestRefused,
    SubscriptionConfirmed,
)
from svcd.protocol.messages.published import CONFIRMATION
from svcd.protocol.zmtp import SUBSCRIBE

ANSWER_PATIENCE_S: Final = 10.0
LAST_WORDS_S: Final = 0.1

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
        self._control = Wire(str(run_dir / "control"), b"DEALER")
        self._events: Wire | None = None
        self._numbers = itertools.count(1)
        self._watched: dict[int, int] = {}
        self.watch(self._daemon_fd)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._control.close()
        if self._events is not None:
            self._events.close()
        if self._daemon_fd is not None:
            os.close(self._daemon_fd)
            self._daemon_fd = None

    def watch(self, fd: int | None) -> None:
        """Let ``wait`` return when ``fd`` can be read, too."""
        if fd is not None:
            self._watched[fd] = select.POLLIN

    def watch_reader(self, fd: int) -> None:
        """Let ``wait`` return when nobody can read any more what is written to ``fd``, too."""
        self._watched[fd] = select.POLLERR

    def is_gone(self) -> bool:
        """Whether the daemon's process has ended."""
        return self._daemon_fd is not None and wait((), {self._daemon_fd: select.POLLIN}, 0)

    @staticmethod
    def has_reader(fd: int) -> bool:
        """False once the terminal behind ``fd`` has hung up, or the pipe is closed at its other end."""
        return not wait((), {fd: select.POLLERR}, 0)

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
        if self._daemon_fd is not None and not wait((), {self._daemon_fd: select.POLLIN}, _left_s(deadline)):
            raise TimedOut

    def _send(self, message: Message) -> bytes:
        correlation = b"%d" % next(self._numbers)
        try:
            self._control.say((correlation, codec.encode(message)))
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
        ends = {} if self._daemon_fd is None else {self._daemon_fd: select.POLLIN}
        beside = () if self._events is None else (self._events,)  # it has to say what it wants to hear
        while not self._control.messages:
            if not wait((self._control,), ends, _left_s(deadline), beside):
                return None
            ended = not self._control.messages and self.is_gone()
            if ended and not wait((self._control,), {}, LAST_WORDS_S, beside):  # they may still be on their way
                raise DaemonEnded("the daemon has ended before it answered", Exit.NO_DAEMON)
        return self._control.messages.popleft()

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

    def subscribe(self, patience_s: float, topic: bytes = b"") -> None:
        """Begin to receive events whose type begins with ``topic``: all that happen after this. Raises
        ``CommandFailed`` if the daemon does not confirm that in time.
        """
        confirmation = CONFIRMATION + str(os.getpid()).encode()
        opening = [(SUBSCRIBE + each,) for each in (topic, confirmation)]
        events = self._events = Wire(str(self.run_dir / "events"), b"SUB", opening)
        ends = {} if self._daemon_fd is None else {self._daemon_fd: select.POLLIN}
        deadline = time.monotonic() + patience_s
        early: list[list[bytes]] = []
        while not (early and early[-1][0] == confirmation):
            if not wait((events,), ends, _left_s(deadline)):
                raise CommandFailed(
                    f"cannot hear the daemon in {self.run_dir}: no word within {patience_s:g} s", Exit.NO_DAEMON
                )
            if not events.messages and self.is_gone():
                raise DaemonEnded("the daemon has ended before it told anything", Exit.NO_DAEMON)
            early.append(events.messages.popleft())
        events.messages.extendleft(reversed(early[:-1]))

    def wait(self, timeout_s: float | None) -> None:
        """Until an event, an answer, a watched descriptor or the daemon's end is there, or the time is over."""
        wires = (self._control,) if self._events is None else (self._control, self._events)
        wait(wires, self._watched, None if timeout_s is None else max(0.0, timeout_s))

    def wait_last_events(self) -> None:
        """Until an event is there: the daemon has ended, but its last words may still be on their way to us."""
        if self._events is not None:
            wait((self._events,), {}, LAST_WORDS_S)

    def next_event(self) -> Message | None:
        """An event that is there already, or None. What cannot be understood is passed over."""
        if self._events is None:
            return None
        self._events.turn()
        while self._events.messages:
            try:
                event = codec.decode(self._events.messages.popleft()[-1])
            except ProtocolError:
                continue
            if not isinstance(event, SubscriptionConfirmed):  # another's, or of a connection that was lost meanwhile
                return event
        return None


def _refusal(purpose: str, text: str) -> str:
    """What was asked for, and why not, once: the daemon may call the same thing by another word."""
    said = re.fullmatch(r"cannot \w+( [\w.-]+)?: (.*)", text)
    return f"cannot {purpose}: {text}" if said is None else f"cannot {purpose}{said[1] or ''}: {said[2]}"


def _left_s(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


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
