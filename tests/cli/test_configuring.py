"""plan, apply, register, unregister, update, scale: what is read, sent, and shown of the answer.

Must not test what a change does: the core's and the end-to-end tests do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_daemon import FakeDaemon, Outcome

from svcd.protocol.messages import (
    ApplyConfiguration,
    ConfigurationReported,
    GetConfiguration,
    PlanReported,
    RequestAccepted,
    RequestEnded,
    RequestRefused,
    Result,
    Step,
    UnregisterServices,
)
from svcd.supervisor.config import plan as plans
from svcd.supervisor.config.load import load

Svcd = Callable[..., Outcome]
STEPS = PlanReported((Step("restart", "web", "command changed"), Step("start", "mailer", "new")))
DONE = RequestAccepted(), RequestEnded("done", (Result("web", "done"), Result("mailer", "done")))
FILE = """\
cluster: shop
services:
  web: {{command: [sleep, '{}'], instances: 2}}
  mailer: {{command: 'true'}}
"""
SHOWN = "1. restart web     command changed\n2. start   mailer  new\n"


@pytest.fixture
def file(tmp_path: Path, daemon: FakeDaemon) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(FILE.format(9))
    text = plans.to_json(load([path], {"PATH": "/bin"})).decode()
    daemon.answer(GetConfiguration, ConfigurationReported((str(path),), text))
    return path


def sent(daemon: FakeDaemon) -> ApplyConfiguration:
    (message,) = (each for each in daemon.asked if isinstance(each, ApplyConfiguration))
    return message


def names(message: ApplyConfiguration) -> list[str]:
    return [each.spec.name for each in plans.from_json(message.plan.encode()).services]


def test_plan_shows_and_does_nothing(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    daemon.answer(ApplyConfiguration, STEPS)
    outcome = svcd("plan", str(file))
    assert (outcome.code, outcome.out, outcome.err) == (0, SHOWN, "")
    assert sent(daemon).dry_run
    assert names(sent(daemon)) == ["web.0", "web.1", "mailer"]
    document = json.loads(svcd("plan", "--json", str(file)).out)
    assert document[0] == {"verb": "restart", "service": "web", "why": "command changed"}


def test_a_plan_of_nothing(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    daemon.answer(ApplyConfiguration, PlanReported())
    assert svcd("plan", str(file)).out == "nothing differs\n"


def test_apply_shows_the_plan_and_what_became_of_it(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    daemon.answer(ApplyConfiguration, STEPS, *DONE)
    outcome = svcd("apply", str(file))
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == SHOWN + "web: as configured\nmailer: as configured\n"
    assert (sent(daemon).mode, sent(daemon).dry_run) == ("all", False)


def test_apply_without_waiting(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    daemon.answer(ApplyConfiguration, STEPS, DONE[0])
    assert svcd("apply", "--no-wait", str(file)).out == SHOWN + "apply: accepted\n"


def test_what_failed_is_exit_code_3(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    failed = RequestEnded("failed", (Result("web", "failed", "web failed: exit code 1"), Result("mailer", "done")))
    daemon.answer(ApplyConfiguration, STEPS, DONE[0], failed)
    outcome = svcd("apply", str(file))
    assert (outcome.code, outcome.err) == (3, "svcd: cannot apply web: failed: exit code 1\n")


def test_invalid_files_are_never_sent(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    file.write_text("cluster: shop\nservices: {web: {comand: x}}\n")
    for words in (("apply",), ("plan",), ("register",), ("apply", "--json")):
        outcome = svcd(*words, str(file))
        assert outcome.code == 2
        assert "did you mean" in outcome.err
    assert {type(each) for each in daemon.asked} == {GetConfiguration}


def test_a_refusal_is_told(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    daemon.answer(UnregisterServices, RequestRefused("refused", "cannot remove db: required by web"))
    outcome = svcd("unregister", "db")
    assert (outcome.out, outcome.err) == ("", "svcd: cannot unregister: cannot remove db: required by web\n")
    assert outcome.code == 1


def test_unregister(daemon: FakeDaemon, svcd: Svcd) -> None:
    steps = PlanReported((Step("stop", "old", "no longer in the configuration"),))
    daemon.answer(UnregisterServices, steps, RequestAccepted(), RequestEnded("done", (Result("old", "done"),)))
    assert svcd("unregister", "old").out == "1. stop    old  no longer in the configuration\nold: removed\n"


def test_register_adds(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    daemon.answer(ApplyConfiguration, STEPS, *DONE)
    assert svcd("register", str(file)).code == 0
    assert sent(daemon).mode == "register"


def test_update_reads_the_clusters_own_files_again(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    file.write_text(FILE.format(10))
    daemon.answer(ApplyConfiguration, STEPS, *DONE)
    assert svcd("update", "web").code == 0
    assert (sent(daemon).mode, sent(daemon).services) == ("update", ("web",))
    assert "10" in sent(daemon).plan
    outcome = svcd("update", "wbe")
    assert (outcome.code, outcome.err.splitlines()[0]) == (2, "svcd: no service 'wbe' in cluster.yaml")


def test_scale(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    daemon.answer(ApplyConfiguration, STEPS, *DONE)
    assert svcd("scale", "web=3").code == 0
    assert names(sent(daemon)) == ["web.0", "web.1", "web.2", "mailer"]
    assert (sent(daemon).mode, sent(daemon).services) == ("update", ("web",))


@pytest.mark.parametrize("text", ["web", "web=", "web=0", "=3", "web=x", "web=1001", "web=-1", "web=" + "9" * 40])
def test_numbers_that_are_none(daemon: FakeDaemon, svcd: Svcd, text: str) -> None:
    outcome = svcd("scale", text)
    assert outcome.code == 2
    assert "NAME=N" in outcome.err
    assert daemon.asked == []
