"""What a start waits for: kinds and conditions of dependencies, and the order of independent services (design 4.3).

Must not let anything crash: test_crash_propagation does.
"""

from __future__ import annotations

import pytest
from stage import Stage
from traces import starts, stops, then, together

RISES = "waiting → starting → running"


def test_independent_branches_start_and_stop_side_by_side(stage: Stage) -> None:
    stage.up(
        """
        a: {start: manual}
        b: {start: manual, depends_on: [a]}
        c: {start: manual}
        d: {start: manual, depends_on: [c]}
        """
    )
    stage.does("start", "b", "d")
    stage.tells(
        together(*(f"{name}: unloaded → waiting" for name in "abcd")),
        together(starts("a", "b"), starts("c", "d")),
    )
    stage.drains(together(stops("b", "a"), stops("d", "c")))


def test_no_more_than_max_parallel_are_on_their_way(stage: Stage) -> None:
    names = ["a", "b", "c", "d"]
    stage.up("\n".join(f"{name}: {{start: manual}}" for name in names), head="max_parallel: 1\n")
    stage.does("start", *names)
    stage.tells(together(*(f"{name}: unloaded → waiting" for name in names)), starts(*names))


def test_whoever_waits_for_a_place_is_told_so(stage: Stage) -> None:
    stage.up("a: {PLAYER unready, start: manual}\nb: {start: manual}", head="max_parallel: 1\n")
    start = stage.order("start", "a", "b")
    stage.tells(together("a: unloaded → waiting → starting", "b: unloaded → waiting"))
    assert stage.row("b").cause == "for its turn (max_parallel 1)"
    stage.say("a", "ready")
    assert start.outcome() == "done"
    stage.tells("a: starting → running", starts("b"))


# ---- conditions ----


def test_condition_running_waits_for_readiness(stage: Stage) -> None:
    stage.up("db: {PLAYER unready, start: manual}\napi: {start: manual, depends_on: {db: {condition: running}}}")
    start = stage.order("start", "api")
    stage.tells("db: unloaded → waiting", "api: unloaded → waiting", "db: waiting → starting")
    assert stage.row("api").cause == "for db (starting)"
    stage.say("db", "ready")
    assert start.outcome() == "done"
    stage.tells("db: starting → running", starts("api"))


def test_condition_spawned_does_not(stage: Stage) -> None:
    stage.up("db: {PLAYER unready, start: manual}\napi: {start: manual, depends_on: {db: {condition: spawned}}}")
    stage.does("start", "api")
    stage.tells("db: unloaded → waiting", "api: unloaded → waiting", "db: waiting → starting", starts("api"))
    stage.say("db", "ready")
    stage.tells("db: starting → running")


def test_condition_spawned_is_not_met_by_what_cannot_be_spawned(stage: Stage) -> None:
    stage.write("#!/no/such/interpreter\n", "broken")
    (stage.directory / "broken").chmod(0o755)
    stage.up(
        """
        db: {command: [./broken], start: manual, restart: {policy: never}}
        api: {start: manual, depends_on: {db: {condition: spawned}}}
        """
    )
    assert (
        stage.order("start", "api").outcome().startswith("failed: cannot start api: requires db, which failed (cannot")
    )
    stage.tells("db: unloaded → waiting", "api: unloaded → waiting", "db: waiting → starting → failed")


def test_condition_spawned_falls_with_a_crash_all_the_same(stage: Stage) -> None:
    stage.up("db: {PLAYER unready, start: manual}\napi: {start: manual, depends_on: {db: {condition: spawned}}}")
    stage.does("start", "api")
    stage.skip()
    stage.say("db", "exit 1")
    stage.tells(together("db: starting → waiting → starting", stops("api", to="waiting")), starts("api"))


def test_condition_completed_waits_for_the_end(stage: Stage) -> None:
    stage.up(
        "setup: {type: task, PLAYER, start: manual}\napi: {start: manual, depends_on: {setup: {condition: completed}}}"
    )
    start = stage.order("start", "api")
    stage.tells("setup: unloaded → waiting", "api: unloaded → waiting", starts("setup"))
    stage.say("setup", "exit 0")
    assert start.outcome() == "done"
    stage.tells("setup: running → completed", starts("api"))


# ---- kinds ----


def test_wants_starts_and_waits_until_it_runs(stage: Stage) -> None:
    stage.up("cache: {PLAYER unready, start: manual}\napi: {start: manual, depends_on: {cache: {kind: wants}}}")
    start = stage.order("start", "api")
    stage.tells("cache: unloaded → waiting", "api: unloaded → waiting", "cache: waiting → starting")
    stage.say("cache", "ready")
    assert start.outcome() == "done"
    stage.tells("cache: starting → running", starts("api"))


def test_wants_waits_for_the_first_attempt_only(stage: Stage) -> None:
    stage.up(
        """
        cache: {PLAYER unready, start: manual, restart: {backoff: {initial: 1h}}}
        api: {start: manual, depends_on: {cache: {kind: wants}}}
        """
    )
    start = stage.order("start", "api")
    stage.tells("cache: unloaded → waiting", "api: unloaded → waiting", "cache: waiting → starting")
    stage.say("cache", "exit 1")
    assert start.outcome() == "done"
    stage.tells("cache: starting → backoff", starts("api"))


def test_after_orders_what_starts_together(stage: Stage) -> None:
    stage.up("metrics: {PLAYER unready, start: manual}\napi: {start: manual, depends_on: {metrics: {kind: after}}}")
    start = stage.order("start", "api", "metrics")
    stage.tells(together("metrics: unloaded → waiting → starting", "api: unloaded → waiting"))
    stage.say("metrics", "ready")
    assert start.outcome() == "done"
    stage.tells("metrics: starting → running", starts("api"))
    stage.drains(stops("api", "metrics"))


def test_after_starts_nothing_and_waits_for_nothing_that_does_not_start(stage: Stage) -> None:
    stage.up("metrics: {start: manual}\napi: {start: manual, depends_on: {metrics: {kind: after}}}")
    stage.does("start", "api")
    stage.tells(f"api: unloaded → {RISES}")
    assert stage.row("metrics").state == "unloaded"


@pytest.mark.parametrize("kind", ["requires", "wants", "after"])
def test_every_kind_drains_in_reverse_order(stage: Stage, kind: str) -> None:
    stage.up(f"first: {{PLAYER}}\nsecond: {{PLAYER lingers, depends_on: {{first: {{kind: {kind}}}}}}}")
    assert stage.process is not None
    stage.process.terminate()
    stage.tells("second: running → stopping")
    stage.say("second", "exit 0")
    assert stage.wait_end() == 0
    stage.tells("second: stopping → stopped", stops("first"))


def test_manual_services_start_with_those_that_need_them(stage: Stage) -> None:
    stage.up("db: {start: manual}\nother: {start: manual}\napi: {depends_on: [db]}")
    assert stage.states() == {"db": "running", "other": "unloaded", "api": "running"}


def test_a_deep_chain_comes_up_and_goes_down_in_order(stage: Stage) -> None:
    names = [f"s{number}" for number in range(20)]
    edges = ["[]", *(f"[{name}]" for name in names[:-1])]
    stage.up(
        "\n".join(f"{name}: {{start: manual, depends_on: {edge}}}" for name, edge in zip(names, edges, strict=True))
    )
    stage.does("start", names[-1])
    stage.tells(then(*(f"{name}: unloaded → waiting" for name in names)), starts(*names))
    stage.drains(stops(*reversed(names)))
