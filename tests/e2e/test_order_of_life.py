"""Whole clusters start in dependency order, drain in reverse, and cascade when something in the middle dies.

Must not look inside the daemon: the trace is svcd's own log.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import pytest
from clusters import Cluster, Transition, descendants

GRAPH = """
    cluster: diamond
    services:
      base: {command: exec sleep 1000}
      left: {command: exec sleep 1000, depends_on: [base]}
      right: {code: "async def main(ctx):\\n    await ctx.stopping.wait_async()\\n", depends_on: [base]}
      top: {command: exec sleep 1000, depends_on: [left, right]}
      apart: {command: exec sleep 1000}
      tip: {code: "def main(ctx):\\n    ctx.stopping.wait()\\n", depends_on: [top]}
"""
EDGES = (("left", "base"), ("right", "base"), ("top", "left"), ("top", "right"), ("tip", "top"))
ON_ITS_WAY = ("loading", "starting")
DOWN = ("stopped", "waiting", "completed", "failed", "backoff", "unavailable")


def first(trace: Sequence[Transition], service: str, *states: str) -> int:
    """Where the service entered one of ``states`` for the first time."""
    for index, each in enumerate(trace):
        if each.service == service and each.new in states:
            return index
    raise AssertionError(f"{service} never was {states}: {trace}")


def entered(trace: Sequence[Transition], *states: str) -> list[str]:
    """The services in the order in which they entered one of ``states``."""
    return [each.service for each in trace if each.new in states]


def test_starts_in_dependency_order_and_drains_in_reverse(cluster: Cluster) -> None:
    cluster.write(GRAPH)
    pid = cluster.start()
    assert set(cluster.states().values()) == {"running"}
    parts = {part.name: part.pid for part in cluster.status().parts}
    assert parts["guardian"] == pid
    mark = cluster.mark()

    assert cluster.drain() == 0

    whole, drained = cluster.transitions(), cluster.since(mark)
    assert whole[-len(drained) :] == drained, "the log and the events must tell the same story"
    for dependent, dependency in EDGES:
        assert first(whole, dependency, "running") < first(whole, dependent, *ON_ITS_WAY)
        assert first(drained, dependent, "stopped") < first(drained, dependency, "stopping")
    assert sorted(entered(drained, "stopped")) == ["apart", "base", "left", "right", "tip", "top"]
    assert not cluster.run_dir.exists()
    assert descendants() == []


def test_a_restart_takes_the_dependents_down_and_up_in_order(cluster: Cluster) -> None:
    cluster.write(GRAPH)
    cluster.start()
    before, mark = cluster.row("tip"), cluster.mark()
    cluster.svcd("restart", "left")
    cluster.wait_state("tip", "running", after=before.invocation)
    trace = cluster.since(mark)
    assert entered(trace, "stopping") == ["tip", "top", "left"]
    assert entered(trace, "running") == ["left", "top", "tip"]
    assert cluster.row("left").restarts == 0, "a restart that was asked for is not counted"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_stops_the_dependents_in_reverse_and_brings_them_back(cluster: Cluster, how: signal.Signals) -> None:
    cluster.write(GRAPH)
    cluster.start()
    before = {row.service: row for row in cluster.status().services}
    mark = cluster.mark()

    os.kill(before["base"].pid or 0, how)
    cluster.wait_state("tip", "running", after=before["tip"].invocation)

    trace = cluster.since(mark)
    for dependent, dependency in EDGES:
        if dependency != "base":
            assert first(trace, dependent, *DOWN) < first(trace, dependency, "stopping")
        assert first(trace, dependency, "running") < first(trace, dependent, *ON_ITS_WAY)
    assert first(trace, "base", *DOWN) == 0
    after = {row.service: row for row in cluster.status().services}
    assert after["apart"] == before["apart"] or after["apart"].pid == before["apart"].pid
    assert after["base"].restarts == 1
    assert after["top"].restarts == 0
    assert all(row.state == "running" for row in after.values())


def test_stop_takes_the_dependents_along_and_start_brings_them_back(cluster: Cluster) -> None:
    cluster.write(GRAPH)
    cluster.start()
    out = cluster.svcd("stop", "left").out
    assert "top" in out
    states = cluster.states()
    assert states["left"] == "stopped"
    assert (states["top"], states["tip"]) == ("waiting", "waiting")
    assert states["right"] == states["base"] == "running"
    assert "left" in cluster.row("top").cause
    cluster.svcd("status", code=3)
    cluster.svcd("start", "left")
    cluster.wait_state("tip", "running")
    cluster.svcd("status", code=0)


def test_the_latest_intent_wins(cluster: Cluster) -> None:
    cluster.write(
        """
        services:
          slow:
            command: "trap 'sleep 0.2; exit 0' TERM; echo up; while :; do sleep 0.1; done"
            ready: {log: up}
        """
    )
    cluster.start()
    cluster.svcd("restart", "--no-wait", "slow")
    cluster.svcd("stop", "slow")
    assert cluster.states() == {"slow": "stopped"}
    assert cluster.row("slow").pid is None


def test_a_task_holds_its_dependents_until_it_has_completed(cluster: Cluster) -> None:
    gate = cluster.directory / "gate"
    os.mkfifo(gate)
    cluster.write(
        f"""
        services:
          setup: {{type: task, command: "cat {gate} > setup.txt"}}
          after: {{command: exec sleep 1000, depends_on: [setup]}}
        """
    )
    cluster.start(wait=None)
    cluster.wait_state("setup", "running")
    assert cluster.row("after").state == "waiting"
    gate.write_text("go")
    cluster.wait_state("after", "running")
    assert cluster.row("setup").state == "completed"
    assert (cluster.directory / "setup.txt").read_text() == "go"
    cluster.svcd("status")


def test_readiness_by_notification_holds_dependents(cluster: Cluster) -> None:
    gate = cluster.directory / "gate"
    os.mkfifo(gate)
    cluster.write(
        """
        import os, socket, time
        open("gate").read()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1))
        time.sleep(1000)
        """,
        "told.py",
    )
    cluster.write(
        """
        services:
          told: {command: [python3, told.py], ready: {notify: true}}
          after: {command: exec sleep 1000, depends_on: [told]}
        """
    )
    cluster.start(wait=None)
    cluster.wait_state("told", "starting")
    assert cluster.row("after").state == "waiting"
    gate.write_text("go")
    cluster.wait_state("after", "running")


def test_one_interrupt_drains_and_a_second_one_hurries(cluster: Cluster) -> None:
    cluster.write(
        """
        services:
          deaf:
            command: "trap '' TERM; echo deaf; while :; do sleep 0.1; done"
            ready: {log: deaf}
            stop: {timeout: 1h}
          polite: {command: exec sleep 1000, depends_on: [deaf]}
        """
    )
    cluster.start()
    assert cluster.process is not None
    cluster.process.send_signal(signal.SIGINT)
    cluster.wait_state("deaf", "stopping")
    cluster.process.send_signal(signal.SIGINT)
    assert cluster.wait_end() == 0
    assert entered(cluster.transitions(), "stopped") == ["polite", "deaf"]
