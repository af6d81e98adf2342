"""``svcd start -d``: the guardian in a session of its own, watched until everything has settled.

Must not stay: what is shown at the end is the state at that moment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Final

import click

from svcd.cli import columns, last_words, status
from svcd.cli.client import Client, DaemonEnded
from svcd.cli.exits import CommandFailed, Exit
from svcd.cli.launch import Ground
from svcd.protocol.messages import GetStatus, StatusReported

LOOK_EVERY_S: Final = 1.0  # the event may come before our subscription does
OVER: Final = ("stopping", "ended")
LOG_LINES: Final = 10
LOG_BYTES: Final = 64 * 1024


def detach_and_watch(ground: Ground, wait: bool, deadline: float | None, as_json: bool) -> int:
    """Start the daemon in the background; returns the exit code when all has settled (``wait``) or it answers."""
    log_path = ground.places.daemon_log
    try:
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    except OSError as error:
        ground.give_up()
        raise CommandFailed(f"cannot write {log_path}: {error.strerror}") from None
    log_began = os.fstat(log).st_size
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        pid = ground.become_guardian_behind(log)
    finally:
        os.close(log)
    os.close(ground.lock)
    try:
        report = _watch(ground, pid, wait, deadline)
    except DaemonEnded:
        raise _early_end(ground, pid, log_began) from None
    except KeyboardInterrupt:
        text = f"interrupted; cluster {ground.cluster.name} goes on starting in the background (pid {pid})"
        raise CommandFailed(text, Exit.INTERRUPTED, "svcd status shows how it goes on; svcd shutdown ends it") from None
    code = _show(report, wait, deadline, as_json)
    if wait and report.state in OVER:
        raise _stopped_again(ground, report.cause or "it is shutting down")
    return code


def _watch(ground: Ground, pid: int, wait: bool, deadline: float | None) -> StatusReported:
    """The status once it is settled, or at the deadline. Raises ``DaemonEnded``."""
    with Client(ground.places.run_dir, pid, "start") as client:
        client.subscribe(_patience_s(deadline), b"ClusterStateChanged")
        while True:
            report = client.ask(GetStatus(), StatusReported, _patience_s(deadline))
            if not wait or report.state != "starting" or (deadline is not None and time.monotonic() >= deadline):
                return last_words.heard(client, report)
            left_s = LOOK_EVERY_S if deadline is None else min(LOOK_EVERY_S, deadline - time.monotonic())
            client.wait(max(0.0, left_s))
            while client.next_event() is not None:
                pass


def _patience_s(deadline: float | None) -> float:
    """A daemon that does not answer at once is given a while, whatever the user's own patience."""
    return 30.0 if deadline is None else max(1.0, deadline - time.monotonic())


def _early_end(ground: Ground, pid: int, log_began: int) -> CommandFailed:
    """The daemon is gone already: why, or how, and its last words."""
    _, wait_status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(wait_status)
    how = f"exit code {code}" if code >= 0 else f"signal {-code}"
    lines = _log_since(ground.places.daemon_log, log_began)
    reason = _reason_to_stop(lines)
    if reason:
        return _stopped_again(ground, reason)
    words = tuple(f"  {columns.harmless(line)}" for line in lines[-LOG_LINES:])
    text = f"cannot start {ground.cluster.name}: the daemon ended at once ({how})"
    return CommandFailed(text, Exit.OTHER, f"its log is {ground.places.daemon_log}", words)


def _reason_to_stop(lines: list[str]) -> str:
    """Why the cluster was taken down, as the daemon has written it down; empty when it has not."""
    for line in reversed(lines):
        try:
            noted = json.loads(line)
        except ValueError:
            continue
        if isinstance(noted, dict) and (noted.get("event"), noted.get("state")) == ("cluster", "stopping"):
            return str(noted.get("text", ""))
    return ""


def _stopped_again(ground: Ground, reason: str) -> CommandFailed:
    text = f"cannot start {ground.cluster.name}: {columns.one_line(reason)}"
    return CommandFailed(text, Exit.OTHER, f"the log of it all is {ground.places.daemon_log}; svcd logs shows output")


def _log_since(path: Path, began: int) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(began, file.seek(0, os.SEEK_END) - LOG_BYTES))
            return file.read(LOG_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return []


def _show(report: StatusReported, wait: bool, deadline: float | None, as_json: bool) -> int:
    status.show(report, as_json)
    if not wait:
        return Exit.OK
    if report.state == "starting" and deadline is not None:
        text = f"cannot wait any longer: {report.cluster} is still starting; it goes on in the background"
        raise CommandFailed(text, Exit.NOT_AS_DESIRED, "svcd status shows how it goes on; svcd shutdown ends it")
    if report.state in OVER:
        return Exit.OTHER
    failed = [row.name for row in report.services if status.has_started_badly(row)]
    if failed:
        click.echo(f"svcd: not as desired: {', '.join(failed)}; the rest runs in the background", err=True)
    return Exit.NOT_AS_DESIRED if failed else Exit.OK
