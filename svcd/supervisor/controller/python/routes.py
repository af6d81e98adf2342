"""Where requests to each service go: its running instances that take them, told to every stub that may call it.

Must not carry a request, nor decide whether a service runs: routes follow the transitions that the core publishes. Who
may call whom comes from the configuration that is in force.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from svcd.protocol.messages import Message, Route, RouteChanged
from svcd.record import record
from svcd.supervisor.config.launch import Program, ServiceDefinition
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core.actions import PublishTransition
from svcd.supervisor.core.machine import Machine
from svcd.supervisor.core.spec import StartMode
from svcd.supervisor.core.states import State

GIVEN_UP: Final = frozenset({State.FAILED, State.UNAVAILABLE})
NO_SUCH_SERVICE: Final = "there is no such service"
NOT_PERMITTED: Final = "it is neither in depends_on nor in permissions.services"
NO_METHODS: Final = "it takes no requests: none of its methods is marked with @rpc"
A_PROGRAM: Final = "it is a program, which takes no calls: only Python services do"


@record
class Target:
    """What there is to know of one service. ``why``: there are no routes."""

    routes: tuple[Route, ...]
    why: str
    on_demand: bool
    held: bool = False


def callable_by(definition: ServiceDefinition) -> frozenset[str]:
    """The services, as the file calls them, that this one may call."""
    edges = definition.spec.dependencies
    return frozenset(each.group or each.target for each in edges).union(definition.launch.may_call)


class Routes:
    """Services go by the names of the file: one with several instances has one route to each. ``tell`` (invocation,
    message) does nothing where no stub is connected.
    """

    def __init__(self, registry: Registry, machine: Machine, tell: Callable[[int, Message], None]) -> None:
        self._registry = registry
        self._machine = machine
        self._tell = tell
        self._open: dict[int, Route] = {}  # by invocation
        self._running: dict[str, int] = {}  # full name -> invocation
        self._callers: dict[int, str] = {}  # invocation -> full name
        self._may_call: dict[int, frozenset[str]] = {}
        self._audience: dict[str, dict[int, None]] = {}  # name in the file -> invocations that may call it
        self._held: set[str] = set()  # who is back in a moment
        self._heard: frozenset[str] | None = None
        self._watchers: list[Callable[[str], None]] = []
        registry.watched_by(self._configured)

    # ---- what is so ------------------------------------------------------------------------------------------------

    def opened(self, service: str, invocation: int, route: Route) -> None:
        """This run takes requests there."""
        self._open[invocation] = route
        if self._running.get(service) == invocation:
            self._look_at(service)

    def transitioned(self, action: PublishTransition) -> None:
        """Only what runs is found. What has ended is forgotten."""
        if action.new is State.RUNNING and action.invocation is not None:
            self._running[action.service] = action.invocation
        else:
            self._running.pop(action.service, None)
            self._held.discard(action.service)
        self._look_at(action.service)

    def hold(self, service: str, held: bool) -> None:
        """From now on who calls it waits, or does so no longer."""
        (self._held.add if held else self._held.discard)(service)
        self._look_at(service)

    def switched(self, service: str, invocation: int) -> None:
        """Another run of it is the one to ask."""
        self._held.discard(service)
        self._running[service] = invocation
        self._look_at(service)

    def closed(self, invocation: int) -> None:
        """That run's stub is gone."""
        self._open.pop(invocation, None)
        for name in self._may_call.pop(invocation, ()):
            self._leave(invocation, name)
        self._callers.pop(invocation, None)

    def is_heard(self, name: str) -> bool:
        """Whether anybody may listen to the service that the file calls so: children and their parents know each other,
        and may be there later than this is asked.
        """
        definition = self._registry.find_newest(self._registry.expand([name])[0])
        if definition is not None and (definition.spec.parent is not None or definition.launch.max_children):
            return True
        if self._heard is None:
            every = (self._registry.newest(each) for each in self._registry.current)
            self._heard = frozenset(name for each in every for name in callable_by(each))
        return name in self._heard

    def target(self, name: str) -> Target:
        """What is known now of the service that the file calls so."""
        names = self._registry.expand([name])
        definition = self._registry.get(names[0])
        if definition is None:
            return Target((), NO_SUCH_SERVICE, False)
        routes = self._routes_of(tuple(each for each in names if each not in self._held))
        if not routes and self._held.intersection(names):
            return Target((), "it is being updated", False, held=True)
        if not routes and definition.spec.fallback and self._machine.services[names[0]].state in GIVEN_UP:
            routes = self._routes_of((definition.spec.fallback,))
        return Target(routes, "" if routes else self._why(names), definition.spec.start is StartMode.ON_DEMAND)

    def unheard(self, service: str, topics: Iterable[str]) -> Iterator[str]:
        """In words, to whose events this one listens in vain: nobody tells it where they are published. Who has
        children, or is one, may know more names later.
        """
        definition = self._registry.find_newest(service)
        if definition is None:
            return
        may_know_more = definition.spec.parent is not None or definition.launch.max_children > 0
        permitted, every = self._callable_by(service), self._registry.instances
        for name in dict.fromkeys(topic.partition(".")[0] for topic in topics):
            if name in permitted or (may_know_more and name not in every):
                continue
            why = NOT_PERMITTED
            if name not in every:
                near = difflib.get_close_matches(name, every, 1)
                why = NO_SUCH_SERVICE + (f"; did you mean {near[0]}?" if near else "")
            yield f"it hears no events of {name}: {why}"

    def is_program(self, name: str) -> bool:
        """Whether what the file calls so can never be called, nor anybody who stands in for it."""
        definition = self._registry.get(self._registry.expand([name])[0])
        return definition is not None and isinstance(definition.launch.run, Program) and not definition.spec.fallback

    def _routes_of(self, names: tuple[str, ...]) -> tuple[Route, ...]:
        found = (self._open.get(self._running[each]) for each in names if each in self._running)
        return tuple(each for each in found if each is not None)

    def _why(self, names: tuple[str, ...]) -> str:
        view = self._machine.services.get(names[0])
        if view is None:
            return NO_SUCH_SERVICE
        if self.is_program(names[0]):
            return A_PROGRAM
        if any(each in self._running for each in names):
            return NO_METHODS
        stand = f"{view.state.value}: {view.cause}" if view.cause else view.state.value
        return f"it is {stand}" if len(names) == 1 else f"none of its {len(names)} instances runs ({names[0]}: {stand})"

    # ---- who is told -----------------------------------------------------------------------------------------------

    def watch(self, watcher: Callable[[str], None]) -> None:
        """Call this with the name, as in the file, of each service whose routes may have changed."""
        self._watchers.append(watcher)

    def joined(self, service: str, invocation: int) -> None:
        """The stub of this run is connected: it is told whom it may call, and where."""
        self._callers[invocation] = service
        before, now = self._may_call.get(invocation, frozenset()), self._callable_by(service)
        self._may_call[invocation] = now
        for name in before - now:
            self._leave(invocation, name)
            self._tell(invocation, RouteChanged(invocation, name, (), "it is not permitted any more", permitted=False))
        for name in sorted(now):
            self._audience.setdefault(name, {})[invocation] = None
            self._say(invocation, name, self.target(name))

    def _configured(self) -> None:
        """A new configuration is in force."""
        self._heard = None
        for invocation, service in tuple(self._callers.items()):
            is_known = self._registry.find_newest(service) is not None
            if is_known and self._callable_by(service) != self._may_call[invocation]:
                self.joined(service, invocation)

    def _callable_by(self, service: str) -> frozenset[str]:
        return callable_by(self._registry.newest(service)).union(self._registry.children_of(service))

    def permit(self, parent: str, child: str) -> None:
        """The parent may call its new child from now on."""
        invocation = self._machine.services[parent].invocation
        if invocation is not None and invocation in self._callers:
            self._may_call[invocation] |= {child}
            self._audience.setdefault(child, {})[invocation] = None
            self._say(invocation, child, self.target(child))

    def forbid(self, parent: str, child: str) -> None:
        """The child is gone."""
        view = self._machine.services.get(parent)
        invocation = None if view is None else view.invocation
        if invocation is not None and invocation in self._callers:
            self._may_call[invocation] -= {child}
            self._leave(invocation, child)
            self._tell(invocation, RouteChanged(invocation, child, (), "it is gone", permitted=False))

    def _leave(self, invocation: int, name: str) -> None:
        audience = self._audience.get(name, {})
        audience.pop(invocation, None)
        if not audience:
            self._audience.pop(name, None)

    def _look_at(self, service: str) -> None:
        """This one was found, and is not any more, or the other way round."""
        for each in (service, *self._registry.covered_by(service)):
            definition = self._registry.get(each)
            name = each if definition is None else definition.service or each
            for watcher in self._watchers:
                watcher(name)
            for called in dict.fromkeys((name, each)):  # children call the very instance that is their parent
                audience = self._audience.get(called)
                if audience:
                    target = self.target(called)
                    for invocation in audience:
                        self._say(invocation, called, target)

    def _say(self, invocation: int, name: str, target: Target) -> None:
        message = RouteChanged(
            invocation, name, target.routes, target.why, on_demand=target.on_demand, held=target.held
        )
        self._tell(invocation, message)
