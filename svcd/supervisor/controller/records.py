"""What the shell remembers of each service beside the core's own state: last words, exceptions, resource use.

Must not influence any decision.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from svcd.protocol.messages import ExceptionRaised
from svcd.record import entity, field

LAST_LINES: Final = 10
NOTICES_KEPT: Final = 32  # per service
LINE_LIMIT: Final = 400
TRACEBACK_LIMIT: Final = 4 * 1024  # its end is kept: many failed services must fit into one status


@entity
class Record:
    """One service's. ``cpu_percent`` is of one core, over the last sampling interval; ``cpu_s`` and
    ``cpu_at`` are its base.
    """

    last_output: tuple[str, ...] = ()
    check_output: tuple[str, ...] = ()  # of the command that has last found it unready or unhealthy
    exception: str | None = None
    raised_in: int | None = None  # the invocation that has raised it
    cpu_percent: float | None = None
    memory_bytes: int | None = None
    cpu_s: float | None = None
    cpu_at: float = 0.0
    text: str = ""  # what it says of itself
    events_lost: int = 0  # in its present run
    next_run: float | None = None  # of a scheduled task, Unix seconds
    notices: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=NOTICES_KEPT))  # monotonic, text


class Records:
    """All services' records; ``changed`` is called when a row of the status would look different."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._by_service: dict[str, Record] = {}

    def of(self, service: str) -> Record:
        record = self._by_service.get(service)
        if record is None:
            record = self._by_service[service] = Record()
        return record

    def forget(self, service: str) -> None:
        self._by_service.pop(service, None)

    def begin_run(self, service: str) -> None:
        """A new process: it has used nothing yet. What the last one said stays until this one is up."""
        record = self.of(service)
        record.cpu_percent = record.memory_bytes = record.cpu_s = None
        record.text = ""
        record.events_lost = 0
        record.check_output = ()

    def end_run(self, service: str) -> None:
        self.begin_run(service)
        self._changed(service)

    def clear_words(self, service: str) -> None:
        """It is up: the last words of earlier runs are history."""
        record = self.of(service)
        if record.last_output or record.exception:
            record.last_output, record.exception = (), None
            self._changed(service)

    def take_exception(self, message: ExceptionRaised) -> None:
        """The last one counts; but one of the stop stands below that because of which there is a stop."""
        record = self.of(message.service)
        text = message.traceback[-TRACEBACK_LIMIT:] or f"{message.type}: {message.message}"
        if message.phase == "stop" and record.exception is not None and record.raised_in == message.invocation:
            half = TRACEBACK_LIMIT // 2
            text = f"{record.exception[-half:].rstrip()}\n\nand while it stopped:\n{text[-half:]}"
        record.exception, record.raised_in = text, message.invocation
        self._changed(message.service)

    def take_tail(self, service: str, tail: dict[str, str]) -> None:
        """The end of its output: stderr's lines, or stdout's when stderr is silent."""
        text = tail.get("stderr", "").strip("\n") or tail.get("stdout", "").strip("\n")
        self.of(service).last_output = tuple(line[:LINE_LIMIT] for line in text.splitlines()[-LAST_LINES:])
        self._changed(service)

    def take_check_output(self, service: str, lines: tuple[str, ...]) -> None:
        """What a command has printed that looked at it: nothing, if it has found it well."""
        record = self.of(service)
        if record.check_output != lines:
            record.check_output = lines
            self._changed(service)

    def take_notice(self, service: str, at: float, text: str) -> None:
        """Something worth telling of it, at the monotonic moment ``at``, that was no transition."""
        self.of(service).notices.append((at, text))

    def take_events_lost(self, service: str, count: int) -> None:
        """So many more."""
        self.of(service).events_lost += count
        self._changed(service)

    def take_text(self, service: str, text: str) -> None:
        """What the service says of itself (STATUS= of sd_notify(3))."""
        self.of(service).text = text
        self._changed(service)

    def take_next_run(self, service: str, at: float | None) -> None:
        """When a scheduled task runs next, Unix seconds."""
        self.of(service).next_run = at
        self._changed(service)

    def take_usage(self, service: str, at: float, cpu_s: float, memory_bytes: int) -> None:
        """CPU seconds used so far and memory in bytes, at the monotonic moment ``at``."""
        record = self.of(service)
        if record.cpu_s is not None and at > record.cpu_at:
            record.cpu_percent = round(max(0.0, cpu_s - record.cpu_s) / (at - record.cpu_at) * 100, 1)
        record.cpu_s, record.cpu_at, record.memory_bytes = cpu_s, at, memory_bytes
        self._changed(service)
