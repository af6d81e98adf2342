"""What has happened in a cluster that is over already, from the daemon's own log.

Must not talk to the daemon, nor print: it is for a console that came too late to hear of it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from svcd.protocol.messages import ClusterStateChanged, Message, NoticeGiven, ServiceTransitioned

ENDED: Final = "ended"
LAST_LINES_S: Final = 1.0  # the log is written out a moment after the daemon has said that it ends
LOOK_EVERY_S: Final = 0.02


def events_since(log: Path, mark: tuple[int, int] | None) -> list[Message]:
    """The events after ``mark`` (inode and size of the log at the start); of the whole file when it is another one."""
    deadline = time.monotonic() + LAST_LINES_S
    while True:
        found = list(_events(log, mark))
        ended = bool(found) and isinstance(found[-1], ClusterStateChanged) and found[-1].state == ENDED
        if ended or time.monotonic() > deadline:
            return found
        time.sleep(LOOK_EVERY_S)


def _events(log: Path, mark: tuple[int, int] | None) -> Iterator[Message]:
    try:
        with log.open("rb") as file:
            if mark is not None and os.fstat(file.fileno()).st_ino == mark[0]:
                file.seek(mark[1])
            lines = file.read().splitlines()
    except OSError:
        return
    for number, line in enumerate(lines, 1):
        try:
            event = _event(number, json.loads(line))
        except (ValueError, KeyError, TypeError):  # half written, or of another version
            continue
        if event is not None:
            yield event


def _event(number: int, line: dict[str, Any]) -> Message | None:
    at = float(line["at"])
    if line["event"] == "transition":
        service, old, new, cause = (str(line[key]) for key in ("service", "old", "new", "cause"))
        return ServiceTransitioned(number, at, service, line["invocation"], old, new, cause, 0.0)
    if line["event"] == "notice":
        return NoticeGiven(number, at, str(line["service"]), str(line["text"]))
    if line["event"] == "cluster":
        return ClusterStateChanged(number, at, str(line["state"]), str(line["text"]))
    return None
