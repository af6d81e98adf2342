"""Frozen values with named fields: what ``@dataclass(frozen=True, slots=True)`` gives, made when it is first needed.

Must not import anything of ours, nor of the standard library what takes long: every process of svcd begins here, and
the core, the protocol and the lean parts use it alike.

svcd has some 240 such classes and a process uses a few dozen of them. The standard decorator writes and compiles
seven methods for each when it is defined: 0.43 ms (3.11) and 10 KiB a class, a tenth of a second at each start, and
it imports ``inspect``. Here all classes share what can be shared, ``__init__`` is compiled when the first instance is
made, and what ``dataclasses`` asks of a class is put together when it asks.

What differs from a standard dataclass: ``field`` knows ``default_factory`` alone; there is no ``InitVar``, ``KW_ONLY``
or ``__post_init__``; a class without a docstring gets none.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, cast, dataclass_transform

__all__ = ["as_dict", "defaults_of", "entity", "field", "field_names", "record", "replace"]

T = TypeVar("T")

FIELDS: Final = "__dataclass_fields__"
PARAMS: Final = "__dataclass_params__"
VALUES: Final = "__record_values__"  # reads all fields of an instance, as a tuple
DEFAULTS: Final = "__record_defaults__"  # field -> its default, in the order of the fields that have one
UNCHANGEABLE: Final = (list, dict, set)  # as defaults they would be shared


class Fresh:
    """A default that is made anew for each instance."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


def field(*, default_factory: Callable[[], T]) -> T:
    """A field whose default is made anew for each instance."""
    made: Any = Fresh(default_factory)
    return cast(T, made)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen value: slots, equality and hash by its fields, ``FrozenInstanceError`` on change.

    As the standard decorator does for slots, it returns another class than it was given. Raises ``TypeError`` and
    ``ValueError`` for what cannot be a record, as the standard one does.
    """
    return _made(cls, _FROZEN)


@dataclass_transform(eq_default=False, field_specifiers=(field,))
def entity(cls: type[T]) -> type[T]:
    """Make ``cls`` a thing that changes: slots, named fields, and equal to itself alone."""
    return _made(cls, _CHANGING)


if TYPE_CHECKING:
    from dataclasses import replace  # checkers know its arguments
else:

    def replace(value, /, **changes):
        """Another record, with these fields changed. As ``dataclasses.replace``, which knows records as well."""
        for name in value.__match_args__:
            if name not in changes:
                changes[name] = getattr(value, name)
        return value.__class__(**changes)


def field_names(kind: type) -> tuple[str, ...]:
    """The names of a record's fields, in order, without what ``dataclasses.fields`` would have to import."""
    names: tuple[str, ...] = kind.__match_args__  # type: ignore[attr-defined]
    return names


def defaults_of(kind: type) -> dict[str, Any]:
    """Field name -> default, made anew; a field without one is not in it."""
    defaults: dict[str, Any] = getattr(kind, DEFAULTS)
    return {name: value.make() if type(value) is Fresh else value for name, value in defaults.items()}


def as_dict(value: Any) -> dict[str, Any]:
    """A record as a dict, and what it holds likewise. As ``dataclasses.asdict``, but anything else is not copied."""
    return {name: _plain(getattr(value, name)) for name in value.__match_args__}


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind is tuple or kind is list:
        return kind(map(_plain, value))
    if kind is dict:
        return {_plain(key): _plain(item) for key, item in value.items()}
    return as_dict(value) if hasattr(kind, VALUES) else value


# ---- making the class ------------------------------------------------------------------------------------------------


def _made(cls: type[T], methods: dict[str, Any]) -> type[T]:
    space = dict(vars(cls))
    own = [name for name, kind in space.get("__annotations__", {}).items() if not _is_class_variable(kind)]
    inherited, defaults = _inherited(cls)
    defaults |= {name: space.pop(name) for name in own if name in space}
    names = (*inherited, *(name for name in own if name not in inherited))
    _check(cls, names, defaults)
    if "__eq__" in space and space.get("__hash__", 0) is None:
        del space["__hash__"]  # Python's own answer to an __eq__, not the author's
    space.pop("__dict__", None)
    space.pop("__weakref__", None)
    space |= {name: method for name, method in methods.items() if name not in space}
    space |= {
        "__slots__": tuple(name for name in own if name not in inherited),
        "__match_args__": names,
        "__qualname__": cls.__qualname__,
        DEFAULTS: defaults,
        VALUES: _reader(names),
        FIELDS: _OnDemand(FIELDS),
        PARAMS: _OnDemand(PARAMS),
    }
    made: Any = type(cls)
    made = made(cls.__name__, cls.__bases__, space)
    if "__init__" not in space:
        made.__init__ = _first_init(made)
    return cast(type[T], made)


def _inherited(cls: type) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Fields and defaults of the bases, the furthest first."""
    names: dict[str, None] = {}
    defaults: dict[str, Any] = {}
    for base in reversed(cls.__mro__[1:]):
        if DEFAULTS in vars(base):
            names |= dict.fromkeys(field_names(base))
            defaults |= vars(base)[DEFAULTS]
    return tuple(names), defaults


def _check(cls: type, names: tuple[str, ...], defaults: dict[str, Any]) -> None:
    optional = None
    for name in names:
        if name in defaults:
            optional = name
            if isinstance(defaults[name], UNCHANGEABLE):
                raise ValueError(
                    f"{cls.__qualname__}.{name}: all would share this default: use field(default_factory=…)"
                )
        elif optional:
            raise TypeError(f"{cls.__qualname__}.{name}: without a default, after {optional}, which has one")


def _is_class_variable(kind: Any) -> bool:
    if isinstance(kind, str):
        return kind.startswith(("ClassVar", "typing.ClassVar"))
    return str(kind).startswith("typing.ClassVar")


def _reader(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    if names:
        return _Single(names[0])
    return _Nothing()


class _Single:
    """What ``attrgetter`` does for several names."""

    __slots__ = ("_read",)

    def __init__(self, name: str) -> None:
        self._read = attrgetter(name)

    def __call__(self, value: Any) -> tuple[Any, ...]:
        return (self._read(value),)


class _Nothing:
    __slots__ = ()

    def __call__(self, value: Any) -> tuple[Any, ...]:
        return ()


# ---- __init__, at the first instance --------------------------------------------------------------------------------


def _first_init(cls: type) -> Callable[..., None]:
    def __init__(self: Any, /, *args: Any, **named: Any) -> None:  # noqa: N807 - it stands in for it
        init = cls.__init__ = _compile_init(cls)  # type: ignore[misc]
        init(self, *args, **named)

    return __init__


def _compile_init(cls: type) -> Callable[..., None]:
    """A frozen one writes its fields by their slots' setters, which take half the time of ``object.__setattr__``."""
    is_frozen = "__setattr__" in vars(cls)
    space: dict[str, Any] = {"__builtins__": {}}
    parameters, lines = [], []
    for name in field_names(cls):
        parameter = value = name
        if name in getattr(cls, DEFAULTS):
            default = space[f"_default_{name}"] = getattr(cls, DEFAULTS)[name]
            parameter = f"{name}=_default_{name}"
            if type(default) is Fresh:
                space[f"_make_{name}"] = default.make
                value = f"_make_{name}() if {name} is _default_{name} else {name}"
        space[f"_set_{name}"] = getattr(cls, name).__set__
        parameters.append(parameter)
        lines.append(f"  _set_{name}(self, {value})\n" if is_frozen else f"  self.{name} = {value}\n")
    exec(f"def __init__({', '.join(['self', *parameters])}):\n{''.join(lines) or '  pass'}", space)
    init: Any = space["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__module__ = cls.__module__
    return init  # type: ignore[no-any-return]


# ---- what all records share ------------------------------------------------------------------------------------------


class _OnDemand:
    """What ``dataclasses`` keeps of a class, made by ``dataclasses`` itself when somebody asks."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, value: object, cls: type) -> Any:
        import dataclasses  # noqa: PLC0415 - it takes 8 ms, and most processes never need it

        home = next(base for base in cls.__mro__ if DEFAULTS in vars(base))
        is_frozen = "__setattr__" in vars(home)
        decorate = dataclasses.dataclass(frozen=is_frozen, eq=is_frozen, init=False, repr=False)
        standard: type = decorate(_twin(home, dataclasses.field))
        for name in (FIELDS, PARAMS):
            setattr(home, name, getattr(standard, name))
        return getattr(home, self.name)


def _twin(home: type, field: Callable[..., Any]) -> type:
    """A class with the fields of ``home``, as one writes it for the standard decorator."""
    kinds: dict[str, Any] = {}
    for base in reversed(home.__mro__):
        kinds |= vars(base).get("__annotations__", {})
    space = {
        name: field(default_factory=value.make) if type(value) is Fresh else value
        for name, value in getattr(home, DEFAULTS).items()
    }
    kinds = {name: kinds[name] for name in field_names(home)}
    return type(home.__name__, (), {**space, "__annotations__": kinds, "__module__": home.__module__})


@recursive_repr()
def _repr(self: Any) -> str:
    fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
    return f"{self.__class__.__qualname__}({fields})"


def _eq(self: Any, other: Any) -> Any:
    if other.__class__ is self.__class__:
        read = self.__record_values__
        return read(self) == read(other)
    return NotImplemented


def _hash(self: Any) -> int:
    return hash(self.__record_values__(self))


def _refuse_change(self: Any, name: str, value: Any) -> NoReturn:
    raise _frozen_error(f"cannot assign to field {name!r}")


def _refuse_removal(self: Any, name: str) -> NoReturn:
    raise _frozen_error(f"cannot delete field {name!r}")


def _frozen_error(text: str) -> AttributeError:
    from dataclasses import FrozenInstanceError  # noqa: PLC0415 - see the module's docstring

    return FrozenInstanceError(text)


def _get_state(self: Any) -> tuple[Any, ...]:
    values: tuple[Any, ...] = self.__record_values__(self)
    return values


def _set_state(self: Any, state: tuple[Any, ...]) -> None:
    for name, value in zip(self.__match_args__, state, strict=True):
        getattr(self.__class__, name).__set__(self, value)


_CHANGING: Final = {"__repr__": _repr, "__replace__": replace}
_FROZEN: Final = {
    **_CHANGING,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _refuse_change,
    "__delattr__": _refuse_removal,
    "__getstate__": _get_state,
    "__setstate__": _set_state,
}
