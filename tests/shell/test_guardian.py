"""The guardian: every birth before its end, every end once, every part again, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil
import pytest
from guarded import PATIENCE_S, Guarded, is_alive, wait_until

from svcd.supervisor.guardian import Guardian, Part, children
from svcd.supervisor.wiring import (
    FlushRequested,
    Link,
    PartEnded,
    ProcessBorn,
    ProcessReaped,
    ProgramExecuted,
    SignalReceived,
)

STAY = ("sleep", "1000")

# Leaves a child in a session of its own behind, which ignores SIGTERM and holds its standard output; prints its pid.
LEAVES_ONE = "trap '' TERM; setsid sh -c 'echo $$; exec sleep 1000' & wait $!"
DISOWNS_ONE = "setsid sh -c 'trap \"\" TERM; echo $$; exec sleep 1000' & exit 3"


def pid_in(guarded: Guarded, service: str) -> int:
    """The pid that a service has printed."""
    wait_until(
        lambda: (guarded.logs / service / "stdout.log").exists() and guarded.output(service).endswith("\n"),
        f"a line of {service}",
    )
    return int(guarded.output(service))


def parts_of(guarded: Guarded) -> set[int]:
    guarded.wait_part("launcher")
    guarded.wait_part("collector")
    return set(guarded.part_pids.values()) | {guarded.relay_pid}


# ---- births and ends -------------------------------------------------------------------------------------------------


def test_a_thousand_quick_ends_are_each_told_once_and_after_the_birth(guarded: Guarded) -> None:
    """The status says whose it is."""
    count = 1000
    for number in range(count):
        script = f"exit {number % 250}" if number % 10 else "kill -9 $$"
        guarded.send("launcher", guarded.order(f"s{number}", "sh", "-c", script, invocation=number, logged=False))
    guarded.wait(lambda: len(guarded.all(ProcessReaped)) == count, "all ends")
    born: set[int] = set()
    ended: set[int] = set()
    for message in guarded.messages:
        if isinstance(message, ProcessBorn):
            assert message.invocation not in born
            born.add(message.invocation)
        elif isinstance(message, ProcessReaped):
            number = message.invocation
            assert number is not None
            assert message.service == f"s{number}"
            assert number in born, "an end before its birth"
            assert number not in ended, "an end twice"
            ended.add(number)
            assert (message.code, message.signal) == ((number % 250, None) if number % 10 else (None, 9))
    assert len(born) == len(ended) == count
    guarded.pump(0.1)
    assert len(guarded.all(ProcessReaped)) == count


def test_an_end_tells_what_it_cost(guarded: Guarded) -> None:
    reaped = guarded.run("a", sys.executable, "-I", "-S", "-c", "x = 'x' * 50_000_000; sum(range(3_000_000))")
    assert reaped.user_s > 0
    assert reaped.max_rss_bytes > 50_000_000


def test_services_leave_no_descriptor_in_the_guardian(guarded: Guarded) -> None:
    def count() -> int:
        return len(os.listdir(f"/proc/{guarded.pid}/fd"))

    guarded.run("first", "true")
    guarded.wait_part("collector")
    wait_until(lambda: count() == 7 + 3, "the streams of the first to end")  # 0-2, epoll, lock, wakeup twice; links
    for number in range(50):
        guarded.run(f"s{number}", "true")
    wait_until(lambda: count() == 7 + 3, "all streams to end")


def test_an_orphan_is_adopted_and_its_end_told_as_nobodys(guarded: Guarded) -> None:
    assert guarded.run("a", "sh", "-c", DISOWNS_ONE).code == 3
    orphan = pid_in(guarded, "a")
    wait_until(lambda: psutil.Process(orphan).ppid() == guarded.pid, "the guardian to adopt it")
    os.kill(orphan, signal.SIGKILL)
    reaped = guarded.wait_for(ProcessReaped, pid=orphan)
    assert (reaped.service, reaped.invocation, reaped.signal) == (None, None, signal.SIGKILL)


def test_output_of_what_a_service_left_behind_is_collected(guarded: Guarded) -> None:
    script = "(trap '' TERM; read line < $0; echo late) & echo early"
    fifo = guarded.logs.parent / "fifo"
    os.mkfifo(fifo)
    guarded.run("a", "sh", "-c", script, str(fifo))
    wait_until(lambda: guarded.output("a") == "early\n", "the early line")
    fifo.write_text("go\n")
    wait_until(lambda: guarded.output("a") == "early\nlate\n", "the late line")


# ---- an end before its announcement: without a real guardian, for no test can hit that moment ------------------------


@pytest.fixture
def alone() -> Iterator[tuple[Guardian, Link]]:
    """A guardian that runs nothing, and its controller's end of the link."""
    ours, theirs = (Link(each) for each in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    guardian = Guardian({}, 1024, 4096)
    guardian.parts["controller"] = Part("controller", -1, ours)
    guardian.selector.register(ours, 1, "controller")
    yield guardian, theirs
    for each in guardian.wakeup:
        each.close()
    for service in guardian.services.values():
        os.close(service.pidfd)
    guardian.selector.close()
    ours.close()
    theirs.close()


def told(link: Link) -> list[object]:
    messages = []
    for message, fds in link.receive():
        messages.append(message)
        for fd in fds:
            os.close(fd)
    return messages


def test_an_end_before_its_announcement_is_told_after_it(alone: tuple[Guardian, Link]) -> None:
    guardian, controller = alone
    process = subprocess.Popen(["true"])
    pidfd = os.pidfd_open(process.pid)
    process.wait(PATIENCE_S)
    guardian.child_ended(ProcessReaped(process.pid, None, None, None, 9, 0.5))
    guardian.welcome(ProcessBorn("a", 7, process.pid), [pidfd])
    assert told(controller) == [
        ProcessReaped(process.pid, None, None, None, 9, 0.5),
        ProcessBorn("a", 7, process.pid),
        ProcessReaped(process.pid, "a", 7, None, 9, 0.5),
    ]
    assert guardian.services == {}


def test_the_end_of_an_earlier_process_with_that_pid_is_not_its_end(alone: tuple[Guardian, Link]) -> None:
    guardian, controller = alone
    process = subprocess.Popen(STAY)
    guardian.child_ended(ProcessReaped(process.pid, None, None, None, 9))
    guardian.welcome(ProcessBorn("a", 7, process.pid), [os.pidfd_open(process.pid)])
    assert told(controller)[1:] == [ProcessBorn("a", 7, process.pid)]
    process.kill()
    process.wait(PATIENCE_S)
    guardian.child_ended(ProcessReaped(process.pid, None, None, None, 9))
    assert told(controller) == [ProcessReaped(process.pid, "a", 7, None, 9)]


def test_the_memory_of_unknown_ends_is_bounded(alone: tuple[Guardian, Link]) -> None:
    guardian, controller = alone
    for pid in range(5000):
        guardian.child_ended(ProcessReaped(pid, None, None, 0, None))
        told(controller)
    assert len(guardian.unclaimed) <= 1024
    assert 4999 in guardian.unclaimed


def test_children_are_found_without_the_kernels_list(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(STAY)
    try:
        with_list = children()
        assert process.pid in with_list
        monkeypatch.setattr("builtins.open", _without_children)
        assert sorted(children()) == sorted(with_list)
    finally:
        monkeypatch.undo()
        process.kill()
        process.wait(PATIENCE_S)


_open = open


def _without_children(path: str, *arguments: object) -> object:
    if str(path).endswith("/children"):
        raise FileNotFoundError(path)
    return _open(path, *arguments)  # type: ignore[call-overload]  # passed on as they came


# ---- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_passed_to_the_controller(guarded: Guarded, number: signal.Signals) -> None:
    parts_of(guarded)
    for count in (1, 2, 3):
        os.kill(guarded.pid, number)
        guarded.wait(lambda count=count: len(guarded.all(SignalReceived)) == count, "the signal")  # type: ignore[misc]
    assert {each.signal for each in guarded.all(SignalReceived)} == {number}


def test_other_signals_of_a_terminal_do_nothing(guarded: Guarded) -> None:
    parts_of(guarded)
    for number in (signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTOU, signal.SIGPIPE):
        os.kill(guarded.pid, number)
    os.kill(guarded.pid, signal.SIGTERM)
    guarded.wait_for(SignalReceived)
    assert [each.signal for each in guarded.all(SignalReceived)] == [signal.SIGTERM]
    assert is_alive(guarded.pid)


# ---- parts -----------------------------------------------------------------------------------------------------------


def test_parts_have_names_and_sessions_of_their_own(guarded: Guarded) -> None:
    """Once they have come so far: they are announced when they have been forked."""
    parts_of(guarded)
    assert name_of(guarded.pid) == "svcd: guardian shop"
    for part, pid in guarded.part_pids.items():
        wait_until(lambda part=part, pid=pid: name_of(pid) == f"svcd: {part} shop", f"the name of the {part}")  # type: ignore[misc]
        assert psutil.Process(pid).ppid() == guarded.pid
        assert os.getsid(pid) == pid
    wait_until(lambda: os.getsid(guarded.relay_pid) == guarded.relay_pid, "the controller's session")


def name_of(pid: int) -> str:
    return " ".join(psutil.Process(pid).cmdline())


def test_parts_hold_nothing_but_what_is_theirs(guarded: Guarded) -> None:
    """Above all not the lock, nor another part's link: its end would not be seen."""
    guarded.spawn("a", *STAY)
    guarded.wait_for(ProgramExecuted)
    parts_of(guarded)
    for name in ("collector", "launcher"):
        pid = guarded.part_pids[name]
        wait_until(lambda name=name, pid=pid: name_of(pid) == f"svcd: {name} shop", f"the {name} to have begun")  # type: ignore[misc]
        kinds = kinds_of_descriptors(pid)
        assert kinds.count("socket:") == 2, f"{name}: {kinds}"
        assert not [each for each in kinds if "lock" in each]


def kinds_of_descriptors(pid: int) -> list[str]:
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed since
            if int(fd) > 2:
                found.append(re.sub(r"\[?\d.*", "", os.readlink(f"/proc/{pid}/fd/{fd}")))
    return found


@pytest.mark.parametrize("part", ["collector", "launcher"])
def test_a_killed_part_is_started_again(guarded: Guarded, part: str) -> None:
    pid = guarded.spawn("a", *STAY)
    guarded.wait_for(ProgramExecuted)
    for _ in range(3):
        old = guarded.wait_part(part)
        os.kill(old, signal.SIGKILL)
        guarded.wait_for(PartEnded, part=part, pid=old, code=None, signal=9)
        guarded.wait_part(part, after=old)
    assert guarded.run("b", "echo", "hello").code == 0
    wait_until(lambda: guarded.output("b") == "hello\n", "its output")
    assert is_alive(pid)


def test_a_part_that_is_killed_too_often_comes_back_later(guarded_by: Callable[..., Guarded]) -> None:
    guarded = guarded_by(numbers={"RESTARTS_WITHIN_S": 1.0})
    for _ in range(7):
        old = guarded.wait_part("launcher")
        os.kill(old, signal.SIGKILL)
        guarded.wait_part("launcher", after=old)  # the last ones only when that second is over
    assert guarded.run("b", "true").code == 0


# Ends by itself only when its other link, the test's, is closed.
HANGS_UP = """
import json, os, socket, sys
given = json.loads(sys.argv[1])
os.close(given["guardian_fd"])
other = socket.socket(fileno=given["controller_fd"])
while other.recv(100_000):
    pass
"""


def test_a_part_that_hangs_up_is_replaced(guarded_by: Callable[..., Guarded]) -> None:
    """It lives, but nothing can be said to it any more."""
    guarded = guarded_by(parts={"collector": [sys.executable, "-I", "-S", "-c", HANGS_UP, "{}"]})
    assert guarded.wait_for(PartEnded, part="collector").signal == signal.SIGKILL


def test_no_byte_is_lost_when_the_collector_is_killed_under_load(guarded: Guarded) -> None:
    count = 400_000
    script = f"import sys\nfor n in range({count}): sys.stdout.write('%09d\\n' % n)"
    target = guarded.target("a", "stdout", max_size_bytes=1_000_003, keep=10)
    guarded.spawn("a", sys.executable, "-I", "-S", "-c", script, streams=(target,))
    killed = 0
    while not guarded.all(ProcessReaped, service="a"):
        old = guarded.wait_part("collector")
        wait_until((guarded.logs / "a" / "stdout.log").exists, "its first output")
        os.kill(old, signal.SIGKILL)
        killed += 1
        guarded.wait_part("collector", after=old)
        if killed == 4:
            guarded.wait_for(ProcessReaped, service="a")
    assert killed >= 1
    guarded.send("collector", FlushRequested(1, "a"))
    directory = guarded.logs / "a"

    def output() -> bytes:
        rotated = sorted(directory.glob("stdout.log.*"), key=lambda each: -int(each.suffix[1:]))
        return b"".join(each.read_bytes() for each in [*rotated, directory / "stdout.log"])

    wait_until(lambda: len(output()) >= count * 10, "all of its output")
    assert output() == b"".join(b"%09d\n" % number for number in range(count))


# ---- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 3])
def test_the_end_takes_parts_and_files_along(guarded: Guarded, code: int) -> None:
    parts = parts_of(guarded)
    (guarded.run_dir / "stubs").mkdir()
    for name in ("cluster.json", "control", "events", "stubs/control"):
        (guarded.run_dir / name).touch()
    assert guarded.end(code) == code
    assert not [pid for pid in parts if is_alive(pid)]
    assert not guarded.run_dir.exists()
    assert guarded.stderr.read_text() == ""


def test_what_others_have_put_into_the_run_directory_stays(guarded: Guarded) -> None:
    parts_of(guarded)
    (guarded.run_dir / "notes").write_text("mine")
    assert guarded.end() == 0
    assert [each.name for each in guarded.run_dir.iterdir()] == ["notes"]


def test_the_end_leaves_no_orphan(guarded: Guarded) -> None:
    guarded.run("a", "sh", "-c", DISOWNS_ONE)
    orphan = pid_in(guarded, "a")
    assert guarded.end() == 0
    assert not is_alive(orphan)


def test_a_part_that_does_not_end_is_killed(guarded_by: Callable[..., Guarded]) -> None:
    command = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(1000)"]
    guarded = guarded_by(numbers={"PATIENCE_S": 1.0}, parts={"collector": command})
    collector = guarded.wait_part("collector")
    assert guarded.end() == 0
    assert not is_alive(collector)


def test_without_a_controller_everything_goes_down(guarded: Guarded) -> None:
    main = guarded.spawn("a", "sh", "-c", LEAVES_ONE)
    other = guarded.spawn("b", "sh", "-c", "trap '' TERM; exec sleep 1000", logged=False)
    descendant = pid_in(guarded, "a")
    parts = parts_of(guarded)
    os.kill(guarded.relay_pid, signal.SIGKILL)
    assert guarded.wait_end() == 1
    assert not [pid for pid in (main, other, descendant, *parts) if is_alive(pid)]
    assert not guarded.run_dir.exists()
    assert "controller" in guarded.stderr.read_text()
    assert "everything is taken down" in guarded.stderr.read_text()


def test_output_before_such_an_end_is_not_lost(guarded: Guarded) -> None:
    guarded.spawn("a", "sh", "-c", "echo last words; exec sleep 1000")
    guarded.wait_for(ProgramExecuted)
    wait_until(lambda: "sleep" in psutil.Process(guarded.all(ProcessBorn)[0].pid).name(), "it to have spoken")
    os.kill(guarded.part_pids["collector"], signal.SIGSTOP)
    os.kill(guarded.relay_pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(guarded.all(ProcessBorn)[0].pid), "the service to be killed")
    os.kill(guarded.part_pids["collector"], signal.SIGCONT)
    assert guarded.wait_end() == 1
    assert guarded.output("a") == "last words\n"


def test_when_the_guardian_is_killed_nothing_stays(guarded: Guarded) -> None:
    pid = guarded.spawn("a", "sh", "-c", "echo words; exec sleep 1000")
    guarded.wait_for(ProgramExecuted)
    parts = parts_of(guarded) - {guarded.relay_pid}  # the real controller's own part is its own test's
    guarded.process.kill()
    wait_until(lambda: not [each for each in (pid, *parts) if is_alive(each)], "services and parts to go down")
    assert guarded.output("a") in ("words\n", "")


# ---- no descriptors left ---------------------------------------------------------------------------------------------


def test_too_many_services_are_turned_away_and_the_others_stay(guarded_by: Callable[..., Guarded]) -> None:
    guarded = guarded_by(limit=128)
    count = 40
    for number in range(count):
        guarded.send("launcher", guarded.order(f"s{number}", *STAY))
    guarded.wait(lambda: len(guarded.all(ProcessBorn)) == count, "all births")
    turned_away = guarded.stderr.read_text().count("no descriptors left")  # said before the birth is passed on
    assert turned_away > 0
    guarded.wait(lambda: len(guarded.all(ProcessReaped)) >= turned_away, "their ends")
    assert {each.signal for each in guarded.all(ProcessReaped)} == {signal.SIGKILL}
    alive = [born for born in guarded.all(ProcessBorn) if not guarded.all(ProcessReaped, pid=born.pid)]
    assert len(alive) >= 10
    assert all(is_alive(born.pid) for born in alive)
    assert not guarded.all(PartEnded)
    os.kill(alive[0].pid, signal.SIGTERM)
    guarded.wait_for(ProcessReaped, pid=alive[0].pid)
    guarded.wait(lambda: guarded.run(f"again{time.monotonic_ns()}", "true").code == 0, "room for another one")
    assert guarded.end() == 0
