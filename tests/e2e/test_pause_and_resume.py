"""Pause and resume: programs by signal, Python services by their own methods; and what comes in between.

Must not test which requests overtake which beyond pauses.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from clusters import wait_until
from stage import Order, Stage
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
    row = stage.row("a")
    assert (row.state, row.cause) == ("running", "cannot pause: RuntimeError: not now")
    said = stage.svcd("pause", "a", code=3).err.splitlines()[0]
    assert said == "svcd: cannot pause a: RuntimeError: not now"


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


# ---- in the middle of a pause of a Python service's own --------------------------------------------------------------

SLOW = """\
from svcd import Service
class Slow(Service):
    def pause(self):
        print("pausing", flush=True)
        open("gate").close()
    def resume(self): print("resuming", flush=True)
    def stop(self, reason): print("stopping", flush=True)
"""


def slow_pause(stage: Stage, stop_timeout: str = "1h", others: str = "") -> tuple[Path, Order]:
    """``a``, whose pause goes on until somebody writes to the gate, and the order to pause it."""
    stage.write(SLOW, "slow.py")
    gate = stage.directory / "gate"
    os.mkfifo(gate)
    stage.up(f"a: {{command: null, python: 'slow:Slow', stop: {{timeout: {stop_timeout}}}}}\n{others}")
    pausing = stage.order("pause", "a")
    wait_until(lambda: stage.output("a") == b"pausing\n", "it to begin its pause")
    return gate, pausing


def test_a_pause_that_takes_its_time_holds_up_nobody_else(stage: Stage) -> None:
    gate, pausing = slow_pause(stage, others="b: {}")
    assert stage.row("a").cause == "asked to pause"
    stage.skip()
    stage.does("restart", "b")
    stage.does("pause", "b")
    stage.skip()
    gate.open("w").close()
    assert pausing.outcome() == "done"
    stage.tells("a: running → paused")


def test_a_second_pause_joins_the_first(stage: Stage) -> None:
    gate, pausing = slow_pause(stage)
    second = stage.order("pause", "a")
    gate.open("w").close()
    assert (pausing.outcome(), second.outcome()) == ("done", "done")
    stage.tells("a: running → paused")
    assert stage.output("a") == b"pausing\n"


@pytest.mark.parametrize("verb", ["resume", "start"])
def test_a_resume_in_the_middle_of_a_pause_wins(stage: Stage, verb: str) -> None:
    gate, pausing = slow_pause(stage)
    resuming = stage.order(verb, "a")
    assert pausing.outcome().startswith("superseded")
    gate.open("w").close()
    assert resuming.outcome() == "done"
    stage.wait_state("a", "running")
    wait_until(lambda: stage.output("a") == b"pausing\nresuming\n", "its words")
    stage.tells("a: running → paused → running")


def test_a_pause_in_the_middle_of_a_resume_wins(stage: Stage) -> None:
    swapped = SLOW.replace("def pause", "def later").replace("def resume", "def pause").replace("later", "resume")
    stage.write(swapped, "slow.py")
    gate = stage.directory / "gate"
    os.mkfifo(gate)
    stage.up("a: {command: null, python: 'slow:Slow'}")
    stage.does("pause", "a")
    resuming = stage.order("resume", "a")
    pausing = stage.order("pause", "a")
    assert resuming.outcome().startswith("superseded")
    gate.open("w").close()
    assert pausing.outcome() == "done"
    stage.tells("a: running → paused → running → paused")


@pytest.mark.parametrize(("verb", "after"), [("stop", "stopped"), ("restart", "running")])
def test_a_stop_in_the_middle_of_a_pause_waits_for_it_to_end(stage: Stage, verb: str, after: str) -> None:
    gate, pausing = slow_pause(stage)
    stopping = stage.order(verb, "a")
    assert pausing.outcome().startswith("superseded")
    assert stage.output("a") == b"pausing\n"
    gate.open("w").close()
    assert stopping.outcome() == "done"
    assert stage.row("a").state == after
    wait_until(lambda: stage.output("a") == b"pausing\nstopping\n", "its words")


def test_a_stop_does_not_wait_for_ever_for_a_pause(stage: Stage) -> None:
    _, pausing = slow_pause(stage, "200ms")
    stage.does("stop", "a")
    assert pausing.outcome().startswith("superseded")
    stage.tells("a: running → stopping → stopped")


def test_a_crash_in_the_middle_of_a_pause(stage: Stage) -> None:
    _, pausing = slow_pause(stage)
    stage.crash("a")
    assert pausing.outcome().startswith("failed")
    stage.wait_state("a", "running")
