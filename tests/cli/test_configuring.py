"""plan, apply, register, unregister, update, scale: what is read, sent, and shown of the answer.

Must not test what a change does: the core's and the end-to-end tests do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_daemon import FakeDaemon, Outcome, row

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
    UpdateServices,
)
from svcd.supervisor.config import plan as plans
from svcd.supervisor.config.launch import ClusterSpec, Program, PythonCode
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


def sent_plan(daemon: FakeDaemon) -> ClusterSpec:
    """Of whatever change was asked for."""
    (message,) = (each for each in daemon.asked if isinstance(each, ApplyConfiguration | UpdateServices))
    return plans.from_json(message.plan.encode())


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
    assert outcome.out == SHOWN + "web: restarted\nmailer: up\n"
    assert (sent(daemon).mode, sent(daemon).dry_run) == ("all", False)


def test_apply_without_waiting(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    daemon.answer(ApplyConfiguration, STEPS, DONE[0])
    assert svcd("apply", "--no-wait", str(file)).out == SHOWN + "apply: accepted\n"
    document = json.loads(svcd("apply", "--no-wait", "--json", str(file)).out)
    assert (document["outcome"], len(document["steps"])) == ("accepted", 2)


def test_what_takes_effect_without_anybody_moving(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    daemon.answer(
        ApplyConfiguration, PlanReported((Step("update", "web", "tags changed"),)), DONE[0], RequestEnded("done")
    )
    assert svcd("apply", str(file)).out == "1. update  web  tags changed\napply: done\n"
    daemon.answer(ApplyConfiguration, PlanReported(), DONE[0], RequestEnded("done"))
    assert svcd("apply", str(file)).out == "nothing differs\n"


@pytest.mark.parametrize("command", ["apply", "register", "update", "scale", "unregister"])
def test_patience_that_ends(daemon: FakeDaemon, svcd: Svcd, file: Path, command: str) -> None:
    daemon.answer(ApplyConfiguration, STEPS, DONE[0])
    daemon.answer(UnregisterServices, STEPS, DONE[0])
    daemon.answer(UpdateServices, STEPS, DONE[0])
    what = {"update": "web", "scale": "web=3", "unregister": "web"}.get(command, str(file))
    outcome = svcd(command, what, "--timeout", "10ms")
    assert outcome.code == 3
    assert outcome.err.startswith(f"svcd: cannot wait any longer for the {command}: ")


def test_what_superseded_it_is_told(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    results = (Result("web", "superseded", "superseded by stop of web"),)
    daemon.answer(ApplyConfiguration, STEPS, DONE[0], RequestEnded("superseded", results))
    outcome = svcd("apply", str(file))
    assert (outcome.code, outcome.err) == (3, "svcd: cannot apply web: superseded by stop of web\n")


# ---- which cluster, and what of it is kept --------------------------------------------------------------------------


def report(daemon: FakeDaemon, file: Path, **changed: Any) -> None:
    """Let the daemon run what the file says now, except for ``changed``."""
    cluster = replace(load([file], {"PATH": "/bin"}, scales=changed.pop("scales", None)), **changed)
    text = plans.to_json(cluster).decode()
    daemon.answer(GetConfiguration, ConfigurationReported(cluster.files, text, cluster.profiles, cluster.scales))


def test_files_of_another_cluster_are_refused(daemon: FakeDaemon, svcd: Svcd, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(FILE.format(9).replace("shop", "garden"))
    for command in ("plan", "apply"):
        outcome = svcd(command, str(other))
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err == (
            f"svcd: cannot {command} {other}: it is for cluster garden, and shop runs here\n"
            "hint: --cluster shop says that it is meant for that one\n"
        )
    assert {type(each) for each in daemon.asked} == {GetConfiguration}


def test_a_cluster_that_was_started_under_another_name(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    report(daemon, file, name="blue")
    daemon.answer(ApplyConfiguration, STEPS, *DONE)
    daemon.answer(UpdateServices, STEPS, *DONE)
    for command in (("apply", str(file)), ("update", "web"), ("scale", "web=3"), ("register", str(file))):
        daemon.asked.clear()
        assert svcd(*command).code == 0
        assert sent_plan(daemon).name == "blue"


def test_apply_keeps_the_scale(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    report(daemon, file, scales={"web": 3})
    daemon.answer(ApplyConfiguration, STEPS, *DONE)
    assert svcd("apply", str(file)).code == 0
    assert names(sent(daemon)) == ["web.0", "web.1", "web.2", "mailer"]
    file.write_text("cluster: shop\nservices: {mailer: {command: 'true'}}\n")
    daemon.asked.clear()
    assert svcd("apply", str(file)).code == 0
    assert plans.from_json(sent(daemon).plan.encode()).scales == {}


def test_apply_keeps_the_profiles(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    file.write_text("cluster: shop\nservices: {a: {command: sleep 9}, b: {command: sleep 9, profiles: [debug]}}\n")
    report(daemon, file, profiles=("debug", "gone"))
    daemon.answer(ApplyConfiguration, STEPS, *DONE)
    assert svcd("apply", str(file)).code == 0
    assert names(sent(daemon)) == ["a", "b"]
    outcome = svcd("apply", "--profile", "gone", str(file))
    assert (outcome.code, "no service has the profile gone" in outcome.err) == (2, True)


def test_what_is_registered_may_need_what_runs(daemon: FakeDaemon, svcd: Svcd, file: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra.yaml"
    extra.write_text("services: {worker: {command: sleep 9, depends_on: [web, mailer]}}\n")
    daemon.answer(ApplyConfiguration, STEPS, *DONE)
    assert svcd("register", str(extra)).code == 0
    (worker,) = plans.from_json(sent(daemon).plan.encode()).services
    assert [each.target for each in worker.spec.dependencies] == ["web.0", "web.1", "mailer"]
    extra.write_text("services: {worker: {command: sleep 9, depends_on: [wbe]}}\n")
    outcome = svcd("register", str(extra))
    assert outcome.code == 2
    assert "there is no service wbe; did you mean web?" in outcome.err


def test_update_and_scale_read_in_the_environment_of_the_start(
    daemon: FakeDaemon, svcd: Svcd, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("cluster: shop\nservices: {web: {command: ['sleep', '${LONG:-1}']}}\n")
    report(daemon, file, environ={"PATH": "/bin", "LONG": "7"})
    monkeypatch.setenv("LONG", "8")
    daemon.answer(ApplyConfiguration, STEPS, *DONE)
    daemon.answer(UpdateServices, STEPS, *DONE)
    for command, expected in ((("update", "web"), "7"), (("scale", "web=2"), "7"), (("apply", str(file)), "8")):
        daemon.asked.clear()
        assert svcd(*command).code == 0
        launch = sent_plan(daemon).services[0].launch
        assert isinstance(launch.run, Program)
        assert launch.run.argv == ("sleep", expected)
    assert '"7"' in svcd("config").out
    assert '"8"' in svcd("config", str(file)).out


def test_scale_of_nobody(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    assert svcd("scale", "wbe=2").err.splitlines()[0] == "svcd: cannot scale: no service 'wbe'; did you mean web?"
    assert (
        svcd("scale", "web.0=2").err.splitlines()[0]
        == "svcd: cannot scale: web.0 is one instance: name the service, web"
    )


def test_what_failed_is_exit_code_3(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    failed = RequestEnded("failed", (Result("web", "failed", "web failed: exit code 1"), Result("mailer", "done")))
    daemon.answer(ApplyConfiguration, STEPS, DONE[0], failed)
    daemon.rows = [row("web", "failed", cause="exit code 1", last_output=("oh dear",))]
    outcome = svcd("apply", str(file))
    assert (outcome.code, outcome.out) == (3, SHOWN + "mailer: up\n")
    assert outcome.err == (
        "svcd: cannot apply web: it failed: exit code 1\n\nweb: failed: exit code 1\n  last output:\n    oh dear\n"
    )
    document = json.loads(svcd("apply", "--json", str(file)).out)
    assert set(document) == {"steps", "outcome", "text", "results"}
    assert [each["outcome"] for each in document["results"]] == ["failed", "done"]


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
    assert (outcome.out, outcome.err) == ("", "svcd: cannot unregister db: required by web\n")
    assert outcome.code == 1


def test_unregister(daemon: FakeDaemon, svcd: Svcd) -> None:
    steps = PlanReported((Step("stop", "old", "no longer in the configuration"),))
    daemon.answer(UnregisterServices, steps, RequestAccepted(), RequestEnded("done", (Result("old", "done"),)))
    assert svcd("unregister", "old").out == "1. stop    old  no longer in the configuration\nold: removed\n"


def test_register_adds(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    daemon.answer(ApplyConfiguration, STEPS, *DONE)
    assert svcd("register", str(file)).code == 0
    assert sent(daemon).mode == "register"


def sent_update(daemon: FakeDaemon) -> UpdateServices:
    (message,) = (each for each in daemon.asked if isinstance(each, UpdateServices))
    return message


def test_update_reads_the_clusters_own_files_again(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    file.write_text(FILE.format(10))
    daemon.answer(UpdateServices, STEPS, *DONE)
    assert svcd("update", "web").code == 0
    assert (sent_update(daemon).services, sent_update(daemon).force) == (("web",), False)
    assert "10" in sent_update(daemon).plan
    outcome = svcd("update", "wbe")
    assert (outcome.code, outcome.err.splitlines()[0]) == (
        2,
        "svcd: cannot update: no service 'wbe'; did you mean web?",
    )
    outcome = svcd("update", "web.1")
    assert outcome.code == 2
    assert outcome.err.splitlines()[0] == "svcd: cannot update: web.1 is one instance: name the service, web"


def test_what_update_is_told_beside_the_files(daemon: FakeDaemon, svcd: Svcd, file: Path, tmp_path: Path) -> None:
    file.write_text("cluster: shop\nservices: {web: {python: 'shop:Web', config: {a: 1}, path: [/]}}\n")
    report(daemon, file)
    daemon.answer(UpdateServices, STEPS, *DONE)
    config = tmp_path / "config.yaml"
    config.write_text("b: 2\nmode: on\n")  # text, as in a cluster file
    options = ["--python", "shop2:Web", "--version", "2", "--config", str(config), "--force"]
    assert svcd("update", "web", *options).code == 0
    (web,) = sent_plan(daemon).services
    assert isinstance(web.launch.run, PythonCode)
    assert (web.launch.run.entry, web.launch.run.config, web.launch.version) == (
        "shop2:Web",
        {"b": 2, "mode": "on"},
        "2",
    )
    assert sent_update(daemon).force


def test_an_update_says_of_what_it_has_done_nothing(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    """Code that has changed on disk is no difference in the files: whoever has asked for it expects something."""
    file.write_text(
        "cluster: shop\nservices: {web: {python: 'shop:Web', path: [/], instances: 2}, prog: {command: 'true'}}\n"
    )
    report(daemon, file)
    nothing = "{}: nothing differs; code that has changed is loaded when it starts next\n".format
    daemon.answer(UpdateServices, PlanReported(()), RequestAccepted(), RequestEnded("done"))
    assert svcd("update", "web", "prog").out == nothing("web") + nothing("prog")
    step = Step("update", "web.1", "a new version takes over in place")
    ended = RequestEnded("done", (Result("web.1", "done"),))
    daemon.answer(UpdateServices, PlanReported((step,)), RequestAccepted(), ended)
    shown = f"1. update  web.1  {step.why}\n{nothing('prog')}web.1: updated\n"
    assert svcd("update", "prog", "web").out == shown


def test_what_earlier_updates_were_told_is_kept(daemon: FakeDaemon, svcd: Svcd, file: Path) -> None:
    """By an update and by a scaling; ``--reset`` forgets it."""
    text = "cluster: shop\nservices: {web: {python: 'shop:Web', path: [/]}, api: {python: 'api:Api', path: [/]}}\n"
    file.write_text(text)
    cluster = load([str(file)], {})
    web, api = cluster.services
    assert isinstance(web.launch.run, PythonCode)
    both = "python", "version"
    launch = replace(web.launch, run=replace(web.launch.run, entry="shop2:Web"), version="7", given=both)
    running = replace(cluster, services=(replace(web, launch=launch), api))
    daemon.answer(GetConfiguration, ConfigurationReported(cluster.files, plans.to_json(running).decode()))
    daemon.answer(UpdateServices, STEPS, *DONE)
    daemon.answer(ApplyConfiguration, STEPS, *DONE)

    def sends(*words: str) -> tuple[list[Any], str]:
        """(entry, version and what was told of each service), and what is said first."""
        daemon.asked.clear()
        outcome = svcd(*words)
        found = sent_plan(daemon).services
        runs = [each.launch.run for each in found if isinstance(each.launch.run, PythonCode)]
        each = zip(runs, found, strict=True)
        return [(run.entry, of.launch.version, of.launch.given) for run, of in each], outcome.out.partition(SHOWN)[0]

    other = "api:Api", None, ()
    said = "web: --python shop2:Web is in force, whatever its files say; --reset forgets it\n"
    assert sends("update", "web", "--version", "8") == ([("shop2:Web", "8", both), other], said)
    assert sends("update", "api") == ([("shop2:Web", "7", both), other], "")
    assert sends("update", "web", "--reset") == ([("shop:Web", None, ()), other], "")
    assert sends("scale", "web=2") == ([("shop2:Web", "7", both)] * 2 + [other], "")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--python", "shop"], "cannot update: --python: "),
        (["--config", "/nowhere/config.yaml"], "cannot read /nowhere/config.yaml: no such file or directory"),
        (["--config", "{list}"], "{list}:1:1: must be a mapping, not a list; write keys and values, such as"),
        (["--config", "{broken}"], "{broken}:2:1: a value is missing, or a bracket is not closed; complete it\n"),
        (["--config", "{twice}"], "{twice}:3:1: a: written twice, first on line 1; remove one of the two\n"),
    ],
)
def test_bad_options_of_an_update_are_told_and_nothing_is_sent(
    daemon: FakeDaemon, svcd: Svcd, file: Path, tmp_path: Path, options: list[str], error: str
) -> None:
    file.write_text("cluster: shop\nservices: {web: {python: 'shop:Web', path: [/]}, prog: {command: 'true'}}\n")
    report(daemon, file)
    texts = {"list": "[1, 2]\n", "broken": "{a: [\n", "twice": "a: 1\nb: 2\na: 3\n"}
    places = {name: str(tmp_path / f"{name}.yaml") for name in texts}
    for name, text in texts.items():
        Path(places[name]).write_text(text)
    outcome = svcd("update", "web", *(each.format(**places) for each in options))
    assert (outcome.code, outcome.out) == (2, "")
    assert error.format(**places) in outcome.err
    outcome = svcd("update", "prog", "--version", "2")
    assert (outcome.code, "it is a program" in outcome.err) == (2, True)
    assert {type(each) for each in daemon.asked} == {GetConfiguration}


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


# ---- runtime settings ------------------------------------------------------------------------------------------------

RUNTIME = """\
cluster: shop
services:
  web:
    code: "def main(ctx): pass"
    instances: 2
    runtime: {compute_threads: 4}
    env: {SVCD_RUNTIME_THREAD_PREFIX: "007"}
  api: {code: "def main(ctx): pass"}
  prog: {command: [sleep, 5]}
"""


def test_the_runtime_settings_of_one_service_and_who_says_them(svcd: Svcd, file: Path) -> None:
    file.write_text(RUNTIME)
    shown = f"""\
services:
  web:
    runtime:
      compute: threads  # default
      compute_threads: 4  # {file}:6
      max_blocking_threads: 8  # default
      stack_size: 2MiB  # default
      thread_prefix: "007"  # {file}:7, SVCD_RUNTIME_THREAD_PREFIX
"""
    assert svcd("config", "--runtime", str(file), "web") == Outcome(0, shown, "")
    assert svcd("config", "--runtime", "web.1", str(file)).out == shown
    assert svcd("config", "--runtime", str(file)).out.count("runtime:") == 2
    found = json.loads(svcd("config", "--runtime", "--json", str(file), "web", "api").out)["services"]
    assert list(found) == ["web", "api"]
    assert found["web"]["thread_prefix"] == {
        "value": "007",
        "file": str(file),
        "line": 7,
        "column": 39,
        "variable": "SVCD_RUNTIME_THREAD_PREFIX",
    }
    assert found["api"]["stack_size"] == {
        "value": "2MiB",
        "file": "default",
        "line": 0,
        "column": 0,
        "variable": None,
    }


def test_the_runtime_settings_of_the_cluster_that_runs(
    daemon: FakeDaemon, svcd: Svcd, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the environment of its start, not in that of who asks."""
    file.write_text(RUNTIME)
    report(daemon, file, environ={"PATH": "/bin", "SVCD_RUNTIME_COMPUTE": "processes"})
    monkeypatch.setenv("SVCD_RUNTIME_COMPUTE", "threads")
    for words in (("api",), ("web",), ()):
        assert "compute: processes  # environment SVCD_RUNTIME_COMPUTE\n" in svcd("config", "--runtime", *words).out


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prog", "prog has none, only services with python: or code: have"),
        ("wbe", "no service 'wbe'; did you mean web?"),
    ],
)
def test_the_runtime_settings_of_who_has_none(svcd: Svcd, file: Path, name: str, text: str) -> None:
    file.write_text(RUNTIME)
    expected = Outcome(2, "", f"svcd: cannot show the runtime settings: {text}\n")
    assert svcd("config", "--runtime", str(file), name) == expected


def test_bad_runtime_settings_are_not_shown(svcd: Svcd, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(RUNTIME)
    monkeypatch.setenv("SVCD_RUNTIME_STACK_SIZE", "2")
    problem = (
        "environment SVCD_RUNTIME_STACK_SIZE: 2 has no unit; write 2MiB, or use B, KB, MB, GB, TB, KiB, MiB, GiB or TiB"
    )
    for command, purpose in ((("config", "--runtime"), "show"), (("validate",), "use"), (("start",), "start")):
        outcome = svcd(*command, str(file))
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err == f"svcd: cannot {purpose} {file}: 1 problem\n{problem}\n"
