"""Child services: what their parents ask for, checked and handed to the core; what parents are told of them.

Must not decide what becomes of a child (the core does). A parent speaks for its own children alone, and its words are
checked before anything changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from svcd.protocol.child_errors import ChildErrorCode
from svcd.protocol.messages import (
    ChildChanged,
    ChildEnded,
    ChildOrderRequested,
    ChildRequestEnded,
    ChildServiceRequested,
    Message,
)
from svcd.supervisor.config.launch import ServiceDefinition
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.controller.routes import Routes, callable_by
from svcd.supervisor.core.actions import AnswerRequest, ForgetService, Outcome, PublishTransition, TellParent
from svcd.supervisor.core.errors import CoreError
from svcd.supervisor.core.events import (
    ConfigurationApplied,
    Event,
    RestartRequested,
    StartRequested,
    StopRequested,
)
from svcd.supervisor.core.machine import Machine

PREFIX: Final = "child-"
REMOVED: Final = "removed"
Asked = ChildServiceRequested | ChildOrderRequested


class Children:
    """``answer`` takes the core's answers to the requests that ``owns`` says are made here. ``tell`` (invocation,
    message) does nothing where no stub is connected.
    """

    def __init__(
        self,
        registry: Registry,
        machine: Machine,
        routes: Routes,
        submit: Callable[[Event], None],
        tell: Callable[[int, Message], None],
    ) -> None:
        self._registry = registry
        self._machine = machine
        self._routes = routes
        self._submit = submit
        self._tell = tell
        self._count = 0
        self._asked: dict[str, Asked] = {}
        self._failed: dict[str, tuple[Asked, str]] = {}  # removals of what did not come up -> why it did not
        self.receivers: dict[type, Callable[[Any], None]] = {
            ChildServiceRequested: self._create,
            ChildOrderRequested: self._order,
        }

    # ---- a new child -----------------------------------------------------------------------------------------------

    def _create(self, message: ChildServiceRequested) -> None:
        refusal = self._refusal(message)
        if refusal is not None:
            self._end(message, refusal[0], f"cannot create {message.name}: {refusal[1]}")
            return
        definition = self._define(message)
        if definition is None:
            return
        key = self._key()
        self._asked[key] = message
        self._registry.add_child(definition)
        self._routes.permit(message.service, message.name)
        start = (message.name,) if message.start else ()
        cause = f"{message.service} creates {message.name}"
        self._submit(ConfigurationApplied(clock.now(), key, (definition.spec,), start=start, cause=cause))
        if not message.wait and message.name in self._registry.children_of(message.service):
            self._end(message)

    def _refusal(self, message: ChildServiceRequested) -> tuple[ChildErrorCode, str] | None:
        name, parent = message.name, message.service
        limit = self._registry.newest(parent).launch.max_children
        count = len(self._registry.children_of(parent))
        if not limit:
            service = self._registry[parent].service or parent
            text = f"{parent} may have no children; write permissions: {{spawn: true}} at {service}"
            return ChildErrorCode.NOT_PERMITTED, text
        known = self._machine.services.get(name)
        if known is not None or name in self._registry.instances:
            of = "" if known is None or known.spec.parent is None else f", a child of {known.spec.parent}"
            return ChildErrorCode.NAME_TAKEN, f"there is a service of that name already{of}"
        if count >= limit:
            text = f"{parent} has {count} children, as many as it may (permissions.spawn)"
            return ChildErrorCode.NOT_PERMITTED, text
        if self._machine.services[parent].invocation != message.invocation:
            return ChildErrorCode.REFUSED, f"this run of {parent} has not taken over yet"
        if self._machine.is_ending:
            return ChildErrorCode.REFUSED, "the cluster is shutting down"
        return None

    def _define(self, message: ChildServiceRequested) -> ServiceDefinition | None:
        """What is asked for, checked; or None, and the parent is told why."""
        from svcd.supervisor.config import child  # noqa: PLC0415 - few clusters have children

        try:
            definition = child.define(message.name, message.definition, self._family(message.service))
            self._machine.admit(definition.spec)
        except child.BadChild as bad:
            self._end(message, ChildErrorCode.DEFINITION, str(bad), bad.problems)
        except CoreError as error:
            self._end(message, ChildErrorCode.REFUSED, f"cannot create {message.name}: {error}")
        else:
            return definition
        return None

    def _family(self, parent: str) -> Any:
        from svcd.supervisor.config.child import Family  # noqa: PLC0415 - as above

        registry = self._registry
        definition = registry[parent]
        siblings = registry.children_of(parent)
        names = {name: tuple(found) for name, found in registry.instances.items()}
        may_call = callable_by(registry.newest(parent)).union(siblings)
        return Family(definition, names, registry.current, may_call)

    # ---- orders to one that there is -------------------------------------------------------------------------------

    def _order(self, message: ChildOrderRequested) -> None:
        child, at, key = message.child, clock.now(), self._key()
        events: dict[str, Event] = {
            "start": StartRequested(at, key, (child,)),
            "stop": StopRequested(at, key, (child,)),
            "restart": RestartRequested(at, key, (child,)),
            "remove": self._removal(key, child, f"{message.service} removes {child}"),
        }
        if child not in self._registry.children_of(message.service):
            self._end(message, ChildErrorCode.UNKNOWN, f"{message.service} has no child {child!r}")
        elif message.order not in events:
            self._end(message, ChildErrorCode.REFUSED, f"a child cannot be told {message.order!r}")
        else:
            self._asked[key] = message
            self._submit(events[message.order])

    @staticmethod
    def _removal(key: str, child: str, cause: str) -> Event:
        return ConfigurationApplied(clock.now(), key, removed=(child,), cause=cause)

    def _key(self) -> str:
        self._count += 1
        return f"{PREFIX}{self._count}"

    # ---- the core's answers ----------------------------------------------------------------------------------------

    @staticmethod
    def owns(request: str) -> bool:
        return request.startswith(PREFIX)

    def answer(self, action: AnswerRequest) -> None:
        """What was asked for has come to an end, well or badly."""
        failed = self._failed.pop(action.request, None)
        if failed is not None:
            self._end(failed[0], ChildErrorCode.FAILED, failed[1])
            return
        message = self._asked.pop(action.request, None)
        if message is None:
            return
        texts = [each.text for each in action.results if each.text]
        text = "; ".join(texts) or action.text or action.outcome.value
        if isinstance(message, ChildServiceRequested):
            self._end_creation(message, action.outcome, text)
        elif action.outcome is Outcome.DONE:
            self._end(message)
        elif action.outcome is Outcome.REFUSED:
            self._end(message, ChildErrorCode.REFUSED, text)
        else:
            self._end(message, ChildErrorCode.FAILED, text)

    def _end_creation(self, message: ChildServiceRequested, outcome: Outcome, text: str) -> None:
        if outcome is Outcome.REFUSED:
            self._take_back(message.service, message.name)
            self._end(message, ChildErrorCode.REFUSED, f"cannot create {message.name}: {text}")
        elif message.wait and outcome is Outcome.DONE:
            self._end(message)
        elif message.wait:
            self._remove_again(message, text)

    def _take_back(self, parent: str, child: str) -> None:
        """What was entered here before the core was asked."""
        self._routes.forbid(parent, child)
        self._registry.forget(child)

    def _remove_again(self, message: ChildServiceRequested, text: str) -> None:
        """It did not come up: nothing is left of it when its parent hears so."""
        key = self._key()
        self._failed[key] = message, f"cannot create {message.name}: {text}"
        self._submit(self._removal(key, message.name, f"{message.name} did not come up"))

    def _end(
        self, message: Asked, code: ChildErrorCode | None = None, error: str = "", problems: tuple[str, ...] = ()
    ) -> None:
        word = "" if code is None else code.value
        self._tell(message.invocation, ChildRequestEnded(message.invocation, message.token, word, error, problems))

    # ---- what parents are told -------------------------------------------------------------------------------------

    def transitioned(self, action: PublishTransition) -> None:
        self._tell_of(action.service, action.new.value, action.cause)

    def tell(self, action: TellParent) -> None:
        """A run of its child has ended by itself."""
        self._tell(action.invocation, ChildEnded(action.invocation, action.child, action.error))

    def forget(self, action: ForgetService) -> None:
        """Nothing of it is left; to be told before the registry forgets it."""
        definition = self._registry.get(action.service)
        if definition is not None and definition.spec.parent is not None:
            self._routes.forbid(definition.spec.parent, action.service)
            self._tell_of(action.service, REMOVED, "")

    def _tell_of(self, child: str, state: str, cause: str) -> None:
        definition = self._registry.get(child)
        parent = None if definition is None else definition.spec.parent
        view = None if parent is None else self._machine.services.get(parent)
        if view is not None and view.invocation is not None:
            self._tell(view.invocation, ChildChanged(view.invocation, child, state, cause))
