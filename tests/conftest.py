"""Fixtures for every test: nobody leaves a process or a descriptor behind.

Must not know svcd: what is needed to run whole clusters is in e2e/.
"""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

PATIENCE_S = 30.0  # only ever waited for when something is still there
PAUSE_S = 0.02

# How long an example takes, or its making, says something of the machine alone: one that stalls for a moment breaks the
# rule of 200 ms for each, and that of a second for the first ten.
settings.register_profile("svcd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("svcd")


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """A shell starts what it puts into the background with SIGINT ignored, which all that we start would inherit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What was collected is no garbage: those who look for some, after each test, need not walk thousands of tests."""
    gc.collect()
    gc.freeze()


def open_descriptors() -> dict[int, str]:
    """Descriptor -> what it is, of this process."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the listing's own
            pass
    return found


def child_processes() -> dict[int, str]:
    """Pid -> command of this process' children, zombies included."""
    found = {}
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            pids = listing.read_text().split()
        except OSError:
            continue
        for pid in pids:
            try:
                found[int(pid)] = Path(f"/proc/{pid}/stat").read_text()[:80]
            except OSError:
                pass
    return found


def _new(before: dict[int, str], now: dict[int, str]) -> dict[int, str]:
    return {key: value for key, value in now.items() if before.get(key) != value}


def _new_descriptors(before: dict[int, str]) -> dict[int, str]:
    return _new(before, open_descriptors())


def _new_children(before: dict[int, str]) -> dict[int, str]:
    return {pid: text for pid, text in child_processes().items() if pid not in before}


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Fails a test after which this process has more open descriptors or children than before it."""
    descriptors, children = open_descriptors(), child_processes()
    yield
    deadline = time.monotonic() + PATIENCE_S
    while (left := _new_descriptors(descriptors)) or (alive := _new_children(children)):
        gc.collect()
        if time.monotonic() > deadline:
            alive = _new_children(children)
            pytest.fail(f"left behind: descriptors {left}, processes {alive}", pytrace=False)
        time.sleep(PAUSE_S)
