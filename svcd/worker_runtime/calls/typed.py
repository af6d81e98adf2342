"""Arguments as they were typed on a command line: the parameter's annotation says what is made of each.

Must not know calls or shells: texts go in, arguments as a method takes them or ``Mismatch`` come out.

A text is tried, in this order, as JSON, as the text that it is, as a date, a time or a duration, and as bytes: it is
the first of them that the annotation takes. So ``5`` is a number for ``int``, for ``int | str`` and where nothing is
annotated, and a text for ``str``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

from svcd.worker_runtime.calls.annotations import Check, Mismatch
from svcd.worker_runtime.calls.methods import Method


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
    """What ``text`` is to that annotation. Raises ``Mismatch``: the words about what it would be without one."""
    first: Mismatch | None = None
    for candidate in _candidates(text):
        try:
            check(candidate, where)
        except Mismatch as error:
            first = first or error
        else:
            return candidate
    assert first is not None  # the text itself is always a candidate
    raise first


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


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _duration(text: str) -> timedelta:
    """Seconds, as a number."""
    return timedelta(seconds=float(text))
