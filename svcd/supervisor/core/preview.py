"""What a change of configuration would do, step by step, without doing it.

Must not change anything, and must not decide what a change means: ``apply.read`` does, for the deed as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Final

from svcd.record import record
from svcd.supervisor.core import descent, edges, events, graph
from svcd.supervisor.core.apply import HAS_CHANGED, Change, read
from svcd.supervisor.core.spec import DependencyKind, OnCrash, ServiceSpec, StartMode
from svcd.supervisor.core.states import State
from svcd.supervisor.core.unit import Edge, Group, Unit
from svcd.supervisor.core.wishes import is_over

RETRIES: Final = frozenset({State.COMPLETED, State.BACKOFF})  # what a start by name does not leave as it is


GONE: Final = "no longer in the configuration"


class Verb(Enum):
    """What a change does to one service."""

    STOP = "stop"
    REMOVE = "remove"
    UPDATE = "update"  # adopted without a restart
    ADD = "add"
    START = "start"
    RESTART = "restart"


@record
class Step:
    verb: Verb
    service: str
    why: str


def preview(
    units: dict[str, Unit], missed: Mapping[str, Iterable[Unit]], event: events.ConfigurationApplied
) -> tuple[Step, ...]:
    """The steps of a change, in order: what ends, what takes effect as it is, what begins.

    Raises:
        CoreError: it cannot be applied
    """
    change = read(units, missed, event)
    down = list(_down(change, _Future(units, change)))
    going = {step.service for step in down}
    up = [step for step in _Rise(units, event, change).steps() if step.service not in going]
    moved = going | {step.service for step in up}
    updated = [unit.name for unit in change.changed if unit.name not in moved]
    still = [Step(Verb.UPDATE, name, "takes effect without a restart") for name in updated]
    added = [each.name for each in event.added if each.name not in moved]
    return (*down, *still, *up, *(Step(Verb.ADD, name, "new; not started by itself") for name in added))


# ---- what ends ----


class _Future:
    """The edges as they will be: those of changed services are read from their new specs."""

    def __init__(self, units: dict[str, Unit], change: Change) -> None:
        self._units = units
        self._changed = change.changed
        self._new: dict[str, list[Edge]] = {}
        for unit, each in change.changed.items():
            self._read(unit, each.spec)

    def _read(self, unit: Unit, spec: ServiceSpec) -> None:
        groups: dict[str | None, Group] = {}
        for each in spec.dependencies:
            if each.target not in self._units:
                continue  # it is new: nobody runs against it
            edge = Edge(unit, self._units[each.target], each)
            edges.join_group(edge, groups)
            self._new.setdefault(each.target, []).append(edge)

    def late(self) -> Iterator[Unit]:
        """What runs, and requires from now on what is about to stop."""
        for edge in (edge for found in self._new.values() for edge in found):
            run = edge.target.run
            if run is None or not (run.doomed and edges.relies(edge)) or edge.dependent.doomed:
                continue
            if run.from_outside or edge.spec.on_crash is OnCrash.RESTART:
                yield edge.dependent

    def incoming(self, unit: Unit) -> Iterator[Edge]:
        yield from (edge for edge in unit.incoming if edge.is_borrowed or edge.dependent not in self._changed)
        yield from self._new.get(unit.name, ())


def _down(change: Change, future: _Future) -> Iterator[Step]:
    named = [*change.removed, *change.restarted, *change.reloaded]
    late = list(future.late())
    going = graph.falling([*named, *late], future.incoming)
    ending = descent.with_children(going)
    children = (unit for unit in ending if unit.parent in ending)
    orphaned = dict.fromkeys(unit for unit in children if not (unit.removed or unit in change.removed))
    yield from (Step(Verb.REMOVE, unit.name, _orphaned(unit)) for unit in orphaned if unit not in going)
    for unit in graph.in_order_of_stopping(going, future.incoming):
        if unit in change.removed:
            verb = Verb.STOP if unit.run is not None else Verb.REMOVE
            yield Step(verb, unit.name, GONE)
        elif unit in orphaned:
            yield Step(Verb.STOP, unit.name, _orphaned(unit))
        elif unit in named:
            yield Step(Verb.RESTART, unit.name, HAS_CHANGED)
        elif unit in late:
            yield Step(Verb.RESTART, unit.name, "requires from now on what is about to stop")
        elif not unit.doomed:
            why = next(each.name for each in going if any(edge.dependent is unit for edge in future.incoming(each)))
            yield Step(Verb.RESTART, unit.name, f"requires {why}")


def _orphaned(unit: Unit) -> str:
    return f"a child of {unit.spec.parent}"


# ---- what begins ----


class _Rise:
    """What starts that did not run before, dependencies first."""

    def __init__(self, units: dict[str, Unit], event: events.ConfigurationApplied, change: Change) -> None:
        self._units = units
        self._change = change
        staying = (unit for unit in units.values() if not (unit.removed or unit in change.removed))
        self._specs = {unit.name: unit.newest for unit in staying}
        self._specs.update((each.name, each) for each in (*event.added, *(each.spec for each in event.changed)))
        eager = (each.name for each in event.added if each.start is StartMode.EAGER)
        self._named = dict.fromkeys((*eager, *event.start, *(unit.name for unit in change.woken)))

    def steps(self) -> Iterator[Step]:
        users: dict[str, str] = {}
        for name in self._order([*self._named, *self._needed(users)], users):
            if self._begins(name):
                yield Step(Verb.START, name, self._why(name, users))
        for unit in self._change.retried:
            yield Step(Verb.START, unit.name, HAS_CHANGED)

    def _needed(self, users: dict[str, str]) -> Iterator[str]:
        """What services that are up need from now on, and is not up."""
        for unit, each in self._change.changed.items():
            for name in self._pulled(each.spec) if unit.up else ():
                if name not in self._units or not self._units[name].up:
                    users.setdefault(name, unit.name)
                    yield name

    def _begins(self, name: str) -> bool:
        unit = self._units.get(name)
        if unit is None:
            return True
        if unit in self._change.retried or (unit.up and unit.again):
            return False  # told already; or about to run, once the rest of its update has ended
        return not unit.up or is_over(unit) or (name in self._named and unit.run is None and unit.state in RETRIES)

    def _why(self, name: str, users: dict[str, str]) -> str:
        if name in self._named:
            return "asked to run" if name in self._units else "new"
        needed = f"needed by {users[name]}"
        return needed if name in self._units else f"new, {needed}"

    def _order(self, roots: Iterable[str], users: dict[str, str]) -> list[str]:
        """The roots and what they need, dependencies first; who needs them is entered in ``users``."""
        order: list[str] = []
        seen: set[str] = set()
        for root in roots:
            path = [(root, self._pulled(self._specs[root]))] if root not in seen else []
            seen.add(root)
            while path:
                name, rest = path[-1]
                following = next((each for each in rest if each not in seen), None)
                if following is None:
                    order.append(name)
                    path.pop()
                    continue
                users.setdefault(following, name)
                seen.add(following)
                path.append((following, self._pulled(self._specs[following])))
        return order

    def _pulled(self, spec: ServiceSpec) -> Iterator[str]:
        """What starts with it: a wish for what was removed is void, and what was stopped by name stays down."""
        for each in spec.dependencies:
            if each.kind is not DependencyKind.AFTER and each.target in self._specs:
                unit = self._units.get(each.target)
                if unit is None or not unit.held_back:
                    yield each.target
