"""Who is whose child: what may become one, and who goes when another goes.

Must not change anything: it looks at units and specs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from svcd.supervisor.core.errors import DuplicateService, OutOfReach, ParentNotRunning, TooDeep
from svcd.supervisor.core.spec import ServiceSpec
from svcd.supervisor.core.unit import Unit

MAX_DEPTH: Final = 4  # children, theirs, and so on


def with_children(units: Iterable[Unit]) -> dict[Unit, None]:
    """These, and all that go with them because they are their children, or children of those."""
    found: dict[Unit, None] = {}
    pending = list(units)
    while pending:
        unit = pending.pop()
        if unit not in found:
            found[unit] = None
            pending.extend(unit.children)
    return found


def lineage(unit: Unit | None) -> Iterator[Unit]:
    """The unit, its parent, and so on."""
    while unit is not None:
        yield unit
        unit = unit.parent


def check(units: Mapping[str, Unit], spec: ServiceSpec, named_by: Iterable[Unit]) -> None:
    """Raise for a child that cannot be, and for a service that cannot depend on a child as it does. ``named_by``:
    services that will depend on this one as soon as it is there.

    Raises:
        ParentNotRunning, TooDeep, OutOfReach, DuplicateService
    """
    ancestors: list[Unit] = []
    if spec.parent is not None:
        parent = units.get(spec.parent)
        if parent is None or parent.removed or not parent.may_have_children:
            raise ParentNotRunning(spec.name, spec.parent)
        ancestors = list(lineage(parent))
        if len(ancestors) > MAX_DEPTH:
            raise TooDeep(spec.name, MAX_DEPTH)
        if not all(parent in lineage(each) for each in named_by):
            raise DuplicateService(spec.name)
    for target in (*(each.target for each in spec.dependencies), *filter(None, [spec.fallback])):
        unit = units.get(target)
        if unit is not None and unit.parent is not None and unit.parent not in ancestors:
            raise OutOfReach(spec.name, target, unit.parent.name)
