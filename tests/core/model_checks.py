"""What must hold after every event, and when all is at rest; each with its converse.

Must not change anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from model_shell import CONDEMNED
from model_world import ModelWorld

from svcd.supervisor.core import edges
from svcd.supervisor.core import events as ev
from svcd.supervisor.core.cluster import is_moving
from svcd.supervisor.core.preview import Step, Verb
from svcd.supervisor.core.spec import DependencyKind, Hook, OnCrash, StartMode
from svcd.supervisor.core.states import WITH_PROCESS, State
from svcd.supervisor.core.transitions import IN_START
from svcd.supervisor.core.unit import Edge, Run, Unit

GOOD: Final = (State.RUNNING, State.PAUSED, State.COMPLETED)
OVER: Final = (State.FAILED, State.UNAVAILABLE, State.COMPLETED, State.BACKOFF)


def units(world: ModelWorld) -> Iterable[Unit]:
    return world.machine._cluster.units.values()


# ---- after every event ----


def views_agree_with_the_world(world: ModelWorld) -> None:
    for name, view in world.machine.services.items():
        process = world.processes.get(name)
        lives = process is not None and process.lives
        is_hooked = any(each.service == name and each.invocation == view.invocation for each in world.hooks)
        assert view.state is world.states[name]
        assert (view.state in WITH_PROCESS) == (lives or (is_hooked and world.unit(name).run is not None))
        assert view.pid == (process.pid if process is not None else None)
        assert view.cause
        story = world.machine.story(name)
        assert not story or story[-1].new is view.state


def timers_fit_the_states(world: ModelWorld) -> None:
    for unit in units(world):
        armed = {kind for service, kind in world.timers if service == unit.name} - {ev.TimerKind.UPDATE}
        assert ((unit.name, ev.TimerKind.UPDATE) in world.timers) <= unit.updating
        assert armed == unit.timers
        assert (unit.state is State.BACKOFF) == (ev.TimerKind.RESTART in armed)
        assert ev.TimerKind.HOOK not in armed or (unit.run is not None and unit.run.hook is not None)
        wanted = set() if unit.run is None else _timers_of(unit, unit.run)
        assert armed - {ev.TimerKind.RESTART, ev.TimerKind.HOOK} == wanted, (unit.name, unit.run, armed)


def _timers_of(unit: Unit, run: Run) -> set[ev.TimerKind]:
    if unit.state in IN_START:
        is_held = run.held and unit.state is not State.LOADING
        is_ready = run.hook is not None or Hook.POST_START in run.hooks_done or not run.spawned
        return set() if run.overdue or is_held or is_ready else {ev.TimerKind.READY}
    if unit.state is State.DRAINING:
        return {ev.TimerKind.DRAIN}
    if unit.state is State.STOPPING:
        is_free = run.killed or run.hook in (Hook.PRE_STOP, Hook.POST_STOP) or not run.spawned
        return set() if is_free else {ev.TimerKind.LEFTOVERS if run.leftovers else ev.TimerKind.STOP}
    is_watched = unit.state is State.RUNNING and unit.spec.watchdog_s is not None and not run.killed
    return {ev.TimerKind.WATCHDOG} if is_watched else set()


def what_is_watched_is_what_runs(world: ModelWorld) -> None:
    for process in world.processes.values():
        unit = world.unit(process.service)
        is_checked = process.alive and unit.state is State.RUNNING and unit.spec.health is not None
        assert process.is_checked == is_checked


def what_may_start_has_started(world: ModelWorld) -> None:
    """The converse of "no dependent is spawned too early": nobody waits without a reason."""
    starting = world.machine._cluster.starting
    is_free = not world.max_parallel or len(starting) < world.max_parallel
    for unit in units(world):
        is_asleep = unit.state in (State.UNLOADED, State.STOPPED) and not unit.updating
        assert not (unit.up and is_asleep), "asked to run, and nothing happens"
        if unit.state is State.WAITING and not unit.updating:
            assert unit.up or unit.preload
            may_start = (
                (is_free or unit.parent is not None) and not unit.children and (not unit.up or _may_start(world, unit))
            )
            assert not may_start, f"{unit.name} could start"


def _may_start(world: ModelWorld, unit: Unit) -> bool:
    for each in world.newest[unit.name].dependencies:
        if each.target not in world.newest:
            continue
        target = world.unit(each.target)
        if each.kind is not DependencyKind.REQUIRES:
            if target.up and not (world.is_ready(each) and not target.doomed):
                return False
        elif each.group is not None:
            one_of = [one for one in world.newest[unit.name].dependencies if one.group == each.group]
            if not any(world.is_ready(one) and not world.unit(one.target).doomed for one in one_of):
                return False
        elif not world.is_met(unit.name, each) or target.doomed or (target.fallback is not None and target.up):
            return False  # with a fallback: too much to tell here
    return True


def turns_are_kept(world: ModelWorld) -> None:
    if world.max_parallel:
        counted = [each for each in units(world) if each.state in IN_START and not (_is_parked(each) or each.parent)]
        assert len(counted) <= world.max_parallel


def _is_parked(unit: Unit) -> bool:
    return unit.run is not None and unit.run.held and unit.state is not State.LOADING


def the_books_are_right(world: ModelWorld) -> None:
    """Every flag and counter that is kept in place equals what a walk over everything would find."""
    cluster = world.machine._cluster
    for unit in units(world):
        own = [edge for edge in unit.outgoing if not edge.is_borrowed]
        for edge in own:
            assert (edge.blocked, edge.dead) == edges.assess(edge)
            assert edge.stands == edges.stands(edge)
            _check_group(edge)
        assert all(edge.holds == edges.holds(edge) for edge in unit.outgoing)
        assert set(unit.blockers) == {edge for edge in own if all(each.blocked for each in _beside(edge))}
        assert set(unit.dead) == {edge for edge in own if all(each.dead for each in _beside(edge))}
        assert unit.holders == sum(edge.holds for edge in unit.incoming)
        waits = unit.state is State.WAITING or (unit.run is not None and unit.run.held)
        assert unit.stuck == (waits and unit.up and bool(unit.dead))
        assert (unit.name in cluster.moving) == is_moving(unit)
        assert (unit.name in cluster.queue) <= (waits and (not unit.blockers or not unit.up))
        assert (unit.name in cluster.starting) <= (unit.run is not None)
    assert cluster.live == sum((unit.run is not None) + unit.updating for unit in units(world))


def _beside(edge: Edge) -> Iterable[Edge]:
    return (edge,) if edge.group is None else edge.group.edges


def _check_group(edge: Edge) -> None:
    group = edge.group
    if group is not None:
        assert edge in group.edges
        assert group.blocked == sum(each.blocked for each in group.edges)
        assert group.dead == sum(each.dead for each in group.edges)
        assert group.standing == sum(each.stands for each in group.edges)


def whoever_is_to_end_knows(world: ModelWorld) -> None:
    """The converse of the stop order: a run that is to end, and that nobody holds, has been told."""
    for unit in units(world):
        run = unit.run
        if run is None or run.exited:
            continue
        assert unit.up or run.mark is not None or run.held
        if run.mark is not None:
            assert run.told or unit.holders or run.killed


def whoever_relies_on_what_ends_ends(world: ModelWorld) -> None:
    """Crashes and stops reach everybody who relies on the run, and nobody else goes for them."""
    for unit in units(world):
        for edge in unit.outgoing:
            run = edge.target.run
            if not edges.relies(edge) or run is None or not run.doomed:
                continue
            is_condemned = edge.target.cause.startswith(CONDEMNED)  # or crashed: a request since then changes nothing
            is_told_to = (
                run.from_outside and not (is_condemned or run.exited)
            ) or edge.spec.on_crash is OnCrash.RESTART
            is_told_to &= edge.lost_invocation != run.invocation or edge.spec.on_crash is OnCrash.RESTART
            succeeds = edge.met_by_completion and (run.exited or not run.from_outside)
            assert unit.doomed or not is_told_to or succeeds, f"{unit.name} lost {edge.target.name}, and stays"


def fallbacks_stand_in(world: ModelWorld) -> None:
    is_ending = world.machine.is_ending
    for unit in units(world):
        fallback = unit.fallback
        if fallback is not None:
            assert unit in fallback.covers
            assert (unit in fallback.bereft) == (unit.up and unit.given_up)
            if unit.up and unit.given_up and not (is_ending or fallback.held_back):
                assert fallback.up, f"{unit.name} is given up, and {fallback.name} does not stand in"
        assert unit.up or not unit.standing_in
        if unit.standing_in and not (unit.updating and unit.run is None):  # what is left of its update ends first
            assert unit.bereft or any(edge.is_borrowed for edge in unit.incoming), f"{unit.name} stands in for nobody"
        assert set(unit.stood_in) == {
            edge for other in units(world) for edge in other.outgoing if edge.instead_of is unit
        }
        assert unit.run is not None or not any(edge.is_borrowed for edge in unit.outgoing)


def children_go_with_their_parents(world: ModelWorld) -> None:
    """No child is there without the run that has created it, unless it is on its way out; and the converse: no child is
    on its way out while that run goes on, unless its parent wanted it.
    """
    for unit in units(world):
        assert (unit.parent is None) == (unit.spec.parent is None)
        assert all(child.parent is unit for child in unit.children)
        if unit.parent is None:
            continue
        assert unit in unit.parent.children
        goes_on = unit.parent.may_have_children and unit.parent.invocation == world.made_by[unit.name]
        assert goes_on or unit.removed, f"{unit.name} outlives its parent"
        assert not (goes_on and unit.removed) or unit.name in world.dismissed
        assert unit.removed or not unit.parent.removed


def demand_is_awaited(world: ModelWorld) -> None:
    for unit in units(world):
        rests = unit.state is State.COMPLETED if unit.up else unit.state in (State.UNLOADED, State.STOPPED)
        is_open = not (unit.held_back or unit.removed or unit.updating or world.machine.is_ending)
        assert (unit.name in world.listening) == (unit.spec.start is StartMode.ON_DEMAND and rests and is_open)


def who_is_beside_belongs_to_an_update(world: ModelWorld) -> None:
    """No successor without an update, no update without somebody beside."""
    assert {unit.name for unit in units(world) if unit.updating} == set(world.beside)


def transactions_end_when_all_rest(world: ModelWorld) -> None:
    for each in world.machine.changes(256):
        assert each.is_open == bool(each.moving)
        assert set(each.services) >= {step.service for step in each.steps}
        for name in each.moving:
            assert world.unit(name).transaction is each
            assert is_moving(world.unit(name))


def requests_are_open_or_answered(world: ModelWorld) -> None:
    assert world.machine.open_requests == len(set(world.asked) - set(world.answers) - world.abandoned)


ALWAYS: Final[tuple[Callable[[ModelWorld], None], ...]] = (
    views_agree_with_the_world,
    timers_fit_the_states,
    what_is_watched_is_what_runs,
    what_may_start_has_started,
    turns_are_kept,
    the_books_are_right,
    whoever_is_to_end_knows,
    whoever_relies_on_what_ends_ends,
    fallbacks_stand_in,
    children_go_with_their_parents,
    demand_is_awaited,
    who_is_beside_belongs_to_an_update,
    transactions_end_when_all_rest,
    requests_are_open_or_answered,
)


# ---- at rest ----


def check_rest(world: ModelWorld) -> None:
    assert set(world.answers) | world.abandoned >= set(world.asked), f"no answer: {_unanswered(world)}"
    assert world.machine.settled()
    assert not world.beside
    assert not any(each.is_open for each in world.machine.changes(256))
    for unit in units(world):
        if unit.up:
            is_over = unit.state in (*GOOD, State.FAILED, State.UNAVAILABLE)
            assert is_over or unit.stuck or (unit.run is not None and unit.run.held)
            assert world.machine.as_desired(unit.name) == (unit.state in GOOD)
        else:
            assert unit.run is None or (unit.run.held and unit.state is State.LOADED)
            assert world.machine.as_desired(unit.name)


def _unanswered(world: ModelWorld) -> list[str]:
    found = [f"{unit.name} {unit.desired} {unit.state.value} ({unit.cause})" for unit in units(world)]
    requests = world.machine._cluster.requests._open.values()
    return [*(f"{each.id} {each.intent} {each.open_goals}" for each in requests), *found]


def check_end(world: ModelWorld) -> None:
    assert len(world.ended) == 1
    assert not any(process.lives for process in world.processes.values())
    assert not world.timers
    assert not world.listening


# ---- a preview, and what was then done ----


class Before:
    """How the services stood before a change of configuration."""

    def __init__(self, world: ModelWorld) -> None:
        self._up = {unit.name: unit.up for unit in units(world)}
        self._states = {unit.name: unit.state for unit in units(world)}
        self._again = {unit.name for unit in units(world) if unit.again}
        self._runs = {unit.name: unit.run for unit in units(world)}
        self._gone = {unit.name for unit in units(world) if unit.removed}
        self._standing_in = {unit.name for unit in units(world) if unit.standing_in}
        self._doomed = {unit.name for unit in units(world) if unit.doomed or unit.standing_in}

    def check(self, world: ModelWorld, steps: tuple[Step, ...]) -> None:
        said = {verb: {step.service for step in steps if step.verb is verb} for verb in Verb}
        assert len(steps) == len({step.service for step in steps}), "a service has two steps"
        now = {unit.name: unit for unit in units(world)}
        gone = {name for name in self._up if name not in now or now[name].removed} - self._gone
        assert gone == said[Verb.STOP] | said[Verb.REMOVE]
        ending = {name for name, unit in now.items() if unit.run is not None and unit.run.from_outside}
        assert said[Verb.RESTART] <= ending
        assert ending - self._doomed - gone - self._gone == said[Verb.RESTART] - self._doomed
        begun = {unit.name for unit in now.values() if self._has_begun(unit)}
        back = {name for name in said[Verb.RESTART] if now[name].up and not self._up[name]}
        done = {name for name in self._standing_in if name not in now or not now[name].up}  # nobody's fallback any more
        assert begun == (said[Verb.START] | back) - done

    def _has_begun(self, unit: Unit) -> bool:
        if not unit.up:
            return False
        if not self._up.get(unit.name, False):
            return True
        was = self._states[unit.name]
        is_about_to = unit.updating and unit.again and unit.name not in self._again
        return self._runs[unit.name] is None and was in OVER and (unit.state is not was or is_about_to)
