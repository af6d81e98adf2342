"""What a call between services can come to instead of a result, for the caller to catch; and the codes on the wire.

Must not know how calls travel. A user's own exception never crosses as an object: its words do, in ``RemoteError``.
"""

# ruff: noqa: N818 - these are named for what they are, as the design names them

from __future__ import annotations

from enum import IntEnum
from typing import Final


class FailureCode(IntEnum):
    """The ``code`` of a ``Failed``."""

    UNAVAILABLE = 1  # it does not run, or cannot take more; what was asked has not been begun
    DRAINING = 2  # it finishes what it has and takes nothing new
    DEADLINE = 3
    DENIED = 4
    REFUSED = 5  # no such method, or arguments that do not fit it
    RAISED = 6  # the method was run and raised
    MOVED = 7  # a successor takes over: what was asked has not been begun, and is for that one


class CallError(Exception):
    """Base of everything below."""

    code = FailureCode.UNAVAILABLE


class ServiceUnavailable(CallError):
    """The service does not run, cannot be reached, or was lost before it answered."""


class ClusterUnavailable(ServiceUnavailable):
    """For clients: no cluster is there to talk to, or it has ended, or cannot be understood."""


class Draining(ServiceUnavailable):
    """The service is about to stop and takes nothing new; it has not begun what was asked."""

    code = FailureCode.DRAINING


class Moved(ServiceUnavailable):
    """A successor takes over, and has not done so in time; nothing has been begun."""

    code = FailureCode.MOVED


class DeadlineExceeded(CallError, TimeoutError):
    """No answer in time. The callee has been told to leave it."""

    code = FailureCode.DEADLINE


class PermissionDenied(CallError):
    """This caller may not call that service."""

    code = FailureCode.DENIED


class CallRefused(CallError):
    """No such method, arguments that do not fit it, or values that cannot travel. Nothing was run.

    ``method_is``: "stream" or "call", where the method was asked for as if it were the other; else empty.
    """

    code = FailureCode.REFUSED

    def __init__(self, text: str, method_is: str = "") -> None:
        super().__init__(text)
        self.method_is = method_is


class RemoteError(CallError):
    """The method raised. ``type`` and ``text`` are its exception's, ``traceback`` is as printed over there."""

    code = FailureCode.RAISED

    def __init__(self, message: str, type: str = "", text: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.type = type
        self.text = text
        self.traceback = traceback

    def __str__(self) -> str:
        told = super().__str__()
        return f"{told}\n\nthere:\n{self.traceback}".rstrip() if self.traceback else told


CLASSES: Final[dict[FailureCode, type[CallError]]] = {
    each.code: each
    for each in (ServiceUnavailable, Draining, Moved, DeadlineExceeded, PermissionDenied, CallRefused, RemoteError)
}
assert set(CLASSES) == set(FailureCode)
