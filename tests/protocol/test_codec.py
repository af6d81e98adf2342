"""The codec: every message survives the way, and no bytes whatever get anything but a ProtocolError out of it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import types
from typing import Any, get_args, get_origin, get_type_hints

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svcd.protocol import codec, limits, messages
from svcd.protocol.errors import (
    ErrorCode,
    MalformedMessage,
    MessageTooLarge,
    ProtocolError,
    UnknownMessage,
    VersionMismatch,
)
from svcd.protocol.messages import VERSION, Message

NOTHING = ("Message",)
INTEGERS = st.integers(-(2**63), 2**64 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def values(hint: Any) -> st.SearchStrategy[Any]:
    if get_origin(hint) is types.UnionType:
        return st.one_of(*(values(each) for each in get_args(hint)))
    if get_origin(hint) is tuple:
        return st.lists(values(get_args(hint)[0]), max_size=4).map(tuple)
    if isinstance(hint, type) and issubclass(hint, Message):
        return built(hint)
    simple = {
        types.NoneType: st.none(),
        str: st.text(),
        bytes: st.binary(max_size=40),
        int: INTEGERS,
        bool: st.booleans(),
        float: st.floats(allow_nan=False, allow_infinity=False),
        dict[str, Any]: st.dictionaries(st.text(), JSON, max_size=4),
        dict[str, int]: st.dictionaries(st.text(), st.integers(0, 1000), max_size=4),
    }
    return simple[hint]


def built(cls: type[Message]) -> st.SearchStrategy[Message]:
    hints = get_type_hints(cls)
    return st.builds(cls, **{field.name: values(hints[field.name]) for field in dataclasses.fields(cls)})


ANY_MESSAGE = st.sampled_from(sorted(codec.TAGS)).flatmap(lambda tag: built(codec.TAGS[tag]))


def body(tag: str = "StateChanged", version: object = VERSION, **fields: object) -> bytes:
    return bytes(msgpack.packb([version, tag, fields]))


STATE = {"service": "web", "invocation": 3, "state": "running"}


def test_every_message_type_has_a_tag_or_is_a_part() -> None:
    types_ = {name for name, cls in vars(messages).items() if isinstance(cls, type) and issubclass(cls, Message)}
    parts = {name for name in types_ if getattr(messages, name).direction.startswith("part of")}
    assert types_ - parts - {"Message"} == set(codec.TAGS)


@given(ANY_MESSAGE)
@settings(max_examples=400, deadline=None)
def test_round_trip(message: Message) -> None:
    assert codec.decode(codec.encode(message)) == message
    assert codec.decode(memoryview(codec.encode(message))) == message


@given(st.binary(max_size=400))
@settings(max_examples=500, deadline=None)
def test_arbitrary_bytes_are_refused_properly(data: bytes) -> None:
    try:
        codec.decode(data)
    except ProtocolError:
        pass


@given(ANY_MESSAGE, st.data())
@settings(max_examples=500, deadline=None)
def test_damaged_messages_are_refused_properly(message: Message, data: st.DataObject) -> None:
    damaged = bytearray(codec.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(codec.decode(bytes(damaged)), Message)
    except ProtocolError:
        pass


@given(st.sampled_from(sorted(codec.TAGS)), st.dictionaries(st.sampled_from(["service", "services", "config"]), JSON))
@settings(max_examples=400, deadline=None)
def test_fields_of_any_shape_are_refused_properly(tag: str, fields: dict[str, Any]) -> None:
    try:
        assert isinstance(codec.decode(body(tag, **fields)), codec.TAGS[tag])
    except ProtocolError:
        pass


def test_unknown_fields_are_ignored_and_missing_ones_take_their_default() -> None:
    decoded = codec.decode(body(**STATE, colour="red"))
    assert decoded == messages.StateChanged("web", 3, "running", error=None)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"service": "web", "invocation": 3}, "StateChanged lacks state"),
        ({**STATE, "invocation": True}, "StateChanged.invocation must be int, not bool"),
        ({**STATE, "invocation": 1.0}, "StateChanged.invocation must be int, not float"),
        ({**STATE, "service": None}, "StateChanged.service must be str, not NoneType"),
        ({**STATE, "service": b"web"}, "StateChanged.service must be str, not bytes"),
        ({**STATE, "error": 5}, "StateChanged.error must be str, not int"),
        ({**STATE, "service": msgpack.Timestamp(1)}, "StateChanged.service must be str, not Timestamp"),
        ({**STATE, "service": msgpack.ExtType(5, b"x")}, "StateChanged.service must be str, not ExtType"),
    ],
)
def test_wrong_fields_are_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        codec.decode(body(**fields))
    assert str(caught.value) == words


@pytest.mark.parametrize("number", [float("nan"), float("inf"), "1.5", True])
def test_numbers_are_finite_numbers(number: object) -> None:
    fields = {"service": "web", "invocation": 1, "cpu_s": number, "rss_bytes": 1, "threads": 1, "fds": 1}
    with pytest.raises(MalformedMessage, match="cpu_s must be a finite number"):
        codec.decode(body("ResourceSampled", **fields))


def test_a_float_takes_an_integer() -> None:
    fields = {"service": "web", "invocation": 1, "cpu_s": 2, "rss_bytes": 1, "threads": 1, "fds": 1}
    decoded = codec.decode(body("ResourceSampled", **fields))
    assert isinstance(decoded, messages.ResourceSampled)
    assert type(decoded.cpu_s) is float


def test_nested_parts_are_checked() -> None:
    exception = {"service": "w", "invocation": 1, "phase": "run", "type": "E", "message": "", "traceback": ""}
    with pytest.raises(MalformedMessage, match=r"Frame\.line must be int"):
        codec.decode(body("ExceptionRaised", **exception, frames=[{"file": "f", "line": "1", "function": "g"}]))
    with pytest.raises(MalformedMessage, match=r"ExceptionRaised\.frames must be a map"):
        codec.decode(body("ExceptionRaised", **exception, frames=["f"]))
    with pytest.raises(MalformedMessage, match=r"ExceptionRaised\.frames must be a list"):
        codec.decode(body("ExceptionRaised", **exception, frames={"0": "f"}))


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [nested(40), {1: 2}, {"a": {b"b": 1}}, b"x", [msgpack.Timestamp(1)]])
def test_free_form_is_json_of_limited_depth(value: object) -> None:
    data = msgpack.packb([VERSION, "ServiceSpec", {"service": "w", "invocation": 1, "config": {"x": value}}])
    with pytest.raises(MalformedMessage):
        codec.decode(data)


def test_free_form_of_usual_depth_is_taken() -> None:
    spec = messages.ServiceSpec("w", 1, config={"x": nested(limits.MAX_DEPTH - 1)})
    assert codec.decode(codec.encode(spec)) == spec


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", MalformedMessage),
        (b"\xc1", MalformedMessage),
        (b"\x91" * 100_000, MalformedMessage),
        (b"\xdd\xff\xff\xff\xff", MalformedMessage),
        (b"\xdf\xff\xff\xff\xff", MalformedMessage),
        (b"\xdb\xff\xff\xff\xff", MalformedMessage),
        (msgpack.packb({}), MalformedMessage),
        (msgpack.packb([1, "Start"]), MalformedMessage),
        (msgpack.packb([1, "Start", []]), MalformedMessage),
        (msgpack.packb([True, "Start", {}]), MalformedMessage),
        (msgpack.packb([1, b"Start", {}]), MalformedMessage),
        (msgpack.packb([1, "S" * 65, {}]), MalformedMessage),
        (msgpack.packb([1, "Nonsense", {}]), UnknownMessage),
        (msgpack.packb([1, "Message", {}]), UnknownMessage),
        (msgpack.packb([1, "Frame", {"file": "f", "line": 1, "function": "g"}]), UnknownMessage),
        (msgpack.packb([2, "Start", {"invocation": 1}]), VersionMismatch),
        (msgpack.packb([1, "Start", {"invocation": 1}]) + b"x", MalformedMessage),
        (bytes(limits.MAX_MESSAGE_BYTES + 1), MessageTooLarge),
    ],
    ids=repr,
)
def test_hostile_bytes(data: bytes, error: type[ProtocolError]) -> None:
    with pytest.raises(error):
        codec.decode(data)


def test_a_flood_of_collections_is_refused_before_it_fills_the_memory() -> None:
    rows = [[] for _ in range(60_000)]
    with pytest.raises(MessageTooLarge, match="collections"):
        codec.decode(msgpack.packb([VERSION, "Start", {"invocation": 1, "x": [rows] * 6}]))


def test_too_large_a_message_is_not_sent() -> None:
    with pytest.raises(MessageTooLarge):
        codec.encode(messages.ServiceSpec("w", 1, code="x" * (limits.MAX_MESSAGE_BYTES + 1)))


def test_what_cannot_travel_is_refused_at_once() -> None:
    for config in ({"x": object()}, {"x": 2**70}, {"x": {1, 2}}):
        with pytest.raises(MalformedMessage):
            codec.encode(messages.ServiceSpec("w", 1, config=config))
    with pytest.raises(UnknownMessage):
        codec.encode(messages.Part("controller", 1))


def test_lone_surrogates_travel_as_escapes() -> None:
    decoded = codec.decode(codec.encode(messages.NoticeGiven(1, 1.0, "w", "file \udcff")))
    assert isinstance(decoded, messages.NoticeGiven)
    assert decoded.text == "file \\udcff"


def test_every_error_has_a_code_for_the_peer() -> None:
    codes = {MalformedMessage.code, UnknownMessage.code, VersionMismatch.code, MessageTooLarge.code}
    assert codes == {ErrorCode.MALFORMED, ErrorCode.UNKNOWN_MESSAGE, ErrorCode.VERSION_MISMATCH, ErrorCode.TOO_LARGE}


def test_importing_the_codec_loads_nothing_heavy() -> None:
    heavy = ("zmq", "asyncio", "pydantic", "yaml", "structlog")
    code = f"import sys, svcd.protocol.codec; print(*[each for each in {heavy} if each in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == ""
