"""What an edge means now, and the flags and counts that say so, kept in place.

Must not change a unit's state: it says what an edge means, the machine acts on it.
"""

from __future__ import annotations

from typing import Final

from svcd.supervisor.core.spec import Condition
from svcd.supervisor.core.states import State
from svcd.supervisor.core.unit import Edge, Unit

ENDED_BY_ITSELF: Final = frozenset({State.COMPLETED, State.FAILED, State.UNAVAILABLE})
FALLBACK_LIMIT: Final = 8  # links of a chain of fallbacks that are followed
NOT_BEGUN: Final = frozenset({State.UNLOADED, State.STOPPED, State.WAITING})


# ---- the meaning ----


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
        return edge.hard and server is not target and _serves(server, condition)
    if condition is Condition.SPAWNED:
        return run.executed
    return _serves(target, condition)


def _serves(target: Unit, condition: Condition) -> bool:
    is_well = condition is not Condition.HEALTHY or target.spec.health is None or target.healthy is True
    return target.serving and is_well


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


# ---- the flags ----


def refresh(edge: Edge) -> bool:
    """Bring ``blocked``, ``dead`` and ``serves`` up to date, and the dependent's sets with them; returns whether the
    dependent may have to know.
    """
    if edge.is_borrowed:
        return False
    blocked, dead = assess(edge)
    changed = (blocked, dead) != (edge.blocked, edge.dead)
    serves = edge.target.serving
    group = edge.group
    if group is not None:
        group.blocked += blocked - edge.blocked
        group.dead += dead - edge.dead
        group.serving += serves - edge.serves
    edge.blocked, edge.dead, edge.serves = blocked, dead, serves
    return _refresh_sets(edge) or changed


def _refresh_sets(edge: Edge) -> bool:
    """An edge blocks its dependent if all of its group are blocked."""
    unit, group = edge.dependent, edge.group
    if group is None:
        return _enter(unit.blockers, edge, edge.blocked) | _enter(unit.dead, edge, edge.dead)
    blocked, dead = group.blocked == len(group.edges), group.dead == len(group.edges)
    if (edge in unit.blockers, edge in unit.dead) == (blocked, dead):
        return False  # and so it is for those beside it
    for each in group.edges:
        _enter(unit.blockers, each, blocked)
        _enter(unit.dead, each, dead)
    return True


def refresh_hold(edge: Edge) -> bool:
    """Bring ``holds`` up to date, and the target's count with it; returns whether it changed."""
    holding = holds(edge)
    if holding == edge.holds:
        return False
    edge.holds = holding
    edge.target.holders += 1 if holding else -1
    return True


def refresh_cover(unit: Unit) -> bool:
    """Bring up to date whether this unit's fallback is called for; returns whether that has changed."""
    fallback, calls = unit.fallback, unit.up and unit.given_up
    if fallback is None or (unit in fallback.bereft) == calls:
        return False
    if calls:
        fallback.bereft[unit] = None
    else:
        del fallback.bereft[unit]
    return True


def leave_group(edge: Edge) -> None:
    """This edge is no longer one of several."""
    group, edge.group = edge.group, None
    if group is None:
        return
    del group.edges[edge]
    group.blocked -= edge.blocked
    group.dead -= edge.dead
    group.serving -= edge.serves
    beside = next(iter(group.edges), None)
    if beside is not None:
        _refresh_sets(beside)


def served_by(unit: Unit) -> list[Unit]:
    """Itself, and every unit that it may serve in the place of, be it through another fallback."""
    found: dict[Unit, None] = {unit: None}
    pending = [unit]
    while pending:
        for each in pending.pop().bereft:
            if each not in found:
                found[each] = None
                pending.append(each)
    return list(found)


def _enter(edges: dict[Edge, None], edge: Edge, inside: bool) -> bool:
    if (edge in edges) == inside:
        return False
    if inside:
        edges[edge] = None
    else:
        del edges[edge]
    return True
