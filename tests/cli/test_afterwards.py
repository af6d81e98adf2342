"""What a console tells of a cluster that was over before it could ask: from the daemon's log, and from this start on.

Must not need a daemon: there is none any more.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from svcd.cli import afterwards
from svcd.protocol.messages import ClusterStateChanged, NoticeGiven, ServiceTransitioned

BEFORE = {"at": 1.0, "event": "cluster", "state": "ended", "text": ""}
LINES: list[dict[str, Any]] = [
    {
        "at": 2.0,
        "event": "transition",
        "service": "a",
        "invocation": 1,
        "old": "running",
        "new": "failed",
        "cause": "c",
    },
    {"at": 3.0, "event": "notice", "service": "", "text": "essential service a failed"},
    {"at": 3.5, "event": "exception raised", "service": "a"},
    {"at": 4.0, "event": "cluster", "state": "ended", "text": ""},
]


def written(path: Path, *lines: dict[str, Any] | str) -> tuple[int, int]:
    """Appends them; the mark after them."""
    with path.open("a") as file:
        file.writelines(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in lines)
    found = os.stat(path)
    return found.st_ino, found.st_size


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "svcd.log"


def test_what_came_after_the_mark_is_told(log: Path) -> None:
    mark = written(log, BEFORE)
    written(log, *LINES)
    found = afterwards.events_since(log, mark)
    assert [type(each) for each in found] == [ServiceTransitioned, NoticeGiven, ClusterStateChanged]
    assert found[0] == ServiceTransitioned(1, 2.0, "a", 1, "running", "failed", "c", 0.0)


def test_a_first_start_has_no_mark_and_a_rotated_log_another_file(log: Path) -> None:
    inode, size = written(log, *LINES)
    assert len(afterwards.events_since(log, None)) == 3
    assert len(afterwards.events_since(log, (inode + 1, size))) == 3


@pytest.mark.parametrize("bad", ["{", "[]", '{"event": "transition"}', '{"at": "x", "event": "cluster"}', "\udcff"])
def test_lines_that_make_no_sense_are_passed_over(log: Path, bad: str) -> None:
    with log.open("wb") as file:
        file.write(bad.encode("utf-8", "surrogateescape") + b"\n")
    written(log, *LINES)
    assert len(afterwards.events_since(log, None)) == 3


def test_no_log_tells_nothing(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(afterwards, "LAST_LINES_S", 0.0)
    assert afterwards.events_since(log, None) == []
