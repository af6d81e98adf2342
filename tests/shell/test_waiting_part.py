"""A part that was begun ahead of its guardian: how it is handed its argument, and what when it is gone.

Must not begin svcd's own controller: any program that waits will do.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from guarded import Guarded

from svcd.supervisor import headstart

WAITER = """\
import json, sys
from svcd.supervisor import headstart
print(json.dumps(headstart.argument(sys.argv[1], lambda: print("meanwhile", file=sys.stderr))), flush=True)
"""


def waiter() -> tuple[subprocess.Popen[bytes], int]:
    """A process that waits, and our end of its socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-c", WAITER, json.dumps({"waiting_fd": theirs.fileno()})]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    return process, ours.detach()


def test_it_goes_on_with_our_streams_and_what_is_meant_for_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    process, fd = waiter()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        headstart.hand_over(fd, {"cluster": "shop"}, {"guardian_fd": theirs.fileno()})
        assert process.wait(60) == 0
        argument = json.loads(capfd.readouterr().out)
        assert argument.keys() == {"cluster", "guardian_fd"}
        assert argument["cluster"] == "shop"
        assert argument["guardian_fd"] > 2
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_what_is_told_at_once_is_not_waited_for() -> None:
    told = {"cluster": "shop", "guardian_fd": 7}
    assert headstart.argument(json.dumps(told), lambda: pytest.fail("nothing is waited for")) == told


def test_it_ends_when_nobody_will_come() -> None:
    process, fd = waiter()
    os.close(fd)
    assert process.wait(60) == 0


def test_whoever_comes_too_late_is_told() -> None:
    process, fd = waiter()
    process.kill()
    process.wait(60)
    with pytest.raises(OSError, match="Broken pipe"):
        headstart.hand_over(fd, {}, {})


def test_a_guardian_begins_another_where_the_waiting_one_is_gone(guarded_by: Callable[..., Guarded]) -> None:
    process, fd = waiter()
    process.kill()
    process.wait(60)
    guarded = guarded_by(waiting={"controller": {"pid": process.pid, "fd": fd}})
    os.close(fd)
    assert guarded.relay_pid != process.pid
    guarded.wait_part("launcher")
    assert guarded.run("a", "true").code == 0
    assert guarded.end() == 0


def test_what_waits_and_is_not_needed_ends(guarded_by: Callable[..., Guarded]) -> None:
    process, fd = waiter()
    guarded = guarded_by(waiting={"fork-server": {"pid": process.pid, "fd": fd}})
    os.close(fd)
    assert process.wait(60) == 0
    assert guarded.end() == 0
