"""The console of a start in the foreground: plain where there is no terminal, live where there is one.

Must not run a daemon: the test says what the console hears.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from fake_daemon import PATIENCE_S, Directories, FakeDaemon, row
from rotating import Writer
from screen import Terminal

from svcd.cli.following import write_marks
from svcd.protocol.messages import ClusterStateChanged, GetStatus, NoticeGiven


def command(directories: Directories, **more: Any) -> list[str]:
    given = {"cluster": "shop", "run_dir": str(directories.run_dir), "state_dir": str(directories.state_dir), **more}
    return [sys.executable, "-m", "svcd.cli.console", json.dumps(given)]


class Plain:
    """The console, writing into a pipe."""

    def __init__(self, directories: Directories, **environ: str) -> None:
        self.process = subprocess.Popen(
            command(directories), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environ}
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode()

    def finish(self) -> tuple[str, str]:
        """What else it says until it ends by itself."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0
        return out.decode(), err.decode()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def writer(directories: Directories, name: str, stream: str = "stdout") -> Writer:
    return Writer(directories.state_dir / "logs" / name / f"{stream}.log", 1000, 3)


def begin(daemon: FakeDaemon, directories: Directories, *rows: Any, state: str = "starting") -> None:
    """A daemon that starts these, and the marks that ``svcd start`` leaves."""
    daemon.rows, daemon.state, daemon.pid = list(rows), state, 4242
    (directories.state_dir / "logs").mkdir(parents=True, exist_ok=True)
    write_marks(directories.state_dir)


@pytest.fixture
def plain(daemon: FakeDaemon, directories: Directories) -> Iterator[Plain]:
    old = writer(directories, "web")
    old.write(b"of an earlier run\n")
    old.close()
    begin(daemon, directories, row("db", "starting"), row("web", "waiting", cause="for db (starting)"))
    made = Plain(directories)
    yield made
    made.close()


def test_a_whole_life_in_plain_lines(daemon: FakeDaemon, directories: Directories, plain: Plain) -> None:
    daemon.wait_subscriber()
    assert plain.line() == "svcd | cluster shop: 2 services, svcd is pid 4242\n"
    daemon.transition("db", "starting", "running", "ready")
    assert plain.line().startswith("svcd | db: running")
    daemon.transition("web", "waiting", "loading")
    daemon.transition("web", "loading", "starting")
    daemon.transition("web", "starting", "running", "ready")
    assert plain.line().startswith("svcd | web: running")
    daemon.publish(ClusterStateChanged, state="running")
    assert plain.line() == "svcd | everything is up; Ctrl-C drains\n"

    web = writer(directories, "web")
    web.write(b"hello\n")
    assert plain.line() == "web  | hello\n"
    daemon.transition("db", "running", "backoff", "exit code 1; next try in 0.2 s")
    assert plain.line() == "svcd | db: running → backoff: exit code 1; next try in 0.2 s\n"
    daemon.transition("db", "backoff", "starting")
    daemon.transition("db", "starting", "running", "ready")
    assert plain.line().startswith("svcd | db: backoff → running")
    daemon.publish(NoticeGiven, service="web", text="db crashed: \x1b[31mexit code 1")
    assert plain.line() == "svcd | web: db crashed: exit code 1\n"

    daemon.publish(ClusterStateChanged, state="stopping")
    assert "Ctrl-C again" in plain.line()
    web.write(b"last words, no newline")
    daemon.publish(ClusterStateChanged, state="ended")
    assert plain.finish() == ("web  | last words, no newline\nsvcd | ended\n", "")
    web.close()


def test_a_notice_that_a_look_has_overtaken_is_told_all_the_same(daemon: FakeDaemon, plain: Plain) -> None:
    daemon.wait_subscriber()
    assert plain.line() == "svcd | cluster shop: 2 services, svcd is pid 4242\n"
    daemon.publish(ClusterStateChanged, state="running")
    assert "up" in plain.line()
    daemon.sequence -= 1  # as if the status had been asked for after it
    daemon.publish(NoticeGiven, service="", text="essential service db failed: the cluster shuts down")
    assert plain.line() == "svcd | essential service db failed: the cluster shuts down\n"


def test_who_comes_later_is_shown_and_a_resume_is_no_start(
    daemon: FakeDaemon, directories: Directories, plain: Plain
) -> None:
    daemon.wait_subscriber()
    plain.line()
    daemon.transition("db", "starting", "running", "ready")
    plain.line()
    daemon.transition("db", "running", "paused", "paused by request")
    plain.line()
    daemon.transition("db", "paused", "running", "resumed by request")
    assert plain.line() == "svcd | db: paused → running\n"
    added = writer(directories, "web.1")
    added.write(b"hello\n")
    assert plain.line() == "web.1 | hello\n"
    added.close()
    daemon.publish(ClusterStateChanged, state="ended")
    plain.finish()


def test_what_was_written_before_it_looked_is_shown_once(daemon: FakeDaemon, directories: Directories) -> None:
    web = writer(directories, "web")
    web.write(b"of an earlier run\n")
    begin(daemon, directories, row("web"), state="running")
    web.write(b"first words\n" * 200)  # over several rotations
    console = Plain(directories)
    try:
        daemon.wait_subscriber()
        daemon.publish(ClusterStateChanged, state="ended")
        out, err = console.finish()
    finally:
        console.close()
        web.close()
    assert "earlier" not in out
    assert out.count("web  | first words\n") == 200
    assert err == ""


def test_events_that_were_missed_are_found_by_looking(
    daemon: FakeDaemon, directories: Directories, plain: Plain
) -> None:
    daemon.wait_subscriber()
    plain.line()
    daemon.wait_asked(GetStatus)  # from here on only the hole makes it look again
    daemon.sequence += 1  # one that never comes
    daemon.rows = [row("db", "failed", cause="exit code 7"), row("web", "waiting", cause="for db (failed)")]
    daemon.publish(NoticeGiven, service="", text="a hole before me")
    assert plain.line().endswith("failed: exit code 7\n")
    assert plain.line() == "svcd | a hole before me\n"


def test_a_summary_counts_what_was_missed(daemon: FakeDaemon, directories: Directories, plain: Plain) -> None:
    daemon.wait_subscriber()
    plain.line()
    daemon.wait_asked(GetStatus)
    daemon.sequence += 1  # one that never comes: web is running, too
    daemon.rows = [row("db"), row("web")]
    daemon.publish(ClusterStateChanged, state="running")
    assert {" ".join(plain.line().split()[:4]) for _ in range(2)} == {"svcd | db: running", "svcd | web: running"}
    assert "everything is up" in plain.line()


def test_who_joins_the_cluster_later_is_shown_too(daemon: FakeDaemon, directories: Directories, plain: Plain) -> None:
    daemon.wait_subscriber()
    plain.line()
    daemon.wait_asked(GetStatus)
    new = writer(directories, "new")
    new.write(b"before it was known\n")
    assert plain.line() == "new  | before it was known\n"
    daemon.rows = [*daemon.rows, row("new")]
    daemon.transition("new", "starting", "running", "ready")
    assert plain.line().startswith("svcd | new: running")
    new.close()


def test_a_summary_names_what_is_not_up(daemon: FakeDaemon, directories: Directories) -> None:
    begin(daemon, directories, row("a"), row("b", "failed"), row("c", "unloaded", desired="down"), state="running")
    console = Plain(directories)
    try:
        assert [console.line() for _ in range(4)][1:] == [
            "svcd | a: running\n",
            "svcd | b: failed: ready\n",
            "svcd | 1 of 2 are up; not up: b\n",
        ]
    finally:
        console.close()


def test_a_child_that_is_being_created_is_no_part_of_the_start(daemon: FakeDaemon, directories: Directories) -> None:
    begin(daemon, directories, row("a"), row("b", "loading", parent="a"), state="running")
    console = Plain(directories)
    try:
        assert [console.line() for _ in range(3)][1:] == [
            "svcd | a: running\n",
            "svcd | everything is up; Ctrl-C drains\n",
        ]
    finally:
        console.close()


def test_as_json(daemon: FakeDaemon, directories: Directories) -> None:
    begin(daemon, directories, row("web"), state="running")
    console = Plain(directories, SVCD_CONSOLE_FORMAT="json")
    try:
        daemon.wait_subscriber()
        daemon.transition("web", "running", "backoff", "exit code 1", 1.5)
        assert json.loads(console.line()) | {"at": 0} == {
            "event": "ServiceTransitioned", "sequence": 1, "at": 0, "service": "web", "invocation": 1,
            "old": "running", "new": "backoff", "cause": "exit code 1", "spent_s": 1.5, "transaction": 0,
        }  # fmt: skip
        web = writer(directories, "web", "stderr")
        web.write(b"oops\n")
        assert json.loads(console.line()) == {"event": "output", "service": "web", "stream": "stderr", "text": "oops"}
        daemon.publish(ClusterStateChanged, state="ended")
        out, err = console.finish()
        assert [json.loads(line)["event"] for line in out.splitlines()] == ["ClusterStateChanged"]
        assert err == ""
        web.close()
    finally:
        console.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGTSTP])
def test_signals_are_the_guardians(
    daemon: FakeDaemon, directories: Directories, plain: Plain, number: signal.Signals
) -> None:
    daemon.wait_subscriber()
    plain.line()
    plain.process.send_signal(number)
    daemon.publish(NoticeGiven, service="", text="still here")
    assert plain.line() == "svcd | still here\n"


def test_a_daemon_that_ends_before_it_was_met_is_not_waited_for(directories: Directories) -> None:
    """Nobody answers there; the guardian's end of the link is all that can be heard."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            command(directories, guardian_fd=theirs.fileno()), stdout=subprocess.PIPE, pass_fds=[theirs.fileno()]
        )
        ours.close()
        theirs.close()
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (0, b"")


def test_a_closed_pipe_ends_it_quietly(daemon: FakeDaemon, directories: Directories, plain: Plain) -> None:
    daemon.wait_subscriber()
    plain.line()
    assert plain.process.stdout is not None
    plain.process.stdout.close()
    daemon.publish(NoticeGiven, service="", text="nobody reads this")
    assert plain.process.wait(PATIENCE_S) == 0
    assert plain.process.stderr is not None
    assert plain.process.stderr.read() == b""


# ---- in a terminal ---------------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(daemon: FakeDaemon, directories: Directories) -> Iterator[Terminal]:
    begin(
        daemon,
        directories,
        row("db", "starting", cause="waits for tcp 127.0.0.1:6379"),
        row("web", "waiting", cause="for db (starting)"),
        row("done", "running"),
    )
    made = Terminal(command(directories), {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8"}, columns=80)
    yield made
    made.close()


def test_the_live_view_collapses_when_all_is_up(
    daemon: FakeDaemon, directories: Directories, terminal: Terminal
) -> None:
    daemon.wait_subscriber()
    seen = terminal.wait_text("starting: 1 of 3 up", "waits for tcp", "for db (starting)")
    rows = [line.split()[1:3] for line in seen.splitlines()[-2:]]
    assert rows == [["db", "starting"], ["web", "waiting"]]
    assert all(len(line) <= 80 for line in seen.splitlines())

    web = writer(directories, "db")
    web.write(b"printed while the view is up\n")
    seen = terminal.wait_text("db   | printed while the view is up")
    seen = terminal.wait(lambda text: "starting: 1 of 3 up" in text.partition("printed")[2])
    assert seen.count("starting: 1 of 3 up") == 1, "the view is drawn below what is said, once"

    daemon.rows = [row("db"), row("web"), row("done")]
    daemon.state = "running"
    daemon.transition("db", "starting", "running", "ready")
    daemon.transition("web", "waiting", "starting")
    daemon.transition("web", "starting", "running", "ready")
    daemon.publish(ClusterStateChanged, state="running")
    seen = terminal.wait_text("everything is up")
    assert "starting: " not in seen
    assert "for db" not in seen
    assert terminal.screen.styled

    daemon.state = "stopping"
    daemon.rows = [row("db"), row("web", "stopping", cause="cluster shutdown"), row("done", "stopped")]
    daemon.publish(ClusterStateChanged, state="stopping")
    daemon.transition("web", "running", "stopping", "cluster shutdown")
    terminal.wait_text("Ctrl-C again", "stopping: ", "cluster shutdown")
    daemon.publish(ClusterStateChanged, state="ended")
    assert terminal.wait_end() == 0
    seen = terminal.screen.text()
    assert seen.endswith("svcd | ended")
    assert "of 3 down" not in seen
    assert terminal.screen.cursor_shown
    web.close()


def test_what_waits_to_be_asked_for_or_has_failed_is_not_up(daemon: FakeDaemon, directories: Directories) -> None:
    stands = (
        row("web", "waiting", cause="for db"),
        row("db", "failed"),
        row("done"),
        row("lazy", "unloaded", desired="down"),
    )
    begin(daemon, directories, *stands, row("late", "stopped", desired="down"))
    terminal = Terminal(command(directories), {**os.environ, "TERM": "xterm"}, columns=80)
    try:
        terminal.wait_text("starting: 1 of 3 up")
    finally:
        terminal.close()


def test_more_services_than_the_terminal_has_rows(daemon: FakeDaemon, directories: Directories) -> None:
    begin(daemon, directories, *(row(f"s{number}", "waiting", cause="for its turn") for number in range(100)))
    terminal = Terminal(command(directories), {**os.environ, "TERM": "xterm", "LANG": "C.UTF-8"}, columns=60, rows=15)
    try:
        seen = terminal.wait_text("more")
        assert len(seen.splitlines()) <= 15
        shown = sum("for its turn" in line for line in seen.splitlines())
        assert f"and {100 - shown} more" in seen
    finally:
        terminal.close()


def test_output_cannot_take_over_the_terminal(daemon: FakeDaemon, directories: Directories, terminal: Terminal) -> None:
    daemon.wait_subscriber()
    db = writer(directories, "db")
    db.write(b"\x1b]0;title\x07\x1b[2J\x1b[H\x1b[31mred\x1b[0m \x9b5A\xff\x00 fine\r\n")
    seen = terminal.wait_text("fine")
    assert "db   | red" in seen
    assert "title" not in seen
    db.close()


def test_without_colours(daemon: FakeDaemon, directories: Directories) -> None:
    begin(daemon, directories, row("a"), row("b", "failed"), state="running")
    terminal = Terminal(command(directories), {**os.environ, "TERM": "xterm", "NO_COLOR": "1"})
    try:
        terminal.wait_text("not up: b")
        assert not terminal.screen.styled
    finally:
        terminal.close()


def test_a_closed_window_harms_nobody(daemon: FakeDaemon, directories: Directories, terminal: Terminal) -> None:
    daemon.wait_subscriber()
    terminal.wait_text("starting: ")
    terminal.hang_up()
    assert terminal.wait_end() in (0, -signal.SIGHUP)


@pytest.mark.parametrize("state", ["starting", "running"])
def test_a_closed_window_ends_it_under_nohup_too(daemon: FakeDaemon, directories: Directories, state: str) -> None:
    """Whether it has anything to say then or not."""
    begin(daemon, directories, row("a", state), state=state)
    nohup = ["/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command(directories)]
    terminal = Terminal(nohup, {**os.environ, "TERM": "xterm", "LANG": "C.UTF-8"})
    try:
        daemon.wait_subscriber()
        terminal.wait_text("starting: " if state == "starting" else "everything is up")
        terminal.hang_up()
        assert terminal.wait_end() == 0
    finally:
        terminal.close()
