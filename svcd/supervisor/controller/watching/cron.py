"""When a cron line is due, as cron(8) of Debian (Vixie cron) means it; told the time, it asks no clock.

Must not run or wait for anything.

The line has five fields and is in local time. Daylight saving, which moves the local time and no clock, is
``cronsim``'s part: a run at a fixed hour that is skipped is made up for right after the gap, one that comes twice runs
once; lines with a ``*`` in front of the minute or the hour follow real time.

A clock that is set is ours:

- Forward, by less than three hours: a run at a fixed hour that was skipped is made up for, once; a line with a ``*``
  goes on with the new time. Delays of less than five minutes are no setting: one run is made up for, however many times
  were missed.
- Back, by less than three hours: what runs at a fixed hour does not run again in the time that is repeated; a line with
  a ``*`` goes on with the new time at once. Less than five minutes back, nothing runs again.
- By three hours or more, either way: the new time holds, as at a start.

Nothing is ever made up for by more than one run.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from cronsim import CronSim, CronSimError

SETTING_S: Final = 5 * 60.0  # less than this is drift, delay or a correction
CORRECTION_S: Final = 3 * 3600.0  # as much as this is another time altogether
MINUTE_S: Final = 60.0
FIELDS: Final = 5


class LocalTime(tzinfo):
    """The zone of this machine, or of TZ: as the C library, and so ``date``, has it."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        if moment is None:
            return None
        naive = moment.replace(tzinfo=None)
        return naive - datetime.fromtimestamp(naive.timestamp(), UTC).replace(tzinfo=None)

    def dst(self, moment: datetime | None) -> timedelta | None:
        return None

    def tzname(self, moment: datetime | None) -> str | None:
        return None if moment is None else moment.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, moment: datetime) -> datetime:
        return datetime.fromtimestamp(moment.replace(tzinfo=UTC).timestamp()).replace(tzinfo=self)


class Cron:
    """One line. All times are Unix seconds. ``next_at``: when it is due; None: never again."""

    def __init__(self, line: str, zone: tzinfo, now: float) -> None:
        """Raises ``cronsim.CronSimError`` for what is no cron line of five fields."""
        if len(line.split()) != FIELDS:
            raise CronSimError("it has to have five fields")
        minute, hour, *_ = line.split()
        self._line = line
        self._zone = zone
        self._follows_clock = minute.startswith("*") or hour.startswith("*")
        self.next_at = self._first_after(now)

    def is_due(self, now: float) -> bool:
        """Whether it has to run now, once. Ask when ``next_at`` has come, and when the clock was set."""
        if self.next_at is None or now < self.next_at:
            return False
        late = now - self.next_at
        if late < SETTING_S or (late < CORRECTION_S and not self._follows_clock):
            self.next_at = self._first_after(now)
            return True
        minute = now - now % MINUTE_S  # what was missed is not made up for; the present minute counts
        due = self._first_after(minute - 1)
        self.next_at = self._first_after(now)
        return due == minute

    def clock_set_back(self, now: float, by_s: float) -> None:
        """The clock, which would have been at ``now + by_s``, is at ``now``."""
        if by_s >= CORRECTION_S or (by_s >= SETTING_S and self._follows_clock):
            self.next_at = self._first_after(now)

    def _first_after(self, moment: float) -> float | None:
        simulated = CronSim(self._line, datetime.fromtimestamp(moment, self._zone))
        for found in simulated:
            if found.timestamp() > moment:  # cronsim may name the first of two equal hours in the second one
                return found.timestamp()
        return None
