"""The graph: what is refused, with which path; and what events cost as clusters grow, counted in evaluations.

Must not measure time.
"""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from play import Play, after, requires, service, wants

from svcd.supervisor.core import errors
from svcd.supervisor.core import events as ev
from svcd.supervisor.core.checks import find_cycle
from svcd.supervisor.core.machine import Machine
from svcd.supervisor.core.spec import Dependency, ServiceSpec
from svcd.supervisor.core.states import State
from svcd.supervisor.core.transitions import TRANSITIONS


def _register(*specs: ServiceSpec) -> Machine:
    machine = Machine()
    machine.handle(ev.ServicesRegistered(0.0, specs))
    return machine


def test_a_cycle_is_refused_with_its_whole_path() -> None:
    with pytest.raises(errors.DependencyCycle, match="b -> c -> d -> b") as caught:
        _register(service("a", "b"), service("b", "c"), service("c", wants("d")), service("d", after("b")))
    assert caught.value.path == ("b", "c", "d", "b")
    with pytest.raises(errors.DependencyCycle, match="a -> a"):
        _register(service("a", "a"))


def test_an_unknown_target_and_a_duplicate_are_refused() -> None:
    with pytest.raises(errors.UnknownDependency, match="cannot register a: it depends on b"):
        _register(service("a", "b"))
    with pytest.raises(errors.DuplicateService):
        _register(service("a"), service("a"))


def test_a_batch_is_registered_whole_or_not_at_all() -> None:
    play = Play(service("a"))
    with pytest.raises(errors.UnknownDependency):
        play.tell(ev.ServicesRegistered(0.0, (service("b"), service("c", "nobody"))))
    assert list(play.machine.services) == ["a"]
    play.tell(ev.ServicesRegistered(0.0, (service("c", "b"), service("b", "a"))))
    assert "spawn a" in play.start("c")


def test_a_request_id_in_use_is_refused() -> None:
    play = Play(service("a"))
    play.start("a")
    with pytest.raises(errors.DuplicateRequest, match="'r1'"):
        play.tell(ev.StopRequested(0.0, "r1", ("a",)))
    with pytest.raises(errors.DuplicateRequest):
        play.tell(ev.ShutdownRequested(0.0, "r1", ev.ShutdownLevel.DRAIN))
    assert play.runs("a")[-1] == "answer r1 done"


def test_an_illegal_transition_names_both_states() -> None:
    machine = _register(service("a"))
    with pytest.raises(errors.IllegalTransition, match="cannot take a from unloaded to running"):
        machine._cluster.go(machine._cluster.units["a"], State.RUNNING, "planted")
    assert State.RUNNING not in TRANSITIONS[State.UNLOADED]


@pytest.mark.parametrize("seed", range(30))
def test_cycles_are_found_exactly_when_there_are_some(seed: int) -> None:
    """Against the textbook: a graph without cycles can be emptied by taking away what depends on nothing."""
    rng = random.Random(seed)
    names = [str(index) for index in range(12)]
    targets = {name: rng.sample(names, rng.choice([0, 0, 1, 2])) for name in names}
    left = dict(targets)
    while free := [name for name, needs in left.items() if not any(each in left for each in needs)]:
        for name in free:
            del left[name]
    path = find_cycle(targets)
    assert (path is not None) == bool(left)
    if path is not None:
        assert path[0] == path[-1]
        assert all(following in targets[name] for name, following in pairwise(path))


def test_a_chain_of_thousands_is_no_deeper_than_the_stack() -> None:
    count = 5000
    specs = [service("0"), *(service(str(index), str(index - 1)) for index in range(1, count))]
    play = Play(*specs)
    play.start(str(count - 1))
    assert play.machine.stopped_along(["0"]) == ()
    play.stop("0")
    play.born("0")
    assert play.exits("0")[-1] == "answer r2 done"
    assert play.machine.settled()
    assert len(play.cause(str(count - 1))) < 300


# ---- what events cost ----


def _random_cluster(count: int, seed: int, prefix: str = "s") -> list[ServiceSpec]:
    rng = random.Random(seed)
    specs: list[ServiceSpec] = []
    for index in range(count):
        targets = rng.sample(range(index), min(index, rng.choice([0, 1, 2, 3])))
        make = rng.choice([requires, requires, wants, after])
        needs: list[Dependency] = [make(f"{prefix}{target}") for target in targets]
        specs.append(service(f"{prefix}{index}", *needs))
    return specs


@pytest.mark.parametrize("count", [10, 100, 1000])
def test_boot_and_shutdown_are_linear_in_services_and_edges(count: int) -> None:
    specs = _random_cluster(count, seed=count)
    edges = sum(len(spec.dependencies) for spec in specs)
    play = Play(*specs).all_up()
    assert play.machine.settled()
    assert play.machine.steps <= 6 * (count + edges)
    before = play.machine.steps
    pending = play.shut_down()
    while signalled := [line.split()[1] for line in pending if line.startswith("signal ")]:
        pending = [line for name in signalled for line in play.exits(name)]
    assert pending[-1] == "end 0"
    assert play.machine.steps - before <= 6 * (count + edges)


@pytest.mark.parametrize("what", ["crash", "stop", "restart"])
def test_an_event_costs_the_same_however_many_others_there_are(what: str) -> None:
    """The same small cluster alone, and among a thousand strangers."""
    steps, traces = [], []
    for strangers in (0, 1000):
        small = _random_cluster(12, seed=4, prefix="x")
        play = Play(*small, *_random_cluster(strangers, seed=1)).all_up()
        before = play.machine.steps
        trace = {"crash": play.dies, "stop": play.stop, "restart": play.restart}[what]("x0")
        while signalled := [line.split()[1] for line in trace if line.startswith("signal ")]:
            trace = [line for name in signalled for line in play.exits(name)]
            traces.append(trace)
        steps.append(play.machine.steps - before)
    assert steps[0] == steps[1]
    assert steps[0] > 0
    assert traces[: len(traces) // 2] == traces[len(traces) // 2 :]


def test_one_that_many_require_is_linear_in_them() -> None:
    def cost(count: int) -> int:
        play = Play(service("db"), *(service(f"w{index}", "db") for index in range(count))).all_up()
        before = play.machine.steps
        play.later(100).dies("db")
        return play.machine.steps - before

    assert cost(500) <= 11 * cost(50)


def test_one_that_requires_many_is_linear_in_them() -> None:
    def cost(count: int) -> int:
        play = Play(*(service(f"w{index}") for index in range(count)), service("top", *(f"w{i}" for i in range(count))))
        play.all_up()
        return play.machine.steps

    assert cost(500) <= 11 * cost(50)


def test_turns_cost_nothing_more() -> None:
    specs = [service(f"s{index}") for index in range(1000)]
    play = Play(*specs, max_parallel=4).all_up()
    assert play.machine.settled()
    assert play.machine.steps <= 8 * len(specs)
