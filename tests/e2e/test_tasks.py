"""Tasks run to completion, and hold those who need their result (design 4.3, `type: task`).

Must not test schedules.
"""

from __future__ import annotations

import pytest
from stage import Stage
from traces import starts, stops, then, together

RISES = "waiting → starting → running"
WAIT = then("migrate: unloaded → waiting", "api: unloaded → waiting")
MIGRATION = """
    migrate: {type: task, PLAYER, start: manual}
    api: {depends_on: {migrate: {condition: completed}}, start: manual}
"""


@pytest.mark.parametrize("edge", ["[migrate]", "{migrate: {condition: completed}}"])
def test_a_task_holds_its_dependents_until_it_has_completed(stage: Stage, edge: str) -> None:
    stage.up(f"migrate: {{type: task, PLAYER, start: manual}}\napi: {{depends_on: {edge}, start: manual}}")
    start = stage.order("start", "api")
    stage.tells(WAIT, starts("migrate"))
    assert stage.row("api").cause == "for migrate (running)"
    stage.say("migrate", "exit 0")
    stage.tells("migrate: running → completed", starts("api"))
    assert start.outcome() == "done"
    stage.drains(stops("api"))


def test_a_task_that_fails_keeps_its_dependents_down_and_says_so(stage: Stage) -> None:
    stage.up(MIGRATION)
    start = stage.order("start", "api")
    stage.say("migrate", "exit 2")
    assert start.outcome() == "failed: cannot start api: requires migrate, which failed (exit code 2)"
    stage.tells(
        "migrate: unloaded → waiting", "api: unloaded → waiting", starts("migrate"), "migrate: running → failed"
    )
    assert stage.row("api").cause == "for migrate (failed: exit code 2)"


def test_once_it_succeeds_they_come_up(stage: Stage) -> None:
    stage.up(MIGRATION)
    failed = stage.order("start", "api")
    stage.say("migrate", "exit 2")
    assert failed.outcome().startswith("failed")
    stage.skip()
    again = stage.order("start", "migrate")
    stage.tells(f"migrate: failed → {RISES}")
    stage.say("migrate", "exit 0")
    assert again.outcome() == "done"
    stage.tells("migrate: running → completed", starts("api"))


def test_running_it_again_leaves_its_dependents_up(stage: Stage) -> None:
    stage.up(MIGRATION)
    start = stage.order("start", "api")
    stage.say("migrate", "exit 0")
    assert start.outcome() == "done"
    stage.skip()
    again = stage.order("start", "migrate")
    stage.tells(f"migrate: completed → {RISES}")
    stage.say("migrate", "exit 0")
    assert again.outcome() == "done"
    stage.tells("migrate: running → completed")
    assert stage.row("api").state == "running"


def test_a_dependents_restart_does_not_run_it_again(stage: Stage) -> None:
    stage.up(MIGRATION)
    start = stage.order("start", "api")
    stage.say("migrate", "exit 0")
    assert start.outcome() == "done"
    stage.skip()
    stage.does("restart", "api")
    stage.tells(f"api: running → stopping → {RISES}")


def test_a_task_that_is_told_to_try_again_does(stage: Stage) -> None:
    stage.up(MIGRATION.replace("PLAYER", "PLAYER, restart: {policy: on-failure}"))
    start = stage.order("start", "api")
    stage.say("migrate", "exit 1")
    stage.tells(
        "migrate: unloaded → waiting", "api: unloaded → waiting", starts("migrate"), f"migrate: running → {RISES}"
    )
    stage.say("migrate", "exit 0")
    assert start.outcome() == "done"
    stage.tells("migrate: running → completed", starts("api"))


def test_a_stop_ends_a_running_task_without_success(stage: Stage) -> None:
    stage.up(MIGRATION)
    start = stage.order("start", "api")
    stage.tells(WAIT, starts("migrate"))
    stage.does("stop", "migrate")
    assert start.outcome() == "failed: cannot start api: requires migrate, which is down (stopped by request)"
    stage.tells(stops("migrate"))


def test_a_cluster_of_tasks_alone_is_as_desired_when_all_are_done(stage: Stage) -> None:
    stage.up("one: {type: task, command: 'true'}\ntwo: {type: task, command: 'true', depends_on: [one]}")
    stage.wait_state("two", "completed")
    assert stage.svcd("status").code == 0
    stage.skip()
    stage.drains()


def test_a_chain_of_tasks_runs_in_order(stage: Stage) -> None:
    stage.up(
        """
        one: {type: task, command: 'true', start: manual}
        two: {type: task, command: 'true', start: manual, depends_on: [one]}
        three: {type: task, command: 'true', start: manual, depends_on: [two]}
        """
    )
    stage.does("start", "three")
    waits = then(*(f"{name}: unloaded → waiting" for name in ("one", "two", "three")))
    stage.tells(waits, *(f"{name}: {RISES} → completed" for name in ("one", "two", "three")))


def test_half_a_fan_in_of_tasks_is_not_enough(stage: Stage) -> None:
    stage.up(
        """
        left: {type: task, PLAYER, start: manual}
        right: {type: task, PLAYER, start: manual}
        api: {start: manual, depends_on: [left, right]}
        """
    )
    start = stage.order("start", "api")
    stage.say("left", "exit 0")
    stage.wait_state("left", "completed")
    assert stage.row("api").cause.startswith("for right (")
    stage.say("right", "exit 0")
    assert start.outcome() == "done"
    stage.tells(
        together("left: unloaded → waiting", "right: unloaded → waiting", "api: unloaded → waiting"),
        together("left: waiting → starting → running → completed", "right: waiting → starting → running → completed"),
        starts("api"),
    )
