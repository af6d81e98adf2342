"""State that survives: over restarts, shutdowns and crashes, and what becomes of a file that cannot be used."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from clusters import wait_until
from stage import Stage

COUNTER = """
    import asyncio, signal, threading
    from svcd import Service

    class Counter(Service):
        def init(self, config):
            self.count, self.more = 0, config.get("more", {})
            if config.get("lock"):
                self.more["lock"] = threading.Lock()

        def import_state(self, state):
            if state["count"] == "bad":
                raise ValueError("that is no count")
            self.count = state["count"]

        async def start(self):
            self.count += 1
            print(f"count {self.count} {self.ctx.state_version}\\n", end="", flush=True)
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self.step)

        def step(self):
            self.count += 10
            print(f"stepped to {self.count}\\n", end="", flush=True)

        def export_state(self):
            return {"count": self.count, **self.more}
"""


def up(stage: Stage, keys: str = "state: keep", config: str = "{}") -> None:
    stage.write(COUNTER, "counter.py")
    stage.write(
        f"""
        services:
          counter: {{python: "counter:Counter", {keys}, config: {config}, restart: {{policy: always}}}}
        """
    )
    stage.start()


def said(stage: Stage) -> list[str]:
    return stage.output("counter").decode().splitlines()


def says(stage: Stage, *lines: str) -> None:
    """This is all that it has said in all its runs, once the last has been heard."""
    wait_until(lambda: len(said(stage)) >= len(lines), f"it says {lines}")
    assert said(stage) == list(lines)


def notices(stage: Stage) -> list[str]:
    return [each["text"] for each in stage.journal() if each["event"] == "notice" and each["service"] == "counter"]


def notes(stage: Stage, *texts: str) -> None:
    """These notices were given, and no others; the journal is a moment late."""
    wait_until(lambda: len(notices(stage)) >= len(texts), f"it is told: {texts}")
    assert notices(stage) == list(texts)


def file(stage: Stage) -> Path:
    return Path(stage.status().state_dir) / "state" / "counter"


def test_a_counter_survives_restarts_and_a_new_cluster(stage: Stage) -> None:
    up(stage, 'state: keep, version: "1.4"')
    assert stage.order("restart", "counter").outcome() == "done"
    found = file(stage)
    assert (found.stat().st_mode & 0o777, found.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    os.kill(stage.pid_of("counter"), signal.SIGUSR1)
    wait_until(lambda: "stepped to 12" in said(stage), "the step")
    assert stage.drain() == 0
    stage.start()
    assert stage.order("restart", "counter").outcome() == "done"
    says(stage, "count 1 None", "count 2 1.4", "stepped to 12", "count 13 1.4", "count 14 1.4")
    assert notices(stage) == []
    row = json.loads(stage.svcd("status", "--json").out)["services"][0]
    assert row["version"] == "1.4"


def test_a_crash_leaves_what_was_saved_last(stage: Stage) -> None:
    up(stage, "state: {every: 20ms}")
    os.kill(stage.pid_of("counter"), signal.SIGUSR1)
    wait_until(lambda: b"\xa5count\x0b" in (file(stage).read_bytes() if file(stage).exists() else b""), "it is saved")
    first = stage.pid_of("counter")
    os.kill(first, signal.SIGKILL)
    says(stage, "count 1 None", "stepped to 11", "count 12 None")


def test_without_intervals_a_crash_leaves_what_the_stop_before_has_saved(stage: Stage) -> None:
    up(stage, "state: {every: 0}")
    assert stage.order("restart", "counter").outcome() == "done"
    os.kill(stage.pid_of("counter"), signal.SIGUSR1)
    wait_until(lambda: "stepped to 12" in said(stage), "the step")
    os.kill(stage.pid_of("counter"), signal.SIGKILL)
    says(stage, "count 1 None", "count 2 None", "stepped to 12", "count 2 None")


def test_without_keep_nothing_is_saved(stage: Stage) -> None:
    up(stage, "state: none")
    assert stage.order("restart", "counter").outcome() == "done"
    says(stage, "count 1 None", "count 1 None")
    assert not file(stage).parent.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is cut off or damaged"),
        (b"\x81\xa4more\x01", "svcd has not written it"),
        (b"\x81\xaasvcd-state\x02", "a newer svcd has written it: it has format 2, and this svcd reads 1"),
    ],
)
def test_a_file_that_cannot_be_used_is_put_aside(stage: Stage, content: bytes, reason: str) -> None:
    up(stage)
    assert stage.order("stop", "counter").outcome() == "done"
    file(stage).write_bytes(content)
    assert stage.order("start", "counter").outcome() == "done"
    says(stage, "count 1 None", "count 1 None")
    aside = file(stage).with_name("counter.bad")
    assert aside.read_bytes() == content
    notes(stage, f"it starts without its saved state: cannot use {file(stage)}: {reason}; it is now counter.bad")
    assert stage.order("restart", "counter").outcome() == "done"
    says(stage, "count 1 None", "count 1 None", "count 2 None")


def test_what_cannot_travel_is_named_and_the_rest_survives(stage: Stage) -> None:
    up(stage, config="{lock: true}")
    assert stage.order("restart", "counter").outcome() == "done"
    assert stage.order("restart", "counter").outcome() == "done"
    says(stage, "count 1 None", "count 2 None", "count 3 None")
    words = "state['lock']: _thread.lock cannot travel"
    notes(stage, f"its state was saved without {words}")  # once, not at each stop
    line = f"svcd: left out of the exported state: {words}"
    wait_until(lambda: stage.output("counter", "stderr").decode().splitlines() == [line, line], "each time in its log")


def test_a_state_that_it_refuses_is_a_failed_start_and_stays(stage: Stage) -> None:
    up(stage, config="{more: {count: bad}}")
    assert stage.order("stop", "counter").outcome() == "done"
    kept = file(stage).read_bytes()
    stage.order("start", "counter")
    stage.wait_state("counter", "backoff", "unavailable")  # after some more tries
    wait_until(lambda: notices(stage), "it is told")
    assert notices(stage)[0] == f"it has refused its saved state; to start it without, remove {file(stage)}"
    assert stage.order("stop", "counter").outcome() == "done"
    assert file(stage).read_bytes() == kept
    file(stage).unlink()
    assert stage.order("start", "counter").outcome() == "done"
    says(stage, "count 1 None", "count 1 None")


def test_a_full_or_locked_directory_is_told_and_costs_only_the_saving(stage: Stage) -> None:
    up(stage)
    file(stage).parent.write_bytes(b"in the way")
    assert stage.order("restart", "counter").outcome() == "done"
    says(stage, "count 1 None", "count 1 None")
    wait_until(lambda: len(notices(stage)) == 2, "it is told")
    assert notices(stage)[0].startswith("cannot save its state: ")
    assert notices(stage)[1].startswith("it starts without its saved state: cannot use ")
    file(stage).parent.unlink()
    assert stage.order("restart", "counter").outcome() == "done"
    assert stage.order("restart", "counter").outcome() == "done"
    says(stage, "count 1 None", "count 1 None", "count 2 None", "count 3 None")
