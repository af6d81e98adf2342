"""Definitions of child services: the same words mean the same as in a file, and a child gets nothing beyond its parent.

Must not start anything.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import given, settings

from svcd.supervisor.config import child_keys, leaves, shape
from svcd.supervisor.config.block import key_names, keys_of, leaf_of
from svcd.supervisor.config.child import BadChild, Family, define
from svcd.supervisor.config.launch import (
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
from svcd.supervisor.config.load import load
from svcd.supervisor.core.spec import Condition, Dependency, HealthPolicy, ServiceSpec, StartMode

PARENT = "pool"
BLOCKS = {
    (): (child_keys.CHILD, shape.Service),
    ("depends_on",): (child_keys.EDGES, shape.Edge),
    ("ready",): (child_keys.READY, shape.Ready),
    ("restart",): (child_keys.RESTART, shape.Restart),
    ("restart", "backoff"): (child_keys.RESTART.keys["backoff"], shape.Backoff),
    ("restart", "intensity"): (child_keys.RESTART.keys["intensity"], shape.Intensity),
    ("restart", "by_cause"): (child_keys.RESTART.keys["by_cause"], shape.ByCause),
    ("stop",): (child_keys.STOP, shape.Stop),
    ("logs",): (child_keys.LOGS, shape.Logs),
    ("permissions",): (child_keys.PERMISSIONS, shape.Permissions),
    ("permissions", "spawn"): (child_keys.PERMISSIONS.keys["spawn"], shape.Spawn),
}
LATER = {("logs",): {"max_age", "compress"}}  # keys that nobody has so far
GOOD: tuple[dict[str, Any], ...] = (
    {"python": "shards:Shard"},
    {"python": "shards:Shard", "config": {"number": 3, "parts": [1, {"a": None}]}, "tags": ["x", "y"]},
    {"code": "def main(ctx): ...", "ready": {"delay": "300ms"}, "type": "task"},
    {"python": "a:b", "ready": {"delay": "2m"}, "restart": {"policy": "never"}},
    {"script": "run.py", "ready": "notify", "stop": {"signal": "INT", "timeout": "1s", "drain_grace": 0}},
    {"script": "run.py", "path": ["lib", "."]},
    {"command": ["/bin/sleep", "9"], "ready": {"tcp": "127.0.0.1:80", "timeout": "1s"}},
    {"command": "sleep 9", "ready": {"notification-fd": 3}, "env": {"A": "1", "HOME": None}},
    {"command": "sleep 9", "ready": {"http": "http://x/y", "status": 204, "body": "ok", "interval": "1s"}},
    {"command": "sleep 9", "ready": {"log": "up"}, "logs": {"max_size": "1MiB", "keep": 2, "merge_stderr": True}},
    {
        "python": "a:b",
        "restart": {
            "policy": "always",
            "backoff": {"initial": "1s", "factor": 3, "max": "9s", "jitter": 0},
            "intensity": {"restarts": "unlimited", "within": "1m"},
            "reset_after": "3s",
            "success_codes": [0, 3],
            "prevent_codes": [4, "SIGKILL"],
            "by_cause": {"health": "always", "signal": "never"},
        },
    },
    {"python": "a:b", "restart": {"backoff": {"initial": "1m"}}},
    {"python": "a:b", "depends_on": ["db", "many"], "permissions": {"services": ["work"], "spawn": {"max": 3}}},
    {"python": "a:b", "depends_on": {"db": {"kind": "wants"}, "work": {"condition": "completed"}}},
    {"python": "a:b", "depends_on": {"db": {"on_crash": "notify"}}, "permissions": {"spawn": True}},
)
BAD: tuple[dict[str, Any], ...] = (
    {"python": "nothing"},
    {"python": 3},
    {"code": " "},
    {"command": []},
    {"python": "a:b", "config": [1]},
    {"python": "a:b", "config": {"x": float("inf")}},
    {"python": "a:b", "env": {"A=": "1", "B": ["x"]}},
    {"python": "a:b", "tags": "one"},
    {"python": "a:b", "ready": "soon"},
    {"python": "a:b", "ready": {"delay": "1s", "timeout": "1s"}},
    {"python": "a:b", "ready": {"delay": "1s", "tcp": "x:1"}},
    {"python": "a:b", "ready": {"status": 200}},
    {"python": "a:b", "ready": {"notify": False}},
    {"python": "a:b", "ready": {"notification-fd": 3}},
    {"python": "a:b", "ready": {"log": "("}},
    {"python": "a:b", "ready": {"log": "x"}, "logs": {"driver": "none"}},
    {"python": "a:b", "restart": {"policy": "sometimes", "backoff": {"initial": 3}}},
    {"python": "a:b", "restart": {"backoff": {"initial": "9s", "max": "1s"}}},
    {"python": "a:b", "restart": {"success_codes": [0, "KILL", 256]}},
    {"python": "a:b", "restart": "always"},
    {"python": "a:b", "stop": {"signal": "SIGNOTHING", "time": "1s"}},
    {"python": "a:b", "depends_on": "db"},
    {"python": "a:b", "depends_on": ["db", "db", ["x"]]},
    {"python": "a:b", "depends_on": ["nobody"]},
    {"python": "a:b", "depends_on": {"db": {"condition": "completed"}}},
    {"python": "a:b", "depends_on": {"db": {"condition": "healthy"}}},
    {"python": "a:b", "depends_on": {"db": {"kind": "wants", "on_crash": "ignore"}}},
    {"python": "a:b", "permissions": {"spawn": {"max": -1}}},
    {"python": "a:b", "permissions": {"services": ["nobody"]}},
)


def files(directory: Path, written: dict[str, Any]) -> Path:
    """The same words in a file, with what they may depend on."""
    (directory / "lib").mkdir(exist_ok=True)
    (directory / "run.py").touch()
    services = {
        PARENT: {"python": "a:b", "permissions": {"spawn": True, "services": ["db", "many", "work"]}},
        "db": {"command": "sleep 9"},
        "many": {"command": "sleep 9", "instances": 2},
        "work": {"command": "true", "type": "task"},
        "shard": written,
    }
    path = directory / "cluster.yaml"
    path.write_text(yaml.safe_dump({"cluster": "c", "services": services}))
    return path


def family(directory: Path) -> Family:
    cluster = load([files(directory, {"python": "a:b"})], {"HOME": "/root", "PATH": "/bin"})
    others = {each.spec.name: each for each in cluster.services if each.spec.name != "shard"}
    names: dict[str, tuple[str, ...]] = {}
    for name, each in others.items():
        names[each.service] = (*names.get(each.service, ()), name)
    return Family(others[PARENT], names, others, frozenset({"db", "many", "work"}))


@pytest.mark.parametrize("place", BLOCKS, ids=".".join)
def test_the_tables_say_what_the_shape_says(place: tuple[str, ...]) -> None:
    table, block = BLOCKS[place]
    assert isinstance(table, child_keys.Block)
    attributes = key_names(block)
    if place:
        assert (set(attributes) - set(table.keys), table.example) == (LATER.get(place, set()), block.example)
    for key, kind in table.keys.items():
        field = keys_of(block)[attributes[key]]
        if not isinstance(kind, child_keys.Leaf):
            continue  # another row
        leaf = leaf_of(field)
        assert isinstance(leaf, leaves.Parsed)
        own = kind.type if isinstance(kind.type, leaves.Parsed) else get_args(kind.type)[1]
        assert (own.words, own.schema) == (leaf.words, leaf.schema), key
        if place != ("logs",):
            assert kind.default == field.default, key


@pytest.mark.parametrize("number", range(len(GOOD)))
def test_the_same_words_mean_the_same_as_in_a_file(number: int, tmp_path: Path) -> None:
    written = GOOD[number]
    environ = {"HOME": "/root", "PATH": "/bin"}
    (in_file,) = (each for each in load([files(tmp_path, written)], environ).services if each.spec.name == "shard")
    child = define("shard", written, family(tmp_path))
    own = Dependency(PARENT, condition=Condition.SPAWNED)
    expected = replace(
        in_file.spec, parent=PARENT, start=StartMode.MANUAL, dependencies=(*in_file.spec.dependencies, own)
    )
    assert child.spec == expected
    assert child.launch == in_file.launch


@pytest.mark.parametrize("number", range(len(BAD)))
def test_what_is_wrong_in_a_file_is_wrong_for_a_child(number: int, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"services\.shard") as in_file:
        load([files(tmp_path, BAD[number])], {"PATH": "/bin"})
    with pytest.raises(BadChild) as refused:
        define("shard", BAD[number], family(tmp_path))
    texts = sorted(f"{each.text}; {each.suggestion}" for each in in_file.value.problems)  # type: ignore[attr-defined]
    assert len(refused.value.problems) == len(texts)
    for problem in refused.value.problems:
        assert any(problem.endswith(text.removeprefix("unknown key; ")) for text in texts), (problem, texts)


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ({}, "it says nothing that can run; add python, code, script or command"),
        ({"python": "a:b", "code": "x"}, "code: does not go with python; keep one of the two"),
        ({"command": "x", "config": {}}, "config: goes with python, script or code, not with command; remove it"),
        ({"python": "a:b", "user": "root"}, "user: is no key of a child; a child has its parent's: leave it out"),
        ({"python": "a:b", "instances": 3}, "instances: is no key of a child; create several children, each with a"),
        ({"python": "a:b", "restrat": {}}, "restrat: unknown key; did you mean restart?"),
        ({"python": "a:b", "stop": {"signal": "x"}}, 'stop.signal: "x" is no signal'),
        (
            {"python": "a:b", "depends_on": ["vault"]},
            "depends_on.vault: pool may not call vault, so no child",
        ),
        ({"python": "a:b", "permissions": {"services": ["vault"]}}, "permissions.services[0]: pool may not call vault"),
        (
            {"python": "a:b", "config": {"a": [{1: 2}]}},
            "config.a[0]: has the key 1, which is no text; put it in quotes",
        ),
        ({"python": "a:b", "permissions": {"spawn": {"max": 9}}}, "permissions.spawn.max: 9 are more than the 2 of"),
    ],
)
def test_problems_name_the_key(written: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadChild) as refused:
        define("shard", written, small_family())
    (found,) = refused.value.problems
    assert found.startswith(problem)


def small_family() -> Family:
    launch = LaunchSpec(
        PythonCode("a:b", path=("/lib",), interpreter="/venv/bin/python", runtime={"x": 3}, preload=("x",)),
        workdir="/work",
        env={"A": "1", "B": "2"},
        uid=7,
        gid=8,
        groups=(9,),
        umask=0o77,
        logs=LogPolicy("none", 5, 6, True),
        hooks={"pre_start": HookCommand(("true",))},
        tags=("mine",),
        idle_timeout_s=3.0,
        max_children=2,
        state=StatePolicy(keep=True),
        version="7",
        port=9,
        probe=ReadyProbe(delay_s=3.0),
        schedule=Schedule(every_s=3.0),
        sockets=(SocketSpec("x"),),
        health=HealthProbe(argv=("true",)),
        may_call=("vault",),
    )
    parent = ServiceDefinition(ServiceSpec("pool", health=HealthPolicy()), launch, "pool")
    vault = ServiceDefinition(ServiceSpec("vault"), LaunchSpec(Program(("x",)), "/"), "vault")
    return Family(parent, {"pool": ("pool",), "vault": ("vault",)}, {"pool": parent, "vault": vault}, frozenset())


def test_a_child_runs_as_and_where_its_parent_does() -> None:
    child = define("shard", {"python": "x:y", "env": {"B": None, "C": "3"}, "logs": {"keep": 1}}, small_family())
    parent = small_family().parent.launch
    assert isinstance(parent.run, PythonCode)
    assert child.launch.run == replace(parent.run, entry="x:y")
    assert child.launch.env == {"A": "1", "C": "3"}
    assert child.launch.logs == LogPolicy("none", 5, 1, True)
    inherited = {"workdir", "uid", "gid", "groups", "umask"}
    fresh = LaunchSpec(child.launch.run, "/work")
    for each in fields(LaunchSpec):
        if each.name in inherited:
            assert getattr(child.launch, each.name) == getattr(parent, each.name)
        elif each.name not in {"env", "logs"}:
            assert getattr(child.launch, each.name) == getattr(fresh, each.name), each.name


def test_it_requires_its_parent_whatever_it_says() -> None:
    child = define("shard", {"python": "x:y", "depends_on": {"pool": {"kind": "after"}}}, small_family())
    assert child.spec.dependencies == (Dependency("pool", condition=Condition.SPAWNED),)


@pytest.mark.parametrize("name", ["", "a b", "-a", "a.b", "x" * 65, "../a"])
def test_it_has_a_name_like_every_service(name: str) -> None:
    with pytest.raises(BadChild, match="cannot be a name"):
        define(name, {"python": "x:y"}, small_family())


def test_no_validator_is_loaded_for_it() -> None:
    code = "import sys, svcd.supervisor.config.child; print([m for m in sys.modules if 'pydantic' in m or 'yaml' in m])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=3)
KEYS = st.sampled_from([*child_keys.CHILD.keys, "workdir", "x"]) | st.text(max_size=4)
ANYTHING = st.recursive(
    PLAIN,
    lambda each: (
        st.lists(each, max_size=3)
        | st.dictionaries(
            st.text(max_size=4) | st.sampled_from(["db", "pool", "max", "policy", "spawn"]), each, max_size=3
        )
        | st.dictionaries(st.integers() | st.booleans(), each, max_size=2)
    ),
    max_leaves=8,
)


@given(written=st.dictionaries(KEYS, ANYTHING, max_size=4), name=st.text(max_size=5))
@settings(max_examples=400, deadline=None, database=None)
def test_whatever_is_said_is_read_or_refused(written: dict[str, Any], name: str) -> None:
    for more in ({}, {"python": "a:b"}):
        with suppress(BadChild):
            define(name or "x", {**more, **written}, small_family())
