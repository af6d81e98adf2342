"""From a service's block to the core's policies: restart, stop, health, pause, dependencies.

Must not look anything up: all that it needs is the block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from svcd.supervisor.config.launch import StatePolicy
from svcd.supervisor.config.layers import is_given
from svcd.supervisor.core.spec import (
    Backoff,
    Dependency,
    HealthPolicy,
    Intensity,
    OnCrash,
    PausePolicy,
    RestartMode,
    RestartPolicy,
    RunEnd,
    ServiceType,
    StopPolicy,
)

if TYPE_CHECKING:  # the daemon resolves child services with these functions, and pays for no validator
    from svcd.supervisor.config.service_source import Notes, ServiceSource
    from svcd.supervisor.config.shape import Pause, Restart, Service


def restart_policy(block: Service, notes: Notes) -> RestartPolicy:
    written = block.restart
    default = RestartMode.NEVER if block.type is ServiceType.TASK else RestartMode.ON_FAILURE
    codes = written.prevent_codes
    return RestartPolicy(
        mode=written.policy or default,
        backoff=_backoff(written, notes),
        intensity=Intensity(written.intensity.restarts, written.intensity.within),
        reset_after_s=written.reset_after,
        success_codes=frozenset(written.success_codes),
        prevent_codes=frozenset(each for each in codes if isinstance(each, int)),
        prevent_signals=frozenset(int(each.removeprefix("SIG")) for each in codes if isinstance(each, str)),
        by_cause=tuple((end, mode) for end in RunEnd if (mode := getattr(written.by_cause, end.value))),
    )


def _backoff(block: Restart, notes: Notes) -> Backoff:
    initial, longest = block.backoff.initial, block.backoff.max
    if initial > longest:
        written = block.backoff.written_keys
        if {"initial", "max"} <= written:
            loc = ("restart", "backoff", "max")
            notes.find(loc, "is shorter than initial", "make it at least as long as initial")
        initial, longest = (longest, longest) if "max" in written else (initial, initial)
    return Backoff(initial, block.backoff.factor, longest, block.backoff.jitter)


def stop_policy(block: Service) -> StopPolicy:
    written = block.stop
    return StopPolicy(written.signal, written.timeout, written.drain_timeout, written.drain_grace)


def health_policy(block: Service) -> HealthPolicy | None:
    written = block.health
    if written is None:
        return None
    return HealthPolicy(
        failure_threshold=written.failure_threshold,
        success_threshold=written.success_threshold,
        start_period_s=written.start_period,
        on_failure=written.on_failure,
    )


def pause_policy(block: Pause) -> PausePolicy:
    default = PausePolicy()
    return PausePolicy(block.signal or default.signal, block.resume_signal or default.resume_signal)


def dependencies(block: Service, names: dict[str, tuple[str, ...]]) -> tuple[Dependency, ...]:
    """The edges for the core: one to each instance. ``names``: service -> the full names of its instances."""
    edges = []
    for target, edge in block.depends_on.items():
        found = names.get(target, (target,))
        group = None if found == (target,) else target
        on_crash = edge.on_crash or OnCrash.RESTART
        edges += [Dependency(each, edge.kind, edge.condition, on_crash, group) for each in found]
    return tuple(edges)


def state_policy(source: ServiceSource, run: str | None, notes: Notes) -> StatePolicy:
    """``run``: which key says what runs. What ``defaults`` say holds where it can."""
    written = source.block.state
    if written is None or not written.keep or run == "command":
        return StatePolicy()
    if run == "script":
        if is_given(source.own, "state"):
            notes.find(("state",), "needs python: or code:, for a script exports no state", "remove it")
        return StatePolicy()
    return StatePolicy(True, written.every)
