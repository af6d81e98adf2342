"""What a shell offers when a key is pressed.

Must not test the shells: click knows them.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from fake_daemon import PATIENCE_S, Directories, FakeDaemon, row

# The command line, but that it does not care how long a person waits for an answer.
PATIENT = "from svcd.cli import completion, main; completion.PATIENCE_S = 30.0; main.main()"


def offered(line: str, **environ: str) -> list[str]:
    words = line.split(" ")
    told = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_SVCD_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-c", PATIENT], env={**os.environ, **told, **environ}, capture_output=True, text=True,
        timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return [each.partition(",")[2] for each in done.stdout.splitlines() if each]


@pytest.mark.parametrize(
    "command", ["stop", "restart", "pause", "resume", "status", "logs", "why", "unregister", "update"]
)
def test_names_are_offered(daemon: FakeDaemon, command: str) -> None:
    daemon.rows = [row("api.0", service="api"), row("api.1", service="api"), row("web")]
    assert offered(f"svcd {command} ") == ["api", "api.0", "api.1", "web"]
    assert offered(f"svcd {command} w") == ["web"]


def test_what_is_said_already_is_not_offered_again(daemon: FakeDaemon) -> None:
    daemon.rows = [row("web"), row("db")]
    assert offered("svcd stop web ") == ["db"]
    assert offered("svcd signal HUP w") == ["web"]


def test_commands_are_offered(directories: Directories) -> None:
    assert offered("svcd sta") == ["start", "status"]


def test_without_a_daemon_there_is_nothing_to_offer(directories: Directories) -> None:
    assert offered("svcd stop ") == []


def test_the_cluster_that_the_line_means(daemon: FakeDaemon, directories: Directories) -> None:
    daemon.rows = [row("web")]
    run_dir = str(directories.run_dir)
    for line in (f"svcd --run-dir {run_dir} stop ", f"svcd stop --run-dir {run_dir} "):
        assert offered(line, SVCD_RUN_DIR="/nowhere") == ["web"]
