"""Plain text for people: columns, durations, sizes, colours, and what strangers wrote made harmless.

Must not import a terminal library: a table of 500 rows has to be there at once.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Final

import click

STATE_COLOURS: Final = {
    "running": "green",
    "completed": "green",
    "paused": "yellow",
    "waiting": "yellow",
    "loading": "cyan",
    "loaded": "cyan",
    "initialized": "cyan",
    "starting": "cyan",
    "draining": "yellow",
    "stopping": "yellow",
    "backoff": "red",
    "failed": "red",
    "unavailable": "red",
}
"""Colour of a state's word; a state that is not here has none."""

GAP: Final = "  "
MIN_LAST_WIDTH: Final = 12

_UNWANTED: Final = re.compile(
    r"\x1b\[[0-9;:]*m|\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def is_terminal() -> bool:
    """Whether stdout is a terminal that people look at."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def is_colourful() -> bool:
    """Whether colours are wanted on stdout (https://no-color.org)."""
    return is_terminal() and not os.environ.get("NO_COLOR")


def width() -> int | None:
    """Columns of the terminal; None where there is none."""
    if not is_terminal():
        return None
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError):
        return None


# ---- words ---------------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """``0.3s``, ``12s``, ``3m12s``, ``4h05m``, ``2d03h``: two units at most."""
    if seconds < 0.95:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def size(count: int) -> str:
    """``812 B``, ``5.3 MiB``: three digits at most, binary units."""
    if count < 1024:
        return f"{count} B"
    value, unit = float(count), "B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):  # noqa: B007 - the unit where it stops is the answer
        value /= 1024
        if value < 999.5:
            break
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"


def joined(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1] if names else "")))


def harmless(text: str, keep_colours: bool = False) -> str:
    """``text`` without anything that moves a cursor, sets a title or rings; tabs and line ends stay."""

    def replace(found: re.Match[str]) -> str:
        piece = found[0]
        return piece if keep_colours and piece.endswith("m") and piece.startswith("\x1b[") else ""

    return text if text.isprintable() else _UNWANTED.sub(replace, text)


def cut(text: str, room: int) -> str:
    """``text``, with an ellipsis for what does not fit."""
    return text if len(text) <= room else text[: room - 1] + "…"


def one_line(text: str) -> str:
    """``text``, harmless, on one line."""
    return text if text.isprintable() else " ".join(harmless(text).split())


# ---- tables --------------------------------------------------------------------------------------------------------


def paint(text: str, colour: str | None, on: bool) -> str:
    return click.style(text, fg=colour) if on and colour else text


def without(cells: Sequence[str], gone: Collection[int]) -> tuple[str, ...]:
    """A row without some of its columns."""
    return tuple(text for column, text in enumerate(cells) if column not in gone)


def give_way(
    rows: Sequence[Sequence[str]], orders: Sequence[Collection[int]], total_width: int | None, wanted: int
) -> frozenset[int]:
    """Which columns to leave out so that the last one has its width, at most ``wanted``; ``orders``: which go first."""
    if total_width is None:
        return frozenset()
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    needed = sum(widths[:-1]) + len(GAP) * (len(widths) - 1) + min(widths[-1], wanted)
    gone: set[int] = set()
    for columns in orders:
        if needed <= total_width:
            break
        gone.update(columns)
        needed -= sum(widths[column] + len(GAP) for column in columns)
    return frozenset(gone)


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: frozenset[int] = frozenset(),
    total_width: int | None = None,
    style: Callable[[int, int, str], str] = lambda row, column, text: text,
) -> list[str]:
    """Lines of aligned columns; those in ``right`` are right-aligned. The last column is cut to ``total_width``.

    ``style(row, column, text)`` colours a cell after it has its width; the head is row -1.
    """
    widths = [max(map(len, cells)) for cells in zip(head, *rows, strict=True)]
    last = len(head) - 1
    room = None
    if total_width is not None:
        room = max(MIN_LAST_WIDTH, total_width - sum(widths[:-1]) - len(GAP) * last)
    lines = []
    for number, cells in enumerate((head, *rows), -1):
        line = []
        for column, text in enumerate(cells):
            if column == last:
                padded = text if room is None else cut(text, room)
            else:
                padded = text.rjust(widths[column]) if column in right else text.ljust(widths[column])
            line.append(style(number, column, padded))
        lines.append(GAP.join(line).rstrip())
    return lines
