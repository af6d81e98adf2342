"""Values of calls and events to frames and back: MessagePack, and what it lacks as its extension types.

Must not pickle, nor make an object of any class that a peer names: dataclasses travel as maps, and the receiver's own
annotation says what becomes of them. Whatever comes in, ``unpack`` returns a value or raises ``ProtocolError``.

The first frame is the MessagePack; large bytes and arrays follow as frames of their own, which nobody copies. An
extension type in the first frame says which frame it is, by its number.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import sys
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from enum import Enum
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]  # it ships no types

from svcd.protocol.bounded import counter, words
from svcd.protocol.errors import MalformedMessage, MessageTooLarge, ProtocolError
from svcd.protocol.limits import (
    MAX_BUFFERS,
    MAX_COLLECTIONS,
    MAX_DEPTH,
    MAX_LIST_LENGTH,
    MAX_MAP_LENGTH,
    MAX_MESSAGE_BYTES,
    OWN_FRAME_BYTES,
)

Buffer = bytes | bytearray | memoryview
Frames = list[Buffer]

DATETIME, DATE, TIME, TIMEDELTA, BYTES, VIEW, ARRAY = range(1, 8)
COUNTED_FROM_BYTES: Final = 64 * 1024
_LOOKS: Final = 32  # collections of one value that are looked through for large bytes before packing
_LOOKED_LENGTH: Final = 1024  # entries of one of them
_RENEWED_FROM_BYTES: Final = 1024 * 1024  # a packer keeps the memory of the largest value that it has ever packed
_PLAIN_KINDS: Final = "biufcmMSU"  # numpy's kinds of elements that are bytes and nothing else
_MAX_DTYPE_LENGTH: Final = 32
_MAX_DIMENSIONS: Final = 32
_EXT_ROOM_BYTES: Final = 1024  # of an array within the MessagePack: its type and shape

BEYOND_64_BITS: Final = "an int beyond 64 bits cannot travel"

_own_from_bytes = OWN_FRAME_BYTES
_buffers: Frames = []  # of the value that is being packed; packing calls no code that could pack
_looks = 0  # that are left for it
_is_unseen = False  # whether part of it was not looked through


def pack(value: Any) -> Frames:
    """The frames of ``value``. Raises ``ProtocolError`` where something in it cannot travel, or is too large."""
    global _buffers, _looks, _is_unseen
    cls = type(value)
    if cls in _PLAIN or (cls is str and len(value) <= COUNTED_FROM_BYTES):
        try:
            return [_packer.pack(value)]
        except (UnicodeEncodeError, OverflowError, ValueError):
            pass  # below, with its words
    try:
        _looks, _is_unseen = _LOOKS, False
        body = _packer.pack(value if type(value) in _PLAIN else _lift(value, MAX_DEPTH))
        if _is_unseen and len(body) > COUNTED_FROM_BYTES:  # perhaps there is something large where nobody looked
            _buffers, _looks = [], MAX_COLLECTIONS
            body = _packer.pack(_lift(value, MAX_DEPTH))
        buffers = _buffers
    except UnicodeEncodeError:
        raise MalformedMessage("a text with lone surrogates cannot travel: it is no Unicode") from None
    except OverflowError:
        raise MalformedMessage(BEYOND_64_BITS) from None
    except ProtocolError:
        raise
    except (TypeError, ValueError, RecursionError, BufferError) as error:
        raise MalformedMessage(words(error)) from None
    finally:
        if _buffers:
            _buffers = []
    if len(body) > _RENEWED_FROM_BYTES:
        _renew_packer()
    if len(body) > MAX_MESSAGE_BYTES:
        raise _too_large(len(body))
    return [body, *buffers]


def _too_large(size: int) -> MessageTooLarge:
    return MessageTooLarge(
        f"{size} bytes beside large buffers; at most {MAX_MESSAGE_BYTES} travel. Use streams, or arrays"
    )


def pack_arguments(args: list[Any], named: dict[str, Any]) -> Frames:
    """``pack([args, named])``, sooner where they are simple, as they mostly are. Raises ``ProtocolError``."""
    for each in (*args, *named.values()) if args else named.values():
        cls = type(each)
        if cls not in _PLAIN and (cls is not str or len(each) > COUNTED_FROM_BYTES):
            return pack([args, named])  # which looks before it packs
    try:
        return [_packer.pack([args, named])]
    except (UnicodeEncodeError, OverflowError, ValueError):
        return pack([args, named])  # for its words


def pack_whole(value: Any, limit_bytes: int) -> bytes:
    """``value`` in one piece, whatever is large in it. Raises ``ProtocolError`` as ``pack`` does."""
    global _own_from_bytes
    _own_from_bytes = sys.maxsize
    try:
        body: bytes = msgpack.Packer(default=_default, strict_types=True).pack(value)  # its buffer would stay large
    except UnicodeEncodeError:
        raise MalformedMessage("a text with lone surrogates cannot travel: it is no Unicode") from None
    except OverflowError:
        raise MalformedMessage(BEYOND_64_BITS) from None
    except (TypeError, ValueError, RecursionError, BufferError) as error:
        raise MalformedMessage(words(error)) from None
    finally:
        _own_from_bytes = OWN_FRAME_BYTES
    if len(body) > limit_bytes:
        raise MessageTooLarge(f"{len(body)} bytes; at most {limit_bytes} can be kept")
    return body


def unpack_whole(body: bytes) -> Any:
    """The value that ``pack_whole`` has packed: one's own, so that its size alone bounds it. Raises
    ``ProtocolError``.
    """
    try:
        return msgpack.unpackb(body, ext_hook=_open_alone, strict_map_key=False, max_ext_len=len(body))
    except ProtocolError:
        raise
    except Exception as error:  # whatever the library makes of bytes that have gone bad
        raise MalformedMessage(f"no MessagePack: {words(error)}") from None


def unpack_from(frames: Sequence[Buffer], first: int) -> Any:
    """``unpack(frames[first:])``, sooner where it is one small frame, as it mostly is. Raises ``ProtocolError``."""
    if len(frames) == first + 1:
        body = frames[first]
        size = len(body)
        if size <= COUNTED_FROM_BYTES:
            return _unpack(body, _open_alone, None, size)
    return unpack(frames[first:])


def unpack(frames: Sequence[Buffer]) -> Any:
    """The value in ``frames``, which are within their limits of bytes already. Raises ``ProtocolError``."""
    if not frames:
        raise MalformedMessage("a value without a frame")
    body = frames[0]
    size = len(body)
    if size > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(f"a value of {size} bytes beside large buffers; at most {MAX_MESSAGE_BYTES} are read")
    if len(frames) == 1 and size <= COUNTED_FROM_BYTES:
        return _unpack(body, _open_alone, None, size)
    opened = _Opening(frames)
    value = _unpack(body, opened.open, counter("a value"), size)
    if opened.left:
        raise MalformedMessage("a buffer that no value uses")
    return value


def _unpack(body: Buffer, ext: Callable[[int, bytes], Any], count: Callable[[Any], Any] | None, size: int) -> Any:
    try:
        return msgpack.unpackb(
            body,
            ext_hook=ext,
            list_hook=count,
            object_hook=count,
            strict_map_key=False,
            max_str_len=size,
            max_bin_len=size,
            max_ext_len=OWN_FRAME_BYTES + _EXT_ROOM_BYTES,
            max_array_len=min(size, MAX_LIST_LENGTH),
            max_map_len=min(size, MAX_MAP_LENGTH),
        )
    except ProtocolError:
        raise
    except Exception as error:  # whatever the library makes of hostile bytes
        raise MalformedMessage(f"no MessagePack: {words(error)}") from None


# ---- out -------------------------------------------------------------------------------------------------------------


def _ext(code: int, *parts: Any) -> Any:
    return msgpack.ExtType(code, msgpack.packb(parts))


def _own_frame(view: Buffer) -> int:
    if len(_buffers) >= MAX_BUFFERS:
        raise MessageTooLarge(f"more than {MAX_BUFFERS} large buffers in one value")
    _buffers.append(view)
    return len(_buffers)


class _Large:
    """Bytes that are to have a frame of their own: the packer would take them as they are."""

    __slots__ = ("code", "held")

    def __init__(self, code: int, held: Buffer) -> None:
        self.code = code
        self.held = held


def _lift(value: Any, depth: int) -> Any:
    """``value`` with its large bytes marked, as far as it is looked through; itself where there are none. Raises
    ``MessageTooLarge`` for a text that is: before it is copied.
    """
    global _looks, _is_unseen
    cls = type(value)
    if cls is str:
        if len(value) > MAX_MESSAGE_BYTES:
            raise _too_large(len(value))
        return value
    if cls in _BYTES:
        return _Large(_BYTES[cls], value) if len(value) >= OWN_FRAME_BYTES or cls is memoryview else value
    if not depth or cls not in _LOOKED_THROUGH:
        return value
    if _looks <= 0 or (len(value) > _LOOKED_LENGTH and _looks <= _LOOKS):
        _is_unseen = True
        return value
    if _PLAIN.issuperset(map(type, value.values() if cls is dict else value)):
        return value
    _looks -= 1
    lifted = []
    for place, each in value.items() if cls is dict else enumerate(value):
        if type(each) in _LIFTED:
            found = _lift(each, depth - 1)
            if found is not each:
                lifted.append((place, found))
            elif _looks <= 0:
                _is_unseen = True
                break
    if not lifted:
        return value
    copy = value.copy() if cls is dict else [*value]
    for place, found in lifted:
        copy[place] = found
    return copy


_PLAIN: Final = frozenset({int, float, bool, type(None)})
_SIMPLE: Final = _PLAIN | {str}
_BYTES: Final[dict[type, int]] = {bytes: BYTES, bytearray: BYTES, memoryview: VIEW}
_LOOKED_THROUGH: Final = frozenset({dict, list, tuple})
_LIFTED: Final = _LOOKED_THROUGH | _BYTES.keys() | {str}


def _bytes_out(code: int, value: Buffer) -> Any:
    view = memoryview(value)
    flat = view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())
    return _ext(code, _own_frame(flat) if flat.nbytes >= _own_from_bytes else flat.tobytes())


def _array_out(array: Any) -> Any:
    if array.dtype.kind not in _PLAIN_KINDS or array.dtype.hasobject:
        raise TypeError(
            f"an array of {str(array.dtype)[:60]} cannot travel: only numbers, dates and texts of fixed length"
        )
    if not array.flags.c_contiguous:
        array = array.copy(order="C")
    if array.nbytes < _own_from_bytes:
        return _ext(ARRAY, array.dtype.str, array.shape, array.tobytes())
    flat = memoryview(array.reshape(-1).view("u1"))  # as bytes: dates have no buffer of their own
    return _ext(ARRAY, array.dtype.str, array.shape, _own_frame(flat))


_OUT: Final[dict[type, Callable[[Any], Any]]] = {
    datetime: lambda value: msgpack.ExtType(DATETIME, value.isoformat().encode()),
    date: lambda value: msgpack.ExtType(DATE, value.isoformat().encode()),
    time: lambda value: msgpack.ExtType(TIME, value.isoformat().encode()),
    timedelta: lambda value: _ext(TIMEDELTA, value.days, value.seconds, value.microseconds),
    _Large: lambda value: _bytes_out(value.code, value.held),
    set: lambda value: _lift([*value], MAX_DEPTH),
    frozenset: lambda value: _lift([*value], MAX_DEPTH),
    tuple: list,
}
_fields: dict[type, tuple[str, ...]] = {}


def _default(value: Any) -> Any:
    """What the packer does not know."""
    cls = type(value)
    known = _OUT.get(cls)
    if known is not None:
        return known(value)
    names = _fields.get(cls)
    if names is None and dataclasses.is_dataclass(cls):
        names = _fields[cls] = tuple(each.name for each in dataclasses.fields(cls))
    if names is not None:
        return _lift({name: getattr(value, name) for name in names}, MAX_DEPTH)
    return _rarer(value, cls)


def _rarer(value: Any, cls: type) -> Any:
    if isinstance(value, Enum):
        return value.value
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if cls is numpy.ndarray:
            return _array_out(value)
        if isinstance(value, numpy.generic):
            return value.item()
    for base in _BASES:  # subclasses travel as what they are of
        if isinstance(value, base):
            return base(value)
    raise TypeError(f"{cls.__module__}.{cls.__qualname__} cannot travel"[:160])


_BASES: Final[tuple[Any, ...]] = (int, float, str, bytes, list, tuple, dict)


def _renew_packer() -> None:
    global _packer
    _packer = msgpack.Packer(default=_default, strict_types=True)


_packer = msgpack.Packer(default=_default, strict_types=True)


# ---- in --------------------------------------------------------------------------------------------------------------


class _Opening:
    """The extension types of one value, and which frames of their own were used: each at most once."""

    def __init__(self, frames: Sequence[Buffer]) -> None:
        self._frames = list[Buffer | None](frames)
        self.left = len(frames) - 1

    def open(self, code: int, packed: bytes) -> Any:
        if code in _TEXTS:
            return _text_in(code, packed)
        parts = _parts(packed)
        if code == TIMEDELTA and len(parts) == 3 and all(type(each) is int for each in parts):
            return timedelta(*parts)
        if code in (BYTES, VIEW) and len(parts) == 1:
            held = self._take(parts[0])
            return bytes(held) if code == BYTES else memoryview(held)
        if code == ARRAY and len(parts) == 3:
            return _array_in(parts[0], parts[1], self._take(parts[2]), type(parts[2]) is int)
        raise MalformedMessage(f"an extension type {code} that is not known, or not of its shape")

    def _take(self, where: Any) -> Buffer:
        if type(where) is bytes:
            return where
        if type(where) is not int or not 0 < where < len(self._frames):
            raise MalformedMessage("a buffer that did not come along")
        frame, self._frames[where] = self._frames[where], None
        if frame is None:
            raise MalformedMessage("one buffer for two values")
        self.left -= 1
        return frame


def _open_alone(code: int, packed: bytes) -> Any:
    return _Opening((b"",)).open(code, packed)


_TEXTS: Final[dict[int, Callable[[str], Any]]] = {
    DATETIME: datetime.fromisoformat,
    DATE: date.fromisoformat,
    TIME: time.fromisoformat,
}


def _text_in(code: int, packed: bytes) -> Any:
    try:
        return _TEXTS[code](packed.decode("ascii"))
    except ValueError:
        raise MalformedMessage("a date or time that is none") from None


def _parts(packed: bytes) -> list[Any]:
    parts = msgpack.unpackb(packed, max_ext_len=0, max_map_len=0, max_array_len=_MAX_DIMENSIONS)
    if type(parts) is not list:
        raise MalformedMessage("an extension type that is not of its shape")
    return parts


def _array_in(dtype: Any, shape: Any, buffer: Buffer, is_own: bool) -> Any:
    if type(dtype) is not str or len(dtype) > _MAX_DTYPE_LENGTH or type(shape) is not list:
        raise MalformedMessage("an array that is not of its shape")
    if not all(type(each) is int and each >= 0 for each in shape):
        raise MalformedMessage("an array with a size below nothing")
    try:
        numpy = importlib.import_module("numpy")
    except ImportError:
        raise MalformedMessage("an array, and this interpreter has no numpy: install it there") from None
    kind = numpy.dtype(dtype)
    if kind.kind not in _PLAIN_KINDS or kind.hasobject or kind.str != dtype:
        raise MalformedMessage("an array of elements that do not travel")
    if math.prod(shape) * kind.itemsize != len(buffer):
        raise MalformedMessage("an array whose shape does not fit its bytes")
    if not len(buffer):
        return numpy.empty(shape, kind)
    found = numpy.frombuffer(buffer, kind).reshape(shape)
    return found if is_own else found.copy()  # writable, as an array is expected to be
