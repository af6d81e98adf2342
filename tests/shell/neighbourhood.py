"""The rooms of the controller that bring services together, over a real machine; processes are only said to be there.

Must not decide what a test expects.
"""

from __future__ import annotations

from typing import Any

from svcd.protocol import messages
from svcd.supervisor.config.launch import ClusterSpec, LaunchSpec, PythonCode, ServiceDefinition
from svcd.supervisor.controller.asking import Asking
from svcd.supervisor.controller.engine import Engine
from svcd.supervisor.controller.python.lookups import Lookups
from svcd.supervisor.controller.python.routes import Routes
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core import actions
from svcd.supervisor.core import events as ev
from svcd.supervisor.core.machine import Machine
from svcd.supervisor.core.spec import Dependency, ServiceSpec


def defined(
    name: str, *needs: str, may_call: tuple[str, ...] = (), max_children: int = 0, **spec: Any
) -> ServiceDefinition:
    """A Python service, as plain as it can be; ``name.0`` is an instance of ``name``."""
    service, dot, instance = name.partition(".")
    dependencies = tuple(Dependency(each, group=each.partition(".")[0] if "." in each else "") for each in needs)
    launch = LaunchSpec(PythonCode(entry="till:Till"), "/", may_call=may_call, max_children=max_children)
    made = ServiceSpec(name, dependencies=dependencies, **spec)
    return ServiceDefinition(made, launch, service if dot else "", int(instance) if dot else 0)


def route(number: int) -> messages.Route:
    return messages.Route(f"/e/{number}/calls", f"/e/{number}/events", 1000 + number)


class Neighbourhood:
    """``told`` is what stubs were told: (invocation, message)."""

    def __init__(self, *definitions: ServiceDefinition) -> None:
        self.definitions = definitions
        self.machine = Machine()
        self.registry = Registry(ClusterSpec("shop", (), definitions))
        self.engine = Engine(self.machine)
        self.told: list[tuple[int, messages.Message]] = []
        self.orders: list[Any] = []
        self.events: list[Any] = []
        self.routes = Routes(self.registry, self.machine, self.tell)
        self.asking = Asking(self.submit)
        self.lookups = Lookups(self.registry, self.machine, self.routes, self.submit, self.asking, self.tell)
        executors: dict[type, Any] = dict.fromkeys(actions.Action.__args__, self.orders.append)
        executors[actions.PublishTransition] = self.routes.transitioned
        executors[actions.AnswerRequest] = self.asking.answer
        self.engine.connect(executors, lambda changed: None)
        self.submit(ev.ServicesRegistered(0.0, tuple(each.spec for each in definitions)))

    def tell(self, invocation: int, message: messages.Message) -> None:
        self.told.append((invocation, message))

    def submit(self, event: Any) -> None:
        self.events.append(event)
        self.engine.submit(event)

    def news(self) -> list[tuple[int, messages.Message]]:
        """What stubs were told since this was asked last."""
        told, self.told = self.told, []
        return told

    def spawned(self, service: str, takes_calls: bool = True) -> int:
        """Whatever was ordered to be spawned of it runs now; its invocation."""
        order = next(each for each in self.orders if isinstance(each, actions.SpawnProcess) and each.service == service)
        self.orders.remove(order)
        number = order.invocation
        if takes_calls:
            self.routes.opened(service, number, route(number))
        self.submit(ev.ProcessSpawned(2.0, service, number, 1000 + number))
        self.submit(ev.ProgramExecuted(3.0, service, number))
        return int(number)

    def starts(self, service: str, takes_calls: bool = True) -> int:
        """It is started by request, and runs."""
        self.submit(ev.StartRequested(1.0, f"r-{len(self.events)}", (service,)))
        return self.spawned(service, takes_calls)

    def ends(self, service: str, invocation: int, code: int = 1) -> None:
        self.submit(ev.ProcessExited(100.0, service, invocation, ev.ExitStatus(code=code)))  # late: it restarts at once
        self.routes.closed(invocation)
