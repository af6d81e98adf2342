"""``svcd logs``: which bytes come out where.

Must not test how rotated files are read: ``test_following`` does.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_daemon import PATIENCE_S, Directories, FakeDaemon, Outcome, row
from rotating import Writer

Svcd = Callable[..., Outcome]


def write(directories: Directories, name: str, stream: str, data: bytes) -> Path:
    path = directories.state_dir / "logs" / name / f"{stream}.log"
    writer = Writer(path, 1 << 20, 1)
    writer.write(data)
    writer.close()
    return path


def test_one_name_into_a_pipe_is_its_bytes_alone(daemon: FakeDaemon, directories: Directories) -> None:
    daemon.rows = [row("web"), row("db")]
    blob = bytes(range(256)) * 10 + b"\r\n\x1b[2J no newline at the end"
    write(directories, "web", "stdout", blob)
    write(directories, "web", "stderr", b"\xffe")
    command = [sys.executable, "-m", "svcd.cli", "logs", "web", "-n", "all"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_S)
    assert done.stdout == blob + b"\xffe", "stdout first, then stderr"
    done = subprocess.run([*command, "--stream", "stdout"], capture_output=True, check=True, timeout=PATIENCE_S)
    assert done.stdout == blob
    assert done.stderr == b""


def test_several_have_their_names_before_each_line(daemon: FakeDaemon, directories: Directories, svcd: Svcd) -> None:
    daemon.rows = [row("database"), row("web"), row("silent")]
    write(directories, "web", "stdout", b"one\ntwo")
    write(directories, "database", "stderr", b"oops\n\n")
    expected = "database | oops\ndatabase | \nweb      | one\nweb      | two\n"
    assert svcd("logs").out == expected
    assert svcd("logs", "web", "database").out == "web      | one\nweb      | two\ndatabase | oops\ndatabase | \n"
    assert svcd("logs", "web", "web").out == "web | one\nweb | two\n"


def test_a_service_is_all_of_its_instances(daemon: FakeDaemon, directories: Directories, svcd: Svcd) -> None:
    daemon.rows = [row("api.0", service="api"), row("api.1", service="api"), row("one.0", service="one"), row("web")]
    for name in ("api.0", "api.1", "api.2", "one.0"):
        write(directories, name, "stdout", f"of {name}\n".encode())
    assert svcd("logs", "api").out == "api.0 | of api.0\napi.1 | of api.1\n"
    assert svcd("logs", "api", "api.1").out == "api.0 | of api.0\napi.1 | of api.1\n"
    assert svcd("logs", "api.1").out == "of api.1\n"
    assert svcd("logs", "api.2").out == "of api.2\n", "it ran once"
    assert svcd("logs", "one").out == "of one.0\n", "into a pipe the bytes alone, as of every single service"
    outcome = svcd("logs", "apis")
    assert (outcome.code, outcome.err) == (2, "svcd: cannot show logs: no service 'apis'; did you mean api?\n")


def test_a_service_is_all_of_its_instances_without_a_daemon_too(directories: Directories, svcd: Svcd) -> None:
    for name in ("api.0", "api.1", "web"):
        write(directories, name, "stdout", f"of {name}\n".encode())
    assert svcd("logs", "api").out == "api.0 | of api.0\napi.1 | of api.1\n"


@pytest.mark.parametrize(("count", "expected"), [("2", "l8\nl9\n"), ("0", ""), ("1", "l9\n"), ("all", None)])
def test_the_last_lines(
    daemon: FakeDaemon, directories: Directories, svcd: Svcd, count: str, expected: str | None
) -> None:
    daemon.rows = [row("web")]
    whole = "".join(f"l{number}\n" for number in range(10))
    write(directories, "web", "stdout", whole.encode())
    outcome = svcd("logs", "web", "-n", count)
    assert (outcome.code, outcome.out) == (0, whole if expected is None else expected)


def test_a_hundred_lines_unless_told_otherwise(daemon: FakeDaemon, directories: Directories, svcd: Svcd) -> None:
    daemon.rows = [row("web")]
    write(directories, "web", "stdout", b"x\n" * 500)
    assert svcd("logs", "web").out == "x\n" * 100


def test_json_is_one_object_a_line(daemon: FakeDaemon, directories: Directories, svcd: Svcd) -> None:
    daemon.rows = [row("web")]
    write(directories, "web", "stdout", "grün\n".encode() + b"\xff\x1b\n")
    write(directories, "web", "stderr", b"no end")
    assert [json.loads(line) for line in svcd("logs", "web", "--json").out.splitlines()] == [
        {"event": "output", "service": "web", "stream": "stdout", "text": "grün"},
        {"event": "output", "service": "web", "stream": "stdout", "text": "\\xff\x1b"},
        {"event": "output", "service": "web", "stream": "stderr", "text": "no end"},
    ]


def test_a_line_without_end_does_not_fill_the_memory(daemon: FakeDaemon, directories: Directories, svcd: Svcd) -> None:
    daemon.rows = [row("web"), row("db")]
    write(directories, "web", "stdout", b"x" * 200_000)
    lines = svcd("logs").out.splitlines()
    assert [len(line) - len("web | ") for line in lines] == [65536, 65536, 65536, 200_000 - 3 * 65536]


@pytest.mark.parametrize("name", ["wab", "..", "../logs", "web/../web", "/", ""])
def test_names_that_are_not_there(daemon: FakeDaemon, directories: Directories, svcd: Svcd, name: str) -> None:
    daemon.rows = [row("web")]
    write(directories, "web", "stdout", b"x\n")
    outcome = svcd("logs", name)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"svcd: cannot show logs: no service {name!r}")
    if name == "wab":
        assert "did you mean web?" in outcome.err


def test_a_service_that_was_taken_out_still_has_logs(daemon: FakeDaemon, directories: Directories, svcd: Svcd) -> None:
    daemon.rows = [row("web")]
    write(directories, "gone", "stdout", b"once\n")
    assert svcd("logs", "gone").out == "once\n"
    assert svcd("logs").out == ""


def test_a_symbolic_link_is_not_followed(daemon: FakeDaemon, directories: Directories, svcd: Svcd) -> None:
    daemon.rows = [row("web")]
    directory = directories.state_dir / "logs" / "web"
    directory.mkdir(parents=True)
    (directory / "stdout.log").symlink_to("/etc/passwd")
    outcome = svcd("logs", "web")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_without_a_daemon(directories: Directories, svcd: Svcd, monkeypatch: pytest.MonkeyPatch) -> None:
    write(directories, "web", "stdout", b"before\n")
    assert svcd("logs", "web").out == "before\n"
    assert svcd("logs", "nobody").code == 2
    monkeypatch.delenv("SVCD_STATE_DIR")
    outcome = svcd("logs", "web")
    assert outcome.code == 4
    assert "--state-dir" in outcome.err
    assert svcd("logs", "web", "--state-dir", str(directories.state_dir)).out == "before\n"
    outcome = svcd("logs", "--state-dir", str(directories.state_dir / "nowhere"))
    assert outcome.code == 2
    assert "No such file" in outcome.err


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "²", "ALL", "9" * 20])
def test_counts_that_are_none(daemon: FakeDaemon, svcd: Svcd, text: str) -> None:
    outcome = svcd("logs", "-n", text)
    assert outcome.code == 2
    assert "neither a number nor all" in outcome.err


class Following:
    """``svcd logs -f`` in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "svcd.cli", "logs", "-f", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes of its output."""
        assert self.process.stdout is not None
        return self.process.stdout.read(count)

    def interrupt(self) -> bytes:
        """Ctrl-C; what it said besides."""
        self.process.send_signal(signal.SIGINT)
        rest, err = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0
        assert err == b""
        return rest

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_follow_over_rotations(daemon: FakeDaemon, directories: Directories) -> None:
    daemon.rows = [row("web")]
    writer = Writer(directories.state_dir / "logs" / "web" / "stdout.log", 1000, 3)
    writer.write(b"old line\nlast line\n")
    following = Following("web", "-n", "1")
    try:
        assert following.read(10) == b"last line\n"
        begin = len(writer.written)
        for number in range(100):
            writer.write(b"%099d\n" % number)
            assert following.read(100) == b"%099d\n" % number
        assert following.interrupt() == b""
        assert len(writer.written) - begin == 10_000
    finally:
        following.close()
        writer.close()


def test_follow_several_and_one_that_is_born_later(daemon: FakeDaemon, directories: Directories) -> None:
    daemon.rows = [row("web"), row("db")]
    (directories.state_dir / "logs").mkdir(parents=True)
    web = Writer(directories.state_dir / "logs" / "web" / "stdout.log", 1000, 3)
    following = Following()
    try:
        web.write(b"up\n")
        assert following.read(9) == b"web | up\n"
        db = Writer(directories.state_dir / "logs" / "db" / "stderr.log", 1000, 3)
        db.write(b"up, too\nnot a whole li")
        assert following.read(14) == b"db  | up, too\n"
        web.write(b"more\n")
        assert following.read(11) == b"web | more\n"
        db.write(b"ne\n")
        assert following.read(23) == b"db  | not a whole line\n"
        db.write(b"the rest")
        assert following.interrupt() in (b"db  | the rest\n", b"")
        db.close()
    finally:
        following.close()
        web.close()


def test_follow_shows_instances_that_come_later_but_no_strangers(daemon: FakeDaemon, directories: Directories) -> None:
    daemon.rows = [row("web")]
    logs = directories.state_dir / "logs"
    gone = Writer(logs / "web.1" / "stdout.log", 1000, 3)
    gone.write(b"of an earlier life\n")
    web = Writer(logs / "web" / "stdout.log", 1000, 3)
    following = Following("web")
    try:
        web.write(b"bytes alone\n")
        assert following.read(12) == b"bytes alone\n"
        for name in ("other", "web.0"):
            writer = Writer(logs / name / "stdout.log", 1000, 3)
            writer.write(b"up\n")
            writer.close()
        assert following.read(11) == b"web.0 | up\n"
        gone.write(b"again\n")
        assert following.read(14) == b"web.1 | again\n"
    finally:
        following.close()
        web.close()
        gone.close()


def test_a_reader_that_goes_away_ends_it_quietly(daemon: FakeDaemon, directories: Directories) -> None:
    daemon.rows = [row("web")]
    write(directories, "web", "stdout", b"x\n" * 100_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "svcd.cli", "logs", "-n", "all", "web"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(PATIENCE_S) == -signal.SIGPIPE
        assert process.stderr.read() == b""


def test_following_ends_with_its_reader_though_nothing_is_said(daemon: FakeDaemon, directories: Directories) -> None:
    daemon.rows = [row("web")]
    write(directories, "web", "stdout", b"up\n")
    following = Following("web")
    try:
        assert following.read(3) == b"up\n"
        assert following.process.stdout is not None
        following.process.stdout.close()
        assert following.process.wait(PATIENCE_S) == -signal.SIGPIPE
    finally:
        following.process.kill()
        following.process.wait()
        assert following.process.stderr is not None
        following.process.stderr.close()
