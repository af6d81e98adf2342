"""The drain: between the order to end and the stop, requests in flight finish and no new one is taken (design 4.5).

Must not order the stop that follows it (``endings`` does), nor know routes: who may look a service up follows from its
state, and a service that drains is not running.
"""

from __future__ import annotations

from typing import Final

from svcd.supervisor.core import causes
from svcd.supervisor.core.actions import StubOrder, TellStub
from svcd.supervisor.core.cluster import Cluster
from svcd.supervisor.core.events import TimerKind
from svcd.supervisor.core.states import State
from svcd.supervisor.core.unit import Run, Unit

BEFORE_IT: Final = frozenset({State.RUNNING, State.PAUSED})


class Draining:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def is_due(self, unit: Unit, run: Run) -> bool:
        """Whether this run has requests to finish before it is told to stop. In a hurry nobody asks."""
        return run.has_endpoint and run.connected and unit.state in BEFORE_IT and not (run.frozen or run.drained)

    def begin(self, unit: Unit, run: Run) -> None:
        """The stub keeps its own time; the timer is for one that does not."""
        stop = unit.spec.stop
        self._cluster.go(unit, State.DRAINING, run.mark_text)
        self._cluster.out.append(TellStub(unit.name, run.invocation, StubOrder.DRAIN, run.mark_text))
        self._cluster.arm(unit, TimerKind.DRAIN, stop.drain_grace_s + stop.drain_timeout_s)

    def on_progress(self, unit: Unit, run: Run, in_flight: int) -> bool:
        run.in_flight = in_flight
        self._cluster.changed[unit.name] = None
        return True

    def end(self, unit: Unit, run: Run, is_overdue: bool = False) -> None:
        """All requests are finished, or out of time; what ends is told to stop next."""
        run.drained = True
        self._cluster.cancel(unit, TimerKind.DRAIN)
        if is_overdue:
            run.kill_text = self._overdue_words(unit, run)

    @staticmethod
    def _overdue_words(unit: Unit, run: Run) -> str:
        count = f"{run.in_flight} request{'' if run.in_flight == 1 else 's'}" if run.in_flight else "requests"
        return f"{count} not finished within {causes.seconds(unit.spec.stop.drain_timeout_s)}"
