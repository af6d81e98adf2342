"""What depends on what: targets that exist, no service on itself, no cycles.

Must not resolve anything else of a service; the order of starts is the core's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from svcd.supervisor.config.errors import Findings
from svcd.supervisor.config.shape import Edge
from svcd.supervisor.config.tree import Loc, Node, locate
from svcd.supervisor.config.units import near_miss
from svcd.supervisor.core.spec import Condition, DependencyKind, ServiceType

MAX_CYCLES: Final = 50  # nobody reads more at once


@dataclass(frozen=True, slots=True)
class Vertex:
    """A service in the graph. ``type`` None: not known, for its own definition is wrong. ``node``: its mapping."""

    edges: Mapping[str, Edge]
    type: ServiceType | None
    node: Node


def check(vertices: Mapping[str, Vertex], findings: Findings) -> None:
    """Record everything that is wrong with the dependencies."""
    known: dict[str, list[str]] = {}
    for name, vertex in vertices.items():
        known[name] = [target for target in vertex.edges if target in vertices and target != name]
        for target, edge in vertex.edges.items():
            if target == name:
                text, suggestion = f"{name} depends on itself", "remove it"
            elif target not in vertices:
                text, suggestion = (
                    f"there is no service {target}",
                    near_miss(target, vertices) or "add it, or remove it",
                )
            elif wrong := _wrong_edge(edge, target, vertices[target].type):
                text, suggestion = wrong
            else:
                continue
            _add(findings, vertex, name, target, text, suggestion)
    for cycle in islice(cycles(known), MAX_CYCLES):
        text = f"services depend on each other in a circle: {' → '.join(cycle)}"
        _add(findings, vertices[cycle[0]], cycle[0], cycle[1], text, "remove one of these dependencies")


def _wrong_edge(edge: Edge, target: str, type_: ServiceType | None) -> tuple[str, str] | None:
    if edge.condition is Condition.COMPLETED and type_ is ServiceType.SERVICE:
        return f"condition: completed needs a task, and {target} is a service", f"write type: task in {target}"
    if edge.on_crash is not None and edge.kind is not DependencyKind.REQUIRES:
        return f"on_crash goes with kind: requires, not with {edge.kind.value}", "remove on_crash, or change the kind"
    return None


def _add(findings: Findings, vertex: Vertex, name: str, target: str, text: str, suggestion: str) -> None:
    loc: Loc = ("depends_on", target)
    short = f"services.{name}.depends_on"
    findings.add(locate(vertex.node, loc, prefer_key=True), short, text, suggestion)


def cycles(edges: dict[str, list[str]]) -> Iterator[list[str]]:
    """Cycles, as paths that end where they begin: one for each edge that closes one, each edge walked once."""
    done: set[str] = set()
    for start, targets in edges.items():
        if start in done:
            continue
        path, on_path = [start], {start: 0}
        todo = [iter(targets)]
        while todo:
            step = next(todo[-1], None)
            if step is None:
                todo.pop()
                last = path.pop()
                del on_path[last]
                done.add(last)
            elif step in on_path:
                yield [*path[on_path[step] :], step]
            elif step not in done and step in edges:
                on_path[step] = len(path)
                path.append(step)
                todo.append(iter(edges[step]))
