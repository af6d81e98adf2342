"""What is refused before anything changes: a name twice, a target that is not there, a circle, a removal of what is
required.

Must not change anything: it looks at specs, those in force and those to come.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from svcd.supervisor.core import descent
from svcd.supervisor.core.errors import (
    BeingRemoved,
    DependencyCycle,
    DuplicateService,
    OfItsParent,
    StillRequired,
    UnknownDependency,
    UnknownService,
)
from svcd.supervisor.core.spec import DependencyKind, ServiceSpec
from svcd.supervisor.core.unit import Unit


def check(
    units: Mapping[str, Unit],
    specs: Iterable[ServiceSpec],
    replaced: Collection[str] = (),
    removed: Collection[str] = (),
    missed: Mapping[str, Iterable[Unit]] | None = None,
) -> None:
    """Raise for the first thing that makes this change impossible. Names in ``replaced`` may be registered already;
    services that are registered already depend on those in ``missed`` as soon as they are there. What is removed takes
    its children along.

    Raises:
        UnknownService, BeingRemoved, DuplicateService, UnknownDependency, StillRequired, DependencyCycle, OfItsParent,
        and for children what ``descent.check`` raises
    """
    missed = missed or {}
    for name in (*replaced, *removed):
        if name not in units:
            raise UnknownService(name)
        if units[name].removed:
            raise BeingRemoved(name)
    for name in replaced:
        if (parent := units[name].spec.parent) is not None:
            raise OfItsParent(name, parent)
    batch = _batch(units, specs, replaced)
    gone = frozenset(each.name for each in descent.with_children(units[name] for name in removed))
    changes_others = bool(replaced or removed) or any(name in missed for name in batch)
    staying = {name: unit.newest for name, unit in units.items() if _stays(unit, gone)} if changes_others else {}
    final = {**staying, **batch}
    for name in removed:
        others = [each.name for each in final.values() if _requires(each, name)]
        if others:
            raise StillRequired(name, others)
    for spec in batch.values():
        for target in (*(each.target for each in spec.dependencies), *filter(None, [spec.fallback])):
            if target not in final and (target not in units or not _stays(units[target], gone)):
                raise UnknownDependency(spec.name, target)
    for spec in batch.values():
        descent.check(units, spec, missed.get(spec.name, ()))
    path = find_cycle(_targets(final, units))
    if path is not None:
        raise DependencyCycle(path)


def _stays(unit: Unit, removed: Collection[str]) -> bool:
    return not unit.removed and unit.name not in removed


def _batch(
    units: Mapping[str, Unit], specs: Iterable[ServiceSpec], replaced: Collection[str]
) -> dict[str, ServiceSpec]:
    batch: dict[str, ServiceSpec] = {}
    for spec in specs:
        if spec.name in units and units[spec.name].removed:
            raise BeingRemoved(spec.name)
        if spec.name in batch or (spec.name in units and spec.name not in replaced):
            raise DuplicateService(spec.name)
        batch[spec.name] = spec
    return batch


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
