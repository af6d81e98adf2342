"""docs/tutorial.md: its commands are run, and show what it says; the code that it quotes is that of the shop.

Must not repeat the tutorial: it is read from the file.
"""

from __future__ import annotations

import re
import subprocess
import time

import pytest
from clusters import PATIENCE_S, ROOT, Cluster
from test_preloading_guide import steps_of
from test_readme import Step, assert_shown, prepare
from test_ready_to_run import choose_ports, need

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TUTORIAL, re.M | re.S)
LOOKS = re.compile(r"svcd (status|logs|why|call (billing\.(paid|is_loyal)|reports\.sold))\b")
ANSWERS = re.compile(r"\b(svcd call|curl)\b")
SETS_SHELL = ("cd ", ". ")
PAUSE_S = 0.1


def shop(cluster: Cluster) -> int:
    """A copy of the shop, started by nobody yet; the port of its front."""
    prepare(cluster)
    return choose_ports(cluster, "SHOP_PORT")["SHOP_PORT"]


def run(cluster: Cluster, command: str) -> str:
    """What it prints, on both streams. It must succeed."""
    done = subprocess.run(
        ["bash", "-c", command],
        env=cluster.environ,
        cwd=cluster.directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, f"$ {command}\nexit code {done.returncode}\n{done.stdout}\n{cluster.story()}"
    return done.stdout


def assert_as_shown(step: Step, output: str) -> None:
    """What services answer is compared letter for letter; pids, times and the like may differ."""
    if ANSWERS.search(step.command):
        position = 0
        for line in step.shown:
            found = f"\n{output}\n".find(f"\n{line}", position)
            assert found >= 0, f"$ {step.command}\nthe tutorial shows: {line}\nbut this came:\n{output}"
            position = found + 1
    else:
        assert_shown(step, output)


def take(cluster: Cluster, step: Step, before: str) -> None:
    """What only looks may look again: an event, a line of output or a crash has been on its way."""
    deadline = time.monotonic() + (PATIENCE_S if LOOKS.match(step.command) else 0)
    while True:
        output = run(cluster, before + step.command)
        try:
            return assert_as_shown(step, output)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(PAUSE_S)


@pytest.mark.timeout(300)
def test_the_tutorial_as_written(cluster: Cluster) -> None:
    need("curl")
    port = shop(cluster)
    before = ""
    for step in steps_of(TUTORIAL):
        if step.command.startswith(SETS_SHELL):
            before += f"{step.command} && "
            continue
        take(cluster, step._replace(command=step.command.replace("localhost:8720", f"localhost:{port}")), before)
    assert not cluster.run_dir.exists()


def test_the_code_it_quotes_is_the_shops() -> None:
    code = "".join(flat(path.read_text()) for path in sorted((ROOT / "configs/shop/shop").glob("*.py")))
    quoted = [flat(text) for kind, text in BLOCKS if kind == "python"]
    assert len(quoted) >= 6
    assert [text for text in quoted if text not in code] == []


def flat(code: str) -> str:
    """Its lines, wherever they begin, without the empty ones: a method is quoted without its class."""
    return "".join(f"{line.strip()}\n" for line in code.splitlines() if line.strip())


def test_every_link_leads_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)", TUTORIAL)
    assert targets
    assert [target for target in targets if not (ROOT / "docs" / target).exists()] == []
