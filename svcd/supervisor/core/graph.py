"""The dependency graph as a whole: units get and lose their edges as services come and go; order and closure.

Must not change a unit's state, nor say what an edge means (``edges`` does).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from svcd.supervisor.core import edges
from svcd.supervisor.core.spec import Dependency, ServiceSpec
from svcd.supervisor.core.unit import Edge, Group, Unit

NeighboursOf = Callable[[Unit], Iterator[Unit]]
EdgesTo = Callable[[Unit], Iterable[Edge]]


# ---- coming and going ----


def connect(units: Mapping[str, Unit], unit: Unit, spec: ServiceSpec) -> None:
    """Make the edges that ``spec`` names, to units that are there already, and its fallback."""
    groups: dict[str | None, Group] = {}
    for each in spec.dependencies:
        edges.join_group(_join(Edge(unit, units[each.target], each)), groups)
    for edge in unit.outgoing:
        if not edge.is_borrowed:
            edges.refresh(edge)
    if spec.fallback is not None:
        unit.fallback = units[spec.fallback]
        unit.fallback.covers[unit] = None
        edges.refresh_cover(unit)


def rejoin(units: Mapping[str, Unit], dependent: Unit, name: str) -> None:
    """A service is there again that this one wants, or comes after: not what is required, which nobody can remove."""
    groups = {edge.spec.group: edge.group for edge in dependent.outgoing if edge.group is not None}
    for each in dependent.newest.dependencies:
        if each.target == name:
            edge = _join(Edge(dependent, units[name], each))
            edges.join_group(edge, groups)
            edges.refresh(edge)


def borrow(dependent: Unit, target: Unit, spec: Dependency, instead_of: Unit | None = None) -> None:
    """One more edge for the present run, gone with it. It holds the target, but blocks nobody: the run has begun."""
    assert dependent.run is not None
    edge = _join(Edge(dependent, target, spec, is_borrowed=True, instead_of=instead_of))
    dependent.run.borrowed.append(edge)
    if instead_of is not None:
        instead_of.stood_in[edge] = None


def _join(edge: Edge) -> Edge:
    edge.dependent.outgoing.append(edge)
    edge.target.incoming[edge] = None
    return edge


def cut(edge: Edge) -> None:
    """Take one edge away."""
    edges.leave_group(edge)
    run = edge.dependent.run
    if edge.is_borrowed and run is not None:
        run.borrowed.remove(edge)
    edge.dependent.outgoing.remove(edge)
    del edge.target.incoming[edge]
    edge.dependent.blockers.pop(edge, None)
    edge.dependent.dead.pop(edge, None)
    if edge.instead_of is not None:
        edge.instead_of.stood_in.pop(edge, None)
    if edge.holds:
        edge.target.holders -= 1


def disconnect(unit: Unit) -> list[Unit]:
    """Take away what a unit depends on, and its fallback; what its present run has borrowed stays. Returns whom it was
    connected to.
    """
    gone = [edge for edge in unit.outgoing if not edge.is_borrowed]
    for edge in gone:
        cut(edge)
    targets = [edge.target for edge in gone]
    if unit.fallback is None:
        return targets
    fallback, unit.fallback = unit.fallback, None
    fallback.covers.pop(unit, None)
    fallback.bereft.pop(unit, None)
    return [*targets, fallback]


def isolate(unit: Unit) -> None:
    """Take a unit out. It has no process; whoever still depends on it does so no longer."""
    disconnect(unit)
    for edge in list(unit.incoming):
        cut(edge)
    for covered in unit.covers:
        covered.fallback = None
    unit.covers.clear()
    unit.bereft.clear()


# ---- order ----


def closure(roots: Iterable[Unit], overrules: bool = True) -> list[Unit]:
    """The roots and all that they require or want, dependencies before dependents: but not what is being removed, nor
    what only that needs. Unless it ``overrules``, nor what was stopped by name.
    """

    def targets(unit: Unit) -> Iterator[Unit]:
        for edge in unit.outgoing:
            if edge.pulls and not edge.target.removed and (overrules or not edge.target.held_back):
                yield edge.target

    return _post_order(roots, targets)


def stop_order(roots: Iterable[Unit]) -> list[Unit]:
    """The roots and all that must end before them because it relies on them, dependents before dependencies."""

    def incoming(unit: Unit) -> Iterable[Edge]:
        return (*unit.incoming, *unit.stood_in)

    return in_order_of_stopping(falling(roots, incoming), incoming)


def falling(roots: Iterable[Unit], incoming: EdgesTo) -> dict[Unit, None]:
    """The roots, and whoever ends with them because it relies on them."""
    found: dict[Unit, None] = {}
    pending = list(roots)
    while pending:
        unit = pending.pop()
        if unit in found:
            continue
        found[unit] = None
        pending.extend(edge.dependent for edge in incoming(unit) if _falls(edge, unit, found))
    return found


def _falls(edge: Edge, unit: Unit, found: Mapping[Unit, None]) -> bool:
    """Whether the end of ``unit``, which the edge leads to or whom its target stands in for, ends the dependent."""
    if not edge.hard or not edge.dependent.leaning or edge.dependent in found:
        return False
    if edge.instead_of is unit:
        return True
    if edges.is_lent(edge):  # its run relies on who stands in for that one
        return False
    beside = edge.group.edges if edge.group is not None else ()
    return unit.run is not None and not any(edges.carries(each) and each.target not in found for each in beside)


def in_order_of_stopping(units: Mapping[Unit, None], incoming: EdgesTo) -> list[Unit]:
    """These units, dependents before dependencies."""

    def dependents(unit: Unit) -> Iterator[Unit]:
        return (edge.dependent for edge in incoming(unit) if edge.hard and edge.dependent in units)

    return _post_order(units, dependents)


def leads_to(start: Unit, end: Unit) -> bool:
    """Whether ``start`` depends on ``end`` in any way."""
    seen, pending = {start}, [start]
    while pending:
        unit = pending.pop()
        if unit is end:
            return True
        following = [edge.target for edge in unit.outgoing if edge.target not in seen]
        seen.update(following)
        pending.extend(following)
    return False


def _post_order(roots: Iterable[Unit], following: NeighboursOf) -> list[Unit]:
    order: list[Unit] = []
    seen: set[str] = set()
    for root in roots:
        if root.name in seen:
            continue
        seen.add(root.name)
        path = [(root, following(root))]
        while path:
            unit, rest = path[-1]
            for each in rest:
                if each.name not in seen:
                    seen.add(each.name)
                    path.append((each, following(each)))
                    break
            else:
                order.append(unit)
                path.pop()
    return order
