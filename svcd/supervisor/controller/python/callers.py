"""What calls for services without anybody asking by name: connections to held sockets, schedules; and idleness.

Must not decide whether a call is answered: the core does. This room lets its neighbours (``sockets``, ``idle``,
``disuse``, ``schedule``) follow what is registered, and carries the core's orders to them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from svcd.supervisor.config.launch import ServiceDefinition
from svcd.supervisor.controller.processes.sockets import HeldSockets
from svcd.supervisor.controller.watching.disuse import DisuseWatch
from svcd.supervisor.controller.watching.idle import IdleWatch
from svcd.supervisor.controller.watching.schedule import LoopClock, Schedules
from svcd.supervisor.core import actions
from svcd.supervisor.core.events import Event
from svcd.supervisor.core.states import State


class Callers:
    """``next_run`` hears when a scheduled task runs next (Unix seconds; None: never), ``notice`` what cannot be done.
    ``ask_use`` has the stub of an invocation say whether it is used.

    ``executors``: the orders that are carried out here; ``disuse`` wants to hear what stubs say.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        submit: Callable[[Event], None],
        next_run: Callable[[str, float | None], None],
        notice: Callable[[str, str], None],
        ask_use: Callable[[int], None],
    ) -> None:
        self._notice = notice
        self._definitions: dict[str, ServiceDefinition] = {}
        self.sockets = HeldSockets(loop, submit, self._arrived)
        self._idle = IdleWatch(loop, submit, self.sockets)
        self.disuse = DisuseWatch(loop, submit, ask_use)
        self._schedules = Schedules(LoopClock(loop), submit, next_run)
        self.executors: dict[type, Callable[[Any], None]] = {
            actions.AwaitDemand: lambda action: self.sockets.await_demand(action.service),
            actions.CeaseAwaitingDemand: lambda action: self.sockets.cease_awaiting(action.service),
        }

    def adopt(self, definition: ServiceDefinition) -> None:
        """What the service is from now on: it is new, or nothing of its older configuration runs any more."""
        self._definitions[definition.spec.name] = definition
        self.sockets.adopt(definition)
        self._idle.adopt(definition)
        self.disuse.adopt(definition)
        try:
            self._schedules.adopt(definition)
        except ValueError as error:
            self._notice(definition.spec.name, str(error))

    def forget(self, service: str) -> None:
        self._definitions.pop(service, None)
        self._idle.end(service)
        self.disuse.end(service)
        self._schedules.forget(service)
        self.sockets.forget(service)

    def transitioned(self, action: actions.PublishTransition) -> None:
        """Only what runs can be idle."""
        definition = self._definitions.get(action.service)
        if action.new is State.RUNNING and definition is not None and action.invocation is not None:
            self._idle.begin(definition, action.invocation)
            self.disuse.begin(definition, action.invocation)
        elif action.old is State.RUNNING:
            self._idle.end(action.service)
            self.disuse.end(action.service)

    def _arrived(self, service: str) -> None:
        self._idle.arrived(service)

    def close(self) -> None:
        """The end of the cluster."""
        self._schedules.close()
        self._idle.close()
        self.disuse.close()
        self.sockets.close()
