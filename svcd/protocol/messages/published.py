"""What the controller publishes (topic frame = tag), every one with a sequence number; and what it says to a
subscriber that asked whether it is one.
"""

from __future__ import annotations

from typing import ClassVar, Final

from svcd.protocol.messages.base import Message
from svcd.protocol.messages.from_stub import ExceptionRaised
from svcd.record import record


@record
class ServiceTransitioned(Message):
    """A service changed its state; ``spent_s`` is how long it was in ``old``."""

    direction: ClassVar[str] = "published"
    sequence: int
    at: float
    service: str
    invocation: int | None
    old: str
    new: str
    cause: str
    spent_s: float
    transaction: int = 0


@record
class NoticeGiven(Message):
    """``service`` empty: about the cluster."""

    direction: ClassVar[str] = "published"
    sequence: int
    at: float
    service: str
    text: str


@record
class ExceptionRecorded(Message):
    """A stub reported an exception that user code did not handle."""

    direction: ClassVar[str] = "published"
    sequence: int
    at: float
    exception: ExceptionRaised


@record
class ClusterStateChanged(Message):
    """``state``: starting, running, stopping, ended (the last message of all)."""

    direction: ClassVar[str] = "published"
    sequence: int
    at: float
    state: str
    text: str = ""


@record
class SubscriptionConfirmed(Message):
    """Who subscribes to ``SubscriptionConfirmed:WORD``, a word of its own, is answered with that topic and this: all
    that it subscribed to before, on the same connection, is in force. What happens from here on reaches it.
    """

    direction: ClassVar[str] = "published"
    word: str


CONFIRMATION: Final = SubscriptionConfirmed.__name__.encode() + b":"
"""How the topic of a ``SubscriptionConfirmed`` begins; the word follows."""
