"""stop, restart, signal, start NAME and shutdown: what is sent, what is said, what it exits with.

Must not test what the daemon makes of an order.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from fake_daemon import PATIENCE_S, Directories, FakeDaemon, Outcome, row

from svcd.cli import last_words
from svcd.protocol import places
from svcd.protocol.messages import (
    GetStatus,
    Message,
    PauseServices,
    RequestAccepted,
    RequestEnded,
    RequestRefused,
    RestartServices,
    Result,
    ResumeServices,
    ShutDown,
    SignalServices,
    StartServices,
    StopServices,
)

Svcd = Callable[..., Outcome]

ORDERS = {
    ("stop", "web"): (StopServices(("web",)), "stopped"),
    ("restart", "web"): (RestartServices(("web",)), "restarted"),
    ("start", "web"): (StartServices(("web",)), "up"),
    ("stop", "web", "--unneeded"): (StopServices(("web",), True), "stopped"),
    ("restart", "--rolling", "web"): (RestartServices(("web",), True), "restarted"),
    ("pause", "web"): (PauseServices(("web",)), "paused"),
    ("resume", "web"): (ResumeServices(("web",)), "running"),
    ("signal", "hup", "web"): (SignalServices(1, ("web",)), "sent SIGHUP"),
    ("signal", "SIGUSR1", "web"): (SignalServices(10, ("web",)), "sent SIGUSR1"),
    ("signal", "9", "web"): (SignalServices(9, ("web",)), "sent SIGKILL"),
}


@pytest.mark.parametrize("words", ORDERS, ids=" ".join)
def test_done(daemon: FakeDaemon, svcd: Svcd, words: tuple[str, ...]) -> None:
    message, said = ORDERS[words]
    daemon.answer(type(message), RequestAccepted(), RequestEnded("done", (Result("web", "done"),)))
    outcome = svcd(*words)
    assert (outcome.code, outcome.out, outcome.err) == (0, f"web: {said}\n", "")
    assert daemon.asked == [message]


def test_stop_says_what_else_it_stops(daemon: FakeDaemon, svcd: Svcd) -> None:
    daemon.answer(
        StopServices,
        RequestAccepted(("worker", "web")),
        RequestEnded("done", (Result("db", "done"),), ("worker", "web")),
    )
    assert svcd("stop", "db").out == "also stops first, and brings back: worker, web\ndb: stopped\n"
    document = json.loads(svcd("stop", "db", "--json").out)
    assert document == {
        "outcome": "done",
        "text": "",
        "also": ["worker", "web"],
        "removed": [],
        "results": [{"service": "db", "outcome": "done", "text": ""}],
    }


@pytest.mark.parametrize(("verb", "kind", "words"), [
    ("stop", StopServices, "also stops first, and brings back"),
    ("restart", RestartServices, "also restarts around it"),
])  # fmt: skip
def test_children_that_go_with_their_parent_do_not_come_back(
    daemon: FakeDaemon, svcd: Svcd, verb: str, kind: type, words: str
) -> None:
    ended = RequestEnded("done", (Result("pool", "done"),))
    daemon.answer(kind, RequestAccepted(("web", "shard-1", "shard-0"), ("shard-1", "shard-0")), ended)
    first, second, _ = svcd(verb, "pool").out.splitlines()
    assert (first, second) == (f"{words}: web", "removes with their parent: shard-1, shard-0")
    assert json.loads(svcd(verb, "pool", "--json").out)["removed"] == ["shard-1", "shard-0"]


@pytest.mark.parametrize("outcome_word", ["failed", "superseded"])
def test_not_done_is_exit_code_3_with_the_reason(daemon: FakeDaemon, svcd: Svcd, outcome_word: str) -> None:
    results = (Result("db", "done"), Result("web", outcome_word, "cannot start web: requires x, which failed"))
    daemon.answer(StartServices, RequestAccepted(), RequestEnded(outcome_word, results))
    daemon.rows = [row("web", "failed", cause="exit code 7", last_output=("oh dear",))]
    outcome = svcd("start", "db", "web")
    assert outcome.code == 3
    assert outcome.out == "db: up\n"
    first, *rest = outcome.err.splitlines()
    assert first == "svcd: cannot start web: requires x, which failed"
    assert ("    oh dear" in rest) is (outcome_word == "failed")


def test_what_has_failed_is_heard_out(daemon: FakeDaemon, svcd: Svcd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last words come from the collector, a moment after the news of its end."""
    monkeypatch.setattr(last_words, "PAUSE_S", 0.0)
    daemon.answer(StartServices, RequestAccepted(), RequestEnded("failed", (Result("web", "failed", "exit code 7"),)))
    silent = row("web", "failed", cause="exit code 7")

    def later(question: GetStatus) -> list[Message]:
        daemon.rows = [silent if len(daemon.asked) < 5 else replace(silent, last_output=("oh dear",))]
        return daemon.status(question)

    daemon.replies[GetStatus] = later
    outcome = svcd("start", "web")
    assert (outcome.code, outcome.err.splitlines()[-1]) == (3, "    oh dear")
    daemon.rows, daemon.replies[GetStatus] = [silent], daemon.status
    assert svcd("start", "web").err == "svcd: cannot start web: exit code 7\n", "who says nothing is not waited for"


def test_what_has_failed_and_is_gone_has_said_its_last(daemon: FakeDaemon, svcd: Svcd) -> None:
    results = (Result("web", "failed", "cannot start web: it was removed"),)
    daemon.answer(StartServices, RequestAccepted(), RequestEnded("failed", results))
    daemon.rows = []
    outcome = svcd("start", "web")
    assert (outcome.code, outcome.out, outcome.err) == (3, "", "svcd: cannot start web: it was removed\n")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("web is unavailable: 5 restarts", "it is unavailable: 5 restarts"),
        ("cannot start web: requires x", "requires x"),
        ("cannot pause web: it is unloaded", "it is unloaded"),
        ("superseded by a stop of web", "superseded by a stop of web"),
    ],
)
def test_nothing_is_said_twice(daemon: FakeDaemon, svcd: Svcd, said: str, shown: str) -> None:
    daemon.answer(PauseServices, RequestAccepted(), RequestEnded("superseded", (Result("web", "superseded", said),)))
    assert svcd("pause", "web").err == f"svcd: cannot pause web: {shown}\n"


def test_a_start_says_what_starts_as_well(daemon: FakeDaemon, svcd: Svcd) -> None:
    ended = RequestEnded("done", (Result("web", "done"),))
    daemon.answer(StartServices, RequestAccepted(("db", "api")), ended)
    assert svcd("start", "web").out == "also starts: db, api\nweb: up\n"


def test_start_without_a_name_is_everything(daemon: FakeDaemon, svcd: Svcd) -> None:
    daemon.answer(StartServices, RequestAccepted(), RequestEnded("done", (Result("a", "done"), Result("b", "done"))))
    assert svcd("start").out == "a: up\nb: up\n"
    assert daemon.asked == [StartServices(())]


@pytest.mark.parametrize("as_json", [False, True])
def test_no_wait_returns_when_it_is_accepted(daemon: FakeDaemon, svcd: Svcd, as_json: bool) -> None:
    daemon.answer(StopServices, RequestAccepted(("web",)))
    outcome = svcd("stop", "db", "--no-wait", *(["--json"] if as_json else []))
    assert outcome.code == 0
    if as_json:
        assert json.loads(outcome.out)["outcome"] == "accepted"
    else:
        assert outcome.out == "also stops first, and brings back: web\nstop: accepted\n"


@pytest.mark.parametrize("command", [("stop", "db"), ("restart", "db"), ("start", "db"), ("shutdown",)], ids=" ".join)
def test_a_timeout_undoes_nothing_and_exits_with_3(daemon: FakeDaemon, svcd: Svcd, command: tuple[str, ...]) -> None:
    for kind in (StopServices, RestartServices, StartServices, ShutDown):
        daemon.answer(kind, RequestAccepted())
    outcome = svcd(*command, "--timeout", "50ms")
    assert outcome.code == 3
    assert "stays in force" in outcome.err
    assert outcome.err.startswith("svcd: cannot wait any longer for the ")


REFUSALS = {
    "unknown_service": 2,
    "malformed": 2,
    "shutting_down": 3,
    "refused": 1,
    "internal": 1,
    "of a later version": 1,
}


@pytest.mark.parametrize("code", REFUSALS)
@pytest.mark.parametrize("after_acceptance", [False, True])
def test_refused(daemon: FakeDaemon, svcd: Svcd, code: str, after_acceptance: bool) -> None:
    refusal = RequestRefused(code, "no service 'wab'; did you mean 'web'?")
    daemon.answer(StopServices, *([RequestAccepted()] if after_acceptance else []), refusal)
    outcome = svcd("stop", "wab")
    assert outcome.code == REFUSALS[code]
    assert outcome.err == "svcd: cannot stop: no service 'wab'; did you mean 'web'?\n"


@pytest.mark.parametrize("word", ["NOPE", "0", "65", "1000000000000", "-1", "", "²", "HUPP"])
def test_signals_that_do_not_exist(daemon: FakeDaemon, svcd: Svcd, word: str) -> None:
    outcome = svcd("signal", "--", word, "web")
    assert outcome.code == 2
    assert outcome.err.startswith("svcd: cannot send ")
    assert daemon.asked == []
    if word == "HUPP":
        assert "did you mean HUP?" in outcome.err


def test_real_time_signals_go_by_number(daemon: FakeDaemon, svcd: Svcd) -> None:
    daemon.answer(SignalServices, RequestAccepted(), RequestEnded("done", (Result("web", "done"),)))
    assert svcd("signal", "40", "web").out == "web: sent signal 40\n"


@pytest.mark.parametrize("text", ["10", "10s", "1m30s", "0.5s", "500ms", "1h"])
def test_timeouts_that_can_be_read(daemon: FakeDaemon, svcd: Svcd, text: str) -> None:
    daemon.answer(StopServices, RequestAccepted(), RequestEnded("done", (Result("a", "done"),)))
    assert svcd("stop", "a", "--timeout", text).code == 0


@pytest.mark.parametrize("text", ["", "x", "5 parsecs", "-1", "1s2", "1e9", "s"])
def test_timeouts_that_cannot(daemon: FakeDaemon, svcd: Svcd, text: str) -> None:
    outcome = svcd("stop", "a", "--timeout", text)
    assert outcome.code == 2
    assert "is no duration" in outcome.err
    assert daemon.asked == []


# ---- a daemon that is a process of its own, so that it can end ----------------------------------------------------


class Sleeper:
    """A process that stands for the guardian."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["sleep", "1000"])

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def mortal(directories: Directories):  # type: ignore[no-untyped-def]  # (FakeDaemon, Sleeper)
    sleeper = Sleeper()
    daemon = FakeDaemon(directories.run_dir, directories.state_dir, sleeper.process.pid)
    yield daemon, sleeper
    sleeper.end()
    daemon.close()


def test_shutdown_ends_when_the_daemon_does(mortal: tuple[FakeDaemon, Sleeper], svcd: Svcd) -> None:
    daemon, sleeper = mortal

    def shut_down(message: ShutDown) -> list[RequestAccepted]:
        sleeper.end()
        return [RequestAccepted()]

    daemon.replies[ShutDown] = shut_down
    outcome = svcd("shutdown")
    assert (outcome.code, outcome.out, outcome.err) == (0, "cluster shop: down\n", "")
    assert daemon.asked == [GetStatus(), ShutDown(False)]


def test_shutdown_now(mortal: tuple[FakeDaemon, Sleeper], svcd: Svcd) -> None:
    daemon, sleeper = mortal

    def shut_down(message: ShutDown) -> list[RequestAccepted]:
        sleeper.end()
        return [RequestAccepted()]

    daemon.replies[ShutDown] = shut_down
    assert json.loads(svcd("shutdown", "--now", "--json").out)["outcome"] == "done"
    assert daemon.asked[-1] == ShutDown(True)


def test_a_daemon_that_ends_in_between(mortal: tuple[FakeDaemon, Sleeper], svcd: Svcd) -> None:
    daemon, sleeper = mortal

    def stop(message: StopServices) -> list[RequestAccepted]:
        sleeper.end()
        return [RequestAccepted()]

    daemon.replies[StopServices] = stop
    outcome = svcd("stop", "web")
    assert outcome.code == 4
    assert outcome.err == "svcd: the daemon has ended before it answered\n"


def test_a_daemon_that_has_just_died(directories: Directories, svcd: Svcd) -> None:
    sleeper = Sleeper()
    daemon = FakeDaemon(directories.run_dir, directories.state_dir, sleeper.process.pid)
    sleeper.end()
    outcome = svcd("status")
    daemon.close()
    assert outcome.code == 4
    assert "has just ended" in outcome.err


def test_ctrl_c_leaves_the_request_in_force(daemon: FakeDaemon) -> None:
    daemon.answer(StopServices, RequestAccepted())
    process = subprocess.Popen(
        [sys.executable, "-m", "svcd.cli", "stop", "db"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        daemon.wait_asked(StopServices)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert err.startswith("svcd: interrupted")
    assert "stays in force" in err


# ---- peers that do not behave ----------------------------------------------------------------------------------------


def test_answers_to_other_questions_are_passed_over(daemon: FakeDaemon, svcd: Svcd) -> None:
    daemon.raw_before = [[b"other", b"garbage"], [b"1"], [b"1", b"2", b"3"], [b"", b""]]
    daemon.rows = [row("a")]
    assert svcd("status").code == 0


@pytest.mark.parametrize("body", [b"", b"\xff" * 100, b"\x93\x01\xa3foo\x80", b"\x93\x63\xa3foo\x80"])
def test_garbage_instead_of_an_answer(daemon: FakeDaemon, svcd: Svcd, body: bytes) -> None:
    daemon.raw_before = [[b"1", body]]
    outcome = svcd("status")
    assert outcome.code == 1
    assert outcome.err.startswith("svcd: cannot understand the daemon: ")


def test_the_wrong_kind_of_answer(daemon: FakeDaemon, svcd: Svcd) -> None:
    daemon.answer(GetStatus, RequestAccepted())
    outcome = svcd("status")
    assert outcome.code == 1
    assert outcome.err == "svcd: cannot understand the daemon: it answered with RequestAccepted\n"


def test_silence_is_noticed(directories: Directories, svcd: Svcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svcd.cli.client.ANSWER_PATIENCE_S", 0.05)
    monkeypatch.setattr("svcd.cli.client.Client.ask.__defaults__", (0.05,))
    ground = places.Places(directories.run_dir, directories.state_dir)
    lock = places.claim_lock(ground)
    try:
        outcome = svcd("status")
    finally:
        os.close(lock)
    assert outcome.code == 4
    assert outcome.err == f"svcd: cannot reach the daemon in {directories.run_dir}: no answer within 0.05 s\n"
