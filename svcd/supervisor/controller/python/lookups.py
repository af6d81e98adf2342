"""Services that are looked up by others: found, or started for who asks and then found.

Must not decide whether a start is possible: the core does, and its answer ends the lookup. Who looks up the same
service at the same time shares one start.
"""

from __future__ import annotations

from collections.abc import Callable

from svcd.protocol.messages import LookupEnded, Message, ServiceLookup
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.asking import Asking
from svcd.supervisor.controller.python.routes import NO_METHODS, NO_SUCH_SERVICE, NOT_PERMITTED, Routes, callable_by
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core.actions import AnswerRequest, Outcome
from svcd.supervisor.core.events import DemandArose, Event, StartRequested
from svcd.supervisor.core.machine import Machine

End = Callable[[str | None], None]
"""Told once how a lookup has ended: None, it runs and takes requests; else why not."""


class Lookups:
    """``begin`` is for stubs, ``find`` for whoever may ask."""

    def __init__(
        self,
        registry: Registry,
        machine: Machine,
        routes: Routes,
        submit: Callable[[Event], None],
        asking: Asking,
        tell: Callable[[int, Message], None],
    ) -> None:
        self._registry = registry
        self._machine = machine
        self._routes = routes
        self._submit = submit
        self._asking = asking
        self._tell = tell

    def begin(self, message: ServiceLookup) -> None:
        """A stub asks; it is told the end of it."""

        def end(error: str | None) -> None:
            self._tell(message.invocation, LookupEnded(message.invocation, message.token, error))

        definition = self._registry.find_newest(message.service)
        children = self._registry.children_of(message.service)
        if definition is None or not (message.target in callable_by(definition) or message.target in children):
            end(NOT_PERMITTED)
        else:
            self.find(message.target, message.service, message.start, end)

    def find(self, service: str, by: str, start: bool, end: End) -> None:
        """For ``by``, who may: what does not run is started where that is wanted, or where it starts on demand."""
        target = self._routes.target(service)
        if target.routes:
            end(None)
        elif start:
            self._start(service, end)
        elif target.on_demand:
            self._demand(service, by, end)
        else:
            end(target.why)

    def _names(self, service: str) -> tuple[str, ...]:
        return tuple(each for each in self._registry.expand([service]) if each in self._machine.services)

    def _demand(self, service: str, by: str, end: End) -> None:
        """Demand starts it, unless it was stopped by name: that is not overruled by who calls it."""
        names = self._names(service)
        for name in names:
            self._submit(DemandArose(clock.now(), name, f"called by {by}"))
        if any(self._machine.services[name].held_back for name in names):
            end(self._routes.target(service).why)
        else:
            self._start(service, end, overrules=False)

    def _start(self, service: str, end: End, overrules: bool = True) -> None:
        names = self._names(service)
        if not names:
            end(NO_SUCH_SERVICE)
            return
        self._asking.ask(
            lambda key: StartRequested(clock.now(), key, names, overrules),
            lambda answer: self._started(service, end, answer),
        )

    def _started(self, service: str, end: End, answer: AnswerRequest) -> None:
        """The start has ended, well or badly."""
        if answer.outcome is Outcome.DONE:
            end(None if self._routes.target(service).routes else NO_METHODS)
            return
        end(answer.reason)
