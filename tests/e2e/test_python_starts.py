"""Starts and stops of Python services that overlap: a stop waits for the start to end, well or badly (design 4.2).

Must not test the stub by itself: tests/worker does. The service here does nothing before the test says so.
"""

from __future__ import annotations

import os

from stage import Stage
from traces import either, stops, together

LOADS = "waiting → loading → loaded → initialized → starting"
CODE = """
    import asyncio, os
    from svcd import Service

    async def gate(name):
        while not os.path.exists(name):
            await asyncio.sleep(0.01)

    class Slow(Service):
        async def start(self):
            await gate("start")
            if os.path.exists("break"):
                raise RuntimeError("no luck")

        async def stop(self, reason):
            await gate("stop")
            print("stopped:", reason, flush=True)
"""


def up(stage: Stage, more: str = "") -> None:
    stage.write(CODE, "slow.py")
    stage.write(
        f"""
        defaults: {{start: manual, restart: {{policy: never}}}}
        services:
          slow: {{python: "slow:Slow"}}
          user: {{command: exec sleep 1000, depends_on: [slow]}}
          {more}
        """
    )
    stage.start()
    stage.skip()


def open_gate(stage: Stage, name: str) -> None:
    os.close(os.open(stage.directory / name, os.O_CREAT))


def test_a_start_is_a_start_when_start_has_returned(stage: Stage) -> None:
    up(stage)
    asked = stage.order("start", "user")
    stage.tells(together(f"slow: unloaded → {LOADS}", "user: unloaded → waiting"))
    open_gate(stage, "start")
    assert asked.outcome() == "done"
    stage.tells("slow: starting → running", "user: waiting → starting → running")
    open_gate(stage, "stop")
    stage.drains(stops("user", "slow"))


def test_a_stop_during_the_start_waits_for_its_end_and_then_stops(stage: Stage) -> None:
    up(stage)
    start = stage.order("start", "slow")
    stage.tells(f"slow: unloaded → {LOADS}")
    stop = stage.order("stop", "slow")
    assert start.outcome() == "superseded: superseded by a stop of slow"
    assert stage.row("slow").cause == "stop queued: waits for the start to end"
    open_gate(stage, "start")
    stage.tells("slow: starting → stopping")
    open_gate(stage, "stop")
    assert stop.outcome() == "done"
    stage.tells("slow: stopping → stopped")
    stage.drain()
    assert stage.output("slow") == b"stopped: stopped by request\n"


def test_a_stop_during_a_start_that_fails_ends_stopped_as_asked(stage: Stage) -> None:
    up(stage)
    open_gate(stage, "break")
    open_gate(stage, "stop")
    stage.order("start", "slow")
    stage.tells(f"slow: unloaded → {LOADS}")
    stop = stage.order("stop", "slow")
    open_gate(stage, "start")
    assert stop.outcome() == "done"
    stage.tells(either("slow: starting → stopping → stopped", "slow: starting → stopped"))


def test_a_start_that_fails_is_always_followed_by_a_stop(stage: Stage) -> None:
    up(stage)
    open_gate(stage, "break")
    open_gate(stage, "stop")
    open_gate(stage, "start")
    assert stage.order("start", "slow").outcome().startswith("failed: slow failed: ")
    stage.tells(f"slow: unloaded → {LOADS}", either("slow: starting → stopping → failed", "slow: starting → failed"))
    stage.drain()
    assert stage.output("slow").startswith(b"stopped: ")


def test_a_start_during_the_stop_comes_after_it(stage: Stage) -> None:
    up(stage)
    open_gate(stage, "start")
    stage.does("start", "slow")
    stage.skip()
    stop = stage.order("stop", "slow")
    stage.tells("slow: running → stopping")
    start = stage.order("start", "slow")
    assert stop.outcome() == "superseded: superseded by a start of slow"
    open_gate(stage, "stop")
    assert start.outcome() == "done"
    stage.tells(f"slow: stopping → {LOADS} → running")


def test_restarts_that_come_when_they_like_leave_one(stage: Stage) -> None:
    up(stage)
    open_gate(stage, "start")
    open_gate(stage, "stop")
    stage.does("start", "slow")
    orders = [stage.order("restart", "slow") for _ in range(20)]
    assert [order.outcome() for order in orders][-1] == "done"
    assert len(stage.processes("slow")) == 1
    assert stage.row("slow").state == "running"
