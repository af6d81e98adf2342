"""Tasks with a schedule: when they run, and what happens when the run before still runs.

Must not wait for a minute of the wall clock: what cron lines mean is tests/shell/test_cron.py's.
"""

from __future__ import annotations

import time

import pytest
from stage import Stage

TASK = "type: task, schedule: {every: 100ms}"


def test_an_interval_runs_again_and_again(stage: Stage) -> None:
    stage.up("tick: {command: 'true', type: task, schedule: {every: 1h}}")
    assert stage.states()["tick"] in ("unloaded", "stopped"), "the first run is one interval after the start"
    row = stage.row("tick")
    assert row.next_run is not None
    assert abs(row.next_run - time.time() - 3600) < 60


def test_each_run_is_one_of_its_own(stage: Stage) -> None:
    stage.up(f"tick: {{command: 'true', {TASK}}}", wait=None)
    row = stage.wait_state("tick", "completed", after=3)
    assert row.restarts == 0
    assert {cause for cause in stage.causes("tick") if "schedule" in cause} == {"its scheduled time has come"}


def test_a_cron_line_says_when_it_runs_next(stage: Stage) -> None:
    stage.up("yearly: {command: 'true', type: task, schedule: '0 3 1 1 *'}")
    next_run = stage.row("yearly").next_run
    assert next_run is not None
    assert time.localtime(next_run)[1:5] == (1, 1, 3, 0)
    assert 0 < next_run - time.time() < 367 * 86400


def test_a_run_that_fails_is_tried_again_when_its_time_has_come(stage: Stage) -> None:
    stage.up(f"tick: {{command: 'false', {TASK}}}", wait=None)
    stage.wait_state("tick", "failed", after=2)


def test_a_run_is_skipped_while_the_one_before_runs(stage: Stage) -> None:
    stage.up("tick: {PLAYER, type: task, schedule: {every: 50ms}}", wait=None)
    row = stage.wait_state("tick", "running")
    stage.wait_status(lambda _: (stage.read_events(0), stage.notices("tick"))[1], "a notice")
    assert "its scheduled time has come, but the run before is" in stage.notices("tick")[0]
    stage.say("tick", "exit 0")
    stage.wait_state("tick", "running", after=row.invocation)


def test_a_run_is_queued_behind_the_one_before(stage: Stage) -> None:
    stage.up("tick: {PLAYER, type: task, schedule: {every: 50ms, overlap: queue}}", wait=None)
    row = stage.wait_state("tick", "running")
    stage.say("tick", "exit 0")
    stage.wait_state("tick", "running", after=row.invocation)
    assert stage.notices("tick") == []


def test_a_run_is_killed_by_the_next(stage: Stage) -> None:
    stage.up("tick: {type: task, schedule: {every: 100ms, overlap: kill}}", wait=None)
    row = stage.wait_state("tick", "running")
    stage.wait_state("tick", "running", after=row.invocation)
    assert "its scheduled time has come" in stage.causes("tick")


def test_what_was_stopped_by_name_does_not_say_that_it_runs(stage: Stage) -> None:
    stage.up('tick: {type: task, command: "true", schedule: "0 0 1 1 *"}')
    assert stage.row("tick").next_run is not None
    stage.does("stop", "tick")
    assert stage.row("tick").next_run is None
    stage.does("start", "tick")
    assert stage.row("tick").next_run is not None


def test_a_task_that_was_stopped_by_name_does_not_run(stage: Stage) -> None:
    stage.up(f"tick: {{command: 'true', {TASK}}}\nother: {{command: 'true', {TASK}}}", wait=None)
    stage.wait_state("tick", "completed")
    stage.does("stop", "tick")
    invocation = stage.row("tick").invocation
    stage.wait_state("other", "completed", after=(stage.row("other").invocation or 0) + 3)
    assert stage.row("tick").invocation == invocation


@pytest.mark.parametrize("overlap", ["skip", "queue", "kill"])
def test_a_shutdown_ends_schedules(stage: Stage, overlap: str) -> None:
    stage.up(f"tick: {{type: task, schedule: {{every: 100ms, overlap: {overlap}}}}}", wait=None)
    stage.wait_state("tick", "running")
    assert stage.drain() == 0
    assert [each.new for each in stage.transitions() if each.service == "tick"][-1] == "stopped"
