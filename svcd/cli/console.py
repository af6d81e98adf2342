"""What a person sees while ``svcd start`` runs in the foreground: progress, then output, then the drain.

Must not matter to anybody: it may be slow, closed or killed. Started by the guardian as
``python -m svcd.cli.console JSON``; signals are the guardian's, so Ctrl-C is shown here and acted on there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from svcd.cli import columns
from svcd.cli.client import Client
from svcd.cli.exits import CommandFailed
from svcd.cli.following import STREAMS, Followers, Watcher, begin_following, directories, follow_from, read_marks
from svcd.cli.logs import pour_news
from svcd.cli.output import Form, Output, json_line, write_all
from svcd.cli.status import has_started_badly, is_as_desired
from svcd.protocol.messages import (
    ClusterStateChanged,
    GetStatus,
    Message,
    NoticeGiven,
    ServiceStatus,
    ServiceTransitioned,
    StatusReported,
)
from svcd.protocol.rotation import follow_from_end
from svcd.record import as_dict, replace

if TYPE_CHECKING:
    from svcd.cli.live import LiveView

OWN: Final = "svcd"
FORMAT_VARIABLE: Final = "SVCD_CONSOLE_FORMAT"
FIRST_PATIENCE_S: Final = 60.0
PATIENCE_S: Final = 5.0
LOOK_EVERY_S: Final = 1.0  # while the live view is up: causes change without a transition
REDRAW_EVERY_S: Final = 0.125

UNSAID: Final = frozenset({"loading", "loaded", "initialized", "starting"})
SETTLED: Final = frozenset({"unloaded", "running", "paused", "stopped", "completed", "failed", "unavailable"})
IGNORED_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTOU)


class Console:
    """Follows one cluster until it has ended, or its guardian is gone."""

    def __init__(self, client: Client, state_dir: Path, as_json: bool) -> None:
        self._client = client
        self._state_dir = state_dir
        self._as_json = as_json
        self._rows: dict[str, ServiceStatus] = {}
        self._said: dict[str, str] = {}  # service -> the last state that was told
        self._began: dict[str, float] = {}  # service -> when its present start began
        self._state = "starting"
        self._sequence = 0
        self._look_at: float | None = None
        self._pieces: list[bytes] = []
        self._followers: Followers = {}
        self._live: LiveView | None = None
        self._output = Output(self._pieces.append, Form.NAMED, ())

    def run(self) -> None:
        self._client.subscribe(FIRST_PATIENCE_S)
        report = self._client.ask(GetStatus(), StatusReported, FIRST_PATIENCE_S)
        self._meet(report)
        logs = self._state_dir / "logs"
        names = dict.fromkeys([*self._rows, *directories(logs)])  # who is gone may come back
        with Watcher(logs, names, joins=lambda name: True) as watcher:
            self._client.watch(watcher.fd)
            self._client.watch_reader(sys.stdout.fileno())
            self._open_followers(names)
            try:
                self._serve(watcher)
            finally:
                if self._live is not None:
                    self._live.hide()
                for each in self._followers.values():
                    for _, follower in each:
                        follower.close()

    def _serve(self, watcher: Watcher) -> None:
        busy = frozenset(self._followers)
        gone = False
        while self._client.has_reader(sys.stdout.fileno()):
            busy = pour_news(busy, watcher, self._join, self._followers, self._output)
            self._take_events()
            self._look_again()
            self._draw()
            if not busy and (gone or self._state == "ended"):
                break
            gone = self._client.is_gone()
            if gone and self._state != "ended":
                self._client.wait_last_events()
            elif not (busy or gone):
                self._client.wait(self._patience_s(watcher))
        else:
            raise BrokenPipeError("nobody reads this any more")
        self._output.end_all()
        self._tell(OWN, "ended" if self._state == "ended" else "gone without a word: see svcd.log", None)
        self._flush()

    def _patience_s(self, watcher: Watcher) -> float | None:
        wanted = [watcher.patience_s]
        if self._look_at is not None:
            wanted.append(max(0.0, self._look_at - time.monotonic()))
        if self._live is not None and self._is_moving():
            wanted.append(REDRAW_EVERY_S)
        return min((each for each in wanted if each is not None), default=None)

    # ---- the beginning -----------------------------------------------------------------------------------------------

    def _meet(self, report: StatusReported) -> None:
        self._output = Output(
            self._pieces.append,
            Form.JSON if self._as_json else Form.NAMED,
            [OWN, *(row.name for row in report.services)],
        )
        if columns.is_terminal() and not self._as_json:
            from svcd.cli.live import LiveView  # noqa: PLC0415 - rich is for terminals alone

            self._live = LiveView()
        self._rows = {row.name: row for row in report.services}
        self._state, self._sequence = report.state, report.sequence
        count = len(self._rows)
        text = f"cluster {report.cluster}: {count} service{'' if count == 1 else 's'}, svcd is pid {report.pid}"
        self._tell(OWN, text, None)
        for row in report.services:
            self._say_state(row.name, "unloaded", row.state, row.cause, row.since, None)
        if self._state == "running":
            self._say_summary()
        elif self._state in ("stopping", "ended") and report.cause:  # it was told before we were there
            self._tell(OWN, report.cause, "yellow")
        self._look_at = self._next_look()

    def _open_followers(self, names: Iterable[str]) -> None:
        marks = read_marks(self._state_dir)
        for name in names:
            self._followers[name] = []
            for stream in STREAMS:
                path = self._state_dir / "logs" / name / f"{stream}.log"
                follower = follow_from_end(path) if marks is None else follow_from(path, marks.get(f"{name}/{stream}"))
                self._followers[name].append((stream, follower))

    def _join(self, name: str) -> None:
        """Somebody who has come later."""
        self._output.meet(name)
        begin_following(self._followers, self._state_dir / "logs", name)

    # ---- what comes in -----------------------------------------------------------------------------------------------

    def _take_events(self) -> None:
        while (event := self._client.next_event()) is not None:
            number: int = getattr(event, "sequence", 0)
            if self._as_json:  # a look tells people what has come of it, but a program is owed each event
                self._pieces.append(json_line({"event": type(event).__name__, **as_dict(event)}))
            if number > self._sequence + 1:
                self._look()  # tells what was missed, and as a rule what this one speaks of
            if number > self._sequence:
                self._sequence = number
                self._take(event)
            elif isinstance(event, NoticeGiven):  # all but this a look tells
                self._take(event)

    def _take(self, event: Message) -> None:
        if isinstance(event, ServiceTransitioned):
            row = self._rows.get(event.service)
            if row is None:
                self._look_at = time.monotonic()  # it has joined the cluster: what it is, a look tells
                return
            self._rows[event.service] = replace(row, state=event.new, cause=event.cause, since=event.at)
            self._say_state(event.service, event.old, event.new, event.cause, event.at, event.spent_s)
        elif isinstance(event, NoticeGiven):
            self._tell(OWN, f"{event.service}: {event.text}" if event.service else event.text, "yellow")
        elif isinstance(event, ClusterStateChanged):
            self._enter(event.state)

    def _look_again(self) -> None:
        """Look when something may have been missed."""
        if self._look_at is not None and time.monotonic() >= self._look_at:
            self._look()

    def _look(self) -> None:
        """Ask for the status and tell what has changed."""
        if self._client.is_gone():
            return
        try:
            report = self._client.ask(GetStatus(), StatusReported, PATIENCE_S)
        except CommandFailed:
            self._look_at = time.monotonic() + PATIENCE_S
            return
        before, self._rows = self._rows, {row.name: row for row in report.services}
        for row in report.services:
            known = before.get(row.name)
            old = "unloaded" if known is None else known.state
            if old != row.state:
                self._say_state(row.name, old, row.state, row.cause, row.since, None)
        self._sequence = max(self._sequence, report.sequence)
        self._enter(report.state)
        self._look_at = self._next_look()

    def _next_look(self) -> float | None:
        is_watched = self._live is not None and self._is_moving()
        return time.monotonic() + LOOK_EVERY_S if is_watched else None

    # ---- what is said ------------------------------------------------------------------------------------------------

    def _tell(self, name: str, text: str, colour: str | None) -> None:
        if not self._as_json:
            self._output.say(name, text, colour)

    def _say_state(self, name: str, old: str, new: str, cause: str, at: float, spent_s: float | None) -> None:
        """One line for a change that means something to people."""
        if old in SETTLED | {"waiting", "backoff"} and new not in SETTLED | {"waiting", "backoff"}:
            self._began[name] = at
        if new in UNSAID or new == "unloaded" or (new == "waiting" and old == "unloaded"):
            return
        before = self._said.get(name)
        self._said[name] = new
        words = [f"{name}: {before} → {new}" if before and before != new else f"{name}: {new}"]
        if new == "running":
            took_s = at - self._began.pop(name, at)  # once: a resume is no start
            words.append(f"after {columns.duration(took_s)}" if took_s >= 0.05 else "")
            text = " ".join(filter(None, words))
        else:
            text = f"{words[0]}: {cause}" if cause else words[0]
        self._tell(OWN, text, columns.STATE_COLOURS.get(new))

    def _enter(self, state: str) -> None:
        if state == self._state:
            return
        self._state = state
        if state == "running":
            self._say_summary()
        elif state == "stopping":
            self._tell(
                OWN, "stopping everything in reverse order; Ctrl-C again shortens every stop to one second", "yellow"
            )
        self._look_at = time.monotonic() + LOOK_EVERY_S

    def _say_summary(self) -> None:
        wanted = [row for row in self._rows.values() if row.desired == "up"]
        bad = [row.name for row in wanted if has_started_badly(row)]
        if bad:
            self._tell(OWN, f"{len(wanted) - len(bad)} of {len(wanted)} are up; not up: {', '.join(bad)}", "red")
        else:
            self._tell(OWN, "everything is up; Ctrl-C drains", "green")

    # ---- the terminal ------------------------------------------------------------------------------------------------

    def _is_moving(self) -> bool:
        return self._state in ("starting", "stopping") and any(map(_is_on_its_way, self._rows.values()))

    def _draw(self) -> None:
        if self._live is None:
            self._flush()
            return
        if self._pieces or not self._is_moving():
            self._live.hide()
            self._flush()
        if self._is_moving():
            from svcd.cli.live import Moving  # noqa: PLC0415 - see above

            now = time.time()
            moving = [row for row in self._rows.values() if _is_on_its_way(row)]
            self._live.show(
                self._progress(len(moving)), [Moving(row.name, row.state, row.cause, now - row.since) for row in moving]
            )

    def _progress(self, moving: int) -> str:
        """What is not asked to be up, or has failed, is not up, however settled it is."""
        if self._state == "starting":
            wanted = [row for row in self._rows.values() if row.desired == "up"]
            return f"starting: {sum(map(is_as_desired, wanted))} of {len(wanted)} up"
        return f"{self._state}: {len(self._rows) - moving} of {len(self._rows)} down"

    def _flush(self) -> None:
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            write_all(sys.stdout.fileno(), data)


def _is_on_its_way(row: ServiceStatus) -> bool:
    return row.state not in SETTLED


def main() -> None:
    """Until the cluster has ended. Whatever happens here, nobody else is to notice."""
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    given: dict[str, Any] = json.loads(sys.argv[1])
    as_json = os.environ.get(FORMAT_VARIABLE) == "json"
    try:
        guardian_fd = given.get("guardian_fd")
        with Client(Path(given["run_dir"]), os.getppid(), "show the cluster", guardian_fd) as client:
            Console(client, Path(given["state_dir"]), as_json).run()
    except (OSError, CommandFailed):  # the terminal is gone, or the daemon: there is nobody to tell, or nothing
        os._exit(0)


if __name__ == "__main__":
    main()
