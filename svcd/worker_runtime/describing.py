"""What a class offers to others, described for whoever compares it with its next version.

Must not refuse anything: what cannot be offered is refused when the service starts.
"""

from __future__ import annotations

import inspect
from typing import Any, get_args, get_origin, get_type_hints

from svcd.protocol.messages import InterfaceReported, MethodDescribed
from svcd.worker_runtime.methods import Method, listeners_of, methods_of


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
    hints = get_type_hints(function, include_extras=True)  # they could be read before
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


def _words(hint: Any) -> str:
    return "" if hint is Any else inspect.formatannotation(hint)
