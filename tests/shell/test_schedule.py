"""Schedules: intervals and cron lines on clocks that the test moves."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from svcd.supervisor.config.launch import LaunchSpec, Program, Schedule, ServiceDefinition
from svcd.supervisor.controller.watching.schedule import LoopClock, Schedules
from svcd.supervisor.core.events import ScheduleFired
from svcd.supervisor.core.spec import ServiceSpec

START = datetime(2025, 1, 1, tzinfo=UTC).timestamp()


class Timer:
    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due, self._call, self._cancelled = due, call, False

    def cancel(self) -> None:
        self._cancelled = True

    def fire(self) -> bool:
        if not self._cancelled:
            self._call()
        return not self._cancelled


class Clocks:
    """Time that passes only when the test says so. ``looks``: how often somebody woke up."""

    def __init__(self) -> None:
        self.monotonic, self.unix, self.looks = 1000.0, START, 0
        self._timers: list[Timer] = []

    def now(self) -> float:
        return self.monotonic

    def wall(self) -> float:
        return self.unix

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Any:
        assert delay_s > 0
        self._timers.append(Timer(self.monotonic + delay_s, call))
        return self._timers[-1]

    def passes(self, seconds: float) -> None:
        end = self.monotonic + seconds
        while due := [each for each in self._timers if each.due <= end]:
            first = min(due, key=lambda each: each.due)
            self._timers.remove(first)
            self._move_to(max(first.due, self.monotonic))
            self.looks += first.fire()
        self._move_to(end)

    def set(self, by: float) -> None:
        self.unix += by

    def sleeps(self, seconds: float) -> None:
        """The machine is suspended and nobody is woken; this monotonic clock goes on."""
        self._move_to(self.monotonic + seconds)

    def _move_to(self, moment: float) -> None:
        self.unix += moment - self.monotonic
        self.monotonic = moment


class Story:
    def __init__(self) -> None:
        self.clocks = Clocks()
        self.runs: list[tuple[str, float]] = []
        self.shown: dict[str, float | None] = {}
        self.schedules = Schedules(self.clocks, self._fired, self._changed, UTC)

    def _fired(self, event: ScheduleFired) -> None:
        self.runs.append((event.service, round(event.at - 1000.0)))

    def _changed(self, service: str, at: float | None) -> None:
        assert at == self.schedules.next_run(service)
        self.shown[service] = None if at is None else round(at - START, 3)

    def adopt(self, service: str, **schedule: Any) -> None:
        self.schedules.adopt(definition(service, Schedule(**schedule) if schedule else None))

    def told(self) -> list[tuple[str, float]]:
        runs, self.runs = self.runs, []
        return runs


def definition(service: str, schedule: Schedule | None) -> ServiceDefinition:
    return ServiceDefinition(ServiceSpec(service), LaunchSpec(Program(("true",)), "/", schedule=schedule))


@pytest.fixture
def story() -> Story:
    return Story()


def test_an_interval_begins_when_it_is_adopted(story: Story) -> None:
    story.clocks.passes(7)
    story.adopt("a", every_s=10.0)
    assert story.shown == {"a": 17.0}
    story.clocks.passes(30)
    assert story.told() == [("a", 17), ("a", 27), ("a", 37)]
    assert story.shown == {"a": 47.0}


def test_a_cron_line_goes_by_the_wall_clock(story: Story) -> None:
    story.clocks.set(30)
    story.adopt("a", cron="*/2 * * * *")
    story.clocks.passes(300)
    assert story.told() == [("a", 90), ("a", 210)]
    assert story.shown == {"a": 360.0}


def test_missed_times_are_not_made_up_for_in_a_burst(story: Story) -> None:
    story.adopt("a", every_s=10.0)
    story.adopt("b", cron="* * * * *")
    story.clocks.sleeps(100_005)
    story.clocks.passes(1)
    assert sorted(story.told()) == [("a", 100_005), ("b", 100_005)], "the present minute counts"
    story.clocks.passes(15)
    assert sorted(story.told()) == [("a", 100_010), ("a", 100_020), ("b", 100_020)]


def test_each_has_its_own_time(story: Story) -> None:
    story.adopt("a", every_s=3.0)
    story.adopt("b", every_s=5.0)
    story.clocks.passes(10)
    assert sorted(story.told(), key=lambda run: (run[1], run[0])) == [
        ("a", 3), ("b", 5), ("a", 6), ("a", 9), ("b", 10),
    ]  # fmt: skip


def test_the_same_schedule_goes_on_and_another_begins_anew(story: Story) -> None:
    story.adopt("a", every_s=10.0)
    story.clocks.passes(9)
    story.adopt("a", every_s=10.0)
    story.clocks.passes(1)
    assert story.told() == [("a", 10)]
    story.clocks.passes(5)
    story.adopt("a", every_s=7.0)
    story.clocks.passes(7)
    assert story.told() == [("a", 22)]
    story.adopt("a")
    assert story.shown == {"a": None}
    story.clocks.passes(1000)
    assert story.told() == []


def test_what_is_forgotten_does_not_run(story: Story) -> None:
    story.adopt("a", every_s=10.0)
    story.adopt("b", cron="* * * * *")
    story.schedules.forget("a")
    story.schedules.forget("b")
    story.schedules.forget("c")
    looks = story.clocks.looks
    story.clocks.passes(1000)
    assert (story.told(), story.clocks.looks) == ([], looks), "and nobody wakes for it"


def test_a_clock_set_back_by_an_hour_delays_nothing_for_long(story: Story) -> None:
    story.adopt("a", cron="*/5 * * * *")
    story.adopt("b", every_s=300.0)
    story.clocks.passes(400)
    assert sorted(story.told()) == [("a", 300), ("b", 300)]
    story.clocks.set(-3600)
    story.clocks.passes(300)
    assert sorted(story.told()) == [("a", 600), ("b", 600)]
    assert story.shown == {"a": 900.0 - 3600, "b": 900.0 - 3600}


def test_a_clock_set_forward_is_noticed_within_a_minute(story: Story) -> None:
    story.adopt("a", cron="30 2 * * *")
    story.clocks.passes(10)
    story.clocks.set(3 * 3600)
    story.clocks.passes(60)
    assert [service for service, _ in story.told()] == ["a"]
    story.clocks.passes(3600)
    assert story.told() == []


def test_a_clock_that_drifts_makes_nothing_early_or_double(story: Story) -> None:
    story.adopt("a", cron="* * * * *")
    for _ in range(3600):
        story.clocks.passes(1)
        story.clocks.set(-0.02)
    minutes = [run for _, run in story.told()]
    assert len(minutes) in (58, 59)
    assert all(later - earlier >= 60 for earlier, later in itertools.pairwise(minutes))


def test_nobody_wakes_more_often_than_once_a_minute_for_what_is_far(story: Story) -> None:
    for number in range(100):
        story.adopt(f"s{number}", cron="0 12 * * *")
    looks = story.clocks.looks
    story.clocks.passes(3600)
    assert story.clocks.looks - looks <= 61


@pytest.mark.parametrize("line", ["* * * *", "* * * * * *", "99 * * * *", ""])
def test_a_line_that_does_not_parse_is_refused(story: Story, line: str) -> None:
    with pytest.raises(ValueError, match="cannot schedule a: "):
        story.adopt("a", cron=line)
    assert story.schedules.next_run("a") is None


def test_a_run_may_end_its_own_schedule(story: Story) -> None:
    schedules = Schedules(story.clocks, lambda event: schedules.forget(event.service), zone=UTC)
    schedules.adopt(definition("a", Schedule(every_s=1.0)))
    story.clocks.passes(5)
    assert schedules.next_run("a") is None


def test_on_a_real_loop() -> None:
    async def body() -> None:
        fired: asyncio.Queue[ScheduleFired] = asyncio.Queue()
        schedules = Schedules(LoopClock(asyncio.get_running_loop()), fired.put_nowait)
        schedules.adopt(definition("a", Schedule(every_s=0.02)))
        schedules.adopt(definition("b", Schedule(cron="0 0 1 1 *")))
        async with asyncio.timeout(30):
            first, second = await fired.get(), await fired.get()
        assert (first.service, second.service) == ("a", "a")
        assert second.at - first.at >= 0.0
        schedules.close()

    asyncio.run(body())
