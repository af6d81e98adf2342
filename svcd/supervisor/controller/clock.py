"""The controller's clock: monotonic time decides, wall time is only shown.

Must not be imported by the core.
"""

from __future__ import annotations

import random
import time


def now() -> float:
    """Monotonic seconds: the time of every event."""
    return time.monotonic()


def wall(at: float | None = None) -> float:
    """Unix seconds of the monotonic moment ``at`` (default: now), by the wall clock as it stands."""
    current = time.time()
    return current if at is None else current - (time.monotonic() - at)


def jitter() -> float:
    """A number in [-1, 1] for the core to spread a backoff with."""
    return random.uniform(-1.0, 1.0)
