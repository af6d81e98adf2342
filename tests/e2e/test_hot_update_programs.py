"""Programs whose sockets svcd holds, replaced in place: under a load of connections none is refused and none lost.

Must not test sockets themselves (test_sockets does).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from calling import HOST, connect
from clusters import free_ports, wait_until
from stage import Stage

SERVER = """
import os, select, signal, socket, sys, time

version, how = sys.argv[1], sys.argv[2:]
if "breaks" in how:
    sys.exit(4)
assert os.environ["LISTEN_PID"] == str(os.getpid()), "the sockets are not for this process"
assert os.environ["LISTEN_FDS"] == "1"

def notify(text):
    address = os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.sendto(text.encode(), address)

print("up", version, flush=True)
stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
signal.signal(signal.SIGUSR1, lambda *_: print("usr1", version, flush=True))
listener = socket.socket(fileno=3)
open_ones, waiting = {}, select.poll()
waiting.register(3, select.POLLIN)
if "silent" not in how:
    notify("READY=1")
while "silent" in how and not stopping:  # who is not ready takes no callers
    select.select([], [], [], 0.05)
while not stopping or open_ones:
    if stopping == [1]:
        waiting.unregister(3)
        stopping.append(2)
    for fd, _ in waiting.poll(20):
        if fd == 3:
            listener.settimeout(0)
            try:
                caller, _ = listener.accept()
            except BlockingIOError:  # the other version was quicker
                continue
            caller.settimeout(None)
            open_ones[caller.fileno()] = caller
            waiting.register(caller, select.POLLIN)
            continue
        words = open_ones[fd].recv(100)
        if words:
            open_ones[fd].sendall(f"{version} {os.getpid()}\\n".encode())
        else:
            waiting.unregister(fd)
            open_ones.pop(fd).close()
print("down", version, flush=True)
"""


def keys(stage: Stage, port: int, version: str, more: str = "", patience: str = "1m") -> str:
    command = f"['{sys.executable}', -ISB, {stage.directory}/server.py, {version}]"
    ready, sockets = f"ready: {{notify: true, timeout: {patience}}}", f"sockets: [{{listen: '{HOST}:{port}'}}]"
    return f"web: {{command: {command}, {ready}, {sockets}, stop: {{timeout: 1h}}{more}}}"


@pytest.fixture
def port(stage: Stage) -> int:
    (found,) = free_ports(1)
    stage.write(SERVER, "server.py")
    stage.up(keys(stage, found, "one"))
    return found


def asked(caller: socket.socket) -> str:
    caller.sendall(b"who?")
    return caller.recv(100).decode().split()[0]


@contextmanager
def load(port: int, answers: list[str]) -> Iterator[None]:
    """Connections one after the other, from several callers; whatever goes wrong is raised at the end."""
    errors: list[BaseException] = []
    is_over = threading.Event()

    def call() -> None:
        try:
            while not is_over.is_set():
                with connect(port) as caller:
                    answers.append(asked(caller))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        is_over.set()
        for each in threads:
            each.join()
    assert errors == []


def test_no_connection_is_refused_or_lost(stage: Stage, port: int) -> None:
    answers: list[str] = []
    old = stage.pid_of("web")
    with connect(port) as stays, load(port, answers):
        assert asked(stays) == "one"
        wait_until(lambda: len(answers) > 100, "callers to be served")
        stage.write_services(keys(stage, port, "two"))
        command = stage.command("update", "web")
        wait_until(lambda: "two" in answers, "the new one to serve")
        cause = "being updated: retiring the old one"  # which has a connection to end
        stage.wait_status(lambda _: stage.row("web").cause == cause, "the switch")
        assert len(stage.processes("web")) == 2
        assert asked(stays) == "one"
        assert stage.pid_of("web") != old
        stays.close()
        assert command.wait() == (0, "")
        count = len(answers)
        wait_until(lambda: len(answers) > count + 100, "callers to be served by the new one")
    assert stage.processes("web") == [stage.pid_of("web")]
    assert answers[-1] == "two"
    assert stage.row("web").cause == "ready"
    wait_until(lambda: b"down one" in stage.output("web"), "the last word of the old one")
    stage.svcd("signal", "USR1", "web")
    wait_until(lambda: b"usr1" in stage.output("web"), "the signal to be heard")
    assert stage.output("web") == b"up one\nup two\ndown one\nusr1 two\n"
    stage.tells()


@pytest.mark.parametrize(
    ("version", "patience", "why"),
    [
        ("two, breaks", "1m", "the new version ended (waiting until it is ready): exit code 4"),
        ("two, silent", "2s", "the new version was not ready within 2 s (waiting until it is ready)"),
    ],
)
def test_a_new_version_that_fails(stage: Stage, port: int, version: str, patience: str, why: str) -> None:
    answers: list[str] = []
    old = stage.pid_of("web")
    with load(port, answers):
        stage.write_services(keys(stage, port, version, patience=patience))
        said = stage.svcd("update", "web", code=3).err.splitlines()[0]
        count = len(answers)
        wait_until(lambda: len(answers) > count + 100, "callers to be served")
    assert said == f"svcd: cannot update web: {why}; the one before goes on"
    assert (stage.pid_of("web"), answers[-1]) == (old, "one")
    assert stage.processes("web") == [old]


def test_apply_where_the_file_says_so(stage: Stage, port: int) -> None:
    more = ", update: hot"
    stage.svcd("apply", str(stage.write_services(keys(stage, port, "one", more))))
    file = stage.write_services(keys(stage, port, "two", more))
    assert stage.svcd("apply", str(file)).out == (
        "1. update  web  command changed; a new version takes over in place\nweb: updated\n"
    )
    stage.tells()
    with connect(port) as caller:
        assert asked(caller) == "two"
    os.kill(stage.pid_of("web"), signal.SIGKILL)
    with connect(port) as caller:
        assert asked(caller) == "two"


def test_other_sockets_are_a_restart(stage: Stage, port: int) -> None:
    (other,) = free_ports(1)
    stage.write_services(keys(stage, other, "two"))
    assert stage.svcd("update", "web").out == "1. restart web  command, sockets changed\nweb: restarted\n"
