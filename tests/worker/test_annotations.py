"""Annotations as checks: what fits, what is made of what came, what is refused, and what cannot be offered at all."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Annotated, Any, Literal, NewType, NotRequired, Optional, TypedDict, Union

import pytest

from svcd.worker_runtime.calls.annotations import Mismatch, check_of
from svcd.worker_runtime.calls.methods import listeners_of, methods_of, on_event, rpc


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    y: float = 0.0


@dataclass
class Tree:
    name: str
    leaves: list[Tree] = field(default_factory=list)
    depth: int = field(init=False, default=0)


class Options(TypedDict):
    size: int
    name: NotRequired[str]


UserId = NewType("UserId", int)
NOW = datetime(2026, 1, 2)


@pytest.mark.parametrize(
    ("hint", "came", "made"),
    [
        (Any, object, object),
        (object, 1, 1),
        (None, None, None),
        (int, 5, 5),
        (float, 5, 5),
        (float, 0.5, 0.5),
        (str, "a", "a"),
        (bytes, b"a", b"a"),
        (bytearray, b"a", bytearray(b"a")),
        (datetime, NOW, NOW),
        (date, date(2026, 1, 2), date(2026, 1, 2)),
        (UserId, 5, 5),
        (Annotated[int, "a note"], 5, 5),
        (Optional[int], None, None),  # noqa: UP045 - as some write it
        (Union[int, str], "a", "a"),  # noqa: UP007 - as some write it
        (int | None, 5, 5),
        (int | Point, {"x": 1}, Point(1)),
        (list, [1, "a"], [1, "a"]),
        (list[int], [1, 2], [1, 2]),
        (list[int], (1, 2), [1, 2]),
        (list[float], [1, 2.5], [1, 2.5]),
        (Sequence[str], ["a"], ["a"]),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[()], [], ()),
        (set[int], [1, 1], {1}),
        (frozenset[str], ["a"], frozenset("a")),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (dict[int, list[Point]], {1: [{"x": 1}]}, {1: [Point(1)]}),
        (Mapping[str, Any], {"a": object}, {"a": object}),
        (Colour, "red", Colour.RED),
        (Colour, Colour.RED, Colour.RED),
        (Literal["a", 1], 1, 1),
        (Point, {"x": 1, "y": 2}, Point(1, 2)),
        (Point, Point(1), Point(1)),
        (Tree, {"name": "a", "leaves": [{"name": "b"}], "depth": 0}, Tree("a", [Tree("b")])),
        (Options, {"size": 1}, {"size": 1}),
    ],
)
def test_what_fits(hint: Any, came: Any, made: Any) -> None:
    found = check_of(hint, "it")(came, "it")
    assert found == made
    assert type(found) is type(made)


@pytest.mark.parametrize(
    ("hint", "came", "words"),
    [
        (int, "5", "it must be int, not str"),
        (int, True, "it must be int, not bool"),
        (int, 5.0, "it must be int, not float"),
        (float, "5", "it must be float, not str"),
        (str, b"a", "it must be str, not bytes"),
        (None, 0, "it must be None, not int"),
        (int, None, "it must be int, not None"),
        (int | None, "a", r"it must be int or None, not str"),
        (Colour | None, "green", "it must be one of 'red', 'blue' or None, not 'green'"),
        (Colour | None, 0.5, "it must be one of 'red', 'blue' or None, not float"),
        (Optional[Literal["a"]], "b" * 100, "it must be one of 'a' or None, not str"),  # noqa: UP045
        (list[int] | None, [1, "a"], r"it\[1\] must be int, not str"),
        (list[int] | None, "a", r"it must be list\[int\] or None, not str"),
        (Point | None, {"y": 1.0}, "it: Point lacks 'x'"),
        (Point | Tree, {"y": 1.0}, "it must be Point or Tree, not dict"),
        (list[int], [1, "a"], r"it\[1\] must be int, not str"),
        (list[int], "ab", "it must be list, not str"),
        (list[int], {"a": 1}, "it must be list, not dict"),
        (set[Any], [[1]], "unhashable"),
        (tuple[int, str], [1], "it must be a tuple of 2, not list"),
        (dict[str, int], {"a": "b"}, r"it\['a'\] must be int, not str"),
        (dict[str, int], {1: 1}, "a key of it must be str, not int"),
        (dict[str, int], [1], "it must be dict, not list"),
        (Colour, "green", "it must be one of 'red', 'blue', not 'green'"),
        (Colour, [], "it must be one of 'red', 'blue', not list"),
        (Literal["a", 1], True, "it must be one of 'a', 1, not bool"),
        (Point, {"x": "a"}, r"it\.x must be int, not str"),
        (Point, {"y": 1}, "it: Point lacks 'x'"),
        (Point, {"x": 1, "z": 1}, "it: Point has no 'z'"),
        (Point, [1, 2], "it must be Point, not list"),
        (Tree, {"name": "a", "leaves": [{"name": 5}]}, r"it\.leaves\[0\]\.name must be str, not int"),
        (Options, {"size": 1, "more": 2}, "it: Options has no 'more'"),
        (Options, {}, "it: Options lacks 'size'"),
        (datetime, "2026-01-02", "it must be datetime, not str"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(hint: Any, came: Any, words: str) -> None:
    with pytest.raises(Mismatch, match=words):
        check_of(hint, "it")(came, "it")


def test_arrays() -> None:
    numpy = pytest.importorskip("numpy")
    typing = pytest.importorskip("numpy.typing")
    for hint in (numpy.ndarray, typing.NDArray[numpy.float64], numpy.ndarray | None):
        check = check_of(hint, "it")
        array = numpy.zeros(3)
        assert check(array, "it") is array
        with pytest.raises(Mismatch, match="it must be"):
            check([1], "it")


class Stranger: ...


@pytest.mark.parametrize("hint", [Stranger, list[Stranger], type, complex, dict[str, Stranger]])
def test_what_could_never_travel_is_said_when_it_is_offered(hint: Any) -> None:
    with pytest.raises(TypeError, match=r"it: values of .* cannot travel"):
        check_of(hint, "it")


# ---- methods ---------------------------------------------------------------------------------------------------------


class Base:
    @rpc
    async def charge(self, user: str, /) -> None: ...


class Several:
    @rpc
    async def all(self, *several: int) -> None: ...


class Nameless:
    @rpc
    async def charge(self, user: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821


class Odd:
    @rpc
    async def charge(self, user: Stranger) -> None: ...


class OddResult:
    @rpc
    async def rows(self) -> AsyncIterator[Stranger]:
        yield Stranger()


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (Base, "cannot offer Base.charge: parameter user has no name that a caller could use"),
        (Several, "cannot offer Several.all: parameter several has no name"),
        (Nameless, "cannot offer Nameless.charge: cannot read its annotations: name 'Missing' is not defined"),
        (Odd, "cannot offer Odd.charge: user: values of Stranger cannot travel"),
        (OddResult, "cannot offer OddResult.rows: its result: values of Stranger cannot travel"),
    ],
)
def test_what_cannot_be_offered_names_the_method(cls: type, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        methods_of(cls)


class Parent:
    @rpc
    async def one(self, a: int) -> int:
        return a

    @rpc
    def two(self) -> None: ...

    @on_event("orders.created", "orders.gone")
    @on_event("users.*")
    async def heard(self, event: int) -> None: ...


class Child(Parent):
    async def one(self, a: int, b: str = "") -> int:
        return a

    two = None  # type: ignore[assignment]  # it is taken back


def test_a_method_that_overrides_is_offered_with_its_own_annotations() -> None:
    assert sorted(methods_of(Parent)) == ["one", "two"]
    assert methods_of(Parent)["one"].usage() == "one(a: 'int') -> 'int'"
    assert list(methods_of(Child)["one"].parameters) == ["a", "b"]
    assert sorted(methods_of(Child)) == ["one"]


def test_what_is_listened_to() -> None:
    found = [(each.service, each.topic) for each in listeners_of(Parent)]
    assert found == [("users", "*"), ("orders", "created"), ("orders", "gone")]


def test_a_listener_takes_one_value() -> None:
    class Deaf:
        @on_event("a.b")
        async def heard(self) -> None: ...

    class Greedy:
        @on_event("a.b")
        async def heard(self, one: int, two: int) -> None: ...

    for cls in (Deaf, Greedy):
        with pytest.raises(TypeError, match="it must take one argument"):
            listeners_of(cls)


def test_marks_belong_on_functions() -> None:
    with pytest.raises(TypeError, match="@rpc belongs on a method"):
        rpc(staticmethod(lambda: 1))  # type: ignore[type-var]

    class Static:
        @staticmethod
        @rpc
        def one() -> None: ...

    class OfTheClass:
        @classmethod
        @on_event("a.b")
        def heard(cls, event: int) -> None: ...

    with pytest.raises(TypeError, match=r"cannot offer Static\.one: it is a staticmethod"):
        methods_of(Static)
    with pytest.raises(TypeError, match=r"cannot offer OfTheClass\.heard: it is a classmethod"):
        listeners_of(OfTheClass)
    with pytest.raises(TypeError, match="needs the name of an event"):
        on_event()
