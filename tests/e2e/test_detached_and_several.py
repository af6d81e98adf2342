"""`svcd start -d`, several clusters side by side, and the words on the console.

Must not test how things look in a terminal: that is the command line's own tests'.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
from collections.abc import Callable

import psutil
from clusters import SVCD, Cluster, wait_until

SLEEPER = "services: {a: {command: exec sleep 1000}}\n"


def test_detached_returns_when_all_is_up(cluster: Cluster) -> None:
    cluster.write(
        "services: {a: {command: exec sleep 99, ready: {delay: 300ms}}, b: {command: exec sleep 99, depends_on: [a]}}\n"
    )
    cluster.start_detached()
    status = json.loads(cluster.svcd("status", "--json").out)
    assert [row["state"] for row in status["services"]] == ["running", "running"]
    guardian = psutil.Process(status["pid"])
    assert os.getsid(guardian.pid) == guardian.pid, "it must not share a session with whoever started it"
    assert guardian.name().startswith("svcd: guardian") or "svcd: guardian" in " ".join(guardian.cmdline())
    guardian.terminate()
    wait_until(lambda: not cluster.run_dir.exists(), "the drain")


def test_detached_says_what_failed(cluster: Cluster) -> None:
    cluster.write("services: {a: {command: 'echo oh dear; exit 5', restart: {policy: never}, ready: {delay: 20s}}}\n")
    outcome = cluster.start_detached(code=3)
    assert "exit code 5" in outcome.out + outcome.err
    assert "oh dear" in outcome.out + outcome.err
    cluster.svcd("shutdown")
    assert not cluster.run_dir.exists()


def test_detached_says_why_it_is_down_again(cluster: Cluster) -> None:
    cluster.write(
        """
        services:
          a: {command: exit 5, ready: {delay: 20s}, restart: {policy: never}, essential: true}
          b: {command: exec sleep 1000}
        """
    )
    outcome = cluster.start_detached(code=1)
    first, *rest = outcome.err.splitlines()
    assert first.endswith("essential service a failed: ended before it was ready: exit code 5: the cluster shuts down")
    assert len(rest) == 1, "a hint, and no log"
    wait_until(lambda: not cluster.run_dir.exists(), "the drain")


def test_detached_says_why_it_is_about_to_be_down(cluster: Cluster) -> None:
    """Whatever the drain takes, and before the log has it."""
    cluster.write(
        """
        services:
          a: {command: exit 5, ready: {delay: 20s}, restart: {policy: never}, essential: true, depends_on: [b]}
          b: {command: "trap '' TERM; echo deaf; while :; do sleep 0.05; done", ready: {log: deaf}, stop: {timeout: 1h}}
        """
    )
    outcome = cluster.start_detached(code=1)
    assert outcome.err.splitlines()[0].endswith("ended before it was ready: exit code 5: the cluster shuts down")
    os.kill(cluster.pid_of("b"), signal.SIGKILL)
    wait_until(lambda: not cluster.run_dir.exists(), "the drain")


def test_status_as_json_has_what_programs_rely_on(cluster: Cluster) -> None:
    cluster.write(
        "cluster: shop\nservices: {a: {command: exec sleep 99}, b: {command: exec sleep 99, depends_on: [a]}}\n"
    )
    pid = cluster.start()
    status = json.loads(cluster.svcd("status", "--json").out)
    assert status["cluster"] == "shop"
    assert status["pid"] == pid
    assert status["state"] == "running"
    assert {"guardian", "controller", "collector", "launcher"} <= {part["name"] for part in status["parts"]}
    rows = {row["name"]: row for row in status["services"]}
    assert set(rows["a"]) >= {
        "name", "service", "instance", "state", "desired", "pid", "invocation", "restarts", "since", "cause",
        "cpu_percent", "memory_bytes", "depends_on",
    }  # fmt: skip
    assert rows["b"]["depends_on"] == ["a"]
    assert rows["a"]["desired"] == "up"


def test_processes_are_the_guardians_children_with_names(cluster: Cluster) -> None:
    cluster.write(
        "cluster: shop\nservices: {a: {command: exec sleep 1000}, web: {code: 'def main(ctx): ctx.stopping.wait()'}}\n"
    )
    pid = cluster.start()
    children = {child.pid: " ".join(child.cmdline()).strip() for child in psutil.Process(pid).children()}
    for row in cluster.status().services:
        assert row.pid in children
        assert os.getsid(row.pid or 0) == row.pid
    assert children[cluster.pid_of("web")] == "svcd: service shop/web"
    for name, title in (("controller", "svcd: controller shop"), ("collector", "svcd: collector shop")):
        assert any(text.startswith(title) for text in children.values()), (name, children)


def test_two_clusters_side_by_side(make_cluster: Callable[[str], Cluster]) -> None:
    one, two = make_cluster("one"), make_cluster("two")
    one.write("cluster: one\n" + SLEEPER)
    two.write("cluster: two\n" + SLEEPER)
    one.start()
    two.start()
    pid = two.pid_of("a")
    one.svcd("stop", "a")
    assert two.pid_of("a") == pid
    assert one.drain() == 0
    assert two.pid_of("a") == pid
    two.svcd("status")
    assert two.drain() == 0


def test_output_is_kept_byte_for_byte_over_rotations(cluster: Cluster) -> None:
    dice = random.Random(11)
    blob = b"".join(
        [
            dice.randbytes(200_000),  # not UTF-8, lines of any length
            b"x" * 300_000 + b"\n",  # longer than a file
            b"\n" * 1000,
            b"no newline at the end",
        ]
    )
    (cluster.directory / "blob").write_bytes(blob)
    cluster.write(
        """
        services:
          a:
            command: cat blob; cat blob >&2; exec sleep 1000
            logs: {max_size: 64KiB, keep: 50}
        """
    )
    cluster.start()
    wait_until(lambda: len(cluster.output("a")) >= len(blob) <= len(cluster.output("a", "stderr")), "all its output")
    for stream in ("stdout", "stderr"):
        assert hashlib.sha256(cluster.output("a", stream)).digest() == hashlib.sha256(blob).digest()
    piped = subprocess.run(
        [SVCD, "logs", "--stream", "stdout", "-n", "all", "a"],
        env=cluster.environ,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert piped.stdout == blob
    files = list((cluster.state_dir / "logs" / "a").iterdir())
    assert all(file.stat().st_size <= 64 * 1024 for file in files)


def test_the_last_words_of_a_killed_service_are_kept(cluster: Cluster) -> None:
    cluster.write(
        """
        services:
          a: {command: "printf 'the very last'; kill -KILL $$$$", restart: {policy: never}}
        """
    )
    cluster.start()
    cluster.wait_state("a", "failed")
    cluster.drain()
    assert cluster.output("a") == b"the very last"


def test_the_console_shows_output_with_the_services_name(cluster: Cluster) -> None:
    cluster.write("services: {talker: {command: 'echo good morning; exec sleep 1000'}}\n")
    cluster.start()
    wait_until(
        lambda: any(
            line.startswith("talker") and "good morning" in line for line in cluster.console.read_text().splitlines()
        ),
        "its output on the console",
    )
    assert "\x1b" not in cluster.console.read_text(), "escape codes where there is no terminal"
    cluster.drain()
    assert "Traceback" not in cluster.console.read_text()


def test_a_console_that_is_gone_harms_nobody(cluster: Cluster) -> None:
    cluster.write("services: {a: {command: 'while :; do echo noise; sleep 0.01; done'}}\n")
    cluster.start()
    pid = cluster.pid_of("a")
    for part in cluster.status().parts:
        if part.name == "console":
            os.kill(part.pid, signal.SIGKILL)
    cluster.wait_status(lambda status: "console" not in [part.name for part in status.parts], "the console's end")
    assert cluster.pid_of("a") == pid
    assert cluster.drain() == 0
