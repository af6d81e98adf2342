"""The dependency graph: edges between units, kept in place as services come and go; order, closure and cycles.

Must not change a unit's state: it says what an edge means, the machine acts on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from svcd.supervisor.core.errors import DependencyCycle, DuplicateService, UnknownDependency
from svcd.supervisor.core.spec import Condition, DependencyKind, ServiceSpec
from svcd.supervisor.core.states import State
from svcd.supervisor.core.unit import Edge, Unit

ENDED_BY_ITSELF: Final = frozenset({State.COMPLETED, State.FAILED, State.UNAVAILABLE})
NOT_BEGUN: Final = frozenset({State.UNLOADED, State.STOPPED, State.WAITING})

NeighboursOf = Callable[[Unit], Iterator[Unit]]


# ---- what an edge means ----


def is_met(edge: Edge) -> bool:
    """Whether the target's present run is what the dependent's start needs."""
    target, condition = edge.target, edge.spec.condition
    if target.state is State.COMPLETED:
        return edge.met_by_completion
    if condition is Condition.COMPLETED or (target.is_task and condition is not Condition.SPAWNED):
        return False
    run = target.run
    if run is None or run.doomed:
        return False
    return run.executed if condition is Condition.SPAWNED else target.state is State.RUNNING


def is_coming(target: Unit) -> bool:
    """Whether the target is on its way to something better than what it is now."""
    if not target.up or target.stuck:
        return False
    run = target.run
    if run is None:
        return target.again or target.state in NOT_BEGUN
    return run.from_outside or not run.doomed


def assess(edge: Edge) -> tuple[bool, bool]:
    """(blocked, dead) as of now."""
    if is_met(edge):
        return False, False
    target = edge.target
    if edge.hard:
        over = target.state in ENDED_BY_ITSELF and not target.again
        return True, target.stuck or not target.up or over
    return is_coming(target) and not target.stumbled, False


def holds(edge: Edge) -> bool:
    """Whether the target's stop waits for this dependent: always if it requires it, else if it goes down as well."""
    run = edge.dependent.run
    return run is not None and (edge.hard or run.doomed)


# ---- coming and going ----


def check(units: Mapping[str, Unit], specs: Iterable[ServiceSpec]) -> None:
    """Raise for the first thing that makes this batch impossible.

    Raises:
        DuplicateService, UnknownDependency, DependencyCycle
    """
    batch: dict[str, ServiceSpec] = {}
    for spec in specs:
        if spec.name in units or spec.name in batch:
            raise DuplicateService(spec.name)
        batch[spec.name] = spec
    for spec in batch.values():
        for dependency in spec.dependencies:
            if dependency.target not in batch and dependency.target not in units:
                raise UnknownDependency(spec.name, dependency.target)
    path = find_cycle({name: [each.target for each in spec.dependencies] for name, spec in batch.items()})
    if path is not None:
        raise DependencyCycle(path)


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
    """Make the edges of a unit that is new; its targets are units already."""
    for dependency in unit.spec.dependencies:
        edge = Edge(unit, units[dependency.target], dependency)
        unit.outgoing.append(edge)
        edge.target.incoming[edge] = None
        edge.blocked, edge.dead = assess(edge)
        if edge.blocked:
            unit.blockers[edge] = None
        if edge.dead:
            unit.dead[edge] = None


def disconnect(unit: Unit) -> None:
    """Take a unit out. It has no process; whoever still depends on it does so softly, and no longer."""
    for edge in unit.outgoing:
        del edge.target.incoming[edge]
    for edge in unit.incoming:
        edge.dependent.outgoing.remove(edge)
        edge.dependent.blockers.pop(edge, None)
        edge.dependent.dead.pop(edge, None)


# ---- order ----


def closure(roots: Iterable[Unit]) -> list[Unit]:
    """The roots and all that they require or want, dependencies before dependents."""

    def targets(unit: Unit) -> Iterator[Unit]:
        return (edge.target for edge in unit.outgoing if edge.spec.kind is not DependencyKind.AFTER)

    return _post_order(roots, targets)


def stop_order(roots: Iterable[Unit]) -> list[Unit]:
    """The roots and all that must end before them because it requires them, dependents before dependencies."""

    def dependents(unit: Unit) -> Iterator[Unit]:
        if unit.run is None:
            return iter(())
        return (edge.dependent for edge in unit.incoming if edge.hard and edge.dependent.run is not None)

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
