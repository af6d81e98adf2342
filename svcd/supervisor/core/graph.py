"""The dependency graph: edges between units, kept in place as services come and go; order, closure and cycles.

Must not change a unit's state: it says what an edge means, the machine acts on it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final

from svcd.supervisor.core.errors import DependencyCycle, DuplicateService, StillRequired, UnknownDependency
from svcd.supervisor.core.spec import Condition, Dependency, DependencyKind, ServiceSpec
from svcd.supervisor.core.states import State
from svcd.supervisor.core.unit import Edge, Unit

ENDED_BY_ITSELF: Final = frozenset({State.COMPLETED, State.FAILED, State.UNAVAILABLE})
FALLBACK_LIMIT: Final = 8  # links of a chain of fallbacks that are followed
NOT_BEGUN: Final = frozenset({State.UNLOADED, State.STOPPED, State.WAITING})

NeighboursOf = Callable[[Unit], Iterator[Unit]]


# ---- what an edge means ----


def is_met(edge: Edge) -> bool:
    """Whether the target's present run, or its fallback's, is what the dependent's start needs."""
    target, condition = edge.target, edge.spec.condition
    if target.state is State.COMPLETED:
        return edge.met_by_completion
    if condition is Condition.COMPLETED or (target.is_task and condition is not Condition.SPAWNED):
        return False
    run = target.run
    if run is None or run.doomed:
        server = server_of(target)
        return edge.hard and server is not target and server.serving
    if condition is Condition.SPAWNED:
        return run.executed
    return target.state is State.RUNNING and (
        condition is not Condition.HEALTHY or target.spec.health is None or run.healthy is True
    )


def server_of(target: Unit) -> Unit:
    """Who is to serve what ``target`` does: itself, or its fallback while it is out, or that one's."""
    for _ in range(FALLBACK_LIMIT):
        if not target.is_out or target.fallback is None:
            break
        target = target.fallback
    return target


def is_coming(target: Unit) -> bool:
    """Whether the target is on its way to something better than what it is now."""
    if not target.up or target.stuck:
        return False
    run = target.run
    if run is None:
        return target.again or target.state in NOT_BEGUN
    return run.from_outside or not run.doomed


def assess(edge: Edge) -> tuple[bool, bool]:
    """(blocked, dead) as of now, of this edge alone."""
    if is_met(edge):
        return False, False
    target = edge.target
    if edge.hard:
        if target.is_out and target.fallback is not None:
            target = server_of(target)
        over = target.state in ENDED_BY_ITSELF and not target.again
        return True, target.stuck or not target.up or over or (target.state is State.PAUSED and not target.doomed)
    return is_coming(target) and not target.stumbled, False


def holds(edge: Edge) -> bool:
    """Whether the target's stop waits for this dependent: always if it requires it, else if it goes down as well."""
    run = edge.dependent.run
    if run is None or run.held:
        return False
    return run.doomed or (edge.hard and not edge.spared)


def relies(edge: Edge) -> bool:
    """Whether the end of the target's run is the end of the dependent's."""
    return edge.hard and edge.dependent.leaning and not edge.spared


# ---- coming and going ----


def check(
    units: Mapping[str, Unit],
    specs: Iterable[ServiceSpec],
    replaced: Collection[str] = (),
    removed: Collection[str] = (),
) -> None:
    """Raise for the first thing that makes this change impossible. Names in ``replaced`` may be registered already.

    Raises:
        DuplicateService, UnknownDependency, StillRequired, DependencyCycle
    """
    batch: dict[str, ServiceSpec] = {}
    for spec in specs:
        if spec.name in batch or (spec.name in units and spec.name not in replaced):
            raise DuplicateService(spec.name)
        batch[spec.name] = spec
    staying = {name: unit.newest for name, unit in units.items() if name not in removed} if replaced or removed else {}
    final = {**staying, **batch}
    known = final if removed else {*units, *final}
    for name in removed:
        others = [each.name for each in final.values() if _requires(each, name)]
        if others:
            raise StillRequired(name, others)
    for spec in batch.values():
        for target in (*(each.target for each in spec.dependencies), *filter(None, [spec.fallback])):
            if target not in known:
                raise UnknownDependency(spec.name, target)
    path = find_cycle(_targets(final, units))
    if path is not None:
        raise DependencyCycle(path)


def _requires(spec: ServiceSpec, name: str) -> bool:
    hard = (each.target for each in spec.dependencies if each.kind is DependencyKind.REQUIRES)
    return name == spec.fallback or name in hard


def _targets(specs: Mapping[str, ServiceSpec], units: Mapping[str, Unit]) -> dict[str, list[str]]:
    """Name -> what it may have to wait for: what it depends on, and what stands in for that."""

    def fallback(name: str) -> str | None:
        spec = specs.get(name) or (units[name].newest if name in units else None)
        return None if spec is None else spec.fallback

    targets: dict[str, list[str]] = {}
    for name, spec in specs.items():
        found = [each.target for each in spec.dependencies]
        stand_ins = (fallback(each.target) for each in spec.dependencies if each.kind is DependencyKind.REQUIRES)
        targets[name] = [*found, *filter(None, stand_ins), *filter(None, [spec.fallback])]
    return targets


def find_cycle(targets: Mapping[str, Iterable[str]]) -> tuple[str, ...] | None:
    """A path that ends where it begins, or None. Names that are no key lead nowhere: what is registered already
    cannot depend on what is new.
    """
    done: set[str] = set()
    for start in targets:
        path: dict[str, Iterator[str]] = {}
        name: str | None = start
        while name is not None or path:
            if name is not None and name not in done:
                path[name] = iter(targets[name])
            name = None
            if not path:
                break
            here = next(reversed(path))
            for target in path[here]:
                if target in path:
                    names = list(path)
                    return (*names[names.index(target) :], target)
                if target in targets and target not in done:
                    name = target
                    break
            else:
                done.add(here)
                del path[here]
    return None


def connect(units: Mapping[str, Unit], unit: Unit) -> None:
    """Make the edges of a unit that has none; its targets are units already."""
    connect_to(units, unit, unit.spec)


def connect_to(units: Mapping[str, Unit], unit: Unit, spec: ServiceSpec) -> None:
    """Make the edges that ``spec`` names."""
    groups: dict[str, list[Edge]] = {}
    made = [Edge(unit, units[each.target], each) for each in spec.dependencies]
    for edge in made:
        unit.outgoing.append(edge)
        edge.target.incoming[edge] = None
        if edge.spec.group is not None:
            groups.setdefault(edge.spec.group, []).append(edge)
    for group in groups.values():
        for edge in group:
            edge.siblings = tuple(group)
    for edge in made:
        refresh(edge)
        refresh_hold(edge)
    if spec.fallback is not None:
        unit.fallback = units[spec.fallback]
        unit.fallback.covers[unit] = None


def borrow(dependent: Unit, target: Unit, spec: Dependency) -> Edge:
    """One more edge, which ``give_back`` takes away again. It holds the target, but blocks nobody: it is for a run that
    has begun.
    """
    edge = Edge(dependent, target, spec)
    dependent.outgoing.append(edge)
    target.incoming[edge] = None
    refresh_hold(edge)
    return edge


def cut(edge: Edge) -> None:
    """Take one edge away."""
    edge.dependent.outgoing.remove(edge)
    del edge.target.incoming[edge]
    edge.dependent.blockers.pop(edge, None)
    edge.dependent.dead.pop(edge, None)
    if edge.holds:
        edge.target.holders -= 1


def disconnect(unit: Unit) -> None:
    """Take a unit's own edges away: what it depends on, and its fallback."""
    for edge in list(unit.outgoing):
        cut(edge)
    if unit.fallback is not None:
        unit.fallback.covers.pop(unit, None)
        unit.fallback = None


def isolate(unit: Unit) -> None:
    """Take a unit out. It has no process; whoever still depends on it does so no longer."""
    disconnect(unit)
    for edge in list(unit.incoming):
        cut(edge)
    for covered in list(unit.covers):
        covered.fallback = None
    unit.covers.clear()


def refresh(edge: Edge) -> bool:
    """Bring ``blocked`` and ``dead`` up to date, and the dependent's sets with them; returns whether they changed."""
    found = assess(edge)
    changed = found != (edge.blocked, edge.dead)
    edge.blocked, edge.dead = found
    group = edge.siblings or (edge,)
    blocked, dead = all(each.blocked for each in group), all(each.dead for each in group)
    for each in group:
        changed |= _enter(edge.dependent.blockers, each, blocked) | _enter(edge.dependent.dead, each, dead)
    return changed


def refresh_hold(edge: Edge) -> bool:
    """Bring ``holds`` up to date, and the target's count with it; returns whether it changed."""
    holding = holds(edge)
    if holding == edge.holds:
        return False
    edge.holds = holding
    edge.target.holders += 1 if holding else -1
    return True


def _enter(edges: dict[Edge, None], edge: Edge, inside: bool) -> bool:
    if (edge in edges) == inside:
        return False
    if inside:
        edges[edge] = None
    else:
        del edges[edge]
    return True


# ---- order ----


def closure(roots: Iterable[Unit]) -> list[Unit]:
    """The roots and all that they require or want, dependencies before dependents."""

    def targets(unit: Unit) -> Iterator[Unit]:
        return (edge.target for edge in unit.outgoing if edge.spec.kind is not DependencyKind.AFTER)

    return _post_order(roots, targets)


def stop_order(roots: Iterable[Unit]) -> list[Unit]:
    """The roots and all that must end before them because it requires them, dependents before dependencies."""
    roots = list(roots)
    going = set(roots)

    def spared(edge: Edge) -> bool:
        return any(each.target.serving and each.target not in going for each in edge.siblings if each is not edge)

    def dependents(unit: Unit) -> Iterator[Unit]:
        edges = (*(unit.incoming if unit.run is not None else ()), *unit.stood_in)
        return (edge.dependent for edge in edges if edge.hard and edge.dependent.leaning and not spared(edge))

    return _post_order(roots, dependents)


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
