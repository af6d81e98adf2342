"""The options that commands share.

Must not act on them.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any, Final

import click

from svcd.cli.target import Target

UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


class Duration(click.ParamType[float]):
    """``500ms``, ``1.5s``, ``2m``, ``1h``: seconds, as a float."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = DURATION.fullmatch(value)
        if match is None:
            self.fail(f"{value!r} is no duration; write 500ms, 1.5s, 2m or 1h", param, ctx)
        return float(match[1]) * UNITS[match[2]]


def targeted(command: Callable[..., Any]) -> Callable[..., Any]:
    """--run-dir, --state-dir, --cluster and --json; the command gets ``target`` and ``as_json``."""

    @click.option("--run-dir", envvar="SVCD_RUN_DIR", metavar="DIR", help="Run directory of the cluster.")
    @click.option("--state-dir", envvar="SVCD_STATE_DIR", metavar="DIR", help="State directory of the cluster.")
    @click.option("--cluster", metavar="NAME", help="Name of the cluster, when several run.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
    @functools.wraps(command)
    def wrapped(run_dir: str | None, state_dir: str | None, cluster: str | None, **rest: Any) -> Any:
        return command(target=Target(run_dir or None, state_dir or None, cluster), **rest)

    return wrapped


def waiting(command: Callable[..., Any]) -> Callable[..., Any]:
    """--no-wait and --timeout; the command gets ``wait`` and ``timeout_s``."""

    @click.option("--wait/--no-wait", default=True, help="Wait for the result (default), or only ask.")
    @click.option(
        "--timeout", "timeout_s", type=Duration(), metavar="T", help="Give up waiting after T; undoes nothing (exit 3)."
    )
    @functools.wraps(command)
    def wrapped(**rest: Any) -> Any:
        return command(**rest)

    return wrapped


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
