"""What a class offers to others, described for whoever compares it with its next version.

Must not refuse anything: what cannot be offered is refused when the service starts.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from svcd.protocol.messages import InterfaceReported, MethodDescribed
from svcd.worker_runtime.calls.methods import Method, listeners_of, methods_of


def interface_of(found: object, service: str, invocation: int) -> InterfaceReported | None:
    """None for what offers nothing, or cannot."""
    if not isinstance(found, type):
        return None
    try:
        methods, listeners = methods_of(found), listeners_of(found)
    except (TypeError, ValueError):
        return None
    if not (methods or listeners):
        return None
    described = tuple(_described(getattr(found, name), each) for name, each in sorted(methods.items()))
    return InterfaceReported(
        service, invocation, described, tuple(sorted({f"{each.service}.{each.topic}" for each in listeners}))
    )


def _described(function: Any, method: Method) -> MethodDescribed:
    try:
        hints = get_type_hints(function, include_extras=True)
        return _with_hints(hints, method)
    except Exception:  # annotations are user code: what they say is then what is written
        return _with_hints({}, method)


def _with_hints(hints: dict[str, Any], method: Method) -> MethodDescribed:
    result = hints.get("return", Any)
    if method.is_stream and get_origin(result) is not None:
        result = get_args(result)[0]
    parameters = tuple(
        {
            "name": name,
            "annotation": _words(hints.get(name, Any)),
            "required": name in method.required,
            "positional": name in method.positional,
        }
        for name in method.parameters
    )
    return MethodDescribed(method.name, method.is_stream, parameters, _words(result))


def _words(hint: Any, around: tuple[type, ...] = ()) -> str:
    """What travels is what counts: a dataclass is its fields and an enum its values, in whatever module they are.
    ``around``: the dataclasses that this one is in.
    """
    arguments, origin = get_args(hint), get_origin(hint)
    if hint is Any or hint is NoneType:
        return "" if hint is Any else "None"
    if isinstance(hint, type) and is_dataclass(hint) and hint not in around:
        return f"{hint.__qualname__}({', '.join(_fields(hint, (*around, hint)))})"
    if isinstance(hint, type) and (is_dataclass(hint) or issubclass(hint, Enum)):
        values = ", ".join(repr(each.value) for each in hint) if issubclass(hint, Enum) else "…"
        return f"{hint.__qualname__}({values})"
    if origin in (Union, UnionType):
        return " | ".join(_words(each, around) or "Any" for each in arguments)
    if origin is Annotated:
        return _words(arguments[0], around)
    if isinstance(origin, type) and arguments:
        inner = ("..." if each is ... else _words(each, around) or "Any" for each in arguments)
        return f"{inspect.formatannotation(origin)}[{', '.join(inner)}]"
    return inspect.formatannotation(hint)


def _fields(found: type, around: tuple[type, ...]) -> Iterator[str]:
    hints = get_type_hints(found, include_extras=True)
    for each in fields(found):
        has_default = each.default is not MISSING or each.default_factory is not MISSING
        yield f"{each.name}: {_words(hints[each.name], around) or 'Any'}{' = …' if has_default else ''}"
