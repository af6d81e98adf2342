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
from svcd.supervisor.controller.asking import Asking, Make
from svcd.supervisor.controller.python.routes import Routes, callable_by
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core.actions import AnswerRequest, ForgetService, Outcome, PublishTransition, TellParent
from svcd.supervisor.core.errors import CoreError
from svcd.supervisor.core.events import (
    ConfigurationApplied,
    RestartRequested,
    StartRequested,
    StopRequested,
)
from svcd.supervisor.core.machine import Machine

REMOVED: Final = "removed"
Asked = ChildServiceRequested | ChildOrderRequested


class Children:
    """``tell`` (invocation, message) does nothing where no stub is connected."""

    def __init__(
        self,
        registry: Registry,
        machine: Machine,
        routes: Routes,
        asking: Asking,
        tell: Callable[[int, Message], None],
    ) -> None:
        self._registry = registry
        self._machine = machine
        self._routes = routes
        self._asking = asking
        self._tell = tell
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
        self._registry.add_child(definition)
        self._routes.permit(message.service, message.name)
        start = (message.name,) if message.start else ()
        cause = f"{message.service} creates {message.name}"
        self._asking.ask(
            lambda key: ConfigurationApplied(clock.now(), key, (definition.spec,), start=start, cause=cause),
            lambda answer: self._created(message, answer),
        )
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
        child, at = message.child, clock.now()
        makes: dict[str, Make] = {
            "start": lambda key: StartRequested(at, key, (child,)),
            "stop": lambda key: StopRequested(at, key, (child,)),
            "restart": lambda key: RestartRequested(at, key, (child,)),
            "remove": self._removal(child, f"{message.service} removes {child}"),
        }
        if child not in self._registry.children_of(message.service):
            self._end(message, ChildErrorCode.UNKNOWN, f"{message.service} has no child {child!r}")
        elif message.order not in makes:
            self._end(message, ChildErrorCode.REFUSED, f"a child cannot be told {message.order!r}")
        else:
            self._asking.ask(makes[message.order], lambda answer: self._obeyed(message, answer))

    @staticmethod
    def _removal(child: str, cause: str) -> Make:
        return lambda key: ConfigurationApplied(clock.now(), key, removed=(child,), cause=cause)

    # ---- the core's answers ----------------------------------------------------------------------------------------

    def _obeyed(self, message: ChildOrderRequested, answer: AnswerRequest) -> None:
        if answer.outcome is Outcome.DONE:
            self._end(message)
        elif answer.outcome is Outcome.REFUSED:
            self._end(message, ChildErrorCode.REFUSED, answer.reason)
        else:
            self._end(message, ChildErrorCode.FAILED, answer.reason)

    def _created(self, message: ChildServiceRequested, answer: AnswerRequest) -> None:
        if answer.outcome is Outcome.REFUSED:
            self._take_back(message.service, message.name)
            self._end(message, ChildErrorCode.REFUSED, f"cannot create {message.name}: {answer.reason}")
        elif message.wait and answer.outcome is Outcome.DONE:
            self._end(message)
        elif message.wait:
            self._remove_again(message, answer.reason)

    def _take_back(self, parent: str, child: str) -> None:
        """What was entered here before the core was asked."""
        self._routes.forbid(parent, child)
        self._registry.forget(child)

    def _remove_again(self, message: ChildServiceRequested, text: str) -> None:
        """It did not come up: nothing is left of it when its parent hears so."""
        self._asking.ask(
            self._removal(message.name, f"{message.name} did not come up"),
            lambda _: self._end(message, ChildErrorCode.FAILED, f"cannot create {message.name}: {text}"),
        )

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
