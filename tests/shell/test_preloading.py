"""What an import may leave behind, and what is said of it; what is watched for changes.

Must not import into this process: what is not a table runs in an interpreter of its own.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from svcd.supervisor.preloading import Footing

BEFORE = Footing(
    threads=frozenset({1}),
    children=frozenset({7}),
    opened={0: "/dev/null", 3: "socket:[1]"},
    signals={"SigIgn": 0, "SigCgt": 0},
    blocked=0b110,
)


def bit(*numbers: int) -> int:
    return sum(1 << (number - 1) for number in numbers)


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, ""),
    "less": ({"children": frozenset(), "opened": {0: "/dev/null"}}, ""),
    "a thread": ({"threads": frozenset({1, 4_000_000_000})}, "starts a thread (it has ended)"),
    "a process": ({"children": frozenset({7, 8})}, "starts a process"),
    "another process": ({"children": frozenset({8})}, "starts a process"),
    "epoll": ({"opened": {**BEFORE.opened, 4: "anon_inode:[eventpoll]"}}, "opens an event loop (epoll)"),
    "eventfd": ({"opened": {**BEFORE.opened, 4: "anon_inode:[eventfd]"}}, "opens an eventfd, as a ZeroMQ context does"),
    "a socket": ({"opened": {**BEFORE.opened, 4: "socket:[2]"}}, "opens a socket"),
    "a pipe": ({"opened": {**BEFORE.opened, 4: "pipe:[2]"}}, "opens a pipe"),
    "a file": ({"opened": {**BEFORE.opened, 4: "/etc/passwd"}}, "keeps /etc/passwd open"),
    "another file": ({"opened": {**BEFORE.opened, 3: "/dev/urandom"}}, "keeps /dev/urandom open"),
    "a handler": ({"signals": {"SigIgn": 0, "SigCgt": bit(15)}}, "changes what SIGTERM does"),
    "two": ({"signals": {"SigIgn": bit(13), "SigCgt": bit(2)}}, "changes what SIGINT, SIGPIPE does"),
    "not ours": ({"signals": {"SigIgn": 0, "SigCgt": bit(33)}}, "changes what signal 33 does"),
    "unblocked": ({"blocked": 0b010}, "changes whether SIGQUIT is blocked"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_an_import_has_done(name: str) -> None:
    changed, words = FAULTS[name]
    assert replace(BEFORE, **changed).fault_since(BEFORE) == words


RUN = """
import json, sys, os, signal
from svcd.supervisor import preloading
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
began = []
path = list(sys.path)
try:
    answer = {"watched": preloading.preload(json.loads(sys.argv[1]), json.loads(sys.argv[2]), began.append)}
except preloading.Unfit as unfit:
    answer = {"module": unfit.module, "text": unfit.text}
mask = os.umask(0)
print(json.dumps({**answer, "began": began, "path": sys.path == path, "cwd": os.getcwd(), "umask": mask,
                  "blas": os.environ.get("OPENBLAS_NUM_THREADS")}))
"""


def preload(directory: Path, modules: dict[str, str], *names: str) -> dict[str, Any]:
    """What came of importing ``names`` where these modules are found."""
    for name, source in modules.items():
        (directory / f"{name}.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(names), json.dumps([str(directory)])],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        umask=0o22,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_own_files_and_package_directories_are_watched(tmp_path: Path) -> None:
    found = preload(tmp_path, {"one": "import two, yaml", "two": ""}, "one")
    own = {each for each in found["watched"] if each.startswith(str(tmp_path))}
    assert own == {str(tmp_path / "one.py"), str(tmp_path / "two.py")}
    others = set(found["watched"]) - own
    assert others
    assert {Path(each).name for each in others} <= {"site-packages", "dist-packages"}


def test_nothing_of_it_is_left_but_the_modules(tmp_path: Path) -> None:
    source = "import os, sys\nos.chdir('/tmp')\nos.umask(0o77)\nassert os.environ['OPENBLAS_NUM_THREADS'] == '1'"
    found = preload(tmp_path, {"one": source}, "one", "json")
    assert (found["began"], found["path"], found["cwd"], found["umask"], found["blas"]) == (
        ["one", "json"],
        True,
        "/",
        0o22,
        None,
    )


def test_the_first_that_is_not_fit_ends_it(tmp_path: Path) -> None:
    found = preload(tmp_path, {"one": "", "two": "\n1 / 0", "three": ""}, "one", "two", "three")
    assert found["began"] == ["one", "two"]
    assert found["module"] == "two"
    assert found["text"] == f"cannot preload two: ZeroDivisionError: division by zero ({tmp_path}/two.py:2)"


@pytest.mark.parametrize("end", ["", "\n1 / 0"])
def test_what_it_has_started_ends_with_it(tmp_path: Path, end: str) -> None:
    """Or its output would be held open, and waited for."""
    found = preload(tmp_path, {"one": f"import subprocess\nit = subprocess.Popen(['sleep', '90']){end}"}, "one")
    assert found["text"].startswith("cannot preload one: ZeroDiv" if end else "cannot preload one: importing it starts")


def test_what_is_opened_and_forgotten_is_no_fault(tmp_path: Path) -> None:
    source = "class Cycle: pass\na, b = Cycle(), Cycle()\na.b, b.a, a.file = b, a, open('/dev/null')\ndel a, b"
    assert "watched" in preload(tmp_path, {"one": "import gc\ngc.disable()\n" + source}, "one")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import nosuch", "ModuleNotFoundError: No module named 'nosuch'"),
        ("def x(:", "SyntaxError: invalid syntax"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("class Bad(Exception):\n  def __str__(self): raise SystemExit\nraise Bad", "Bad: <SystemExit in its __str__>"),
        ("raise ValueError('x' * 10000)", "ValueError: xxx"),
        ("raise ValueError('first\\nsecond')", "ValueError: first ("),
        (f"import signal\nsignal.signal({int(signal.SIGUSR2)}, signal.SIG_IGN)", "changes what SIGUSR2 does"),
    ],
)
def test_why_is_told_on_one_line(tmp_path: Path, source: str, words: str) -> None:
    found = preload(tmp_path, {"one": source}, "one")
    assert words in found["text"]
    assert len(found["text"].splitlines()) == 1
    assert len(found["text"]) < 700
