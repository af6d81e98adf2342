"""A state to bytes and back, in parts, and what is left out of it by name."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import numpy
import pytest

from svcd.protocol import limits, state_parts
from svcd.protocol.errors import MalformedMessage, MessageTooLarge, ProtocolError
from svcd.worker_runtime.state import pack_state, unpack_state


class Colour(Enum):
    RED = "red"


@dataclass
class Cache:
    size: int = 3
    lock: Any = field(default_factory=threading.Lock)


def back(state: Any) -> Any:
    data, omitted = pack_state(state)
    assert omitted == ()
    return unpack_state(data)


VERY_LARGE: dict[str, Callable[[], Any]] = {  # made where they are wanted: hundreds of thousands of objects
    "map": lambda: {str(number): {} for number in range(limits.MAX_MAP_LENGTH + 5)},
    "collections": lambda: [[] for _ in range(limits.MAX_COLLECTIONS + 5)],
    "text": lambda: "x" * (limits.MAX_MESSAGE_BYTES + 5),
    "buffers": lambda: [b"x" * limits.OWN_FRAME_BYTES] * (limits.MAX_BUFFERS + 5),
}


@pytest.mark.parametrize("make", VERY_LARGE.values(), ids=VERY_LARGE)
def test_beyond_the_bounds_of_what_strangers_may_send(make: Callable[[], Any]) -> None:
    state = make()
    assert back(state) == state


@pytest.mark.parametrize(
    "state",
    [
        None,
        0,
        "",
        b"",
        [],
        {},
        {"count": 5, 7: [1.5, True, None], b"key": b"value", None: 1, 1.5: 2},
        {"at": datetime(2026, 1, 1, tzinfo=UTC), "for": timedelta(days=1)},
    ],
    ids=lambda state: type(state).__name__,
)
def test_there_and_back(state: Any) -> None:
    assert back(state) == state


def test_what_comes_back_plainer() -> None:
    assert back({"t": (1, 2), "c": Colour.RED, "s": {1}, "d": Cache(1, None), "b": bytearray(b"x")}) == {
        "t": [1, 2],
        "c": "red",
        "s": [1],
        "d": {"size": 1, "lock": None},
        "b": b"x",
    }


def test_arrays_travel_whole() -> None:
    array = numpy.arange(100_000, dtype="f8")
    found = back({"large": array, "small": array[:3]})
    assert numpy.array_equal(found["large"], array)
    assert numpy.array_equal(found["small"], array[:3])
    found["large"][0] = 5


def test_what_cannot_travel_is_named_and_left_out() -> None:
    lock = threading.Lock()
    itself: list[Any] = [1]
    itself.append(itself)
    state = {
        "cache": Cache(),
        "rows": [1, lock, 2],
        "both": {lock, "kept"},
        ("a", 1): "a key that would not come back",
        "text": "\ud800",
        "deep": {"er": {"lock": lock, "fine": 1}},
        "itself": itself,
        lock: 5,
        "open": open,
        "class": Cache,
        "many": 2**64,
    }
    data, omitted = pack_state(state)
    assert unpack_state(data) == {
        "cache": {"size": 3},
        "rows": [1, None, 2],
        "both": ["kept"],
        "deep": {"er": {"fine": 1}},
        "itself": [1, None],
    }
    assert sorted(omitted) == sorted(
        [
            "state['cache'].lock: _thread.lock cannot travel",
            "state['rows'][1]: _thread.lock cannot travel",
            "state['both']{<lock>}: _thread.lock cannot travel",
            "state[<tuple>]: a tuple cannot be a key",
            "state['text']: a text with lone surrogates cannot travel: it is no Unicode",
            "state['deep']['er']['lock']: _thread.lock cannot travel",
            "state['itself'][1]: it holds itself",
            "state[<lock>]: as a key: _thread.lock cannot travel",
            "state['class']: builtins.type cannot travel",
            "state['many']: an int beyond 64 bits cannot travel",
            "state['open']: builtins.builtin_function_or_method cannot travel",
        ]
    )


@dataclass
class Unfinished:
    fine: int


def test_user_code_within_it_may_do_what_it_likes() -> None:
    made = Unfinished(1)
    del made.fine
    data, omitted = pack_state([made, Evil("x")])
    assert unpack_state(data) == [{}, None]
    assert omitted == ("state[0].fine: AttributeError", "state[1]: test_state_packing.Evil cannot travel")


class Evil:
    def __init__(self, _: str) -> None: ...
    def __repr__(self) -> str:
        raise SystemError("no repr")

    def __getattr__(self, name: str) -> Any:
        raise LookupError(name)


def test_nothing_of_it_can_travel() -> None:
    with pytest.raises(MalformedMessage, match=r"^state: _thread.lock cannot travel$"):
        pack_state(threading.Lock())


def test_deep_nesting_ends() -> None:
    deep: Any = threading.Lock()
    for _ in range(5000):
        deep = [deep]
    _, omitted = pack_state({"deep": deep, "fine": 1})
    assert len(omitted) == 1
    assert omitted[0].endswith("nested deeper than 32")


def test_many_omissions_are_counted() -> None:
    _, omitted = pack_state({str(number): open for number in range(limits.MAX_OMITTED + 13)})
    assert (len(omitted), omitted[-1]) == (limits.MAX_OMITTED + 1, "and 13 more")


def test_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svcd.worker_runtime.state.MAX_STATE_BYTES", 1000)
    with pytest.raises(MessageTooLarge, match=r"^1\d\d\d bytes; at most 1000 can be kept$"):
        pack_state({"x": b"x" * 1000})
    with pytest.raises(MessageTooLarge):
        pack_state({"x": b"x" * 1000, "lock": threading.Lock()})


# ---- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 10, 11, 25])
def test_parts_make_the_whole(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(state_parts, "MAX_STATE_PART_BYTES", 10)
    state = bytes(range(size))
    parts = state_parts.parts_of(state)
    assembly = state_parts.Assembly()
    for _ in range(2):
        *early, last = [assembly.add(index, len(parts), each) for index, each in enumerate(parts)]
        assert (set(early) <= {None}, last) == (True, state)


@pytest.mark.parametrize(
    "second",
    [(0, 0, b""), (2, 3, b""), (1, 2, b""), (-1, 3, b""), (3, 3, b""), (1, 3, b"x" * 11), (1, 3, b"x" * 9)],
)
def test_what_does_not_follow_is_refused(monkeypatch: pytest.MonkeyPatch, second: tuple[int, int, bytes]) -> None:
    monkeypatch.setattr(state_parts, "MAX_STATE_PART_BYTES", 10)
    monkeypatch.setattr(state_parts, "MAX_STATE_BYTES", 18)
    assembly = state_parts.Assembly()
    assert assembly.add(0, 3, b"x" * 10) is None
    with pytest.raises(ProtocolError):
        assembly.add(*second)
    with pytest.raises(ProtocolError):
        assembly.add(1, 3, b"")
    assert assembly.add(0, 1, b"new") == b"new"


def test_a_state_beyond_the_limit_is_not_cut() -> None:
    with pytest.raises(MessageTooLarge):
        state_parts.parts_of(bytes(limits.MAX_STATE_BYTES + 1))
