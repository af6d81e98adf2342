"""What depends on what, and who stands in for whom: targets that exist, no service on itself, no cycles.

Must not resolve anything else of a service; the order of starts is the core's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

from svcd.record import record
from svcd.supervisor.config.errors import Findings
from svcd.supervisor.config.tree import Loc, Node, locate
from svcd.supervisor.config.units import near_miss
from svcd.supervisor.core.spec import Condition, DependencyKind, ServiceType

if TYPE_CHECKING:  # the daemon checks child services with these functions, and pays for no validator
    from svcd.supervisor.config.shape import Edge

MAX_CYCLES: Final = 50  # nobody reads more at once


@record
class Vertex:
    """A service in the graph. ``type`` None: not known, for its own definition is wrong. ``node``: its mapping.
    ``has_health``, None: not known either. ``instances``: how many there are of it.
    ``may_call``: whom it is permitted to call besides.
    """

    edges: Mapping[str, Edge]
    type: ServiceType | None
    node: Node
    fallback: str | None = None
    has_health: bool | None = None
    instances: int = 1
    may_call: tuple[str, ...] = ()


Absent = Mapping[str, tuple[str, str]]
"""Services that are defined and not chosen: why, and how to mend it."""


def check(vertices: Mapping[str, Vertex], findings: Findings, absent: Absent) -> None:
    """Record everything that is wrong with the dependencies and fallbacks."""
    known: dict[str, list[str]] = {}
    for name, vertex in vertices.items():
        known[name] = [target for target in vertex.edges if target in vertices and target != name]
        for target, edge in vertex.edges.items():
            if target == name:
                found: tuple[str, str] | None = (f"{name} depends on itself", "remove it")
            elif target not in vertices:
                found = absent.get(target) or unknown(target, vertices)
            else:
                found = wrong_edge(edge, target, vertices[target])
            if found is not None:
                _add(findings, vertex, name, target, *found)
    for cycle in islice(cycles(known), MAX_CYCLES):
        text = f"services depend on each other in a circle: {' → '.join(cycle)}"
        _add(findings, vertices[cycle[0]], cycle[0], cycle[1], text, "remove one of these dependencies")
    _check_fallbacks(vertices, findings, absent)
    _check_permissions(vertices, findings, absent)


def unknown(target: str, vertices: Mapping[str, Vertex]) -> tuple[str, str]:
    return f"there is no service {target}", near_miss(target, vertices) or "add it, or remove it"


def wrong_edge(edge: Edge, target: str, vertex: Vertex) -> tuple[str, str] | None:
    if edge.condition is Condition.COMPLETED and vertex.type is ServiceType.SERVICE:
        return f"condition: completed needs a task, and {target} is a service", f"write type: task in {target}"
    if edge.condition is Condition.HEALTHY and vertex.has_health is False:
        return f"condition: healthy needs health:, and {target} has none", f"add health: to {target}"
    if edge.on_crash is not None and edge.kind is not DependencyKind.REQUIRES:
        return f"on_crash goes with kind: requires, not with {edge.kind.value}", "remove on_crash, or change the kind"
    return None


def _add(findings: Findings, vertex: Vertex, name: str, target: str, text: str, suggestion: str) -> None:
    loc: Loc = ("depends_on", target)
    short = f"services.{name}.depends_on"
    findings.add(locate(vertex.node, loc, prefer_key=True), short, text, suggestion)


# ---- fallbacks -----------------------------------------------------------------------------------------------------


def _check_fallbacks(vertices: Mapping[str, Vertex], findings: Findings, absent: Absent) -> None:
    fallbacks = {name: each.fallback for name, each in vertices.items() if each.fallback is not None}
    for name, fallback in fallbacks.items():
        if found := _wrong_fallback(name, fallback, vertices, absent):
            mark = locate(vertices[name].node, ("fallback",))
            findings.add(mark, f"services.{name}.fallback", *found)
    circles = cycles({name: [each] for name, each in fallbacks.items() if each != name})
    for circle in islice(circles, MAX_CYCLES):
        mark = locate(vertices[circle[0]].node, ("fallback",))
        text = f"services stand in for each other in a circle: {' → '.join(circle)}"
        findings.add(mark, f"services.{circle[0]}.fallback", text, "remove one of these fallbacks")


def _wrong_fallback(name: str, fallback: str, vertices: Mapping[str, Vertex], absent: Absent) -> tuple[str, str] | None:
    if fallback == name:
        return f"{name} cannot stand in for itself", "name another service, or remove it"
    if fallback not in vertices:
        return absent.get(fallback) or unknown(fallback, vertices)
    if vertices[fallback].instances > 1:
        return f"{fallback} has several instances", "name a service that has one"
    path = _path(fallback, name, vertices)
    if path is not None:
        return f"{fallback} needs what it is to replace: {' → '.join(path)}", "name a service that does without it"
    return None


def _path(start: str, goal: str, vertices: Mapping[str, Vertex]) -> list[str] | None:
    """Along what is waited for, from ``start`` to ``goal``."""
    came_from: dict[str, str] = {start: start}
    todo = [start]
    while todo:
        here = todo.pop()
        if here == goal:
            path = [here]
            while path[-1] != start:
                path.append(came_from[path[-1]])
            return path[::-1]
        for target, edge in vertices[here].edges.items():
            if target in vertices and target not in came_from and edge.kind is not DependencyKind.AFTER:
                came_from[target] = here
                todo.append(target)
    return None


# ---- permissions ---------------------------------------------------------------------------------------------------


def _check_permissions(vertices: Mapping[str, Vertex], findings: Findings, absent: Absent) -> None:
    for name, vertex in vertices.items():
        for index, target in enumerate(vertex.may_call):
            if target not in vertices:
                mark = locate(vertex.node, ("permissions", "services", index))
                found = absent.get(target) or unknown(target, vertices)
                findings.add(mark, f"services.{name}.permissions.services.{index}", *found)


# ---- cycles --------------------------------------------------------------------------------------------------------


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
