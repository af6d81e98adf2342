"""The plan that the command line hands to the daemon."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from svcd.supervisor.config import launch, plan
from svcd.supervisor.config.launch import ClusterSpec, LaunchSpec, Program, ServiceDefinition
from svcd.supervisor.core import spec

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=5,
)
SECONDS = st.floats(min_value=0, max_value=1e9)
ANY_TEXT = st.text(st.characters(codec=None), max_size=8)  # lone surrogates too: environments may hold any bytes
ENV = st.dictionaries(st.sampled_from("ABCD"), st.sampled_from("xyz"), max_size=4)
BY_HINT = {
    float: SECONDS,
    float | None: st.none() | SECONDS,
    str: ANY_TEXT,
    str | None: st.none() | ANY_TEXT,
    tuple[str, ...]: st.lists(ANY_TEXT, max_size=3).map(tuple),
    dict[str, str]: ENV | st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3),
    dict[str, Any]: st.dictionaries(st.text(), JSON, max_size=3),
}


def strategy_for(hint: Any) -> st.SearchStrategy[Any]:
    """Any value that the contract allows for a type."""
    if hint in BY_HINT:
        return BY_HINT[hint]
    if is_dataclass(hint):
        assert isinstance(hint, type)
        return st.builds(hint, **{name: strategy_for(each) for name, each in get_type_hints(hint).items()})
    if get_origin(hint) is tuple and get_args(hint)[-1] is not Ellipsis:
        return st.tuples(*map(strategy_for, get_args(hint)))
    if get_origin(hint) is dict:
        return st.dictionaries(ANY_TEXT, strategy_for(get_args(hint)[1]), max_size=2)
    if get_origin(hint) is tuple:
        return st.lists(strategy_for(get_args(hint)[0]), max_size=2).map(tuple)
    if get_origin(hint) is UnionType:
        return st.one_of([strategy_for(each) for each in get_args(hint)])
    return st.from_type(hint)


CLUSTER = strategy_for(ClusterSpec)


@settings(deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # shrinking these takes minutes
@given(CLUSTER)
def test_what_is_written_is_read(cluster: ClusterSpec) -> None:
    data = plan.to_json(cluster)
    assert plan.from_json(data) == cluster
    assert data.isascii()


def test_every_class_of_the_contract_is_known() -> None:
    contract = {
        each
        for module in (launch, spec)
        for each in vars(module).values()
        if isinstance(each, type) and is_dataclass(each)
    }
    assert contract == set(plan._DECODERS)


def test_every_field_that_is_no_json_value_has_a_decoder() -> None:
    simple = {"str", "int", "float", "bool", "str | None", "int | None", "float | None"}
    simple |= {"dict[str, Any]", "dict[str, str]", "dict[str, int]"}
    for cls, decoders in plan._DECODERS.items():
        assert {each.name for each in fields(cls) if each.type not in simple} == set(decoders), cls


def test_shared_environment_is_written_once() -> None:
    env = {f"NAME{i}": "x" * 50 for i in range(50)}
    one = ServiceDefinition(spec.ServiceSpec("a"), LaunchSpec(Program(("a",)), "/", env))
    other = ServiceDefinition(spec.ServiceSpec("b"), replace(one.launch, env={**env, "OWN": "1"}))
    data = plan.to_json(ClusterSpec("x", (), (one, *[other] * 99)))
    assert len(data) < 20_000
    assert [each.launch.env for each in plan.from_json(data).services][:2] == [env, {**env, "OWN": "1"}]


BROKEN: dict[str, Any] = {
    "no JSON": b"{",
    "not UTF-8": b"\xff",
    "no mapping": b"[]",
    "nothing": b"{}",
    "another version": b'{"version": 99}',
    "no services": b'{"version": 1, "environment": {}, "name": "x", "files": []}',
    "unknown field": b'{"version": 1, "environment": {}, "name": "x", "files": [], "services": [], "more": 1}',
    "unknown word": json.dumps(
        {
            "version": 1,
            "environment": {},
            "name": "x",
            "files": [],
            "services": [{"spec": {"name": "a", "runner": "java"}, "launch": {"run": {"Program": {}}, "workdir": "/"}}],
        }
    ).encode(),
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(plan.PlanError, match="cannot read"):
        plan.from_json(data)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(plan.PlanError):
        plan.from_json(data)


def test_the_daemon_imports_no_parser_with_it() -> None:
    code = "import sys, svcd.supervisor.config.plan; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = {each.partition(".")[0] for each in done.stdout.split()}
    assert "svcd" in loaded
    assert not loaded & {"yaml", "pydantic", "pydantic_core", "asyncio", "click", "zmq"}
