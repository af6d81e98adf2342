"""What calls for a service without anybody asking by name: a connection, a schedule, a fallback's duty; and idleness.

Must not answer requests (``wishes`` does): nobody waits for these, but what waits may be overtaken by them.
"""

from __future__ import annotations

from typing import Final

from svcd.supervisor.core import events
from svcd.supervisor.core.actions import AwaitDemand, CeaseAwaitingDemand, PublishNotice
from svcd.supervisor.core.cluster import Cluster
from svcd.supervisor.core.endings import Endings
from svcd.supervisor.core.requests import Intent
from svcd.supervisor.core.spec import Overlap, StartMode
from svcd.supervisor.core.states import State
from svcd.supervisor.core.unit import DEMAND_LIMIT, Mark, Run, Unit
from svcd.supervisor.core.wishes import Wishes

DEMAND_WITHIN_S: Final = 2.0
IDLE: Final = "idle"
COVERED_NO_MORE: Final = "no longer needed as a fallback"
SCHEDULED: Final = "its scheduled time has come"
STORM: Final = (
    f"called for {DEMAND_LIMIT} times within {DEMAND_WITHIN_S:g} s, and gone again each time: not on demand any more "
    "before it is started by request"
)
ASLEEP: Final = frozenset({State.UNLOADED, State.STOPPED})
AT_REST: Final = frozenset({State.COMPLETED, State.FAILED, State.UNAVAILABLE})


class Calls:
    def __init__(self, cluster: Cluster, endings: Endings, wishes: Wishes) -> None:
        self._cluster = cluster
        self._endings = endings
        self._wishes = wishes

    # ---- demand ----

    def on_demand(self, event: events.DemandArose) -> bool:
        unit = self._cluster.units.get(event.service)
        if unit is None or not unit.listening:
            return False
        unit.listening = False
        if self._is_storm(unit):
            unit.held_back = True
            self._cluster.say(unit, STORM)
            self._cluster.out.append(PublishNotice(self._cluster.at, unit.name, STORM))
            return True
        reason = f"on demand{f': {event.text}' if event.text else ''}"
        self._wake(unit, f"demand for {unit.name}", reason)
        return True

    def _is_storm(self, unit: Unit) -> bool:
        """Whether it comes and goes without serving those who call for it, as fast as it can."""
        unit.demands.append(self._cluster.at)
        oldest = unit.demands[0]
        return len(unit.demands) == DEMAND_LIMIT and self._cluster.at - oldest < DEMAND_WITHIN_S

    def look_out(self, unit: Unit) -> None:
        """Have the shell watch for demand, or not, as things stand."""
        rests = unit.state is State.COMPLETED if unit.up else unit.state in ASLEEP
        wanted = (
            unit.spec.start is StartMode.ON_DEMAND
            and rests
            and not (unit.again or unit.held_back or unit.removed)
            and not self._cluster.is_going_down
        )
        if wanted != unit.listening:
            unit.listening = wanted
            self._cluster.changed[unit.name] = None
            self._cluster.out.append(AwaitDemand(unit.name) if wanted else CeaseAwaitingDemand(unit.name))

    def on_idle(self, unit: Unit, run: Run) -> bool:
        """Nobody uses it: down again, unless something that is up needs it."""
        if run.doomed or unit.spec.start is not StartMode.ON_DEMAND or self._wishes.is_needed(unit):
            return False
        self._cluster.begin(f"{unit.name} is {IDLE}", f"idleness of {unit.name}")
        self._cluster.requests.overtake(unit.name, Intent.STOP, f"its stop: {IDLE}", self._cluster.out)
        self._wishes.put_down(unit, IDLE)
        return True

    # ---- schedule ----

    def on_schedule(self, event: events.ScheduleFired) -> bool:
        unit = self._cluster.units.get(event.service)
        if unit is None or not unit.spec.scheduled or unit.held_back or unit.removed or self._cluster.level is not None:
            return False
        if not unit.up or unit.state in AT_REST:
            self._wake(unit, f"schedule of {unit.name}", SCHEDULED)
        elif unit.spec.overlap is Overlap.QUEUE:
            unit.queued = True
        elif unit.spec.overlap is Overlap.KILL and unit.run is not None:
            self._cluster.begin(f"schedule of {unit.name}", f"schedule of {unit.name}")
            self._endings.mark(unit, Mark.RESTART, SCHEDULED, f"{unit.name} runs again: {SCHEDULED}")
        else:
            text = f"{SCHEDULED}, but the run before is {unit.state.value}: skipped"
            self._cluster.out.append(PublishNotice(self._cluster.at, unit.name, text))
        return True

    # ---- fallback ----

    def stand_in(self, unit: Unit) -> None:
        """A unit that is somebody's fallback: up from when that one is given up until it serves again, or is not to."""
        covered = None if self._cluster.is_going_down else next(iter(unit.bereft), None)
        if covered is not None and not (unit.up or unit.held_back or unit.removed):
            unit.standing_in = True
            self._wishes.wake_for(unit, f"stands in for {covered.name} ({covered.state.value}: {covered.cause})")
        elif unit.standing_in and covered is None and not any(edge.is_borrowed for edge in unit.incoming):
            unit.standing_in = False
            if not (unit.asked or self._wishes.is_needed(unit)):
                self._cluster.requests.overtake(
                    unit.name, Intent.STOP, f"its stop: {COVERED_NO_MORE}", self._cluster.out
                )
                self._wishes.put_down(unit, COVERED_NO_MORE)

    def _wake(self, unit: Unit, cause: str, reason: str) -> None:
        self._cluster.begin(cause, cause)
        unit.asked = True
        self._wishes.wake_for(unit, reason)
