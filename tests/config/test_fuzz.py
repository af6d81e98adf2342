"""Whatever a file holds: a cluster, or a ConfigurationError whose problems can be shown."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from svcd.supervisor.config import plan
from svcd.supervisor.config.block import keys_of
from svcd.supervisor.config.compare import compare
from svcd.supervisor.config.errors import ConfigurationError, Problem
from svcd.supervisor.config.launch import ClusterSpec
from svcd.supervisor.config.load import load
from svcd.supervisor.config.merged import merged
from svcd.supervisor.config.shape import Service

TEXT = """\
cluster: shop
defaults: &d
  env: {LOG_LEVEL: "${LEVEL:-info}", N: 022}
  restart: {policy: on-failure, backoff: {initial: 100ms, factor: 2}}
services:
  db:
    command: [sleep, "${SECONDS:-5}", ~]
    ready: {tcp: "127.0.0.1:6379", timeout: 10s}
    stop: {signal: SIGTERM, timeout: 1.5s}
    logs: {max_size: 10MiB, keep: 5}
    umask: "022"
  setup: {<<: *d, type: task, command: "true $$x", schedule: "*/5 * * * *", profiles: []}
  api:
    command: [echo, "{instance} {port}"]
    instances: 2
    start: on_demand
    sockets: [{name: a, listen: "127.0.0.1:{port}"}, {listen: "unix:{instance}.sock", mode: "0600"}]
    ready: {http: "http://127.0.0.1:{port}/ok", status: 204, body: "^o[k]"}
    health: {exec: [sleep, 0], interval: 1s, on_failure: report}
    hooks: {pre_start: sleep 1, on_failure: {command: [sleep], timeout: 1s}}
    restart: {by_cause: {health: always}}
    pause: {signal: USR1}
    fallback: db
  web:
    code: |
      async def main(ctx):
          pass
    config: {a: [1, 2.5, null, {b: true}]}
    depends_on:
      db: {kind: requires, on_crash: notify}
      setup: {condition: completed}
      api: {kind: wants}
"""
PIECES = sorted(
    {*re.findall(r"[A-Za-z_]+|[^A-Za-z_]", TEXT), "\t", "\0", "${", "}", "!!int", "*d", "&d", "<<", "---\n"}
)
PLACE = re.compile(r"[^\n]+?(:[1-9][0-9]*:[1-9][0-9]*)?: .+", re.DOTALL)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(PIECES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(PIECES) | st.text(), inner, max_size=4),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        *keys_of(Service),
        "include",
        "backoff",
        "listen",
        "cron",
        "pre_start",
        "by_cause",
        "intensity",
        "signal",
        "timeout",
        "policy",
        "tcp",
        "delay",
    ]
)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def check(data: bytes, directory: Path) -> None:
    file = directory / "cluster.yaml"
    file.write_bytes(data)
    problems: tuple[Problem, ...] | None = None
    cluster = ClusterSpec("", (), ())
    try:
        cluster = load([file], {"PATH": os.defpath})
        assert plan.from_json(plan.to_json(cluster)) == cluster
        assert compare(cluster, load([file], {"PATH": os.defpath}, running=lambda name: cluster)).is_empty
    except ConfigurationError as error:
        problems = error.problems
    assert problems is None or problems
    try:
        shown = merged([file], {"PATH": os.defpath})
    except ConfigurationError:
        assert problems
    else:
        json.dumps(shown.as_json(defaults=True), allow_nan=False)
        file.write_text(shown.as_yaml(), encoding="utf-8", errors="surrogatepass")
        if problems is None:
            again = load([file], {"PATH": os.defpath}, running=lambda name: cluster)
            assert compare(cluster, again).is_empty
    for each in problems or ():
        assert each.file
        assert each.text
        assert each.suggestion
        assert str(each).isprintable()
        assert PLACE.fullmatch(str(each))


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes(directory: Path, data: bytes) -> None:
    check(data, directory)


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
def test_arbitrary_yaml_like_text(directory: Path, text: str) -> None:
    check(text.encode(), directory)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, len(TEXT)), st.integers(0, 12), st.sampled_from(PIECES) | st.text(max_size=3)),
        min_size=1,
        max_size=4,
    )
)
def test_a_good_file_with_changes(directory: Path, changes: list[tuple[int, int, str]]) -> None:
    text = TEXT
    for position, length, piece in changes:
        text = text[:position] + piece + text[position + length :]
    check(text.encode("utf-8", "surrogatepass"), directory)


def flow(value: object) -> str:
    """As YAML in one line; text half the time without quotes, as people write it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(str(key))}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str) and not value.isalnum():
        return '"' + "".join(f"\\U{ord(c):08x}" if not c.isprintable() or c in '"\\' else c for c in value) + '"'
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(KEYS | st.sampled_from(PIECES), VALUES, max_size=5))
@example({"command": ["\ud800"]})
@example({"user": "\udcff", "group": "a\0b"})
@example({"code": "(" * 500, "user": 2**70})
@example({"ready": {"tcp": "a:" + "9" * 5000}, "stop": {"signal": "9" * 5000}})
@example({"env_file": ["/dev/zero", "\0", ".", "cluster.yaml"], "script": "\0", "workdir": "\0"})
@example({"depends_on": {"": {}, "web": None, "\0": []}})
@example({"profiles": "A"})
def test_arbitrary_values_for_the_keys(directory: Path, service: dict[str, object]) -> None:
    text = f"services: {{web: {flow(service)}, task: {{command: [sleep]}}}}\ndefaults: {flow(service)}\n"
    check(text.encode("utf-8", "surrogatepass"), directory)
    check(f"max_parallel: {flow(list(service.values())[:1])}\n{text}".encode("utf-8", "surrogatepass"), directory)


def test_the_good_file_is_good(directory: Path) -> None:
    (directory / "cluster.yaml").write_text(TEXT)
    assert len(load([directory / "cluster.yaml"], {"PATH": os.defpath}).services) == 5
