"""The machine against random clusters, random requests and a world that delays, reorders and fails.

Must not expect particular traces: only what holds always, each with its converse. Nightly runs are long:
SVCD_HYPOTHESIS_PROFILE=nightly.
"""

from __future__ import annotations

import os
from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from model_shell import ModelShell

from svcd.supervisor.core import edges
from svcd.supervisor.core import events as ev
from svcd.supervisor.core.cluster import is_moving
from svcd.supervisor.core.spec import (
    Backoff,
    Condition,
    Dependency,
    DependencyKind,
    HealthAction,
    HealthPolicy,
    Hook,
    Intensity,
    OnCrash,
    Overlap,
    ReadyKind,
    RestartMode,
    RestartPolicy,
    Runner,
    ServiceSpec,
    ServiceType,
    StartMode,
    StopPolicy,
)
from svcd.supervisor.core.states import WITH_PROCESS, State
from svcd.supervisor.core.transitions import IN_START
from svcd.supervisor.core.unit import Unit

NIGHTLY = os.environ.get("SVCD_HYPOTHESIS_PROFILE") == "nightly"
VERBS = ["start", "stop", "restart", "signal", "pause", "resume", "restart, rolling", "stop, unneeded"]
CONDITIONS = [Condition.RUNNING, Condition.RUNNING, Condition.SPAWNED, Condition.HEALTHY]


@st.composite
def policies(draw: st.DrawFn) -> RestartPolicy:
    return RestartPolicy(
        mode=draw(st.sampled_from(RestartMode)),
        backoff=Backoff(draw(st.sampled_from([0.0, 0.1, 3.0])), 2.0, 5.0, draw(st.sampled_from([0.0, 0.5, 1.0]))),
        intensity=Intensity(draw(st.sampled_from([0, 1, 2, 2, None])), draw(st.sampled_from([1.0, 20.0]))),
        reset_after_s=draw(st.sampled_from([0.0, 2.0, 10.0])),
    )


@st.composite
def dependencies(draw: st.DrawFn, earlier: list[ServiceSpec]) -> tuple[Dependency, ...]:
    found = []
    for target in earlier:
        if draw(st.sampled_from([True, True, False])):
            conditions = [*CONDITIONS, Condition.COMPLETED] if target.type is ServiceType.TASK else CONDITIONS
            kind = draw(st.sampled_from([DependencyKind.REQUIRES, *DependencyKind]))
            condition = draw(st.sampled_from(conditions))
            on_crash = draw(st.sampled_from([OnCrash.RESTART, *OnCrash]))
            found.append(Dependency(target.name, kind, condition, on_crash))
    return tuple(found)


@st.composite
def groups(draw: st.DrawFn, edges: tuple[Dependency, ...], earlier: list[ServiceSpec]) -> tuple[Dependency, ...]:
    """Now and then some of the requirements are instances of one service."""
    tasks = {each.name for each in earlier if each.type is ServiceType.TASK}
    one = [each for each in edges if each.kind is DependencyKind.REQUIRES and each.target not in tasks]
    if len(one) < 2 or draw(st.booleans()):
        return edges
    return tuple(replace(each, group="g", condition=one[0].condition) if each in one else each for each in edges)


@st.composite
def occasions(draw: st.DrawFn, spec: ServiceSpec, earlier: list[ServiceSpec]) -> ServiceSpec:
    """What most services do without."""
    rarely = st.sampled_from([False, False, False, True])
    health = HealthPolicy(
        failure_threshold=draw(st.sampled_from([1, 2])),
        success_threshold=draw(st.sampled_from([1, 2])),
        start_period_s=draw(st.sampled_from([0.0, 3.0])),
        on_failure=draw(st.sampled_from(HealthAction)),
    )
    scheduled = spec.type is ServiceType.TASK and draw(rarely)
    return replace(
        spec,
        hooks=frozenset(draw(st.lists(st.sampled_from(Hook), max_size=3))) if draw(rarely) else frozenset(),
        health=health if draw(rarely) else None,
        watchdog_s=draw(st.sampled_from([0.5, 40.0])) if draw(rarely) else None,
        essential=draw(st.sampled_from([False] * 15 + [True])),
        fallback=draw(st.sampled_from(earlier)).name if earlier and draw(rarely) else None,
        scheduled=scheduled,
        overlap=draw(st.sampled_from(Overlap)),
        start=StartMode.MANUAL if scheduled else spec.start,
        dependencies=draw(groups(spec.dependencies, earlier)),
    )


@st.composite
def clusters(draw: st.DrawFn) -> tuple[ServiceSpec, ...]:
    specs: list[ServiceSpec] = []
    for index in range(draw(st.integers(1, 8))):
        specs.append(draw(services(f"s{index}", specs)))
    return tuple(specs)


@st.composite
def services(draw: st.DrawFn, name: str, earlier: list[ServiceSpec]) -> ServiceSpec:
    runner = draw(st.sampled_from(Runner))
    kinds = [ReadyKind.IMMEDIATE, ReadyKind.DELAY] if runner is Runner.PROGRAM else [ReadyKind.STARTED, ReadyKind.DELAY]
    spec = ServiceSpec(
        name=name,
        runner=runner,
        type=draw(st.sampled_from([ServiceType.SERVICE, *ServiceType])),
        start=draw(st.sampled_from([StartMode.EAGER, *StartMode])),
        dependencies=draw(dependencies(earlier[-3:])),
        ready=draw(st.sampled_from(kinds)),
        ready_timeout_s=draw(st.sampled_from([0.5, 60.0])),
        restart=draw(policies()),
        stop=StopPolicy(timeout_s=draw(st.sampled_from([0.0, 0.5, 10.0]))),
    )
    return draw(occasions(spec, earlier))


class MachineAndWorld(RuleBasedStateMachine):
    shell: ModelShell
    added = 0

    @initialize(specs=clusters(), max_parallel=st.sampled_from([0, 0, 1, 2]), boot=st.booleans())
    def begin(self, specs: tuple[ServiceSpec, ...], max_parallel: int, boot: bool) -> None:
        self.shell = ModelShell(specs, max_parallel)
        if boot:
            self.shell.ask("start")

    # ---- what people do ----

    def _names(self, data: st.DataObject) -> tuple[str, ...]:
        return tuple(data.draw(st.lists(st.sampled_from(sorted({*self.shell.specs, "s0"})), min_size=1, max_size=3)))

    @rule(data=st.data(), verb=st.sampled_from(VERBS))
    def somebody_asks(self, data: st.DataObject, verb: str) -> None:
        self.shell.ask(verb, self._names(data))

    @rule(data=st.data())
    def the_configuration_changes(self, data: st.DataObject) -> None:
        """Some services are added, some changed, some removed, whether that is possible or not."""
        shell = self.shell
        known = list(shell.newest.values())
        names = [each.name for each in known]
        self.added += 1
        added = (data.draw(services(f"n{self.added}", known)),) if data.draw(st.booleans()) else ()
        changed = []
        for spec in data.draw(st.lists(st.sampled_from(known), max_size=2, unique=True)) if known else ():
            others = [each for each in known if each.name != spec.name]
            new = data.draw(services(spec.name, others))
            changed.append(ev.SpecChange(replace(new, runner=spec.runner, ready=spec.ready), data.draw(st.booleans())))
        removed = tuple(data.draw(st.lists(st.sampled_from(names), max_size=1))) if names else ()
        removed = tuple(each for each in removed if each not in {change.spec.name for change in changed})
        shell.apply(added, tuple(changed), removed)

    @rule(level=st.sampled_from(ev.ShutdownLevel), sure=st.integers(0, 9))
    def somebody_shuts_down(self, level: ev.ShutdownLevel, sure: int) -> None:
        if sure == 0:
            self.shell.ask(level.name)

    @rule(data=st.data())
    def somebody_goes_away(self, data: st.DataObject) -> None:
        waiting = sorted(set(self.shell.asked) - set(self.shell.answers) - self.shell.abandoned)
        if waiting:
            self.shell.abandon(data.draw(st.sampled_from(waiting)))

    # ---- what the world does ----

    @rule(data=st.data(), jitter=st.sampled_from([-1.0, 0.0, 1.0]))
    def anything_happens(self, data: st.DataObject, jitter: float) -> None:
        self.shell.jitter = jitter
        possible = self.shell.possible()
        if possible:
            data.draw(st.sampled_from(possible)).happen()

    @rule(count=st.integers(1, 6))
    def things_go_well(self, count: int) -> None:
        for _ in range(count):
            kind = next((each for each in self.shell.possible() if each.is_kind), None)
            if kind is not None:
                kind.happen()

    @precondition(lambda self: self.shell.timers)
    @rule()
    def a_timer_fires(self) -> None:
        self.shell.fire()

    @rule(seconds=st.sampled_from([0.3, 3.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.shell.wait(seconds)

    @rule(data=st.data())
    def something_stale_is_said(self, data: st.DataObject) -> None:
        """News of a run that is over, or of nobody, change nothing."""
        if not self.shell.specs:
            return
        name = data.draw(st.sampled_from(sorted(self.shell.specs)))
        at, machine = self.shell.at, self.shell.machine
        before = machine.ignored
        for service, invocation in ((name, 0), ("nobody", 1)):
            assert self.shell.tell(ev.ProcessExited(at, service, invocation, ev.ExitStatus(code=1))) == []
            assert self.shell.tell(ev.TimerFired(at, service, invocation, ev.TimerKind.STOP)) == []
        assert machine.ignored == before + 4

    # ---- what holds after every event ----

    @invariant()
    def views_agree_with_the_world(self) -> None:
        shell = self.shell
        for name, view in shell.machine.services.items():
            process = shell.processes.get(name)
            assert view.state is shell.states[name]
            hooked = any(each.service == name and not each.is_killed for each in shell.hooks)
            lives = process is not None and process.lives
            assert (view.state in WITH_PROCESS) == (
                lives or hooked or (view.state in WITH_PROCESS and any(each.service == name for each in shell.hooks))
            )
            assert (view.pid is not None) == (process is not None and process.alive and process.born)
            assert view.cause
            story = shell.machine.story(name)
            assert not story or story[-1].new is view.state

    @invariant()
    def timers_fit_the_states(self) -> None:
        shell = self.shell
        for name, unit in shell.machine._cluster.units.items():
            armed = {kind for service, kind in shell.timers if service == name}
            run = unit.run
            assert armed == unit.timers
            assert (unit.state is State.BACKOFF) == (ev.TimerKind.RESTART in armed)
            if run is None:
                assert armed <= {ev.TimerKind.RESTART}
                continue
            assert run.hook is not None or ev.TimerKind.HOOK not in armed
            armed -= {ev.TimerKind.HOOK}
            if unit.state in IN_START:
                is_held = run.held and unit.state is not State.LOADING
                free = run.overdue or is_held or run.hook is not None or not run.spawned
                assert armed == (set() if free else {ev.TimerKind.READY}), (name, unit.state, run, armed)
            elif unit.state is State.STOPPING:
                wanted = ev.TimerKind.LEFTOVERS if run.exited else ev.TimerKind.STOP
                is_hooked = run.hook in (Hook.PRE_STOP, Hook.POST_STOP) or not run.spawned
                assert armed == (set() if run.killed or is_hooked else {wanted}), (name, run, armed)
            elif unit.state is State.RUNNING:
                assert armed <= {ev.TimerKind.WATCHDOG}
                assert unit.spec.watchdog_s is not None or not armed
            else:
                assert not armed

    @invariant()
    def what_may_start_has_started(self) -> None:
        """The converse of "no dependent is spawned too early": nobody waits without a reason."""
        shell = self.shell
        units = shell.machine._cluster.units
        free = not shell.max_parallel or len(shell.machine._cluster.starting) < shell.max_parallel
        for name, unit in units.items():
            assert not (unit.up and unit.state in (State.UNLOADED, State.STOPPED)), "asked to run, and nothing happens"
            if unit.state is not State.WAITING:
                continue
            assert unit.up or unit.preload
            if not unit.up:
                assert not free
                continue
            edges = [each for each in shell.newest[name].dependencies if each.target in units]
            hard = [each for each in edges if each.kind is DependencyKind.REQUIRES]
            soft = [each for each in edges if each.kind is not DependencyKind.REQUIRES]
            steady = {each for each in edges if not units[each.target].doomed}
            ready = all(shell.is_met(name, each) and (each in steady or each.group) for each in hard)
            quiet = all((shell.is_ready(each) and each in steady) or not units[each.target].up for each in soft)
            assert not (ready and quiet and free and not any(each.group for each in hard)), f"{name} could start"

    @invariant()
    def turns_are_kept(self) -> None:
        if self.shell.max_parallel:
            units = self.shell.machine._cluster.units.values()
            starting = [
                unit
                for unit in units
                if unit.state is State.LOADING
                or (unit.state in IN_START and unit.run is not None and not unit.run.held)
            ]
            assert len(starting) <= self.shell.max_parallel

    @invariant()
    def the_books_are_right(self) -> None:
        """Every flag and counter that is kept in place equals what a walk over everything would find."""
        cluster = self.shell.machine._cluster
        for unit in cluster.units.values():
            for edge in unit.outgoing:
                if unit.run is None or edge not in unit.run.borrowed:
                    assert (edge.blocked, edge.dead) == edges.assess(edge)
                assert edge.holds == edges.holds(edge)
            own = [edge for edge in unit.outgoing if unit.run is None or edge not in unit.run.borrowed]
            beside = {edge: tuple(edge.group.edges) if edge.group is not None else (edge,) for edge in own}
            assert set(unit.blockers) == {edge for edge in own if all(each.blocked for each in beside[edge])}
            assert set(unit.dead) == {edge for edge in own if all(each.dead for each in beside[edge])}
            assert unit.holders == sum(edge.holds for edge in unit.incoming)
            waits = unit.state is State.WAITING or (unit.run is not None and unit.run.held)
            assert unit.stuck == (waits and unit.up and bool(unit.dead))
            assert (unit.name in cluster.moving) == is_moving(unit)
            assert (unit.name in cluster.queue) <= (waits and (not unit.blockers or not unit.up))
        assert cluster.live == sum(unit.run is not None for unit in cluster.units.values())

    @invariant()
    def whoever_is_to_end_knows(self) -> None:
        """The converse of the stop order: a run that is to end, and that nobody holds, has been told."""
        for unit in self.shell.machine._cluster.units.values():
            run = unit.run
            if run is not None and not unit.up and not run.exited and not (run.held and run.mark is None):
                assert run.told or unit.holders

    @invariant()
    def requests_are_open_or_answered(self) -> None:
        shell = self.shell
        assert shell.machine.open_requests == len(set(shell.asked) - set(shell.answers) - shell.abandoned)

    # ---- how it ends ----

    def teardown(self) -> None:
        if not hasattr(self, "shell"):
            return
        shell = self.shell
        shell.come_to_rest()
        self._check_rest()
        shell.ask("DRAIN")
        shell.come_to_rest()
        self._check_rest()
        assert shell.ended == 1
        assert not any(process.lives for process in shell.processes.values())
        assert not shell.timers

    def _waits_for_health(self, unit: Unit) -> bool:
        """Nobody checks any health any more: who waits for it, or for one who does, waits on."""
        return unit.state is State.WAITING and any(
            edge.spec.condition is Condition.HEALTHY or self._waits_for_health(edge.target) for edge in unit.blockers
        )

    def _unanswered(self) -> list[str]:
        shell = self.shell
        units = shell.machine._cluster.units.values()
        states = ", ".join(f"{unit.name} {unit.desired} {unit.state.value} ({unit.cause})" for unit in units)
        open_ones = [(each.id, each.intent, each.open_goals) for each in shell.machine._cluster.requests._open.values()]
        return [*map(str, open_ones), states]

    def _check_rest(self) -> None:
        shell = self.shell
        units = shell.machine._cluster.units
        if not any(map(self._waits_for_health, units.values())):
            assert set(shell.answers) | shell.abandoned >= set(shell.asked), (
                f"requests without an answer: {self._unanswered()}"
            )
            assert shell.machine.settled()
        for unit in shell.machine._cluster.units.values():
            if unit.up:
                rest = (State.RUNNING, State.PAUSED, State.COMPLETED, State.FAILED, State.UNAVAILABLE)
                assert unit.state in rest or unit.stuck or self._waits_for_health(unit)
                good = (State.RUNNING, State.PAUSED, State.COMPLETED)
                assert shell.machine.as_desired(unit.name) == (unit.state in good)
            else:
                assert unit.run is None or (unit.run.held and unit.state is State.LOADED)
                assert shell.machine.as_desired(unit.name)


TestMachineAndWorld = MachineAndWorld.TestCase
TestMachineAndWorld.settings = settings(
    max_examples=10_000 if NIGHTLY else 100,
    stateful_step_count=80 if NIGHTLY else 40,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
