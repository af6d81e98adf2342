"""``stop``, ``restart``, ``signal``, ``shutdown``, and what they share with ``start NAME``: order, wait, report.

Must not decide what an order means; the daemon does.
"""

from __future__ import annotations

import dataclasses
import signal as signals
import sys
from pathlib import Path
from typing import Final

import click

from svcd.cli.client import Client, TimedOut
from svcd.cli.failures import Exit, Failure
from svcd.cli.options import print_json, targeted, waiting
from svcd.cli.target import Target
from svcd.protocol import places
from svcd.protocol.messages import (
    Message,
    RequestAccepted,
    RequestEnded,
    RestartServices,
    ShutDown,
    SignalServices,
    StartServices,
    StopServices,
)

DONE: Final = "done"
WORDS: Final = {StartServices: "up", StopServices: "stopped", RestartServices: "restarted", SignalServices: "signalled"}


def give(client: Client, order: Message, wait: bool, timeout_s: float | None, as_json: bool) -> None:
    """Send ``order``, wait for its end unless told not to, print it and exit with its code."""
    correlation, accepted = client.begin(order)
    if accepted.also and not as_json:
        click.echo(f"also stops first, and brings back: {', '.join(accepted.also)}")
    if not wait:
        if as_json:
            print_json({"outcome": "accepted", "also": accepted.also})
        sys.exit(Exit.OK)
    try:
        ended = client.wait_end(correlation, timeout_s)
    except TimedOut:
        raise Failure(f"not done within {timeout_s:g} s; it stays in force", Exit.NOT_AS_DESIRED) from None
    _report(order, accepted, ended, as_json)
    sys.exit(Exit.OK if ended.outcome == DONE else Exit.NOT_AS_DESIRED)


def _report(order: Message, accepted: RequestAccepted, ended: RequestEnded, as_json: bool) -> None:
    if as_json:
        results = [dataclasses.asdict(each) for each in ended.results]
        print_json(
            {"outcome": ended.outcome, "also": ended.also or accepted.also, "text": ended.text, "services": results}
        )
        return
    for each in ended.results:
        if each.outcome == DONE:
            click.echo(f"{each.service}: {WORDS.get(type(order), 'done')}")
        else:
            click.echo(f"{each.service}: {each.outcome}" + (f": {each.text}" if each.text else ""), err=True)
    if ended.text:
        click.echo(ended.text, err=ended.outcome != DONE)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@waiting
@targeted
def stop(target: Target, names: tuple[str, ...], wait: bool, timeout_s: float | None, as_json: bool) -> None:
    """Stop services; what requires them stops first, waits, and comes back with them.

    \b
    svcd stop db
    svcd stop api worker --timeout 30s
    """
    with target.connect() as client:
        give(client, StopServices(names), wait, timeout_s, as_json)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@waiting
@targeted
def restart(target: Target, names: tuple[str, ...], wait: bool, timeout_s: float | None, as_json: bool) -> None:
    """Restart services, with what requires them; their record of crashes begins anew.

    \b
    svcd restart api
    """
    with target.connect() as client:
        give(client, RestartServices(names), wait, timeout_s, as_json)


@click.command()
@click.argument("number", metavar="SIGNAL")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@targeted
def signal(target: Target, number: str, names: tuple[str, ...], as_json: bool) -> None:
    """Send SIGNAL (HUP, SIGUSR1, 10, …) to the main process of services.

    \b
    svcd signal HUP nginx
    """
    with target.connect() as client:
        give(client, SignalServices(parse_signal(number), names), True, None, as_json)


def parse_signal(word: str) -> int:
    """A signal by name, with or without SIG, or by number. Raises ``click.BadParameter``."""
    name = word.upper() if word.upper().startswith("SIG") else f"SIG{word.upper()}"
    if word.isascii() and word.isdigit() and int(word) in set(map(int, signals.valid_signals())):
        return int(word)
    if name in signals.Signals.__members__:
        return int(signals.Signals[name])
    raise click.BadParameter(f"there is no signal {word!r}; names are HUP, TERM, USR1, …")


@click.command()
@click.option("--now", is_flag=True, help="No drain; every stop timeout is one second.")
@waiting
@targeted
def shutdown(target: Target, now: bool, wait: bool, timeout_s: float | None, as_json: bool) -> None:
    """Stop everything in reverse dependency order, then end the daemon.

    \b
    svcd shutdown
    svcd shutdown --now
    """
    found = target.find()
    with Client(found.run_dir) as client:
        correlation, _ = client.begin(ShutDown(now))
        if wait:
            try:
                client.wait_end(correlation, timeout_s)
            except TimedOut:
                raise Failure(f"not down within {timeout_s:g} s; it stays in force", Exit.NOT_AS_DESIRED) from None
    if wait and found.pid is not None:
        _wait_gone(found.pid, found.run_dir)
    if as_json:
        print_json({"outcome": "done" if wait else "accepted", "cluster": found.name})
    else:
        click.echo(f"cluster {found.name}: {'down' if wait else 'shutting down'}")


def _wait_gone(pid: int, run_dir: Path) -> None:
    """Until the guardian has ended: only then is everything cleared away."""
    import os  # noqa: PLC0415
    import select  # noqa: PLC0415

    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if places.running_at(run_dir) is not None:  # the pid is still its own
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(30_000)
    finally:
        os.close(pidfd)
