"""From annotations to checks: what a parameter, a result or an event must be, and what is made of what came for it.

Must not know calls: a value and the words for its place go in, the value as annotated or ``Mismatch`` comes out.

One check serves both ways, since a value that fits already is let be: what comes from the wire (a map for a dataclass,
a list for a tuple or a set) and what a method is about to return. Nothing is coerced: "5" is no int; an int is a float,
as Python's own rules have it. Classes are those that the annotation names, never what a peer names.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import sys
import types
import typing
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from typing import Any, Final, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

Convert = Callable[[Any, str], Any]

SHOWN_LENGTH: Final = 60
_ALIAS: Final[Any] = getattr(typing, "TypeAliasType", ())  # ``type X = …``, from Python 3.12 on


class Mismatch(Exception):  # noqa: N818 - it says what it found
    """A value that is not what the annotation says, in words that name its place."""


class Check(NamedTuple):
    """``quick``: types that fit as they are, None for anything; ``convert``: what is to be done with all others."""

    quick: frozenset[type] | None
    convert: Convert

    def __call__(self, value: Any, where: str) -> Any:
        if self.quick is None or type(value) in self.quick:
            return value
        return self.convert(value, where)


def _as_is(value: Any, _where: str) -> Any:
    return value


ANYTHING: Final = Check(None, _as_is)

_PLAIN: Final = frozenset({bool, int, str, bytes, memoryview, datetime, time, timedelta, types.NoneType})


def check_of(hint: Any, where: str) -> Check:
    """The check for an annotation. Raises ``TypeError``, with ``where`` in front, if no value could travel."""
    return _Compiler(where).compile(hint)


class _Compiler:
    """One annotation; classes that contain themselves are compiled once."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._known: dict[type, Check] = {}

    def compile(self, hint: Any) -> Check:
        hint = _plain(hint)
        if hint in (Any, object) or isinstance(hint, typing.TypeVar):
            return ANYTHING
        if hint in _PLAIN:
            return Check(frozenset({hint}), _refusal(_shown(hint)))
        origin = get_origin(hint) or hint
        made = _MAKERS.get(origin)
        if made is not None:
            return made(self, get_args(hint))
        if isinstance(hint, type):
            return self._of_class(hint)
        raise TypeError(f"{self._where}: values of {_shown(hint)} cannot travel")

    def _of_class(self, cls: type) -> Check:
        if cls in self._known:
            return self._known[cls]
        if issubclass(cls, enum.Enum):
            return Check(frozenset({cls}), _enum(cls))
        if dataclasses.is_dataclass(cls) or typing.is_typeddict(cls):
            return self._of_fields(cls)
        numpy = sys.modules.get("numpy")
        if numpy is not None and cls is numpy.ndarray:
            return Check(frozenset({cls}), _refusal("an array"))
        raise TypeError(
            f"{self._where}: values of {_shown(cls)} cannot travel. What can: None, bool, int, float, str, bytes,"
            " dates, enums, dataclasses, numpy arrays, and lists, tuples, sets and dicts of them"
        )

    def _of_fields(self, cls: type) -> Check:
        rows: dict[str, Check] = {}
        is_typed_dict = typing.is_typeddict(cls)
        convert = _typed_dict(cls, rows) if is_typed_dict else _dataclass(cls, rows)
        check = self._known[cls] = Check(frozenset() if is_typed_dict else frozenset({cls}), convert)
        hints = get_type_hints(cls)
        names = hints if is_typed_dict else [field.name for field in dataclasses.fields(cls) if field.init]
        rows.update({name: self.compile(hints[name]) for name in names})
        return check

    # ---- containers ------------------------------------------------------------------------------------------------

    def of_union(self, members: tuple[Any, ...]) -> Check:
        checks = [self.compile(each) for each in members]
        if any(each.quick is None for each in checks):
            return ANYTHING
        quick = frozenset[type]().union(*(each.quick or () for each in checks))
        return Check(quick, _first_of(checks, " or ".join(map(_wanted, members)), any(map(_choices, members))))

    def of_list(self, args: tuple[Any, ...]) -> Check:
        return Check(frozenset(), _sequence(self.compile(args[0]) if args else ANYTHING, list))

    def of_set(self, args: tuple[Any, ...]) -> Check:
        return Check(frozenset(), _sequence(self.compile(args[0]) if args else ANYTHING, set))

    def of_frozen_set(self, args: tuple[Any, ...]) -> Check:
        return Check(frozenset(), _sequence(self.compile(args[0]) if args else ANYTHING, frozenset))

    def of_tuple(self, args: tuple[Any, ...]) -> Check:
        if not args or args[1:] == (...,):
            return Check(frozenset(), _sequence(self.compile(args[0]) if args else ANYTHING, tuple))
        return Check(frozenset(), _fixed([] if args == ((),) else [self.compile(each) for each in args]))

    def of_dict(self, args: tuple[Any, ...]) -> Check:
        keys, entries = (self.compile(each) for each in args) if args else (ANYTHING, ANYTHING)
        return Check(frozenset(), _mapping(keys, entries))

    def of_literal(self, members: tuple[Any, ...]) -> Check:
        return Check(frozenset(), _one_of(members))

    def of_float(self, _args: tuple[Any, ...]) -> Check:
        return Check(frozenset({float}), _to_float)

    def of_date(self, _args: tuple[Any, ...]) -> Check:
        return Check(frozenset({date, datetime}), _refusal("date"))

    def of_array(self, _args: tuple[Any, ...]) -> Check:
        return self._of_class(sys.modules["numpy"].ndarray)


_abc = collections.abc
_MAKERS: Final[dict[Any, Callable[[_Compiler, tuple[Any, ...]], Check]]] = {
    Union: _Compiler.of_union,
    types.UnionType: _Compiler.of_union,
    Literal: _Compiler.of_literal,
    float: _Compiler.of_float,
    date: _Compiler.of_date,
    bytearray: lambda _self, _args: Check(frozenset({bytearray}), _to_bytearray),
    **dict.fromkeys((list, _abc.Sequence, _abc.MutableSequence, _abc.Iterable, _abc.Collection), _Compiler.of_list),
    **dict.fromkeys((dict, _abc.Mapping, _abc.MutableMapping), _Compiler.of_dict),
    **dict.fromkeys((set, _abc.Set, _abc.MutableSet), _Compiler.of_set),
    frozenset: _Compiler.of_frozen_set,
    tuple: _Compiler.of_tuple,
}


def _plain(hint: Any) -> Any:
    """Without what says nothing about the value: ``Annotated``, ``NewType``, aliases, numpy's element types."""
    while True:
        if hint is None:
            return types.NoneType
        if get_origin(hint) in (typing.Annotated, typing.Required, typing.NotRequired):
            hint = get_args(hint)[0]
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif isinstance(hint, _ALIAS):
            hint = hint.__value__
        elif isinstance(get_origin(hint), _ALIAS):  # what it is filled with goes unchecked, as TypeVars do
            hint = get_origin(hint).__value__
        elif getattr(get_origin(hint), "__module__", "") == "numpy":
            hint = get_origin(hint)
        else:
            return hint


def _shown(hint: Any) -> str:
    if hint is types.NoneType:
        return "None"
    return str(hint.__name__ if isinstance(hint, type) else hint)[:SHOWN_LENGTH]


def _choices(hint: Any) -> list[Any]:
    """The values of an annotation that lists them."""
    hint = _plain(hint)
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [each.value for each in hint] if isinstance(hint, type) and issubclass(hint, enum.Enum) else []


def _one_of_words(choices: Iterable[Any]) -> str:
    return f"one of {', '.join(map(repr, choices))}"


def _wanted(hint: Any) -> str:
    choices = _choices(hint)
    return _one_of_words(choices) if choices else _shown(hint)


def _kind_of(value: Any) -> str:
    return "None" if value is None else type(value).__name__[:SHOWN_LENGTH]


def _said(value: Any) -> str:
    """Where there is a choice: what came is as good as its kind."""
    return repr(value) if type(value) is int or (type(value) is str and len(value) <= SHOWN_LENGTH) else _kind_of(value)


def _refusal(expected: str) -> Convert:
    def refuse(value: Any, where: str) -> Any:
        raise Mismatch(f"{where} must be {expected}, not {_kind_of(value)}")

    return refuse


def _to_float(value: Any, where: str) -> float:
    if type(value) is int:
        return value  # as annotated: an int is fine where a float is, and larger ones would not fit it
    raise Mismatch(f"{where} must be float, not {_kind_of(value)}")


def _to_bytearray(value: Any, where: str) -> bytearray:
    if type(value) in (bytes, memoryview):
        return bytearray(value)
    raise Mismatch(f"{where} must be bytes, not {_kind_of(value)}")


def _enum(cls: type[enum.Enum]) -> Convert:
    def to_member(value: Any, where: str) -> enum.Enum:
        try:
            return cls(value)
        except (ValueError, TypeError):
            raise Mismatch(f"{where} must be {_wanted(cls)}, not {_said(value)}") from None

    return to_member


def _one_of(members: tuple[Any, ...]) -> Convert:
    def to_member(value: Any, where: str) -> Any:
        for member in members:
            if value == member and type(value) is type(member):
                return member
        raise Mismatch(f"{where} must be {_one_of_words(members)}, not {_said(value)}")

    return to_member


def _first_of(checks: list[Check], words: str, is_choice: bool) -> Convert:
    def convert(value: Any, where: str) -> Any:
        deeper: list[Mismatch] = []  # of the members that it could be, were it not for something in it
        for check in checks:
            try:
                return check(value, where)
            except Mismatch as error:
                if not str(error).startswith(f"{where} must be "):
                    deeper.append(error)
        if len(deeper) == 1:
            raise deeper[0]
        raise Mismatch(f"{where} must be {words}, not {_said(value) if is_choice else _kind_of(value)}")

    return convert


_SEQUENCES: Final = frozenset({list, tuple, set, frozenset})


def _sequence(entry: Check, cls: Any) -> Convert:
    def to_sequence(value: Any, where: str) -> Any:
        if type(value) not in _SEQUENCES:
            raise Mismatch(f"{where} must be {cls.__name__}, not {_kind_of(value)}")
        if entry.quick is None or entry.quick.issuperset(map(type, value)):
            return value if type(value) is cls else _made(cls, value, where)
        return _made(cls, [entry(each, f"{where}[{index}]") for index, each in enumerate(value)], where)

    return to_sequence


def _made(cls: Any, entries: Any, where: str) -> Any:
    try:
        return cls(entries)
    except TypeError as error:
        raise Mismatch(f"{where}: {error}") from None  # a list within a set, say


def _fixed(entries: list[Check]) -> Convert:
    def to_tuple(value: Any, where: str) -> tuple[Any, ...]:
        if type(value) not in (list, tuple) or len(value) != len(entries):
            raise Mismatch(f"{where} must be a tuple of {len(entries)}, not {_kind_of(value)}")
        pairs = enumerate(zip(entries, value, strict=True))
        return tuple(entry(each, f"{where}[{index}]") for index, (entry, each) in pairs)

    return to_tuple


def _mapping(keys: Check, entries: Check) -> Convert:
    def to_dict(value: Any, where: str) -> dict[Any, Any]:
        if type(value) is not dict:
            raise Mismatch(f"{where} must be dict, not {_kind_of(value)}")
        if (keys.quick is None or keys.quick.issuperset(map(type, value))) and (
            entries.quick is None or entries.quick.issuperset(map(type, value.values()))
        ):
            return value
        return {
            keys(key, f"a key of {where}"): entries(each, f"{where}[{str(key)[:SHOWN_LENGTH]!r}]")
            for key, each in value.items()
        }

    return to_dict


def _named(value: Any, rows: dict[str, Check], where: str, what: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise Mismatch(f"{where} must be {what}, not {_kind_of(value)}")
    for name in value:
        if name not in rows:
            raise Mismatch(f"{where}: {what} has no {str(name)[:SHOWN_LENGTH]!r}")
    return {name: rows[name](each, f"{where}.{name}") for name, each in value.items()}


def _dataclass(cls: Any, rows: dict[str, Check]) -> Convert:
    fields = dataclasses.fields(cls)
    required = [
        each.name
        for each in fields
        if each.init and each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    ]

    computed = {each.name for each in fields if not each.init}  # they travel with the rest and are made anew

    def to_object(value: Any, where: str) -> Any:
        if computed and type(value) is dict:
            value = {name: each for name, each in value.items() if name not in computed}
        named = _named(value, rows, where, cls.__name__)
        for name in required:
            if name not in named:
                raise Mismatch(f"{where}: {cls.__name__} lacks {name!r}")
        try:
            return cls(**named)
        except (TypeError, ValueError) as error:  # its __post_init__ may refuse
            raise Mismatch(f"{where}: {cls.__name__}: {error}") from None

    return to_object


def _typed_dict(cls: Any, rows: dict[str, Check]) -> Convert:
    # ``__required_keys__`` does not see what is written in annotations that are strings yet.
    marks = {name: get_origin(hint) for name, hint in get_type_hints(cls, include_extras=True).items()}
    required = sorted(
        name
        for name, mark in marks.items()
        if mark is typing.Required or (name in cls.__required_keys__ and mark is not typing.NotRequired)
    )

    def to_dict(value: Any, where: str) -> Any:
        named = _named(value, rows, where, cls.__name__)
        for name in required:
            if name not in named:
                raise Mismatch(f"{where}: {cls.__name__} lacks {name!r}")
        return named

    return to_dict
