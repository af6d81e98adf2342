"""The language of the scenarios itself: it accepts what a story leaves open, and nothing else.

Must not run svcd.
"""

from __future__ import annotations

import pytest
from traces import either, mismatch, starts, stops, then, together

STORY = then(
    "db: running → waiting", together("db: waiting → starting → running", stops("b", "a", to="waiting")), starts("a")
)
UP = ["db: waiting → starting", "db: starting → running"]
DOWN = ["b: running → stopping", "b: stopping → waiting", "a: running → stopping", "a: stopping → waiting"]
BACK = ["a: waiting → starting", "a: starting → running"]
CRASH = ["db: running → waiting"]


@pytest.mark.parametrize("middle", [UP + DOWN, DOWN + UP, [DOWN[0], UP[0], *DOWN[1:3], UP[1], DOWN[3]]])
def test_what_is_side_by_side_may_interleave(middle: list[str]) -> None:
    assert mismatch(STORY, CRASH + middle + BACK) is None


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (CRASH + UP + DOWN, "expected a: waiting → starting\n     but the end came"),
        (UP + CRASH, "expected db: running → waiting\n     but db: waiting → starting came"),
        (CRASH + DOWN[2:] + UP, "expected b: running → stopping or db: waiting → starting"),
        (CRASH + UP + BACK, "expected b: running → stopping\n     but a: waiting → starting came"),
        (CRASH + UP + DOWN + BACK + BACK, "expected the end\n     but a: waiting → starting came"),
        (CRASH + UP + DOWN[:3] + BACK, "expected a: stopping → waiting\n"),
        ([], "expected db: running → waiting\n     but the end came"),
    ],
)
def test_what_is_missing_too_much_or_too_early_is_said(lines: list[str], expected: str) -> None:
    found = mismatch(STORY, lines)
    assert found is not None
    assert expected in found


def test_the_same_step_may_come_in_two_parts() -> None:
    twice = together("a: x → y", then("a: x → y", "b: x → y"))
    assert mismatch(twice, ["a: x → y", "a: x → y", "b: x → y"]) is None
    assert mismatch(twice, ["a: x → y", "b: x → y", "a: x → y"]) is None
    assert mismatch(twice, ["b: x → y", "a: x → y", "a: x → y"]) is not None
    assert mismatch(then(together(), "a: x → y"), ["a: x → y"]) is None


def test_a_choice_is_one_of_its_parts() -> None:
    choice = then(either("a: x → y → z", then("a: x → y", "b: x → y")), "c: x → y")
    assert mismatch(choice, ["a: x → y", "a: y → z", "c: x → y"]) is None
    assert mismatch(choice, ["a: x → y", "b: x → y", "c: x → y"]) is None
    found = mismatch(choice, ["a: x → y", "c: x → y"])
    assert found is not None
    assert "expected a: y → z or b: x → y" in found
