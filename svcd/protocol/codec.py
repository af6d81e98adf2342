"""Messages to bytes and back: MessagePack of ``[VERSION, tag, {field: value}]``.

Must not know sockets, nor trust a byte: whatever comes in, ``decode`` returns a message or raises ``ProtocolError``.

Within one version, a field that the receiver does not know is ignored, and one that the sender left out takes its
default; so fields can be added without a new version. A field without a default must be there.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgpack  # type: ignore[import-untyped]  # it ships no types

from svcd.protocol import messages
from svcd.protocol.bounded import counter, words
from svcd.protocol.errors import MalformedMessage, MessageTooLarge, ProtocolError, UnknownMessage, VersionMismatch
from svcd.protocol.limits import (
    MAX_COLLECTION_LENGTH,
    MAX_DEPTH,
    MAX_MESSAGE_BYTES,
    MAX_STRING_BYTES,
    MAX_TAG_LENGTH,
)
from svcd.protocol.messages import VERSION, Message
from svcd.record import defaults_of, field_names, record

COUNTED_FROM_BYTES: Final = 64 * 1024  # a smaller body cannot hold enough collections to hurt
ABSENT: Final = object()

Convert = Callable[[Any, str], Any]


def encode(message: Message) -> bytes:
    """The body of ``message``. Raises ``ProtocolError`` when it holds what cannot travel, or is too large.

    A lone surrogate (a file name that is no UTF-8, say) travels as its escape ``\\udcXX``.
    """
    cls = type(message)
    if cls.__name__ not in TAGS:
        raise UnknownMessage(f"{cls.__name__} is no message of its own")
    parts = [VERSION, cls.__name__, _as_map(message)]
    try:
        body = _pack(parts)
    except ProtocolError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedMessage(f"cannot encode {cls.__name__}: {error}") from None
    if len(body) > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(f"{cls.__name__} has {len(body)} bytes; at most {MAX_MESSAGE_BYTES} are sent")
    return body


def decode(data: bytes | memoryview) -> Message:
    """The message in ``data``. Raises ``ProtocolError``, and nothing else, when there is none."""
    version, tag, fields = _open(_unpack(data))
    if version != VERSION:
        raise VersionMismatch(f"the peer speaks version {version} of the protocol, this is version {VERSION}")
    cls = TAGS.get(tag)
    if cls is None:
        raise UnknownMessage(f"no message is called {tag!r}")
    return _build(_shape_of(cls), fields)


# ---- bytes ---------------------------------------------------------------------------------------------------------


def _pack(parts: list[Any]) -> bytes:
    try:
        return bytes(msgpack.packb(parts, default=_as_map))
    except UnicodeEncodeError:
        return bytes(msgpack.packb(parts, default=_as_map, unicode_errors="backslashreplace"))


def _unpack(data: bytes | memoryview) -> Any:
    size = len(data) if isinstance(data, bytes) else data.nbytes
    if size > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(f"a message of {size} bytes; at most {MAX_MESSAGE_BYTES} are read")
    count = counter("a message") if size > COUNTED_FROM_BYTES else None
    try:
        return msgpack.unpackb(
            data,
            list_hook=count,
            object_hook=count,
            max_str_len=MAX_STRING_BYTES,
            max_bin_len=MAX_STRING_BYTES,
            max_ext_len=MAX_TAG_LENGTH,
            max_array_len=min(size, MAX_COLLECTION_LENGTH),
            max_map_len=min(size, MAX_COLLECTION_LENGTH),
        )
    except ProtocolError:
        raise
    except Exception as error:  # whatever the library makes of hostile bytes
        raise MalformedMessage(f"no MessagePack: {words(error)}") from None


def _open(value: Any) -> tuple[int, str, dict[Any, Any]]:
    if type(value) is not list or len(value) != 3:
        raise MalformedMessage("not of the form [version, tag, fields]")
    version, tag, fields = value
    if type(version) is not int or type(tag) is not str or len(tag) > MAX_TAG_LENGTH or type(fields) is not dict:
        raise MalformedMessage("not of the form [version, tag, fields]")
    return version, tag, fields


# ---- the shape of each type, compiled at its first use ---------------------------------------------------------------


@record
class Shape:
    """``rows``: per field its name, the types that are taken as they are, and how anything else is converted."""

    cls: type[Message]
    rows: tuple[tuple[str, frozenset[type], Convert], ...]
    required: frozenset[str]


TAGS: Final[dict[str, type[Message]]] = {
    name: cls
    for name, cls in vars(messages).items()
    if isinstance(cls, type) and issubclass(cls, Message) and cls.direction and not cls.direction.startswith("part of")
}
"""Every message that travels by itself, by its tag."""

_shapes: dict[type, Shape] = {}
_readers: dict[type, tuple[tuple[str, ...], Callable[[Any], Any]]] = {}


def _as_map(message: Any) -> dict[str, Any]:
    """The fields of a message. Also asked by the packer for every object that is not MessagePack's own."""
    cls = type(message)
    reader = _readers.get(cls)
    if reader is None:
        if not isinstance(message, Message):
            raise TypeError(f"{cls.__name__} cannot travel")
        names = field_names(cls)
        reader = _readers[cls] = names, attrgetter(*names, "direction")  # one more, so that it always gives a tuple
    names, read = reader
    return dict(zip(names, read(message), strict=False))


def _shape_of(cls: type[Message]) -> Shape:
    shape = _shapes.get(cls)
    if shape is None:
        names, hints = field_names(cls), get_type_hints(cls)
        rows = tuple((name, *_compile(hints[name])) for name in names)
        shape = _shapes[cls] = Shape(cls, rows, frozenset(names) - defaults_of(cls).keys())
    return shape


def _build(shape: Shape, fields: dict[Any, Any]) -> Message:
    values: dict[str, Any] = {}
    for name, quick, convert in shape.rows:
        value = fields.get(name, ABSENT)
        if type(value) in quick:
            values[name] = value
        elif value is not ABSENT:
            values[name] = convert(value, f"{shape.cls.__name__}.{name}")
        elif name in shape.required:
            raise MalformedMessage(f"{shape.cls.__name__} lacks {name}")
    return shape.cls(**values)


def _compile(hint: Any) -> tuple[frozenset[type], Convert]:
    """What a field of this annotation takes as it is, and the conversion of everything else."""
    if get_origin(hint) in (Union, types.UnionType):
        inner = [each for each in get_args(hint) if each is not types.NoneType]
        if len(inner) != 1 or len(get_args(hint)) != 2:
            raise TypeError(f"a field cannot be {hint}")
        quick, convert = _compile(inner[0])
        return quick | {types.NoneType}, convert
    if hint in (str, int, bool, bytes):
        return frozenset({hint}), _refusal(hint.__name__)
    if hint is float:
        return frozenset(), _to_float
    if get_origin(hint) is tuple and get_args(hint)[1:] == (...,):
        return frozenset(), _tuple_of(get_args(hint)[0])
    if hint == dict[str, Any]:
        return frozenset(), _to_free_form
    if hint == dict[str, int]:
        return frozenset(), _to_counts
    if isinstance(hint, type) and issubclass(hint, Message):
        return frozenset(), _nested(hint)
    raise TypeError(f"a field cannot be {hint}")


def _refusal(expected: str) -> Convert:
    def refuse(value: Any, where: str) -> Any:
        raise MalformedMessage(f"{where} must be {expected}, not {type(value).__name__}")

    return refuse


_not_float: Final = _refusal("a finite number")
_not_list: Final = _refusal("a list")
_not_map: Final = _refusal("a map")
_not_free_form: Final = _refusal("made of JSON's types")


def _to_float(value: Any, where: str) -> float:
    if (type(value) is float and math.isfinite(value)) or type(value) is int:
        return float(value)
    _not_float(value, where)
    raise AssertionError


def _tuple_of(hint: Any) -> Convert:
    quick, convert = _compile(hint)

    def to_tuple(value: Any, where: str) -> tuple[Any, ...]:
        if type(value) is not list:
            _not_list(value, where)
        return tuple([each if type(each) in quick else convert(each, where) for each in value])

    return to_tuple


def _nested(cls: type[Message]) -> Convert:
    def to_message(value: Any, where: str) -> Message:
        if type(value) is not dict:
            _not_map(value, where)
        return _build(_shape_of(cls), value)

    return to_message


_SCALARS: Final = frozenset({types.NoneType, bool, int, float, str})


def _to_free_form(value: Any, where: str) -> dict[str, Any]:
    if type(value) is not dict:
        _not_map(value, where)
    _check_free_form(value, where, MAX_DEPTH)
    return value  # type: ignore[no-any-return]  # checked above


def _to_counts(value: Any, where: str) -> dict[str, int]:
    if type(value) is not dict:
        _not_map(value, where)
    for name, count in value.items():
        if type(name) is not str or type(count) is not int:
            raise MalformedMessage(f"{where} must hold names and whole numbers")
    return value  # type: ignore[no-any-return]  # checked above


def _check_free_form(value: Any, where: str, depth: int) -> None:
    if type(value) in _SCALARS:
        return
    if depth == 0:
        raise MalformedMessage(f"{where} is nested deeper than {MAX_DEPTH}")
    if type(value) is dict:
        for key, each in value.items():
            if type(key) is not str:
                _not_free_form(key, where)
            _check_free_form(each, where, depth - 1)
    elif type(value) is list:
        for each in value:
            _check_free_form(each, where, depth - 1)
    else:
        _not_free_form(value, where)
