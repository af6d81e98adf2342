"""What a service offers: ``@rpc`` and ``@on_event``, and the table of its methods with their checks.

Must not call anything, nor know who asks: it says what fits, in words.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints, overload

from svcd.protocol.limits import MAX_METHOD_LENGTH
from svcd.record import record
from svcd.worker_runtime.calls.annotations import ANYTHING, Check, Mismatch, check_of

Function = TypeVar("Function", bound=Callable[..., Any])

SAFE: Final = "safe"
NEVER: Final = "never"

_RPC: Final = "__svcd_rpc__"
_EVENTS: Final = "__svcd_events__"
_KNOWN: Final = "__svcd_method__"
_STREAMS: Final = (AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator)


@overload
def rpc(method: Function, /) -> Function: ...
@overload
def rpc(*, retry: str) -> Callable[[Function], Function]: ...
def rpc(method: Function | None = None, /, *, retry: str = NEVER) -> Function | Callable[[Function], Function]:
    """Offer a method to other services. Plain or ``async``; a generator of either kind is a stream.

    Arguments and results are checked against its annotations; what has none takes anything that can travel.

    ``@rpc(retry="safe")``: called twice is as good as called once. Where the service was lost before it answered, the
    caller waits for it and asks again, within its deadline; else the caller is told with ``ServiceUnavailable``. Of
    streams nothing is asked again. Raises ``ValueError`` for another word than "safe" and "never".
    """
    if retry not in (SAFE, NEVER):
        raise ValueError(f'@rpc(retry={retry!r}): say "safe" or "never"')

    def mark(function: Function) -> Function:
        if not inspect.isfunction(function):
            raise TypeError(f"@rpc belongs on a method of the service, not on {function!r}")
        setattr(function, _RPC, retry)
        return function

    return mark if method is None else mark(method)


def on_event(*names: str) -> Callable[[Function], Function]:
    """Call a method, with the value, for each event of these names: ``service.topic``, or ``service.begin*`` for all
    topics that begin so. Events of one name come one after the other, in the order in which they were published.
    """
    for name in names:
        check_event_name(name)
    if not names:
        raise TypeError('@on_event needs the name of an event: @on_event("orders.created")')

    def mark(method: Function) -> Function:
        setattr(method, _EVENTS, (*getattr(method, _EVENTS, ()), *names))
        return method

    return mark


def check_event_name(name: Any) -> tuple[str, str]:
    """(service, topic) of an event's name. Raises ``ValueError``."""
    service, dot, topic = name.partition(".") if isinstance(name, str) else ("", "", "")
    if not (service and dot and topic) or "*" in service or "*" in topic[:-1] or len(name) > MAX_METHOD_LENGTH:
        raise ValueError(f'cannot listen to {name!r}: an event is named "service.topic", or "service.begin*"')
    return service, topic


@record
class Method:
    """One method that is offered, and how to call it. ``parameters``: by name, in order, without ``self``."""

    name: str
    is_async: bool
    is_stream: bool
    signature: inspect.Signature
    parameters: dict[str, Check]
    positional: tuple[str, ...]
    required: frozenset[str]
    result: Check
    is_safe: bool = False

    def arguments(self, args: list[Any], named: dict[Any, Any]) -> dict[str, Any]:
        """What to call it with, by name. Raises ``Mismatch``."""
        if args:
            named = self._with_positional(args, named)
        known, taken = self.parameters, {}
        for name, value in named.items():
            check = known.get(name)
            if check is None:
                raise Mismatch(f"it has no parameter {str(name)[:60]!r}: {self.usage()}")
            taken[name] = value if check.quick is None or type(value) in check.quick else check.convert(value, name)
        if len(taken) < len(known) and not self.required <= taken.keys():
            missing = ", ".join(name for name in known if name in self.required and name not in taken)
            raise Mismatch(f"it lacks {missing}: {self.usage()}")
        return taken

    def _with_positional(self, args: list[Any], named: dict[Any, Any]) -> dict[Any, Any]:
        if len(args) > len(self.positional):
            raise Mismatch(f"it takes {len(self.positional)} arguments, not {len(args)}: {self.usage()}")
        taken = dict(zip(self.positional, args, strict=False))
        for name in taken:
            if name in named:
                raise Mismatch(f"it got {name!r} twice: {self.usage()}")
        return {**taken, **named}

    def usage(self) -> str:
        """``charge(user: str, cents: int) -> dict``."""
        return f"{self.name}{self.signature}"


@record
class Listener:
    """A method that hears events. ``name``: the method's; ``service`` and ``topic`` of the event."""

    name: str
    service: str
    topic: str
    is_async: bool
    check: Check


def methods_of(cls: type) -> dict[str, Method]:
    """What a class offers. Raises ``TypeError`` for what it cannot offer, naming method and parameter."""
    offered = (name for name, found in _functions(cls) if hasattr(found, _RPC))
    return {name: _known_method(getattr(cls, name), name, cls.__name__) for name in offered}


def bound(target: object, name: str) -> Callable[..., Any]:
    """That method of the object. Raises ``TypeError`` where the object has put something else in its place."""
    found = getattr(target, name)
    if not callable(found):
        owner, kind = type(target).__name__, type(found).__name__
        raise TypeError(f"cannot offer {owner}.{name}: self.{name} = … has put {kind} in its place; rename one of them")
    return found  # type: ignore[no-any-return]  # callable, as just seen


def _known_method(function: Callable[..., Any], name: str, owner: str) -> Method:
    """Asked for when it is described and when it is offered, and to read a signature takes 0.1 ms: kept with the
    function itself, and with that alone, as what wraps a function takes its attributes over.
    """
    of, known = getattr(function, _KNOWN, (None, None))
    if of is not function or known is None or known.name != name:
        known = method_of(function, name, owner)
        setattr(function, _KNOWN, (function, known))
    return known


def listeners_of(cls: type) -> list[Listener]:
    """What a class listens to. Raises ``TypeError`` for a method that does not take one value."""
    found = []
    for name, function in _functions(cls):
        for event in getattr(function, _EVENTS, ()):
            service, topic = check_event_name(event)
            found.append(Listener(name, service, topic, is_async(function), _event_check(function, cls.__name__)))
    return found


def is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _functions(cls: type) -> list[tuple[str, Callable[..., Any]]]:
    """A method that overrides an offered one is what is offered: it is marked as that was, with its own annotations."""
    found: dict[str, Callable[..., Any]] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if not inspect.isfunction(value):
                if isinstance(value, staticmethod | classmethod) and _is_marked(value.__func__):
                    kind = type(value).__name__
                    raise TypeError(f"cannot offer {cls.__name__}.{name}: it is a {kind}: offered is what takes self")
                found.pop(name, None)
                continue
            for mark in (_RPC, _EVENTS):
                if name in found and hasattr(found[name], mark) and not hasattr(value, mark):
                    setattr(value, mark, getattr(found[name], mark))
            if _is_marked(value):
                found[name] = value
    return list(found.items())


def _is_marked(function: object) -> bool:
    return hasattr(function, _RPC) or hasattr(function, _EVENTS)


def method_of(function: Callable[..., Any], name: str, owner: str) -> Method:
    """The row of one method; its first parameter is ``self``."""
    where = f"cannot offer {owner}.{name}"
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1:]
    for each in parameters:
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD, each.POSITIONAL_ONLY):
            raise TypeError(f"{where}: parameter {each.name} has no name that a caller could use")
    hints = _hints(function, where)
    is_stream = inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)
    return Method(
        name,
        is_async(function),
        is_stream,
        signature.replace(parameters=parameters),
        {each.name: check_of(hints.get(each.name, Any), f"{where}: {each.name}") for each in parameters},
        tuple(each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD),
        frozenset(each.name for each in parameters if each.default is each.empty),
        _result_check(hints.get("return", Any), is_stream, where),
        getattr(function, _RPC, NEVER) == SAFE and not is_stream,
    )


def _hints(function: Callable[..., Any], where: str) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except Exception as error:  # an annotation is code
        raise TypeError(f"{where}: cannot read its annotations: {error}") from None


def _result_check(hint: Any, is_stream: bool, where: str) -> Check:
    if is_stream:
        arguments = get_args(hint) if get_origin(hint) in _STREAMS else ()
        hint = arguments[0] if arguments else Any
    return check_of(hint, f"{where}: its result")


def state_check(function: Callable[..., Any], owner: str) -> Check:
    """For what ``import_state`` is given. Annotations that cannot be read ask for nothing. Raises ``TypeError``."""
    where = f"{owner}.{function.__name__}"
    parameters = list(inspect.signature(function).parameters)[1:]
    try:
        hints = _hints(function, where)
    except TypeError:
        return ANYTHING
    hint = hints.get(parameters[0], Any) if parameters else Any
    return ANYTHING if hint is Any else check_of(hint, where)


def _event_check(function: Callable[..., Any], owner: str) -> Check:
    where = f"{owner}.{function.__name__} cannot hear events"
    parameters = list(inspect.signature(function).parameters.values())[1:]
    if not parameters or any(each.default is each.empty for each in parameters[1:]):
        raise TypeError(f"{where}: it must take one argument, the event's value")
    if is_async(function) and not inspect.iscoroutinefunction(function):
        raise TypeError(f"{where}: it is a generator")
    hint = _hints(function, where).get(parameters[0].name, Any)
    return ANYTHING if hint is Any else check_of(hint, where)
