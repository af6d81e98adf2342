"""How a run is watched while it is running: its health, by thresholds, and its watchdog.

Must not check anything itself: results and signs of life come as events. How a failed run ends is for ``endings``.
"""

from __future__ import annotations

from svcd.supervisor.core import causes
from svcd.supervisor.core.actions import CeaseHealthChecks, CheckHealth, PublishNotice
from svcd.supervisor.core.cluster import Cluster
from svcd.supervisor.core.endings import Endings
from svcd.supervisor.core.events import TimerKind
from svcd.supervisor.core.spec import HealthAction, HealthPolicy
from svcd.supervisor.core.states import State
from svcd.supervisor.core.unit import Mark, Run, Unit


class Watching:
    """Each ``on_`` method returns whether the news meant anything."""

    def __init__(self, cluster: Cluster, endings: Endings) -> None:
        self._cluster = cluster
        self._endings = endings

    def begin(self, unit: Unit, run: Run) -> None:
        """From now on. What was counted before a pause counts no more."""
        run.failures = run.successes = 0
        if unit.spec.watchdog_s is not None:
            self._cluster.arm(unit, TimerKind.WATCHDOG, unit.spec.watchdog_s)
        if unit.spec.health is not None:
            self._cluster.out.append(CheckHealth(unit.name, run.invocation))

    def begin_anew(self, unit: Unit) -> None:
        """Its configuration has changed: what was found by the old one counts no more."""
        run = unit.run
        if run is not None and unit.state is State.RUNNING and not run.killed:
            self._cluster.cancel(unit, TimerKind.WATCHDOG)
            self._cluster.out.append(CeaseHealthChecks(unit.name, run.invocation))
            run.healthy, run.ailment = None, ""
            self._cluster.touch(unit)
            self.begin(unit, run)

    # ---- watchdog ----

    def on_alive(self, unit: Unit, run: Run) -> bool:
        if unit.spec.watchdog_s is None or TimerKind.WATCHDOG not in unit.timers:
            return False
        self._cluster.arm(unit, TimerKind.WATCHDOG, unit.spec.watchdog_s)
        return True

    def on_hung(self, unit: Unit, run: Run, text: str) -> bool:
        """Its watchdog ran out, or it says itself that it should be taken for dead."""
        if run.exited or run.killed:
            return False
        if run.from_outside:  # it is to end anyway, and would not hear of it
            self._cluster.cancel(unit, TimerKind.WATCHDOG)
            run.kill_text = text
            self._endings.kill_process(unit, run)
        else:
            self._endings.condemn(unit, run, Mark.HUNG, text)
        return True

    # ---- health ----

    def on_checked(self, unit: Unit, run: Run, healthy: bool, text: str) -> bool:
        """One health check: thresholds make health of it, and an unhealthy service may be a failed one."""
        policy = unit.spec.health
        if policy is None or run.doomed:
            return False
        if healthy:
            self._on_success(unit, run, policy)
        else:
            self._on_failure(unit, run, policy, text)
        return True

    def _on_success(self, unit: Unit, run: Run, policy: HealthPolicy) -> None:
        run.failures, run.successes = 0, run.successes + 1
        if run.healthy is not True and run.successes >= policy.success_threshold:
            run.ailment = ""
            self._find(unit, run, True, "healthy" if run.healthy is None else "healthy again")

    def _on_failure(self, unit: Unit, run: Run, policy: HealthPolicy, text: str) -> None:
        run.successes = 0
        if run.healthy is None and self._cluster.at < (run.running_since or 0.0) + policy.start_period_s:
            return
        run.failures += 1
        if run.failures < policy.failure_threshold or run.healthy is False:
            return
        run.ailment = f"{text} ({run.failures} times in a row)".strip() if run.failures > 1 else text
        words = causes.unhealthy_words(unit)
        self._find(unit, run, False, words)
        if policy.on_failure is HealthAction.RESTART:
            self._endings.condemn(unit, run, Mark.UNHEALTHY, words)

    def _find(self, unit: Unit, run: Run, healthy: bool, text: str) -> None:
        run.healthy = healthy
        self._cluster.touch(unit)
        self._cluster.out.append(PublishNotice(self._cluster.at, unit.name, text))
