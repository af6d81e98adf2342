"""svcd why, svcd changes: what is shown of the daemon's causes.

Must not test which causes there are: the core's tests do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from fake_daemon import FakeDaemon, Outcome

from svcd.protocol.messages import (
    Change,
    ChangesReported,
    GetChanges,
    GetStory,
    Link,
    Remark,
    RequestRefused,
    StoryReported,
    Transition,
)

Svcd = Callable[..., Outcome]
BEGAN = 1_000_000.125
STEPS = (
    Transition(BEGAN, "db", 7, "running", "backoff", "exit code 1", 60.0, 4),
    Transition(BEGAN + 0.5, "db", 7, "backoff", "waiting", "restart after exit code 1", 0.5, 4),
)
CRASH = Change(4, "db crashed: exit code 1", BEGAN, BEGAN + 2.0, ("db", "api"), STEPS)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: BEGAN + 100)
    real = time.localtime
    monkeypatch.setattr(time, "localtime", lambda at=None: real(BEGAN + 100 if at is None else at))


def test_why(daemon: FakeDaemon, svcd: Svcd) -> None:
    chain = (
        Link("web", "waiting", "up", "for api (waiting)", BEGAN),
        Link("api", "waiting", "up", "for db (backoff, next try in 1.6 s)", BEGAN + 40),
        Link("db", "backoff", "up", "exit code 1; next try in 1.6 s", BEGAN + 99.5),
    )
    daemon.answer(GetStory, StoryReported("web", chain, STEPS, (CRASH,)))
    outcome = svcd("why", "web")
    assert (outcome.code, outcome.err) == (0, "")
    assert (
        outcome.out
        == """\
web has been waiting for 1m40s: for api (waiting)
└ because api has been waiting for 1m00s: for db (backoff, next try in 1.6 s)
  └ because db has been in backoff for 0.5s: exit code 1; next try in 1.6 s

its history:
  change 4: db crashed: exit code 1
    13:46:40.125  running → backoff: exit code 1
    13:46:40.625  backoff → waiting: restart after exit code 1
"""
    )
    assert daemon.asked == [GetStory("web")]


def test_why_tells_remarks_where_they_belong(daemon: FakeDaemon, svcd: Svcd) -> None:
    chain = (Link("web", "running", "up", "ready; unhealthy: status 500", BEGAN),)
    remarks = (Remark(BEGAN - 1.0, "db crashed: exit code 1; it requires it"), Remark(BEGAN + 0.25, "healthy\x1b[1m"))
    daemon.answer(GetStory, StoryReported("web", chain, STEPS, (CRASH,), remarks))
    assert svcd("why", "web").out.splitlines()[2:] == [
        "its history:",
        "  13:46:39.125  db crashed: exit code 1; it requires it",
        "  change 4: db crashed: exit code 1",
        "    13:46:40.125  running → backoff: exit code 1",
        "  13:46:40.375  healthy",
        "  change 4: db crashed: exit code 1",
        "    13:46:40.625  backoff → waiting: restart after exit code 1",
    ]


@pytest.mark.parametrize(
    ("state", "desired", "hint"),
    [
        ("stopped", "up", "svcd start db starts it"),
        ("stopped", "down", None),
        ("unloaded", "down", None),
        ("paused", "up", "svcd resume db lets it go on"),
        ("failed", "down", "svcd logs db shows what it printed; svcd start db tries again"),
        ("unavailable", "up", "svcd logs db shows what it printed; svcd start db tries again"),
        ("running", "up", None),
        ("backoff", "up", None),
    ],
)
def test_why_says_what_helps(daemon: FakeDaemon, svcd: Svcd, state: str, desired: str, hint: str | None) -> None:
    links = Link("web", "waiting", desired, "for db", BEGAN), Link("db", state, "down", "a reason", BEGAN)
    daemon.answer(GetStory, StoryReported("web", links, STEPS, (CRASH,)))
    found = [line for line in svcd("why", "web").out.splitlines() if line.startswith("hint: ")]
    assert found == ([] if hint is None else [f"hint: {hint}"])


def test_why_nothing_has_happened(daemon: FakeDaemon, svcd: Svcd) -> None:
    daemon.answer(GetStory, StoryReported("web", (Link("web", "unloaded", "down", "registered", BEGAN),), ()))
    assert svcd("why", "web").out.splitlines()[-1] == "nothing has happened to it yet"


def test_why_of_nobody(daemon: FakeDaemon, svcd: Svcd) -> None:
    daemon.answer(GetStory, RequestRefused("unknown_service", "no service 'wbe'; did you mean 'web'?"))
    outcome = svcd("why", "wbe")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "svcd: cannot tell why: no service 'wbe'; did you mean 'web'?\n"


def test_changes(daemon: FakeDaemon, svcd: Svcd) -> None:
    going = Change(5, "restart of api", BEGAN + 90, None, tuple(f"s{n}" for n in range(8)))
    daemon.answer(GetChanges, ChangesReported((CRASH, going)))
    outcome = svcd("changes", "-n", "7")
    assert outcome.code == 0
    assert outcome.out.splitlines() == [
        "ID  BEGAN            TOOK  CAUSE                    SERVICES",
        " 4  13:46:40.125       2s  db crashed: exit code 1  db, api",
        " 5  13:48:10.125  goes on  restart of api           s0, s1, s2, s3, s4, s5 and 2 more",
    ]
    assert daemon.asked == [GetChanges(7)]


def test_changes_fit_into_a_terminal(daemon: FakeDaemon, svcd: Svcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svcd.cli.columns.width", lambda: 80)
    change = Change(5, "restart of " + "api" * 40, BEGAN + 90, None, tuple(f"service{n}" for n in range(8)))
    daemon.answer(GetChanges, ChangesReported((CRASH, change)))
    lines = svcd("changes").out.splitlines()
    assert max(map(len, lines)) == 80
    assert "restart of api" in lines[2]
    assert "service0" in lines[2]


def test_changes_that_repeat_say_how_often(daemon: FakeDaemon, svcd: Svcd, monkeypatch: pytest.MonkeyPatch) -> None:
    often = replace(CRASH, cause="db crashed: " + "x" * 200, earlier=1196, since=BEGAN - 60)
    daemon.answer(GetChanges, ChangesReported((often,)))
    monkeypatch.setattr("svcd.cli.columns.width", lambda: 80)
    line = svcd("changes").out.splitlines()[1]
    assert len(line) <= 80
    assert "… (+1196 before)  db, api" in line
    said = "  1196 of its kind before it, since 13:45:40.125, are not kept"
    assert svcd("changes", "4").out.splitlines()[-1] == said


def test_one_change(daemon: FakeDaemon, svcd: Svcd) -> None:
    daemon.answer(GetChanges, ChangesReported((CRASH,)))
    assert svcd("changes", "4").out.splitlines() == [
        "change 4: db crashed: exit code 1",
        "began 13:46:40.125, took 2s",
        "  13:46:40.125  db: running → backoff: exit code 1",
        "  13:46:40.625  db: backoff → waiting: restart after exit code 1",
    ]
    assert json.loads(svcd("changes", "4", "--json").out)[0]["steps"][0]["new"] == "backoff"


def test_a_change_that_is_not_kept(daemon: FakeDaemon, svcd: Svcd) -> None:
    daemon.answer(GetChanges, ChangesReported(()))
    outcome = svcd("changes", "9")
    assert (outcome.code, outcome.err) == (
        2, "svcd: cannot show change 9: it is not kept (any more)\nhint: svcd changes\n"
    )  # fmt: skip
    assert svcd("changes").out == "nothing has changed yet\n"
