"""What programs say by sd_notify(3): status, stop, reload, more time, another main process; and what strangers say.

Must not test READY=1 (every player says it) nor the watchdog.
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
from clusters import is_alive, wait_until
from stage import Stage
from traces import starts, stops, together


def test_its_own_words_are_shown_until_it_ends(stage: Stage) -> None:
    stage.up("a: {PLAYER}")
    stage.say("a", "notify STATUS=serving 3 clients\nNONSENSE\n=\nX_OWN=1")
    stage.wait_status(lambda _: stage.row("a").text == "serving 3 clients", "its words")
    stage.say("a", "notify RELOADING=1")
    stage.wait_status(lambda _: stage.row("a").text == "reloading", "the reload")
    stage.say("a", "notify READY=1")
    stage.wait_status(lambda _: stage.row("a").text == "", "the end of the reload")
    stage.say("a", "notify STATUS=" + "x" * 2000)
    stage.wait_status(lambda _: stage.row("a").text == "x" * 400, "the beginning of many words")
    stage.crash("a")
    stage.tells("a: running → waiting", starts("a"))
    assert stage.row("a").text == ""


def test_who_announces_its_stop_is_no_surprise(stage: Stage) -> None:
    """Its dependents are told at the beginning of the stop, not at its end."""
    stage.up("a: {PLAYER}\nb: {depends_on: [a]}")
    stage.say("a", "notify STOPPING=1")
    stage.tells("a: running → stopping", stops("b", to="waiting"))
    stage.say("a", "exit 3")
    stage.tells("a: stopping → waiting", starts("a", "b"))


def test_more_time_for_a_start(stage: Stage) -> None:
    stage.up("a: {PLAYER unready, start: manual}")
    order = stage.order("start", "a")
    stage.say("a", "notify EXTEND_TIMEOUT_USEC=3600000000")
    stage.say("a", "ready")
    assert order.outcome() == "done"
    stage.tells("a: unloaded → waiting", starts("a"))


def test_more_time_for_a_stop(stage: Stage) -> None:
    stage.up("a: {PLAYER deaf, stop: {timeout: 30s}}")
    order = stage.order("stop", "a")
    stage.tells("a: running → stopping")
    stage.say("a", "notify EXTEND_TIMEOUT_USEC=3600000000")
    stage.say("a", "notify STATUS=flushing")
    stage.wait_status(lambda _: stage.row("a").text == "flushing", "its words")
    stage.say("a", "exit 0")
    assert order.outcome() == "done"
    stage.tells("a: stopping → stopped")
    assert "killed" not in stage.row("a").cause


DAEMON = """
import os, signal, socket, sys, time
def notify(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.sendto(text.encode(), os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1))
if "forgets" in sys.argv:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
child = os.fork()
if child == 0:
    os.setsid()
    time.sleep(1000)
open("first", "w").write(str(os.getpid()))
notify(f"MAINPID={child}\\nREADY=1")
if "stays" in sys.argv or "forgets" in sys.argv:
    time.sleep(1000)
os._exit(0)
"""


def test_a_script_that_has_others_speak_for_it(stage: Stage) -> None:
    """Whoever said it is gone when we read it, and was never our child."""
    words = (
        "import os, socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)"
        ".sendto(b'READY=1', os.environ['NOTIFY_SOCKET'].replace('@', chr(0), 1))"
    )
    stage.write(f'python3 -c "{words}"; exec sleep 1000', "speaks.sh")
    stage.up("a: {command: [sh, speaks.sh], ready: {notify: true}}\nb: {depends_on: [a]}")
    stage.tells()


def test_a_daemon_that_goes_on_in_another_process(stage: Stage) -> None:
    stage.write(DAEMON, "daemon.py")
    stage.up("a: {command: [python3, daemon.py], ready: {notify: true}}\nb: {depends_on: [a]}")
    path = stage.directory / "first"
    first = int(wait_until(lambda: path.exists() and path.read_text(), "its first process to say who it is"))
    main = stage.pid_of("a")
    assert main != first
    wait_until(lambda: not is_alive(first), "the end of its first process")
    stage.tells()
    os.kill(main, signal.SIGKILL)
    stage.tells(together("a: running → waiting → starting → running", stops("b", to="waiting")), starts("b"))
    assert "signal SIGKILL" in " ".join(stage.causes("a"))


@pytest.mark.parametrize(("word", "cause"), [("stays", "signal SIGKILL"), ("forgets", "exit code 255")])
def test_a_main_process_whose_parent_lives_on(stage: Stage, word: str, cause: str) -> None:
    """svcd is not its parent and will not be: who never asks leaves a zombie, who does not care for its children leaves
    nothing, and nobody can say how it ended. Its end is noticed all the same, and the parent is cleared away.
    """
    stage.write(DAEMON, "daemon.py")
    stage.up(f"a: {{command: [python3, daemon.py, {word}], ready: {{notify: true}}}}\nb: {{depends_on: [a]}}")
    first = int((stage.directory / "first").read_text())
    main = stage.pid_of("a")
    assert main != first
    assert is_alive(first)
    os.kill(main, signal.SIGKILL)
    stage.tells(together("a: running → stopping → waiting → starting → running", stops("b", to="waiting")), starts("b"))
    assert not is_alive(first)
    assert cause in " ".join(stage.causes("a"))


def test_a_foreign_process_is_not_adopted(stage: Stage) -> None:
    stage.up("a: {PLAYER}\nb: {PLAYER}")
    mine, other = stage.pid_of("a"), stage.pid_of("b")
    for pid in (1, other, os.getpid(), 2**22 + 1):
        stage.say("a", f"notify MAINPID={pid}")
    for text in ("-1", "x", "\u00b2", "9" * 300):
        stage.say("a", f"notify MAINPID={text}\nERRNO={text}\nEXTEND_TIMEOUT_USEC={text}")
    stage.say("a", "notify STATUS=still here")
    stage.wait_status(lambda _: stage.row("a").text == "still here", "its words")
    assert stage.pid_of("a") == mine
    assert stage.pid_of("b") == other


def test_nobody_speaks_for_another(stage: Stage) -> None:
    """The names of abstract sockets are there for everybody to read; ours listen to their own run alone."""
    stage.up("a: {PLAYER}\nb: {PLAYER}")
    for name in "ab":
        stage.say(name, f"notify STATUS={name}'s")
        stage.wait_status(lambda _, name=name: stage.row(name).text == f"{name}'s", "its words")
    table = Path("/proc/net/unix").read_text()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        for name in "ab":
            address = notify_socket(stage.pid_of(name))
            assert address in table
            stranger.sendto(b"STATUS=forged\nSTOPPING=1", address.replace("@", "\0", 1))
    for name in "ab":  # what is said after it is read after it
        stage.say(name, f"notify STATUS={name}'s own")
        stage.wait_status(lambda _, name=name: stage.row(name).text != f"{name}'s", "its words")
        assert stage.row(name).text == f"{name}'s own"
    stage.tells()


def notify_socket(pid: int) -> str:
    """Where this process was told to announce things."""
    found = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return next(each.partition("=")[2] for each in found if each.startswith("NOTIFY_SOCKET="))
