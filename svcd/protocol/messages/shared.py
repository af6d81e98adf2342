"""Parts that messages of several directions hold."""

from __future__ import annotations

from typing import ClassVar

from svcd.protocol.messages.base import Message
from svcd.record import record


@record
class Listener(Message):
    """Who listens to a service's events, and how the topics begin that it wants. ``pid``: of its process; 0 where that
    cannot be told.
    """

    direction: ClassVar[str] = "part of HandedOver and ListenersExpected"
    name: str
    topics: tuple[str, ...]
    pid: int = 0


@record
class Route(Message):
    """Where one running instance takes requests; ``events``: where it publishes, empty where it does not.
    ``safe``: methods that may be called again when it was lost in the course of a call.
    """

    direction: ClassVar[str] = "part of RouteChanged and RouteReported"
    calls: str
    events: str
    pid: int
    safe: tuple[str, ...] = ()
