"""Arguments as they were typed on a command line: the parameter's annotation says what is made of each.

Must not know calls or shells: texts go in, arguments as a method takes them or ``Mismatch`` come out.

A text is tried, in this order, as JSON, as the text that it is, as a date, a time or a duration, as bytes, and as an
array: it is the first of them that the annotation takes. So ``5`` is a number for ``int``, for ``int | str`` and where
nothing is annotated, and a text for ``str``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any, Final

from svcd.worker_runtime.calls.annotations import SHOWN_LENGTH, Check, Mismatch
from svcd.worker_runtime.calls.methods import Method

_KIND: Final = re.compile(r"\w*")
_WRITTEN: Final = {
    "bool": "true or false",
    "date": "2026-01-31",
    "datetime": "2026-01-31T12:00",
    "time": "12:00",
    "timedelta": "seconds, such as 1.5",
    **dict.fromkeys(("list", "tuple", "set", "frozenset"), "JSON, such as [1, 2]"),
    "dict": 'JSON, such as {"a": 1}',
}
"""How one writes a value of what an annotation names."""


def arguments(method: Method, args: list[Any], named: dict[Any, Any], rest: list[Any]) -> dict[str, Any]:
    """As ``Method.arguments``. ``rest``: what came behind them, which is to be a map of texts. Raises ``Mismatch``."""
    texts = rest[0]
    if len(rest) != 1 or type(texts) is not dict or not {str}.issuperset(map(type, (*texts, *texts.values()))):
        raise Mismatch("what was typed is not of the form {name: text}")
    for name, text in texts.items():
        if name in named:
            raise Mismatch(f"it got {name!r} twice: {method.usage()}")
        check = method.parameters.get(name)
        named = {**named, name: text if check is None else read(check, text, name)}
    return method.arguments(args, named)


def read(check: Check, text: str, where: str) -> Any:
    """What ``text`` is to that annotation. Raises ``Mismatch``: the words about what it would be without one, and how
    it is written.
    """
    first: Mismatch | None = None
    for candidate in _candidates(text):
        try:
            check(candidate, where)
        except Mismatch as error:
            first = first or error
        else:
            return candidate
    assert first is not None  # the text itself is always a candidate
    raise _as_typed(first, text, where)


def _as_typed(error: Mismatch, text: str, where: str) -> Mismatch:
    """Everything is text to who types it: that a text came instead says nothing."""
    wanted, is_text, rest = str(error).rpartition(", not str")
    start = f"{where} must be "
    if not is_text or rest or not wanted.startswith(start):
        return error
    kind = _KIND.match(wanted, len(start))
    how = _WRITTEN.get(kind[0] if kind else "")
    shown = repr(text) if len(text) <= SHOWN_LENGTH else "that"
    return Mismatch(f"{wanted}, not {shown}" + (f": write {how}" if how else ""))


def _candidates(text: str) -> Iterator[Any]:
    try:
        yield json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        pass
    yield text
    for read_as in (date.fromisoformat, datetime.fromisoformat, time.fromisoformat, _duration):
        try:
            yield read_as(text)
        except (ValueError, OverflowError):
            pass
    yield text.encode()
    yield from _array(text)


def _array(text: str) -> Iterator[Any]:
    """A list of numbers, or of such lists, where the service knows arrays."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and text.lstrip()[:1] == "[":
        try:
            array = numpy.array(json.loads(text, parse_constant=_refuse))
        except (ValueError, RecursionError):  # no JSON, or lists of several lengths
            return
        if array.dtype.kind in "biuf":
            yield array


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _duration(text: str) -> timedelta:
    """Seconds, as a number."""
    return timedelta(seconds=float(text))
