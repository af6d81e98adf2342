"""What becomes of a service that ended by itself, and when it comes back (design 4.4).

Must not assert how long a delay lasts: a delay is an hour, or none, or read from what svcd says of it.
"""

from __future__ import annotations

import signal

import pytest
from stage import Stage
from traces import starts, stops, together

RISES = "waiting → starting → running"
LONG = "backoff: {initial: 1h}"


# ---- policy and codes ----


@pytest.mark.parametrize(
    ("policy", "word", "ends"),
    [
        ("on-failure", "exit 0", "completed"),
        ("on-failure", "exit 1", RISES),
        ("on-failure", "die 11", RISES),
        ("on-failure", "die 1", RISES),
        ("always", "exit 0", RISES),
        ("always", "exit 1", RISES),
        ("never", "exit 0", "completed"),
        ("never", "exit 1", "failed"),
        ("never", "die 9", "failed"),
    ],
)
def test_policy(stage: Stage, policy: str, word: str, ends: str) -> None:
    stage.up(f"a: {{PLAYER, restart: {{policy: {policy}}}}}")
    stage.say("a", word)
    stage.tells(f"a: running → {ends}")
    assert stage.row("a").restarts == (1 if ends == RISES else 0)


@pytest.mark.parametrize(("word", "ends"), [("exit 3", "completed"), ("exit 0", RISES), ("exit 4", RISES)])
def test_success_codes_say_what_success_is(stage: Stage, word: str, ends: str) -> None:
    stage.up("a: {PLAYER, restart: {success_codes: [3, 7]}}")
    stage.say("a", word)
    stage.tells(f"a: running → {ends}")


@pytest.mark.parametrize(
    ("word", "ends"), [("exit 64", "failed"), ("die 11", "failed"), ("exit 65", RISES), ("die 6", RISES)]
)
def test_prevent_codes_by_number_and_by_signal(stage: Stage, word: str, ends: str) -> None:
    stage.up("a: {PLAYER, restart: {policy: always, prevent_codes: [64, SIGSEGV]}}")
    stage.say("a", word)
    stage.tells(f"a: running → {ends}")


def test_prevented_success_is_a_success(stage: Stage) -> None:
    stage.up("a: {PLAYER, restart: {policy: always, prevent_codes: [0]}}")
    stage.say("a", "exit 0")
    stage.tells("a: running → completed")


def test_the_end_that_was_asked_for_is_none_of_the_policys_business(stage: Stage) -> None:
    stage.up(
        "a: {PLAYER 7, restart: {policy: always}}\nb: {PLAYER deaf, restart: {policy: always}, stop: {timeout: 500ms}}"
    )
    stage.does("stop", "a")
    stage.tells(stops("a"))
    stage.does("stop", "b")
    stage.tells(stops("b"))
    assert stage.row("b").cause == "stopped by request; did not stop within 0.5 s: killed"


# ---- backoff ----


def test_delays_grow_by_their_factor_up_to_their_limit(stage: Stage) -> None:
    stage.up("a: {PLAYER, restart: {reset_after: 1h, backoff: {initial: 10ms, factor: 3, max: 50ms, jitter: 0}}}")
    for _ in range(4):
        stage.say("a", "exit 1")
        stage.tells(f"a: running → backoff → {RISES}")
    delays = [cause.partition("next try in ")[2] for cause in stage.causes("a") if "next try" in cause]
    assert delays == ["10 ms", "30 ms", "50 ms", "50 ms"]


def test_a_start_clears_the_record_of_delays(stage: Stage) -> None:
    stage.up("a: {PLAYER, restart: {reset_after: 1h, backoff: {initial: 50ms, factor: 1000, max: 1h, jitter: 0}}}")
    stage.say("a", "exit 1")
    stage.tells(f"a: running → backoff → {RISES}")
    stage.say("a", "exit 1")
    stage.tells("a: running → backoff")
    assert stage.row("a").cause == "exit code 1; next try in 50 s"
    stage.does("start", "a")
    stage.say("a", "exit 1")
    stage.tells(f"a: backoff → {RISES}", f"a: running → backoff → {RISES}")


def test_a_crash_after_having_run_long_enough_is_a_first_one_and_restarts_at_once(stage: Stage) -> None:
    stage.up(f"a: {{PLAYER, restart: {{reset_after: 0s, {LONG}}}}}")
    for _ in range(3):
        stage.say("a", "exit 1")
        stage.tells(f"a: running → {RISES}")


def test_a_crash_before_that_waits_for_its_turn(stage: Stage) -> None:
    stage.up(f"a: {{PLAYER, restart: {{reset_after: 1h, {LONG}}}}}")
    stage.say("a", "exit 1")
    stage.tells("a: running → backoff")


# ---- intensity ----


def test_too_many_restarts_make_it_unavailable_and_a_start_forgives(stage: Stage) -> None:
    stage.up("a: {PLAYER, restart: {intensity: {restarts: 2, within: 1h}}}")
    for _ in range(2):
        stage.say("a", "exit 1")
        stage.tells(f"a: running → {RISES}")
    stage.say("a", "exit 1")
    stage.tells("a: running → unavailable")
    assert stage.row("a").cause == "2 restarts within 3600 s; last: exit code 1"
    assert stage.svcd("status", code=3).out
    stage.does("start", "a")
    stage.tells(f"a: unavailable → {RISES}")
    for _ in range(2):
        stage.say("a", "exit 1")
        stage.tells(f"a: running → {RISES}")
    stage.say("a", "exit 1")
    stage.tells("a: running → unavailable")
    stage.does("restart", "a")
    stage.tells(f"a: unavailable → {RISES}")


def test_no_restart_at_all_is_allowed(stage: Stage) -> None:
    stage.up("a: {PLAYER, restart: {intensity: {restarts: 0, within: 1s}}}")
    stage.say("a", "exit 1")
    stage.tells("a: running → unavailable")


def test_unlimited_means_it(stage: Stage) -> None:
    stage.up("a: {PLAYER, restart: {intensity: {restarts: unlimited}}}")
    for _ in range(12):
        stage.say("a", "exit 1")
        stage.tells(f"a: running → {RISES}")


def test_running_long_does_not_forgive_what_the_window_still_holds(stage: Stage) -> None:
    """Intensity counts in a window of its own: a slow crasher is caught, too."""
    stage.up("a: {PLAYER, restart: {reset_after: 0s, intensity: {restarts: 1, within: 1h}}}")
    stage.say("a", "exit 1")
    stage.tells(f"a: running → {RISES}")
    stage.say("a", "exit 1")
    stage.tells("a: running → unavailable")


def test_the_window_slides(stage: Stage) -> None:
    """Restarts that are further apart than the window never add up."""
    stage.up("a: {PLAYER, restart: {intensity: {restarts: 1, within: 1ms}}}")
    for _ in range(4):
        stage.say("a", "exit 1")
        stage.tells(f"a: running → {RISES}")


def test_restarts_for_the_sake_of_others_are_not_counted(stage: Stage) -> None:
    stage.up("db: {PLAYER}\napi: {PLAYER, depends_on: [db], restart: {intensity: {restarts: 0, within: 1h}}}")
    for _ in range(3):
        stage.crash("db")
        stage.tells("db: running → waiting", together(f"db: {RISES}", stops("api", to="waiting")), starts("api"))
    for _ in range(3):
        stage.does("restart", "api")
        stage.tells(f"api: running → stopping → {RISES}")
    stage.say("api", "exit 1")
    stage.tells("api: running → unavailable")


# ---- failed starts ----


def test_a_program_that_cannot_start_is_retried_and_given_up(stage: Stage) -> None:
    stage.write("#!/no/such/interpreter\n", "broken")
    (stage.directory / "broken").chmod(0o755)
    stage.up("a: {command: [./broken], start: manual, restart: {intensity: {restarts: 2, within: 1h}}}")
    outcome = stage.order("start", "a").outcome()
    assert outcome.startswith("failed: a is unavailable: 2 restarts within 3600 s; last: cannot start a: ")
    assert "broken" in outcome
    stage.tells("a: unloaded → waiting → starting" + " → waiting → starting" * 2 + " → unavailable")


def test_not_ready_in_time_is_a_crash(stage: Stage) -> None:
    stage.up(
        """
        a:
          ready: {notify: true, timeout: 50ms}
          start: manual
          restart: {intensity: {restarts: 1, within: 1h}}
        """
    )
    outcome = stage.order("start", "a").outcome()
    assert (
        outcome == "failed: a is unavailable: 1 restart within 3600 s; last: not ready within 50 ms: no READY=1 so far"
    )
    stage.tells("a: unloaded → waiting → starting → stopping → waiting → starting → stopping → unavailable")


def test_a_start_that_is_late_is_stopped_before_it_is_tried_again(stage: Stage) -> None:
    stage.up(
        """
        a:
          ready: {notify: true, timeout: 100ms}
          stop: {signal: SIGURG, timeout: 100ms}  # which nobody hears who has not asked to
          start: manual
          restart: {policy: never}
        """
    )
    said = "not ready within 0.1 s: no READY=1 so far; did not stop within 0.1 s: killed"
    assert stage.order("start", "a").outcome() == f"failed: a failed: {said}"
    stage.tells("a: unloaded → waiting → starting → stopping → failed")
    assert stage.processes("a") == []


def test_an_exit_before_ready_is_a_failed_start(stage: Stage) -> None:
    stage.up("a: {PLAYER unready, start: manual, restart: {policy: never}}")
    start = stage.order("start", "a")
    stage.say("a", "exit 3")
    assert start.outcome() == "failed: a failed: ended before it was ready: exit code 3"
    stage.tells("a: unloaded → waiting → starting → failed")


def test_death_by_signal_is_named(stage: Stage) -> None:
    stage.up("a: {restart: {policy: never}}")
    stage.crash("a", how=signal.SIGSEGV)
    stage.tells("a: running → failed")
    assert stage.row("a").cause == "signal SIGSEGV"
