"""The restart policy: what becomes of a service that ended by itself, and when it may come back.

Must not know services or timers: pure functions of a policy, a record and the end that happened.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from svcd.record import entity, field, record
from svcd.supervisor.core.events import ExitStatus
from svcd.supervisor.core.spec import Backoff, Intensity, RestartMode, RestartPolicy, RunEnd


class Fate(Enum):
    """What follows the end of a run that nobody asked for."""

    COMPLETE = "complete"
    FAIL = "fail"
    GIVE_UP = "give up"  # restart intensity exceeded
    RESTART = "restart"


@entity
class RestartRecord:
    """The automatic restarts so far. ``attempt`` is the n of the next backoff."""

    attempt: int = 0
    times: deque[float] = field(default_factory=deque)

    def clear(self) -> None:
        self.attempt = 0
        self.times.clear()


@record
class Ending:
    """How a run ended by itself.

    ``at_fault``: it is a failure whatever the exit code (a failed start, an announced error). ``ours``: the last blow
    was svcd's own, so that the status says nothing about the service. ``ran_s``: seconds in ``running``, or None.
    ``end``: what kind of end it was, for ``RestartPolicy.by_cause``.
    """

    at: float
    status: ExitStatus | None = None
    at_fault: bool = False
    ours: bool = False
    ran_s: float | None = None
    is_task: bool = False
    end: RunEnd = RunEnd.EXIT


@record
class Verdict:
    fate: Fate
    delay_s: float = 0.0


def mode_for(policy: RestartPolicy, end: RunEnd) -> RestartMode:
    """What the policy says about an end of this kind."""
    return next((mode for each, mode in policy.by_cause if each is end), policy.mode)


def succeeded(policy: RestartPolicy, ending: Ending) -> bool:
    if ending.at_fault or ending.ours or ending.status is None or ending.status.code is None:
        return False
    return ending.status.code in policy.success_codes


def prevents_restart(policy: RestartPolicy, ending: Ending) -> bool:
    status = ending.status
    if ending.ours or status is None:
        return False
    return status.code in policy.prevent_codes or status.signal in policy.prevent_signals


def completes(policy: RestartPolicy, ending: Ending) -> bool:
    """Whether this end is a success that is not followed by a restart."""
    if not succeeded(policy, ending):
        return False
    return ending.is_task or mode_for(policy, ending.end) is not RestartMode.ALWAYS or prevents_restart(policy, ending)


def exceeds(intensity: Intensity, record: RestartRecord, at: float) -> bool:
    """Whether one more restart at ``at`` would be one too many in the window that ends there."""
    if intensity.restarts is None:
        return False
    while record.times and record.times[0] <= at - intensity.within_s:
        record.times.popleft()
    return len(record.times) >= intensity.restarts


def backoff_delay_s(backoff: Backoff, attempt: int, jitter: float) -> float:
    """The delay before restart number ``attempt`` (from 0) in a row, spread by ``jitter`` in [-1, 1]."""
    try:
        delay_s = min(backoff.initial_s * backoff.factor**attempt, backoff.max_s)
    except OverflowError:
        delay_s = backoff.max_s if backoff.initial_s > 0 else 0.0
    return max(0.0, delay_s * (1 + backoff.jitter * jitter))


def decide(policy: RestartPolicy, record: RestartRecord, ending: Ending, jitter: float) -> Verdict:
    """What follows this end. Moves the record's ``attempt`` on; the restart itself is entered by ``note_restart``."""
    if completes(policy, ending):
        return Verdict(Fate.COMPLETE)
    if mode_for(policy, ending.end) is RestartMode.NEVER or prevents_restart(policy, ending):
        return Verdict(Fate.FAIL)
    if exceeds(policy.intensity, record, ending.at):
        return Verdict(Fate.GIVE_UP)
    if ending.ran_s is not None and ending.ran_s >= policy.reset_after_s:
        record.attempt = 0
        return Verdict(Fate.RESTART)
    delay_s = backoff_delay_s(policy.backoff, record.attempt, jitter)
    record.attempt += 1
    return Verdict(Fate.RESTART, delay_s)


def note_restart(policy: RestartPolicy, record: RestartRecord, at: float) -> None:
    """A restart happens now: it counts from here, not from the crash, so that a window never holds too many."""
    if policy.intensity.restarts is not None:
        record.times.append(at)
