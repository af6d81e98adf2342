"""How one service stands, in a word or two and their colour: wherever a state is shown.

Must not ask, nor tell why.
"""

from __future__ import annotations

from svcd.cli import columns
from svcd.protocol.messages import ServiceStatus


def colour_of(row: ServiceStatus) -> str | None:
    """The colour of its state."""
    return "red" if row.healthy is False else columns.STATE_COLOURS.get(row.state)


def stand(row: ServiceStatus) -> str:
    """Its state, in the words of people."""
    state = columns.one_line(row.state)
    return state if row.in_flight is None else f"{state}, {row.in_flight} in flight"
