"""The end without a guardian: every process of every run is killed, the run directory is cleared.

Must not be used while the guardian lives: in order is the core's business.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Final

from svcd.protocol.places import Places
from svcd.supervisor.controller.processes import borrowed
from svcd.supervisor.controller.processes.containment import Containment
from svcd.supervisor.controller.processes.runs import Runs

PATIENCE_S: Final = 5.0
PAUSE_S: Final = 0.01


def kill_all(kinds: Iterable[Runs], containment: Containment) -> None:
    """SIGKILL everything, again and again until nothing is left (a fork may outrun one pass) or patience ends: what was
    born without our having heard of it included.
    """
    deadline = time.monotonic() + PATIENCE_S
    everything = [(runs, run) for runs in kinds for run in runs.all()]
    marks = [run.mark for _, run in everything]
    for runs, run in everything:
        runs.kill(run.invocation)
    while containment.kill_all(marks) and time.monotonic() < deadline:
        time.sleep(PAUSE_S)  # nobody is served any more: the loop has ended
    for mark in marks:
        containment.release(mark)


def clear(places: Places, guardian_pid: int) -> None:
    """Remove what this cluster left in its run directory, and the directory if nothing else is in it.

    Nothing is touched once somebody else has the lock: the text of the lock is the pid of whoever took it last.
    """
    try:
        if int(places.lock.read_text()) != guardian_pid:
            return
    except (OSError, ValueError):
        return
    side_door = places.run_dir / "stubs" / "control"
    for path in (
        places.control,
        places.events,
        side_door,
        places.cluster_json,
        places.run_dir / "console.json",
        *(places.run_dir / borrowed.NAME / package for package in borrowed.PACKAGES),
        places.lock,
    ):
        try:
            os.unlink(path)
        except OSError:
            pass
    for directory in (side_door.parent, places.run_dir / borrowed.NAME, places.run_dir):
        try:
            os.rmdir(directory)
        except OSError:
            pass
