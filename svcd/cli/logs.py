"""``svcd logs``: what services have printed, and what they print.

Must not need a daemon where the state directory is known.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from svcd.cli import columns
from svcd.cli.completion import offer_names
from svcd.cli.exits import CommandFailed, Exit
from svcd.cli.following import STREAMS, Followers, Watcher, begin_following, directories
from svcd.cli.logfiles import copy_tail
from svcd.cli.names import expand, no_service, service_of
from svcd.cli.options import Target, targeted
from svcd.cli.output import Form, Output, write_all
from svcd.protocol.rotation import Follower

BOTH: Final = "both"
STDOUT_FD: Final = 1
OWN_LOGS: Final = "svcd"  # what svcd's own errands print


def parse_count(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """A number of lines, or None for ``all``. A callback of click's."""
    if value == "all":
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 12:
        raise click.BadParameter(f"{value!r} is neither a number nor all", ctx, param)
    return int(value)


@click.command(
    epilog="""\b
Examples:
  svcd logs web                    the last 100 lines, of every instance
  svcd logs -f                     whatever anybody prints, as it comes
  svcd logs -n all web > web.log   every byte that is kept, as it was printed
  svcd logs --stream stderr -n 20  the last errors of each service
"""
)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=offer_names)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("-n", "--lines", "count", callback=parse_count, default="100", show_default=True, metavar="N|all",
              help="How many of the last lines of each stream.")  # fmt: skip
@click.option("--stream", type=click.Choice([*STREAMS, BOTH]), default=BOTH, show_default=True, help="Which output.")
@targeted
def logs(target: Target, names: tuple[str, ...], follow: bool, count: int | None, stream: str, as_json: bool) -> int:
    """Show what services print.

    One NAME into a pipe or file: its bytes, unchanged. Several, or none for all: each line with its service's name. Of
    each service the lines of stdout come before those of stderr; with -f, what is new comes as it is printed, and
    instances and services that come later are shown as well.

    The logs of a cluster that does not run are shown with --cluster or --state-dir.
    """
    logs_dir, known = _where(target)
    chosen = _choose(names, known, logs_dir)
    output = Output(_write, _form(len(names) == len(chosen) == 1, as_json), chosen)
    streams = STREAMS if stream == BOTH else (stream,)
    try:
        if follow:
            _follow(logs_dir, chosen, _joining(names), streams, count, output)
        else:
            for name in chosen:
                for each in streams:
                    copy_tail(_path(logs_dir, name, each), count, _put(output, name, each))
                    output.end(name, each)
    except KeyboardInterrupt:
        output.end_all()
    return Exit.OK


def _form(alone: bool, as_json: bool) -> Form:
    if as_json:
        return Form.JSON
    if not alone:
        return Form.NAMED
    return Form.LINES if columns.is_terminal() else Form.BYTES


def _write(data: bytes) -> None:
    write_all(STDOUT_FD, data)


def _path(logs_dir: Path, name: str, stream: str) -> Path:
    return logs_dir / name / f"{stream}.log"


def _put(output: Output, name: str, stream: str) -> Callable[[bytes], None]:
    return lambda data: output.put(name, stream, data)


# ---- where -----------------------------------------------------------------------------------------------------------


def _where(target: Target) -> tuple[Path, dict[str, str]]:
    """The directory of all logs, and full name -> service of those that run, or of those that have logs."""
    try:
        client = target.connect("show logs")
    except CommandFailed as failure:
        places = target.state_places() if failure.code == Exit.NO_DAEMON else None
        if places is None:
            hint = "--cluster NAME or --state-dir DIR show the logs of one that does not run"
            raise CommandFailed(failure.text, failure.code, hint) from None
        return places.state_dir / "logs", _with_logs(places.state_dir / "logs")
    from svcd.protocol.messages import GetStatus, StatusReported  # noqa: PLC0415 - after the messaging library

    with client:
        report = client.ask(GetStatus(), StatusReported)
    return Path(report.state_dir) / "logs", {row.name: row.service for row in report.services}


def _with_logs(logs_dir: Path) -> dict[str, str]:
    try:
        found = sorted(each.name for each in os.scandir(logs_dir) if each.is_dir(follow_symlinks=False))
    except OSError as error:
        raise CommandFailed(f"cannot show logs: {error.strerror}: {logs_dir}", Exit.USAGE) from None
    return {name: service_of(name) for name in found}


def _choose(names: Sequence[str], known: Mapping[str, str], logs_dir: Path) -> list[str]:
    """Full names. One without any log is refused; what was taken out of the cluster may still have some."""
    if not names:
        return list(known)
    chosen = expand(names, known)
    if any(name not in known for name in chosen):
        known = {**known, **_with_logs(logs_dir)}
        chosen = expand(chosen, known)
    for name in chosen:
        if name not in known:
            raise CommandFailed(f"cannot show logs: {no_service(name, known)}", Exit.USAGE)
    return chosen


# ---- following -------------------------------------------------------------------------------------------------------


def _joining(names: Sequence[str]) -> Callable[[str], bool]:
    """Whether somebody who comes later is meant as well: an instance of a service that was named; without names all."""
    wanted = frozenset(names)
    return lambda name: service_of(name) in wanted if wanted else name != OWN_LOGS


def _follow(
    logs_dir: Path,
    names: Sequence[str],
    joins: Callable[[str], bool],
    streams: Sequence[str],
    tail: int | None,
    output: Output,
) -> None:
    """The last lines, then everything that comes, until interrupted."""
    gc.enable()  # this may take days
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a descriptor for each stream of each service
    followers: Followers = {}
    gone = [name for name in directories(logs_dir) if joins(name) and name not in names]  # and may come back
    with Watcher(logs_dir, [*names, *gone], joins) as watcher:  # before the first look, so that nothing falls between
        try:
            for name in (*names, *gone):
                followers[name] = []
                for stream in streams:
                    path = _path(logs_dir, name, stream)
                    fd = copy_tail(path, tail if name in names else 0, _put(output, name, stream), keep_open=True)
                    followers[name].append((stream, Follower(path, fd)))
            pour_for_ever(watcher, lambda name: begin_following(followers, logs_dir, name, streams), followers, output)
        finally:
            for each in followers.values():
                for _, follower in each:
                    follower.close()


def pour_for_ever(watcher: Watcher, join: Callable[[str], None], followers: Followers, output: Output) -> None:
    """Show what comes until interrupted, or nobody reads it any more. ``join`` follows somebody who has come later."""
    out = sys.stdout.fileno()
    poll = select.poll()
    poll.register(out, 0)  # its end is reported all the same
    if watcher.fd is not None:
        poll.register(watcher.fd, select.POLLIN)
    busy = frozenset(followers)
    while True:
        patience_s = 0 if busy else watcher.patience_s
        if any(fd == out for fd, _ in poll.poll(None if patience_s is None else patience_s * 1000)):
            signal.raise_signal(signal.SIGPIPE)  # as a write would end it, if there were something to write
            return
        busy = pour_news(busy, watcher, join, followers, output)


def pour_news(
    busy: frozenset[str], watcher: Watcher, join: Callable[[str], None], followers: Followers, output: Output
) -> frozenset[str]:
    """One turn: who has news, or had more than one turn's worth, is shown; who is new is followed first."""
    news = watcher.news()
    for name in news - followers.keys():
        join(name)
    return pour(busy | news, followers, output)


def pour(names: frozenset[str], followers: Followers, output: Output) -> frozenset[str]:
    """Show what these have printed since, a bounded turn of each; returns who may have more."""
    busy = set()
    for name in names:
        for stream, follower in followers.get(name, ()):
            gaps = follower.gaps
            for data in follower.read():
                if follower.gaps != gaps:
                    gaps = follower.gaps
                    click.echo(f"svcd: output of {name} may have been rotated away before it could be shown", err=True)
                output.put(name, stream, data)
                busy.add(name)
    return frozenset(busy)
