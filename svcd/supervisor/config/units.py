"""Durations, sizes and signals as people write them.

Must not know which key a value belongs to: a refusal says what is wrong with the value alone.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from typing import Final

from svcd.supervisor.config.tree import kind_of

IN_QUOTES: Final = "put it in quotes: "  # and then the text, which a file knows better: as it was written
DURATION_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SIZE_UNITS: Final = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
MAX_DURATION_S: Final = 366 * 86400.0
MAX_SIZE_BYTES: Final = 2**60
MAX_SIGNAL: Final = int(signal.SIGRTMAX)

DURATION_PATTERN: Final = r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+|0"
SIZE_PATTERN: Final = r"[0-9]+(?:\.[0-9]+)?(?:B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)|0"
SIGNAL_PATTERN: Final = r"[A-Za-z]+[0-9]?|[A-Za-z]+[+-][0-9]{1,2}|[0-9]{1,2}"

_NUMBER_AND_UNIT: Final = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)([A-Za-z]+)")
_QUANTITY: Final = re.compile(r"([-+]?[0-9]{0,20}\.?[0-9]{0,20})\s*([A-Za-zµ]*)")
_REALTIME: Final = re.compile(r"RT(?:MIN\+|MAX-)([0-9]{1,2})")


class RefusedError(ValueError):
    """A value that cannot be used: what is wrong, how to mend it, and where below the key (``at``) it is.

    ``others``: what else is wrong with the same value.
    """

    def __init__(
        self, text: str, suggestion: str, at: tuple[int | str, ...] = (), others: tuple[RefusedError, ...] = ()
    ) -> None:
        super().__init__(text)
        self.text, self.suggestion, self.at, self.others = text, suggestion, at, others


def parse_duration(value: object) -> float:
    """Seconds of ``500ms``, ``1.5s``, ``1m30s``; only zero needs no unit."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value == 0:
        return 0.0
    if not isinstance(value, str):
        number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
        raise RefusedError(
            f"{value} has no unit" if number else f"must be a duration, not {kind_of(value)}",
            f"write {value}s, or use {_list(DURATION_UNITS)}" if number else "write one such as 500ms, 1.5s, 2m or 1h",
        )
    if value == "0":
        return 0.0
    pieces, position = [], 0
    while found := _NUMBER_AND_UNIT.match(value, position):
        pieces.append(found.groups())
        position = found.end()
    if not pieces or position != len(value) or any(unit not in DURATION_UNITS for _, unit in pieces):
        raise _refused_quantity(value, "duration", DURATION_UNITS, "s", "500ms, 1.5s, 2m or 1h")
    seconds = sum(float(number) * DURATION_UNITS[unit] for number, unit in pieces)
    if seconds > MAX_DURATION_S:
        raise RefusedError(f"{value} is too long", "the longest duration is 366d")
    return seconds


def parse_size(value: object) -> int:
    """Bytes of ``512KiB`` (binary) and ``10MB`` (decimal); only zero needs no unit."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value == 0:
            return 0
        raise RefusedError(f"{value} has no unit", f"write {value}B, or use {_list(SIZE_UNITS)}")
    if not isinstance(value, str):
        raise RefusedError(f"must be a size, not {kind_of(value)}", "write one such as 512KiB, 64MiB or 1GB")
    if value == "0":
        return 0
    found = _NUMBER_AND_UNIT.fullmatch(value)
    if found is None or found[2] not in SIZE_UNITS:
        raise _refused_quantity(value, "size", SIZE_UNITS, "MiB", "512KiB, 64MiB or 1GB")
    size = round(float(found[1]) * SIZE_UNITS[found[2]])
    if size > MAX_SIZE_BYTES:
        raise RefusedError(f"{value} is too large", "the largest size is 1048576TiB")
    return size


def parse_signal(value: object) -> int:
    """The number of ``SIGTERM``, ``term``, ``RTMIN+3`` or ``15``."""
    if isinstance(value, int) and not isinstance(value, bool):
        if 1 <= value <= MAX_SIGNAL:
            return value
        raise RefusedError(f"{value} is no signal", f"signals are 1 to {MAX_SIGNAL}, or names such as SIGTERM")
    if not isinstance(value, str):
        raise RefusedError(f"must be a signal, not {kind_of(value)}", "write a name such as SIGTERM, or a number")
    if value.isascii() and value.isdigit() and len(value) <= 4:
        return parse_signal(int(value))
    name = value.upper().removeprefix("SIG")
    if realtime := _REALTIME.fullmatch(name):
        offset = int(realtime[1])
        number = signal.SIGRTMIN + offset if name.startswith("RTMIN") else signal.SIGRTMAX - offset
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return int(number)
    elif f"SIG{name}" in SIGNAL_NAMES:
        return SIGNAL_NAMES[f"SIG{name}"]
    raise RefusedError(f'"{value}" is no signal', near_miss(f"SIG{name}", SIGNAL_NAMES) or "use a name such as SIGTERM")


SIGNAL_NAMES: Final[dict[str, int]] = {
    name: int(number) for name, number in signal.Signals.__members__.items() if name.startswith("SIG")
}


def show_duration(seconds: float) -> str:
    """The shortest spelling with one unit: 90.0 is ``90s``, 0.1 is ``100ms``."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms" if seconds else "0s"
    return f"{seconds:g}s"


def show_size(size: int) -> str:
    """In the largest binary unit that divides it."""
    unit = max(
        (each for each in ("B", "KiB", "MiB", "GiB") if size % SIZE_UNITS[each] == 0), key=SIZE_UNITS.__getitem__
    )
    return f"{size // SIZE_UNITS[unit]}{unit}"


def show_signal(number: int) -> str:
    return next((name for name, each in SIGNAL_NAMES.items() if each == number), str(number))


def near_miss(word: str, known: Iterable[str]) -> str:
    """The words "did you mean X?", or nothing."""
    from difflib import get_close_matches  # noqa: PLC0415 - only a wrong configuration pays for it

    by_case = {each.lower(): each for each in known}
    found = get_close_matches(word[:80].lower(), by_case, n=1, cutoff=0.66)
    return f"did you mean {by_case[found[0]]}?" if found else ""


def _refused_quantity(
    value: str, what: str, units: dict[str, float] | dict[str, int], first: str, good: str
) -> RefusedError:
    found = _QUANTITY.fullmatch(value.strip())
    if found is None or not found[1].strip("+-."):
        return RefusedError(f'"{value[:40]}" is no {what}', f"write one such as {good}")
    number, unit = found.groups()
    if number.startswith("-"):
        return RefusedError(f"{value} is negative", f"a {what} is zero or more")
    if not unit:
        return RefusedError(f"{value} has no unit", f"write {number}{first}, or use {_list(units)}")
    same = [each for each in units if each.lower() == unit.lower()]
    if unit not in units:
        hint = f"did you mean {number}{same[0]}? " if same else ""
        return RefusedError(f'"{unit}" is no unit of a {what}', f"{hint}the units are {_list(units)}")
    return RefusedError(f'"{value}" is no {what}', f"write {number.lstrip('+')}{unit}, without blanks")


def _list(units: dict[str, float] | dict[str, int]) -> str:
    names = list(units)
    return ", ".join(names[:-1]) + " or " + names[-1]
