"""What a call has brought, as people or programs want it: texts and bytes as they are, everything else as JSON.

Must not call, nor know what was called.

What JSON lacks: bytes are base64, dates and times ISO 8601, durations seconds, arrays lists; NaN and the infinities are
texts, and so is whatever else there may be.
"""

from __future__ import annotations

import base64
import json
import math
from datetime import date, datetime, time, timedelta
from typing import Any, Final

from svcd.cli import columns

LINE_LENGTH: Final = 100  # longer ones are laid out


def shown(value: Any) -> bytes:
    """The result of a call, for people and pipes: nothing for None."""
    if value is None:
        return b""
    if isinstance(value, bytes | bytearray | memoryview) and not columns.is_terminal():
        return bytes(value)
    if isinstance(value, bytes | bytearray | memoryview):
        value = bytes(value).decode("utf-8", "backslashreplace")
    return _line(value if isinstance(value, str) else _laid_out(value))


def shown_item(value: Any) -> bytes:
    """One item of a stream: one line, whatever it is."""
    is_line = isinstance(value, str) and "\n" not in value and "\r" not in value
    return _line(value if is_line else json.dumps(plain(value), ensure_ascii=False))


def json_item(value: Any) -> bytes:
    """One item of a stream, for programs: JSON on one line."""
    return json.dumps(plain(value)).encode() + b"\n"


def _line(text: str) -> bytes:
    safe = columns.harmless(text) if columns.is_terminal() else text
    return safe.encode("utf-8", "backslashreplace") + b"\n"


def _laid_out(value: Any) -> str:
    value = plain(value)
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LINE_LENGTH else json.dumps(value, ensure_ascii=False, indent=2)


def plain(value: Any) -> Any:
    """``value`` of what JSON has."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {_key(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if hasattr(value, "tolist"):  # numpy's
        return plain(value.tolist())
    return str(value)


def _key(key: Any) -> str:
    """As JSON has keys: texts."""
    found = plain(key)
    return found if isinstance(found, str) else json.dumps(found)
