"""``svcd status``: who is up, since when, why not.

Must not change anything, nor ask more than once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import click

from svcd.cli import columns
from svcd.cli.completion import offer_names
from svcd.cli.exits import Exit
from svcd.cli.options import Target, print_json, targeted
from svcd.cli.standing import colour_of, stand
from svcd.protocol.messages import GetStatus, ServiceStatus, StatusReported
from svcd.record import as_dict

UP_STATES: Final = frozenset({"running", "paused", "completed"})
DOWN_STATES: Final = frozenset({"unloaded", "loading", "loaded", "stopped", "completed", "failed", "unavailable"})
ON_THEIR_WAY: Final = frozenset({"loading", "loaded", "initialized", "starting"})
WITH_LAST_WORDS: Final = frozenset({"backoff", "failed", "unavailable"})
TIMELESS: Final = frozenset({"unloaded", "waiting"})  # their cause says what they wait for
HEAD: Final = ("NAME", "STATE", "PID", "UPTIME", "RESTARTS", "CPU", "MEM", "CAUSE")
RIGHT: Final = frozenset({"PID", "UPTIME", "RESTARTS", "CPU", "MEM"})
GIVE_WAY: Final = (("CPU", "MEM"), ("RESTARTS",))
"""Columns that a terminal may be too narrow for, the first to go first."""
CAUSE_WIDTH: Final = 36  # what the cause is given before columns go
STATE_COLUMN: Final = 1
OUTPUT_LINES: Final = 5
TRACEBACK_LINES: Final = 15
NOTHING: Final = "-"
PLAIN_NEVER: Final = "restart.policy is never"  # as most tasks have it: for the details alone
CHILD: Final = "  "  # before the name of a child, below its parent


@click.command(
    epilog="""\b
Examples:
  svcd status             the whole cluster
  svcd status web         all there is to know of web
  svcd status web worker  these alone; exit code 0 if both are as desired
  svcd status --json      for programs: every field, nothing shortened
"""
)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=offer_names)
@targeted
def status(target: Target, names: tuple[str, ...], as_json: bool) -> int:
    """Show each service's state and its cause, process and use.

    Exit code 0: everything shown is as desired. 3: something is not.
    """
    with target.connect("show the status") as client:
        report = client.ask(GetStatus(names), StatusReported)
    show(report, as_json, alone=len(names) == len(report.services) == 1)
    return exit_code(report)


def show(report: StatusReported, as_json: bool = False, alone: bool = False) -> None:
    """Print the status: a table for people (``alone``: everything of one service), or everything for programs."""
    if as_json:
        print_json(as_dict(report))
    else:
        click.echo("\n".join(lines(report, alone=alone)))


def is_as_desired(row: ServiceStatus) -> bool:
    """Whether the service stands where it was asked to stand."""
    return row.state in (UP_STATES if row.desired == "up" else DOWN_STATES)


def has_started_badly(row: ServiceStatus) -> bool:
    """Whether the start of the cluster, which has settled, has failed at it; a child that a service creates since is
    no part of that.
    """
    return not is_as_desired(row) and not (row.parent and row.state in ON_THEIR_WAY)


def exit_code(report: StatusReported) -> Exit:
    return Exit.OK if all(map(is_as_desired, report.services)) else Exit.NOT_AS_DESIRED


# ---- for people ------------------------------------------------------------------------------------------------------


def lines(report: StatusReported, now: float | None = None, alone: bool = False) -> list[str]:
    """Head line, table, and what the services that are in trouble said last. ``alone``: all there is to know of one."""
    colourful = columns.is_colourful()
    head = f"cluster {report.cluster}: {report.state} (pid {report.pid})"
    rows = report.services
    if not rows:
        return [head, "no services"]

    def style(row: int, column: int, text: str) -> str:
        if row < 0:
            return click.style(text, bold=True) if colourful else text
        return columns.paint(text, colour_of(rows[row]) if column == STATE_COLUMN else None, colourful)

    at = time.time() if now is None else now
    if alone:
        from svcd.cli.details import details  # noqa: PLC0415 - only for one

        return [head, "", *details(rows[0], at, colourful), *last_words(rows)]
    depths = _depths(rows)
    return [head, "", *_table([_cells(row, at, depths[row.name]) for row in rows], style), *last_words(rows)]


def _depths(rows: Iterable[ServiceStatus]) -> dict[str, int]:
    """How far to the right each name goes: a child stands below its parent, if that is shown."""
    depths: dict[str, int] = {}
    for row in rows:
        depths[row.name] = depths[row.parent] + 1 if row.parent in depths else 0
    return depths


def _table(rows: Sequence[Sequence[str]], style: Callable[[int, int, str], str]) -> list[str]:
    width = columns.width()
    orders = [[HEAD.index(name) for name in each] for each in GIVE_WAY]
    gone = columns.give_way((HEAD, *rows), orders, width, CAUSE_WIDTH)
    head = columns.without(HEAD, gone)
    right = frozenset(column for column, name in enumerate(head) if name in RIGHT)
    return columns.table(head, [columns.without(each, gone) for each in rows], right, width, style)


def _cells(row: ServiceStatus, now: float, depth: int) -> tuple[str, ...]:
    return (
        CHILD * depth + columns.one_line(row.name),
        stand(row),
        str(row.pid) if row.pid is not None else NOTHING,
        columns.duration(now - row.since) if row.state not in TIMELESS else NOTHING,
        str(row.restarts),
        f"{row.cpu_percent:.1f}%" if row.cpu_percent is not None else NOTHING,
        columns.size(row.memory_bytes) if row.memory_bytes is not None else NOTHING,
        columns.one_line(_words(row, now)),
    )


def _words(row: ServiceStatus, now: float) -> str:
    """The cause, and whatever else a person should know of it at a glance."""
    found = [row.cause] if row.fallback is None else [f"{row.fallback} stands in", row.cause]
    if row.not_restarted and row.not_restarted != PLAIN_NEVER:
        found.append(f"not restarted: {row.not_restarted}")
    if row.healthy is not None and "healthy" not in row.cause:
        found.append("healthy" if row.healthy else f"unhealthy: {row.ailment}".removesuffix(": "))
    if row.text:
        found.append(f'says "{row.text}"')
    if row.events_lost:
        found.append(f"{row.events_lost} events lost")
    if row.port is not None:
        found.append(f"port {row.port}")
    if row.sockets and row.pid is None:
        places = ", ".join(row.sockets)
        found.append(f"a call to {places} starts it" if row.on_demand else f"who calls {places} waits")
    if row.next_run is not None:
        found.append(f"runs in {columns.duration(row.next_run - now)}")
    return "; ".join(found)


def last_words(rows: Iterable[ServiceStatus]) -> list[str]:
    """For each service in trouble: why, the end of its exception, the end of its output."""
    found: list[str] = []
    for row in rows:
        if row.state in WITH_LAST_WORDS and (row.exception or row.last_output):
            found += ["", f"{columns.one_line(row.name)}: {row.state}: {columns.one_line(row.cause)}"]
            traceback = row.exception.rstrip("\n").split("\n") if row.exception else []
            found += _indented("exception", traceback, TRACEBACK_LINES)
            found += _indented("last output", _without_end(row.last_output, traceback), OUTPUT_LINES)
    return found


def _without_end(output: Sequence[str], traceback: Sequence[str]) -> Sequence[str]:
    """A stub prints the exception that ends its service: what is shown already need not be shown again."""
    count = 0
    for line, shown in zip(reversed(output), reversed(traceback), strict=False):
        if line.rstrip() != shown.rstrip():
            break
        count += 1
    return output[: len(output) - count]


def _indented(title: str, texts: Sequence[str], limit: int) -> list[str]:
    if not texts:
        return []
    cut = ["    …"] if len(texts) > limit else []
    return [f"  {title}:", *cut, *(f"    {columns.harmless(each)}".rstrip() for each in texts[-limit:])]
