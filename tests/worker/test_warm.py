"""What a rehearsal of stubs leaves behind in the fork server: nothing that a service could find."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from svcd.worker_runtime.forking import warm

LOOK = """
import faulthandler, json, os, signal, sys, threading
import svcd.worker_runtime.process
from svcd.worker_runtime import logger
logger.import_apart()

def look():
    return {
        "path": list(sys.path), "main": id(sys.modules["__main__"]), "modules": sorted(sys.modules),
        "handlers": [repr(signal.getsignal(each)) for each in sorted(signal.valid_signals())],
        "excepthook": id(threading.excepthook), "faults": faulthandler.is_enabled(),
        "stdout": sys.stdout.line_buffering, "descriptors": sorted(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(), "environ": dict(os.environ), "profile": repr(sys.getprofile()),
        "importers": sorted(sys.path_importer_cache),
        "files": [each for each in made if os.path.exists(each)],
    }

from svcd.worker_runtime.forking import warm
made, make = [], warm._make_directory
warm._make_directory = lambda: made.append(make()) or made[-1]
before = look()
warm.warm_up()
assert made
print(json.dumps([before, look()]))
"""


def test_nothing_is_left_behind() -> None:
    answer = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stderr == ""
    before, after = json.loads(answer.stdout)
    for what, found in before.items():
        assert after[what] == found, what


def test_what_was_left_by_one_that_was_killed_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "PLACE", str(tmp_path))
    stale, present, other = (tmp_path / name for name in (f"{warm.PREFIX}1", f"{warm.PREFIX}2", "other"))
    for each in (stale, present, other):
        each.mkdir()
        (each / "calls").touch()
    link = tmp_path / f"{warm.PREFIX}3"
    link.symlink_to(other)
    for each in (stale, other):
        os.utime(each, (1, 1))
    made = warm._make_directory()
    assert sorted(os.listdir(tmp_path)) == sorted(each.name for each in (present, other, link, Path(made)))
    assert (other / "calls").exists()
