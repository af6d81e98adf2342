"""Health checks: who is unhealthy restarts, or is only reported; who must be healthy is waited for.

Must not test each kind of probe, nor the watchdog: their own files do. A service is healthy while `NAME.ok` exists.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from clusters import wait_until
from stage import Stage
from traces import starts, stops, together

RISES = "waiting → starting → running"


def check(name: str, **more: str) -> str:
    """The health of ``name``: looked at again and again, at once unhealthy, at once healthy again."""
    settings = {"interval": "20ms", "timeout": "1m", "failure_threshold": "1"} | more
    return f"health: {{exec: [test, -e, {name}.ok], {', '.join(f'{key}: {value}' for key, value in settings.items())}}}"


def healthy(stage: Stage, name: str) -> Path:
    path = stage.directory / f"{name}.ok"
    path.touch()
    return path


def wait_healthy(stage: Stage, name: str, wanted: bool) -> None:
    stage.wait_status(lambda _: stage.row(name).healthy is wanted, f"{name} to be {'' if wanted else 'un'}healthy")


def test_who_must_be_healthy_is_waited_for(stage: Stage) -> None:
    stage.up(
        f"""
        db: {{start: manual, {check("db", on_failure="report")}}}
        api: {{start: manual, depends_on: {{db: {{condition: healthy}}}}}}
        other: {{start: manual, depends_on: [db]}}
        """
    )
    asked = stage.order("start", "api", "other")
    stage.tells(
        together("db: unloaded → waiting", "api: unloaded → waiting", "other: unloaded → waiting"),
        starts("db", "other"),
    )
    wait_healthy(stage, "db", False)
    assert stage.row("api").state == "waiting"
    assert "db" in stage.row("api").cause
    healthy(stage, "db")
    assert asked.outcome() == "done"
    stage.tells(starts("api"))


def test_who_is_unhealthy_restarts_and_its_dependents_with_it(stage: Stage) -> None:
    path = healthy(stage, "db")
    stage.up(f"db: {{PLAYER lingers, {check('db')}}}\napi: {{depends_on: [db]}}")
    wait_healthy(stage, "db", True)
    path.unlink()
    stage.tells(together("db: running → stopping", stops("api", to="waiting")))
    healthy(stage, "db")
    stage.say("db", "exit 0")
    stage.tells(f"db: stopping → {RISES}", starts("api"))
    assert stage.row("db").restarts == 1
    assert any("health" in cause for cause in stage.causes("db"))


def test_who_is_only_reported_stays(stage: Stage) -> None:
    path = healthy(stage, "db")
    stage.up(f"db: {{{check('db', on_failure='report')}}}\napi: {{depends_on: [db]}}")
    wait_healthy(stage, "db", True)
    path.unlink()
    wait_healthy(stage, "db", False)
    healthy(stage, "db")
    wait_healthy(stage, "db", True)
    stage.tells()
    assert len([text for text in stage.notices("db") if "healthy" in text]) >= 2


def test_what_a_check_prints_is_shown_while_it_finds_fault(stage: Stage) -> None:
    stage.write("test -e fine && exit 0; echo 12 jobs are stuck; echo since noon >&2; exit 1\n", "check.sh")
    check = "exec: [sh, check.sh], interval: 10ms, timeout: 1m, failure_threshold: 1, on_failure: report"
    stage.up(f"db: {{health: {{{check}}}}}")
    wait_healthy(stage, "db", False)
    out = stage.svcd("status", "db").out
    assert "  its check printed:\n    12 jobs are stuck\n    since noon\n" in out
    (stage.directory / "fine").touch()
    wait_healthy(stage, "db", True)
    assert "its check printed" not in stage.svcd("status", "db").out


def test_what_a_readiness_command_prints_is_shown_while_it_waits(stage: Stage) -> None:
    stage.write("echo no table yet; exit 1\n", "check.sh")
    stage.up("db: {ready: {exec: [sh, check.sh], interval: 10ms}}", wait=None)
    stage.wait_status(lambda _: stage.row("db").check_output == ("no table yet",), "its words")


def test_failures_below_the_threshold_are_nothing(stage: Stage) -> None:
    """The check counts its own failures: after two it succeeds, and three would have been too many."""
    stage.write("date >> looks; test $(wc -l < looks) -ne 2 -a $(wc -l < looks) -ne 3\n", "check.sh")
    stage.up("db: {health: {exec: [sh, check.sh], interval: 10ms, timeout: 1m, failure_threshold: 3}}")
    looks = stage.directory / "looks"
    stage.wait_status(lambda _: looks.exists() and len(looks.read_text().splitlines()) > 5, "some looks")
    stage.tells()


def test_and_at_the_threshold_they_are_enough(stage: Stage) -> None:
    stage.write("date >> looks; test $(wc -l < looks) -ne 2 -a $(wc -l < looks) -ne 3\n", "check.sh")
    health = "health: {exec: [sh, check.sh], interval: 10ms, timeout: 1m, failure_threshold: 2}"
    stage.up(f"db: {{start: manual, {health}}}")
    stage.does("start", "db")
    stage.tells(f"db: unloaded → {RISES}", f"db: running → stopping → {RISES}")
    assert len([cause for cause in stage.causes("db") if "health" in cause]) >= 1


def test_a_start_period_forgives(stage: Stage) -> None:
    stage.up(f"db: {{{check('db', start_period='1h')}}}")
    healthy(stage, "db")
    wait_healthy(stage, "db", True)
    stage.tells()


def test_a_health_failure_in_the_middle_of_a_restart_is_that_restarts_own(stage: Stage) -> None:
    path = healthy(stage, "db")
    stage.up(f"db: {{PLAYER lingers, {check('db')}}}")
    wait_healthy(stage, "db", True)
    restart = stage.order("restart", "db")
    stage.tells("db: running → stopping")
    path.unlink()
    stage.say("db", "notify STATUS=unhealthy now")
    healthy(stage, "db")
    stage.say("db", "exit 0")
    assert restart.outcome() == "done"
    stage.tells(f"db: stopping → {RISES}")
    assert stage.row("db").restarts == 0


def test_a_restart_in_the_middle_of_a_health_failure_is_one_restart(stage: Stage) -> None:
    path = healthy(stage, "db")
    stage.up(f"db: {{PLAYER lingers, {check('db')}}}")
    wait_healthy(stage, "db", True)
    path.unlink()
    stage.tells("db: running → stopping")
    restart = stage.order("restart", "db")
    healthy(stage, "db")
    stage.say("db", "exit 0")
    assert restart.outcome() == "done"
    stage.tells(f"db: stopping → {RISES}")


def test_a_stop_in_the_middle_of_a_health_failure_wins(stage: Stage) -> None:
    path = healthy(stage, "db")
    stage.up(f"db: {{PLAYER lingers, {check('db')}}}")
    wait_healthy(stage, "db", True)
    path.unlink()
    stage.tells("db: running → stopping")
    stop = stage.order("stop", "db")
    stage.say("db", "exit 0")
    assert stop.outcome() == "done"
    stage.tells("db: stopping → stopped")


@pytest.mark.parametrize("policy", ["never", "on-failure"])
def test_the_restart_policy_has_its_say(stage: Stage, policy: str) -> None:
    path = healthy(stage, "db")
    stage.up(f"db: {{PLAYER lingers, restart: {{policy: {policy}}}, {check('db')}}}")
    wait_healthy(stage, "db", True)
    path.unlink()
    stage.tells("db: running → stopping")
    healthy(stage, "db")  # before the next one is looked at, which would be restarted as well
    stage.say("db", "exit 0")
    stage.tells("db: stopping → failed" if policy == "never" else f"db: stopping → {RISES}")
    assert stage.row("db").restarts == (policy == "on-failure")


def test_a_check_that_hangs_is_a_failure_and_delays_nobody(stage: Stage) -> None:
    stage.up(
        """
        db: {PLAYER lingers, health: {exec: sleep 1000, interval: 20ms, timeout: 50ms, failure_threshold: 1}}
        other: {}
        """,
        wait=None,
    )
    stage.wait_state("db", "stopping")
    stage.does("restart", "other")
    assert "db" not in stage.does("stop", "other").also
    wait_until(lambda: stage.processes("db") == [stage.pid_of("db")], "the check to be gone")
