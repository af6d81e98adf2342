"""What a comparison of two clusters finds, and what a running process would notice of it."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from svcd.supervisor.config.compare import Comparison, compare
from svcd.supervisor.config.launch import (
    ClusterSpec,
    HealthProbe,
    HookCommand,
    LaunchSpec,
    LogPolicy,
    Program,
    PythonCode,
    ReadyProbe,
    Schedule,
    ServiceDefinition,
    SocketSpec,
    StatePolicy,
)
from svcd.supervisor.core.spec import (
    Dependency,
    HealthPolicy,
    Hook,
    Overlap,
    PausePolicy,
    ReadyKind,
    RestartMode,
    RestartPolicy,
    RunEnd,
    Runner,
    ServiceSpec,
    ServiceType,
    StartMode,
    StopPolicy,
)

OUTSIDE = {"PATH": "/bin", "TERM": "xterm"}
WEB = ServiceDefinition(ServiceSpec("web"), LaunchSpec(Program(("sleep", "5")), "/", {**OUTSIDE, "A": "1"}), "web")


def cluster(*services: ServiceDefinition, **others: Any) -> ClusterSpec:
    return ClusterSpec("shop", (), services, **{"environ": OUTSIDE, **others})


def changed(**parts: Any) -> ServiceDefinition:
    """WEB with other values for fields of its two halves."""
    of_spec = {each.name for each in fields(ServiceSpec)}
    spec = {name: item for name, item in parts.items() if name in of_spec}
    launch = {name: item for name, item in parts.items() if name not in of_spec}
    return replace(WEB, spec=replace(WEB.spec, **spec), launch=replace(WEB.launch, **launch))


def named(name: str) -> ServiceDefinition:
    return replace(WEB, spec=replace(WEB.spec, name=name), service=name)


def test_the_same_is_no_difference() -> None:
    found = compare(cluster(WEB), cluster(WEB))
    assert found == Comparison(unchanged=("web",))
    assert found.is_empty


def test_what_came_and_what_went() -> None:
    found = compare(cluster(named("a"), WEB, named("b")), cluster(named("d"), WEB, named("c")))
    assert [each.spec.name for each in found.added] == ["d", "c"]
    assert [each.spec.name for each in found.removed] == ["a", "b"]
    assert (found.changed, found.unchanged, found.is_empty) == ((), ("web",), False)


PROCESS: dict[str, ServiceDefinition] = {
    "command": changed(run=Program(("sleep", "6"))),
    "command python": changed(run=PythonCode(entry="a:b"), runner=Runner.PYTHON),
    "workdir": changed(workdir="/tmp"),
    "env.A": changed(env={**OUTSIDE, "A": "2"}),
    "env.A ": changed(env=OUTSIDE),
    "env.B": changed(env={**OUTSIDE, "A": "1", "B": ""}),
    "env.PATH": changed(env={**OUTSIDE, "A": "1", "PATH": "/opt"}),
    "user": changed(uid=7),
    "group": changed(gid=7),
    "umask": changed(umask=0o22),
    "logs": changed(logs=LogPolicy(keep=6)),
    "sockets": changed(sockets=(SocketSpec("web", host="127.0.0.1", port=80),)),
    "watchdog": changed(watchdog_s=5.0),
    "ready": changed(ready=ReadyKind.NOTIFY),
    "ready ": changed(ready=ReadyKind.NOTIFICATION_FD, probe=ReadyProbe(notification_fd=3)),
}
POLICY: dict[str, ServiceDefinition] = {
    "type": changed(type=ServiceType.TASK),
    "start": changed(start=StartMode.MANUAL),
    "depends_on": changed(dependencies=(Dependency("db"),)),
    "ready": changed(ready=ReadyKind.TCP, probe=ReadyProbe(tcp_host="x", tcp_port=1)),
    "ready.timeout": changed(ready_timeout_s=1.0),
    "restart.policy": changed(restart=RestartPolicy(RestartMode.ALWAYS)),
    "restart.by_cause": changed(restart=RestartPolicy(by_cause=((RunEnd.EXIT, RestartMode.NEVER),))),
    "restart.prevent_codes": changed(restart=RestartPolicy(prevent_signals=frozenset({9}))),
    "stop.signal": changed(stop=StopPolicy(signal=2)),
    "stop.timeout": changed(stop=StopPolicy(timeout_s=1.0)),
    "health": changed(health=HealthPolicy()),
    "essential": changed(essential=True),
    "fallback": changed(fallback="other"),
    "hooks": changed(hooks=frozenset({Hook.PRE_START})),
    "pause": changed(pause=PausePolicy(1, 2)),
    "schedule": changed(overlap=Overlap.KILL),
    "schedule ": replace(WEB, launch=replace(WEB.launch, schedule=Schedule(every_s=5.0))),
    "hooks ": replace(WEB, launch=replace(WEB.launch, hooks={"pre_start": HookCommand(("true",))})),
    "health ": replace(WEB, launch=replace(WEB.launch, health=HealthProbe(argv=("true",)))),
    "idle_timeout": changed(idle_timeout_s=5.0),
    "tags": changed(tags=("x",)),
}
PYTHON = changed(run=PythonCode(entry="a:b"))


@pytest.mark.parametrize("keys", PROCESS)
def test_what_a_process_has_got_needs_a_new_one(keys: str) -> None:
    (found,) = compare(cluster(WEB), cluster(PROCESS[keys])).changed
    assert (found.name, found.old, found.new) == ("web", WEB, PROCESS[keys])
    assert (found.keys, found.needs_restart) == (tuple(keys.split()), True)


@pytest.mark.parametrize("keys", POLICY)
def test_what_svcd_goes_by_needs_none(keys: str) -> None:
    (found,) = compare(cluster(WEB), cluster(POLICY[keys])).changed
    assert (found.keys, found.needs_restart) == (tuple(keys.split()), False)


@pytest.mark.parametrize("new", [{"preload": ("json",)}, {"preload_auto": True}])
def test_another_preload_is_for_the_next_start(new: dict[str, Any]) -> None:
    (found,) = compare(cluster(PYTHON), cluster(changed(run=PythonCode(entry="a:b", **new)))).changed
    assert (found.keys, found.needs_restart) == (("preload",), False)


def test_python_code_is_compared_key_by_key() -> None:
    old = changed(run=PythonCode(entry="a:b", path=("/x",), config={"port": 80}))
    new = changed(run=PythonCode(entry="a:c", path=("/y",), interpreter="/python", config={"port": 81}), tags=("x",))
    (found,) = compare(cluster(old), cluster(new)).changed
    assert found.keys == ("python", "path", "interpreter", "config", "tags")


def test_a_new_version_and_a_kept_state_are_for_a_new_run() -> None:
    code = PythonCode(entry="a:b")
    new = changed(run=code, version="2", state=StatePolicy(True))
    (found,) = compare(cluster(changed(run=code)), cluster(new)).changed
    assert (found.keys, found.needs_restart) == (("state", "version"), True)


def test_every_field_of_a_definition_is_compared() -> None:
    told_by_others = {
        "name",
        "runner",
        "scheduled",
        "hooks",
        "port",
        "parent",
        "given",
    }  # the run, the schedule, the commands
    looked_into = {"env", "restart", "stop", "run", "probe"}  # above
    for each in (*fields(ServiceSpec), *fields(LaunchSpec)):
        if each.name not in told_by_others | looked_into:
            assert compare(cluster(WEB), cluster(changed(**{each.name: object()}))).changed, each.name


def test_another_terminal_is_no_difference() -> None:
    elsewhere = {"PATH": "/opt", "SHLVL": "2"}
    new = cluster(changed(env={**elsewhere, "A": "1"}), environ=elsewhere)
    assert compare(cluster(WEB), new).is_empty


def test_a_variable_that_the_file_says_now_is_a_difference() -> None:
    old = cluster(WEB)
    new = cluster(changed(env={"PATH": "/opt", "TERM": "xterm", "A": "1"}), environ={"PATH": "/x", "TERM": "xterm"})
    (found,) = compare(old, new).changed
    assert found.keys == ("env.PATH",)


def test_the_number_of_instances_changes_none_of_them() -> None:
    two = [replace(named(f"web.{i}"), service="web", instance=i, instances=2) for i in range(2)]
    three = [replace(named(f"web.{i}"), service="web", instance=i, instances=3) for i in range(3)]
    found = compare(cluster(*two), cluster(*three))
    assert ([each.spec.name for each in found.added], found.changed) == (["web.2"], ())


def test_keys_of_the_cluster() -> None:
    found = compare(cluster(WEB), replace(cluster(WEB), name="x", max_parallel=1, controller_timeout_s=1.0))
    assert found.cluster == ("cluster", "max_parallel", "controller_timeout")
    assert not found.is_empty


def test_how_it_is_updated_is_no_reason_to_restart_it() -> None:
    (found,) = compare(
        cluster(PYTHON), cluster(replace(PYTHON, launch=replace(PYTHON.launch, hot_update=True)))
    ).changed
    assert (found.keys, found.needs_restart) == (("update",), False)
