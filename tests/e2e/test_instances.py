"""Several instances of one service: their names, more and fewer of them, one after the other (issue, "instances").

Must not test how the configuration multiplies them: tests/config does.
"""

from __future__ import annotations

import signal

from clusters import wait_until
from stage import Stage
from traces import starts, stops, together

RISES = "waiting → starting → running"
FRESH = "unloaded → waiting → starting → running"


def restarted(*services: str) -> list[str]:
    return [f"{service}: running → stopping → {RISES}" for service in services]


def test_each_has_a_number_and_only_the_exact_words_are_replaced(stage: Stage) -> None:
    stage.up("api: {command: 'echo I am {instance} {of} 3; exec sleep 1000', instances: 3}")
    assert stage.names() == ["api.0", "api.1", "api.2"]
    for number in range(3):
        name = f"api.{number}"
        wait_until(lambda name=name: stage.output(name), f"the word of {name}")
        assert stage.output(name) == f"I am {number} {{of}} 3\n".encode()


def test_the_name_means_all_of_them(stage: Stage) -> None:
    stage.up("api: {instances: 3}\nother: {}")
    stage.does("stop", "api")
    stage.tells(together(stops("api.0"), stops("api.1"), stops("api.2")))
    stage.does("start", "api.1")
    stage.tells(f"api.1: stopped → {RISES}")
    stage.does("start", "api")
    stage.tells(together(f"api.0: stopped → {RISES}", f"api.2: stopped → {RISES}"))


def test_a_dependent_needs_one_of_them(stage: Stage) -> None:
    stage.up("api: {PLAYER unready, instances: 2, start: manual}\nweb: {depends_on: [api], start: manual}")
    start = stage.order("start", "web")
    stage.tells(
        together(
            "api.0: unloaded → waiting → starting", "api.1: unloaded → waiting → starting", "web: unloaded → waiting"
        )
    )
    stage.say("api.1", "ready")
    assert start.outcome() == "done"
    stage.tells("api.1: starting → running", starts("web"))
    stage.say("api.1", "exit 1")
    stage.tells(together("api.1: running → waiting → starting", stops("web", to="waiting")))
    stage.say("api.0", "ready")
    stage.tells("api.0: starting → running", starts("web"))


def test_one_crash_leaves_the_dependents_with_the_others(stage: Stage) -> None:
    stage.up("api: {PLAYER, instances: 3}\nweb: {depends_on: [api]}")
    stage.wait_status(lambda status: all(row.state == "running" for row in status.services), "all of them to run")
    stage.skip()
    stage.crash("api.1")
    stage.tells(f"api.1: running → {RISES}")
    stage.drains(stops("web"), together(stops("api.0"), stops("api.1"), stops("api.2")))


def test_the_loss_of_the_last_one_takes_the_dependents_along(stage: Stage) -> None:
    stage.up("api: {instances: 2, restart: {policy: never}}\nweb: {depends_on: [api]}")
    stage.crash("api.0")
    stage.tells("api.0: running → failed")
    stage.crash("api.1")
    stage.tells("api.1: running → failed", stops("web", to="waiting"))
    stage.does("start", "api.0")
    stage.tells(f"api.0: failed → {RISES}", starts("web"))


def test_one_crash_concerns_no_other_instance(stage: Stage) -> None:
    stage.up("api: {instances: 3}")
    stage.crash("api.1")
    stage.tells(f"api.1: running → {RISES}")


# ---- more and fewer ----


def test_scaling_up_starts_the_new_ones_alone(stage: Stage) -> None:
    stage.up("api: {instances: 2}\nother: {}")
    stage.svcd("scale", "api=4")
    stage.tells(together(f"api.2: {FRESH}", f"api.3: {FRESH}"))
    assert stage.names() == ["api.0", "api.1", "api.2", "api.3", "other"]


def test_scaling_down_stops_the_last_ones_and_forgets_them(stage: Stage) -> None:
    stage.up("api: {instances: 4}\nother: {}")
    assert "api.3  scaling of api\n" in stage.svcd("scale", "api=2").out
    stage.tells(together(stops("api.2"), stops("api.3")))
    assert stage.names() == ["api.0", "api.1", "other"]


def test_a_scale_is_kept_until_it_is_said_otherwise(stage: Stage) -> None:
    stage.up("api: {instances: 2}")
    stage.svcd("scale", "api=3")
    stage.tells(f"api.2: {FRESH}")
    stage.svcd("scale", "api=3")
    stage.tells()
    stage.svcd("scale", "api=2")
    stage.tells(stops("api.2"))


def test_what_cannot_be_scaled_is_refused(stage: Stage) -> None:
    stage.up("api: {instances: 2}")
    for wrong in ("api=0", "api=many", "api", "nobody=2", "api=-1"):
        stage.svcd("scale", wrong, code=2)
    stage.tells()


# ---- one after the other ----


def test_a_rolling_restart_has_never_two_down(stage: Stage) -> None:
    stage.up("api: {instances: 3}")
    stage.does("restart", "api", rolling=True)
    stage.tells(*restarted("api.0", "api.1", "api.2"))


def test_a_rolling_restart_says_what_it_takes_along(stage: Stage) -> None:
    """Not what needs any instance of a service: that stays up."""
    stage.up("db: {}\napi: {instances: 2, depends_on: [db]}\nweb: {depends_on: [api]}\nbare: {depends_on: [db]}")
    assert stage.does("restart", "api", rolling=True).also == ()
    assert stage.does("restart", "db", "bare", rolling=True).also == ("web", "api.0", "api.1")


def test_an_ordinary_restart_takes_all_at_once(stage: Stage) -> None:
    stage.up("api: {PLAYER lingers, instances: 3}")
    order = stage.order("restart", "api")
    stage.tells(together(*(f"api.{number}: running → stopping" for number in range(3))))
    for number in range(3):
        stage.say(f"api.{number}", "exit 0")
    assert order.outcome() == "done"
    stage.tells(together(*(f"api.{number}: stopping → {RISES}" for number in range(3))))


def test_a_rolling_restart_waits_for_readiness(stage: Stage) -> None:
    stage.up("api: {PLAYER unready, instances: 2}", wait=None)
    for name in ("api.0", "api.1"):
        stage.say(name, "ready")
        stage.wait_state(name, "running")
    stage.skip()
    order = stage.order("restart", "api", rolling=True)
    stage.tells("api.0: running → stopping → waiting → starting")
    stage.say("api.0", "ready")
    stage.tells("api.0: starting → running", "api.1: running → stopping → waiting → starting")
    stage.say("api.1", "ready")
    assert order.outcome() == "done"
    stage.tells("api.1: starting → running")


def test_the_first_failure_ends_a_rolling_restart(stage: Stage) -> None:
    command = "command: 'test ! -e broken || exit 4; echo up; exec sleep 1000'"
    stage.up(f"api: {{{command}, ready: {{log: up}}, restart: {{policy: never}}, instances: 3}}")
    stage.write("", "broken")
    order = stage.order("restart", "api", rolling=True)
    end = order.end()
    assert end.text.startswith("api.0 failed: ended before it was ready: exit code 4"), end
    stage.tells("api.0: running → stopping → waiting → starting → failed")
    assert {name: row.state for name, row in zip(stage.names(), stage.status().services, strict=True)} == {
        "api.0": "failed",
        "api.1": "running",
        "api.2": "running",
    }


def test_a_stop_in_the_middle_of_a_rolling_restart_keeps_what_it_named_down(stage: Stage) -> None:
    stage.up("api: {PLAYER lingers, instances: 2}")
    rolling = stage.order("restart", "api", rolling=True)
    stage.tells("api.0: running → stopping")
    stop = stage.order("stop", "api.1")
    stage.tells("api.1: running → stopping")
    stage.say("api.0", "exit 0")
    stage.say("api.1", "exit 0")
    assert stop.outcome() == "done"
    assert rolling.outcome().startswith("superseded: superseded by a stop of api.1")
    stage.tells(together(f"api.0: stopping → {RISES}", "api.1: stopping → stopped"))


def test_a_rolling_restart_of_several_services_goes_in_the_order_given(stage: Stage) -> None:
    stage.up("a: {}\nb: {}\nc: {}")
    stage.does("restart", "c", "a", rolling=True)
    stage.tells(*restarted("c", "a"))


def test_a_signal_to_the_name_reaches_every_instance(stage: Stage) -> None:
    stage.up("api: {PLAYER, instances: 2}")
    stage.svcd("signal", "KILL", "api")
    stage.tells(together(*(f"api.{number}: running → {RISES}" for number in range(2))))
    assert stage.causes("api.0").count(f"restart after signal {signal.SIGKILL.name}") == 2
