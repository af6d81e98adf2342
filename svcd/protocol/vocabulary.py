"""The words that messages carry where a closed set is meant.

Must not import the supervisor, which has these as enums; a test holds the two together.
"""

from __future__ import annotations

from typing import Final

STATES: Final = (
    "unloaded",
    "waiting",
    "loading",
    "loaded",
    "initialized",
    "starting",
    "running",
    "paused",
    "draining",
    "stopping",
    "stopped",
    "completed",
    "backoff",
    "failed",
    "unavailable",
)
"""States of a service, in the order of a life without accidents."""

STUB_STATES: Final = ("loaded", "initialized", "starting", "running", "paused", "leaving", "drained", "stopping")
"""What a stub reports in ``StateChanged``."""

EXCEPTION_PHASES: Final = ("load", "init", "import", "start", "run", "pause", "resume", "export", "stop")
"""``ExceptionRaised.phase``."""

OUTCOMES: Final = ("done", "failed", "superseded", "refused")
"""How a request ended, for one service or for the whole. A whole one that is refused is a ``RequestRefused``."""

CLUSTER_STATES: Final = ("starting", "running", "stopping", "ended")

APPLY_MODES: Final = ("all", "register", "update")
"""``ApplyConfiguration.mode``."""

STEP_VERBS: Final = ("start", "stop", "restart", "update", "add", "remove")
"""``Step.verb``."""

DESIRED: Final = ("up", "down")

STREAMS: Final = ("stdout", "stderr")
