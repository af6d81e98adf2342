"""Arguments as they were typed: the annotation says what is made of each text."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svcd.worker_runtime.calls import typed
from svcd.worker_runtime.calls.annotations import Mismatch, check_of
from svcd.worker_runtime.calls.methods import method_of


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int = 0


READ = [
    (Any, "5", 5),
    (Any, "five", "five"),
    (Any, "", ""),
    (Any, "NaN", "NaN"),
    (Any, "[1, null]", [1, None]),
    (str, "5", "5"),
    (str, '"5"', "5"),
    (str, "null", "null"),
    (str, "[", "["),
    (str, "[" * 10_000, "[" * 10_000),
    (str | None, "null", None),
    (str | None, "5", "5"),
    (int | str, "5", 5),
    (int, "-5", -5),
    (float, "5", 5),
    (bool, "true", True),
    (bytes, "abc", b"abc"),
    (bytes, "5", b"5"),
    (date, "2026-01-02", date(2026, 1, 2)),
    (datetime, "2026-01-02T03:04", datetime(2026, 1, 2, 3, 4)),
    (datetime, "2026-01-02", datetime(2026, 1, 2)),
    (time, "03:04", time(3, 4)),
    (timedelta, "1.5", timedelta(seconds=1.5)),
    (date | None, "2026-01-02", date(2026, 1, 2)),
    (list[int], "[1, 2]", [1, 2]),
    (dict[str, int], '{"a": 1}', {"a": 1}),
    (Literal["a", 1], "1", 1),
    (Literal["a", 1], "a", "a"),
    (Colour, "red", "red"),
    (Point, '{"x": 1}', {"x": 1}),
]


@pytest.mark.parametrize(("hint", "text", "made"), READ, ids=lambda value: str(value)[:30])
def test_what_is_made_of_a_text(hint: Any, text: str, made: Any) -> None:
    value = typed.read(check_of(hint, "x"), text, "x")
    assert (type(value), value) == (type(made), made)


@pytest.mark.parametrize(
    ("hint", "text", "said"),
    [
        (int, "five", "x must be int, not 'five'"),
        (int | None, "five", "x must be int or None, not 'five'"),
        (int, '"five"', "x must be int, not '\"five\"'"),
        (int, "five" * 100, "x must be int, not that"),
        (int, "1.5", "x must be int, not float"),
        (bool, "yes", "x must be bool, not 'yes': write true or false"),
        (date, "tomorrow", "x must be date, not 'tomorrow': write 2026-01-31"),
        (datetime | None, "5", "x must be datetime or None, not int"),
        (timedelta, "1h", "x must be timedelta, not '1h': write seconds, such as 1.5"),
        (list[int], "[1", "x must be list, not '[1': write JSON, such as [1, 2]"),
        (dict[str, int] | None, "a", "x must be dict[str, int] or None, not 'a': write JSON, such as {\"a\": 1}"),
        (Point, "a", "x must be Point, not 'a'"),
        (list[int], '["a"]', "x[0] must be int, not str"),
        (Colour, "blue", "x must be one of 'red', not 'blue'"),
        (Point, "{}", "x: Point lacks 'x'"),
    ],
)
def test_what_does_not_fit(hint: Any, text: str, said: str) -> None:
    with pytest.raises(Mismatch) as caught:
        typed.read(check_of(hint, "x"), text, "x")
    assert str(caught.value) == said


def test_arrays_are_lists_of_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    check = check_of(numpy.ndarray, "x")
    for text, dtype, made in (
        ("[]", "float64", []),
        (" [1, 2]", "int64", [1, 2]),
        ("[[1, 2.5], [3, 4]]", "float64", [[1, 2.5], [3, 4]]),
        ("[true]", "bool", [True]),
    ):
        array = typed.read(check, text, "x")
        assert (array.dtype, array.tolist()) == (dtype, made)
    for text in ("5", "five", "[1", "[1, [2]]", '["a"]', "[null]", '[{"a": 1}]', "[NaN]"):
        with pytest.raises(Mismatch, match="x must be an array, not "):
            typed.read(check, text, "x")
    assert typed.read(check_of(list[int] | numpy.ndarray, "x"), "[1]", "x") == [1]
    assert typed.read(check_of(Any, "x"), "[1]", "x") == [1]


@given(st.text(), st.sampled_from([hint for hint, _, _ in READ]))
def test_any_text_is_read_or_refused(text: str, hint: Any) -> None:
    try:
        value = typed.read(check_of(hint, "x"), text, "x")
    except Mismatch:
        assert hint is not str
    else:
        check_of(hint, "x")(value, "x")


def charge(self: object, user: str, cents: int = 1) -> None:
    """What is called."""


METHOD = method_of(charge, "charge", "Till")


def test_arguments() -> None:
    assert typed.arguments(METHOD, [], {}, [{"user": "5", "cents": "5"}]) == {"user": "5", "cents": 5}
    assert typed.arguments(METHOD, ["ann"], {}, [{"cents": "5"}]) == {"user": "ann", "cents": 5}


@pytest.mark.parametrize(
    ("args", "named", "rest", "said"),
    [
        ([], {}, [{"uesr": "ann"}], "it has no parameter 'uesr'"),
        ([], {}, [{"cents": "5"}], "it lacks user"),
        (["ann"], {}, [{"user": "bob"}], "it got 'user' twice"),
        ([], {"user": "ann"}, [{"user": "bob"}], "it got 'user' twice"),
        ([], {}, [{"user": 5}], "what was typed is not of the form"),
        ([], {}, [{5: "ann"}], "what was typed is not of the form"),
        ([], {}, ["user=ann"], "what was typed is not of the form"),
        ([], {}, [{"user": "ann"}, 1], "what was typed is not of the form"),
    ],
)
def test_arguments_that_do_not_fit(args: list[Any], named: dict[Any, Any], rest: list[Any], said: str) -> None:
    with pytest.raises(Mismatch, match=said):
        typed.arguments(METHOD, args, named, rest)
