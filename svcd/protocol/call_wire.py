"""The messages of the data plane: calls, answers, streams and events, as frozen values and as the first frame of each.

Must not know sockets, nor look into the values that follow in the other frames (``values`` does). Whatever comes in,
``decode`` returns a message or raises ``MalformedMessage``.

A message is two frames or more: its head, ``msgpack([VERSION, KIND, fields in their order…])``, and where its row in
the table says so a value. ``id`` is the caller's choice, unique among what it has under way on the connection.
Deadlines are microseconds of CLOCK_MONOTONIC, which all processes of a machine share: what is late is late on both
sides. An event has its topic in front of the head, for subscriptions.
"""

from __future__ import annotations

from enum import IntEnum
from itertools import product
from typing import Any, Final, NamedTuple, get_args, get_type_hints

import msgpack  # type: ignore[import-untyped]  # it ships no types

from svcd.protocol.call_errors import FailureCode
from svcd.protocol.errors import MalformedMessage
from svcd.protocol.limits import MAX_HEAD_BYTES, MAX_METHOD_LENGTH

VERSION: Final = 1
MAX_ID: Final = 2**63


class Kind(IntEnum):
    CALL = 1
    CANCEL = 2
    CREDIT = 3
    RESULT = 4
    FAILED = 5
    ITEM = 6
    END = 7
    EVENT = 8
    CLOSED = 9


class Call(NamedTuple):
    """Caller to callee, with ``[arguments, named arguments]``, and perhaps a third: named ones as they were typed, of
    which the callee's annotations make values. ``credit``: items of a stream that may be sent, 0 where one result is
    wanted.
    """

    id: int
    method: str
    deadline_us: int | None
    credit: int


class Cancel(NamedTuple):
    """Caller to callee: nobody waits for this any more. It is not answered."""

    id: int


class Credit(NamedTuple):
    """Caller to callee: ``items`` more may be sent."""

    id: int
    items: int


class Result(NamedTuple):
    """Callee to caller, with the value. The end of a call."""

    id: int


class Failed(NamedTuple):
    """Callee to caller: the end of a call or a stream. ``type`` and ``traceback`` are those of what was raised. In a
    refusal ``type`` says what the method is ("stream" or "call") where it was asked for as the other.
    """

    id: int
    code: int
    text: str
    type: str
    traceback: str


class Item(NamedTuple):
    """Callee to caller, with the value: the next one of a stream."""

    id: int


class End(NamedTuple):
    """Callee to caller: the stream is over."""

    id: int


class Closed(NamedTuple):
    """Callee to caller: the connection ends; what was asked with this id or a later one has not been begun."""

    id: int


class Event(NamedTuple):
    """Publisher to subscriber, with the value. ``sequence`` counts what this subscriber was to get: a gap is a loss."""

    topic: str
    sequence: int


Message = Call | Cancel | Credit | Result | Failed | Item | End | Event | Closed

_KINDS: Final[dict[Kind, type[Message]]] = {
    Kind.CALL: Call,
    Kind.CANCEL: Cancel,
    Kind.CREDIT: Credit,
    Kind.RESULT: Result,
    Kind.FAILED: Failed,
    Kind.ITEM: Item,
    Kind.END: End,
    Kind.EVENT: Event,
    Kind.CLOSED: Closed,
}
assert set(_KINDS) == set(Kind)

_TO_CALLEE: Final = frozenset({Call, Cancel, Credit})
_TO_CALLER: Final = frozenset({Result, Failed, Item, End, Closed})

_CALL: Final = int(Kind.CALL)
_RESULT: Final = int(Kind.RESULT)
_EVENT: Final = int(Kind.EVENT)
_CALL_BEGINS: Final = bytes((0x90 + 2 + len(Call._fields), VERSION, _CALL))  # a list of so many, and its first two
_EVENT_BEGINS: Final = bytes((0x90 + 2 + len(Event._fields), VERSION, _EVENT))
_OF_ONE_ID: Final[dict[bytes, type[Result | Item]]] = {
    bytes((0x90 + 2 + 1, VERSION, int(kind))): cls for kind, cls in ((Kind.RESULT, Result), (Kind.ITEM, Item))
}
_made: Final = tuple.__new__  # a named tuple's own constructor is a function that calls this one

_numbers: Final[dict[type, int]] = {cls: int(kind) for kind, cls in _KINDS.items()}
_rows: Final[dict[int, tuple[type[Message], frozenset[tuple[type, ...]]]]] = {
    int(kind): (cls, frozenset(product(*(get_args(hint) or (hint,) for hint in get_type_hints(cls).values()))))
    for kind, cls in _KINDS.items()
}
"""By kind: the message, and which types its fields may have, all together."""
_packer: Final = msgpack.Packer(unicode_errors="backslashreplace")  # an exception may say anything
_codes: Final = frozenset(map(int, FailureCode))


def encode(message: Message) -> bytes:
    """The head of ``message``."""
    return _packer.pack((VERSION, _numbers[type(message)], *message))  # type: ignore[no-any-return]


def encode_call(id_: int, method: str, deadline_us: int | None, credit: int) -> bytes:
    """``encode(Call(…))``, at a third of its cost."""
    return _packer.pack((VERSION, _CALL, id_, method, deadline_us, credit))  # type: ignore[no-any-return]


def encode_result(id_: int) -> bytes:
    """``encode(Result(…))``, likewise."""
    return _packer.pack((VERSION, _RESULT, id_))  # type: ignore[no-any-return]


def encode_event(topic: str, sequence: int) -> bytes:
    """``encode(Event(…))``, likewise."""
    return _packer.pack((VERSION, _EVENT, topic, sequence))  # type: ignore[no-any-return]


def decode(head: bytes | bytearray | memoryview) -> Message:
    """The message of which this is the head. Raises ``MalformedMessage``."""
    return _message(_fields(head))


def _fields(head: bytes | bytearray | memoryview) -> Any:
    if len(head) > MAX_HEAD_BYTES:
        raise MalformedMessage(f"a head of {len(head)} bytes")
    try:
        return msgpack.unpackb(head, max_array_len=16, max_map_len=0, max_ext_len=0, unicode_errors="replace")
    except Exception:  # whatever the library makes of hostile bytes
        raise MalformedMessage("a head that is no MessagePack") from None


def _message(fields: Any) -> Message:
    if type(fields) is not list or len(fields) < 3 or type(fields[0]) is bool or fields[0] != VERSION:
        raise MalformedMessage("a head of another version of the protocol, or of none")
    row = _rows.get(fields[1]) if type(fields[1]) is int else None
    if row is None:
        raise MalformedMessage("a head of an unknown kind")
    cls, types = row
    values = fields[2:]
    if tuple(map(type, values)) not in types:
        raise MalformedMessage(f"a {cls.__name__} with fields that are not its own")
    return _bounded(cls(*values))  # type: ignore[no-any-return]  # it gives back what it was given


def decode_for_callee(head: bytes | bytearray | memoryview) -> Call | Cancel | Credit:
    """As ``decode``, of what callers say."""
    fields = _fields(head)
    if head[:3] == _CALL_BEGINS:  # what the general way would find, in a fifth of its time
        id_, method, deadline_us, credit = fields[2:]
        if (
            type(id_) is int
            and 0 < id_ < MAX_ID
            and type(method) is str
            and 0 < len(method) <= MAX_METHOD_LENGTH
            and (deadline_us is None or type(deadline_us) is int)
            and type(credit) is int
            and 0 <= credit < MAX_ID
        ):
            return _made(Call, (id_, method, deadline_us, credit))
    message: Any = _message(fields)
    if type(message) not in _TO_CALLEE:
        raise MalformedMessage(f"a {type(message).__name__} from a caller")
    return message  # type: ignore[no-any-return]  # checked above


def decode_for_caller(head: bytes | bytearray | memoryview) -> Result | Failed | Item | End | Closed:
    """As ``decode``, of what callees say."""
    fields = _fields(head)
    cls = _OF_ONE_ID.get(bytes(head[:3]))
    if cls is not None and type(fields[2]) is int and 0 < fields[2] < MAX_ID:
        return _made(cls, fields[2:])
    message: Any = _message(fields)
    if type(message) not in _TO_CALLER:
        raise MalformedMessage(f"a {type(message).__name__} from a callee")
    return message  # type: ignore[no-any-return]  # checked above


def decode_for_listener(head: bytes | bytearray | memoryview) -> Event:
    """As ``decode``, of what publishers say."""
    fields = _fields(head)
    if head[:3] == _EVENT_BEGINS and type(fields[2]) is str and type(fields[3]) is int:
        return _made(Event, fields[2:])
    message = _message(fields)
    if type(message) is not Event:
        raise MalformedMessage(f"a {type(message).__name__} from a publisher")
    return message


def _bounded(message: Any) -> Any:
    cls = type(message)
    if cls is not Event and not 0 < message.id < MAX_ID:
        raise MalformedMessage("an id out of bounds")
    if cls is Call and not (0 <= message.credit < MAX_ID and 0 < len(message.method) <= MAX_METHOD_LENGTH):
        raise MalformedMessage("a call of no method, or of one with too long a name")
    if cls is Credit and not 0 < message.items < MAX_ID:
        raise MalformedMessage("a credit of nothing")
    if cls is Failed and message.code not in _codes:
        raise MalformedMessage("a failure of an unknown code")
    return message
