"""What is begun ahead of a start is used, or gone without a trace: real processes, ended at every moment.

Must not start a whole cluster: tests/e2e does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import poll

import pytest

from svcd.cli import headstart
from svcd.cli.headstart import Headstart, Second

PATIENCE_MS = 60_000

# Begins as the command line does, says who was begun, and then is killed, or comes to a bad end.
BEGINNER = """
import os, sys
from svcd.cli import headstart
headstart.begin(sys.argv[1:])
(begun,) = headstart._begun
print(begun.pid if isinstance(begun, headstart.Second) else begun.waiting["controller"]["pid"], flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    with suppress(ChildProcessError):
        assert not os.waitpid(-1, os.WNOHANG)[0], "a child was not reaped"
    assert headstart._begun == []


def pids_of(begun: Headstart | Second) -> list[int]:
    return [begun.pid] if isinstance(begun, Second) else [each["pid"] for each in begun.waiting.values()]


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def begun(*words: str) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """A process that has begun, the pid of what was begun first, and a pidfd of that."""
    command = [sys.executable, "-c", BEGINNER, *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        pidfd = os.pidfd_open(pid)
        try:
            yield process, pid, pidfd
        finally:
            os.close(pidfd)
            process.kill()


def wait_gone(pidfd: int) -> None:
    waiting = poll()
    waiting.register(pidfd)
    assert waiting.poll(PATIENCE_MS), "it is still there"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["start", "a.yaml"], Headstart),
        (["start", "x/y"], Headstart),
        (["--run-dir", "/r", "start", "--json", "a.YML"], Headstart),
        (["start", "-d", "a.yaml"], Second),
        (["start", "a.yaml", "--detach"], Second),
        (["start", "a.yaml", "--profile", "debug"], Headstart),
    ],
)
def test_a_start_of_a_file_is_begun(words: list[str], kind: type) -> None:
    headstart.begin(words)
    (found,) = headstart._begun
    assert type(found) is kind
    pids = pids_of(found)
    assert not any(map(is_gone, pids))
    headstart.give_up()
    assert all(map(is_gone, pids))


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["status"],
        ["start"],
        ["start", "web"],
        ["validate", "a.yaml"],
        ["start", "a.yaml", "--help"],
        ["a.yaml", "start"],
    ],
)
def test_nothing_else_is(words: list[str]) -> None:
    headstart.begin(words)
    assert headstart._begun == []


@pytest.mark.parametrize("take", [headstart.in_foreground, headstart.detached], ids=lambda each: each.__name__)
@pytest.mark.parametrize("words", [["start", "a.yaml"], ["start", "-d", "a.yaml"], []], ids=["front", "behind", "none"])
def test_a_wrong_guess_costs_time_alone(words: list[str], take: Callable[[], Headstart | Second]) -> None:
    headstart.begin(words)
    before = [pid for each in headstart._begun for pid in pids_of(each)]
    found = take()
    assert type(found) is (Headstart if take is headstart.in_foreground else Second)
    pids = pids_of(found)
    assert all(is_gone(pid) for pid in before if pid not in pids)
    headstart._begun[:] = [found]
    headstart.give_up()
    assert all(map(is_gone, pids))


def test_the_second_leaves_with_its_controller() -> None:
    second = Second(("controller", "fork-server"))
    wait_until_it_has_children(second.pid, 2)
    parts = children_of(second.pid)
    assert os.getsid(second.pid) == second.pid
    second.end()
    assert is_gone(second.pid)
    assert all(map(is_gone, parts))


def wait_until_it_has_children(pid: int, count: int) -> None:
    """Those that have been executed: before that they hold all that it holds."""
    while sum(b"waiting_fd" in Path(f"/proc/{each}/cmdline").read_bytes() for each in children_of(pid)) < count:
        os.sched_yield()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("services: {a: {command: [python3, code.py]}}", ["controller"]),
        ("services:\n  a:\n    python: shop:Till\n", ["controller", "fork-server"]),
        ('{"services": {"a": {"code": "x"}}}', ["controller", "fork-server"]),
        ("services: {a: {script: x.py}}", ["controller", "fork-server"]),
        ("\xff\xfe", ["controller"]),
    ],
)
def test_a_fork_server_is_begun_for_python_services(tmp_path: Path, text: str, parts: list[str]) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(text.encode("latin-1"))
    headstart.begin(["start", str(file)])
    (found,) = headstart._begun
    assert isinstance(found, Headstart)
    assert list(found.waiting) == parts
    headstart.give_up()


@pytest.mark.parametrize("words", [("start", "a.yaml"), ("start", "-d", "a.yaml")], ids=["front", "behind"])
def test_who_begins_may_be_killed_at_any_moment(words: tuple[str, ...]) -> None:
    with begun(*words) as (process, _, pidfd):
        process.kill()
        wait_gone(pidfd)


def test_ctrl_c_is_not_for_what_was_begun() -> None:
    """It has a session of its own; that it ends is the business of who has begun it."""
    with begun("start", "a.yaml") as (process, pid, pidfd):
        assert os.getsid(pid) == pid
        process.send_signal(signal.SIGINT)
        wait_gone(pidfd)


@pytest.mark.parametrize("detach", [(), ("-d",)], ids=["front", "behind"])
@pytest.mark.parametrize("text", ["cluster: [", "services: {}", "x: 1"])
def test_a_refused_file_leaves_nothing(tmp_path: Path, text: str, detach: tuple[str, ...]) -> None:
    """Whoever were left would hold the pipe open."""
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    command = [sys.executable, "-m", "svcd", "--run-dir", str(tmp_path / "run"), "start", *detach, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_MS / 1000, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"svcd: cannot start {file}: ")
    assert not (tmp_path / "run").exists()


def test_a_second_that_is_gone_is_an_error_and_no_signal() -> None:
    second = Second(("controller",))
    wait_until_it_has_children(second.pid, 1)
    pidfd = os.pidfd_open(second.pid)
    os.kill(second.pid, signal.SIGKILL)
    wait_gone(pidfd)
    os.close(pidfd)
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        with pytest.raises(OSError, match="Broken pipe"):
            second.become_guardian("guardian", {}, 0, 1)
    finally:
        signal.signal(signal.SIGPIPE, before)
        second.end()
