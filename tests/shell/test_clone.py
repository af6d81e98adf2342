"""One clone: whose child it is, what it can do, and that nobody else's descriptors stay open in it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from guarded import PATIENCE_S

from svcd.supervisor import clone

# A process of its own (fork_sibling wants it single-threaded, with every signal blocked); its children are ours.
FRAME = """
import json, os, signal, sys
sys.path.insert(0, {root!r})
from svcd.supervisor import clone
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
forker = clone.Forker()
def child(function, cgroup_fd=None):
    pid, pidfd = forker.fork_sibling(cgroup_fd)
    if pid == 0:
        code = 99
        try:
            code = function() or 0
        except BaseException as error:
            os.write(2, repr(error).encode())
        finally:
            os._exit(code)
    return pid, pidfd
def tell(**facts):
    os.write(1, json.dumps(facts).encode() + b"\\n")
{body}
"""
ROOT = Path(clone.__file__).parent.parent.parent


def run(body: str, *arguments: str) -> list[dict[str, Any]]:
    """What the script and its children told, line by line."""
    done = subprocess.run(
        [sys.executable, "-c", FRAME.format(root=str(ROOT), body=body), *arguments],
        stdout=subprocess.PIPE,
        timeout=PATIENCE_S,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def end_of(pid: int) -> int:
    """The exit code of a child of ours, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_the_child_is_a_child_of_the_callers_parent() -> None:
    child, told = run(
        """
pid, pidfd = child(lambda: tell(parent=os.getppid(), me=os.getpid()) or 7)
info = open(f"/proc/self/fdinfo/{pidfd}").read()
tell(pid=pid, pidfd=int(info.split("Pid:")[1].split()[0]), inherits=os.get_inheritable(pidfd))
"""
    )
    if "pid" in child:
        child, told = told, child
    assert child == {"parent": os.getpid(), "me": told["pid"]}
    assert told["pidfd"] in (told["pid"], -1)  # -1: it has been reaped already
    assert not told["inherits"]
    assert end_of(told["pid"]) == 7


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("os.abort()", -signal.SIGABRT),
        ("signal.raise_signal(signal.SIGKILL)", -signal.SIGKILL),
        ("import threading; t = threading.Thread(target=lambda: box.append(1)); t.start(); t.join(); assert box", 0),
        ("import threading; assert threading.get_native_id() == os.getpid()", 0),
        ("import subprocess; subprocess.run(['true'], check=True)", 0),
        ("import asyncio; assert asyncio.run(asyncio.to_thread(lambda: 5)) == 5", 0),
        ("clone.unblock_signals(); assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())", 0),
        ("pid = os.fork(); pid or os._exit(3); assert os.waitpid(pid, 0)[1] == 3 << 8", 0),
    ],
)
def test_the_child_is_a_whole_process(body: str, code: int) -> None:
    (told,) = run(f"box = []\ndef life():\n    {body}\npid, _ = child(life)\ntell(pid=pid)")
    assert end_of(told["pid"]) == code


def test_many_leave_no_descriptor() -> None:
    *_, told = run(
        """
before = len(os.listdir("/proc/self/fd"))
pids = []
for number in range(200):
    pid, pidfd = child(lambda: number % 3)
    os.close(pidfd)
    pids.append(pid)
tell(pids=pids, more=len(os.listdir("/proc/self/fd")) - before)
"""
    )
    assert told["more"] == 0
    assert [end_of(pid) for pid in told["pids"]] == [number % 3 for number in range(200)]


def test_a_failure_is_an_oserror_and_the_next_one_works() -> None:
    (told,) = run(
        """
try:
    forker.fork_sibling(os.open("/", os.O_RDONLY))
except OSError as error:
    pid, _ = child(lambda: 5)
    tell(error=str(error), pid=pid)
"""
    )
    assert told["error"]
    assert end_of(told["pid"]) == 5


def test_born_in_a_cgroup() -> None:
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    mount = next((where for _, where, kind, *_ in mounts if kind == "cgroup2"), None)
    if mount is None:
        pytest.skip("no cgroup v2 hierarchy is mounted")
    cgroup = Path(mount) / f"svcd-test-{secrets.token_hex(6)}"
    try:
        cgroup.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup v2 hierarchy to write: {error}")
    try:
        child, told = run(
            """
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
read, write = os.pipe()
def life():
    tell(cgroup=open("/proc/self/cgroup").read())
    os.write(write, b"x")
pid, _ = child(life, fd)
os.read(read, 1)
tell(pid=pid)
""",
            str(cgroup),
        )
        assert end_of(told["pid"]) == 0
        assert cgroup.name in child["cgroup"]
    finally:
        cgroup.rmdir()


def test_an_unknown_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*known[:4], "pdp11")))
    with pytest.raises(OSError, match="cannot fork on pdp11"):
        clone.Forker()


@pytest.mark.parametrize("has_close_range", [True, False])
def test_only_what_is_kept_stays_open(has_close_range: bool) -> None:
    (told,) = run(
        """
clone.SYS_CLOSE_RANGE = int(sys.argv[1])
opened = [os.open("/", os.O_RDONLY) for _ in range(20)]
clone.close_all_but((opened[10], opened[3], opened[3]))
def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
tell(kept=[fd for fd in range(500) if is_open(fd)], wanted=[0, 1, 2, opened[3], opened[10]])
""",
        str(clone.SYS_CLOSE_RANGE if has_close_range else 100_000),
    )
    assert told["kept"] == told["wanted"]


def test_the_parent_death_signal_is_set() -> None:
    (told,) = run(
        """
import ctypes
clone.set_parent_death_signal(9)
found = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(found), 0, 0, 0)
tell(signal=found.value)
"""
    )
    assert told["signal"] == signal.SIGKILL
