"""`preload: auto`: what a service was seen to import is there before its next start, and never in its way.

Must not measure time: what is preloaded says so itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clusters import wait_until
from stage import Stage
from test_fork_servers import servers, told

SLOW = "import os, time\ntime.sleep(0.02)\npid = os.getpid()\n"
USER = """
    import os, sys
    import own
    pid = sys.modules["slow"].pid if "slow" in sys.modules else None
    import slow
    def main(ctx):
        print(os.getpid(), "preloaded" if pid not in (None, os.getpid()) else "imported", slow.pid, flush=True)
        ctx.stopping.wait()
"""
SERVICES = """
    a: {command: null, python: "user:main", preload: auto, env: {PYTHONPATH: null}}
"""


def installed(stage: Stage) -> Path:
    """A directory of packages that svcd has and the service's code has not."""
    packages = stage.directory / "site-packages"
    packages.mkdir(exist_ok=True)
    before = stage.environ.get("PYTHONPATH")
    stage.environ["PYTHONPATH"] = f"{packages}:{before}" if before else str(packages)
    return packages


def up(stage: Stage, services: str = SERVICES) -> Path:
    packages = installed(stage)
    (packages / "slow.py").write_text(SLOW)
    stage.write(SLOW, "own.py")
    stage.write(USER, "user.py")
    stage.up(services)
    return packages


def history(stage: Stage) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((stage.state_dir / "imports.json").read_text())
    return found


def wait_preloaded(stage: Stage) -> None:
    wait_until(lambda: any(line["event"] == "preloaded" for line in stage.journal()), "imports in a fork server")


def test_what_took_long_is_preloaded_for_the_next_start(stage: Stage) -> None:
    up(stage)
    assert told(stage, "a")[0] == "imported"
    wait_preloaded(stage)
    assert list(history(stage)["services"]["a"]["imports"]) == ["slow"], "not the service's own code"
    before = stage.pid_of("a")
    stage.does("restart", "a")
    assert told(stage, "a")[0] == "preloaded"
    assert stage.pid_of("a") != before
    stage.drain()
    stage.start()
    assert told(stage, "a")[0] == "preloaded", "the history outlives svcd"
    stage.drain()


def test_other_packages_are_another_history(stage: Stage) -> None:
    packages = up(stage)
    wait_preloaded(stage)
    (packages / "another").mkdir()
    stage.does("restart", "a")
    assert told(stage, "a")[0] == "imported"
    stage.drain()


def test_what_cannot_be_preloaded_is_left_out_and_costs_nothing(stage: Stage) -> None:
    packages = installed(stage)
    (packages / "slow.py").write_text(SLOW)
    thread = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    (packages / "ticking.py").write_text(SLOW + thread)
    stage.write("import ticking\n" + SLOW, "own.py")
    stage.write(USER, "user.py")
    stage.up(SERVICES)
    wait_until(lambda: (stage.state_dir / "imports.json").exists() and history(stage)["unfit"], "what is unfit")
    assert "importing it starts a thread" in history(stage)["unfit"]["ticking"]
    wait_preloaded(stage)
    stage.does("restart", "a")
    assert told(stage, "a")[0] == "preloaded"
    stage.drain()


def test_a_history_that_is_nonsense_is_no_history(stage: Stage) -> None:
    stage.state_dir.mkdir()
    (stage.state_dir / "imports.json").write_text('{"version": 1, "services": [')
    up(stage)
    assert told(stage, "a")[0] == "imported"
    wait_until(lambda: servers(stage), "a fork server with what was seen now")
    stage.drain()
