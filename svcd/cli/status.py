"""``svcd status``: the table, or the JSON, of what runs.

Must not wait for anything.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterable
from typing import Any, Final

import click

from svcd.cli import text
from svcd.cli.failures import Exit
from svcd.cli.options import print_json, targeted
from svcd.cli.target import Target
from svcd.protocol.messages import GetStatus, ServiceStatus, StatusReported

HEAD: Final = ("NAME", "STATE", "PID", "UPTIME", "RESTARTS", "CPU", "MEM", "CAUSE")
UP: Final = frozenset({"running", "completed", "paused"})
DOWN: Final = frozenset({"unloaded", "stopped", "completed", "failed", "unavailable"})
ENDED_BADLY: Final = frozenset({"backoff", "failed", "unavailable"})
SHOWN_LINES: Final = 5


def is_as_desired(row: ServiceStatus) -> bool:
    """Whether the service is what it was asked to be."""
    return row.state in (UP if row.desired == "up" else DOWN)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@targeted
def status(target: Target, names: tuple[str, ...], as_json: bool) -> None:
    """Show who is up, since when, and why not.

    Exit code 0 when all (named) services are as desired, 3 when something is not, 4 when no daemon runs.

    \b
    svcd status              everything
    svcd status api db       these two
    svcd status --json       for programs
    """
    with target.connect() as client:
        report = client.ask(GetStatus(names), StatusReported)
    if as_json:
        print_json(as_dict(report))
    else:
        click.echo("\n".join(lines(report)))
    sys.exit(Exit.OK if all(map(is_as_desired, report.services)) else Exit.NOT_AS_DESIRED)


def as_dict(report: StatusReported) -> dict[str, Any]:
    return dataclasses.asdict(report)


def lines(report: StatusReported) -> list[str]:
    """The whole page."""
    now = time.time()
    rows = [HEAD, *(_row(each, now) for each in report.services)]
    colours = [text.STATE_COLOURS.get(each.state) for each in report.services]
    head = f"cluster {report.cluster}: {report.state} (pid {report.pid})"
    return [head, "", *text.columns(rows, colours, HEAD.index("STATE")), *_last_words(report.services)]


def _row(row: ServiceStatus, now: float) -> tuple[str, ...]:
    return (
        row.name,
        row.state,
        "-" if row.pid is None else str(row.pid),
        text.span(now - row.since),
        str(row.restarts),
        "-" if row.cpu_percent is None else f"{row.cpu_percent:.1f}%",
        text.size(row.memory_bytes),
        row.cause,
    )


def _last_words(rows: Iterable[ServiceStatus]) -> list[str]:
    """For each that ended badly: the exception that ended it, or its last output."""
    found = []
    for row in rows:
        words = row.exception.rstrip().splitlines()[-SHOWN_LINES:] if row.exception else row.last_output[-SHOWN_LINES:]
        if row.state in ENDED_BADLY and words:
            found += [
                "",
                f"{row.name}, {'exception' if row.exception else 'last output'}:",
                *(f"  {each}" for each in words),
            ]
    return found
