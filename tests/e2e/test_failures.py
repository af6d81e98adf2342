"""Services that cannot start, die, or do not listen: `status` says exactly that, and everything of them is reached.

Must not judge wording beyond what a user needs to go on.
"""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import psutil
from clusters import Cluster, descendants, is_alive, wait_until

NEVER = "restart: {policy: never}"


def test_a_program_that_cannot_be_executed(cluster: Cluster) -> None:
    broken = cluster.directory / "broken"
    broken.write_bytes(b"\x7fELF, but not really")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    cluster.write(f"services: {{a: {{command: [./broken], {NEVER}}}}}\n")
    outcome = cluster.start_detached(code=3)
    assert "broken" in outcome.out + outcome.err
    row = cluster.row("a")
    assert row.state == "failed"
    assert "cannot" in row.cause
    assert "broken" in row.cause
    assert row.pid is None
    cluster.svcd("shutdown")


def test_a_module_that_does_not_import(cluster: Cluster) -> None:
    cluster.write("import this_module_does_not_exist\n", "mine.py")
    cluster.write(f"services: {{a: {{python: 'mine:Thing', {NEVER}}}}}\n")
    cluster.start()
    row = cluster.wait_state("a", "failed")
    assert row.exception is not None
    assert "mine.py" in row.exception
    assert "ModuleNotFoundError" in row.exception
    shown = cluster.svcd("status", code=3).out
    assert "ModuleNotFoundError" in shown
    assert "this_module_does_not_exist" in shown


def test_a_class_that_is_not_there(cluster: Cluster) -> None:
    cluster.write("class Other: pass\n", "mine.py")
    cluster.write(f"services: {{a: {{python: 'mine:Thing', {NEVER}}}}}\n")
    cluster.start()
    row = cluster.wait_state("a", "failed")
    assert "Thing" in f"{row.cause} {row.exception}"


def test_a_stop_that_raises_is_told_of(cluster: Cluster) -> None:
    """It is stopped all the same, so its state says nothing of it."""
    cluster.write(
        "from svcd import Service\nclass Thing(Service):\n    def stop(self, reason): raise OSError('stuck\\nfast')\n",
        "mine.py",
    )
    cluster.write("services: {a: {python: 'mine:Thing'}}\n")
    cluster.start()
    cluster.svcd("stop", "a")
    row = cluster.row("a")
    assert (row.state, row.cause) == ("stopped", "stopped by request")
    assert "  its stop failed: OSError: stuck\n" in cluster.svcd("why", "a").out


def test_dying_at_once_is_shown_with_the_last_words(cluster: Cluster) -> None:
    cluster.write(f"services: {{a: {{command: 'echo fine; echo last words >&2; exit 9', {NEVER}}}}}\n")
    cluster.start()
    row = cluster.wait_state("a", "failed")
    assert "exit code 9" in row.cause
    cluster.wait_status(lambda status: "last words" in status.services[0].last_output, "the last words")
    shown = cluster.svcd("status", code=3).out
    assert "exit code 9" in shown
    assert "last words" in shown


def test_dying_by_a_signal_says_which(cluster: Cluster) -> None:
    cluster.write(f"services: {{a: {{command: 'kill -SEGV $$$$', {NEVER}}}}}\n")
    cluster.start()
    assert "SEGV" in cluster.wait_state("a", "failed").cause


def test_a_failure_holds_its_dependents_and_says_so(cluster: Cluster) -> None:
    cluster.write(
        f"""
        services:
          a: {{command: exit 9, {NEVER}, ready: {{delay: 30s}}}}
          b: {{command: exec sleep 1000, depends_on: [a]}}
          c: {{command: exec sleep 1000, depends_on: {{a: {{kind: wants}}}}}}
        """
    )
    cluster.start()
    cluster.wait_state("c", "running")
    row = cluster.row("b")
    assert row.state == "waiting"
    assert "a" in row.cause
    assert "failed" in row.cause
    assert "a" in cluster.svcd("start", "b", code=3).out + cluster.svcd("start", "b", code=3).err


def test_not_ready_in_time_is_a_failed_start(cluster: Cluster) -> None:
    cluster.write(f"services: {{a: {{command: exec sleep 1000, ready: {{notify: true, timeout: 300ms}}, {NEVER}}}}}\n")
    cluster.start()
    row = cluster.wait_state("a", "failed")
    assert "not ready within" in row.cause
    assert row.pid is None


STUBBORN = """
    import os, signal, subprocess, sys, time
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    depth, own_session = int(sys.argv[1]), "setsid" in sys.argv
    if own_session and depth < 3:
        os.setsid()
    with open("pids", "a") as file:
        file.write(f"{os.getpid()}\\n")
    if depth:
        subprocess.Popen([sys.executable, __file__, str(depth - 1), *sys.argv[2:]])
    time.sleep(1000)
"""


def _stubborn(cluster: Cluster, *words: str) -> list[int]:
    """Starts a program that ignores every polite signal, as its descendants do; all their pids."""
    cluster.write(STUBBORN, "stubborn.py")
    command = ", ".join(["python3", "stubborn.py", "'3'", *words])
    cluster.write(f"services: {{a: {{command: [{command}], stop: {{timeout: 200ms}}}}}}\n")
    cluster.start()
    pids = cluster.directory / "pids"
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 4, "four stubborn processes")
    return [int(word) for word in pids.read_text().split()]


def test_the_stop_timeout_kills_every_descendant(cluster: Cluster) -> None:
    pids = _stubborn(cluster)
    assert all(map(is_alive, pids))
    cluster.svcd("stop", "a")
    assert not any(map(is_alive, pids))
    assert any("killed" in each.cause for each in cluster.transitions()) or cluster.row("a").state == "stopped"


def test_descendants_in_sessions_of_their_own_are_reached(cluster: Cluster) -> None:
    pids = _stubborn(cluster, "setsid")
    cluster.svcd("stop", "a")
    assert not any(map(is_alive, pids))


def test_what_a_crash_leaves_behind_is_cleared_before_the_restart(cluster: Cluster) -> None:
    pids = _stubborn(cluster)
    row = cluster.row("a")
    (cluster.directory / "pids").unlink()
    os.kill(row.pid or 0, signal.SIGKILL)
    cluster.wait_state("a", "running", after=row.invocation)
    assert not any(map(is_alive, pids))


def test_the_guardian_killed_leaves_no_orphan(cluster: Cluster) -> None:
    pids = _stubborn(cluster, "setsid")
    assert cluster.process is not None
    cluster.process.kill()
    cluster.wait_end()
    wait_until(lambda: not descendants(), "everything to go down after the guardian")
    assert not any(map(is_alive, pids))

    (cluster.directory / "pids").unlink()
    cluster.start()
    assert cluster.states() == {"a": "running"}


def test_every_part_killed_at_once_and_started_again(cluster: Cluster) -> None:
    cluster.write("services: {a: {command: exec sleep 1000}, b: {code: 'def main(ctx): ctx.stopping.wait()'}}\n")
    cluster.start()
    parts = [psutil.Process(part.pid) for part in cluster.status().parts]
    for part in parts:
        part.suspend()  # nobody sees another's end before its own
    for part in parts:
        part.kill()
    cluster.wait_end()
    wait_until(lambda: not descendants(), "the services to follow the guardian")
    cluster.start()
    assert set(cluster.states().values()) == {"running"}


def test_killing_the_helpers_restarts_no_service(cluster: Cluster) -> None:
    cluster.write("services: {a: {command: exec sleep 1000}, b: {code: 'def main(ctx): ctx.stopping.wait()'}}\n")
    cluster.start()
    before = cluster.status()
    for part in before.parts:
        if part.name in ("launcher", "fork-server", "collector"):
            os.kill(part.pid, signal.SIGKILL)
            cluster.wait_status(
                lambda status, old=part: any(new.name == old.name and new.pid != old.pid for new in status.parts),
                f"a new {part.name}",
            )
    after = cluster.status()
    assert [row.pid for row in after.services] == [row.pid for row in before.services]
    cluster.svcd("restart", "a", "b")
    assert set(cluster.states().values()) == {"running"}


def test_a_service_may_be_gone_with_its_directory(cluster: Cluster, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    cluster.write(f"services: {{a: {{command: exec sleep 1000, workdir: {work}, {NEVER}}}}}\n")
    cluster.start()
    row = cluster.row("a")
    work.rmdir()
    cluster.svcd("restart", "a", code=3)
    assert str(work) in cluster.wait_state("a", "failed", after=row.invocation).cause
