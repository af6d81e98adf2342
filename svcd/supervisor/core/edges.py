"""What an edge means now, and the flags and counts that say so, kept in place.

Must not change a unit's state: it says what an edge means, the machine acts on it.
"""

from __future__ import annotations

from typing import Final

from svcd.supervisor.core.spec import Condition
from svcd.supervisor.core.states import State
from svcd.supervisor.core.unit import Edge, Group, Unit

ENDED_BY_ITSELF: Final = frozenset({State.COMPLETED, State.FAILED, State.UNAVAILABLE})
FALLBACK_LIMIT: Final = 8  # links of a chain of fallbacks that are followed
NOT_BEGUN: Final = frozenset({State.UNLOADED, State.STOPPED, State.WAITING})


# ---- the meaning ----


def is_met(edge: Edge) -> bool:
    """Whether the target, or its fallback, is what the dependent's start needs."""
    if stands(edge):
        return True
    server = server_for(edge)
    return server is not edge.target and _serves(server, edge.spec.condition)


def stands(edge: Edge) -> bool:
    """Whether the target itself is what the dependent needs."""
    target, condition = edge.target, edge.spec.condition
    if target.state is State.COMPLETED:
        return edge.met_by_completion
    run = target.run
    if edge.needs_completion or run is None or run.doomed:
        return False
    return run.executed if condition is Condition.SPAWNED else _serves(target, condition)


def _serves(target: Unit, condition: Condition) -> bool:
    is_well = condition is not Condition.HEALTHY or target.spec.health is None or target.healthy is True
    return target.serving and is_well


def server_for(edge: Edge) -> Unit:
    """Who is to serve what the target does: itself, or its fallback while it is out, or that one's. Nobody completes
    work in the place of another, nor is another the parent of a child.
    """
    target = edge.target
    if not edge.hard or edge.needs_completion or edge.leads_to_parent:
        return target
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
    is_idle = target.state is State.PAUSED or run.healthy is False
    return run.from_outside or not (run.doomed or is_idle)


def assess(edge: Edge) -> tuple[bool, bool]:
    """(blocked, dead) as of now, of this edge alone."""
    if is_met(edge):
        return False, False
    target = edge.target
    if edge.hard:
        target = server_for(edge)
        over = target.state in ENDED_BY_ITSELF and not target.again
        return True, target.stuck or not target.up or over or (target.state is State.PAUSED and not target.doomed)
    return is_coming(target) and not target.stumbled, False


def holds(edge: Edge) -> bool:
    """Whether the target's stop waits for this dependent: always if it requires it, else if it goes down as well."""
    run = edge.dependent.run
    if run is None or run.held:
        return False
    return run.doomed or (edge.hard and not is_spared(edge))


def relies(edge: Edge) -> bool:
    """Whether the end of the target's run is the end of the dependent's."""
    return edge.hard and edge.dependent.leaning and not is_spared(edge)


def is_spared(edge: Edge) -> bool:
    """Whether the dependent does without this target: for another instance of the same service, or for its fallback."""
    if is_lent(edge):
        return True
    return edge.group is not None and any(carries(each) for each in edge.group.edges if each is not edge)


def carries(edge: Edge) -> bool:
    """Whether the dependent has by this edge what it needs: the target itself, or who stands in for it in this run."""
    return stands(edge) or is_lent(edge)


def is_lent(edge: Edge) -> bool:
    """Whether the dependent's run relies on the fallback of the target."""
    run = edge.dependent.run
    return run is not None and any(each.instead_of is edge.target for each in run.borrowed)


# ---- the flags ----


def refresh(edge: Edge) -> bool:
    """Bring ``blocked``, ``dead`` and ``stands`` up to date, and the dependent's sets with them; returns whether the
    dependent may have to know.
    """
    if edge.is_borrowed:
        return False
    blocked, dead = assess(edge)
    changed = (blocked, dead) != (edge.blocked, edge.dead)
    standing = stands(edge)
    group = edge.group
    if group is not None:
        group.blocked += blocked - edge.blocked
        group.dead += dead - edge.dead
        group.standing += standing - edge.stands
    edge.blocked, edge.dead, edge.stands = blocked, dead, standing
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


def join_group(edge: Edge, groups: dict[str | None, Group]) -> None:
    """This edge is one of several of which any one is enough, if its spec says so. ``groups``: its dependent's."""
    if edge.spec.group is not None:
        edge.group = groups.setdefault(edge.spec.group, Group())
        edge.group.edges[edge] = None


def leave_group(edge: Edge) -> None:
    """This edge is no longer one of several."""
    group, edge.group = edge.group, None
    if group is None:
        return
    del group.edges[edge]
    group.blocked -= edge.blocked
    group.dead -= edge.dead
    group.standing -= edge.stands
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
