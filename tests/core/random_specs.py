"""Random services, clusters and changes of configuration, drawn by whatever can choose: Hypothesis, or plain chance.

Must not look at the machine. Small parameters are drawn on purpose: intensity 0 to 2, timeouts of nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, Protocol, TypeVar

from svcd.supervisor.core.events import SpecChange
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
    PausePolicy,
    ReadyKind,
    RestartMode,
    RestartPolicy,
    RunEnd,
    Runner,
    ServiceSpec,
    ServiceType,
    StartMode,
    StopPolicy,
)

T = TypeVar("T")
CONDITIONS: Final = [Condition.RUNNING, Condition.RUNNING, Condition.SPAWNED, Condition.HEALTHY]
RARELY: Final = (False, False, False, True)
HARDLY: Final = (False,) * 15 + (True,)


class Draw(Protocol):
    def __call__(self, options: Sequence[T], /) -> T: ...


def cluster(draw: Draw) -> tuple[ServiceSpec, ...]:
    specs: list[ServiceSpec] = []
    for index in range(draw(range(1, 9))):
        specs.append(service(draw, f"s{index}", specs))
    return tuple(specs)


def service(draw: Draw, name: str, earlier: Sequence[ServiceSpec]) -> ServiceSpec:
    """A service that may depend on some of the last of ``earlier``."""
    runner = draw(list(Runner))
    own = ReadyKind.IMMEDIATE if runner is Runner.PROGRAM else ReadyKind.STARTED
    spec = ServiceSpec(
        name=name,
        runner=runner,
        type=draw([ServiceType.SERVICE, *ServiceType]),
        start=draw([StartMode.EAGER, *StartMode]),
        dependencies=_dependencies(draw, earlier[-4:]),
        ready=draw([own, ReadyKind.DELAY]),
        ready_timeout_s=draw([0.5, 60.0]),
        restart=_policy(draw),
        stop=StopPolicy(timeout_s=draw([0.0, 0.5, 10.0])),
    )
    return _with_occasions(draw, spec, earlier)


def child(draw: Draw, name: str, parent: str, others: Sequence[ServiceSpec]) -> ServiceSpec:
    """A service that ``parent`` may create; it may depend on others in a way that is refused."""
    spec = service(draw, name, others if draw(RARELY) else [each for each in others if each.parent in (None, parent)])
    edges = tuple(each for each in spec.dependencies if each.target != parent)
    own = Dependency(parent, condition=Condition.SPAWNED)
    return replace(spec, dependencies=(*edges, own), start=StartMode.MANUAL, fallback=None, parent=parent)


def change(draw: Draw, old: ServiceSpec, others: Sequence[ServiceSpec]) -> SpecChange:
    """A service of that name that is different in some ways, or in all."""
    new = service(draw, old.name, others)
    new = replace(new, type=old.type, scheduled=old.scheduled)  # others may wait for its completion
    if draw(RARELY):
        new = replace(old, dependencies=new.dependencies, fallback=new.fallback)
    needs_restart = new.runner is not old.runner or draw([False, True])
    return SpecChange(new, needs_restart, draw(RARELY))


def _dependencies(draw: Draw, earlier: Iterable[ServiceSpec]) -> tuple[Dependency, ...]:
    found = []
    for target in earlier:
        if draw([True, False]):
            conditions = [*CONDITIONS, Condition.COMPLETED] if target.type is ServiceType.TASK else CONDITIONS
            kind = draw([DependencyKind.REQUIRES, *DependencyKind])
            found.append(Dependency(target.name, kind, draw(conditions), draw([OnCrash.RESTART, *OnCrash])))
    return _grouped(draw, found)


def _grouped(draw: Draw, found: list[Dependency]) -> tuple[Dependency, ...]:
    """Now and then what is required are the instances of one service."""
    hard = [each for each in found if each.kind is DependencyKind.REQUIRES]
    if len(hard) < 2 or not draw(RARELY):
        return tuple(found)
    like = replace(hard[0], condition=draw([Condition.RUNNING, Condition.HEALTHY, Condition.SPAWNED]), group="g")
    return tuple(replace(like, target=each.target) if each in hard else each for each in found)


def _policy(draw: Draw) -> RestartPolicy:
    by_cause = ((draw(list(RunEnd)), draw(list(RestartMode))),) if draw(RARELY) else ()
    return RestartPolicy(
        mode=draw(list(RestartMode)),
        backoff=Backoff(draw([0.0, 0.1, 3.0]), 2.0, 5.0, draw([0.0, 0.5, 1.0])),
        intensity=Intensity(draw([0, 1, 2, 2, None]), draw([1.0, 20.0])),
        reset_after_s=draw([0.0, 2.0, 10.0]),
        prevent_codes=frozenset({1}) if draw(HARDLY) else frozenset(),
        by_cause=by_cause,
    )


def _with_occasions(draw: Draw, spec: ServiceSpec, earlier: Sequence[ServiceSpec]) -> ServiceSpec:
    """What most services do without."""
    is_scheduled = spec.type is ServiceType.TASK and draw(RARELY)
    return replace(
        spec,
        hooks=frozenset(draw(list(Hook)) for _ in range(3)) if draw(RARELY) else frozenset(),
        health=_health(draw) if draw(RARELY) else None,
        watchdog_s=draw([0.5, 40.0]) if draw(RARELY) else None,
        essential=draw(HARDLY),
        fallback=draw(earlier).name if earlier and draw(RARELY) else None,
        pause=draw([PausePolicy(), PausePolicy(), PausePolicy(10, 12)]),
        scheduled=is_scheduled,
        overlap=draw(list(Overlap)),
        start=StartMode.MANUAL if is_scheduled else spec.start,
    )


def _health(draw: Draw) -> HealthPolicy:
    return HealthPolicy(draw([1, 2]), draw([1, 2]), draw([0.0, 3.0]), draw(list(HealthAction)))
