"""What follows when a service is lost for good: another stands in for it, or the whole cluster goes (design 4.3, 4.4).

Must not test when a service is lost: test_restarts does.
"""

from __future__ import annotations

import pytest
from stage import Stage
from traces import starts, stops, together

from svcd.protocol import messages

RISES = "waiting → starting → running"
NEVER = "restart: {policy: never}"
DEGRADED = f"""
    first: {{{NEVER}, fallback: second}}
    second: {{start: manual}}
    api: {{depends_on: [first]}}
"""


def lose_the_first(stage: Stage) -> None:
    stage.up(DEGRADED)
    stage.crash("first")
    stage.tells(
        "first: running → failed",
        together(stops("api", to="waiting"), f"second: unloaded → {RISES}"),
        starts("api"),
    )


# ---- fallback ----


def test_dependents_come_back_against_the_fallback(stage: Stage) -> None:
    lose_the_first(stage)
    assert stage.row("first").fallback == "second"
    assert stage.row("second").cause == "ready"
    assert stage.causes("second")[0] == "stands in for first (failed: signal SIGKILL)"
    assert stage.causes("api")[-2].endswith("; second serves in place of first")


def test_they_switch_back_when_the_first_is_there_again(stage: Stage) -> None:
    lose_the_first(stage)
    stage.does("start", "first")
    stage.tells(
        f"first: failed → {RISES}",
        stops("api", to="waiting"),
        together(starts("api"), stops("second")),
    )
    assert stage.row("first").fallback is None
    assert stage.causes("second")[-1] == "no longer needed as a fallback"


def test_a_first_that_fails_again_changes_nothing(stage: Stage) -> None:
    stage.up(
        f"""
        first: {{PLAYER unready, {NEVER}, fallback: second, start: manual}}
        second: {{start: manual}}
        api: {{depends_on: [first], start: manual}}
        """
    )
    start = stage.order("start", "api")
    stage.say("first", "exit 1")
    assert start.outcome() == "done", "degraded, but up"
    stage.skip()
    again = stage.order("start", "first")
    stage.say("first", "exit 1")
    assert again.outcome() == "failed: first failed: ended before it was ready: exit code 1"
    stage.tells("first: failed → waiting → starting → failed")
    assert stage.row("api").state == "running"


def test_a_crash_of_the_fallback_is_a_crash_of_what_they_rely_on(stage: Stage) -> None:
    lose_the_first(stage)
    stage.crash("second")
    stage.tells(
        "second: running → waiting",
        together(f"second: {RISES}", stops("api", to="waiting")),
        starts("api"),
    )


def test_a_fallback_that_cannot_start_helps_nobody(stage: Stage) -> None:
    stage.up(
        f"""
        first: {{{NEVER}, fallback: second}}
        second: {{command: exit 3, ready: {{delay: 1h}}, {NEVER}, start: manual}}
        api: {{depends_on: [first]}}
        """
    )
    stage.crash("first")
    stage.tells(
        "first: running → failed",
        together(stops("api", to="waiting"), "second: unloaded → waiting → starting → failed"),
    )
    assert stage.row("api").cause.startswith("for first (failed: signal SIGKILL")


def test_a_fallback_that_runs_for_its_own_sake_stays(stage: Stage) -> None:
    stage.up(DEGRADED.replace("second: {start: manual}", "second: {}"))
    stage.crash("first")
    stage.tells("first: running → failed", f"api: running → stopping → {RISES}")
    stage.does("start", "first")
    stage.tells(f"first: failed → {RISES}", f"api: running → stopping → {RISES}")
    assert stage.row("second").state == "running"


def test_a_stop_by_name_calls_for_no_fallback(stage: Stage) -> None:
    stage.up(DEGRADED)
    stage.does("stop", "first")
    stage.tells(stops("api", to="waiting"), stops("first"))
    assert stage.row("second").state == "unloaded"


def test_unavailable_is_lost_as_well(stage: Stage) -> None:
    stage.up(
        """
        first: {restart: {intensity: {restarts: 1, within: 1h}}, fallback: second}
        second: {start: manual}
        """
    )
    stage.crash("first")
    stage.tells(f"first: running → {RISES}")
    stage.crash("first")
    stage.tells("first: running → unavailable", f"second: unloaded → {RISES}")


# ---- essential ----


def test_an_essential_service_takes_the_cluster_with_it(stage: Stage) -> None:
    stage.up(f"db: {{}}\napi: {{{NEVER}, essential: true, depends_on: [db]}}\nweb: {{depends_on: [api]}}")
    mark = stage.mark()
    stage.crash("api")
    assert stage.wait_end() == 1
    stage.tells("api: running → failed", together(stops("web"), stops("db")))
    assert "essential service api failed: signal SIGKILL" in stage.console.read_text()
    whole = [each for each in stage.trace if isinstance(each, messages.ClusterStateChanged)]
    assert [each.state for each in whole if each.sequence > mark] == ["stopping", "ended"]


def test_the_console_tells_what_was_over_before_it_came(stage: Stage) -> None:
    stage.write_services("api: {command: exit 5, restart: {policy: never}, essential: true}\nweb: {}")
    stage.start(wait=None)
    assert stage.wait_end() == 1
    text = stage.console.read_text()
    assert "essential service api failed: exit code 5" in text
    assert text.splitlines()[-1].split() == ["svcd", "|", "ended"]


def test_an_essential_service_that_comes_back_does_not(stage: Stage) -> None:
    stage.up("api: {essential: true}\nweb: {depends_on: [api]}")
    stage.crash("api")
    stage.tells("api: running → waiting", together(f"api: {RISES}", stops("web", to="waiting")), starts("web"))
    stage.drains(stops("web", "api"))


@pytest.mark.parametrize("word", ["exit 0", "exit 1"])
def test_a_success_is_no_failure(stage: Stage, word: str) -> None:
    stage.up(f"api: {{PLAYER, {NEVER}, essential: true}}\nweb: {{}}")
    stage.say("api", word)
    if word == "exit 0":
        stage.tells("api: running → completed")
        stage.drains(stops("web"))
    else:
        assert stage.wait_end() == 1
        stage.tells("api: running → failed", stops("web"))


def test_an_essential_start_that_fails_ends_the_cluster_as_well(stage: Stage) -> None:
    stage.up(f"api: {{command: exit 4, ready: {{delay: 1h}}, {NEVER}, essential: true, start: manual}}\nweb: {{}}")
    stage.order("start", "api")
    assert stage.wait_end() == 1
    stage.tells("api: unloaded → waiting → starting → failed", stops("web"))


def test_others_may_fail_as_they_like(stage: Stage) -> None:
    stage.up(f"a: {{{NEVER}}}\nb: {{essential: true}}")
    stage.crash("a")
    stage.tells("a: running → failed")
    stage.drains(stops("b"))


def test_the_second_loss_is_the_last(stage: Stage) -> None:
    """An essential service with a fallback: the exit code says that it was lost all the same."""
    stage.up("api: {essential: true, restart: {intensity: {restarts: 0, within: 1h}}}\nweb: {}")
    stage.crash("api")
    assert stage.wait_end() == 1
    stage.tells("api: running → unavailable", stops("web"))
