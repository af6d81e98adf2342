"""Descriptors that a newborn service is given: each is at its number, and nothing else is."""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from guarded import PATH, Guarded, wait_until

from svcd.supervisor.wiring import INLINE_LIMIT_BYTES, ProcessReaped, ProgramExecuted, SpawnRejected

# Tells what lies at which number, by the text that can be read there, and which of its variables name itself.
PROGRAM = """
import fcntl, json, os
found = {}
for fd in sorted(int(each) for each in os.listdir("/proc/self/fd") if int(each) > 2):
    if os.path.exists(f"/proc/self/fd/{fd}"):
        found[fd] = [os.pread(fd, 100, 0).decode(), fcntl.fcntl(fd, fcntl.F_GETFD)]
own = sorted(name for name, value in os.environ.items() if value == str(os.getpid()))
os.write(1, json.dumps([found, own]).encode() + b"\\n")
"""
PYTHON = (sys.executable, "-I", "-S", "-c", PROGRAM)
FORK_SERVER = """
import json, sys, types
module = types.ModuleType("svcd.worker_runtime.stub")
module.main = lambda stub: exec(stub["program"], {}) or 0
module.prepare = lambda rehearse: rehearse()
sys.modules["svcd.worker_runtime.stub"] = module
import svcd.worker_runtime
svcd.worker_runtime.stub = module
from svcd.supervisor import launcher
launcher.run(json.loads(sys.argv[1]))
"""


@pytest.fixture
def texts(tmp_path: Path) -> Iterator[Callable[[int], tuple[int, ...]]]:
    """Opens so many files; the text of each is its place in the row."""
    opened: list[int] = []

    def make(count: int) -> tuple[int, ...]:
        for number in range(count):
            path = tmp_path / f"text{len(opened)}"
            path.write_text(str(number))
            opened.append(os.open(path, os.O_RDONLY))
        return tuple(opened[-count:])

    yield make
    for fd in opened:
        os.close(fd)


def told(guarded: Guarded, service: str) -> tuple[dict[int, str], list[str]]:
    """What the program has found, by number, and its variables."""
    guarded.wait_for(ProcessReaped, service=service)
    wait_until(lambda: guarded.output(service).endswith("\n"), f"what {service} says")
    found, own = json.loads(guarded.output(service))
    assert {flags for _, flags in found.values()} <= {0}, "they have to stay open over another exec"
    return {int(fd): text for fd, (text, _) in found.items()}, own


ROWS = ((3,), (3, 4, 5), (5, 4, 3), (4, 3), (9, 3, 12), (1000,), tuple(range(14, 2, -1)), (7, 6, 5, 4, 3, 8, 9, 10))


@pytest.mark.parametrize("targets", ROWS, ids=str)
def test_each_is_at_its_number(guarded: Guarded, texts: Callable[[int], tuple[int, ...]], targets: Any) -> None:
    """Also where the numbers cross those of the launcher's pipes, gates and of the passed ones themselves."""
    guarded.spawn("a", *PYTHON, targets=targets, fds=texts(len(targets)))
    found, _ = told(guarded, "a")
    listing = {fd for fd in found if fd not in targets}
    assert {fd: found[fd] for fd in targets} == {fd: str(place) for place, fd in enumerate(targets)}
    assert not listing
    guarded.wait_for(ProgramExecuted, service="a")


def test_the_stub_has_them_too(guarded_by: Callable[..., Guarded], texts: Callable[[int], tuple[int, ...]]) -> None:
    guarded = guarded_by(python_services=True, parts={"fork-server": [sys.executable, "-c", FORK_SERVER, "{}"]})
    stub = {"program": PROGRAM}
    guarded.spawn(
        "a", part="fork-server", argv=None, stub=stub, targets=(4, 3), pid_variables=("LISTEN_PID",), fds=texts(2)
    )
    assert told(guarded, "a") == ({3: "1", 4: "0"}, ["LISTEN_PID"])


def test_variables_name_the_process_itself(guarded: Guarded) -> None:
    env = {"PATH": PATH, "LISTEN_PID": "stale"}
    guarded.spawn("a", *PYTHON, env=env, pid_variables=("LISTEN_PID", "WATCHDOG_PID"))
    assert told(guarded, "a")[1] == ["LISTEN_PID", "WATCHDOG_PID"]


def test_a_batch_does_not_mix_them_up(guarded: Guarded, texts: Callable[[int], tuple[int, ...]]) -> None:
    fds = texts(30)
    for number in range(30):
        guarded.send("launcher", guarded.order(f"s{number}", *PYTHON, targets=(3,)), fds[number : number + 1])
    for number in range(30):
        assert told(guarded, f"s{number}")[0] == {3: str(number)}


def test_they_come_with_a_long_message(guarded: Guarded, texts: Callable[[int], tuple[int, ...]]) -> None:
    env = {"PATH": PATH, "LONG": "x" * INLINE_LIMIT_BYTES}
    guarded.spawn("a", *PYTHON, env=env, targets=tuple(range(3, 18)), fds=texts(15))
    assert told(guarded, "a")[0] == {fd: str(fd - 3) for fd in range(3, 18)}


def test_a_number_beyond_the_limit_is_told(guarded: Guarded, texts: Callable[[int], tuple[int, ...]]) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    guarded.send("launcher", guarded.order("a", "true", targets=(hard,)), texts(1))
    rejected = guarded.wait_for(SpawnRejected)
    assert (rejected.born, rejected.stage, rejected.errno) == (True, "descriptors", errno.EINVAL)
    assert rejected.reason == f"cannot give it descriptor {hard}: Invalid argument"
    guarded.wait_for(ProcessReaped, service="a")


def test_missing_ones_are_told(guarded: Guarded, texts: Callable[[int], tuple[int, ...]]) -> None:
    guarded.send("launcher", guarded.order("a", "true", targets=(3, 4)), texts(1))
    rejected = guarded.wait_for(SpawnRejected)
    assert (rejected.born, rejected.stage) == (False, "descriptors")
    assert rejected.reason == "cannot make a process: no room for the descriptors passed to it"


def test_a_launcher_keeps_none(guarded: Guarded, texts: Callable[[int], tuple[int, ...]]) -> None:
    launcher = guarded.wait_part("launcher")
    guarded.run("before", "true")
    guarded.wait_for(ProgramExecuted, service="before")
    used = len(os.listdir(f"/proc/{launcher}/fd"))
    fds = texts(3)
    guarded.run("works", "true", targets=(3, 4, 5), fds=fds)
    guarded.wait_for(ProgramExecuted, service="works")
    guarded.run("broken", "/no/such", targets=(3, 4, 5), fds=fds)
    guarded.send("launcher", guarded.order("bad", "true", cgroup="/no/such", targets=(3, 4, 5)), fds)
    guarded.wait_for(SpawnRejected, service="broken")
    guarded.wait_for(SpawnRejected, service="bad")
    wait_until(lambda: len(os.listdir(f"/proc/{launcher}/fd")) == used, "the launcher to have let go of them")
