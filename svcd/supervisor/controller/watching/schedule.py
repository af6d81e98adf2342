"""The scheduled tasks' clockwork: cron lines by the wall clock, intervals by the monotonic one.

Must not decide what happens when a time has come (the core knows of overlaps), nor what a cron line means (``cron``).

An interval begins when its service is adopted: the first run is one interval after that. Its times are a grid from
there: what was missed, by a suspended machine say, is not made up for. The wall clock is looked at once a minute at
the least, as cron does, to notice that it was set.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from datetime import tzinfo
from typing import Final, Protocol

from cronsim import CronSimError

from svcd.record import entity
from svcd.supervisor.config.launch import Schedule, ServiceDefinition
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.watching.cron import Cron, LocalTime
from svcd.supervisor.core.events import ScheduleFired

LONGEST_WAIT_S: Final = 60.0
SHORTEST_WAIT_S: Final = 0.001
SET_S: Final = 1.0  # the wall clock has moved against the monotonic one by this: it was set


class Clock(Protocol):
    """Both clocks, and a call when some time has passed."""

    def now(self) -> float: ...
    def wall(self) -> float: ...
    def call_later(self, delay_s: float, call: Callable[[], None]) -> asyncio.TimerHandle: ...


class LoopClock:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        return clock.now()

    def wall(self) -> float:
        return clock.wall()

    def call_later(self, delay_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(delay_s, call)


@entity
class Entry:
    """``cron`` or ``every_s``. ``due``: monotonic; None: never again."""

    schedule: Schedule
    cron: Cron | None
    every_s: float
    due: float | None = None


class Schedules:
    """``submit`` gets a ``ScheduleFired`` whenever a service's time has come; ``changed`` its name and ``next_run``
    whenever that is another.
    """

    def __init__(
        self,
        time: Clock,
        submit: Callable[[ScheduleFired], None],
        changed: Callable[[str, float | None], None] = lambda service, at: None,
        zone: tzinfo | None = None,
    ) -> None:
        self._time = time
        self._submit = submit
        self._changed = changed
        self._zone = zone or LocalTime()
        self._entries: dict[str, Entry] = {}
        self._queue: list[tuple[float, str]] = []  # a heap by ``due``; what no longer agrees with its entry is void
        self._timer: asyncio.TimerHandle | None = None
        self._offset = time.wall() - time.now()

    def adopt(self, definition: ServiceDefinition) -> None:
        """Follow what this service's configuration says now; a schedule that is the same goes on as it was.

        Raises:
            ValueError: it has a cron line that does not parse
        """
        service, schedule = definition.spec.name, definition.launch.schedule
        entry = self._entries.get(service)
        if schedule == (None if entry is None else entry.schedule):
            return
        self._entries.pop(service, None)
        if schedule is not None:
            self._entries[service] = self._begin(service, schedule)
        self._changed(service, self.next_run(service))
        self._set_timer()

    def forget(self, service: str) -> None:
        if self._entries.pop(service, None) is not None:
            self._set_timer()

    def next_run(self, service: str) -> float | None:
        """Unix seconds by the wall clock as it stands."""
        entry = self._entries.get(service)
        if entry is None or entry.due is None:
            return None
        return entry.cron.next_at if entry.cron is not None else self._time.wall() + entry.due - self._time.now()

    def close(self) -> None:
        self._entries.clear()
        self._set_timer()

    def _begin(self, service: str, schedule: Schedule) -> Entry:
        if schedule.cron is None:
            entry = Entry(schedule, None, schedule.every_s or LONGEST_WAIT_S)
            self._queue_up(service, entry, self._time.now() + entry.every_s)
            return entry
        try:
            entry = Entry(schedule, Cron(schedule.cron, self._zone, self._time.wall()), 0.0)
        except (CronSimError, ValueError) as error:
            raise ValueError(f"cannot schedule {service}: {schedule.cron!r}: {error}") from None
        self._queue_cron(service, entry)
        return entry

    def _queue_up(self, service: str, entry: Entry, due: float | None) -> None:
        entry.due = due
        if due is not None:
            heapq.heappush(self._queue, (due, service))

    def _queue_cron(self, service: str, entry: Entry) -> None:
        at = entry.cron.next_at if entry.cron is not None else None
        self._queue_up(service, entry, None if at is None else at - self._time.wall() + self._time.now())

    # ---- time passes -------------------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and self._is_void(*self._queue[0]):
            heapq.heappop(self._queue)
        if self._queue:
            delay_s = self._queue[0][0] - self._time.now()
            self._timer = self._time.call_later(max(SHORTEST_WAIT_S, min(delay_s, LONGEST_WAIT_S)), self._look)

    def _is_void(self, due: float, service: str) -> bool:
        entry = self._entries.get(service)
        return entry is None or entry.due != due

    def _look(self) -> None:
        self._timer = None
        try:
            self._follow_wall_clock()
            now = self._time.now()
            while self._queue and self._queue[0][0] <= now:
                due, service = heapq.heappop(self._queue)
                if not self._is_void(due, service):
                    self._serve(service, self._entries[service], now)
        finally:
            self._set_timer()

    def _serve(self, service: str, entry: Entry, now: float) -> None:
        if entry.cron is not None:
            self._serve_cron(service, entry)
            return
        missed = (now - (entry.due or now)) // entry.every_s
        self._queue_up(service, entry, (entry.due or now) + (missed + 1) * entry.every_s)
        self._fire(service)

    def _serve_cron(self, service: str, entry: Entry) -> None:
        fires = entry.cron is not None and entry.cron.is_due(self._time.wall())
        self._queue_cron(service, entry)
        if fires:
            self._fire(service)

    def _fire(self, service: str) -> None:
        self._changed(service, self.next_run(service))
        self._submit(ScheduleFired(self._time.now(), service))

    def _follow_wall_clock(self) -> None:
        """The wall clock was set: every cron line has a look at it."""
        wall = self._time.wall()
        back_s = self._time.now() + self._offset - wall
        if abs(back_s) < SET_S:
            return
        self._offset -= back_s
        for service, entry in list(self._entries.items()):
            if entry.cron is not None:
                entry.cron.clock_set_back(wall, back_s)
                self._serve_cron(service, entry)
            self._changed(service, self.next_run(service))
