"""``Outcome``: how a step of a Startable's life ended, awaited as often and by as many as like. And the errors of it.

Must not know what a Startable is. It never holds a future of asyncio's with an exception in it, so nothing is ever
logged as "never retrieved", and a waiter that is cancelled takes nobody with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from types import TracebackType
from typing import Any, Protocol


class StateError(RuntimeError):
    """Something was called in a state in which it makes no sense."""


class AbortedError(RuntimeError):
    """A raw start or stop was cancelled from outside. Its ``__cause__`` is the CancelledError.

    It stands in for that one: who waits for somebody else's start must not take himself for cancelled.
    """


class Owner(Protocol):
    """Whose step it is."""

    name: str

    def is_own_task(self) -> bool:
        """Whether the step itself is running, and would wait for itself."""


class Outcome:
    """Awaiting it returns None once the step has ended well, and raises what it has raised if it ended badly."""

    __slots__ = ("_error", "_owner", "_settled", "_step", "_traceback", "_waiters")

    def __init__(self, step: str, owner: Owner) -> None:
        self._step = step
        self._owner = owner
        self._settled = False
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._waiters: dict[asyncio.Future[None], None] = {}  # a set in the order of its making

    def done(self) -> bool:
        """Whether the step has ended."""
        return self._settled

    @property
    def error(self) -> BaseException | None:
        """What it has raised; None as long as it lasts, and when it ended well."""
        return self._error

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for it now."""
        return any(not waiter.done() for waiter in self._waiters)

    def __await__(self) -> Generator[Any, None, None]:
        if not self._settled:
            yield from self._wait()
        if self._error is not None:
            self._error.__traceback__ = self._traceback  # without what earlier raisings have added to it
            raise self._error

    def _wait(self) -> Generator[Any, None, None]:
        if self._owner.is_own_task():
            raise StateError(f"cannot wait for {self} within it: that would last for ever; call it without await")
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            yield from waiter
        finally:
            self._waiters.pop(waiter, None)

    def settle(self, error: BaseException | None = None) -> None:
        """For its owner, once: the step has ended so."""
        assert not self._settled, f"{self} has ended already"
        self._settled, self._error = True, error
        self._traceback = None if error is None else error.__traceback__
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def __repr__(self) -> str:
        how = "lasting" if not self._settled else "well" if self._error is None else type(self._error).__name__
        return f"<{self}: {how}>"

    def __str__(self) -> str:
        return f"{self._step} of {self._owner.name}"


def without_cancellation(error: BaseException, what: str) -> BaseException:
    """``error``, or an AbortedError for those that would mean something else to whoever gets them raised."""
    if not isinstance(error, asyncio.CancelledError | GeneratorExit):
        return error
    aborted = AbortedError(f"{what} was cancelled")
    aborted.__cause__ = error
    return aborted
