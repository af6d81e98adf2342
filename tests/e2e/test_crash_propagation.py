"""A crash stops what requires the crashed one, in exactly the reverse order, and brings it back (design 4.3).

Must not test what becomes of the crashed one itself beyond that: test_restarts does.
"""

from __future__ import annotations

import pytest
from stage import Stage
from traces import before, either, starts, stops, then, together

from svcd.protocol import messages

RISES = "waiting → starting → running"
CHAIN = """
    db: {}
    api: {depends_on: [db]}
    web: {depends_on: [api]}
    apart: {}
"""


def restarts(stage: Stage) -> dict[str, int]:
    """Who was restarted by its own policy, and how often."""
    return {row.service: row.restarts for row in stage.status().services if row.restarts}


# ---- shapes ----


def test_a_chain_stops_in_reverse_and_comes_back_in_order(stage: Stage) -> None:
    stage.up(CHAIN)
    stage.crash("db")
    stage.tells(
        "db: running → waiting",
        together(f"db: {RISES}", stops("web", "api", to="waiting")),
        starts("api", "web"),
    )
    causes = stage.causes("web")[-4:]
    assert causes[0] == "db crashed: signal SIGKILL"
    assert causes[1].startswith("for api (")
    assert causes[2:] == ["back after db crashed: signal SIGKILL", "ready"]
    assert restarts(stage) == {"db": 1}
    stage.drains(together(stops("web", "api", "db"), stops("apart")))


def test_the_end_of_a_chain_concerns_nobody_else(stage: Stage) -> None:
    stage.up(CHAIN)
    stage.crash("web")
    stage.tells(f"web: running → {RISES}")
    stage.drains(together(stops("web", "api", "db"), stops("apart")))


def test_the_middle_of_a_chain_leaves_what_is_below_alone(stage: Stage) -> None:
    stage.up(CHAIN)
    stage.crash("api")
    stage.tells(
        "api: running → waiting",
        together(f"api: {RISES}", stops("web", to="waiting")),
        starts("web"),
    )


def test_a_diamond_meets_again_before_its_base_is_touched(stage: Stage) -> None:
    stage.up(
        """
        base: {}
        left: {depends_on: [base]}
        right: {depends_on: [base]}
        top: {depends_on: [left, right]}
        """
    )
    stage.crash("base")
    steps = stage.tells(
        "base: running → waiting",
        together(
            f"base: {RISES}",
            then(
                stops("top", to="waiting"),
                together(
                    f"left: running → stopping → {RISES}",
                    f"right: running → stopping → {RISES}",
                ),
            ),
        ),
        starts("top"),
    )
    for side in ("left", "right"):
        assert before(steps, "base: starting → running", f"{side}: waiting → starting")
    assert restarts(stage) == {"base": 1}
    stage.drains(stops("top"), together(stops("left"), stops("right")), stops("base"))


def test_a_crash_in_one_half_of_a_diamond_leaves_the_other_half(stage: Stage) -> None:
    stage.up(
        """
        base: {}
        left: {depends_on: [base]}
        right: {depends_on: [base]}
        top: {depends_on: [left, right]}
        """
    )
    stage.crash("left")
    stage.tells("left: running → waiting", together(f"left: {RISES}", stops("top", to="waiting")), starts("top"))


def test_a_fan_out_stops_and_returns_side_by_side(stage: Stage) -> None:
    leaves = [f"leaf{number}" for number in range(6)]
    stage.up("\n".join(["hub: {}", *(f"{leaf}: {{depends_on: [hub]}}" for leaf in leaves)]))
    stage.crash("hub")
    steps = stage.tells(
        "hub: running → waiting",
        together(f"hub: {RISES}", *(f"{leaf}: running → stopping → {RISES}" for leaf in leaves)),
    )
    assert all(before(steps, "hub: starting → running", f"{leaf}: waiting → starting") for leaf in leaves)
    stage.drains(together(*map(stops, leaves)), stops("hub"))


def test_one_that_lingers_delays_only_what_depends_on_its_end(stage: Stage) -> None:
    stage.up(
        """
        hub: {}
        slow: {PLAYER lingers, depends_on: [hub]}
        quick: {depends_on: [hub]}
        """
    )
    stage.crash("hub")
    steps = stage.tells(
        "hub: running → waiting",
        together(f"hub: {RISES}", f"quick: running → stopping → {RISES}", "slow: running → stopping"),
    )
    assert before(steps, "hub: starting → running", "quick: waiting → starting")
    stage.say("slow", "exit 0")
    stage.tells(f"slow: stopping → {RISES}")


def test_python_services_hear_why_they_stop(stage: Stage) -> None:
    stage.write(
        """
        from svcd import Service

        class Told(Service):
            async def stop(self, reason):
                print(f"stopped: {reason}", flush=True)
        """,
        "told.py",
    )
    stage.write(
        """
        defaults: {restart: {backoff: {initial: 0s}}}
        services:
          db: {command: exec sleep 1000}
          api: {python: "told:Told", depends_on: [db]}
        """
    )
    stage.start()
    stage.skip()
    stage.crash("db")
    stage.tells(
        "db: running → waiting",
        together(f"db: {RISES}", stops("api", to="waiting")),
        "api: waiting → loading → loaded → initialized → starting → running",
    )
    stage.drain()
    assert stage.output("api") == b"stopped: db crashed: signal SIGKILL\nstopped: cluster shutdown\n"


# ---- several at once ----


def test_two_crashes_in_separate_branches_are_two_cascades(stage: Stage) -> None:
    stage.up("a: {}\nb: {depends_on: [a]}\nc: {}\nd: {depends_on: [c]}")
    stage.crash("a", "c")
    stage.tells(
        together(
            then("a: running → waiting", together(f"a: {RISES}", stops("b", to="waiting")), starts("b")),
            then("c: running → waiting", together(f"c: {RISES}", stops("d", to="waiting")), starts("d")),
        )
    )
    assert restarts(stage) == {"a": 1, "c": 1}


def test_both_legs_of_one_dependent_crash_at_once(stage: Stage) -> None:
    stage.up("left: {}\nright: {}\ntop: {PLAYER lingers, depends_on: [left, right]}")
    stage.crash("left", "right")
    stage.tells(
        together(
            f"left: running → {RISES}",
            f"right: running → {RISES}",
            "top: running → stopping",
        )
    )
    stage.say("top", "exit 0")
    stage.tells(f"top: stopping → {RISES}")
    assert restarts(stage) == {"left": 1, "right": 1}
    stage.crash("top")
    stage.tells(f"top: running → {RISES}")


def test_a_whole_chain_killed_at_once_comes_back_once(stage: Stage) -> None:
    """Who is seen to die first is the kernel's choice; that each comes back in order, and only once more, is not."""
    stage.up("db: {PLAYER}\napi: {PLAYER, depends_on: [db]}")
    stage.crash("db", "api")
    stage.tells(
        either(
            then("db: running → waiting", together(f"db: {RISES}", "api: running → waiting"), starts("api")),
            then("db: running → waiting", f"db: {RISES}", stops("api", to="waiting"), starts("api")),
            then("db: running → waiting", together(f"db: {RISES}", stops("api", to="waiting")), starts("api")),
            then(
                "api: running → waiting → starting",
                "db: running → waiting",
                together(f"db: {RISES}", "api: starting → stopping → waiting"),
                starts("api"),
            ),
            then(
                "api: running → waiting → starting → running",
                "db: running → waiting",
                together(f"db: {RISES}", stops("api", to="waiting")),
                starts("api"),
            ),
        )
    )


# ---- at awkward moments ----


def test_a_crash_during_the_start_holds_the_dependents_back(stage: Stage) -> None:
    stage.up(
        """
        db: {PLAYER unready, start: manual}
        api: {depends_on: [db], start: manual}
        """
    )
    asked = stage.order("start", "api")
    stage.tells("db: unloaded → waiting", "api: unloaded → waiting", "db: waiting → starting")
    stage.say("db", "exit 3")
    stage.tells("db: starting → waiting → starting")
    assert stage.row("api").cause == "for db (starting)"
    stage.say("db", "ready")
    stage.tells("db: starting → running", starts("api"))
    assert asked.outcome() == "done", "a dependent waits through its dependency's retries"


def test_a_crash_during_the_drain_changes_nothing(stage: Stage) -> None:
    stage.up(
        """
        db: {}
        api: {depends_on: [db]}
        web: {PLAYER lingers, depends_on: [api]}
        """
    )
    shutdown = stage.order(messages.ShutDown())
    stage.tells("web: running → stopping")
    stage.crash("db")
    stage.tells("db: running → stopped")
    stage.crash("api")
    stage.tells("api: running → stopped")
    stage.say("web", "exit 0")
    assert shutdown.outcome() == "done"
    assert stage.wait_end() == 0
    stage.tells("web: stopping → stopped")


def test_a_crash_of_another_requirement_during_a_backoff(stage: Stage) -> None:
    stage.up(
        """
        db: {restart: {backoff: {initial: 1h}}}
        cache: {}
        api: {depends_on: [db, cache]}
        """
    )
    stage.crash("db")
    stage.tells(together("db: running → backoff", stops("api", to="waiting")))
    stage.crash("cache")
    stage.tells(f"cache: running → {RISES}")
    assert stage.row("api").cause.startswith("for db (backoff, next try in ")
    stage.does("start", "db")
    stage.tells(f"db: backoff → {RISES}", starts("api"))


def test_a_crash_in_the_middle_of_anothers_cascade(stage: Stage) -> None:
    """api dies by itself while it waits to be told to stop: that is the end that it was to have."""
    stage.up(
        """
        db: {}
        api: {depends_on: [db]}
        web: {PLAYER lingers, depends_on: [api]}
        """
    )
    stage.crash("db")
    stage.tells("db: running → waiting", together(f"db: {RISES}", "web: running → stopping"))
    stage.crash("api")
    stage.tells("api: running → waiting → starting → running")
    stage.say("web", "exit 7")
    stage.tells(f"web: stopping → {RISES}")
    assert restarts(stage) == {"db": 1}


def test_a_dependency_crashes_again_while_its_dependent_still_stops(stage: Stage) -> None:
    stage.up("db: {}\napi: {PLAYER lingers, depends_on: [db]}")
    stage.crash("db")
    stage.tells("db: running → waiting", together(f"db: {RISES}", "api: running → stopping"))
    stage.crash("db")
    stage.tells(f"db: running → {RISES}")
    stage.say("api", "exit 0")
    stage.tells(f"api: stopping → {RISES}")
    assert restarts(stage) == {"db": 2}


def test_a_dependency_dies_while_its_dependent_stops_for_its_sake(stage: Stage) -> None:
    stage.up("db: {}\napi: {PLAYER lingers, depends_on: [db]}")
    stop = stage.order("stop", "db")
    assert stop.also == ("api",)
    stage.tells("api: running → stopping")
    stage.crash("db")
    stage.tells("db: running → stopped")
    assert stop.outcome() == "done"
    stage.say("api", "exit 0")
    stage.tells("api: stopping → waiting")
    assert stage.row("api").cause == "for db (stopped by request)"


def test_a_dependency_dies_before_its_restart_reaches_it(stage: Stage) -> None:
    stage.up("db: {}\napi: {PLAYER lingers, depends_on: [db]}")
    restart = stage.order("restart", "db")
    stage.tells("api: running → stopping")
    stage.crash("db")
    stage.tells(f"db: running → {RISES}")
    assert restart.outcome() == "done"
    stage.say("api", "exit 0")
    stage.tells(f"api: stopping → {RISES}")
    assert restarts(stage) == {}, "it was to end anyway"


def test_a_dependent_that_must_be_killed_holds_nobody_for_ever(stage: Stage) -> None:
    stage.up("db: {}\napi: {PLAYER deaf, stop: {timeout: 200ms}, depends_on: [db]}")
    stage.crash("db")
    stage.tells("db: running → waiting", together(f"db: {RISES}", stops("api", to="waiting")), starts("api"))
    assert restarts(stage) == {"db": 1}


# ---- what the crash comes to ----


@pytest.mark.parametrize("how", ["failed", "unavailable"])
def test_a_dependency_lost_for_good_leaves_the_dependents_waiting(stage: Stage, how: str) -> None:
    policy = "{policy: never}" if how == "failed" else "{intensity: {restarts: 0, within: 1h}}"
    stage.up(f"db: {{restart: {policy}}}\napi: {{depends_on: [db]}}\nweb: {{depends_on: [api]}}")
    stage.crash("db")
    stage.tells(f"db: running → {how}", stops("web", "api", to="waiting"))
    assert stage.row("api").cause.startswith(f"for db ({how}: ")
    assert stage.row("web").cause == "for api (waiting; requires db, which " + (
        "failed (signal SIGKILL))"
        if how == "failed"
        else "is unavailable (0 restarts within 3600 s; last: signal SIGKILL))"
    )
    assert stage.order("start", "web").outcome() == "done", "starting web starts what it requires, too"
    stage.tells("db: " + f"{how} → {RISES}", starts("api", "web"))


def test_a_requirement_that_ends_with_success_takes_its_dependents_along(stage: Stage) -> None:
    stage.up("db: {PLAYER}\napi: {depends_on: [db]}")
    stage.say("db", "exit 0")
    stage.tells("db: running → completed", stops("api", to="waiting"))
    assert stage.row("api").cause == "for db (completed)"
    assert stage.causes("api")[-2] == "db ended: exit code 0"


# ---- edges that a crash does not travel along ----


def test_on_crash_notify_tells_and_touches_nobody(stage: Stage) -> None:
    stage.up("db: {}\napi: {depends_on: {db: {on_crash: notify}}}")
    stage.crash("db")
    stage.tells(f"db: running → {RISES}")
    assert stage.notices("api") == ["db crashed: signal SIGKILL; it requires it"]
    stage.does("stop", "db")
    stage.tells(stops("api", to="waiting"), stops("db"))


def test_on_crash_ignore_does_not_even_tell(stage: Stage) -> None:
    stage.up("db: {}\napi: {depends_on: {db: {on_crash: ignore}}}")
    stage.crash("db")
    stage.tells(f"db: running → {RISES}")
    assert stage.notices("api") == []


def test_on_crash_restart_is_what_is_meant_where_nothing_is_said(stage: Stage) -> None:
    stage.up("db: {}\napi: {depends_on: {db: {on_crash: restart}}}")
    stage.crash("db")
    stage.tells("db: running → waiting", together(f"db: {RISES}", stops("api", to="waiting")), starts("api"))
    assert stage.notices("api") == []


@pytest.mark.parametrize("kind", ["wants", "after"])
def test_weaker_kinds_are_not_touched_by_a_crash_nor_by_a_stop(stage: Stage, kind: str) -> None:
    stage.up(f"db: {{}}\napi: {{depends_on: {{db: {{kind: {kind}}}}}}}")
    stage.crash("db")
    stage.tells(f"db: running → {RISES}")
    assert stage.does("stop", "db").also == ()
    stage.tells(stops("db"))
    assert stage.states() == {"db": "stopped", "api": "running"}
