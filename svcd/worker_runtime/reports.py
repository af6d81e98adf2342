"""What the stub tells the controller of its service: states, exceptions.

Must not decide what follows from them. Only the thread of the event loop may call.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from svcd.protocol.messages import EndAnnounced, ExceptionRaised, Message, StateChanged
from svcd.worker_runtime.exceptions import describe, one_line


class Reports:
    """``phase`` is where the service's life stands, for exceptions that come from nowhere in particular."""

    def __init__(self, service: str, invocation: int, send: Callable[[Message], None]) -> None:
        self.service = service
        self.invocation = invocation
        self.phase = "load"
        self.last_state: StateChanged | None = None
        self._send = send

    def tell(self, message: Message) -> None:
        """Something that is neither of these."""
        self._send(message)

    def state(self, state: str, error: str | None = None, again: bool = False) -> None:
        """A new state; the same one ``again`` is repeated only where it answers something: the first error stands."""
        if not again and self.last_state is not None and self.last_state.state == state:
            return
        self.last_state = StateChanged(self.service, self.invocation, state, error)
        self._send(self.last_state)

    def exception(self, error: BaseException, phase: str | None = None) -> ExceptionRaised:
        """An exception that user code did not handle: for the record, and on stderr."""
        record = describe(error, self.service, self.invocation, phase or self.phase)
        print_text(record.traceback)
        self._send(record)
        return record

    @property
    def end(self) -> EndAnnounced | None:
        """To be said last, where it ends because of an error that was reported: that must not come after the exit."""
        last = self.last_state
        has_failed = last is not None and last.state == "stopping" and last.error is not None
        return EndAnnounced(self.service, self.invocation) if has_failed else None

    def failed(self, phase: str, error: BaseException) -> None:
        """The service ends because of ``error``."""
        self.exception(error, phase)
        self.state("stopping", one_line(error))


def print_text(text: str) -> None:
    """To stderr, or straight to descriptor 2 where the service has done away with its stderr."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except Exception:  # user code may have put anything there
        try:
            os.write(2, text.encode("utf-8", "backslashreplace"))
        except OSError:
            pass
