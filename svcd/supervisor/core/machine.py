"""The machine: one event in, a list of actions out. The entry to the core.

Must not read a clock, draw a number or do any I/O: all that it knows came with events, and all that it wants is said
in actions. It changes one thing, then evaluates whoever is concerned, one transition at a time, until all is steady.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from svcd.supervisor.core import causes, checks, events, graph
from svcd.supervisor.core.actions import Action, EndCluster, PublishNotice, PublishTransition
from svcd.supervisor.core.apply import Apply
from svcd.supervisor.core.calls import Calls
from svcd.supervisor.core.children import Children
from svcd.supervisor.core.cluster import Cluster
from svcd.supervisor.core.endings import Endings
from svcd.supervisor.core.ledger import Transaction
from svcd.supervisor.core.pausing import Pausing
from svcd.supervisor.core.preview import Step, preview
from svcd.supervisor.core.runs import Runs
from svcd.supervisor.core.spec import Runner, ServiceSpec, StartMode
from svcd.supervisor.core.states import State
from svcd.supervisor.core.transitions import ACCEPTED, ACCEPTED_TIMER
from svcd.supervisor.core.unit import Run, Unit, View
from svcd.supervisor.core.updating import Updates
from svcd.supervisor.core.watching import Watching
from svcd.supervisor.core.wishes import Wishes, is_over

_FROM_STUBS: Final = (
    events.StubConnected,
    events.StubReported,
    events.EndpointOpened,
    events.DrainProgressed,
    events.ConnectionLost,
)
_UP: Final = frozenset({State.RUNNING, State.PAUSED, State.COMPLETED})
_ASLEEP: Final = frozenset({State.UNLOADED, State.STOPPED})


class Machine:
    """All supervision decisions of one cluster.

    Args:
        max_parallel: how many services may be on their way from spawn to running at the same time; 0: any number.
    """

    def __init__(self, max_parallel: int = 0) -> None:
        self._cluster = Cluster(max_parallel)
        self._endings = Endings(self._cluster)
        self._watching = Watching(self._cluster, self._endings)
        pausing = Pausing(self._cluster, self._watching)
        self._runs = Runs(self._cluster, self._endings, self._watching, pausing)
        self._wishes = Wishes(self._cluster, self._endings, pausing)
        self._calls = Calls(self._cluster, self._endings, self._wishes)
        self._children = Children(self._cluster, self._wishes)
        self._apply = Apply(self._cluster, self._endings, self._watching, self._wishes)
        self._updates = Updates(self._cluster, self._apply, self._wishes)
        self.essential_lost = ""  # why an essential service took the cluster down, in words
        self.ignored = 0  # events that came too late, or were about nobody
        self._wish_handlers: Mapping[type, Callable[[Any], None]] = {
            events.ServicesRegistered: self._register,
            events.ConfigurationApplied: self._apply.apply,
            events.UpdateRequested: self._updates.begin,
            events.StartRequested: self._wishes.start,
            events.StopRequested: self._wishes.stop,
            events.RestartRequested: self._wishes.restart,
            events.SignalRequested: self._wishes.signal,
            events.PauseRequested: self._wishes.pause,
            events.ResumeRequested: self._wishes.resume,
            events.ShutdownRequested: self._shut_down,
            events.RequestAbandoned: self._abandon,
        }
        self._call_handlers: Mapping[type, Callable[[Any], bool]] = {
            events.DemandArose: self._calls.on_demand,
            events.ScheduleFired: self._calls.on_schedule,
        }
        runs, endings, watching = self._runs, self._endings, self._watching
        self._run_handlers: Mapping[type, Callable[[Unit, Run, Any], bool]] = {
            events.ProcessSpawned: lambda unit, run, event: runs.on_spawned(unit, run, event.pid),
            events.SpawnFailed: lambda unit, run, event: endings.on_spawn_failed(unit, run, event.reason),
            events.MainProcessNamed: lambda unit, run, event: runs.on_main_named(unit, run, event.pid),
            events.ProgramExecuted: lambda unit, run, event: runs.on_executed(unit, run),
            events.ReadinessReached: lambda unit, run, event: runs.on_ready(unit, run),
            events.ReadinessFailed: lambda unit, run, event: runs.on_unready(unit, run, event.reason),
            events.ReadinessMissed: lambda unit, run, event: runs.on_missed(unit, run, event.reason),
            events.ProcessExited: lambda unit, run, event: endings.on_exited(unit, run, event.status, event.leftovers),
            events.LeftoversGone: lambda unit, run, event: endings.on_leftovers_gone(unit, run),
            events.IdleReached: lambda unit, run, event: self._calls.on_idle(unit, run),
            events.HealthChecked: lambda unit, run, event: watching.on_checked(unit, run, event.healthy, event.text),
            events.WatchdogPinged: lambda unit, run, event: watching.on_alive(unit, run),
            events.WatchdogTriggered: lambda unit, run, event: watching.on_hung(
                unit, run, "watchdog: triggered by itself"
            ),
            events.TimeoutExtended: lambda unit, run, event: endings.on_extended(unit, run, event.by_s),
            events.StopAnnounced: self._on_stop_announced,
            events.HookEnded: lambda unit, run, event: runs.on_hook_ended(unit, run, event.hook, event.error),
            events.StubConnected: lambda unit, run, event: runs.on_connected(unit, run),
            events.StubReported: lambda unit, run, event: runs.on_phase(unit, run, event.phase, event.error),
            events.EndpointOpened: lambda unit, run, event: runs.on_endpoint(unit, run),
            events.InterfaceChecked: lambda unit, run, event: False,
            events.HandedOver: lambda unit, run, event: self._updates.on_handed_over(unit, run, event.error),
            events.DrainProgressed: lambda unit, run, event: endings.on_drain_progress(unit, run, event.in_flight),
            events.ConnectionLost: lambda unit, run, event: runs.on_connection_lost(unit, run),
        }
        known = {*self._wish_handlers, *self._call_handlers, *self._run_handlers, events.TimerFired}
        if known != set(events.Event.__args__) or {*self._run_handlers, events.TimerFired} != set(ACCEPTED):
            raise AssertionError("an event has no handler")

    # ---- the one entry ----

    def handle(self, event: events.Event) -> list[Action]:
        """Take note of one fact; returns the orders that follow from it, to be carried out in this order.

        Raises:
            CoreError: the caller asked for something that cannot be (a registration with a cycle, a request id twice);
                nothing has changed then.
        """
        cluster = self._cluster
        cluster.at, cluster.jitter = event.at, getattr(event, "jitter", 0.0)
        cluster.out, cluster.changed, cluster.transaction = [], {}, None
        if not self._take(event):
            self.ignored += 1
            return cluster.out
        cluster.settle(self._evaluate, self._endings.on_held_late)
        while self._wishes.take_turns() or self._mourn():
            cluster.settle(self._evaluate, self._endings.on_held_late)
        if self._wishes.end_if_down():
            cluster.out.append(EndCluster(1 if self.essential_lost else 0))
        return cluster.out

    def _take(self, event: Any) -> bool:
        """Whether the event meant anything."""
        wish = self._wish_handlers.get(type(event))
        if wish is not None:
            wish(event)
            return True
        call = self._call_handlers.get(type(event))
        return self._hear(event) if call is None else call(event)

    def _mourn(self) -> bool:
        """An essential service is lost for good: the cluster goes down, in order, and says so in its exit code."""
        cluster = self._cluster
        if not cluster.essential_lost or cluster.level is not None:
            return False
        self.essential_lost = cluster.essential_lost
        cluster.out.append(PublishNotice(cluster.at, "", f"{self.essential_lost}: the cluster shuts down"))
        self._wishes.shut_down(events.ShutdownRequested(cluster.at, None, events.ShutdownLevel.DRAIN))
        return True

    def _hear(self, event: Any) -> bool:
        """News of one invocation; returns whether it meant anything."""
        unit = self._cluster.units.get(event.service)
        update = self._updates.of(event.service, event.invocation)
        if update is not None and unit is not None:
            self._go_on_with(unit)
            return self._updates.hear(update, event)
        if unit is None or unit.last_invocation != event.invocation or unit.state not in ACCEPTED[type(event)]:
            return False
        self._go_on_with(unit)
        if isinstance(event, events.TimerFired):
            return self._on_timer(unit, event.kind)
        if isinstance(event, _FROM_STUBS) and unit.spec.runner is not Runner.PYTHON:
            return False  # a program that plays the stub
        return unit.run is not None and self._run_handlers[type(event)](unit, unit.run, event)

    def _go_on_with(self, unit: Unit) -> None:
        """What follows belongs to what the unit is in the middle of."""
        own = unit.transaction
        self._cluster.transaction = own if own is not None and own.is_open else None

    def _on_timer(self, unit: Unit, kind: events.TimerKind) -> bool:
        if kind not in unit.timers or unit.state not in ACCEPTED_TIMER[kind]:
            return False
        unit.timers.remove(kind)
        run = unit.run
        if kind is events.TimerKind.RESTART:
            self._endings.restart_now(unit)
        elif run is None:
            return False
        elif kind is events.TimerKind.READY:
            self._endings.on_overdue(unit, run)
        elif kind is events.TimerKind.WATCHDOG:
            text = f"watchdog: no sign of life within {causes.seconds(unit.spec.watchdog_s or 0.0)}"
            self._watching.on_hung(unit, run, text)
        else:
            self._endings.on_timer(unit, run, kind)
        return True

    def _abandon(self, event: events.RequestAbandoned) -> None:
        self._cluster.requests.abandon(event.request)
        self._updates.abandon(event.request)

    def _shut_down(self, event: events.ShutdownRequested) -> None:
        self._wishes.shut_down(event)
        self._updates.hurry()

    def _on_stop_announced(self, unit: Unit, run: Run, event: events.StopAnnounced) -> bool:
        return unit.spec.runner is Runner.PROGRAM and self._runs.on_stopping(unit, run, None)

    def _register(self, event: events.ServicesRegistered) -> None:
        cluster = self._cluster
        checks.check(cluster.units, event.specs, missed=cluster.missed)
        for unit in cluster.enter(event.specs):
            cluster.connect(unit, unit.spec)

    def admit(self, spec: ServiceSpec) -> None:
        """Whether this service could be registered now; nothing is done.

        Raises:
            CoreError: it could not
        """
        checks.check(self._cluster.units, (spec,), missed=self._cluster.missed)

    # ---- one step ----

    def _evaluate(self, unit: Unit) -> None:
        """Bring one unit one step nearer to what is desired of it, if it may take that step."""
        run = unit.run
        if unit.children and not unit.may_have_children:
            self._children.release(unit)
        if unit.updating:
            self._updates.look(unit)
            if run is None:
                return  # what is left of its update ends first
        if unit.bereft or unit.standing_in:
            self._calls.stand_in(unit)
        if run is not None:
            self._evaluate_run(unit, run)
        elif unit.removed:
            if unit.children:  # of its last run, which have yet to end
                self._evaluate_down(unit)
            else:
                self._apply.forget(unit)
        elif not unit.up:
            self._evaluate_down(unit)
        elif unit.state in _ASLEEP or unit.again:
            self._endings.wait(unit)
        elif unit.state is State.WAITING:
            self._evaluate_waiting(unit)
        if unit.listening or unit.spec.start is StartMode.ON_DEMAND:
            self._calls.look_out(unit)

    def _evaluate_down(self, unit: Unit) -> None:
        """Not to run: at rest, or loaded ahead of time."""
        if unit.preload and unit.state in _ASLEEP:
            unit.reason = "loaded ahead of time"
            self._endings.wait(unit)
        elif unit.preload and unit.state is State.WAITING:
            if not self._children.keep_waiting(unit) and self._cluster.take_turn(unit):
                unit.preload = False
                self._runs.spawn(unit, held=True)
        elif unit.state in (State.WAITING, State.BACKOFF):
            self._cluster.leave_queue(unit)
            self._cluster.cancel(unit, events.TimerKind.RESTART)
            self._cluster.go(unit, State.STOPPED, unit.down_text)

    def _evaluate_run(self, unit: Unit, run: Run) -> None:
        if run.held and unit.up and not run.doomed:
            self._evaluate_held(unit, run)
        else:
            self._cluster.leave_queue(unit)  # loaded ahead of time, it may have waited for its turn
        if not run.from_outside or run.told or run.exited:
            return
        if unit.holders:
            self._cluster.say(unit, f"{run.mark_text}; what depends on it ends first")
        else:
            self._endings.tell(unit, run)

    def _evaluate_held(self, unit: Unit, run: Run) -> None:
        if unit.blockers:
            self._cluster.leave_queue(unit)
            self._cluster.say(unit, f"loaded; waits {causes.waiting_words(unit)}")
        elif unit.name in self._cluster.starting or self._cluster.take_turn(unit):
            self._runs.release(unit, run)
        else:
            self._cluster.say(unit, f"loaded; waits {causes.turn_words(self._cluster.max_parallel)}")

    def _evaluate_waiting(self, unit: Unit) -> None:
        if unit.blockers:
            self._cluster.leave_queue(unit)
            self._cluster.say(unit, causes.waiting_words(unit))
        elif self._children.keep_waiting(unit):
            self._cluster.leave_queue(unit)
        elif self._cluster.take_turn(unit):
            unit.preload = False
            self._runs.spawn(unit)
        else:
            self._cluster.say(unit, causes.turn_words(self._cluster.max_parallel))

    # ---- views ----

    @property
    def services(self) -> Mapping[str, View]:
        """Every registered service, in the order of registration. Live: it changes with the machine."""
        return self._cluster.units

    @property
    def changed(self) -> tuple[str, ...]:
        """Whose view may read differently since the last event: with those of transitions, new causes and pids."""
        return tuple(self._cluster.changed)

    @property
    def steps(self) -> int:
        """How many evaluations of a unit there have been: the measure of what events cost."""
        return self._cluster.steps

    @property
    def open_requests(self) -> int:
        return len(self._cluster.requests) + self._updates.awaited

    @property
    def is_ending(self) -> bool:
        """Whether the cluster is shutting down, or has."""
        return self._cluster.level is not None

    def as_desired(self, name: str) -> bool:
        """Whether the service is what is wanted of it. A task that runs is."""
        unit = self._cluster.units[name]
        if not unit.up:
            return unit.run is None or (unit.run.held and not unit.run.doomed)
        return unit.state in _UP and not unit.doomed

    def settled(self) -> bool:
        """Whether nothing is on its way: no start, stop, backoff or running task."""
        return not self._cluster.moving

    def story(self, name: str) -> tuple[PublishTransition, ...]:
        """The last transitions of a service, oldest first."""
        return tuple(self._cluster.units[name].story)

    def preview(self, event: events.ConfigurationApplied) -> tuple[Step, ...]:
        """What a change of configuration would do, in order; nothing is done.

        Raises:
            CoreError: it cannot be applied
        """
        return preview(self._cluster.units, self._cluster.missed, event)

    def changes(self, limit: int) -> tuple[Transaction, ...]:
        """The last transactions that took a step, oldest first."""
        return self._cluster.ledger.last(limit)

    def change(self, transaction_id: int) -> Transaction | None:
        return self._cluster.ledger.get(transaction_id)

    def chain(self, name: str) -> tuple[View, ...]:
        """From this service to the root of where it stands: each one's standing comes from that of the next."""
        return tuple(causes.chain(self._cluster.units[name]))

    def started_along(self, names: Iterable[str]) -> tuple[str, ...]:
        """What a start of these services starts as well because they need it, in the order of starting."""
        named = {name: self._cluster.units[name] for name in names}
        needed = graph.closure(named.values())
        return tuple(unit.name for unit in needed if unit.name not in named and (not unit.up or is_over(unit)))

    def stopped_along(self, names: Iterable[str]) -> tuple[str, ...]:
        """What a stop or restart of these services stops first because it requires them, in the order of stopping."""
        named = [self._cluster.units[name] for name in names]
        skip = {unit.name for unit in named}
        return tuple(unit.name for unit in graph.stop_order(named) if unit.name not in skip)
