"""The words: why a service stands where it stands, why a request failed.

Must not decide anything, nor walk further than a few steps: a cause is read at a glance.
"""

from __future__ import annotations

from typing import Final

from svcd.supervisor.core import restart
from svcd.supervisor.core.events import ExitStatus
from svcd.supervisor.core.restart import Ending
from svcd.supervisor.core.spec import Condition, Intensity, ReadyKind, RestartPolicy, Runner
from svcd.supervisor.core.states import State
from svcd.supervisor.core.unit import CONDEMNED, Edge, Mark, Run, Unit

CHAIN_LENGTH: Final = 32  # links that are followed for those who ask for all
CHAIN_LIMIT: Final = 4  # links of a chain of causes that are spelled out

# POSIX and Linux numbers; the real-time ones have no names of their own
SIGNAL_NAMES: Final = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    5: "SIGTRAP",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    10: "SIGUSR1",
    11: "SIGSEGV",
    12: "SIGUSR2",
    13: "SIGPIPE",
    14: "SIGALRM",
    15: "SIGTERM",
    16: "SIGSTKFLT",
    18: "SIGCONT",
    24: "SIGXCPU",
    25: "SIGXFSZ",
    29: "SIGIO",
    30: "SIGPWR",
    31: "SIGSYS",
}


def seconds(value: float) -> str:
    if 0 < value < 0.1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.1f}".removesuffix(".0") + " s"


def exit_words(status: ExitStatus | None) -> str:
    if status is None:
        return "no exit status"
    if status.signal is not None:
        return f"signal {SIGNAL_NAMES.get(status.signal, status.signal)}"
    return f"exit code {status.code}"


def end_words(unit: Unit, run: Run) -> str:
    """Why a run that nobody asked to end has ended, or ends."""
    said = run.error or (run.mark_text if run.mark in CONDEMNED else "")
    return with_remarks(said or run.kill_text or exit_words(run.status), run)


def forbidding_words(policy: RestartPolicy, ending: Ending) -> str:
    """The rule by which there is no restart after this end."""
    status = ending.status
    if status is not None and restart.prevents_restart(policy, ending):
        what = status.code if status.signal is None else SIGNAL_NAMES.get(status.signal, status.signal)
        return f"restart.prevent_codes has {what}"
    if any(each is ending.end for each, _ in policy.by_cause):
        return f"restart.by_cause.{ending.end.value} is never"
    return "restart.policy is never"


def stopped_words(unit: Unit, run: Run) -> str:
    return with_remarks(unit.down_text, run)


def with_remarks(words: str, run: Run) -> str:
    """``words``, and what went wrong on the way down: a hook that failed, a stop that took too long."""
    return "; ".join(dict.fromkeys((words, *run.remarks, *filter(None, [run.kill_text]))))


def killed_words(timeout_s: float) -> str:
    return f"did not stop within {seconds(timeout_s)}: killed"


def intensity_words(intensity: Intensity, last: str) -> str:
    count = intensity.restarts
    return f"{count} restart{'' if count == 1 else 's'} within {seconds(intensity.within_s)}; last: {last}"


def backoff_words(unit: Unit, ended: str) -> str:
    return f"{ended}; next try in {seconds(unit.delay_s)}"


# ---- readiness ----

_AWAITED: Final = {
    ReadyKind.DELAY: "for its delay to pass",
    ReadyKind.NOTIFY: "no READY=1 so far",
    ReadyKind.NOTIFICATION_FD: "no newline on its notification descriptor so far",
    ReadyKind.LOG: "no line of its output fits so far",
}
"""What is missing where the probe has no tries of its own."""

_PHASES: Final = {
    State.LOADING: "its code has not been imported",
    State.LOADED: "init() has not ended",
    State.INITIALIZED: "start() has not begun",
    State.STARTING: "start() has not ended",
}


def _obstacle(unit: Unit, run: Run) -> str:
    """Why it is not ready."""
    if run.awaiting or unit.spec.runner is not Runner.PYTHON:
        return run.obstacle or _AWAITED.get(unit.spec.ready, "the first try has not ended")
    return _PHASES.get(unit.state, "")


def readiness_words(unit: Unit, run: Run) -> str:
    """What a run waits for that has started, and is not ready yet."""
    known = run.obstacle or _AWAITED.get(unit.spec.ready)
    return f"waits for its readiness: {known}" if known else "waits for its readiness"


def overdue_words(unit: Unit, run: Run) -> str:
    obstacle = _obstacle(unit, run)
    words = f"not ready within {seconds(unit.spec.ready_timeout_s)}"
    return f"{words}: {obstacle}" if obstacle else words


# ---- waiting ----


def standing(unit: Unit) -> str:
    """How a dependency stands, for the one that waits for it."""
    if unit.state is State.BACKOFF:
        return f"backoff, next try in {seconds(unit.delay_s)}"
    if unit.state in (State.FAILED, State.UNAVAILABLE):
        return f"{unit.state.value}: {unit.cause}"
    if unit.run is None and not unit.up and unit.state is not State.COMPLETED:
        return unit.down_text
    if unit.stuck:
        return f"waiting; {_needs(unit, 1)}"
    if unit.doomed and unit.state is not State.STOPPING:
        return f"{unit.state.value}, about to stop"
    return str(unit.state.value)


def waiting_words(unit: Unit) -> str:
    """What a unit with blockers waits for. What is lost is named before what only takes its time."""
    edge = next(iter(unit.dead or unit.blockers))
    return f"for {edge.target.name} ({_standing_for(edge)})"


def _standing_for(edge: Edge) -> str:
    """How a dependency stands, for this dependent: one that runs may be not what it needs."""
    target = edge.target
    if edge.needs_completion or edge.spec.condition is not Condition.HEALTHY or not target.serving:
        return standing(target)
    return f"running, {unhealthy_words(target) if target.healthy is False else 'not found healthy yet'}"


def unhealthy_words(unit: Unit) -> str:
    return f"unhealthy: {unit.ailment}" if unit.ailment else "unhealthy"


def turn_words(max_parallel: int) -> str:
    return f"for its turn (max_parallel {max_parallel})"


def _fate(unit: Unit) -> str:
    if unit.state is State.FAILED:
        return f"which failed ({unit.cause})"
    if unit.state is State.UNAVAILABLE:
        return f"which is unavailable ({unit.cause})"
    if unit.state is State.COMPLETED:
        return "which has completed"
    if not unit.up:
        return f"which is down ({unit.down_text})"
    return f"which is {unit.state.value}"


def _needs(unit: Unit, depth: int) -> str:
    """ "requires b, which requires c, which failed (...)" """
    edge: Edge = next(iter(unit.dead))
    target = edge.target
    if not target.stuck:
        return f"requires {target.name}, {_fate(target)}"
    if depth >= CHAIN_LIMIT:
        return f"requires {target.name}, which cannot start"
    return f"requires {target.name}, which {_needs(target, depth + 1)}"


def stuck_words(unit: Unit) -> str:
    """Why a start of this unit failed though it did not fail itself."""
    return f"cannot start {unit.name}: {_needs(unit, 1)}"


def failed_words(unit: Unit) -> str:
    """Why a start of this unit failed that ended ``failed`` or ``unavailable``."""
    if unit.cause.startswith("cannot start"):
        return unit.cause
    verb = "is unavailable" if unit.state is State.UNAVAILABLE else "failed"
    return f"{unit.name} {verb}: {unit.cause}"


def chain(unit: Unit) -> list[Unit]:
    """The unit, and what its standing comes from, link by link."""
    links = [unit]
    while len(links) < CHAIN_LENGTH:
        following = _comes_from(links[-1])
        if following is None or following in links:
            break
        links.append(following)
    return links


def _comes_from(unit: Unit) -> Unit | None:
    run = unit.run
    if (unit.state is State.WAITING or (run is not None and run.held)) and unit.up and unit.blockers:
        edge = next(iter(unit.dead or unit.blockers))
        return edge.target
    if run is not None and run.from_outside and not run.told and unit.holders:
        return next((edge.dependent for edge in unit.incoming if edge.holds), None)
    if run is not None and run.mark is Mark.DEPENDENCY:
        return next(
            (edge.target for edge in unit.outgoing if edge.hard and edge.target.state is not State.RUNNING), None
        )
    return None
