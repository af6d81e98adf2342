"""Runs the README's walk-throughs word for word, and holds what it shows against what a reader would see.

Must not know the commands: they are read from the README. Ports are replaced by free ones, nothing else is.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from clusters import PATIENCE_S, ROOT, Cluster, wait_until
from test_ready_to_run import choose_ports, copy_configs, need

README = (ROOT / "README.md").read_text()
MARK = "@@@"


class Step(NamedTuple):
    command: str
    shown: list[str]


def walk_through(name: str) -> list[Step]:
    """The commands of a walk-through (lines that begin with ``$``), each with the output that the README shows."""
    section = README.split(f"<!-- walk-through: {name} -->")[1].split("<!-- walk-through")[0]
    steps: list[Step] = []
    for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append(Step(line[2:], []))
            elif line.strip():
                steps[-1].shown.append(line)
    assert steps
    return steps


def pattern_of(line: str) -> str:
    """Numbers may differ, be missing (-) or have another unit, and columns be wider; … stands for anything."""
    words = []
    for word in line.replace(" MiB", "MiB").split():
        if found := re.fullmatch(r"\d+(?:\.\d+)?(?:s|%|MiB)([:;,]?)", word):
            words.append(r"(?:-|[\d.]+ ?\w*%?)" + found[1])
        else:
            words.append(re.sub(r"\d+", r"\\d+", re.escape(word)).replace(re.escape("…"), ".*"))
    return r"\s+".join(words)


def assert_shown(step: Step, output: str) -> None:
    """Each line that the README shows is there, in that order."""
    position = 0
    for line in step.shown:
        found = re.compile(pattern_of(line)).search(output, position)
        assert found, f"$ {step.command}\nthe README shows: {line}\nbut this came:\n{output}"
        position = found.end()


def run_steps(cluster: Cluster, steps: list[Step], ports: dict[int, int]) -> None:
    """All steps in one shell, as a reader would type them; each must succeed."""

    def with_ports(text: str) -> str:
        for written, used in ports.items():
            text = text.replace(f"localhost:{written}", f"localhost:{used}")
        return text

    script = "".join(f"{with_ports(step.command)}\necho '{MARK}' $?\n" for step in steps)
    done = subprocess.run(
        ["bash"],
        input=script,
        env=cluster.environ,
        cwd=cluster.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )
    *outputs, _ = re.split(rf"{MARK} (\d+)\n", done.stdout)
    for step, output, code in zip(steps, outputs[::2], outputs[1::2], strict=True):
        assert code == "0", f"$ {step.command}\nexit code {code}\n{output}\n{cluster.story()}"
        assert_shown(step, output)


def prepare(cluster: Cluster) -> Path:
    """A directory that looks like a clone after ``make run``."""
    if not (Path(sys.prefix) / "bin" / "activate").exists():
        pytest.skip("needs to run in a virtual environment, as make test does")
    (cluster.directory / ".venv").symlink_to(sys.prefix)
    return copy_configs(cluster)


def test_quickstart_as_written(cluster: Cluster) -> None:
    need("curl")
    configs = prepare(cluster)
    ports = choose_ports(cluster, "API_PORT", "STORE_PORT")
    assert "svcd start configs/quickstart.yaml" in (ROOT / "Makefile").read_text(), "what make run does has changed"
    cluster.start(configs / "quickstart.yaml")
    wait_until(lambda: cluster.output("ticker"), "ticker's first line")
    run_steps(cluster, walk_through("quickstart"), {8700: ports["API_PORT"]})
    assert cluster.wait_end() == 0


def test_stack_as_written(cluster: Cluster) -> None:
    need("curl", "redis-server", "nginx")
    pytest.importorskip("redis", reason="needs pip install 'svcd[stack]'")
    prepare(cluster)
    ports = choose_ports(cluster, "FRONT_PORT", "WEB_PORT", "REDIS_PORT")
    steps = [Step(". .venv/bin/activate", []), *walk_through("stack")]
    run_steps(cluster, steps, {8080: ports["FRONT_PORT"]})
    assert not cluster.run_dir.exists()


def test_every_link_leads_somewhere() -> None:
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert [target for target in targets if target and not (ROOT / target).exists()] == []


def test_every_dependency_has_its_reason() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    runtime = re.search(r"^dependencies = \[(.*?)^\]", project, re.DOTALL | re.MULTILINE)
    assert runtime
    for name in re.findall(r'"([A-Za-z0-9_-]+)', runtime.group(1)):
        assert re.search(rf"^\| {re.escape(name)} \| \S", README, re.MULTILINE), f"{name} has no reason in the README"


def test_shown_output_is_compared() -> None:
    """The comparison itself can fail."""
    step = Step("svcd status", ["store   running   412  8s  0%  2.5 MiB  ready", "api … waiting"])
    assert_shown(step, "store running 99 1m - - ready\napi  x y waiting\n")
    assert_shown(step, "store running 1 59s 2.5% 999KiB ready\napi  x y waiting\n")
    for wrong in ("api stopped", "store running 99 1m - - ready", ""):
        with pytest.raises(AssertionError, match="the README shows: api"):
            assert_shown(step, f"store running 99 1m - - ready\n{wrong}\n")
    with pytest.raises(AssertionError, match="the README shows: store"):
        assert_shown(step, "store failed 99 1m - - ready\napi  x y waiting\n")
