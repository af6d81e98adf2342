"""All there is to know of one service, a line each: ``svcd status NAME``.

Must not ask, nor show what there is not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import click

from svcd.cli import columns
from svcd.cli.standing import colour_of, stand
from svcd.protocol.messages import ServiceStatus

INDENT: Final = "  "


def details(row: ServiceStatus, now: float, colourful: bool = False) -> list[str]:
    """The lines of ``row``, at the Unix time ``now``."""
    name = columns.one_line(row.name)
    shown = columns.paint(stand(row), colour_of(row), colourful)
    head = f"{click.style(name, bold=True) if colourful else name}: {shown} for {columns.duration(now - row.since)}"
    facts = [(key, columns.one_line(text)) for key, text in _facts(row, now)]
    width = max(len(key) for key, _ in facts)
    lines = [f"{head}: {columns.one_line(row.cause)}", *(f"{INDENT}{key:<{width}}  {text}" for key, text in facts)]
    return lines + _check_output(row)


def _check_output(row: ServiceStatus) -> list[str]:
    if not row.check_output:
        return []
    printed = (f"{INDENT * 2}{columns.harmless(each)}".rstrip() for each in row.check_output)
    return [f"{INDENT}its check printed:", *printed]


def _facts(row: ServiceStatus, now: float) -> Iterator[tuple[str, str]]:
    yield "asked to be", row.desired
    if row.text:
        yield "says", row.text
    if row.events_lost:
        yield "events lost", str(row.events_lost)
    if row.healthy is not None:
        yield "healthy", "yes" if row.healthy else f"no: {row.ailment}".removesuffix(": ")
    if row.not_restarted:
        yield "not restarted", row.not_restarted
    if row.fallback is not None:
        yield "stood in for by", row.fallback
    yield from _process(row)
    yield "restarts", str(row.restarts)
    if row.port is not None:
        yield "port", str(row.port)
    if row.sockets:
        yield "svcd listens on", ", ".join(row.sockets) + _call_words(row)
    if row.next_run is not None:
        yield "runs next", f"{_moment(row.next_run)}, in {columns.duration(row.next_run - now)}"
    yield from _kind(row)


def _call_words(row: ServiceStatus) -> str:
    """What becomes of somebody who connects."""
    if row.pid is not None:
        return ""
    return ": who calls starts it" if row.on_demand else ": who calls waits until it is started"


def _process(row: ServiceStatus) -> Iterator[tuple[str, str]]:
    if row.pid is None:
        return
    run = "" if row.invocation is None else f", invocation {row.invocation}"
    yield "process", f"pid {row.pid}{run}"
    if row.memory_bytes is not None:
        cpu = "" if row.cpu_percent is None else f"{row.cpu_percent:.1f}% of a core, "
        yield "uses", f"{cpu}{columns.size(row.memory_bytes)}"


def _kind(row: ServiceStatus) -> Iterator[tuple[str, str]]:
    if row.depends_on:
        yield "depends on", ", ".join(row.depends_on)
    if row.parent is not None:
        yield "child of", row.parent
    if row.name != row.service:
        yield "instance", f"{row.instance} of {row.service}"
    if row.type != "service":
        yield "type", row.type
    if row.version is not None:
        yield "version", row.version
    if row.tags:
        yield "tags", ", ".join(row.tags)


def _moment(at: float) -> str:
    """Local date and time; a moment that no calendar has is shown as it is."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (OverflowError, OSError, ValueError):
        return f"{at:g}"
