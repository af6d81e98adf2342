"""The controller's clock: monotonic time decides, wall time is only shown.

Must not be imported by the core.
"""

from __future__ import annotations

import random
import time
from typing import Final

SET_S: Final = 0.002  # a wall clock that has moved so far was set; the reading itself takes a moment each time
READINGS: Final = (
    100  # at the most, until one takes less than half of that: a machine may stand still in the middle of it
)
_ahead_s = 0.0  # of the monotonic clock: kept, so that one moment always has the same name


def now() -> float:
    """Monotonic seconds: the time of every event."""
    return time.monotonic()


def wall(at: float | None = None) -> float:
    """Unix seconds of the monotonic moment ``at`` (default: now), by the wall clock as it stands."""
    global _ahead_s
    ahead_s = _reading_s()
    if abs(ahead_s - _ahead_s) > SET_S:
        _ahead_s = ahead_s
    return _ahead_s + (time.monotonic() if at is None else at)


def _reading_s() -> float:
    """How far the wall clock is ahead of the monotonic one: both are read in one moment."""
    for _ in range(READINGS):
        before = time.monotonic()
        ahead_s = time.time() - before
        if time.monotonic() - before < SET_S / 2:
            break
    return ahead_s


def jitter() -> float:
    """A number in [-1, 1] for the core to spread a backoff with."""
    return random.uniform(-1.0, 1.0)
