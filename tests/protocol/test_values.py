"""Values of calls: what travels comes back as it was, what does not is refused in words, and garbage harms nobody."""

from __future__ import annotations

import dataclasses
import enum
import math
import tracemalloc
from datetime import UTC, datetime, time, timedelta, timezone
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svcd.protocol import values
from svcd.protocol.errors import MessageTooLarge, ProtocolError
from svcd.protocol.limits import MAX_BUFFERS, MAX_MESSAGE_BYTES, OWN_FRAME_BYTES


def there_and_back(value: Any) -> Any:
    return values.unpack([bytes(frame) for frame in values.pack(value)])


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
    | st.binary(max_size=20)
    | st.datetimes(timezones=st.none() | st.just(UTC) | st.just(timezone(timedelta(hours=2))))
    | st.dates()
    | st.timedeltas()
)
KEYS = st.text(st.characters(exclude_categories=("Cs",)), max_size=5) | st.integers(-(2**63), 2**63)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4))


@given(VALUES)
def test_what_travels_comes_back_as_it_was(value: Any) -> None:
    assert there_and_back(value) == value


@dataclasses.dataclass
class Point:
    x: int
    when: datetime


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "came"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        ({1}, [1]),
        (frozenset({"a"}), ["a"]),
        (bytearray(b"x"), b"x"),
        (time(1, 2, 3), time(1, 2, 3)),
        (Point(1, datetime(2026, 1, 2)), {"x": 1, "when": datetime(2026, 1, 2)}),
        ([Point(1, datetime(2026, 1, 2))], [{"x": 1, "when": datetime(2026, 1, 2)}]),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
    ],
)
def test_what_messagepack_lacks_travels_as_something_that_it_has(value: Any, came: Any) -> None:
    assert there_and_back(value) == came


def test_not_a_number_travels() -> None:
    assert math.isnan(there_and_back(math.nan))


class Stranger:
    pass


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Stranger(), "Stranger cannot travel"),
        ({"a": [Stranger()]}, "Stranger cannot travel"),
        (2**64, "an int beyond 64 bits cannot travel"),
        ("\ud800", "lone surrogates"),
        (lambda: 1, "cannot travel"),
        (1j, "complex cannot travel"),
    ],
)
def test_what_cannot_travel_is_refused_in_words(value: Any, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        values.pack(value)
    assert there_and_back([1]) == [1], "a refused value leaves nothing behind"


def test_what_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ProtocolError):
        values.pack(endless)


def test_a_refused_value_leaves_none_of_its_buffers_behind() -> None:
    with pytest.raises(ProtocolError):
        values.pack([b"x" * OWN_FRAME_BYTES, Stranger()])
    assert len(values.pack([1])) == 1


# ---- large ones ------------------------------------------------------------------------------------------------------

LARGE = b"x" * OWN_FRAME_BYTES


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_large_bytes_have_a_frame_of_their_own_that_is_not_copied(kind: Any) -> None:
    held = kind(LARGE)
    body, frame = values.pack({"a": [held]})
    assert len(body) < 100
    assert isinstance(frame, memoryview)
    assert frame.obj is (held.obj if kind is memoryview else held)
    came = values.unpack([body, frame])["a"][0]
    assert came == LARGE
    assert type(came) is (memoryview if kind is memoryview else bytes)


def test_large_bytes_are_found_further_down_too() -> None:
    deep = {"a": {"b": {"c": [{"d": LARGE * 3}]}}}
    frames = values.pack(deep)
    assert len(frames) == 2
    assert values.unpack(frames) == deep


@dataclasses.dataclass
class Deep:
    held: list[bytes]


LARGE = bytes(OWN_FRAME_BYTES)


@pytest.mark.parametrize(
    "value",
    [
        [[[[[{"a": [LARGE]}]]]]],
        Deep([LARGE]),
        [list(range(5000)), LARGE],
        [{"a": 1, "b": "c"}] * 9000 + [LARGE],
        [[{"a": 1, "b": "c"}] * 2000 * 4, {"a": LARGE}],
        {"a": [*range(3), {"b": LARGE}]},
    ],
)
def test_large_bytes_have_a_frame_of_their_own_wherever_they_are(value: Any) -> None:
    assert [len(each) for each in values.pack(value)[1:]] == [len(LARGE)]


@pytest.mark.parametrize("wrap", [lambda text: text, lambda text: [{"a": (text,)}]])
def test_a_text_that_is_too_large_is_refused_before_it_is_copied(wrap: Any) -> None:
    text = "x" * (MAX_MESSAGE_BYTES + 1)
    tracemalloc.start()
    try:
        with pytest.raises(MessageTooLarge, match="beside large buffers"):
            values.pack_arguments([wrap(text)], {})
        assert tracemalloc.get_traced_memory()[1] < MAX_MESSAGE_BYTES
    finally:
        tracemalloc.stop()


def test_a_small_memoryview_stays_one() -> None:
    came = there_and_back([memoryview(b"small")])[0]
    assert type(came) is memoryview
    assert came == b"small"


def test_a_value_with_too_many_buffers_is_refused() -> None:
    with pytest.raises(MessageTooLarge, match="more than"):
        values.pack([LARGE] * (MAX_BUFFERS + 1) * 10)


def test_a_value_that_is_too_large_beside_its_buffers_is_refused() -> None:
    with pytest.raises(MessageTooLarge, match="streams"):
        values.pack(["x" * MAX_MESSAGE_BYTES])


# ---- numpy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "<i4", ">i8", "f4", "f8", "c16", "?", "M8[ns]", "m8[s]", "S5", "U3"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (0, 4), (100, 200)])
def test_arrays_come_back_writable(dtype: str, shape: tuple[int, ...]) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.zeros(shape, dtype)
    frames = values.pack({"a": array})
    assert len(frames) == (2 if array.nbytes >= OWN_FRAME_BYTES else 1)
    came = values.unpack([frames[0], *(bytearray(frame) for frame in frames[1:])])["a"]
    assert came.dtype == array.dtype
    assert came.shape == array.shape
    assert came.tobytes() == array.tobytes()
    assert came.flags.writeable


def test_a_large_array_is_not_copied_on_either_side() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(100_000)
    body, frame = values.pack(array)
    assert numpy.shares_memory(array, frame)
    held = bytearray(frame)
    assert numpy.shares_memory(values.unpack([body, held]), numpy.frombuffer(held, "u1"))


def test_arrays_in_other_orders_arrive_as_what_they_say() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(60_000).reshape(300, 200)
    for each in (array.T, array[::2], numpy.asfortranarray(array)):
        assert (there_and_back(each) == each).all()


def test_numpy_scalars_travel_as_python_ones() -> None:
    numpy = pytest.importorskip("numpy")
    assert there_and_back([numpy.int64(3), numpy.float32(0.5), numpy.bool_(True)]) == [3, 0.5, True]


def test_arrays_of_objects_are_refused() -> None:
    numpy = pytest.importorskip("numpy")
    with pytest.raises(ProtocolError, match="array of object cannot travel"):
        values.pack(numpy.array([Stranger()]))


# ---- hostile ---------------------------------------------------------------------------------------------------------


def ext(code: int, *parts: Any) -> bytes:
    return msgpack.packb(msgpack.ExtType(code, msgpack.packb(parts)))


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"\xc1"],
        [b"\x93\x01"],
        [msgpack.packb(1), b"a buffer that nobody wants"],
        [msgpack.packb(msgpack.ExtType(99, b"x"))],
        [msgpack.packb(msgpack.ExtType(values.DATETIME, b"yesterday"))],
        [msgpack.packb(msgpack.ExtType(values.DATETIME, b"\xff"))],
        [ext(values.TIMEDELTA, 1, 2)],
        [ext(values.TIMEDELTA, 10**12, 0, 0)],
        [ext(values.BYTES, 1)],
        [ext(values.BYTES, 0), b"x"],
        [ext(values.BYTES, -1), b"x"],
        [ext(values.BYTES, "1"), b"x"],
        [b"\x92" + ext(values.BYTES, 1) * 2, b"x"],
        [ext(values.ARRAY, "O", [1], b"12345678")],
        [ext(values.ARRAY, "u1,O", [1], b"123456789")],
        [ext(values.ARRAY, "u1", [2], b"x")],
        [ext(values.ARRAY, "u1", [-1], b"x")],
        [ext(values.ARRAY, "u1", [2**62, 2**62], b"x")],
        [ext(values.ARRAY, "x" * 100, [1], b"x")],
        [ext(values.ARRAY, "nonsense", [1], b"x")],
        [ext(values.ARRAY, "u1", [1] * 40, b"x")],
        [ext(values.ARRAY, 1, 2, 3)],
        [b"\xdd\xff\xff\xff\xff"],
        [b"\xdf\xff\xff\xff\xff"],
        [b"\x91" * 2000 + b"\x01"],
        [msgpack.packb({(1, 2): 3})],
        [bytes(MAX_MESSAGE_BYTES + 1)],
    ],
)
def test_hostile_values_are_refused(frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        values.unpack(frames)


def test_a_value_of_very_many_collections_is_refused() -> None:
    with pytest.raises(MessageTooLarge, match="collections"):
        values.unpack([b"\xdd" + (500_000).to_bytes(4) + b"\x90" * 500_000])


@given(st.lists(st.binary(max_size=60), max_size=3))
def test_garbage_is_refused_or_a_value_and_nothing_else(frames: list[bytes]) -> None:
    try:
        values.unpack(list(frames))
    except ProtocolError:
        pass
