"""Health by a method of the Python service itself: asked while it runs, and what its answers lead to.

Must not test thresholds, which are the same for every kind of check. A file tells the method, once, what to answer.
"""

from __future__ import annotations

import pytest
from clusters import wait_until
from stage import Stage
from traces import starts, together

SERVICE = """\
import asyncio, os, time
from svcd import Service
def told(word):
    try: os.remove(word)
    except FileNotFoundError: return False
    return True
class Web(Service):
    {kind}def look(self):
        if told("hang"): {hang}
        if told("raise"): raise ValueError("no answer from the disk")
        return "the disk is full" if told("full") else None
"""
KINDS = pytest.mark.parametrize("kind", ["", "async "], ids=["sync", "async"])
RISES = "waiting → loading → loaded → initialized → starting → running"
FULL = "unhealthy: look() returned 'the disk is full'"


def up(
    stage: Stage,
    more: str = "",
    kind: str = "",
    method: str = "look",
    others: str = "",
    interval: str = "20ms",
    keys: str = "",
) -> None:
    """``a``, looked after every 20 ms, at once unhealthy, at once healthy again. ``more`` is for its health, ``keys``
    for itself.
    """
    hang = "await asyncio.sleep(1000)" if kind else "time.sleep(1000)"
    stage.write(SERVICE.format(kind=kind, hang=hang), "web.py")
    timeout = "" if "timeout:" in more else ", timeout: 1m"
    health = f"health: {{rpc: {method}, interval: {interval}, failure_threshold: 1{more}{timeout}}}"
    stage.up(f"a: {{command: null, python: 'web:Web', {health}{keys}}}\n{others}")


def wait_healthy(stage: Stage) -> None:
    stage.wait_status(lambda _: stage.row("a").healthy, "a to be healthy")


def wait_notice(stage: Stage, text: str) -> None:
    def heard() -> bool:
        stage.read_events(0.1)
        return text in stage.notices("a")

    wait_until(heard, text)


@KINDS
@pytest.mark.parametrize(
    ("word", "cause"), [("full", FULL), ("raise", "unhealthy: look(): ValueError: no answer from the disk")]
)
def test_what_the_method_says_is_why_it_restarts(stage: Stage, kind: str, word: str, cause: str) -> None:
    up(stage, kind=kind, others="b: {depends_on: [a]}")
    wait_healthy(stage)
    stage.write("", word)
    stage.tells(together(f"a: running → stopping → {RISES}", "b: running → stopping → waiting"), starts("b"))
    assert cause in stage.causes("a")
    wait_healthy(stage)
    assert stage.row("a").restarts == 1


@KINDS
def test_who_is_only_reported_stays(stage: Stage, kind: str) -> None:
    up(stage, ", on_failure: report", kind)
    wait_healthy(stage)
    stage.write("", "full")
    wait_notice(stage, FULL)
    wait_notice(stage, "healthy again")
    stage.tells()


def test_an_async_method_that_hangs_is_a_failure_and_holds_up_no_stop(stage: Stage) -> None:
    """One check of each run: a machine that stands still must not add failures of its own, nor the stop be killed."""
    stage.write("", "hang")
    keys = ", start: manual, stop: {timeout: 1h}, restart: {intensity: {restarts: unlimited}}"
    up(stage, ", timeout: 200ms", kind="async ", interval="1h", keys=keys)
    stage.order("start", "a")
    wait_notice(stage, "unhealthy: look(): no answer within 0.2 s")
    stage.wait_status(lambda _: stage.row("a").restarts and stage.row("a").healthy, "a to be healthy again")
    assert not (stage.directory / "hang").exists()


def test_a_plain_method_that_hangs_holds_up_nobody_else(stage: Stage) -> None:
    up(stage, ", timeout: 200ms, on_failure: report", others="b: {}")
    wait_healthy(stage)
    stage.write("", "hang")
    wait_notice(stage, "unhealthy: look(): no answer within 0.2 s")
    stage.does("restart", "b")
    stage.does("stop", "a")
    assert stage.row("a").state == "stopped"


def test_a_method_that_does_not_exist_is_told(stage: Stage) -> None:
    up(stage, ", on_failure: report", method="look_closely", keys=", start: manual")
    stage.order("start", "a")
    wait_notice(stage, "unhealthy: Web has no method 'look_closely'")


def test_nobody_is_asked_while_paused_and_everybody_afterwards(stage: Stage) -> None:
    up(stage, kind="async ", others="b: {}")  # a plain one could still be on its way in its thread
    wait_healthy(stage)
    stage.does("pause", "a")
    full = stage.write("", "full")
    stage.does("restart", "b")
    assert full.exists()
    stage.skip()
    stage.does("resume", "a")
    stage.tells("a: paused → running", f"a: running → stopping → {RISES}")
