"""``svcd status``: exact output and exit codes, against a controller of the test's.

Must not look at colours or widths of a terminal: ``test_terminal`` does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_daemon import Directories, FakeDaemon, Outcome, row

from svcd.cli import background, status
from svcd.protocol import messages

Svcd = Callable[..., Outcome]

TABLE = """\
cluster shop: running (pid 4242)

NAME   STATE      PID  UPTIME  RESTARTS    CPU      MEM  CAUSE
db     running    412   2m05s         0   3.5%   24 MiB  ready
setup  completed    -   1h00m         0      -        -  exit code 0
web    backoff      -    0.3s        12  99.9%  1.2 GiB  exit code 1; next try in 0.2 s
job    waiting      -       -         0      -        -  for web (backoff, next try in 0.2 s)
"""


@pytest.mark.parametrize(
    ("state", "parent", "code"),
    [
        ("loading", "pool", 0),
        ("starting", "pool", 0),
        ("failed", "pool", 3),
        ("backoff", "pool", 3),
        ("starting", None, 3),
        ("running", None, 0),
    ],
)
def test_the_answer_of_a_start_in_the_background(
    capsys: pytest.CaptureFixture[str], state: str, parent: str | None, code: int
) -> None:
    """A service that runs may be creating a child in this moment: nothing has failed."""
    rows = (row("pool"), row("shard", state, parent=parent))
    report = messages.StatusReported("shop", 1, "running", 0, "/var/lib/svcd/shop", (), rows)
    assert background._show(report, wait=True, deadline=None, as_json=False) == code
    assert capsys.readouterr().err == ("svcd: not as desired: shard; the rest runs in the background\n" if code else "")


def test_the_table(daemon: FakeDaemon, svcd: Svcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 10_000.0)
    daemon.pid = 4242
    daemon.rows = [
        row("db", pid=412, since=9_875.0, cpu_percent=3.5, memory_bytes=24 * 2**20),
        row("setup", "completed", pid=None, since=6_400.0, cause="exit code 0"),
        row("web", "backoff", pid=None, since=9_999.7, restarts=12, cpu_percent=99.9, memory_bytes=1_300_000_000,
            cause="exit code 1; next try in 0.2 s"),
        row("job", "waiting", pid=None, cause="for web (backoff, next try in 0.2 s)"),
    ]  # fmt: skip
    outcome = svcd("status")
    assert outcome.out == TABLE
    assert outcome.err == ""
    assert outcome.code == 3


def test_what_else_there_is_to_know_stands_beside_the_cause(
    daemon: FakeDaemon, svcd: Svcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 10_000.0)
    daemon.rows = [
        row("a", healthy=False, ailment="status 500 (3 times in a row)"),
        row("b", "failed", cause="exit code 1", fallback="c"),
        row("bb", "failed", cause="exit code 7", not_restarted="restart.prevent_codes has 7"),
        row("bc", "failed", cause="exit code 7", not_restarted="restart.policy is never"),
        row("c", text="serving 3 clients", port=8001),
        row("d", "unloaded", desired="down", pid=None, cause="registered", sockets=("127.0.0.1:80",)),
        row("dd", "unloaded", pid=None, desired="down", cause="registered", sockets=("[::1]:80",), on_demand=True),
        row("e", "completed", pid=None, cause="exit code 0", next_run=10_060.0),
        row("f", healthy=True, sockets=("127.0.0.1:81",)),
        row("g", "stopping", healthy=False, cause="unhealthy: exit code 1"),
        row("h", "paused", cause="by request"),
    ]
    causes = [line.split("  ")[-1] for line in svcd("status").out.splitlines()[3:]]
    assert causes == [
        "ready; unhealthy: status 500 (3 times in a row)",
        "c stands in; exit code 1",
        "exit code 7; not restarted: restart.prevent_codes has 7",
        "exit code 7",
        'ready; says "serving 3 clients"; port 8001',
        "registered; who calls 127.0.0.1:80 waits",
        "registered; a call to [::1]:80 starts it",
        "exit code 0; runs in 1m00s",
        "ready; healthy",
        "unhealthy: exit code 1",
        "by request",
    ]


DETAILS = """\
cluster shop: running (pid 4242)

web.1: running for 2m05s: ready
  asked to be      up
  says             three clients
  healthy          no
  stood in for by  spare
  process          pid 412, invocation 7
  uses             3.5% of a core, 24 MiB
  restarts         2
  port             8001
  svcd listens on  127.0.0.1:80, unix:/run/x
  runs next        2001-09-09 01:46:40, in 11573d23h
  depends on       db, cache
  instance         1 of web
  type             task
  version          1.4
  tags             a, b
  its check printed:
    12 jobs are stuck
    since noon
"""


def test_all_there_is_to_know_of_one(daemon: FakeDaemon, svcd: Svcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: 10_000.0)
    daemon.pid = 4242
    daemon.rows = [
        row("web.1", service="web", instance=1, since=9_875.0, text="three\nclients", healthy=False, fallback="spare",
            pid=412, invocation=7, cpu_percent=3.5, memory_bytes=24 * 2**20, restarts=2, port=8001, next_run=1e9,
            sockets=("127.0.0.1:80", "unix:/run/x"), depends_on=("db", "cache"), type="task", tags=("a", "b"),
            version="1.4", check_output=("12 jobs are stuck", "\x1b[31msince noon")),
        row("db", "failed", since=9_990.0, pid=None, cause="exit code 1", last_output=("oh dear",),
            not_restarted="restart.policy is never"),
    ]  # fmt: skip
    assert svcd("status", "web.1").out == DETAILS
    outcome = svcd("status", "db")
    assert outcome.code == 3
    assert outcome.out.partition("\n\n")[2] == (
        "db: failed for 10s: exit code 1\n"
        "  asked to be    up\n  not restarted  restart.policy is never\n  restarts       0\n"
        "\ndb: failed: exit code 1\n  last output:\n    oh dear\n"
    )


def test_several_instances_are_a_table(daemon: FakeDaemon, svcd: Svcd) -> None:
    daemon.rows = [row("web.0", service="web"), row("web.1", service="web")]
    daemon.replies[messages.GetStatus] = lambda question: daemon.status(messages.GetStatus())
    assert svcd("status", "web").out.splitlines()[2].startswith("NAME")


@pytest.mark.parametrize(("width", "gone"), [(None, 0), (120, 0), (79, 2), (62, 3), (10, 3)])
def test_a_narrow_terminal_keeps_the_cause(
    daemon: FakeDaemon, svcd: Svcd, monkeypatch: pytest.MonkeyPatch, width: int | None, gone: int
) -> None:
    monkeypatch.setattr("svcd.cli.columns.width", lambda: width)
    cause = "for database (backoff, next try in 1.6 s; exit code 1)"
    daemon.rows = [row("web", "waiting", cause=cause, cpu_percent=99.9, memory_bytes=24 * 2**20), row("database")]
    _, _, head, first, _ = svcd("status").out.splitlines()
    assert len(head.split()) == 8 - gone
    assert "CAUSE" in head
    assert "for databas" in first
    assert width is None or width < 60 or len(first) <= width


@pytest.mark.parametrize(
    ("state", "desired", "code"),
    [
        ("running", "up", 0),
        ("completed", "up", 0),
        ("paused", "up", 0),
        ("loaded", "down", 0),
        ("waiting", "up", 3),
        ("starting", "up", 3),
        ("backoff", "up", 3),
        ("failed", "up", 3),
        ("unavailable", "up", 3),
        ("stopped", "up", 3),
        ("stopped", "down", 0),
        ("unloaded", "down", 0),
        ("completed", "down", 0),
        ("failed", "down", 0),
        ("stopping", "down", 3),
        ("running", "down", 3),
    ],
)
def test_exit_code_says_whether_all_is_as_desired(
    daemon: FakeDaemon, svcd: Svcd, state: str, desired: str, code: int
) -> None:
    daemon.rows = [row("a"), row("b", state, desired=desired)]
    assert svcd("status").code == code
    assert svcd("status", "b").code == code
    assert svcd("status", "a").code == 0


def test_json_has_every_field_and_shortens_nothing(daemon: FakeDaemon, svcd: Svcd) -> None:
    cause = "x" * 5000 + " \x1b[31m"
    daemon.rows = [row("web", "failed", cause=cause, depends_on=("db",), last_output=("a", "b"), exception="T")]
    outcome = svcd("status", "--json")
    assert outcome.code == 3
    document = json.loads(outcome.out)
    assert set(document) == {"cluster", "pid", "state", "parts", "services", "state_dir", "sequence", "cause"}
    assert document["parts"] == [{"name": "guardian", "pid": daemon.pid}]
    (service,) = document["services"]
    assert set(service) >= {
        "name", "service", "instance", "state", "desired", "pid", "invocation", "restarts", "since", "cause",
        "cpu_percent", "memory_bytes", "depends_on",
    }  # fmt: skip
    assert service["cause"] == cause
    assert service["depends_on"] == ["db"]


def test_last_words_of_what_is_in_trouble(daemon: FakeDaemon, svcd: Svcd) -> None:
    daemon.rows = [
        row("fine", last_output=("not shown",)),
        row("bad", "failed", pid=None, cause="exit code 7", last_output=tuple(f"line {n}" for n in range(8))),
        row("py", "failed", pid=None, cause="raised", exception="Traceback:\n  File x\nValueError: no\n"),
    ]
    out = svcd("status").out
    assert "not shown" not in out
    _, _, words = out.partition("\n\nbad: ")
    assert words == (
        "failed: exit code 7\n"
        "  last output:\n"
        "    …\n"
        "    line 3\n    line 4\n    line 5\n    line 6\n    line 7\n"
        "\n"
        "py: failed: raised\n"
        "  exception:\n"
        "    Traceback:\n      File x\n    ValueError: no\n"
    )


def test_a_traceback_is_shown_once(daemon: FakeDaemon, svcd: Svcd) -> None:
    traceback = "Traceback:\n  File x\nValueError: no\n"
    said = ("before", *traceback.splitlines())
    daemon.rows = [row("py", "failed", pid=None, cause="raised", last_output=said, exception=traceback)]
    assert svcd("status").out.partition("\n\npy: ")[2] == (
        "failed: raised\n  exception:\n    Traceback:\n      File x\n    ValueError: no\n  last output:\n    before\n"
    )


def test_what_strangers_wrote_is_made_harmless(daemon: FakeDaemon, svcd: Svcd) -> None:
    evil = "\x1b]0;title\x07\x1b[2Jred\x1b[31m\r\nnext\x9b"
    daemon.rows = [row("bad", "failed", cause=evil, last_output=(evil,), exception=evil)]
    out = svcd("status").out
    assert "red next" in out
    assert not any(character in out for character in "\x1b\x07\r\x9b")


def test_unknown_names_are_bad_usage(daemon: FakeDaemon, svcd: Svcd) -> None:
    daemon.rows = [row("web")]
    outcome = svcd("status", "wab")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "svcd: cannot show the status: no service 'wab'\n"


def test_no_services_at_all(daemon: FakeDaemon, svcd: Svcd) -> None:
    daemon.pid = 7
    assert svcd("status").out == "cluster shop: running (pid 7)\nno services\n"


def test_no_daemon(directories: Directories, svcd: Svcd) -> None:
    outcome = svcd("status")
    assert outcome.code == 4
    assert outcome.out == ""
    assert outcome.err.splitlines()[0] == f"svcd: no cluster runs in {directories.run_dir}"


def test_which_cluster(directories: Directories, svcd: Svcd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By name, by directory, or the only one; several are named."""
    monkeypatch.delenv("SVCD_RUN_DIR")
    monkeypatch.setattr("svcd.protocol.places.run_bases", lambda environ, uid: (directories.run_dir.parent,))
    base = directories.run_dir.parent
    first = FakeDaemon(base / "one", directories.state_dir)
    try:
        assert svcd("status").code == 0
        second = FakeDaemon(base / "two", directories.state_dir)
        try:
            outcome = svcd("status")
            assert outcome.code == 2
            assert "one (pid" in outcome.err
            assert "two (pid" in outcome.err
            assert svcd("status", "--cluster", "two").code == 0
            assert svcd("--cluster", "one", "status").code == 0
            assert svcd("status", "--run-dir", str(base / "two")).code == 0
            assert svcd("status", "--cluster", "three").code == 4
            assert svcd("status", "--cluster", "one", "--run-dir", str(base / "two")).code == 2
        finally:
            second.close()
        assert [type(each) for each in second.asked] == [messages.GetStatus] * 2
    finally:
        first.close()


def test_states_are_all_judged() -> None:
    assert (
        set(__import__("svcd.protocol.vocabulary", fromlist=["STATES"]).STATES) > status.UP_STATES | status.DOWN_STATES
    )
