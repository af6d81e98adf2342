"""What people ask for: the latest intent wins, everyone who waits is answered, exactly one invocation or none remains.

Must not test how commands look: tests/cli does.
"""

from __future__ import annotations

import pytest
from stage import Stage
from traces import starts, stops, together

RISES = "waiting → starting → running"
LONG = "restart: {reset_after: 1h, backoff: {initial: 1h}}"


# ---- start and stop, and whom they take along ----


def test_a_stop_says_whom_it_takes_along_and_stops_them_first(stage: Stage) -> None:
    stage.up("db: {}\napi: {depends_on: [db]}\nweb: {depends_on: [api]}")
    assert stage.does("stop", "db").also == ("web", "api")
    stage.tells(stops("web", "api", to="waiting"), stops("db"))
    assert stage.row("api").cause == "for db (stopped by request)"
    assert stage.row("web").cause == "for api (waiting; requires db, which is down (stopped by request))"
    stage.does("start", "db")
    stage.tells(f"db: stopped → {RISES}", starts("api", "web"))


def test_who_was_stopped_by_name_does_not_come_back(stage: Stage) -> None:
    stage.up("db: {}\napi: {depends_on: [db]}\nweb: {depends_on: [db]}")
    assert stage.does("stop", "db", "api").also == ("web",)
    stage.tells(together(stops("api"), stops("web", to="waiting")), stops("db"))
    stage.does("start", "db")
    stage.tells(f"db: stopped → {RISES}", starts("web"))


def test_a_start_starts_what_is_required_and_nothing_else(stage: Stage) -> None:
    stage.up(
        """
        db: {start: manual}
        cache: {start: manual}
        metrics: {start: manual}
        api: {start: manual, depends_on: {db: {}, cache: {kind: wants}, metrics: {kind: after}}}
        other: {start: manual, depends_on: [db]}
        """
    )
    assert sorted(stage.does("start", "api").also) == ["cache", "db"]
    stage.tells(
        together("db: unloaded → waiting", "cache: unloaded → waiting", "api: unloaded → waiting"),
        together(starts("db"), starts("cache")),
        starts("api"),
    )
    assert stage.states() | {"other": "unloaded", "metrics": "unloaded"} == stage.states()


def test_a_start_of_what_is_up_and_a_stop_of_what_is_down_are_done_at_once(stage: Stage) -> None:
    stage.up("a: {}\nb: {start: manual}")
    stage.does("start", "a")
    stage.tells()
    stage.does("stop", "b")
    stage.tells("b: unloaded → stopped")
    stage.does("stop", "b")
    stage.tells()


def test_commands_on_different_services_never_wait_for_each_other(stage: Stage) -> None:
    stage.up("slow: {PLAYER lingers}\nquick: {}")
    slow = stage.order("stop", "slow")
    stage.does("stop", "quick")
    stage.does("start", "quick")
    stage.tells("slow: running → stopping", f"quick: running → stopping → stopped → {RISES}")
    stage.say("slow", "exit 0")
    assert slow.outcome() == "done"
    stage.tells("slow: stopping → stopped")


# ---- the same service, twice ----


def test_two_starts_join(stage: Stage) -> None:
    stage.up("a: {PLAYER unready, start: manual}")
    first, second = stage.order("start", "a"), stage.order("start", "a")
    stage.say("a", "ready")
    assert (first.outcome(), second.outcome()) == ("done", "done")
    stage.tells(f"a: unloaded → {RISES}")


def test_two_stops_join(stage: Stage) -> None:
    stage.up("a: {PLAYER lingers}")
    first, second = stage.order("stop", "a"), stage.order("stop", "a")
    stage.say("a", "exit 0")
    assert (first.outcome(), second.outcome()) == ("done", "done")
    stage.tells(stops("a"))


def test_twenty_restarts_at_once_are_one(stage: Stage) -> None:
    stage.up("a: {PLAYER lingers}")
    orders = [stage.order("restart", "a") for _ in range(20)]
    stage.say("a", "exit 0")
    outcomes = [order.outcome() for order in orders]
    assert outcomes == ["superseded: superseded by a restart of a"] * 19 + ["done"]
    stage.tells(f"a: running → stopping → {RISES}")
    assert stage.row("a").restarts == 0


def test_restarts_that_overtake_each_other_anywhere_leave_one_invocation(stage: Stage) -> None:
    stage.up("a: {PLAYER}")
    orders = [stage.order("restart", "a") for _ in range(20)]
    outcomes = [order.outcome() for order in orders]
    assert outcomes[-1] == "done"
    assert set(outcomes[:-1]) <= {"done", "superseded: superseded by a restart of a"}
    assert stage.states() == {"a": "running"}
    assert len(stage.processes("a")) == 1


def test_twenty_restarts_of_what_cannot_come_back_all_end(stage: Stage) -> None:
    stage.up(
        "a: {command: 'test ! -e broken || exit 4; echo up; exec sleep 1000', ready: {log: up}, "
        "restart: {policy: never}}"
    )
    stage.write("", "broken")
    orders = [stage.order("restart", "a") for _ in range(20)]
    failed = "failed: a failed: ended before it was ready: exit code 4"
    outcomes = [order.outcome() for order in orders]
    assert outcomes[-1] == failed
    assert set(outcomes[:-1]) <= {"superseded: superseded by a restart of a", failed}
    assert stage.processes("a") == []


# ---- a stop in each half of a restart, in a backoff, while waiting ----


def test_a_stop_in_the_first_half_of_a_restart(stage: Stage) -> None:
    stage.up("a: {PLAYER lingers}")
    restart = stage.order("restart", "a")
    stage.tells("a: running → stopping")
    stop = stage.order("stop", "a")
    assert restart.outcome() == "superseded: superseded by a stop of a"
    stage.say("a", "exit 0")
    assert stop.outcome() == "done"
    stage.tells("a: stopping → stopped")


def test_a_stop_in_the_second_half_of_a_restart(stage: Stage) -> None:
    stage.up("a: {PLAYER unready}", wait=None)
    stage.say("a", "ready")
    stage.wait_state("a", "running")
    stage.skip()
    restart = stage.order("restart", "a")
    stage.tells("a: running → stopping → waiting → starting")
    stop = stage.order("stop", "a")
    assert restart.outcome() == "superseded: superseded by a stop of a"
    assert stop.outcome() == "done"
    stage.tells("a: starting → stopping → stopped")


def test_a_stop_in_a_backoff(stage: Stage) -> None:
    stage.up(f"a: {{{LONG}}}")
    stage.crash("a")
    stage.tells("a: running → backoff")
    stage.does("stop", "a")
    stage.tells("a: backoff → stopped")


def test_a_stop_in_a_backoff_overtakes_the_start_that_waits_through_it(stage: Stage) -> None:
    stage.up(f"a: {{PLAYER unready, start: manual, {LONG}}}")
    start = stage.order("start", "a")
    stage.say("a", "exit 1")
    stage.tells("a: unloaded → waiting → starting → backoff")
    stage.does("stop", "a")
    assert start.outcome() == "superseded: superseded by a stop of a"
    stage.tells("a: backoff → stopped")


def test_a_start_in_a_backoff_tries_again_at_once(stage: Stage) -> None:
    stage.up(f"a: {{{LONG}}}")
    stage.crash("a")
    stage.tells("a: running → backoff")
    stage.does("start", "a")
    stage.tells(f"a: backoff → {RISES}")


def test_a_stop_while_waiting_for_a_dependency(stage: Stage) -> None:
    stage.up("db: {PLAYER unready, start: manual}\napi: {start: manual, depends_on: [db]}")
    start = stage.order("start", "api")
    stage.tells(together("db: unloaded → waiting → starting", "api: unloaded → waiting"))
    stage.does("stop", "api")
    assert start.outcome() == "superseded: superseded by a stop of api"
    stage.say("db", "ready")
    stage.tells("api: waiting → stopped", "db: starting → running")


def test_a_stop_of_the_dependency_leaves_the_waiting_dependent_waiting(stage: Stage) -> None:
    stage.up("db: {PLAYER unready, start: manual}\napi: {start: manual, depends_on: [db]}")
    start = stage.order("start", "api")
    stage.tells(together("db: unloaded → waiting → starting", "api: unloaded → waiting"))
    stage.does("stop", "db")
    assert start.outcome() == "failed: cannot start api: requires db, which is down (stopped by request)"
    stage.tells("db: starting → stopping → stopped")


# ---- a start, late ----


def test_a_start_overtakes_a_stop_that_is_on_its_way(stage: Stage) -> None:
    stage.up("a: {PLAYER lingers}")
    stop = stage.order("stop", "a")
    stage.tells("a: running → stopping")
    start = stage.order("start", "a")
    assert stop.outcome() == "superseded: superseded by a start of a"
    stage.say("a", "exit 0")
    assert start.outcome() == "done"
    stage.tells(f"a: stopping → {RISES}")


def test_a_start_of_a_dependent_while_its_dependency_stops(stage: Stage) -> None:
    stage.up("db: {PLAYER lingers}\napi: {start: manual, depends_on: [db]}")
    stop = stage.order("stop", "db")
    stage.tells("db: running → stopping")
    start = stage.order("start", "api")
    assert stop.outcome() == "superseded: superseded by a start of api"
    stage.tells("api: unloaded → waiting")
    assert stage.row("api").cause == "for db (stopping)"
    stage.say("db", "exit 0")
    assert start.outcome() == "done"
    stage.tells(f"db: stopping → {RISES}", starts("api"))


def test_a_start_that_cannot_succeed_says_why(stage: Stage) -> None:
    stage.up(
        """
        db: {command: exit 9, ready: {delay: 1h}, restart: {policy: never}, start: manual}
        api: {start: manual, depends_on: [db]}
        web: {start: manual, depends_on: [api]}
        """
    )
    outcome = stage.order("start", "web").outcome()
    why = "requires api, which requires db, which failed (ended before it was ready: exit code 9)"
    assert outcome == f"failed: cannot start web: {why}"
    done = stage.svcd("start", "web", code=3)
    assert (done.out, done.err) == ("also starts: db\n", f"svcd: cannot start web: {why}\n")


def test_waiting_no_longer_undoes_nothing(stage: Stage) -> None:
    stage.up("a: {PLAYER lingers}")
    done = stage.svcd("stop", "--timeout", "100ms", "a", code=3)
    assert "what was asked stays in force" in done.err
    stage.tells("a: running → stopping")
    stage.say("a", "exit 0")
    stage.tells("a: stopping → stopped")


def test_not_waiting_at_all_returns_when_accepted(stage: Stage) -> None:
    stage.up("a: {PLAYER lingers}")
    assert stage.svcd("restart", "--no-wait", "a").out == "restart: accepted\n"
    stage.tells("a: running → stopping")
    stage.say("a", "exit 0")
    stage.tells(f"a: stopping → {RISES}")


def test_the_command_that_was_overtaken_says_by_what(stage: Stage) -> None:
    stage.up("a: {PLAYER lingers}")
    waiting = stage.command("restart", "a")
    stage.tells("a: running → stopping")
    stage.svcd("stop", "--no-wait", "a")
    assert waiting.wait() == (3, "svcd: cannot restart a: superseded by a stop of a\n")
    stage.say("a", "exit 0")
    stage.tells("a: stopping → stopped")


# ---- restarts ----


def test_a_restart_takes_its_dependents_around(stage: Stage) -> None:
    stage.up("db: {}\napi: {depends_on: [db]}\nweb: {depends_on: [api]}")
    assert stage.does("restart", "db").also == ("web", "api")
    stage.tells(stops("web", "api", to="waiting"), f"db: running → stopping → {RISES}", starts("api", "web"))


def test_a_restart_of_both_ends_is_one_wave(stage: Stage) -> None:
    stage.up("db: {}\napi: {depends_on: [db]}\nweb: {depends_on: [api]}")
    order = stage.does("restart", "web", "db")
    assert order.also == ("api",)
    stage.tells(stops("web", "api", to="waiting"), f"db: running → stopping → {RISES}", starts("api", "web"))


def test_a_restart_of_what_is_down_starts_it(stage: Stage) -> None:
    stage.up("db: {start: manual}\napi: {start: manual, depends_on: [db]}")
    stage.does("restart", "api")
    stage.tells(together("db: unloaded → waiting", "api: unloaded → waiting"), starts("db", "api"))


def test_a_failed_restart_is_told_and_leaves_the_dependents_waiting(stage: Stage) -> None:
    stage.up(
        """
        db:
          command: 'test ! -e broken || exit 4; echo up; exec sleep 1000'
          ready: {log: up}
          restart: {policy: never}
        api: {depends_on: [db]}
        """
    )
    stage.write("", "broken")
    assert stage.order("restart", "db").outcome() == "failed: db failed: ended before it was ready: exit code 4"
    stage.tells(stops("api", to="waiting"), "db: running → stopping → waiting → starting → failed")
    (stage.directory / "broken").unlink()
    stage.does("restart", "db")
    stage.tells(f"db: failed → {RISES}", starts("api"))


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_nothing_is_started_during_a_shutdown(stage: Stage, verb: str) -> None:
    stage.up("a: {PLAYER lingers}\nb: {start: manual}")
    assert stage.process is not None
    stage.process.terminate()
    stage.tells("a: running → stopping")
    assert stage.order(verb, "b").outcome() == f"refused: cannot {verb}: the cluster is shutting down"
    stage.say("a", "exit 0")
    assert stage.wait_end() == 0
    stage.tells("a: stopping → stopped")


def test_a_shutdown_overtakes_whoever_waits(stage: Stage) -> None:
    stage.up("a: {PLAYER unready, start: manual}")
    start = stage.order("start", "a")
    stage.tells("a: unloaded → waiting → starting")
    assert stage.process is not None
    stage.process.terminate()
    assert start.outcome() == "superseded: superseded by the shutdown"
    assert stage.wait_end() == 0
    stage.tells("a: starting → stopping → stopped")
