"""The machine against random clusters, random requests and a world that delays, reorders and fails.

Must not expect particular traces: only what holds always, each with its converse. Nightly runs are long:
SVCD_HYPOTHESIS_PROFILE=nightly.
"""

from __future__ import annotations

import os
import random

import hypothesis.strategies as st
import pytest
import random_walk
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from model_checks import ALWAYS, check_end, check_rest
from model_world import ModelWorld

from svcd.supervisor.core.events import ShutdownLevel

NIGHTLY = os.environ.get("SVCD_HYPOTHESIS_PROFILE") == "nightly"
WEIGHTED = [step for step, weight in random_walk.STEPS.items() for _ in range(weight)]


def _finish(world: ModelWorld) -> None:
    """A well-meaning world brings all to rest, and then down."""
    world.come_to_rest()
    check_rest(world)
    world.shut_down(ShutdownLevel.DRAIN)
    world.come_to_rest()
    check_rest(world)
    check_end(world)


class MachineAndWorld(RuleBasedStateMachine):
    """Finds short counterexamples."""

    world: ModelWorld

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.world = random_walk.begin(lambda options: data.draw(st.sampled_from(options)))

    @rule(data=st.data(), step=st.sampled_from(WEIGHTED))
    def something_happens(self, data: st.DataObject, step: random_walk.Step) -> None:
        step(self.world, lambda options: data.draw(st.sampled_from(options)))

    @invariant()
    def what_holds_always_holds(self) -> None:
        for check in ALWAYS:
            check(self.world)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            _finish(self.world)


TestMachineAndWorld = MachineAndWorld.TestCase
TestMachineAndWorld.settings = settings(
    max_examples=10_000 if NIGHTLY else 60,
    stateful_step_count=80 if NIGHTLY else 40,
    deadline=None,
    database=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
if NIGHTLY:
    TestMachineAndWorld = pytest.mark.timeout(0)(TestMachineAndWorld)


def walk(seed: int, steps: int) -> ModelWorld:
    chance = random.Random(seed)
    world = random_walk.begin(chance.choice)
    for _ in range(steps):
        chance.choice(WEIGHTED)(world, chance.choice)
        for check in ALWAYS:
            check(world)
    _finish(world)
    return world


@pytest.mark.parametrize("block", range(200 if NIGHTLY else 4))
def test_random_walks(block: int) -> None:
    """Many more of them, without the means to make them short: the seed of a failure is in its message."""
    for seed in range(block * 100, (block + 1) * 100):
        try:
            walk(seed, 80)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
