"""Whether running on-demand Python services are called by anybody, and who has not been for its idle timeout.

Must not stop anything (the core does), nor count requests: stubs do, and are asked when it may be time. Programs with
sockets are ``idle``'s.

In use is a service with a request in flight; it was in use when the last one ended, or when it came up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from svcd.protocol.messages import UseReported
from svcd.record import entity, field
from svcd.supervisor.config.launch import PythonCode, ServiceDefinition
from svcd.supervisor.controller import clock
from svcd.supervisor.core.events import IdleReached

SOONEST_S: Final = 0.001


@entity
class Watched:
    """A running service with an idle timeout. ``used_at``: monotonic; when it was last known to be in use."""

    service: str
    invocation: int
    timeout_s: float
    used_at: float = field(default_factory=clock.now)
    timer: asyncio.TimerHandle | None = None


class DisuseWatch:
    """``submit`` gets an ``IdleReached`` when a watched service was not used for its idle timeout, and again after each
    further one. ``ask`` has the stub of an invocation report its use; say ``take`` when it does.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, submit: Callable[[IdleReached], None], ask: Callable[[int], None]
    ) -> None:
        self._loop = loop
        self._submit = submit
        self._ask = ask
        self._watched: dict[str, Watched] = {}

    def begin(self, definition: ServiceDefinition, invocation: int) -> None:
        """This run is ready for use. Does nothing for services without an idle timeout, or without a stub."""
        launch, name = definition.launch, definition.spec.name
        self.end(name)
        if launch.idle_timeout_s is not None and isinstance(launch.run, PythonCode):
            each = self._watched[name] = Watched(name, invocation, launch.idle_timeout_s)
            self._look_later(each)

    def adopt(self, definition: ServiceDefinition) -> None:
        """Go by this from now on, if it is watched; its time begins anew."""
        each = self._watched.get(definition.spec.name)
        if each is not None:
            self.begin(definition, each.invocation)

    def end(self, service: str) -> None:
        """It does not run any more, or not as something that may be idle."""
        each = self._watched.pop(service, None)
        if each is not None and each.timer is not None:
            each.timer.cancel()

    def take(self, message: UseReported) -> None:
        each = self._watched.get(message.service)
        if each is None or each.invocation != message.invocation:
            return
        now = clock.now()
        if message.in_flight:
            each.used_at = now
        elif message.unused_s is not None:
            each.used_at = max(each.used_at, now - max(0.0, message.unused_s))
        if now - each.used_at >= each.timeout_s:
            each.used_at = now
            self._submit(IdleReached(now, each.service, each.invocation))
        if self._watched.get(message.service) is each:
            self._look_later(each)

    def close(self) -> None:
        for service in list(self._watched):
            self.end(service)

    def _look_later(self, each: Watched) -> None:
        """When it may be idle at the earliest; and again if the stub does not answer."""
        if each.timer is not None:
            each.timer.cancel()
        left_s = each.used_at + each.timeout_s - clock.now()
        each.timer = self._loop.call_later(max(SOONEST_S, left_s), self._look, each)

    def _look(self, each: Watched) -> None:
        each.timer = self._loop.call_later(each.timeout_s, self._look, each)
        self._ask(each.invocation)
