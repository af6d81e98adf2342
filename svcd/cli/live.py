"""The live view of a start or a drain in a terminal: one line for each service that is on its way.

Must not be imported where there is no terminal: rich takes its time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from svcd.cli import columns
from svcd.record import record

FRAMES: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
PLAIN_FRAMES: Final = "|/-\\"
FRAMES_PER_S: Final = 8
SPARE_ROWS: Final = 4  # of the terminal's height, left to what was said before


@record
class Moving:
    """A service on its way: ``why`` is what it waits for or does, since ``seconds``."""

    name: str
    state: str
    why: str
    seconds: float


class LiveView:
    """The last lines of the terminal. ``hide`` before anything else is written there."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False, no_color=not columns.is_colourful())
        self._live: Live | None = None

    def show(self, head: str, moving: Sequence[Moving]) -> None:
        """Draw the view, or draw it anew."""
        if self._live is None:
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
        self._live.update(self._table(head, moving), refresh=True)

    def hide(self) -> None:
        """Take it away, without a trace."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _table(self, head: str, moving: Sequence[Moving]) -> Table:
        table = Table.grid(padding=(0, 2))
        table.title, table.title_justify, table.title_style = escape(head), "left", "bold"
        for _ in range(3):
            table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        frames = FRAMES if "utf" in (self._console.encoding or "").lower() else PLAIN_FRAMES
        frame = frames[int(time.monotonic() * FRAMES_PER_S) % len(frames)]
        room = max(1, self._console.height - SPARE_ROWS)
        shown = moving if len(moving) <= room else moving[: room - 1]
        for each in shown:
            colour = columns.STATE_COLOURS.get(each.state, "default")
            table.add_row(
                f"{frame} {escape(columns.one_line(each.name))}",
                f"[{colour}]{escape(each.state)}[/]",
                columns.duration(each.seconds),
                escape(columns.one_line(each.why)),
            )
        if len(shown) < len(moving):
            table.add_row(f"  and {len(moving) - len(shown)} more", "", "", "")
        return table
