"""Commands of a service's own, before and after its start and its stop, and when it is lost.

Must not test how a hook's process is made. A hook here waits until the test opens its gate, or says what it saw.
"""

from __future__ import annotations

import os
import signal

import pytest
from clusters import is_alive, wait_until
from stage import Stage
from traces import starts, stops, together

RISES = "waiting → starting → running"
NEVER = "restart: {policy: never}"


def gate(stage: Stage, name: str) -> None:
    """A hook ``read x < NAME`` waits here."""
    os.mkfifo(stage.directory / name)


def let_pass(stage: Stage, name: str) -> None:
    """One hook that waits may go on; waits until it is there."""
    with (stage.directory / name).open("w") as told:
        told.write("go\n")


def said(stage: Stage) -> list[str]:
    path = stage.directory / "said"
    return path.read_text().split() if path.exists() else []


def test_all_of_them_in_their_order(stage: Stage) -> None:
    hooks = ", ".join(
        f"{hook}: {{command: 'echo {hook} >> said'}}" for hook in ("pre_start", "post_start", "pre_stop", "post_stop")
    )
    stage.up(f"a: {{command: 'echo running >> said; exec sleep 1000', start: manual, hooks: {{{hooks}}}}}")
    stage.does("start", "a")
    stage.tells(f"a: unloaded → {RISES}")
    wait_until(lambda: "running" in said(stage), "the program's own word")
    assert sorted(said(stage)[1:]) == ["post_start", "running"]
    assert said(stage)[0] == "pre_start"
    stage.does("stop", "a")
    stage.tells(stops("a"))
    assert said(stage)[3:] == ["pre_stop", "post_stop"]


def test_pre_start_comes_before_the_process(stage: Stage) -> None:
    gate(stage, "gate")
    stage.up("a: {start: manual, hooks: {pre_start: {command: 'read x < gate'}}}\nb: {start: manual, depends_on: [a]}")
    start = stage.order("start", "b")
    stage.tells("a: unloaded → waiting", "b: unloaded → waiting", "a: waiting → starting")
    assert stage.row("a").pid is None
    let_pass(stage, "gate")
    assert start.outcome() == "done"
    stage.tells("a: starting → running", starts("b"))


def test_a_pre_start_that_fails_is_a_failed_start(stage: Stage) -> None:
    stage.up(f"a: {{start: manual, {NEVER}, hooks: {{pre_start: {{command: exit 7}}}}}}")
    assert stage.order("start", "a").outcome() == "failed: cannot start a: pre_start hook: exit code 7"
    stage.tells("a: unloaded → waiting → starting → failed")
    assert stage.processes("a") == []


def test_post_start_comes_before_running(stage: Stage) -> None:
    gate(stage, "gate")
    stage.up("a: {start: manual, hooks: {post_start: {command: 'read x < gate'}}}\nb: {start: manual, depends_on: [a]}")
    start = stage.order("start", "b")
    stage.tells("a: unloaded → waiting", "b: unloaded → waiting", "a: waiting → starting")
    stage.wait_status(lambda _: stage.row("a").cause == "ready; its post_start hook runs", "the hook to run")
    let_pass(stage, "gate")
    assert start.outcome() == "done"
    stage.tells("a: starting → running", starts("b"))


def test_a_post_start_that_fails_stops_what_has_started(stage: Stage) -> None:
    stage.up(f"a: {{start: manual, {NEVER}, hooks: {{post_start: {{command: exit 7}}}}}}")
    outcome = stage.order("start", "a").outcome()
    assert "post_start" in outcome
    stage.tells("a: unloaded → waiting → starting → stopping → failed")
    assert stage.processes("a") == []


def test_pre_stop_comes_before_the_signal(stage: Stage) -> None:
    gate(stage, "gate")
    stage.up("a: {PLAYER, hooks: {pre_stop: {command: 'read x < gate'}}}")
    pid = stage.pid_of("a")
    stop = stage.order("stop", "a")
    stage.tells("a: running → stopping")
    assert stage.row("a").pid == pid
    let_pass(stage, "gate")
    assert stop.outcome() == "done"
    stage.tells("a: stopping → stopped")


def test_post_stop_comes_after_the_last_process_and_before_what_is_below(stage: Stage) -> None:
    gate(stage, "gate")
    stage.up("db: {}\na: {depends_on: [db], hooks: {post_stop: {command: 'read x < gate'}}}")
    stop = stage.order("stop", "a", "db")
    stage.tells("a: running → stopping")
    wait_until(lambda: stage.row("a").pid not in stage.processes("a"), "its process to be gone")
    let_pass(stage, "gate")
    assert stop.outcome() == "done"
    stage.tells("a: stopping → stopped", stops("db"))


@pytest.mark.parametrize("hook", ["pre_stop", "post_stop"])
def test_a_stop_hook_that_fails_is_told_and_stops_nothing_from_stopping(stage: Stage, hook: str) -> None:
    stage.up(f"a: {{hooks: {{{hook}: {{command: exit 7}}}}}}")
    stage.does("stop", "a")
    stage.tells(stops("a"))
    assert any(hook in text and "exit code 7" in text for text in stage.notices("a"))


def test_a_crash_has_its_post_stop_but_no_pre_stop(stage: Stage) -> None:
    hooks = "{pre_stop: {command: 'echo pre >> said'}, post_stop: {command: 'echo post >> said'}}"
    stage.up(f"a: {{hooks: {hooks}}}")
    stage.crash("a")
    stage.tells(f"a: running → stopping → {RISES}")
    assert said(stage) == ["post"]


def test_on_failure_runs_when_it_is_lost_and_only_then(stage: Stage) -> None:
    lost = "hooks: {on_failure: {command: 'echo lost >> said'}}"
    stage.up(f"a: {{PLAYER, restart: {{intensity: {{restarts: 1, within: 1h}}}}, {lost}}}")
    stage.say("a", "exit 1")
    stage.tells(f"a: running → {RISES}")
    assert said(stage) == []
    stage.say("a", "exit 1")
    stage.tells("a: running → unavailable")
    wait_until(lambda: said(stage), "the hook's word")
    stage.drain()
    assert said(stage) == ["lost"]


def test_what_hooks_are_told(stage: Stage) -> None:
    words = "echo $SVCD_HOOK $${SVCD_PID:-nobody} $${SVCD_EXIT_CODE-}$${SVCD_EXIT_SIGNAL-} >> said"
    hooks = ", ".join(
        f"{hook}: {{command: '{words}'}}" for hook in ("pre_start", "post_start", "pre_stop", "post_stop")
    )
    stage.up(f"a: {{start: manual, hooks: {{{hooks}}}}}")
    stage.does("start", "a")
    pid = str(stage.pid_of("a"))
    stage.crash("a")
    stage.tells(f"a: unloaded → {RISES}", f"a: running → stopping → {RISES}")
    again = str(stage.pid_of("a"))
    stage.does("stop", "a")
    assert said(stage) == [
        *("pre_start", "nobody", "post_start", pid, "post_stop", "nobody", "9"),
        *("pre_start", "nobody", "post_start", again, "pre_stop", again, "post_stop", "nobody", "15"),
    ]
    stage.skip()


def test_a_post_stop_after_a_failed_pre_start_tells_of_no_earlier_end(stage: Stage) -> None:
    words = "echo $${SVCD_EXIT_CODE-none} $${SVCD_EXIT_SIGNAL-none} >> said"
    hooks = f"{{pre_start: {{command: 'test ! -e bad'}}, post_stop: {{command: '{words}'}}}}"
    stage.up(f"a: {{command: 'exit 0', type: task, start: manual, {NEVER}, hooks: {hooks}}}")
    stage.does("start", "a")
    stage.write("", "bad")
    assert stage.order("start", "a").outcome() == "failed: cannot start a: pre_start hook: exit code 1"
    assert said(stage) == ["0", "none", "none", "none"]
    stage.skip()


def test_the_end_of_a_cluster_waits_for_who_tells_of_it(stage: Stage) -> None:
    gate(stage, "gate")
    lost = "on_failure: {command: 'echo called >> said; read x < gate; echo told >> said'}"
    stage.up(f"a: {{essential: true, {NEVER}, hooks: {{{lost}}}}}\nb: {{}}")
    stage.crash("a")
    stage.tells("a: running → failed", stops("b"))
    let_pass(stage, "gate")
    assert stage.wait_end() == 1
    assert said(stage) == ["called", "told"]


def test_unless_somebody_is_in_a_hurry(stage: Stage) -> None:
    lost = "on_failure: {command: 'echo called >> said; sleep 1000', timeout: 1h}"
    stage.up(f"a: {{essential: true, {NEVER}, hooks: {{{lost}}}}}")
    stage.crash("a")
    stage.tells("a: running → failed")
    wait_until(lambda: said(stage), "the hook's word")
    assert stage.process is not None
    for number in (signal.SIGTERM, signal.SIGINT):  # two of one kind may be taken for one
        stage.process.send_signal(number)
    assert stage.wait_end() == 1


def test_nothing_of_a_hook_survives_the_guardian(stage: Stage) -> None:
    stage.up("a: {start: manual, hooks: {pre_start: {command: 'setsid sleep 1000 & sleep 1000', timeout: 1h}}}")
    stage.order("start", "a")
    stage.wait_status(lambda _: len(stage.processes("a")) == 3, "the hook and its child")
    pids = stage.processes("a")
    assert stage.process is not None
    stage.process.kill()
    wait_until(lambda: not any(map(is_alive, pids)), "the end of all of them")
    stage.wait_end()


# ---- hanging ----


@pytest.mark.parametrize("hook", ["pre_start", "post_start"])
def test_a_start_hook_that_hangs_is_killed_and_fails_the_start(stage: Stage, hook: str) -> None:
    stage.up(f"a: {{start: manual, {NEVER}, hooks: {{{hook}: {{command: sleep 1000, timeout: 100ms}}}}}}")
    outcome = stage.order("start", "a").outcome()
    assert outcome.startswith("failed: ")
    assert f"{hook} hook: no end within 0.1 s: killed" in outcome
    assert stage.processes("a") == []


def test_a_hook_that_hangs_delays_nobody_else(stage: Stage) -> None:
    stage.up(
        """
        stuck: {start: manual, hooks: {pre_start: {command: sleep 1000, timeout: 1h}}}
        above: {start: manual, depends_on: [stuck]}
        db: {}
        api: {depends_on: [db]}
        """
    )
    stuck = stage.order("start", "above")
    stage.tells("stuck: unloaded → waiting", "above: unloaded → waiting", "stuck: waiting → starting")
    stage.crash("db")
    stage.tells("db: running → waiting", together(f"db: {RISES}", stops("api", to="waiting")), starts("api"))
    stage.does("restart", "api")
    stage.tells(f"api: running → stopping → {RISES}")
    stage.does("stop", "stuck")
    assert stuck.outcome().startswith("failed: cannot start above: ")
    stage.skip()
    assert stage.processes("stuck") == []
    stage.drains(together("above: waiting → stopped", stops("api", "db")))


def test_a_stop_during_pre_start_ends_the_hook_and_spawns_nothing(stage: Stage) -> None:
    stage.up("a: {start: manual, hooks: {pre_start: {command: sleep 1000, timeout: 1h}}}")
    start = stage.order("start", "a")
    stage.tells("a: unloaded → waiting → starting")
    stage.does("stop", "a")
    assert start.outcome() == "superseded: superseded by a stop of a"
    stage.tells("a: starting → stopping → stopped")
    assert stage.processes("a") == []


def test_a_shutdown_waits_for_a_stop_hook_no_longer_than_it_may_take(stage: Stage) -> None:
    stage.up("a: {hooks: {pre_stop: {command: sleep 1000, timeout: 100ms}}}")
    stage.drains(stops("a"))


def test_what_a_hook_leaves_behind_is_cleared(stage: Stage) -> None:
    stage.up("a: {start: manual, hooks: {pre_start: {command: 'setsid sleep 1000 & exit 0'}}}")
    stage.does("start", "a")
    stage.tells(f"a: unloaded → {RISES}")
    wait_until(lambda: len(stage.processes("a")) == 1, "the hook's child to be gone")
