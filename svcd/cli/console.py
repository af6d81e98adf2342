"""What a person sees while ``svcd start`` runs in the foreground: progress, then output, then the drain.

Must not matter: it may be slow, closed or killed, and nobody else notices. Run by the guardian as
``python -m svcd.cli.console JSON``; SIGINT is the guardian's, so Ctrl-C is shown here and acted on there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from svcd.cli import text
from svcd.cli.client import Client
from svcd.cli.failures import Failure
from svcd.cli.following import Follower
from svcd.protocol.messages import (
    ClusterStateChanged,
    ExceptionRecorded,
    GetStatus,
    Message,
    NoticeGiven,
    ServiceStatus,
    ServiceTransitioned,
    StatusReported,
)

TICK_S: Final = 0.1
PATIENCE_S: Final = 15.0
SETTLED: Final = frozenset({"running", "completed", "stopped", "unloaded", "failed", "unavailable"})
QUIET: Final = frozenset({"loading", "loaded", "initialized"})
SHOWN_ROWS: Final = 12
OWN: Final = "svcd"
SIZES: Final = "console.json"


class Console:
    """Follows one cluster until it has ended. ``sizes``: of the log files, before this run began to write to them."""

    def __init__(self, client: Client, state_dir: Path, sizes: dict[str, int]) -> None:
        self._client = client
        self._sizes = sizes
        self._sequence = 0
        self._state_dir = state_dir
        self._rows: dict[str, ServiceStatus] = {}
        self._followers: list[tuple[str, Follower]] = []
        self._open: dict[tuple[str, int], bytes] = {}
        self._colours: dict[str, str] = {}
        self._width = len(OWN)
        self._state = "starting"
        self._live = Live() if text.is_terminal() else None

    def run(self) -> None:
        """Until the stream says that the cluster has ended, or nobody is there any more."""
        self._client.subscribe()
        report = self._snapshot()
        self._meet(report)
        silent_since = time.monotonic()
        while self._state != "ended":
            event = self._client.next_event(TICK_S)
            while event is not None:
                silent_since = time.monotonic()
                self._take(event)
                event = self._client.next_event(0.0)
            self._pour()
            self._draw()
            if time.monotonic() - silent_since > PATIENCE_S and os.getppid() == 1:
                break
        self._pour()
        self._erase()
        self._say(f"cluster {report.cluster}: ended")

    def _snapshot(self) -> StatusReported:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._client.ask(GetStatus(), StatusReported, 1.0)
            except Failure:
                if time.monotonic() > deadline:
                    raise

    def _meet(self, report: StatusReported) -> None:
        self._rows = {row.name: row for row in report.services}
        self._state = report.state
        self._sequence = report.sequence
        self._width = max([len(OWN), *map(len, self._rows)])
        for at, name in enumerate(self._rows):
            self._colours[name] = text.STREAM_COLOURS[at % len(text.STREAM_COLOURS)]
            for stream in ("stdout", "stderr"):
                path = self._state_dir / "logs" / name / f"{stream}.log"
                self._followers.append((name, Follower(path, self._sizes.get(str(path), 0))))
        self._say(f"cluster {report.cluster}: {len(self._rows)} services, svcd is pid {report.pid}; Ctrl-C drains")
        for row in report.services:
            if row.state not in ("unloaded", "waiting"):
                self._say(f"{row.name}: {row.state}" + (f": {row.cause}" if row.cause else ""))

    # ---- events ----------------------------------------------------------------------------------------------------

    def _take(self, event: Message) -> None:
        """Show what is newer than the snapshot that we began with."""
        if getattr(event, "sequence", 0) <= self._sequence:
            return
        if isinstance(event, ServiceTransitioned):
            self._transition(event)
        elif isinstance(event, NoticeGiven):
            self._say(f"{event.service}: {event.text}" if event.service else event.text)
        elif isinstance(event, ExceptionRecorded):
            self._say(f"{event.exception.service}: {event.exception.type}: {event.exception.message}")
        elif isinstance(event, ClusterStateChanged):
            self._state = event.state
            if event.state == "stopping":
                self._say("stopping everything in reverse order; Ctrl-C again shortens every stop to a second")
            elif event.state == "running":
                self._summary()

    def _transition(self, event: ServiceTransitioned) -> None:
        import dataclasses  # noqa: PLC0415

        row = self._rows.get(event.service)
        if row is not None:
            self._rows[event.service] = dataclasses.replace(row, state=event.new, cause=event.cause, since=event.at)
        if event.new in QUIET or (event.old in ("unloaded", *QUIET) and event.new in ("waiting", "starting")):
            return
        took = f" ({event.spent_s:.1f} s)" if event.spent_s >= 0.05 and event.new in ("running", "stopped") else ""
        self._pour()
        self._say(f"{event.service}: {event.old} → {event.new}: {event.cause}{took}", event.new)

    def _summary(self) -> None:
        bad = [row.name for row in self._rows.values() if row.state in ("failed", "unavailable", "waiting", "backoff")]
        up = sum(row.state in ("running", "completed") for row in self._rows.values())
        self._say(f"{up} of {len(self._rows)} services are up" + (f"; not up: {', '.join(bad)}" if bad else ""))

    # ---- output ------------------------------------------------------------------------------------------------------

    def _pour(self) -> None:
        """Whole lines of what the services have printed since."""
        for at, (name, follower) in enumerate(self._followers):
            for data in follower.read():
                *whole, rest = (self._open.pop((name, at), b"") + data).split(b"\n")
                for line in whole:
                    self._line(name, line.decode("utf-8", "replace"), self._colours[name])
                if rest:
                    self._open[name, at] = rest

    def _say(self, words: str, state: str | None = None) -> None:
        self._line(OWN, text.paint(words, text.STATE_COLOURS.get(state or ""), text.is_terminal()), None)

    def _line(self, name: str, words: str, colour: str | None) -> None:
        self._erase()
        prefix = text.paint(f"{name:<{self._width}} |", colour, text.is_terminal())
        sys.stdout.write(f"{prefix} {words}\n")

    def _draw(self) -> None:
        if self._live is not None:
            on_the_way = [row for row in self._rows.values() if row.state not in SETTLED]
            self._live.show(on_the_way if self._state in ("starting", "stopping") else ())
        sys.stdout.flush()

    def _erase(self) -> None:
        if self._live is not None:
            self._live.erase()


class Live:
    """The last lines of the terminal: one for each service that is on its way, with what it waits for and how long."""

    def __init__(self) -> None:
        self._shown = 0

    def show(self, rows: Iterable[ServiceStatus]) -> None:
        self.erase()
        found = list(rows)
        width = max(20, os.get_terminal_size().columns - 1)
        now = time.time()
        lines = [f"  {row.name} {row.state} {now - row.since:.0f} s: {row.cause}"[:width] for row in found[:SHOWN_ROWS]]
        if len(found) > SHOWN_ROWS:
            lines.append(f"  … and {len(found) - SHOWN_ROWS} more")
        for line in lines:
            sys.stdout.write(text.paint(line, "yellow", True) + "\n")
        self._shown = len(lines)

    def erase(self) -> None:
        if self._shown:
            sys.stdout.write(f"\x1b[{self._shown}A\x1b[J")
            self._shown = 0


def _sizes_before(run_dir: Path) -> dict[str, int]:
    """What ``svcd start`` has written down of the log files that were there already."""
    try:
        sizes = json.loads((run_dir / SIZES).read_bytes())
    except (OSError, ValueError):
        return {}
    return sizes if isinstance(sizes, dict) else {}


def main() -> None:
    given = json.loads(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Client(Path(given["run_dir"])) as client:
            Console(client, Path(given["state_dir"]), _sizes_before(Path(given["run_dir"]))).run()
        sys.stdout.flush()
    except (OSError, ValueError, Failure):  # the terminal is gone, or the daemon: nobody is left to tell
        os._exit(0)


if __name__ == "__main__":
    main()
