"""Blocks by themselves: what a mapping becomes, and every problem at its place.

Must not know the blocks of cluster.yaml: other files have these.
"""

# no annotations from __future__: here they are what the blocks are made of

from typing import Annotated, Any, ClassVar

import pytest

from svcd.supervisor.config.block import Block, Fault, ShapeError, block_of, key, key_names, keys_of, leaf_of
from svcd.supervisor.config.leaves import Flag, Later, Name, Parsed, Shorthand
from svcd.supervisor.config.units import RefusedError


class Wheel(Block):
    example: ClassVar[str] = "{name: left}"

    name: Name = key(description="Which.")
    spare: Flag = key(default=False, description="Not in use.")


def expand(value: Any) -> Any:
    if value == "none":
        raise RefusedError("none is no wheel", "write one")
    return {"name": value} if isinstance(value, str) else value


WheelOrName = Annotated[Wheel, Shorthand(expand, "name or mapping", {"type": "string"})]


class Car(Block):
    front_left: WheelOrName | None = key(default=None, description="One of four.", spelled="front-left")
    others: list[Wheel] = key(default=[], description="In any order.")
    named: dict[str, Wheel] = key(default={}, description="By name.")
    spare: Wheel = key(default=Wheel(name="spare"), description="Behind.")
    wings: Annotated[None, Later("flying")] = None


def faults(value: Any) -> list[tuple[Fault, tuple[int | str, ...]]]:
    with pytest.raises(ShapeError) as caught:
        Car.read(value)
    return [(each.fault, each.loc) for each in caught.value.problems]


def test_what_is_not_written_has_its_default() -> None:
    car = Car.read({})
    assert (car.front_left, car.others, car.named, car.spare.name) == (None, [], {}, "spare")
    assert car.written_keys == frozenset()
    assert car == Car()


def test_what_is_written_is_read() -> None:
    car = Car.read({"front-left": "fl", "others": [{"name": "a"}], "named": {"x": {"name": "b", "spare": True}}})
    assert car.front_left == Wheel(name="fl")
    assert car.others == [Wheel(name="a")]
    assert car.named == {"x": Wheel(name="b", spare=True)}
    assert car.written_keys == {"front_left", "others", "named"}
    assert car.named["x"].written_keys == {"name", "spare"}
    assert car != Car()


def test_a_key_that_holds_nothing_is_as_good_as_not_written() -> None:
    assert Car.read({"front-left": None, "others": None, "wings": None}) == Car()
    assert faults({"spare": {"name": None}, "unknown": None}) == [
        (Fault.MISSING, ("spare", "name")),
        (Fault.UNKNOWN, ("unknown",)),
    ]


def test_every_problem_is_told_in_the_order_of_the_keys() -> None:
    value = {
        "zzz": 1,
        "wings": 2,
        "spare": "flat",
        "named": {"x": {"name": "-"}, "y": [1]},
        "others": [{"name": "a", "nam": "b"}, {}, 7],
        "front-left": "none",
    }
    assert faults(value) == [
        (Fault.REFUSED, ("front-left",)),
        (Fault.UNKNOWN, ("others", 0, "nam")),
        (Fault.MISSING, ("others", 1, "name")),
        (Fault.NOT_A_MAPPING, ("others", 2)),
        (Fault.REFUSED, ("named", "x", "name")),
        (Fault.NOT_A_MAPPING, ("named", "y")),
        (Fault.NOT_A_MAPPING, ("spare",)),
        (Fault.REFUSED, ("wings",)),
        (Fault.UNKNOWN, ("zzz",)),
    ]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"others": {}}, Fault.NOT_A_LIST),
        ({"named": []}, Fault.NOT_A_MAPPING),
        ({"front-left": 1}, Fault.NOT_A_MAPPING),
    ],
)
def test_a_value_of_another_kind_is_told_as_such(value: Any, fault: Fault) -> None:
    assert faults(value) == [(fault, tuple(value))]


def test_what_is_no_mapping_at_all_is_told() -> None:
    assert faults([1]) == [(Fault.NOT_A_MAPPING, ())]


def test_the_keys_say_what_they_take() -> None:
    keys = keys_of(Car)
    assert key_names(Car)["front-left"] == "front_left"
    assert [block_of(each) for each in keys.values()] == [Wheel, Wheel, Wheel, Wheel, None]
    assert isinstance(leaf_of(keys["front_left"]), Shorthand)
    assert isinstance(leaf_of(keys["wings"]), Later)
    assert isinstance(leaf_of(keys_of(Wheel)["spare"]), Parsed)
    assert leaf_of(keys["others"]) is None
    assert keys_of(Wheel)["name"].is_required
    assert not keys["wings"].is_required


def test_a_block_stays_as_it_was_read() -> None:
    with pytest.raises(AttributeError, match="cannot change 'name'"):
        Wheel(name="a").name = "b"  # type: ignore[misc]
    assert repr(Wheel(name="a")) == "Wheel(name='a', spare=False)"
