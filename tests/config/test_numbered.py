"""Services of several instances: their names, what is replaced in them, their ports, who depends on them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from svcd.supervisor.config.compare import compare
from svcd.supervisor.config.errors import ConfigurationError
from svcd.supervisor.config.launch import ClusterSpec, Program, address
from svcd.supervisor.config.load import addresses_of, load, ports_of
from svcd.supervisor.core.spec import Dependency, DependencyKind

ENVIRON = {"PATH": "/usr/bin:/bin"}

Load = Callable[..., ClusterSpec]


@pytest.fixture
def cluster(tmp_path: Path) -> Load:
    def read(text: str, **options: Any) -> ClusterSpec:
        file = tmp_path / "cluster.yaml"
        file.write_text(f"cluster: shop\n{text}")
        numbers = count(20101)
        return load([file], ENVIRON, **{"free_port": lambda: next(numbers), **options})

    return read


def names(cluster: ClusterSpec) -> list[str]:
    return [each.spec.name for each in cluster.services]


def argv(cluster: ClusterSpec) -> list[tuple[str, ...]]:
    return [each.launch.run.argv for each in cluster.services if isinstance(each.launch.run, Program)]


API = """\
services:
  api:
    command: [echo, "{instance}:{port}", "{Port}{instance}{instance}", "{{port}}"]
    env: {PORT: "{port}", I: "x{instance}", "{port}": "{other}"}
    sockets: [{listen: "unix:{instance}.sock"}]
    ready: {http: "http://127.0.0.1:{port}/{instance}"}
    health: {tcp: "127.0.0.1:{port}"}
    hooks: {pre_start: "echo {instance}"}
    tags: ["{instance}"]
    instances: 2
"""


def test_each_instance_gets_its_own_words(cluster: Load, tmp_path: Path) -> None:
    found = cluster(API)
    assert [(each.spec.name, each.service, each.instance, each.instances) for each in found.services] == [
        ("api.0", "api", 0, 2),
        ("api.1", "api", 1, 2),
    ]
    assert argv(found) == [("echo", "0:20101", "{Port}00", "{20101}"), ("echo", "1:20102", "{Port}11", "{20102}")]
    one = found.services[1].launch
    assert one.env == {**ENVIRON, "PORT": "20102", "I": "x1", "{port}": "{other}"}
    assert address(one.sockets[0]) == f"unix:{tmp_path}/1.sock"
    assert one.probe.http is not None
    assert one.probe.http.url == "http://127.0.0.1:20102/1"
    assert one.health is not None
    assert one.health.tcp_port == 20102
    assert one.hooks["pre_start"].argv[-1] == "echo 1"
    assert (one.tags, one.port) == (("{instance}",), 20102)


def test_one_instance_is_called_as_the_service(cluster: Load) -> None:
    found = cluster("services: {api: {command: [echo, '{instance} {port}']}}")
    assert [(each.spec.name, each.service, each.instance, each.instances) for each in found.services] == [
        ("api", "api", 0, 1)
    ]
    assert argv(found) == [("echo", "0 20101")]


def test_who_asks_for_no_port_has_none(cluster: Load) -> None:
    found = cluster("services: {api: {command: [sleep], workdir: ., instances: 3}}", free_port=lambda: 1 // 0)
    assert names(found) == ["api.0", "api.1", "api.2"]
    assert [each.launch.port for each in found.services] == [None, None, None]
    assert [each.instance for each in found.services] == [0, 1, 2]


def test_words_may_stand_in_the_defaults(cluster: Load) -> None:
    found = cluster(
        "defaults: {env: {PORT: '{port}'}, ready: {tcp: '127.0.0.1:{port}'}, instances: 2}\n"
        "services: {a: {command: [sleep]}}"
    )
    assert [each.launch.env["PORT"] for each in found.services] == ["20101", "20102"]
    assert [each.launch.probe.tcp_port for each in found.services] == [20101, 20102]


def test_unquoted_numbers_keep_their_type(cluster: Load) -> None:
    found = cluster(
        "services:\n  a:\n    command: [sleep]\n    ready: {tcp: '127.0.0.1:200{instance}'}\n    instances: 2"
    )
    assert [each.launch.probe.tcp_port for each in found.services] == [2000, 2001]


def test_dependents_depend_on_every_instance(cluster: Load) -> None:
    found = cluster(
        """\
services:
  web: {command: [sleep], depends_on: [api, db], instances: 2}
  api: {command: [sleep], instances: 2, depends_on: {db: {kind: wants}}}
  db: {command: [sleep]}
"""
    )
    both = (Dependency("api.0", group="api"), Dependency("api.1", group="api"), Dependency("db"))
    assert [each.spec.dependencies for each in found.services[:2]] == [both, both]
    assert found.services[2].spec.dependencies == (Dependency("db", DependencyKind.WANTS),)


# ---- scaling -------------------------------------------------------------------------------------------------------

PAIR = "services: {api: {command: [echo, '{port}'], instances: 2}, web: {command: [sleep], depends_on: [api]}}"


def test_a_scale_stands_above_the_file(cluster: Load) -> None:
    assert names(cluster(PAIR, scales={"api": 3})) == ["api.0", "api.1", "api.2", "web"]
    assert names(cluster(PAIR, scales={"web": 2})) == ["api.0", "api.1", "web.0", "web.1"]
    assert cluster(PAIR, scales={"web": 2}).scales == {"web": 2}


def test_scaled_to_one_it_keeps_its_number(cluster: Load) -> None:
    found = cluster(PAIR, scales={"api": 1})
    assert names(found) == ["api.0", "web"]
    assert found.services[0].instances == 1
    assert found.services[1].spec.dependencies == (Dependency("api.0", group="api"),)


BAD_SCALES = {
    ("api", 0): "services.api: cannot be scaled to 0; use 1 to 1000; svcd stop api stops it",
    ("api", 1001): "services.api: cannot be scaled to 1001; use 1 to 1000; svcd stop api stops it",
    ("apo", 2): "there is no service apo to scale; did you mean api?",
}


@pytest.mark.parametrize("scale", BAD_SCALES)
def test_scales_that_cannot_be(cluster: Load, scale: tuple[str, int]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        cluster(PAIR, scales=dict([scale]))
    assert [str(each).partition(": ")[2] for each in caught.value.problems] == [BAD_SCALES[scale]]


# ---- ports ---------------------------------------------------------------------------------------------------------


def test_who_runs_keeps_its_port(cluster: Load) -> None:
    before = cluster(PAIR)
    after = cluster(PAIR, scales={"api": 3}, ports=ports_of(before))
    assert ports_of(after) == {"api.0": 20101, "api.1": 20102, "api.2": 20103}
    found = compare(before, after)
    assert ([each.spec.name for each in found.added], [each.name for each in found.changed]) == (["api.2"], ["web"])


def test_no_port_is_given_twice(cluster: Load) -> None:
    tries = iter([20101, 20101, 20105, 20101, 20102])
    found = cluster(PAIR, free_port=lambda: next(tries), ports={"other": 20105})
    assert ports_of(found) == {"api.0": 20101, "api.1": 20102}


def test_no_free_port_is_a_problem_of_its_own(cluster: Load) -> None:
    def none_left() -> int:
        raise OSError("too many open files")

    with pytest.raises(ConfigurationError, match=r"cannot find a free port for api\.0: too many open files"):
        cluster(PAIR, free_port=none_left)


def test_ports_are_free_by_default(cluster: Load, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(PAIR)
    ports = ports_of(load([tmp_path / "cluster.yaml"], ENVIRON))
    for port in ports.values():
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", port))


def test_a_running_cluster_is_asked_for_by_its_name(cluster: Load) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        text = f"{PAIR[:-1]}, s: {{command: [sleep], sockets: [{{listen: '127.0.0.1:{port}'}}]}}}}"
        with pytest.raises(ConfigurationError, match="it is in use"):
            cluster(text)
        before = cluster(text, held=frozenset({f"127.0.0.1:{port}"}))
        assert addresses_of(before) == {f"127.0.0.1:{port}"}
        asked = []

        def running(name: str) -> ClusterSpec:
            asked.append(name)
            return before

        after = cluster(text, running=running, free_port=lambda: 1 // 0)
        assert (asked, ports_of(after)) == (["shop"], ports_of(before))
        assert compare(before, after).is_empty
