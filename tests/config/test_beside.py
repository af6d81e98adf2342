"""Files that add to a cluster, or take its place: what they may rely on, and what of it is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from svcd.supervisor.config.errors import ConfigurationError
from svcd.supervisor.config.launch import ClusterSpec
from svcd.supervisor.config.load import load

ENVIRON = {"PATH": "/usr/bin:/bin"}
OWN = """\
cluster: shop
services:
  db: {command: sleep 9, health: {exec: ["true"]}}
  set-up: {command: "true", type: task}
  api: {command: "sleep {port}", instances: 2}
  held: {command: sleep 9, sockets: [{listen: "127.0.0.1:20017"}]}
"""


def read(text: str, running: ClusterSpec | None = None, **options: Any) -> ClusterSpec:
    Path("extra.yaml").write_text(text)
    return load(["extra.yaml"], ENVIRON, running=lambda name: running, **options)


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterSpec:
    monkeypatch.chdir(tmp_path)
    return read(OWN)


def test_what_is_added_may_depend_on_what_runs(running: ClusterSpec) -> None:
    edges = "{api: , db: {condition: healthy}, set-up: {condition: completed}}"
    text = f"services: {{w: {{command: sleep 9, depends_on: {edges}}}}}"
    (found,) = read(text, running, among=running).services
    assert [each.target for each in found.spec.dependencies] == ["api.0", "api.1", "db", "set-up"]
    with pytest.raises(ConfigurationError, match="there is no service api"):
        read(text, running)


@pytest.mark.parametrize(
    ("edge", "problem"),
    [
        ("set-pu: ", "there is no service set-pu; did you mean set-up"),
        ("db: {condition: completed}", "needs a task, and db is a service"),
        ("set-up: {condition: healthy}", "needs health:, and set-up has none"),
    ],
)
def test_what_cannot_hold_is_found(running: ClusterSpec, edge: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        read(f"services: {{w: {{command: sleep 9, depends_on: {{{edge}}}}}}}", running, among=running)


def test_a_service_with_several_instances_stands_in_for_nobody(running: ClusterSpec) -> None:
    with pytest.raises(ConfigurationError, match="api has several instances"):
        read("services: {w: {command: sleep 9, fallback: api}}", running, among=running)


def test_ports_and_addresses_are_kept_by_those_who_have_them(running: ClusterSpec) -> None:
    text = "services: {api: {command: 'sleep {port}', instances: 3}}"
    found = read(text, running, among=running).services
    before = {each.spec.name: each.launch.port for each in running.services}
    assert [each.launch.port for each in found[:2]] == [before["api.0"], before["api.1"]]
    assert found[2].launch.port not in before.values()


def test_scales_and_profiles_are_kept_where_they_mean_something(running: ClusterSpec) -> None:
    scaled = replace(running, scales={"api": 3, "gone": 2}, profiles=("debug",))
    found = read("services: {api: {command: sleep 9}, d: {command: sleep 9, profiles: [debug]}}", scaled)
    assert [each.spec.name for each in found.services] == ["api.0", "api.1", "api.2", "d"]
    assert (found.scales, found.profiles) == ({"api": 3}, ("debug",))
    assert len(read("services: {db: {command: sleep 9}}", scaled).services) == 1
    assert len(read(OWN, scaled, scales={"api": 1}).services) == 4
    with pytest.raises(ConfigurationError, match="no service has the profile debug"):
        read("services: {db: {command: sleep 9}}", scaled, profiles=("debug",))


def test_it_needs_no_name_of_its_own(running: ClusterSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a b").mkdir()
    monkeypatch.chdir(tmp_path / "a b")
    assert read("services: {w: {command: sleep 9}}", running, among=running).services
    with pytest.raises(ConfigurationError, match="cannot take its place"):
        read("services: {w: {command: sleep 9}}", running)
