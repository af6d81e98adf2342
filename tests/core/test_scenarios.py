"""What the machine does, told as scenes with exact traces: the specification of supervision, readable.

Must not test tables or books: those have files of their own.
"""

from __future__ import annotations

import pytest
from play import NEVER, Play, after, python, requires, service, task, wants

from svcd.supervisor.core.events import ExitStatus, ProcessExited, RequestAbandoned, ShutdownLevel
from svcd.supervisor.core.spec import (
    Backoff,
    Condition,
    Dependency,
    HealthAction,
    HealthPolicy,
    Hook,
    Intensity,
    OnCrash,
    ReadyKind,
    RestartMode,
    RestartPolicy,
    RunEnd,
    StopPolicy,
)


def chain(**fields: object) -> Play:
    """c requires b requires a; all running."""
    return Play(service("a"), service("b", "a"), service("c", "b"), **fields).all_up()  # type: ignore[arg-type]  # Play's own


# ---- starting ----


def test_a_start_goes_in_order_of_requirement() -> None:
    play = Play(service("web", "db"), service("db"))
    assert play.start("web") == [
        "db unloaded > waiting",
        "web unloaded > waiting",
        "db waiting > starting",
        "spawn db",
    ]
    assert play.cause("web") == "for db (starting)"
    assert play.born("db") == []
    assert play.executed("db") == ["db starting > running", "web waiting > starting", "spawn web"]
    assert play.runs("web") == ["web starting > running", "answer r1 done"]
    assert play.actions[-1].also == ("db",)


def test_what_is_independent_starts_in_parallel() -> None:
    play = Play(service("a"), service("b"), service("c", "a", "b"))
    assert [line for line in play.start() if line.startswith("spawn")] == ["spawn a", "spawn b"]
    assert "spawn c" not in play.runs("a")
    assert "spawn c" in play.runs("b")


def test_eager_services_start_with_the_cluster_and_manual_ones_when_needed() -> None:
    manual = {"start": service("x").start.MANUAL}
    play = Play(service("a", **manual), service("b", **manual), service("c", "b"))
    play.start()
    assert play.states() == "a=unloaded b=starting c=waiting"


def test_starting_what_is_up_is_done_at_once() -> None:
    assert chain().start("b") == ["answer r2 done"]


def test_two_starts_join() -> None:
    play = Play(service("a"))
    play.start("a")
    assert play.start("a") == []
    assert play.runs("a") == ["a starting > running", "answer r1 done", "answer r2 done"]


def test_a_stub_is_told_everything_at_once_and_goes_on_by_itself() -> None:
    play = Play(python("p"), timers=True)
    assert play.start("p") == ["p unloaded > waiting", "p waiting > loading", "spawn p", "arm p ready 60"]
    assert play.born("p") == []
    assert play.connects("p") == ["tell p load", "tell p init", "tell p start"]
    assert play.reports("p", "loaded") == ["p loading > loaded"]
    assert play.reports("p", "initialized") == ["p loaded > initialized"]
    assert play.reports("p", "loaded") == []
    assert play.reports("p", "starting") == ["p initialized > starting"]
    assert play.reports("p", "running") == ["disarm p ready", "p starting > running", "answer r1 done"]


def test_readiness_that_is_probed() -> None:
    play = Play(service("a", ready=ReadyKind.TCP), python("p", "a", ready=ReadyKind.NOTIFY))
    play.start()
    assert play.runs("a") == ["probe a"]
    assert play.ready("a") == ["a starting > running", "p waiting > loading", "spawn p"]
    play.born("p")
    play.connects("p")
    assert play.reports("p", "running") == ["p loading > starting", "probe p"]
    assert play.ready("p") == ["p starting > running", "answer r1 done"]


def test_a_task_is_up_when_it_has_completed() -> None:
    play = Play(task("setup"), service("web", "setup"), service("log", requires("setup", Condition.SPAWNED)))
    play.start()
    assert play.runs("setup") == ["setup starting > running", "log waiting > starting", "spawn log"]
    assert play.cause("web") == "for setup (running)"
    assert play.exits("setup") == ["setup running > completed", "web waiting > starting", "spawn web"]
    assert play.runs("log", "web") == ["log starting > running", "web starting > running", "answer r1 done"]
    assert play.start("web") == ["answer r2 done"], "a completed task is not run again for its dependents"
    assert play.start("setup") == ["setup completed > waiting", "setup waiting > starting", "spawn setup"]
    assert play.state("web") == "running"


def test_wants_waits_for_the_first_attempt_only() -> None:
    play = Play(service("cache"), service("web", wants("cache")))
    play.start("web")
    assert play.states() == "cache=starting web=waiting"
    assert play.spawn_fails("cache") == ["cache starting > backoff", "web waiting > starting", "spawn web"]


def test_wants_does_not_wait_for_what_cannot_start() -> None:
    play = Play(service("db", restart=NEVER), service("cache", "db"), service("web", wants("cache")))
    play.start("web")
    assert play.spawn_fails("db") == ["db starting > failed", "web waiting > starting", "spawn web"]
    assert play.cause("cache") == "for db (failed: cannot start db: no such file)"


def test_after_orders_only_what_starts_anyway() -> None:
    play = Play(service("metrics"), service("web", after("metrics")))
    assert "spawn web" in play.start("web")
    play = Play(service("metrics"), service("web", after("metrics")))
    assert "spawn web" not in play.start()
    assert "spawn web" in play.runs("metrics")


def test_turns_are_first_come_first_served() -> None:
    play = Play(service("a"), service("b"), service("c"), max_parallel=1)
    assert [line for line in play.start() if line.startswith("spawn")] == ["spawn a"]
    assert play.cause("c") == "for its turn (max_parallel 1)"
    assert "spawn b" in play.runs("a")
    assert "spawn c" in play.spawn_fails("b")
    play.later(1).fires("b", "restart")
    assert play.cause("b") == "for its turn (max_parallel 1)"
    assert "spawn b" in play.runs("c")


def test_a_stop_gives_the_place_in_the_queue_away() -> None:
    play = Play(service("a"), service("b"), service("c"), max_parallel=1)
    play.start()
    play.stop("b")
    assert "spawn c" in play.runs("a")


# ---- stopping ----


def test_a_stop_takes_dependents_along_and_they_come_back_with_it() -> None:
    play = chain()
    assert play.stop("a") == ["c running > stopping", "signal c 15"]
    assert play.cause("b") == "a was stopped by request; what depends on it ends first"
    assert play.exits("c") == ["c stopping > waiting", "b running > stopping", "signal b 15"]
    assert play.exits("b") == ["b stopping > waiting", "a running > stopping", "signal a 15"]
    assert play.dies("a", 15) == ["a stopping > stopped", "answer r2 done"]
    assert play.actions[-1].also == ("c", "b")
    assert play.cause("b") == "for a (stopped by request)"
    assert play.cause("c") == "for b (waiting; requires a, which is down (stopped by request))"
    assert play.start("a") == ["a stopped > waiting", "a waiting > starting", "spawn a"]
    assert "spawn b" in play.runs("a")
    assert "spawn c" in play.runs("b")


def test_what_was_stopped_by_name_does_not_come_back() -> None:
    play = chain()
    play.stop("b")
    play.exits("c")
    play.exits("b")
    play.stop("a")
    play.exits("a")
    play.start("a")
    play.runs("a")
    assert play.states() == "a=running b=stopped c=waiting"


def test_what_stop_takes_along_is_known_before() -> None:
    play = chain()
    assert play.machine.stopped_along(["a"]) == ("c", "b")
    assert play.machine.stopped_along(["a", "b"]) == ("c",)
    assert play.machine.stopped_along(["c"]) == ()


def test_a_stop_that_takes_too_long_ends_in_a_kill() -> None:
    play = Play(service("a"), timers=True).all_up()
    assert play.stop("a") == ["a running > stopping", "arm a stop 10", "signal a 15"]
    assert play.later(10).fires("a", "stop") == ["kill a"]
    assert play.cause("a") == "did not stop within 10 s: killed"
    assert play.dies("a") == ["a stopping > stopped", "answer r2 done"]
    assert play.cause("a") == "stopped by request; did not stop within 10 s: killed"


def test_a_kill_on_the_way_to_a_restart_is_told_as_well() -> None:
    play = Play(service("a"), timers=True).all_up()
    play.restart("a")
    play.later(10).fires("a", "stop")
    play.dies("a")
    assert [each.cause for each in play.machine.story("a")][-2:] == [
        "restarted by request; did not stop within 10 s: killed",
        "restarted by request",
    ]


def test_a_kill_after_a_failed_start_is_told_as_well() -> None:
    play = Play(service("a", ready=ReadyKind.TCP, restart=NEVER), timers=True)
    play.start()
    play.born("a")
    play.executed("a")
    play.later(60).fires("a", "ready")
    play.later(10).fires("a", "stop")
    play.dies("a")
    assert play.cause("a").startswith("not ready within 60 s")
    assert play.cause("a").endswith("; did not stop within 10 s: killed")


def test_a_stop_hook_that_failed_is_told_in_the_end() -> None:
    play = Play(service("a", hooks=frozenset({Hook.PRE_STOP, Hook.POST_STOP}))).all_up()
    play.stop("a")
    play.hook_ends("a", "pre_stop", "exit code 3")
    play.exits("a")
    play.hook_ends("a", "post_stop", "no end within 1 s: killed")
    assert play.cause("a") == (
        "stopped by request; pre_stop hook: exit code 3; post_stop hook: no end within 1 s: killed"
    )


def test_a_diamond_stops_from_the_top() -> None:
    play = Play(service("d"), service("l", "d"), service("r", "d"), service("t", "l", "r")).all_up()
    assert play.stop("d") == ["t running > stopping", "signal t 15"]
    assert play.exits("t") == [
        "t stopping > waiting",
        "l running > stopping",
        "signal l 15",
        "r running > stopping",
        "signal r 15",
    ]
    assert play.exits("r") == ["r stopping > waiting"]
    assert play.exits("l") == ["l stopping > waiting", "d running > stopping", "signal d 15"]


def test_soft_dependents_end_first_only_if_they_go_down_too() -> None:
    play = Play(service("cache"), service("web", wants("cache"))).all_up()
    assert play.stop("cache", "web") == ["web running > stopping", "signal web 15"]
    play = Play(service("cache"), service("web", wants("cache"))).all_up()
    assert play.stop("cache") == ["cache running > stopping", "signal cache 15"]


def test_stop_of_a_stub_in_its_start_waits_for_the_start_to_end() -> None:
    play = Play(python("p"), timers=True)
    play.start("p")
    play.born("p")
    play.connects("p")
    assert play.stop("p") == ["answer r1 superseded: superseded by a stop of p", "tell p stop"]
    assert play.cause("p") == "stop queued: waits for the start to end"
    assert play.reports("p", "loaded") == ["p loading > loaded"]
    assert play.reports("p", "stopping") == ["disarm p ready", "p loaded > stopping", "arm p stop 10"]
    assert play.exits("p") == ["disarm p stop", "p stopping > stopped", "answer r2 done"]


def test_a_queued_stop_begins_when_the_start_has_ended_or_takes_too_long() -> None:
    for line in ("running", None):
        play = Play(python("p"))
        play.start("p")
        play.born("p")
        play.connects("p")
        play.stop("p")
        trace = play.reports("p", line) if line else play.fires("p", "ready")
        assert trace == ["p loading > stopping"]


def test_a_stub_that_has_not_connected_is_signalled() -> None:
    play = Play(python("p"))
    play.start("p")
    play.born("p")
    assert play.stop("p")[1:] == ["p loading > stopping", "signal p 15"]
    assert play.connects("p") == ["tell p stop"]


def test_a_stop_before_the_birth_is_caught_up_with() -> None:
    play = Play(service("a"))
    play.start("a")
    assert play.stop("a")[1:] == ["a starting > stopping"]
    assert play.born("a") == ["signal a 15"]
    play = Play(service("a"))
    play.start("a")
    play.shut_down(ShutdownLevel.KILL)
    assert play.born("a") == ["kill a"]


def test_stop_while_waiting_and_in_backoff_ends_it() -> None:
    play = Play(service("a"), service("b", "a"), timers=True)
    play.start()
    assert "b waiting > stopped" in play.stop("b")
    play.spawn_fails("a")
    assert play.stop("a") == [
        "answer r1 superseded: superseded by a stop of a; superseded by a stop of b",
        "disarm a restart",
        "a backoff > stopped",
        "answer r3 done",
    ]


def test_stop_of_what_never_started() -> None:
    assert Play(service("a")).stop("a") == ["a unloaded > stopped", "answer r1 done"]


def test_stops_join() -> None:
    play = Play(service("a")).all_up()
    play.stop("a")
    assert play.stop("a") == []
    assert play.exits("a") == ["a stopping > stopped", "answer r2 done", "answer r3 done"]


# ---- crashes ----


def test_a_crash_takes_dependents_down_in_reverse_and_brings_all_back() -> None:
    play = chain().later(20)
    assert play.dies("a") == [
        "a running > waiting",
        "c running > stopping",
        "signal c 15",
        "a waiting > starting",
        "spawn a",
    ]
    assert play.cause("c") == "a crashed: signal SIGKILL"
    assert play.runs("a") == ["a starting > running"]
    assert play.exits("c") == ["c stopping > waiting", "b running > stopping", "signal b 15"], "marks are sticky"
    assert play.exits("b") == ["b stopping > waiting", "b waiting > starting", "spawn b"]
    assert play.cause("b") == "back after a crashed: signal SIGKILL"
    assert play.runs("b") == ["b starting > running", "c waiting > starting", "spawn c"]
    play.runs("c")
    assert [play.machine.services[name].restarts for name in "abc"] == [1, 0, 0]


def test_dependents_wait_through_retries_and_see_them() -> None:
    play = chain()
    play.dies("a")
    play.exits("c")
    play.exits("b")
    assert play.cause("a") == "signal SIGKILL; next try in 0.1 s"
    assert play.cause("b") == "for a (backoff, next try in 0.1 s)"
    play.fires("a", "restart")
    assert play.cause("b") == "for a (starting)"


def test_dependents_of_what_failed_for_good_wait_with_that_cause() -> None:
    play = Play(service("a", restart=NEVER), service("b", "a"), service("c", "b")).all_up()
    play.exits("a", 1)
    play.exits("c")
    play.exits("b")
    assert play.states() == "a=failed b=waiting c=waiting"
    assert play.cause("b") == "for a (failed: exit code 1)"
    assert play.cause("c") == "for b (waiting; requires a, which failed (exit code 1))"
    assert play.machine.settled()
    assert play.start("c") == [
        "a failed > waiting",
        "a waiting > starting",
        "spawn a",
    ], "what c requires is tried again"


def test_on_crash_notify_and_ignore() -> None:
    play = Play(
        service("a"),
        service("n", requires("a", on_crash=OnCrash.NOTIFY)),
        service("i", requires("a", on_crash=OnCrash.IGNORE)),
    ).all_up()
    assert play.dies("a") == ["notice n: a crashed: signal SIGKILL; it requires it", "a running > backoff"]
    assert play.states() == "a=backoff n=running i=running"
    play.fires("a", "restart")
    play.runs("a")
    assert play.stop("a") == ["n running > stopping", "signal n 15", "i running > stopping", "signal i 15"]


def test_wants_is_not_touched_by_a_crash() -> None:
    play = Play(service("a"), service("b", wants("a"))).all_up()
    assert play.dies("a") == ["a running > backoff"]


def test_a_dependent_that_crashes_while_it_is_stopped_comes_back_all_the_same() -> None:
    play = Play(service("a"), service("b", "a", restart=NEVER)).all_up()
    play.dies("a")
    assert play.dies("b", 11) == ["b stopping > waiting"]
    assert play.machine.services["b"].restarts == 0


def test_a_crash_in_someone_elses_cascade() -> None:
    play = chain().later(20)
    play.dies("a")
    assert play.dies("b", 11) == ["b running > waiting"], "b waits for a; c ends in its own time"
    play.runs("a")
    assert play.state("b") == "starting"
    assert play.exits("c") == ["c stopping > waiting"]
    assert "spawn c" in play.runs("b")


def test_two_crashes_at_once() -> None:
    play = Play(service("a"), service("b"), service("t", "a", "b")).all_up().later(20)
    play.dies("a")
    play.dies("b")
    play.exits("t")
    assert "spawn t" not in play.runs("a")
    assert play.cause("t") == "for b (starting)"
    assert "spawn t" in play.runs("b")


def test_a_crash_fans_out_and_each_branch_stops_at_once() -> None:
    play = Play(service("a"), *(service(f"d{index}", "a") for index in range(3))).all_up()
    assert play.dies("a")[1:] == [
        "d0 running > stopping",
        "signal d0 15",
        "d1 running > stopping",
        "signal d1 15",
        "d2 running > stopping",
        "signal d2 15",
    ]


def test_a_stub_that_announces_its_end_is_believed_at_once() -> None:
    play = Play(python("p", restart=NEVER), service("b", "p")).all_up()
    assert play.reports("p", "stopping", "ValueError: bad") == [
        "p running > stopping",
        "b running > stopping",
        "signal b 15",
    ]
    assert play.exits("p", 0) == ["p stopping > failed"], "an announced error is a crash, whatever the exit code"
    assert play.cause("p") == "ValueError: bad"


def test_a_service_that_ends_well_by_itself() -> None:
    play = Play(service("a"), service("b", "a")).all_up()
    assert play.exits("a") == ["a running > completed", "b running > stopping", "signal b 15"]
    play.exits("b")
    assert play.cause("b") == "for a (completed)"


def test_the_end_of_a_required_task_is_no_crash() -> None:
    play = Play(task("t"), service("b", requires("t", Condition.SPAWNED)))
    play.start()
    play.runs("t", "b")
    assert play.exits("t") == ["t running > completed", "answer r1 done"]
    assert play.state("b") == "running"


def test_an_end_before_it_is_ready_is_a_failed_start_whatever_its_code() -> None:
    play = Play(service("a", ready=ReadyKind.NOTIFY, restart=NEVER), service("b", "a"))
    play.start()
    play.executed("a")
    assert play.exits("a", 0)[0] == "a starting > failed"
    assert play.cause("a") == "ended before it was ready: exit code 0"
    assert play.states() == "a=failed b=waiting"


def test_but_a_task_is_done_then_and_a_program_that_was_executed_was_ready() -> None:
    play = Play(task("a", ready=ReadyKind.NOTIFY), service("b"))
    play.start()
    play.executed("a")
    play.exits("a", 0)
    play.exits("b", 0)
    assert play.states() == "a=completed b=completed"


def test_not_ready_in_time_is_a_failed_start() -> None:
    play = Play(service("a", ready=ReadyKind.NOTIFY), timers=True)
    play.start()
    play.runs("a")
    assert play.later(60).fires("a", "ready") == ["a starting > stopping", "arm a stop 10", "signal a 15"]
    assert play.dies("a", 15) == ["disarm a stop", "a stopping > backoff", "arm a restart 0.1"]
    assert play.cause("a") == "not ready within 60 s: no READY=1 so far; next try in 0.1 s"


@pytest.mark.parametrize("ready", [ReadyKind.NOTIFY, ReadyKind.IMMEDIATE])
def test_an_end_before_readiness_is_a_failed_start_for_the_policy_too(ready: ReadyKind) -> None:
    only_starts = RestartPolicy(mode=RestartMode.NEVER, by_cause=((RunEnd.START, RestartMode.ALWAYS),))
    play = Play(service("a", ready=ready, restart=only_starts))
    play.start()
    play.runs("a")
    play.exits("a", 5)
    comes_back = ready is ReadyKind.NOTIFY
    words = "ended before it was ready: exit code 5; next try in 0.1 s"
    assert (play.states(), play.cause("a")) == (("a=backoff", words) if comes_back else ("a=failed", "exit code 5"))


def test_an_end_with_success_is_no_crash_even_if_the_policy_restarts_it() -> None:
    always = RestartPolicy(mode=RestartMode.ALWAYS)
    play = Play(service("a", restart=always), service("b", "a")).all_up()
    play.exits("a", 0)
    assert play.cause("b") == "a ended: exit code 0"
    assert [each.cause for each in play.machine.changes(1)] == ["a ended: exit code 0"]


def test_a_rolling_restart_is_one_change() -> None:
    play = Play(service("a"), service("b")).all_up()
    play.restart("a", "b", rolling=True)
    for name in ("a", "b"):
        play.exits(name)
        play.runs(name)
    (change,) = play.machine.changes(1)
    assert (change.cause, list(change.services)) == ("restart of a, b, one after the other", ["a", "b"])
    assert not change.is_open


def test_a_scheduled_run_says_so_even_if_somebody_needs_the_task() -> None:
    play = Play(task("a", scheduled=True), service("b", Dependency("a", condition=Condition.COMPLETED)))
    play.start()
    play.runs("a")
    play.exits("a")
    assert "a waiting > starting" in play.schedule("a")
    assert play.cause("a") == "its scheduled time has come"


def test_who_starts_along_is_known_before() -> None:
    play = Play(service("web", "api"), service("api", "db"), service("db"), service("apart"))
    assert play.machine.started_along(["web"]) == ("db", "api")
    assert play.machine.started_along(["db", "web"]) == ("api",)
    play.all_up()
    assert play.machine.started_along(["web"]) == ()
    play.stop("db")
    assert play.machine.started_along(["web"]) == ("db",), "api waits for it, and is up as far as that goes"


def test_what_the_last_try_has_found_is_told_meanwhile_and_after_the_time_is_over() -> None:
    play = Play(service("a", ready=ReadyKind.TCP, restart=NEVER), timers=True)
    play.start()
    play.runs("a")
    assert play.cause("a") == "waits for its readiness"
    play.missed("a", "connection refused")
    play.missed("a", "connection reset")
    assert play.cause("a") == "waits for its readiness: connection reset"
    play.later(60).fires("a", "ready")
    play.missed("a", "too late")
    play.exits("a")
    assert play.cause("a") == "not ready within 60 s: connection reset"


def test_a_python_service_that_is_not_ready_in_time_says_how_far_it_came() -> None:
    play = Play(python("a", restart=NEVER), timers=True)
    play.start()
    play.born("a")
    play.connects("a")
    play.reports("a", "loaded")
    play.later(60).fires("a", "ready")
    play.exits("a")
    assert play.cause("a") == "not ready within 60 s: init() has not ended"


def test_who_waits_for_health_is_told_what_is_wrong() -> None:
    health = HealthPolicy(failure_threshold=2, on_failure=HealthAction.REPORT)
    play = Play(service("a", health=health), service("b", Dependency("a", condition=Condition.HEALTHY)))
    play.start()
    play.runs("a")
    assert play.cause("b") == "for a (running, not found healthy yet)"
    play.unhealthy("a", "status 500")
    play.unhealthy("a", "status 503")
    assert play.cause("b") == "for a (running, unhealthy: status 503 (2 times in a row))"
    assert play.machine.services["a"].ailment == "status 503 (2 times in a row)"
    play.healthy("a")
    play.runs("b")
    assert play.machine.services["a"].ailment == ""
    assert play.states() == "a=running b=running"


def test_a_probe_that_gives_up_is_a_failed_start() -> None:
    play = Play(service("a", ready=ReadyKind.TCP, restart=NEVER))
    play.start()
    play.runs("a")
    assert play.unready("a", "connection refused") == ["a starting > stopping", "signal a 15"]
    assert play.exits("a") == ["a stopping > failed", "answer r1 failed: a failed: not ready: connection refused"]


def test_leftovers_are_cleared_before_anything_else() -> None:
    play = Play(service("a"), service("b", "a"), timers=True).all_up()
    assert play.exits("a", 1, leftovers=True) == [
        "a running > stopping",
        "signal a 15",
        "arm a leftovers 1",
        "b running > stopping",
        "arm b stop 10",
        "signal b 15",
    ]
    assert play.cause("a") == "exit code 1; clearing what it left behind"
    assert play.later(1).fires("a", "leftovers") == ["kill a"]
    assert play.leftovers_gone("a") == ["a stopping > backoff", "arm a restart 0.1"]
    assert play.cause("a") == "exit code 1; next try in 0.1 s"


def test_leftovers_after_a_stop_have_the_rest_of_its_timeout() -> None:
    play = Play(service("a", stop=StopPolicy(timeout_s=2)), timers=True).all_up()
    play.stop("a")
    assert play.later(1.5).exits("a", 0, leftovers=True) == ["disarm a stop", "signal a 15", "arm a leftovers 0.5"]
    assert play.leftovers_gone("a") == ["disarm a leftovers", "a stopping > stopped", "answer r2 done"]


def test_leftovers_after_a_kill_are_killed() -> None:
    play = Play(service("a")).all_up()
    play.stop("a")
    play.later(10).fires("a", "stop")
    assert play.dies("a", 9, leftovers=True) == ["kill a"]


def test_an_exit_may_be_heard_before_the_birth() -> None:
    play = Play(service("a", restart=NEVER))
    play.start()
    assert play.exits("a", 3) == ["a starting > failed", "answer r1 failed: a failed: exit code 3"]
    assert play.born("a") == []
    assert play.executed("a") == []
    assert play.machine.ignored == 2


# ---- the restart policy ----


def test_backoff_grows_and_a_long_run_makes_the_next_crash_a_first_one() -> None:
    play = Play(service("a", restart=RestartPolicy(intensity=Intensity(None))), timers=True).all_up()
    for delay in ("0.1", "0.2", "0.4"):
        assert play.exits("a", 1)[-1] == f"arm a restart {delay}"
        play.later(1).fires("a", "restart")
        play.runs("a")
    assert play.later(10).exits("a", 1) == [
        "a running > waiting",
        "a waiting > starting",
        "spawn a",
        "arm a ready 60",
    ]
    play.runs("a")
    assert play.exits("a", 1)[-1] == "arm a restart 0.1"


def test_intensity_is_exceeded_and_a_start_clears_it() -> None:
    policy = RestartPolicy(intensity=Intensity(2, 60), backoff=Backoff(0.0))
    play = Play(service("a", restart=policy)).all_up()
    for _ in range(2):
        assert play.exits("a", 1)[-1] == "spawn a"
        play.runs("a")
    assert play.exits("a", 1) == ["a running > unavailable"]
    assert play.cause("a") == "2 restarts within 60 s; last: exit code 1"
    assert play.start("a")[-1] == "spawn a"
    assert play.machine.services["a"].restarts == 0
    play.runs("a")
    assert play.exits("a", 1)[-1] == "spawn a"


def test_a_slow_crasher_is_caught_by_the_sliding_window_and_a_slower_one_is_not() -> None:
    policy = RestartPolicy(intensity=Intensity(2, 60), reset_after_s=10)
    for pause, last in ((25, "a running > unavailable"), (35, "spawn a")):
        play = Play(service("a", restart=policy)).all_up()
        for _ in range(3):
            trace = play.later(pause).exits("a", 1)
            if trace[-1] == "spawn a":
                play.runs("a")
        assert trace[-1] == last


def test_no_restarts_at_all() -> None:
    play = Play(service("a", restart=RestartPolicy(intensity=Intensity(0)))).all_up()
    assert play.later(100).exits("a", 1) == ["a running > unavailable"]


@pytest.mark.parametrize(
    ("mode", "code", "state"),
    [
        (RestartMode.NEVER, 0, "completed"),
        (RestartMode.NEVER, 1, "failed"),
        (RestartMode.ON_FAILURE, 0, "completed"),
        (RestartMode.ON_FAILURE, 1, "backoff"),
        (RestartMode.ON_FAILURE, 7, "failed"),
        (RestartMode.ALWAYS, 0, "backoff"),
        (RestartMode.ALWAYS, 1, "backoff"),
        (RestartMode.ALWAYS, 7, "failed"),
    ],
)
def test_modes_and_codes(mode: RestartMode, code: int, state: str) -> None:
    play = Play(service("a", restart=RestartPolicy(mode=mode, prevent_codes=frozenset({7})))).all_up()
    play.exits("a", code)
    assert play.state("a") == state


@pytest.mark.parametrize(
    ("policy", "end", "rule"),
    [
        (RestartPolicy(mode=RestartMode.NEVER), {"code": 1}, "restart.policy is never"),
        (RestartPolicy(prevent_codes=frozenset({7})), {"code": 7}, "restart.prevent_codes has 7"),
        (RestartPolicy(prevent_signals=frozenset({11})), {"signal": 11}, "restart.prevent_codes has SIGSEGV"),
        (
            RestartPolicy(by_cause=((RunEnd.SIGNAL, RestartMode.NEVER),)),
            {"signal": 9},
            "restart.by_cause.signal is never",
        ),
        (RestartPolicy(mode=RestartMode.NEVER, by_cause=((RunEnd.SIGNAL, RestartMode.ALWAYS),)), {"code": 1},
         "restart.policy is never"),
    ],
)  # fmt: skip
def test_what_has_failed_says_which_rule_forbids_its_restart(
    policy: RestartPolicy, end: dict[str, int], rule: str
) -> None:
    play = Play(service("a", restart=policy)).all_up()
    play.tell(ProcessExited(play.at, "a", play.spawned["a"], ExitStatus(**end)))
    view = play.machine.services["a"]
    assert (view.state.value, view.not_restarted) == ("failed", rule)
    play.start("a")
    assert view.not_restarted == ""


def test_a_task_that_succeeds_is_done_whatever_its_mode() -> None:
    play = Play(task("t", restart=RestartPolicy(mode=RestartMode.ALWAYS))).all_up()
    assert play.state("t") == "completed"


# ---- restarts by request, and the latest intent ----


def test_a_restart_takes_dependents_along() -> None:
    play = chain()
    assert play.restart("b") == ["c running > stopping", "signal c 15"]
    assert play.exits("c") == ["c stopping > waiting", "b running > stopping", "signal b 15"]
    assert play.exits("b") == ["b stopping > waiting", "b waiting > starting", "spawn b"]
    assert play.runs("b") == ["b starting > running", "c waiting > starting", "spawn c", "answer r2 done"]
    assert play.actions[-1].also == ("c",)


def test_a_restart_of_what_is_down_starts_it() -> None:
    assert Play(service("a")).restart("a")[-1] == "spawn a"


def test_a_stop_in_the_first_half_of_a_restart() -> None:
    play = Play(service("a")).all_up()
    play.restart("a")
    assert play.stop("a") == ["answer r2 superseded: superseded by a stop of a"]
    assert play.exits("a") == ["a stopping > stopped", "answer r3 done"]


def test_a_stop_in_the_second_half_of_a_restart() -> None:
    play = Play(service("a")).all_up()
    play.restart("a")
    play.exits("a")
    assert play.stop("a") == ["answer r2 superseded: superseded by a stop of a", "a starting > stopping"]
    assert play.born("a") == ["signal a 15"]
    assert play.exits("a") == ["a stopping > stopped", "answer r3 done"]


def test_a_start_in_the_middle_of_a_stop() -> None:
    play = Play(service("a")).all_up()
    play.stop("a")
    assert play.start("a") == ["answer r2 superseded: superseded by a start of a"]
    assert play.exits("a") == ["a stopping > waiting", "a waiting > starting", "spawn a"]
    assert play.runs("a") == ["a starting > running", "answer r3 done"]


def test_a_start_of_a_dependent_overtakes_the_stop_of_what_it_requires() -> None:
    play = chain()
    play.stop("a")
    assert play.start("c")[0] == "answer r2 superseded: superseded by a start of c"
    play.exits("c")
    play.exits("b")
    assert play.exits("a")[-1] == "spawn a"


def test_a_later_restart_overtakes_an_earlier_one_and_a_start_joins() -> None:
    play = Play(service("a")).all_up()
    play.restart("a")
    play.start("a")
    assert play.restart("a") == ["answer r2 superseded: superseded by a restart of a"]
    play.exits("a")
    assert play.runs("a") == ["a starting > running", "answer r3 done", "answer r4 done"]


def test_a_start_in_a_backoff_starts_at_once() -> None:
    play = Play(service("a"), timers=True).all_up()
    play.exits("a", 1)
    assert play.start("a") == [
        "disarm a restart",
        "a backoff > waiting",
        "a waiting > starting",
        "spawn a",
        "arm a ready 60",
    ]


def test_a_start_while_it_ends_by_itself_runs_it_again() -> None:
    play = Play(python("p", restart=NEVER)).all_up()
    play.reports("p", "stopping", "bad")
    play.start("p")
    assert play.exits("p", 1)[-1] == "spawn p"


def test_a_start_fails_with_the_chain_of_causes() -> None:
    play = Play(service("a", restart=NEVER), service("b", "a"), service("c", "b"))
    play.start("c")
    assert play.exits("a", 1)[-1] == (
        "answer r1 failed: cannot start c: requires b, which requires a, which failed (exit code 1)"
    )


def test_a_start_waits_through_retries() -> None:
    play = Play(service("a"))
    play.start("a")
    assert play.exits("a", 1) == ["a starting > backoff"]
    play.fires("a", "restart")
    assert play.runs("a")[-1] == "answer r1 done"


def test_a_stop_of_a_requirement_ends_a_start() -> None:
    play = Play(service("a"), service("b", "a"))
    play.start("b")
    play.stop("a")
    play.born("a")
    assert play.exits("a") == ["a stopping > stopped", "answer r2 done"]
    assert play.cause("b") == "for a (stopped by request)"


def test_one_that_failed_and_one_that_runs() -> None:
    play = Play(service("a", restart=NEVER), service("b"))
    play.start("a", "b")
    play.runs("b")
    assert play.spawn_fails("a")[-1] == "answer r1 failed: cannot start a: no such file"
    assert [each.outcome.value for each in play.actions[-1].results] == ["failed", "done"]


def test_an_abandoned_request_is_not_answered_but_stays_in_force() -> None:
    play = Play(service("a"))
    play.start("a")
    assert play.tell(RequestAbandoned(0, "r1")) == []
    assert play.runs("a") == ["a starting > running"]
    assert play.machine.open_requests == 0


def test_a_task_that_is_paused_keeps_nobody_waiting() -> None:
    play = Play(task("t"))
    play.start("t")
    play.executed("t")
    assert "answer r1 superseded: superseded by a pause of t" in play.pause("t")
    assert play.machine.settled()
    assert "t paused > running" in play.start("t")
    assert "answer r3 done" in play.exits("t")


# ---- signals, unknown names, unregistering ----


def test_signals_go_to_the_main_process_and_change_no_desire() -> None:
    play = Play(service("a"), service("b", restart=NEVER)).all_up()
    play.exits("b", 1)
    assert play.signal(10, "a", "b") == [
        "signal a 10 alone",
        "answer r2 failed: cannot signal b: it has no process (failed)",
    ]


def test_unknown_names_are_refused_as_a_whole() -> None:
    play = Play(service("store"))
    assert play.start("store", "stor") == ["answer r1 refused: cannot start: no service 'stor'; did you mean 'store'?"]
    assert play.state("store") == "unloaded"


def test_unregistering() -> None:
    play = Play(service("a"), service("b", "a"), service("w", wants("a"))).all_up()
    assert play.unregister("a") == ["answer r2 refused: cannot remove a: required by b"]
    assert play.unregister("b") == ["b running > stopping", "signal b 15"]
    assert play.exits("b") == ["b stopping > stopped", "forget b", "answer r3 done"]
    assert play.unregister("a") == ["a running > stopping", "signal a 15"]
    assert play.exits("a") == ["a stopping > stopped", "forget a", "answer r4 done"]
    assert list(play.machine.services) == ["w"]
    play.restart("w")
    assert play.exits("w")[-1] == "spawn w", "a wish for what is gone holds nobody"


def test_what_is_registered_again_is_wanted_again() -> None:
    play = Play(service("a"), service("b", wants("a"))).all_up()
    play.unregister("a")
    play.exits("a")
    assert play.apply(added=(service("a", "b"),))[0].endswith("its dependencies form a cycle: b -> a -> b")
    play.apply(added=(service("a"),))
    play.stop("a")
    play.exits("a")
    assert "a stopped > waiting" in play.restart("b")
    assert play.exits("b") == ["b stopping > waiting"], "for a"


def test_unregistering_what_waits() -> None:
    play = Play(service("a"), service("b", "a"), timers=True)
    play.start()
    play.spawn_fails("a")
    assert play.unregister("b") == ["forget b", "answer r2 done"]
    assert play.unregister("a") == [
        "answer r1 superseded: superseded by the removal of a; superseded by the removal of b",
        "disarm a restart",
        "forget a",
        "answer r3 done",
    ]
    assert play.machine.settled()


# ---- changes of configuration ----


def test_an_apply_is_done_when_who_was_taken_along_is_back() -> None:
    play = chain()
    play.apply(service("a"))
    play.exits("c")
    play.exits("b")
    play.exits("a")
    assert [each.cause for each in play.machine.story("a")][-1] == "restarted for its new configuration"
    assert play.runs("a") == ["a starting > running", "b waiting > starting", "spawn b"]
    assert play.runs("b") == ["b starting > running", "c waiting > starting", "spawn c"]
    assert play.runs("c") == ["c starting > running", "answer r2 done"]


def test_an_apply_fails_when_who_was_taken_along_does_not_come_back() -> None:
    play = Play(service("a"), service("b", "a", restart=NEVER)).all_up()
    play.apply(service("a"))
    play.exits("b")
    play.exits("a")
    play.runs("a")
    assert play.spawn_fails("b")[-1] == "answer r2 failed: cannot start b: no such file"


def test_an_apply_waits_for_what_waits_for_its_turn() -> None:
    play = Play(service("a"), service("b", "a"))
    play.start()
    assert play.apply(service("b", "a")) == ["adopt b"]
    play.runs("a")
    assert play.runs("b") == ["b starting > running", "answer r1 done", "answer r2 done"]


def test_what_is_being_removed_starts_nobody() -> None:
    play = Play(service("far"), service("gone", wants("far")), service("w", wants("gone"))).all_up()
    play.stop("far", "w")
    play.exits("far")
    play.exits("w")
    play.unregister("gone")
    play.start("w")
    assert play.states() == "far=stopped gone=stopping w=starting"


def test_a_task_to_be_done_anew_has_not_been_done() -> None:
    """Even for who is looked at before it: nobody starts against its old success."""
    play = Play(task("setup"), service("broken", restart=NEVER), service("app", "broken"))
    play.start()
    play.exits("setup")
    play.spawn_fails("broken")
    told = play.apply(service("app", requires("setup", Condition.COMPLETED)), start=("setup",))
    assert "spawn app" not in told, told
    assert play.exits("setup")[:3] == ["setup starting > completed", "app waiting > starting", "spawn app"]


# ---- the end ----


def test_a_shutdown_drains_in_reverse_order() -> None:
    play = chain()
    assert play.shut_down() == ["c running > stopping", "signal c 15"]
    assert play.exits("c") == ["c stopping > stopped", "b running > stopping", "signal b 15"]
    assert play.start("c") == ["answer r3 refused: cannot start: the cluster is shutting down"]
    assert play.exits("b") == ["b stopping > stopped", "a running > stopping", "signal a 15"]
    assert play.exits("a") == ["a stopping > stopped", "answer r2 done", "end 0"]
    assert play.shut_down() == ["answer r4 done"]


def test_a_shutdown_of_nothing_ends_at_once() -> None:
    assert Play(service("a")).shut_down() == ["answer r1 done", "end 0"]


def test_a_shutdown_overtakes_all_requests_and_backoffs() -> None:
    play = Play(service("a"), service("b", "a"))
    play.start()
    play.spawn_fails("a")
    assert play.shut_down() == [
        "answer r1 superseded: superseded by the shutdown",
        "a backoff > stopped",
        "b waiting > stopped",
        "answer r2 done",
        "end 0",
    ]


def test_a_shutdown_in_a_hurry() -> None:
    play = Play(service("a"), service("b", "a"), timers=True).all_up()
    play.shut_down()
    assert play.later(2).shut_down(ShutdownLevel.NOW) == ["arm b stop 1"]
    assert play.exits("b")[1:] == ["b stopping > stopped", "a running > stopping", "arm a stop 1", "signal a 15"]


def test_a_hurried_stop_is_never_made_longer() -> None:
    play = Play(service("a", stop=StopPolicy(timeout_s=5)), timers=True).all_up()
    play.shut_down()
    assert play.later(4.5).shut_down(ShutdownLevel.NOW) == []


def test_a_shutdown_that_kills() -> None:
    play = chain()
    play.shut_down()
    assert play.shut_down(ShutdownLevel.KILL) == [
        "a running > stopping",
        "kill a",
        "b running > stopping",
        "kill b",
        "kill c",
    ]
    play.dies("a")
    play.dies("b")
    assert play.dies("c") == ["c stopping > stopped", "answer r2 done", "answer r3 done", "end 0"]
    assert play.cause("a") == "cluster shutdown; killed"


# ---- connections ----


def test_a_stub_without_a_connection_is_signalled_instead() -> None:
    play = Play(python("p")).all_up()
    assert play.loses_connection("p") == ["notice p: its stub's connection was lost"]
    assert play.stop("p") == ["p running > stopping", "signal p 15"]


def test_a_stub_that_comes_back_is_not_given_its_code_again() -> None:
    play = Play(python("p")).all_up()
    play.loses_connection("p")
    assert play.connects("p") == []
    assert play.stop("p") == ["p running > stopping", "tell p stop"]
