"""The commands that ask a running daemon to change something: send, wait, say what became of each service.

Must not decide what a stop takes along: the daemon says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import click

from svcd.cli import columns
from svcd.cli.client import Client, DaemonEnded, TimedOut
from svcd.cli.completion import offer_names
from svcd.cli.exits import CommandFailed, Exit
from svcd.cli.options import Target, print_json, targeted, waiting
from svcd.cli.signals import parse_signal
from svcd.protocol.messages import (
    GetStatus,
    Message,
    PauseServices,
    RequestAccepted,
    RequestEnded,
    RestartServices,
    Result,
    ResumeServices,
    ShutDown,
    SignalServices,
    StatusReported,
    StopServices,
)
from svcd.record import as_dict, record

DONE: Final = "done"


@record
class Wording:
    """How an order is spoken of: ``cannot stop``, ``web: stopped``, ``also stops first, …: api``."""

    verb: str
    done: str
    also: str = ""


START: Final = Wording("start", "up", "also starts")
PAUSE: Final = Wording("pause", "paused")
RESUME: Final = Wording("resume", "running")
STOP: Final = Wording("stop", "stopped", "also stops first, and brings back")
REMOVED: Final = "removes with their parent"
RESTART: Final = Wording("restart", "restarted", "also restarts around it")


@record
class Patience:
    """Whether to wait for the end of a request, and until which monotonic moment (None: as long as it takes)."""

    wait: bool
    deadline: float | None

    @classmethod
    def of(cls, wait: bool, timeout_s: float | None) -> Patience:
        return cls(wait, None if timeout_s is None else time.monotonic() + timeout_s)


@click.command(
    epilog="""\b
Examples:
  svcd stop web               stops first what requires web, and says so
  svcd stop --timeout 5s db   waits five seconds at most; the stop goes on
  svcd stop web --unneeded    and what was started only because web needed it
  svcd stop --unneeded        what was not asked for and is needed no more
"""
)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=offer_names)
@click.option("--unneeded", is_flag=True, help="Also stop what was started only for others that are down now.")
@waiting
@targeted
def stop(
    target: Target, names: tuple[str, ...], unneeded: bool, wait: bool, timeout_s: float | None, as_json: bool
) -> int:
    """Stop services, after everything that requires them.

    What was not named itself comes back with the service that it requires. To stop everything and svcd: svcd shutdown.
    """
    if not (names or unneeded):
        raise click.UsageError("name the services to stop, or say --unneeded; to stop everything: svcd shutdown")
    return order(target, StopServices(names, unneeded), STOP, Patience.of(wait, timeout_s), as_json)


@click.command(
    epilog="""\b
Examples:
  svcd restart web            and, around it, what requires web
  svcd restart --no-wait web  returns at once
  svcd restart --rolling api  its instances, one after the other
"""
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=offer_names)
@click.option("--rolling", is_flag=True, help="One after the other; the first that does not come back ends it.")
@waiting
@targeted
def restart(
    target: Target, names: tuple[str, ...], rolling: bool, wait: bool, timeout_s: float | None, as_json: bool
) -> int:
    """Restart services, and what requires them around it.

    Clears the record of earlier crashes: a service that is unavailable is tried again.
    """
    return order(target, RestartServices(names, rolling), RESTART, Patience.of(wait, timeout_s), as_json)


@click.command(
    epilog="""\b
Examples:
  svcd pause worker   it keeps its state and does nothing
  svcd resume worker  it goes on
"""
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=offer_names)
@waiting
@targeted
def pause(target: Target, names: tuple[str, ...], wait: bool, timeout_s: float | None, as_json: bool) -> int:
    """Pause running services.

    Programs get SIGSTOP, or a signal of their own; Python services have their pause() called.

    Nothing else stops for it; what is about to start waits.
    """
    return order(target, PauseServices(names), PAUSE, Patience.of(wait, timeout_s), as_json)


@click.command(
    epilog="""\b
Examples:
  svcd resume worker  goes on where svcd pause worker has stopped it
"""
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=offer_names)
@waiting
@targeted
def resume(target: Target, names: tuple[str, ...], wait: bool, timeout_s: float | None, as_json: bool) -> int:
    """Let paused services go on."""
    return order(target, ResumeServices(names), RESUME, Patience.of(wait, timeout_s), as_json)


@click.command(
    name="signal",
    epilog="""\b
Examples:
  svcd signal HUP nginx       by name, with or without SIG
  svcd signal 10 web worker   by number
  svcd signal KILL store      watch what depends on it stop and come back
""",
)
@click.argument("signal_name", metavar="SIGNAL")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=offer_names)
@waiting
@targeted
def signal_(
    target: Target, signal_name: str, names: tuple[str, ...], wait: bool, timeout_s: float | None, as_json: bool
) -> int:
    """Send SIGNAL to the main process of services."""
    number, name = parse_signal(signal_name)
    wording = Wording(f"send {name}", f"sent {name}")
    return order(target, SignalServices(number, names), wording, Patience.of(wait, timeout_s), as_json)


def order(target: Target, message: Message, wording: Wording, patience: Patience, as_json: bool) -> int:
    """Give one order about services and see it through."""
    with target.connect(wording.verb) as client, patient(wording.verb):
        correlation, accepted = client.begin(message)
        if not as_json:
            show_also(accepted, wording)
        if not patience.wait:
            return accepted_only(accepted, wording, as_json)
        ended = client.wait_end(correlation, patience.deadline)
        if as_json:
            also = {"also": accepted.also or ended.also, "removed": accepted.removed}
            print_json(outcome_document(ended) | also)
        else:
            show_results(ended, wording)
            show_last_words(client, ended)
    return Exit.OK if ended.outcome == DONE else Exit.NOT_AS_DESIRED


def show_also(accepted: RequestAccepted, wording: Wording) -> None:
    """What happens to services that were not named; children have a line of their own, as they do not come back."""
    stay = [each for each in accepted.also if each not in accepted.removed]
    for words, names in ((wording.also, stay), (REMOVED, accepted.removed)):
        if words and names:
            click.echo(f"{words}: {', '.join(map(columns.one_line, names))}")


def outcome_document(ended: RequestEnded) -> dict[str, Any]:
    """What became of a request, as JSON values."""
    return {"outcome": ended.outcome, "text": ended.text, "results": [as_dict(each) for each in ended.results]}


def show_last_words(client: Client, ended: RequestEnded) -> None:
    """What those said last that have failed. Why they have is said already: who is gone by now has no more to say."""
    failed = tuple(each.service for each in ended.results if each.outcome == "failed")
    if not failed:
        return
    from svcd.cli import last_words, status  # noqa: PLC0415 - only when something failed

    try:
        report = last_words.heard(client, client.ask(GetStatus(failed), StatusReported), failed)
    except CommandFailed:  # the cluster has ended, or one of them was removed
        return
    for line in status.last_words(report.services):
        click.echo(line, err=True)


@contextmanager
def patient(verb: str) -> Iterator[None]:
    """Turns the end of the user's patience into words and an exit code; nothing is taken back."""
    try:
        yield
    except TimedOut:
        text = f"cannot wait any longer for the {verb}: the time is over; what was asked stays in force"
        raise CommandFailed(text, Exit.NOT_AS_DESIRED, "svcd status shows how it goes on") from None
    except KeyboardInterrupt:
        text = f"interrupted while waiting for the {verb}; what was asked stays in force"
        raise CommandFailed(text, Exit.INTERRUPTED, "svcd status shows how it goes on") from None


def accepted_only(
    accepted: RequestAccepted, wording: Wording, as_json: bool, more: Mapping[str, Any] | None = None
) -> int:
    """The end of a command that does not wait. ``more``: what JSON shows besides."""
    if as_json:
        print_json(
            {
                **(more or {}),
                "outcome": "accepted",
                "text": "",
                "also": accepted.also,
                "removed": accepted.removed,
                "results": [],
            }
        )
    else:
        click.echo(f"{wording.verb}: accepted")
    return Exit.OK


def show_results(ended: RequestEnded, wording: Wording, done: Mapping[str, str] | None = None) -> None:
    """One line for each service that was named: on stdout when it is done, on stderr when not. ``done``: service ->
    what is said of it instead of ``wording.done``.
    """
    for each in ended.results:
        name = columns.one_line(each.service)
        if each.outcome == DONE:
            click.echo(f"{name}: {(done or {}).get(each.service, wording.done)}")
        else:
            click.echo(f"svcd: cannot {wording.verb} {name}: {_reason(each, wording)}", err=True)
    if not ended.results and ended.outcome != DONE:
        click.echo(f"svcd: cannot {wording.verb}: {columns.one_line(ended.text or ended.outcome)}", err=True)
    elif not ended.results:
        click.echo(f"{wording.verb}: done")


def _reason(result: Result, wording: Wording) -> str:
    """The daemon's words, without the service's name and "cannot …", which are said already."""
    text = columns.one_line(result.text) or result.outcome
    name = columns.one_line(result.service)
    for said in (*(f"cannot {verb} {name}: " for verb in ("start", wording.verb)), f"{name}: "):
        text = text.removeprefix(said)
    return f"it {text.removeprefix(f'{name} ')}" if text.startswith(f"{name} ") else text


# ---- the end of all ------------------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  svcd shutdown        drains everything in reverse order, then svcd ends
  svcd shutdown --now  no drain; every stop gets one second
"""
)
@click.option("--now", is_flag=True, help="Skip the drain and shorten every stop timeout to one second.")
@waiting
@targeted
def shutdown(target: Target, now: bool, wait: bool, timeout_s: float | None, as_json: bool) -> int:
    """Stop every service, in reverse order, then svcd itself.

    SIGTERM to the pid that svcd status shows, and Ctrl-C where svcd start runs, do the same.
    """
    patience = Patience.of(wait, timeout_s)
    with target.connect("shut down") as client, patient("shutdown"):
        report = client.ask(GetStatus(), StatusReported)
        try:
            correlation, accepted = client.begin(ShutDown(now))
            if not wait:
                return accepted_only(accepted, Wording("shutdown", ""), as_json)
            client.wait_end(correlation, patience.deadline)
            client.wait_gone(patience.deadline)
        except DaemonEnded:  # which is the only end that counts
            pass
    _show_end(report, as_json)
    return Exit.OK


def _show_end(report: StatusReported, as_json: bool) -> None:
    if as_json:
        print_json({"outcome": DONE, "cluster": report.cluster, "pid": report.pid})
    else:
        click.echo(f"cluster {report.cluster}: down")
