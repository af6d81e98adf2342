"""``svcd logs``: what services print, from their log files.

Must not need a daemon when the state directory is known.
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path
from typing import Final

import click

from svcd.cli import following, text
from svcd.cli.failures import Exit, Failure
from svcd.cli.following import ALL, Follower
from svcd.cli.options import targeted
from svcd.cli.target import Target
from svcd.protocol.messages import GetStatus, StatusReported

STREAMS: Final = ("stdout", "stderr")
FOLLOW_MS: Final = 200


class Lines(click.ParamType[int]):
    name = "lines"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "all":
            return ALL
        if isinstance(value, int):
            return value
        if isinstance(value, str) and value.isascii() and value.isdigit():
            return int(value)
        return self.fail(f"{value!r} is neither a number nor all", param, ctx)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option(
    "-n", "--lines", "count", type=Lines(), default=100, show_default=True, metavar="N|all", help="Last lines."
)
@click.option("--stream", type=click.Choice([*STREAMS, "both"]), default="both", help="Which stream (default: both).")
@targeted
def logs(target: Target, names: tuple[str, ...], follow: bool, count: int, stream: str, as_json: bool) -> None:
    """Show what services print. One NAME into a pipe: its bytes alone; several: each line with its name.

    With both streams, the last lines of stdout come before those of stderr.

    \b
    svcd logs api             the last 100 lines
    svcd logs -f              everything, as it comes
    svcd logs db -n all > db.log
    """
    state_dir, known = _where(target)
    wanted = names or known
    unknown = [each for each in names if each not in known and not (state_dir / "logs" / each).is_dir()]
    if unknown:
        raise Failure(f"no service {unknown[0]!r}", Exit.USAGE)
    streams = STREAMS if stream == "both" else (stream,)
    sources = [(name, state_dir / "logs" / name / f"{each}.log") for name in wanted for each in streams]
    plain = len(wanted) == 1
    printer = Printer(wanted, plain, as_json)
    followers = [(name, Follower(path)) for name, path in sources] if follow else []
    for name, path in sources:
        printer.put(name, following.tail(path, count))
        printer.end_of(name)
    try:
        while follow:
            for name, follower in followers:
                for data in follower.read():
                    printer.put(name, data)
            printer.flush()
            select.select([], [], [], FOLLOW_MS / 1000)
    except KeyboardInterrupt:
        sys.exit(Exit.OK)
    finally:
        printer.flush()


def _where(target: Target) -> tuple[Path, tuple[str, ...]]:
    """The state directory and the services in it; of the running cluster, or as the options say."""
    if target.state_dir is not None:
        state_dir = Path(target.state_dir)
    else:
        try:
            with target.connect() as client:
                report = client.ask(GetStatus(), StatusReported)
            return Path(report.state_dir), tuple(each.name for each in report.services)
        except Failure:
            if target.cluster is None:
                raise
            state_dir = target.resolve(target.cluster).state_dir
    try:
        return state_dir, tuple(sorted(os.listdir(state_dir / "logs")))
    except OSError as error:
        raise Failure(f"cannot read {state_dir / 'logs'}: {error.strerror}", Exit.USAGE) from None


class Printer:
    """Bytes out: as they are, with names before each line, or as JSON, a line each."""

    def __init__(self, names: tuple[str, ...], plain: bool, as_json: bool) -> None:
        self._plain = plain and not as_json
        self._as_json = as_json
        self._width = max(map(len, names), default=0)
        self._colours = {name: text.STREAM_COLOURS[at % len(text.STREAM_COLOURS)] for at, name in enumerate(names)}
        self._painted = text.is_terminal()
        self._open: dict[str, bytes] = {}

    def put(self, name: str, data: bytes) -> None:
        if self._plain:
            sys.stdout.buffer.write(data)
            return
        *whole, rest = (self._open.pop(name, b"") + data).split(b"\n")
        for line in whole:
            self._line(name, line)
        if rest:
            self._open[name] = rest

    def end_of(self, name: str) -> None:
        """A line without its end is shown all the same."""
        rest = self._open.pop(name, None)
        if rest is not None:
            self._line(name, rest)

    def flush(self) -> None:
        sys.stdout.flush()

    def _line(self, name: str, line: bytes) -> None:
        if self._as_json:
            import json  # noqa: PLC0415

            sys.stdout.write(json.dumps({"service": name, "line": line.decode("utf-8", "replace")}) + "\n")
            return
        prefix = text.paint(f"{name:<{self._width}} |", self._colours.get(name), self._painted)
        sys.stdout.buffer.write(prefix.encode() + b" " + line + b"\n")
