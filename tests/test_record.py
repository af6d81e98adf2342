"""Records beside standard dataclasses: whatever is asked of the two, they answer the same.

Must not know how a record is made.
"""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any, ClassVar, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svcd.record import as_dict, defaults_of, entity, field, field_names, record, replace

standard = dataclasses.dataclass(frozen=True, slots=True)


@record
class Base:
    kind: ClassVar[str] = "base"


@record
class Point(Base):
    """A place."""

    kind: ClassVar[str] = "point"
    x: int
    y: float = 0.5
    tags: list[str] = field(default_factory=list)

    def shifted(self, by: int) -> Point:
        return replace(self, x=self.x + by)


@record
class Named(Point):
    """The default of an inherited field changes, and the field keeps its place."""

    y: float = 1.5
    name: str = ""


@record
class Alone:
    value: Any


@record
class Odd:  # noqa: PLW1641 - what then becomes of the hash is the question
    """Its own equality stays; the hash is still made of the fields, as the standard decorator does."""

    x: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Odd)

    def __repr__(self) -> str:
        return "odd"


@standard
class StandardBase:
    kind: ClassVar[str] = "base"


@standard
class StandardPoint(StandardBase):
    kind: ClassVar[str] = "point"
    x: int
    y: float = 0.5
    tags: list[str] = dataclasses.field(default_factory=list)

    def shifted(self, by: int) -> StandardPoint:
        return dataclasses.replace(self, x=self.x + by)


@standard
class StandardNamed(StandardPoint):
    y: float = 1.5
    name: str = ""


@standard
class StandardAlone:
    value: Any


@standard
class StandardOdd:  # noqa: PLW1641
    x: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StandardOdd)

    def __repr__(self) -> str:
        return "odd"


PAIRS = [
    (Base, StandardBase),
    (Point, StandardPoint),
    (Named, StandardNamed),
    (Alone, StandardAlone),
    (Odd, StandardOdd),
]
both = pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda kind: kind.__name__)


def same_words(ours: str, theirs: str) -> bool:
    return ours == theirs.replace("Standard", "")


def said(action: Callable[[], Any]) -> tuple[type, str]:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what is compared
        action()
    return type(caught.value), str(caught.value).replace("Standard", "")


@both
def test_dataclasses_sees_the_same_class(ours: type, theirs: Any) -> None:
    def row(each: dataclasses.Field[Any]) -> tuple[Any, ...]:
        return each.name, each.type, each.default, each.default_factory, each.init, each.repr, each.compare, each.hash

    assert dataclasses.is_dataclass(ours)
    assert list(map(row, dataclasses.fields(ours))) == list(map(row, dataclasses.fields(theirs)))
    assert ours.__match_args__ == theirs.__match_args__ == field_names(ours)  # type: ignore[attr-defined]
    assert ours.__slots__ == theirs.__slots__  # type: ignore[attr-defined]
    assert get_type_hints(ours) == get_type_hints(theirs)
    assert ours.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert ours.__qualname__ == ours.__name__ in str(ours)


@given(st.integers(), st.floats(), st.lists(st.text()), st.text())
def test_instances_are_alike(x: int, y: float, tags: list[str], name: str) -> None:
    ours, theirs = Named(x, y, tags=tags, name=name), StandardNamed(x, y, tags=tags, name=name)
    assert same_words(repr(ours), repr(theirs))
    assert [getattr(ours, each) for each in field_names(Named)] == [x, y, tags, name] or y != y
    assert as_dict(ours) == dataclasses.asdict(ours) == dataclasses.asdict(theirs) or y != y
    assert dataclasses.astuple(ours) == dataclasses.astuple(theirs) or y != y
    assert ours == Named(x, y, tags, name)
    assert ours != Named(x + 1, y, tags, name)
    assert (ours == Point(x, y, tags)) is (theirs == StandardPoint(x, y, tags)) is False
    assert ours.shifted(1) == Named(x + 1, y, tags, name)
    assert dataclasses.replace(ours, name="n") == replace(ours, name="n") == Named(x, y, tags, "n")


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2))))
def test_equal_ones_hash_alike(pairs: list[tuple[int, int]]) -> None:
    assert len({Alone(pair) for pair in pairs}) == len(set(pairs))
    assert hash(Alone((1, 2))) == hash(StandardAlone((1, 2)))
    assert hash(Odd(1)) != hash(Odd(2))
    assert Odd(1) == Odd(2)


def test_a_value_that_is_not_equal_to_itself_is_found_by_identity() -> None:
    nan = float("nan")
    assert Alone(nan) == Alone(nan)  # as tuples are compared; the standard decorator does so up to 3.12


@both
def test_nothing_changes(ours: Any, theirs: Any) -> None:
    for kind in (ours, theirs):
        one = kind() if kind in (Base, StandardBase) else kind(1)
        for name in (*field_names(ours), "other"):
            with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):  # 3.11 for "other": slots and super()
                setattr(one, name, 2)
            with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
                delattr(one, name)
        assert not hasattr(one, "__dict__")


def test_a_refused_change_says_what_the_standard_says() -> None:
    assert said(lambda: setattr(Alone(1), "value", 2)) == said(lambda: setattr(StandardAlone(1), "value", 2))
    assert said(lambda: delattr(Alone(1), "value")) == said(lambda: delattr(StandardAlone(1), "value"))


@pytest.mark.parametrize(
    ("args", "named"),
    [((), {}), ((1, 2, [], "", 5), {}), ((1,), {"x": 2}), ((1,), {"nobody": 2}), ((), {"y": 2})],
)
def test_wrong_arguments_are_refused_in_the_same_words(args: tuple[Any, ...], named: dict[str, Any]) -> None:
    for _ in range(2):  # the first call is the one that writes __init__
        assert said(lambda: Named(*args, **named)) == said(lambda: StandardNamed(*args, **named))


def test_defaults_that_are_made_are_not_shared() -> None:
    first, second = Point(1), Point(1)
    first.tags.append("mine")
    assert second.tags == []
    assert defaults_of(Named) == {"y": 1.5, "tags": [], "name": ""}
    assert defaults_of(Named)["tags"] is not defaults_of(Named)["tags"]


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_are_equal(way: Callable[[Any], Any]) -> None:
    one = Named(1, tags=["a"], name="n")
    assert way(one) == one
    assert way(one) is not one
    assert way(Alone(one)) == Alone(one)
    assert way(Base()) == Base()


def test_patterns_match_by_position_and_name() -> None:
    match Named(3, name="n"):
        case Point(x, name="n"):
            assert x == 3
        case _:
            pytest.fail("no match")


def test_what_holds_itself_can_be_shown() -> None:
    held: list[Any] = []
    held.append(Alone(held))
    assert repr(held[0]) == "Alone(value=[...])" or "..." in repr(held[0])


def test_as_dict_goes_as_deep_as_the_standard() -> None:
    one = Alone((Alone([1, Point(2)]), {"k": Point(3), 4: (5, Base())}))
    assert as_dict(one) == dataclasses.asdict(one)


def test_a_standard_dataclass_may_derive_from_a_record() -> None:
    @standard
    class Further(Point):
        z: int = 0

    assert Further(1, z=3).z == 3
    assert [each.name for each in dataclasses.fields(Further)] == ["x", "y", "tags", "z"]


def test_a_plain_subclass_may_have_an_init_of_its_own() -> None:
    class Sum(Point):
        def __init__(self, *parts: int) -> None:
            super().__init__(sum(parts))

    assert Sum(1, 2).x == 3
    assert Point(4).x == 4
    assert dataclasses.fields(Sum) == dataclasses.fields(Point)


def test_what_cannot_be_a_record_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Late\.b: without a default, after a"):

        @record
        class Late:
            a: int = 1
            b: int

    with pytest.raises(ValueError, match=r"Shared\.a: all would share this default"):

        @record
        class Shared:
            a: list[int] = []  # noqa: RUF012 - that is the mistake


def test_an_entity_changes_and_is_itself_alone() -> None:
    @entity
    class Counter:
        name: str
        count: int = 0
        seen: set[int] = field(default_factory=set)

    one, other = Counter("a"), Counter("a")
    one.count += 1
    one.seen.add(1)
    assert (one.count, one.seen, other.count, other.seen) == (1, {1}, 0, set())
    assert one != Counter("a", 1, {1})
    assert len({one, other}) == 2
    assert repr(other).endswith("Counter(name='a', count=0, seen=set())")
    assert [each.name for each in dataclasses.fields(Counter)] == ["name", "count", "seen"]
    assert not Counter.__dataclass_params__.frozen  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        one.other = 1  # type: ignore[attr-defined]


def test_a_record_costs_no_dataclasses_until_somebody_asks() -> None:
    code = (
        "import sys; from svcd.record import record\n"
        "@record\nclass A:\n    a: int\n"
        "A(1) == A(2); hash(A(1)); repr(A(1))\n"
        "assert not {'dataclasses', 'inspect'} & sys.modules.keys()\n"
        "import dataclasses; assert dataclasses.fields(A)[0].name == 'a'"
    )
    subprocess.run([sys.executable, "-S", "-c", code], check=True, timeout=60)
