"""A process' name, as others see it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from guarded import PATIENCE_S

from svcd.supervisor import title

SCRIPT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from svcd.supervisor.title import set_title
before = open("/proc/self/environ", "rb").read()
set_title(sys.argv[2])
assert open("/proc/self/environ", "rb").read() == before
for name in ("cmdline", "comm"):
    os.write(1, open(f"/proc/self/{name}", "rb").read() + b"|")
os.write(1, os.environ["MARK"].encode())
"""
ROOT = Path(title.__file__).parent.parent.parent


@pytest.mark.parametrize("name", ["svcd: guardian shop", "x", "svcd: guardian läden"])
def test_it_is_shown_and_the_environment_stays(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", SCRIPT, str(ROOT), name],
        stdout=subprocess.PIPE,
        env={"MARK": "here"},
        timeout=PATIENCE_S,
        check=True,
    )
    cmdline, comm, mark = done.stdout.split(b"|")
    assert cmdline == name.encode() + b"\0"
    assert comm == name.encode()[:15] + b"\n"
    assert mark == b"here"


def test_what_does_not_fit_is_cut() -> None:
    script = SCRIPT.replace("sys.argv[2]", "'y' * 100_000")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(ROOT)],
        stdout=subprocess.PIPE,
        env={"MARK": "here"},
        timeout=PATIENCE_S,
        check=True,
    )
    cmdline = done.stdout.split(b"|")[0]
    assert 100 < len(cmdline) < 10_000
    assert set(cmdline.rstrip(b"\0")) == {ord("y")}


def test_where_there_is_no_proc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise FileNotFoundError("/proc/self/stat")

    comm = Path("/proc/self/comm").read_text()
    monkeypatch.setattr("builtins.open", missing)
    title.set_title(comm.strip())
