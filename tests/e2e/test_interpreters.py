"""`interpreter:` for real: virtual environments of every Python that svcd supports, with nothing installed in them.

Must not install anything: what these environments lack is the point.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from clusters import wait_until
from stage import Stage

CODE = """
    import importlib.util, multiprocessing, os, sys
    from svcd import Service

    def name(_):
        return Service.__name__

    class Told(Service):
        async def start(self):
            there = [each for each in LENT if importlib.util.find_spec(each)]
            print(*sys.version_info[:2], sys.prefix, "there:", *there, flush=True)
            self.ctx.logger.warning("logged", key=1)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.map(name, [1]), flush=True)
"""
LENT = ("pydantic", "yaml", "zmq", "structlog", "setproctitle", "numpy", "click")


@functools.cache
def python_of(minor: int) -> str:
    """Some Python 3.minor of this machine, empty where there is none."""
    installed = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
    candidates = [sys.executable, shutil.which(f"python3.{minor}"), *map(str, installed), shutil.which("python3")]
    look = "import sys; sys.exit(sys.version_info[:2] != (3, int(sys.argv[1])))"
    for each in filter(None, candidates):
        if subprocess.run([each, "-c", look, str(minor)], capture_output=True, check=False).returncode == 0:
            return each
    return ""


def environment(stage: Stage, minor: int, name: str = ".venv") -> Path:
    """A fresh virtual environment beside the cluster's file."""
    python = python_of(minor)
    if not python:
        pytest.skip(f"there is no Python 3.{minor} here")
    made = stage.directory / name
    subprocess.run([python, "-m", "venv", "--without-pip", str(made)], check=True)
    return made


def service(stage: Stage, interpreter: str, more: str = "") -> None:
    stage.write(f"LENT = {LENT!r}\n", "lent.py")
    stage.write("from lent import LENT\n" + "\n".join(line[4:] for line in CODE.splitlines()), "user.py")
    keys = f'command: null, python: "user:Told", interpreter: {interpreter}, restart: {{policy: never}}'
    stage.up(f"a: {{{keys}{more}}}", wait="running")


@pytest.mark.parametrize("minor", [11, 12, 13])
def test_a_bare_environment_runs_a_service(stage: Stage, minor: int) -> None:
    """It finds svcd, and nothing else of what is installed for svcd."""
    made = environment(stage, minor)
    service(stage, ".venv/bin/python")
    stage.wait_state("a", "running", "failed")
    wait_until(lambda: b"logged" in stage.output("a", "stderr") and stage.output("a").count(b"\n") > 1, "its words")
    lines = stage.output("a").decode().splitlines()
    assert lines[:2] == [f"3 {minor} {made} there:", "['Service']"], stage.output("a", "stderr").decode()
    (pid,) = [each for each in stage.processes("a") if each == stage.pid_of("a")]
    assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"svcd: service cluster/a")
    stage.drain()
    assert not stage.run_dir.exists(), "what was lent is taken back"


def test_what_an_environment_has_installed_wins(stage: Stage) -> None:
    made = environment(stage, sys.version_info[1])
    (packages,) = made.glob("lib/python*/site-packages")
    for name in ("svcd", "yaml"):
        (packages / f"{name}.py").write_text(f"raise ImportError('the {name} of this environment')")
    stage.write("import yaml\ndef main(ctx): pass\n", "user.py")
    stage.up('a: {command: null, python: "user:main", interpreter: .venv/bin/python, restart: {policy: never}}')
    stage.wait_state("a", "failed")
    words = b"ImportError: the yaml of this environment"  # and svcd itself is always ours
    wait_until(lambda: words in stage.output("a", "stderr"), words.decode())
    stage.drain()


def test_another_user_is_lent_svcd_as_well(stage: Stage) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may become somebody else")
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("there is no Python for everybody")
    script = "import os; print(os.stat(os.environ['LENT']).st_mode & 0o777 == 0o755)"
    stage.up(
        f"""
        a: {{command: null, code: "def main(ctx): pass", interpreter: {sys.executable}, type: task}}
        b: {{command: [{python}, -c, "{script}"], env: {{LENT: "{stage.run_dir}/python"}}, type: task, depends_on: [a]}}
        """
    )
    stage.wait_state("b", "completed")
    wait_until(lambda: stage.output("b") == b"True\n", "its words")
    stage.drain()


def test_an_interpreter_that_is_too_old_says_so(stage: Stage) -> None:
    old = sorted(Path.home().glob(".pyenv/versions/2.7*/bin/python")) + [Path(python_of(each)) for each in (10, 9, 8)]
    found = next((each for each in old if each.is_file()), None)
    if found is None:
        pytest.skip("there is no old Python here")
    service(stage, str(found))
    row = stage.wait_state("a", "failed")
    wait_until(lambda: stage.output("a", "stderr").endswith(b"\n"), "its words")
    assert f"svcd: cannot run a: {found} is Python " in stage.output("a", "stderr").decode()
    assert "svcd needs 3.11 or later" in stage.output("a", "stderr").decode()
    assert row.cause.endswith("exit code 70")
    stage.drain()


@pytest.mark.parametrize("program", ["/bin/sh", "/bin/cat", "/bin/true"])
def test_what_is_no_python_is_told(stage: Stage, program: str) -> None:
    service(stage, program)
    stage.wait_state("a", "failed", "stopped", "completed")
    words = f"{program} ended before svcd's code in it spoke: is it a Python, 3.11 or later?"
    wait_until(lambda: any(words in line.get("text", "") for line in stage.journal()), "a notice")
    stage.drain()


def test_an_interpreter_that_vanishes_is_a_failed_start(stage: Stage) -> None:
    made = environment(stage, sys.version_info[1])
    service(stage, ".venv/bin/python", ", start: manual")
    shutil.rmtree(made)
    assert stage.order("start", "a").outcome().startswith("failed: ")
    assert f"cannot execute {made}/bin/python: No such file or directory" in stage.row("a").cause
    stage.drain()
