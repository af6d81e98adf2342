"""Whether the methods of a service take what the lifecycle gives them: told when the code is loaded, with the mend.

Must not call them, nor take long: every start of a Python service comes here, and to read a signature takes 0.1 ms.

A ``stop(self)`` would otherwise be found out when the service is to end, in svcd's own code: as a ``TypeError`` without
a line of its author's in it.
"""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any, Final

from svcd.worker_runtime.service import Service

GIVEN: Final = {
    "__init__": ("self",),
    "init": ("self", "config"),
    "start": ("self",),
    "stop": ("self", "reason"),
    "pause": ("self",),
    "resume": ("self",),
    "child_ended": ("self", "child", "error"),
    "export_state": ("self",),
    "import_state": ("self", "state"),
}
"""By method: what it is called with, all of it by place."""

_VARARGS: Final = inspect.CO_VARARGS


def complaint(cls: type[Service]) -> str | None:
    """What is wrong with the first of its methods that cannot be called, and how it is written; None for none."""
    for name, given in GIVEN.items():
        method = _own(cls, name)
        if method is not None and not _takes(method, len(given)):
            return (
                f"{cls.__name__}.{name}{inspect.signature(method)} cannot be called: write {name}({', '.join(given)})"
            )
    return None


def function_complaint(function: Any, name: str) -> str | None:
    """As ``complaint``, of a function that is the whole service."""
    if type(function) is not FunctionType or _takes(function, 1):
        return None
    return f"{name}{inspect.signature(function)} cannot be called: write {function.__name__}(ctx)"


def _own(cls: type[Service], name: str) -> FunctionType | None:
    """The method that the author has written. What is no plain function (a static method, a partial) is his affair."""
    for each in cls.__mro__:
        if each is Service:
            return None
        if name in vars(each):
            found = vars(each)[name]
            return found if type(found) is FunctionType else None
    return None


def _takes(function: FunctionType, count: int) -> bool:
    """Whether so many arguments by place are right."""
    code = function.__code__
    has_enough = count >= code.co_argcount - len(function.__defaults__ or ())
    has_room = count <= code.co_argcount or bool(code.co_flags & _VARARGS)
    return has_enough and has_room and code.co_kwonlyargcount <= len(function.__kwdefaults__ or ())
