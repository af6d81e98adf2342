"""One step of a random walk through what people and the world may do to a random cluster.

Must not check anything but what a step itself promises: ``model_checks`` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import random_specs
from model_checks import Before
from model_world import ASKS, ModelWorld
from random_specs import Draw

from svcd.supervisor.core import events as ev
from svcd.supervisor.core.states import State

Step = Callable[[ModelWorld, Draw], None]
MAX_SERVICES = 12


def begin(draw: Draw) -> ModelWorld:
    world = ModelWorld(random_specs.cluster(draw), draw([0, 0, 1, 2]))
    if draw([True, False]):
        world.ask("start")
    return world


def somebody_asks(world: ModelWorld, draw: Draw) -> None:
    verb = draw(list(ASKS))
    names = (*world.specs, "s0")  # be it that it was removed
    world.ask(verb, tuple(draw(names) for _ in range(draw([1, 1, 2, 3]))))


def somebody_goes_away(world: ModelWorld, draw: Draw) -> None:
    waiting = sorted(set(world.asked) - set(world.answers) - world.abandoned)
    if waiting:
        world.abandon(draw(waiting))


def somebody_shuts_down(world: ModelWorld, draw: Draw) -> None:
    if draw([False] * 9 + [True]):
        world.shut_down(draw(list(ev.ShutdownLevel)))


def the_configuration_changes(world: ModelWorld, draw: Draw) -> None:
    """Some services are added, some changed, some removed, whether that is possible or not."""
    known = list(world.newest.values())
    added = (random_specs.service(draw, f"n{world.count}", known),) if _has_room(world) and draw([False, True]) else ()
    chosen = {draw(known).name for _ in range(draw([0, 1, 1, 2]))} if known else set()
    changed = tuple(
        random_specs.change(draw, world.newest[name], [each for each in known if each.name != name])
        for name in sorted(chosen)
    )
    others = [each.name for each in known if each.name not in chosen]
    removed = (draw(others),) if others and draw([False, True]) else ()
    before = Before(world)
    steps = world.apply(added, changed, removed)
    if steps is not None:
        before.check(world, steps)


def a_service_creates_a_child(world: ModelWorld, draw: Draw) -> None:
    """Whether it runs or not, and whatever the child depends on."""
    if not (_has_room(world) and world.newest):
        return
    able = [name for name in world.newest if name in world.machine.services and world.unit(name).may_have_children]
    parent = draw([*able, *able, *able, *world.newest])
    child = random_specs.child(draw, f"c{world.count}", parent, list(world.newest.values()))
    before = Before(world)
    steps = world.apply((child,), start=(child.name,) if draw([True, True, False]) else ())
    if steps is not None:
        before.check(world, steps)


def a_service_removes_a_child(world: ModelWorld, draw: Draw) -> None:
    children = [each.name for each in world.newest.values() if each.parent is not None]
    if children:
        before = Before(world)
        steps = world.apply(removed=(draw(children),))
        if steps is not None:
            before.check(world, steps)


def somebody_updates(world: ModelWorld, draw: Draw) -> None:
    """A service is to be replaced in place, whether that is possible or not."""
    running = [name for name, view in world.machine.services.items() if view.state is State.RUNNING]
    known = list(world.newest.values())
    name = draw(running) if running else "s0"
    if name in world.newest:
        old = world.newest[name]
        spec = random_specs.change(draw, old, [each for each in known if each.name != name]).spec
        world.update(replace(spec, runner=draw([old.runner] * 3 + [spec.runner])), draw([True, False]))


def somebody_registers(world: ModelWorld, draw: Draw) -> None:
    if _has_room(world):
        known = list(world.newest.values())
        world.register(random_specs.service(draw, draw([f"n{world.count}", "s0"]), known))


def _has_room(world: ModelWorld) -> bool:
    return len(world.newest) < MAX_SERVICES


def anything_happens(world: ModelWorld, draw: Draw) -> None:
    possible = world.possible()
    if possible:
        world.jitter = draw([0.0, -1.0, 1.0])
        draw(possible).happen()


def things_go_well(world: ModelWorld, draw: Draw) -> None:
    for _ in range(draw(range(1, 7))):
        world.goes_well()


def a_timer_fires(world: ModelWorld, draw: Draw) -> None:
    world.fire()


def time_passes(world: ModelWorld, draw: Draw) -> None:
    world.wait(draw([0.3, 3.0, 30.0]))


def something_stale_is_said(world: ModelWorld, draw: Draw) -> None:
    """News of a run that is over, or of nobody, change nothing."""
    name = draw([*world.specs, "nobody"])
    before = world.machine.ignored
    for service, invocation in ((name, 0), ("nobody", 1)):
        assert world.tell(ev.ProcessExited(world.at, service, invocation, ev.ExitStatus(code=1))) == []
        assert world.tell(ev.TimerFired(world.at, service, invocation, ev.TimerKind.STOP)) == []
    assert world.machine.ignored == before + 4


STEPS: dict[Step, int] = {
    somebody_asks: 3,
    somebody_goes_away: 1,
    somebody_shuts_down: 1,
    the_configuration_changes: 1,
    a_service_creates_a_child: 2,
    a_service_removes_a_child: 1,
    somebody_registers: 1,
    somebody_updates: 1,
    anything_happens: 6,
    things_go_well: 4,
    a_timer_fires: 2,
    time_passes: 1,
    something_stale_is_said: 1,
}
"""Each with its weight."""
