"""The heads of calls, answers and events: there and back, and nothing else gets in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svcd.protocol import call_wire
from svcd.protocol.call_errors import FailureCode
from svcd.protocol.call_wire import Call, Cancel, Credit, End, Event, Failed, Item, Result
from svcd.protocol.errors import MalformedMessage
from svcd.protocol.limits import MAX_HEAD_BYTES, MAX_METHOD_LENGTH

ALL = [
    Call(1, "charge", None, 0),
    Call(1, "charge", 123456789, 16),
    Cancel(2),
    Credit(2, 10),
    Result(3),
    Failed(3, FailureCode.RAISED, "no", "ValueError", "Traceback …"),
    Item(4),
    End(5),
    Event("created", 1),
]


FOR_ONE_SIDE: tuple[Callable[[bytes], call_wire.Message], ...] = (
    call_wire.decode_for_callee,
    call_wire.decode_for_caller,
    call_wire.decode_for_listener,
)


@pytest.mark.parametrize("message", ALL)
def test_heads_come_back(message: call_wire.Message) -> None:
    came = call_wire.decode(call_wire.encode(message))
    assert came == message
    assert type(came) is type(message)


def test_each_side_takes_only_what_the_other_says() -> None:
    for message in ALL:
        head = call_wire.encode(message)
        is_callers = isinstance(message, Call | Cancel | Credit)
        is_callees = isinstance(message, Result | Failed | Item | End)
        is_publishers = isinstance(message, Event)
        for decode, wanted in zip(FOR_ONE_SIDE, (is_callers, is_callees, is_publishers), strict=True):
            if wanted:
                assert decode(head) == message
            else:
                with pytest.raises(MalformedMessage):
                    decode(head)


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        [1],
        [1, 1],
        [2, 2, 1],
        [True, 2, 1],
        [1, 99, 1],
        [1, "2", 1],
        [1, 2, "1"],
        [1, 2, True],
        [1, 2, 0],
        [1, 2, -1],
        [1, 2, 2**63],
        [1, 2, 1, 1],
        [1, 1, 1, "", None, 0],
        [1, 1, 1, "x" * (MAX_METHOD_LENGTH + 1), None, 0],
        [1, 1, 1, "x", 1.5, 0],
        [1, 1, 1, "x", None, -1],
        [1, 3, 1, 0],
        [1, 5, 1, 99, "", "", ""],
        [1, 5, 1, 1, "", "", None],
        [1] * 20,
        [1, 2, [1]],
        {"a": 1},
    ],
)
def test_malformed_heads_are_refused(fields: Any) -> None:
    for decode in (call_wire.decode, *FOR_ONE_SIDE):
        with pytest.raises(MalformedMessage):
            decode(msgpack.packb(fields))


def test_the_quick_ways_to_write_a_head_write_what_the_general_one_does() -> None:
    assert call_wire.encode_call(7, "charge", None, 3) == call_wire.encode(Call(7, "charge", None, 3))
    assert call_wire.encode_result(7) == call_wire.encode(Result(7))
    assert call_wire.encode_event("created", 7) == call_wire.encode(Event("created", 7))


FIELDS = st.one_of(
    st.sampled_from([0, 1, 4, 6, 8, -1, 2**63 - 1, 2**63, True, None, "", "x", "x" * 201, b"x", 1.0, [1]]),
    st.integers(0, 2**63 - 1),
)


@given(st.sampled_from([1, 4, 6, 8]), st.lists(FIELDS, max_size=5), st.sampled_from([bytes, bytearray, memoryview]))
def test_the_quick_ways_to_read_a_head_find_what_the_general_one_does(kind: int, fields: list[Any], cls: Any) -> None:
    head = msgpack.packb([1, kind, *fields])

    def read(decode: Callable[[bytes], call_wire.Message]) -> object:
        try:
            return decode(cls(head))
        except MalformedMessage:
            return None

    found = read(call_wire.decode)
    assert [each for each in map(read, FOR_ONE_SIDE) if each is not None] == ([] if found is None else [found])


def test_a_head_that_is_too_large_is_refused() -> None:
    with pytest.raises(MalformedMessage):
        call_wire.decode(bytes(MAX_HEAD_BYTES + 1))


@given(st.binary(max_size=60))
def test_garbage_is_refused_and_nothing_else(head: bytes) -> None:
    try:
        call_wire.decode(head)
    except MalformedMessage:
        pass
