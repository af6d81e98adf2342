"""The options that commands share, and which cluster they mean.

Must not talk to a daemon, only find it: ``client`` talks.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from svcd.cli.exits import CommandFailed, Exit
from svcd.protocol import places
from svcd.protocol.places import Places, RunningCluster
from svcd.record import record

if TYPE_CHECKING:
    from svcd.cli.client import Client

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_PIECE: Final = re.compile(rf"({_NUMBER.pattern})(ms|s|m|h)")


@record
class Target:
    """Which cluster a command is about, as far as the user has said it."""

    run_dir: str | None = None
    state_dir: str | None = None
    cluster: str | None = None

    def resolve(self, cluster: str) -> Places:
        """The places of ``cluster``, which is about to be started."""
        try:
            return places.resolve(cluster, self.run_dir, self.state_dir)
        except places.PlaceError as error:
            raise CommandFailed(str(error), Exit.USAGE) from None

    def find(self) -> RunningCluster:
        """The running cluster that is meant."""
        if self.run_dir and self.cluster:
            raise CommandFailed("cannot use both --run-dir and --cluster: either says which cluster", Exit.USAGE)
        try:
            return places.find_running(self.cluster, self.run_dir)
        except places.NoClusterRuns as error:
            hint = "svcd start FILE starts one; --cluster, --run-dir or SVCD_RUN_DIR say which one is meant"
            raise CommandFailed(str(error), Exit.NO_DAEMON, hint) from None
        except places.SeveralClustersRun as error:
            raise CommandFailed(str(error), Exit.USAGE) from None

    def connect(self, purpose: str) -> Client:
        """A connection to the running cluster that is meant; ``purpose`` completes "cannot …"."""
        from svcd.cli.client import Client  # noqa: PLC0415 - brings the messaging library; not every command asks

        found = self.find()
        return Client(found.run_dir, found.pid, purpose)

    def state_places(self) -> Places | None:
        """The places of a cluster that does not run, when enough is said to know them."""
        if not (self.cluster or self.state_dir or os.environ.get("SVCD_STATE_DIR")):
            return None
        return self.resolve(self.cluster or "unnamed")


def parse_duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Seconds of ``10s``, ``1m30s``, ``500ms``; a number alone is seconds. A callback of click's."""
    if value is None:
        return None
    seconds, position, text = 0.0, 0, value.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    while position < len(text) and (found := _PIECE.match(text, position)):
        seconds += float(found[1]) * _UNITS[found[2]]
        position = found.end()
    if not text or position != len(text):
        raise click.BadParameter(f"{value!r} is no duration: write 10s, 500ms or 1m30s", ctx, param)
    return seconds


_PLACE_OPTIONS: Final = (
    click.option("--cluster", metavar="NAME", help="The cluster's name, where several run."),
    click.option("--run-dir", metavar="DIR", help="Its run directory (sockets and lock); or SVCD_RUN_DIR."),
    click.option("--state-dir", metavar="DIR", help="Its state directory (logs); or SVCD_STATE_DIR."),
)


def cluster_options(function: Decorated) -> Decorated:
    """``--cluster``, ``--run-dir``, ``--state-dir``."""
    for option in reversed(_PLACE_OPTIONS):
        function = option(function)
    return function


def remember(given: Mapping[str, str | None]) -> None:
    """What was said before the command holds for it, unless it says otherwise itself."""
    click.get_current_context().obj = dict(given)


def targeted(function: Decorated) -> Callable[..., Any]:
    """The place options and ``--json``; the command gets ``target`` and ``as_json``."""

    def wrapped(cluster: str | None, run_dir: str | None, state_dir: str | None, **rest: Any) -> Any:
        before = click.get_current_context().obj or {}
        target = Target(
            run_dir or before.get("run_dir"), state_dir or before.get("state_dir"), cluster or before.get("cluster")
        )
        return function(target=target, **rest)

    wrapped.__name__, wrapped.__doc__ = function.__name__, function.__doc__
    wrapped.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]  # click's own
    return cluster_options(with_json(wrapped))


def with_json(function: Decorated) -> Decorated:
    """``--json``, as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(function)


def with_profiles(function: Decorated) -> Decorated:
    """``--profile``, as ``profiles``."""
    text = "Choose a profile of the files; several times for several. Or SVCD_PROFILES."
    return click.option("--profile", "profiles", multiple=True, metavar="NAME", help=text)(function)


def waiting(function: Decorated) -> Decorated:
    """``--no-wait`` and ``--timeout``, as ``wait`` and ``timeout_s``."""
    no_wait = click.option("--no-wait", "wait", is_flag=True, default=True, flag_value=False,
                           help="Return when the request is accepted.")  # fmt: skip
    timeout = click.option("--timeout", "timeout_s", callback=parse_duration, metavar="T",
                           help="Give up waiting after this time (exit 3); undoes nothing.")  # fmt: skip
    return no_wait(timeout(function))


def print_json(value: Any) -> None:
    """One JSON document on stdout; what is no Unicode is escaped."""
    click.echo(json.dumps(value, ensure_ascii=True, indent=2))
