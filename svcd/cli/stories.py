"""``svcd why`` and ``svcd changes``: what led to what.

Must not explain anything by itself: the daemon keeps the causes, this shows them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import click

from svcd.cli import columns
from svcd.cli.completion import offer_names
from svcd.cli.exits import CommandFailed, Exit
from svcd.cli.options import Target, print_json, targeted
from svcd.protocol.messages import (
    Change,
    ChangesReported,
    GetChanges,
    GetStory,
    Link,
    Remark,
    StoryReported,
    Transition,
)
from svcd.record import as_dict

HISTORY_LINES: Final = 20
NAMES_SHOWN: Final = 6
MIN_CAUSE_WIDTH: Final = 16
CAUSE_WIDTH: Final = 200  # where there is no terminal
HEAD: Final = ("ID", "BEGAN", "TOOK", "CAUSE", "SERVICES")
RIGHT: Final = frozenset({0, 2})
STANDS: Final = {
    "unloaded": "has not run for {}",
    "backoff": "has been in backoff for {}",
    "stopped": "stopped {} ago",
    "completed": "completed {} ago",
    "failed": "failed {} ago",
}
"""Of a state, where "has been STATE for {}" would not do."""

ADVICE: Final = {
    "unloaded": "svcd start {} starts it",
    "stopped": "svcd start {} starts it",
    "paused": "svcd resume {} lets it go on",
    "failed": "svcd logs {0} shows what it printed; svcd start {0} tries again",
    "unavailable": "svcd logs {0} shows what it printed; svcd start {0} tries again",
}
"""What a person can do about the state at the root of a chain."""
BAD: Final = frozenset({"failed", "unavailable"})


@click.command(
    epilog="""\b
Examples:
  svcd why web  why it stands where it stands, and how it got there
"""
)
@click.argument("name", metavar="NAME", shell_complete=offer_names)
@targeted
def why(target: Target, name: str, as_json: bool) -> None:
    """Tell why a service stands where it stands.

    First the chain of causes, each because of the one below it, then its history.
    """
    with target.connect("tell why") as client:
        story = client.ask(GetStory(name), StoryReported)
    if as_json:
        print_json(as_dict(story))
        return
    click.echo("\n".join([*_chain(story.chain), *_parentage(story), *_advice(story.chain), "", *_history(story)]))


def _chain(chain: Sequence[Link]) -> list[str]:
    """Each link a line, deeper and deeper."""
    now = time.time()
    found = []
    for depth, link in enumerate(chain):
        arrow = "" if depth == 0 else f"{'  ' * (depth - 1)}└ because "
        stands = STANDS.get(link.state, f"has been {link.state} for {{}}").format(columns.duration(now - link.since))
        found.append(f"{arrow}{columns.one_line(link.service)} {stands}: {columns.one_line(link.cause)}")
    return found


def _parentage(story: StoryReported) -> list[str]:
    if story.parent is None:
        return []
    name, parent = columns.one_line(story.service), columns.one_line(story.parent)
    return [f"{name} is a child of {parent}: it ends before {parent} does, and goes with it"]


def _advice(chain: Sequence[Link]) -> list[str]:
    """What helps, if something keeps the service from where it is to be."""
    root = chain[-1]
    words = ADVICE.get(root.state)
    if words is None or not (chain[0].desired == "up" or root.state in BAD):
        return []
    return ["", f"hint: {words.format(columns.one_line(root.service))}"]


def _history(story: StoryReported) -> list[str]:
    """Its last steps, each under the change that it belongs to, and between them what else there was to tell."""
    causes = {each.id: each.cause for each in story.changes}
    shown = story.history[-HISTORY_LINES:]
    is_cut = len(shown) < len(story.history)
    remarks = [each for each in story.remarks if not is_cut or each.at >= shown[0].at]
    if not (shown or remarks):
        return ["nothing has happened to it yet"]
    lines = [f"the last {len(shown)} steps:" if is_cut else "its history:"]
    last = 0
    told: list[Remark | Transition] = [*remarks, *shown]
    for step in sorted(told, key=lambda each: each.at):
        if isinstance(step, Remark):
            last = 0
            lines.append(f"  {_clock(step.at)}  {columns.one_line(step.text)}")
            continue
        if step.transaction != last:
            last = step.transaction
            lines.append(f"  change {last}: {columns.one_line(causes.get(last, 'no longer kept'))}")
        lines.append(f"    {_step(step, with_name=False)}")
    return lines


@click.command(
    epilog="""\b
Examples:
  svcd changes                the last twenty, the youngest at the end
  svcd changes -n 100
  svcd changes 7              every step of change 7
"""
)
@click.argument("number", type=click.IntRange(min=1), required=False, metavar="[ID]")
@click.option("-n", "limit", type=click.IntRange(1, 256), default=20, metavar="N", help="How many (at most 256).")
@targeted
def changes(target: Target, number: int | None, limit: int, as_json: bool) -> None:
    """Show what has happened, and what moved because of it.

    A change is everything that followed from one cause: a request, a crash, a schedule, a new configuration.
    """
    with target.connect("show the changes") as client:
        report = client.ask(GetChanges(limit, number), ChangesReported)
    if number is not None and not report.changes:
        raise CommandFailed(f"cannot show change {number}: it is not kept (any more)", Exit.USAGE, "svcd changes")
    if as_json:
        print_json([as_dict(each) for each in report.changes])
    elif number is not None:
        click.echo("\n".join(_one(report.changes[0])))
    elif not report.changes:
        click.echo("nothing has changed yet")
    else:
        click.echo("\n".join(_table(report.changes)))


def _table(changes: Sequence[Change]) -> list[str]:
    width = columns.width()
    room = CAUSE_WIDTH if width is None else max(MIN_CAUSE_WIDTH, width // 2 - 8)
    rows = [
        (
            str(each.id),
            _clock(each.began),
            _took(each),
            _cause(each, room),
            _names(each.services),
        )
        for each in changes
    ]
    return columns.table(HEAD, rows, RIGHT, width)


def _one(change: Change) -> list[str]:
    lines = [f"change {change.id}: {columns.one_line(change.cause)}"]
    lines.append(f"began {_clock(change.began)}, {'took ' + _took(change) if change.ended else 'goes on'}")
    lines += [f"  {_step(each, with_name=True)}" for each in change.steps]
    if change.earlier and change.since is not None:
        lines.append(f"  {change.earlier} of its kind before it, since {_clock(change.since)}, are not kept")
    if change.omitted:
        lines.append(f"  … and {change.omitted} more steps that are not kept")
    return lines


def _step(step: Transition, with_name: bool) -> str:
    name = f"{columns.one_line(step.service)}: " if with_name else ""
    cause = columns.one_line(step.cause)
    return f"{_clock(step.at)}  {name}{step.old} → {step.new}: {cause}"


def _names(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return columns.one_line(", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else ""))


def _cause(change: Change, room: int) -> str:
    """With how often the same has happened before, where that is not shown."""
    before = f" (+{change.earlier} before)" if change.earlier else ""
    return columns.cut(columns.one_line(change.cause), max(MIN_CAUSE_WIDTH, room - len(before))) + before


def _took(change: Change) -> str:
    return "goes on" if change.ended is None else columns.duration(change.ended - change.began)


def _clock(at: float) -> str:
    """The local time of day, with milliseconds; the date as well when it was not today."""
    moment, today = time.localtime(at), time.localtime()
    day = "" if moment[:3] == today[:3] else time.strftime("%Y-%m-%d ", moment)
    return f"{day}{time.strftime('%H:%M:%S', moment)}.{int(at * 1000) % 1000:03d}"
