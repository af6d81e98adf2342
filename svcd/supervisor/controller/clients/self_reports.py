"""What Python services report of themselves that no decision hangs on: exceptions, resource use, lost events.

Must not reach the core: it is kept, published and told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from svcd.protocol import messages
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.clients.publishing import Publisher
from svcd.supervisor.controller.python.keeping import Keeping
from svcd.supervisor.controller.records import Records
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core.machine import Machine


class SelfReports:
    """``receivers`` takes them; ``notice`` tells of a service in words. ``is_successor``: whether a run has not taken
    over yet from the one that is the service.
    """

    def __init__(
        self,
        machine: Machine,
        registry: Registry,
        records: Records,
        keeping: Keeping,
        publisher: Publisher,
        notice: Callable[[str, str], None],
        is_successor: Callable[[int], bool],
    ) -> None:
        self._machine = machine
        self._registry = registry
        self._records = records
        self._keeping = keeping
        self._publisher = publisher
        self._notice = notice
        self._is_successor = is_successor
        self.receivers: dict[type[messages.Message], Callable[[Any], None]] = {
            messages.ExceptionRaised: self._take_exception,
            messages.ResourceSampled: self._take_sample,
            messages.EventsLost: self._take_events_lost,
        }

    def _take_exception(self, message: messages.ExceptionRaised) -> None:
        self._records.take_exception(message)
        self._keeping.take_exception(message)
        self._publisher.exception(message)
        if message.phase == "stop":  # whatever stops for another reason has that as its cause
            what = f"{message.type}: {message.message}".partition("\n")[0]
            self._notice(message.service, f"its stop failed: {what.removesuffix(': ')}")

    def _take_sample(self, message: messages.ResourceSampled) -> None:
        if self._machine.services[message.service].invocation != message.invocation:
            return  # one that takes over, or was replaced
        self._records.take_usage(message.service, clock.now(), message.cpu_s, message.rss_bytes)

    def _take_events_lost(self, message: messages.EventsLost) -> None:
        if self._is_successor(message.invocation):
            return  # it has not taken over: nobody was to hear it
        count = max(0, message.count)
        self._records.take_events_lost(message.service, count)
        events = f"{count} event{'' if count == 1 else 's'}"
        own = self._registry[message.service].service or message.service
        is_slow = own == message.subscriber or message.service == message.subscriber
        self._notice(
            message.service,
            f"{events} of {message.publisher} lost: its methods do not keep up with them"
            if is_slow
            else f"{events} lost for {message.subscriber}, which does not keep up with them",
        )
