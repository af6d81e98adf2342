"""Pause and resume: programs by signal, Python services by their own methods; and what comes in between.

Must not test which requests overtake which beyond pauses.
"""

from __future__ import annotations

from pathlib import Path

from clusters import wait_until
from stage import Stage
from traces import starts, together

PYTHON = """\
from svcd import Service
import os
class Worker(Service):
    def pause(self):
        print("pausing", flush=True)
        if os.path.exists("stubborn"):
            raise RuntimeError("not now")
    async def resume(self):
        print("resuming", flush=True)
"""


def process_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_program_stands_still_and_goes_on(stage: Stage) -> None:
    stage.up('a: {command: "sleep 1000 & wait"}\nb: {depends_on: [a]}')
    pids = stage.processes("a")
    stage.does("pause", "a")
    stage.tells("a: running → paused")
    wait_until(lambda: {process_state(pid) for pid in pids} == {"T"}, "all of it to stand still")
    assert stage.svcd("status").code == 0
    stage.does("resume", "a")
    stage.tells("a: paused → running")
    wait_until(lambda: {process_state(pid) for pid in pids} == {"S"}, "all of it to go on")


def test_its_own_signals(stage: Stage) -> None:
    stage.up(
        "a: {command: \"trap 'echo paused' USR1; trap 'echo resumed' USR2; echo up; while :; do sleep 0.01; done\", "
        "ready: {log: up}, pause: {signal: SIGUSR1, resume_signal: SIGUSR2}}"
    )
    stage.does("pause", "a")
    stage.does("resume", "a")
    stage.tells("a: running → paused → running")


def test_a_python_service_does_it_itself(stage: Stage) -> None:
    stage.write(PYTHON, "worker.py")
    stage.up("a: {command: null, python: 'worker:Worker'}")
    stage.does("pause", "a")
    stage.does("resume", "a")
    stage.tells("a: running → paused → running")
    wait_until(lambda: stage.output("a") == b"pausing\nresuming\n", "its words")


def test_a_python_service_that_will_not_pause_runs_on(stage: Stage) -> None:
    stage.write(PYTHON, "worker.py")
    stage.write("", "stubborn")
    stage.up("a: {command: null, python: 'worker:Worker'}")
    assert "RuntimeError: not now" in stage.order("pause", "a").outcome()
    stage.tells()
    assert stage.row("a").state == "running"


def test_a_script_is_paused_by_signal(stage: Stage) -> None:
    stage.write("import time\ntime.sleep(1000)\n", "script.py")
    stage.up("a: {command: null, script: script.py}")
    pid = stage.pid_of("a")
    stage.does("pause", "a")
    wait_until(lambda: process_state(pid) == "T", "it to stand still")
    stage.does("stop", "a")
    stage.tells("a: running → paused → stopping → stopped")


def test_a_paused_program_can_be_stopped_gracefully(stage: Stage) -> None:
    stage.up(
        "a: {command: \"trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done\", "
        "ready: {log: up}, stop: {timeout: 1h}}"
    )
    stage.does("pause", "a")
    stage.does("stop", "a")
    stage.tells("a: running → paused → stopping → stopped")
    wait_until(lambda: stage.output("a").endswith(b"bye\n"), "its last word")


def test_what_crashes_while_it_is_paused(stage: Stage) -> None:
    stage.up("a: {}\nb: {depends_on: [a]}")
    stage.does("pause", "a")
    stage.crash("a")
    stage.tells(
        "a: running → paused",
        together("a: paused → waiting → starting → running", "b: running → stopping → waiting"),
        starts("b"),
    )


def test_who_starts_meanwhile_is_told_that_it_would_wait_for_ever(stage: Stage) -> None:
    stage.up("a: {}\nb: {depends_on: [a], start: manual}")
    stage.does("pause", "a")
    assert "paused" in stage.order("start", "b").outcome()
    stage.does("resume", "a")
    stage.tells("a: running → paused", "b: unloaded → waiting", "a: paused → running", starts("b"))


def test_a_start_lets_it_go_on(stage: Stage) -> None:
    stage.up("a: {}")
    stage.does("pause", "a")
    stage.does("start", "a")
    stage.tells("a: running → paused → running")


def test_what_does_not_run_cannot_be_paused(stage: Stage) -> None:
    stage.up("a: {start: manual}\nb: {}")
    assert stage.order("pause", "a").outcome() == "failed: cannot pause a: it is unloaded"
    assert stage.order("resume", "b").outcome() == "done"
    outcome = stage.svcd("pause", "a", code=3)
    assert "unloaded" in outcome.err
    stage.tells()


def test_a_drain_ends_what_is_paused(stage: Stage) -> None:
    stage.up("a: {stop: {timeout: 1h}}\nb: {depends_on: [a], stop: {timeout: 1h}}")
    stage.does("pause", "a", "b")
    stage.skip()
    stage.drains("b: paused → stopping → stopped", "a: paused → stopping → stopped")
