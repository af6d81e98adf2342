"""``svcd graph``: exact drawings, of files and of a daemon.

Must not test how files are read.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_daemon import FakeDaemon, Outcome

from svcd.cli.graph import levels
from svcd.protocol.messages import Edge, GetGraph, GraphReported

Svcd = Callable[..., Outcome]

FILE = """\
cluster: shop
services:
  web:
    command: sleep 1
    depends_on:
      store: {}
      cache: {kind: wants}
      setup: {condition: completed}
      db: {on_crash: notify}
  store: {command: sleep 1, depends_on: [db]}
  cache: {command: sleep 1, depends_on: {db: {kind: after, condition: spawned}}}
  db: {command: sleep 1}
  setup: {command: sleep 1, type: task}
"""

TEXT = """\
cluster shop, in start order:
  db
  setup
    store ← db
    cache ← db (after, until spawned)
      web ← store, cache (wants), setup (until completed), db (on crash notify)
"""

MERMAID = """\
flowchart LR
    s0["web"]
    s1["store"]
    s2["cache"]
    s3["db"]
    s4["setup"]
    s0 --> s1
    s0 -.->|wants| s2
    s0 -->|until completed| s4
    s0 -->|on crash notify| s3
    s1 --> s3
    s2 -.->|after, until spawned| s3
"""

DOT = """\
digraph "shop" {
    rankdir=LR;
    node [shape=box];
    "web";
    "store";
    "cache";
    "db";
    "setup";
    "web" -> "store";
    "web" -> "cache" [style=dashed, label="wants"];
    "web" -> "setup" [label="until completed"];
    "web" -> "db" [label="on crash notify"];
    "store" -> "db";
    "cache" -> "db" [style=dashed, label="after, until spawned"];
}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "cluster.yaml"
    path.write_text(FILE)
    return str(path)


@pytest.mark.parametrize(("form", "expected"), [("text", TEXT), ("mermaid", MERMAID), ("dot", DOT)])
def test_drawings(svcd: Svcd, file: str, form: str, expected: str) -> None:
    outcome = svcd("graph", file, "--format", form)
    assert (outcome.code, outcome.out, outcome.err) == (0, expected, "")


def test_json(svcd: Svcd, file: str) -> None:
    document = json.loads(svcd("graph", file, "--json").out)
    assert document["cluster"] == "shop"
    assert document["services"] == ["web", "store", "cache", "db", "setup"]
    assert document["levels"] == [["db", "setup"], ["store", "cache"], ["web"]]
    assert document["edges"][0] == {
        "dependent": "web", "dependency": "store", "kind": "requires", "condition": "running", "on_crash": "restart",
        "to_parent": False,
    }  # fmt: skip


def test_of_the_cluster_that_runs(daemon: FakeDaemon, svcd: Svcd) -> None:
    edges = Edge("b", "a", "requires", "running", "restart"), Edge("c", "b", "requires", "running", "restart", True)
    daemon.answer(GetGraph, GraphReported("shop", ("a", "b", "c"), edges))
    assert svcd("graph").out == "cluster shop, in start order:\n  a\n    b ← a\n      c ← b (its parent)\n"


def test_deep_and_wide_graphs_are_drawn() -> None:
    names = tuple(f"s{number}" for number in range(3000))
    chain = tuple(Edge(b, a, "requires", "running", "restart") for a, b in itertools.pairwise(names))
    assert [level[0] for level in levels(GraphReported("x", names, chain))] == list(names)
    assert levels(GraphReported("x", names, ())) == [list(names)]


def test_edges_to_nowhere_and_cycles_do_not_hang() -> None:
    """A daemon would not send them; a stranger might."""
    edges = tuple(Edge(a, b, "requires", "running", "restart") for a, b in (("a", "b"), ("b", "a"), ("c", "zz")))
    assert levels(GraphReported("x", ("a", "b", "c"), edges)) == [["c"]]
