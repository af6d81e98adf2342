"""Cron lines: when they are due, over changes of local time and over clocks that are set."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSimError

from svcd.supervisor.controller.watching.cron import Cron, LocalTime

BERLIN = ZoneInfo("Europe/Berlin")  # on 2025-03-30, 02:00 is followed by 03:00; on 2025-10-26, 03:00 by 02:00


def at(text: str, zone: tzinfo = UTC, fold: int = 0) -> float:
    """Unix seconds of "2025-03-30 01:59"."""
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def runs(line: str, start: float, count: int, zone: tzinfo = UTC) -> list[str]:
    """The times of the first runs after ``start``, when each comes as it should."""
    cron, found = Cron(line, zone, start), []
    for _ in range(count):
        assert cron.next_at is not None
        now = cron.next_at
        assert not cron.is_due(now - 0.5)
        assert cron.is_due(now)
        assert not cron.is_due(now)
        moment = datetime.fromtimestamp(now, zone)
        found.append(f"{moment:%m-%d %H:%M}{' again' if moment.fold else ''}")
    return found


def after(line: str, now: float, zone: tzinfo = UTC) -> str | None:
    found = Cron(line, zone, now).next_at
    return None if found is None else f"{datetime.fromtimestamp(found, zone):%Y-%m-%d %H:%M:%S}"


@pytest.mark.parametrize(
    ("line", "first"),
    [
        ("* * * * *", "2025-01-01 00:01:00"),
        ("*/5 * * * *", "2025-01-01 00:05:00"),
        ("30 2 * * *", "2025-01-01 02:30:00"),
        ("0 0 29 2 *", "2028-02-29 00:00:00"),
        ("0 9-17/4 * * mon-fri", "2025-01-01 09:00:00"),
        ("0 0 13 * 5", "2025-01-03 00:00:00"),
    ],
)
def test_when_it_is_due(line: str, first: str) -> None:
    assert after(line, at("2025-01-01 00:00")) == first


def test_what_never_comes_is_never_due() -> None:
    cron = Cron("0 0 31 2 1", UTC, at("2025-01-01 00:00"))
    assert cron.next_at is None or cron.next_at > at("2025-01-01 00:00")
    assert not cron.is_due(at("2025-01-01 00:00"))


@pytest.mark.parametrize(
    "line", ["", "* * * *", "* * * * * *", "61 * * * *", "a b c d e", "*/0 * * * *", "5-1 * * * *"]
)
def test_what_is_no_line_is_refused(line: str) -> None:
    with pytest.raises(CronSimError):
        Cron(line, UTC, 0.0)


# ---- local time ----


def test_a_fixed_time_in_the_hour_that_is_left_out_comes_right_after_it() -> None:
    assert runs("30 2 * * *", at("2025-03-29 12:00", BERLIN), 2, BERLIN) == ["03-30 03:00", "03-31 02:30"]


def test_a_fixed_time_in_the_hour_that_comes_twice_comes_once() -> None:
    assert runs("30 2 * * *", at("2025-10-25 12:00", BERLIN), 2, BERLIN) == ["10-26 02:30", "10-27 02:30"]


def test_one_that_begins_in_the_second_of_two_equal_hours_waits_for_the_next_day() -> None:
    assert runs("30 2 * * *", at("2025-10-26 02:10", BERLIN, fold=1), 1, BERLIN) == ["10-27 02:30"]


def test_a_repeated_line_follows_real_time() -> None:
    assert runs("*/30 * * * *", at("2025-03-30 01:10", BERLIN), 3, BERLIN) == [
        "03-30 01:30",
        "03-30 03:00",
        "03-30 03:30",
    ]
    assert runs("*/30 * * * *", at("2025-10-26 01:40", BERLIN), 5, BERLIN) == [
        "10-26 02:00", "10-26 02:30", "10-26 02:00 again", "10-26 02:30 again", "10-26 03:00",
    ]  # fmt: skip


@pytest.fixture(params=["Europe/Berlin", "EST5EDT", "UTC0", "<+0545>-5:45"])
def zone_of_the_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def test_local_time_is_what_the_c_library_says(zone_of_the_machine: str) -> None:
    zone = LocalTime()
    for moment in range(int(at("2025-03-29 00:00")), int(at("2025-11-05 00:00")), 1800):
        there, known = datetime.fromtimestamp(moment, zone), time.localtime(moment)
        assert there.timestamp() == moment
        assert there.timetuple()[:6] == known[:6]
        offset = there.utcoffset()
        assert offset is not None
        assert offset.total_seconds() == known.tm_gmtoff


# ---- clocks that are set ----


def moved(line: str, before: str, to: str) -> tuple[Cron, float]:
    """A line that was served all along until the clock, at ``before``, was set ``to``; and whether it ran then."""
    old, new = at(before), at(to)
    cron = Cron(line, UTC, old)
    cron.clock_set_back(new, old - new)
    return cron, new


def next_run(cron: Cron) -> str:
    assert cron.next_at is not None
    return f"{datetime.fromtimestamp(cron.next_at, UTC):%m-%d %H:%M}"


@pytest.mark.parametrize(
    ("line", "before", "to", "runs_now", "then"),
    [
        # forward: what was missed
        ("30 2 * * *", "2025-01-01 02:00", "2025-01-01 03:00", True, "01-02 02:30"),
        ("30 2 * * *", "2025-01-01 02:00", "2025-01-01 06:00", False, "01-02 02:30"),
        ("*/5 * * * *", "2025-01-01 02:01", "2025-01-01 03:01", False, "01-01 03:05"),
        ("*/5 * * * *", "2025-01-01 02:01", "2025-01-01 03:05", True, "01-01 03:10"),
        ("* * * * *", "2025-01-01 02:00", "2025-01-01 02:04", True, "01-01 02:05"),
        ("0 0 * * *", "2025-01-01 12:00", "2030-06-01 12:00", False, "06-02 00:00"),
        # back: what has run
        ("30 2 * * *", "2025-01-01 02:40", "2025-01-01 01:40", False, "01-02 02:30"),
        ("30 2 * * *", "2025-01-01 02:10", "2025-01-01 01:10", False, "01-01 02:30"),
        ("30 2 * * *", "2025-01-01 02:40", "2024-12-31 22:40", False, "01-01 02:30"),
        ("*/5 * * * *", "2025-01-01 02:41", "2025-01-01 01:41", False, "01-01 01:45"),
        ("0 * * * *", "2025-01-01 02:41", "2025-01-01 01:41", False, "01-01 02:00"),
        ("* * * * *", "2025-01-01 02:00", "2025-01-01 01:58", False, "01-01 02:01"),
        ("0 * * * *", "2025-01-01 02:01", "2025-01-01 01:59", False, "01-01 03:00"),
    ],
)
def test_a_clock_that_is_set(line: str, before: str, to: str, runs_now: bool, then: str) -> None:
    cron, now = moved(line, before, to)
    assert (cron.is_due(now), next_run(cron)) == (runs_now, then)
    assert not cron.is_due(now), "once at the most"
