"""The states of a service, and which of them may follow which.

Must not decide anything: the reasons for a transition live in ``machine``.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class State(Enum):
    """Where a service stands. The order is that of a life without accidents."""

    UNLOADED = "unloaded"  # registered, not asked to run
    WAITING = "waiting"  # asked to run; waits for a requirement or for its turn
    LOADING = "loading"  # process forked, stub connecting, code being sent and imported
    LOADED = "loaded"  # code imported, not initialised
    INITIALIZED = "initialized"  # init(config) done
    STARTING = "starting"  # start() running, or readiness awaited
    RUNNING = "running"  # ready: others may use it
    PAUSED = "paused"  # keeps its state, takes no new requests
    DRAINING = "draining"  # takes no new requests, finishes those in flight
    STOPPING = "stopping"  # stop() running, or stop signal sent, or leftovers being cleared
    STOPPED = "stopped"  # ended as asked
    COMPLETED = "completed"  # ended by itself with success, and is not restarted
    BACKOFF = "backoff"  # crashed, waits for its restart
    FAILED = "failed"  # ended badly by itself, or could not start, and is not restarted
    UNAVAILABLE = "unavailable"  # restart intensity exceeded; stays down until asked


WITH_PROCESS: Final = frozenset(
    {
        State.LOADING,
        State.LOADED,
        State.INITIALIZED,
        State.STARTING,
        State.RUNNING,
        State.PAUSED,
        State.DRAINING,
        State.STOPPING,
    }
)
"""States in which a process of the service may exist."""
