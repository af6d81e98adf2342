"""Before any fork: the functions that every stub runs are copied side by side, so that a fork's writes hit few pages.

Must not change what anything does: a copy is the same function, with the same code, at another address.

CPython writes to what it runs: reference counts of functions, counters in their code. What a stub runs is a tenth of
what is imported, and lies scattered among the rest, one here and one there: 600 functions on 500 pages, of which copies
take 90. Who holds a function by other ways than a module or a class keeps the one that was there before; it has the
same code object.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Iterable
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Final

_KINDS: Final = frozenset({FunctionType, staticmethod, classmethod, property})
"""What a name of a module or a class may have to do with a function."""

_KEPT: Final = ("__kwdefaults__", "__annotations__", "__doc__", "__module__", "__qualname__", "__type_params__")
"""The last since Python 3.12."""

Copies = dict[FunctionType, FunctionType]


def codes_of(run: Callable[[], object]) -> list[CodeType]:
    """All Python code that ``run`` goes through, in this thread, in the order in which it is met first."""
    met: dict[CodeType, None] = {}

    def meet(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            met[frame.f_code] = None

    before = sys.getprofile()
    sys.setprofile(meet)
    try:
        run()
    finally:
        sys.setprofile(before)
    return list(met)


def pack(codes: Iterable[CodeType]) -> None:
    """Let modules and classes have copies of the functions with that code, which lie in this order: what runs at the
    same time, or not at all, is neighbours.
    """
    hot = {code: place for place, code in enumerate(codes)}
    modules = [each for each in sys.modules.values() if isinstance(each, ModuleType)]
    names = [
        (place, name, value)
        for place in (*modules, *_classes_of(modules))
        for name, value in vars(place).items()
        if type(value) in _KINDS and any(each.__code__ in hot for each in _functions_of(value))
    ]
    found = dict.fromkeys(each for _, _, value in names for each in _functions_of(value) if each.__code__ in hot)
    functions = sorted(found, key=lambda function: hot[function.__code__])
    for function in functions:
        function.__code__ = _copied(function.__code__, hot)
    copies = {function: _copy(function) for function in functions}
    for place, name, value in names:
        if isinstance(place, type):
            type.__setattr__(place, name, _with_copies(value, copies))  # a metaclass may mind: there is no change
        else:
            vars(place)[name] = copies[value]


def _classes_of(modules: list[ModuleType]) -> set[type]:
    """Those that they know, and those that are defined in these."""
    seen: set[type] = set()
    waiting = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    while waiting:
        found = waiting.pop()
        if found not in seen:
            seen.add(found)
            waiting += [value for value in vars(found).values() if isinstance(value, type)]
    return seen


def _functions_of(value: Any) -> tuple[FunctionType, ...]:
    if type(value) is property:
        return tuple(each for each in (value.fget, value.fset, value.fdel) if type(each) is FunctionType)
    function = value if type(value) is FunctionType else value.__func__
    return (function,) if type(function) is FunctionType else ()


def _with_copies(value: Any, copies: Copies) -> Any:
    if type(value) is FunctionType:
        return copies[value]
    if type(value) is property:
        fget, fset, fdel = (copies.get(each, each) for each in (value.fget, value.fset, value.fdel))  # type: ignore[call-overload]  # None is in no mapping
        return property(fget, fset, fdel, value.__doc__)
    return type(value)(copies[value.__func__])


def _copy(function: FunctionType) -> FunctionType:
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    for name in _KEPT:
        if hasattr(function, name):
            setattr(copy, name, getattr(function, name))
    copy.__dict__.update(function.__dict__)
    return copy


def _copied(code: CodeType, hot: Container[CodeType]) -> CodeType:
    """With that of the functions that it makes."""
    constants = tuple(_copied(each, hot) if type(each) is CodeType and each in hot else each for each in code.co_consts)
    return code.replace(co_consts=constants)
