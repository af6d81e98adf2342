"""The connected stubs: which connection speaks for which run, checked against the process that was spawned.

Must not decide what a stub is to do: it carries the core's orders to it and its words to the core.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from svcd.protocol import messages
from svcd.supervisor.config.launch import PythonCode, ServiceDefinition
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.control import Control, Peer
from svcd.supervisor.controller.processes.runs import Run, Runs
from svcd.supervisor.controller.python.endpoints import Endpoints
from svcd.supervisor.controller.python.routes import Routes
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core.actions import StubOrder, TellStub
from svcd.supervisor.core.events import (
    DrainProgressed,
    EndpointOpened,
    Event,
    StubConnected,
    StubPhase,
    StubReported,
    WatchdogPinged,
)

PHASES: Final = {phase.value: phase for phase in StubPhase}
EARLY_LIMIT: Final = 16  # claims that are kept until the spawned pid is known


class Stubs:
    """Maps routes to runs and back. What is for others than the core goes to whoever ``hears`` it."""

    def __init__(
        self,
        control: Control,
        runs: Runs,
        registry: Registry,
        submit: Callable[[Event], None],
        endpoints: Endpoints,
        routes: Routes,
    ) -> None:
        self._control = control
        self._runs = runs
        self._registry = registry
        self._submit = submit
        self._endpoints = endpoints
        self._routes = routes
        self._route_of: dict[int, bytes] = {}
        self._run_of: dict[bytes, Run] = {}
        self._frozen: set[int] = set()
        self.definition_of: Callable[[Run], ServiceDefinition] = lambda run: registry[run.service]
        self.is_successor: Callable[[int], bool] = lambda invocation: False
        self.on_loaded: Callable[[Run], None] = lambda run: None
        self._early: dict[int, dict[int, Peer]] = {}
        self.rejected: Counter[str] = Counter()
        self.receivers: dict[type, Callable[[Peer, Any], None]] = {
            messages.RemoteReady: self._on_ready,
            messages.StateChanged: self._on_state,
            messages.LoopAlive: lambda peer, message: self._record(peer, message, self._on_alive),
            messages.EndpointOpened: lambda peer, message: self._record(peer, message, self._on_endpoint),
            messages.DrainProgress: lambda peer, message: self._record(peer, message, self._on_progress),
            messages.Pong: lambda peer, message: None,
            messages.EndAnnounced: lambda peer, message: self._record(peer, message, self._on_end),
        }

    def hears(self, kind: type[messages.Message], receive: Callable[[Any], None]) -> None:
        """``receive`` gets what stubs say of this kind, each of its own run."""
        self.receivers[kind] = lambda peer, message: self._record(peer, message, receive)

    # ---- what stubs say ------------------------------------------------------------------------------------------

    def _on_ready(self, peer: Peer, message: messages.RemoteReady) -> None:
        """A stub came. Its pid must be the one that we spawned; if we have not heard of that yet, it waits."""
        run = self._runs.get(message.invocation)
        if run is None or run.service != message.service:
            self.rejected["foreign stub"] += 1
            return
        if run.pid is None:
            early = self._early.setdefault(message.invocation, {})
            if len(early) < EARLY_LIMIT:
                early[peer.pid] = peer
            return
        if run.pid != peer.pid:
            self.rejected["foreign stub"] += 1
            return
        known = self._route_of.get(run.invocation)
        if known is not None:
            self._run_of.pop(known, None)
        else:
            run.clean_up.append(lambda: self._forget(run.invocation))
        self._route_of[run.invocation] = peer.route
        self._run_of[peer.route] = run
        if known is not None:
            self.send(run.invocation, messages.Welcome(run.invocation))
            self._routes.joined(run.service, run.invocation)
        else:
            self._submit(StubConnected(clock.now(), run.service, run.invocation))

    def spawned(self, run: Run) -> None:
        """The run's pid is known now: a stub that was quicker than that news is let in."""
        early = self._early.pop(run.invocation, {})
        peer = None if run.pid is None else early.get(run.pid)
        if peer is not None:
            self._on_ready(peer, messages.RemoteReady(run.service, run.invocation, peer.pid, ""))

    def _on_state(self, peer: Peer, message: messages.StateChanged) -> None:
        run, phase = self._speaker(peer, message.invocation), PHASES.get(message.state)
        if run is None or phase is None:
            self.rejected["not its own" if run is None else "unknown state"] += 1
            return
        self._submit(StubReported(clock.now(), run.service, run.invocation, phase, message.error))
        if phase is StubPhase.LOADED:
            self.on_loaded(run)

    def _record(self, peer: Peer, message: Any, receive: Callable[[Any], None]) -> None:
        run = self._speaker(peer, message.invocation)
        if run is None or run.service != message.service:
            self.rejected["not its own"] += 1
            return
        receive(message)

    def _on_alive(self, message: messages.LoopAlive) -> None:
        self._submit(WatchdogPinged(clock.now(), message.service, message.invocation))

    def _on_endpoint(self, message: messages.EndpointOpened) -> None:
        """It is where we have said, whatever the stub may say."""
        run = self._runs.get(message.invocation)
        if run is None or run.pid is None:
            return
        calls, events = (str(self._endpoints.place(message.invocation, name)) for name in ("calls", "events"))
        route = messages.Route(calls if message.calls else "", events if message.events else "", run.pid, message.safe)
        self._routes.opened(run.service, run.invocation, route)
        if message.calls:
            self._submit(EndpointOpened(clock.now(), run.service, run.invocation))

    def _on_end(self, message: messages.EndAnnounced) -> None:
        self.send(message.invocation, messages.EndNoted(message.invocation))

    def _on_progress(self, message: messages.DrainProgress) -> None:
        count = max(0, message.in_flight)
        self._submit(DrainProgressed(clock.now(), message.service, message.invocation, count))

    def _speaker(self, peer: Peer, invocation: int) -> Run | None:
        run = self._run_of.get(peer.route)
        return run if run is not None and run.invocation == invocation else None

    def hear_last_words(self, invocation: int) -> None:
        """Its process has ended: what it said before comes before that."""
        if invocation in self._route_of:
            self._control.hear_out()

    def never_spoke(self, service: str, invocation: int) -> str | None:
        """The interpreter of its own that this run had, if our code in it was never heard of."""
        known = self._runs.get(invocation)
        if known is None or self._registry.get(service) is None or invocation in self._route_of:
            return None
        run = self.definition_of(known).launch.run
        return run.interpreter if isinstance(run, PythonCode) else None

    def _forget(self, invocation: int) -> None:
        self._early.pop(invocation, None)
        self._frozen.discard(invocation)
        self._routes.closed(invocation)
        self._endpoints.remove(invocation)
        route = self._route_of.pop(invocation, None)
        if route is not None:
            self._run_of.pop(route, None)

    # ---- what stubs are told ---------------------------------------------------------------------------------------

    def check_health(self, invocation: int, token: int, method: str) -> None:
        """Have the service's own method called; its ``HealthReported`` goes to ``on_health``."""
        self.send(invocation, messages.CheckHealth(invocation, token, method))

    def tell(self, action: TellStub) -> None:
        """Carry an order. A script has no code for a pause: it is stopped and continued by signal."""
        known = self._runs.get(action.invocation)
        if known is None:  # it has ended
            return
        run = self.definition_of(known).launch.run
        if isinstance(run, PythonCode) and run.script is not None:
            if action.order in (StubOrder.PAUSE, StubOrder.RESUME):
                self._freeze(action, action.order is StubOrder.PAUSE)
                return
            if action.order is StubOrder.STOP and action.invocation in self._frozen:
                self._runs.send_signal(action.invocation, signal.SIGCONT, group=True)
        self.send(action.invocation, self._message_for(action, known))
        if action.order is StubOrder.LOAD:
            self._routes.joined(action.service, action.invocation)

    def _freeze(self, action: TellStub, frozen: bool) -> None:
        self._runs.send_signal(action.invocation, signal.SIGSTOP if frozen else signal.SIGCONT, group=True)
        (self._frozen.add if frozen else self._frozen.discard)(action.invocation)
        phase = StubPhase.PAUSED if frozen else StubPhase.RUNNING
        self._submit(StubReported(clock.now(), action.service, action.invocation, phase))

    def _message_for(self, action: TellStub, known: Run) -> messages.Message:
        if action.order is StubOrder.LOAD:
            return self._spec_message(action.service, action.invocation, self.definition_of(known))
        if action.order is StubOrder.DRAIN:
            stop = self._registry[action.service].spec.stop
            return messages.Drain(action.invocation, action.reason, stop.drain_grace_s, stop.drain_timeout_s)
        if action.order is StubOrder.INIT:
            return messages.Init(action.invocation)
        if action.order is StubOrder.START:
            return messages.Start(action.invocation)
        if action.order is StubOrder.PAUSE:
            return messages.Pause(action.invocation)
        if action.order is StubOrder.RESUME:
            return messages.Resume(action.invocation)
        return messages.Stop(action.invocation, action.reason)

    def _spec_message(self, service: str, invocation: int, definition: ServiceDefinition) -> messages.ServiceSpec:
        run = definition.launch.run
        if not isinstance(run, PythonCode):
            raise TypeError(f"{service} is no Python service")
        return messages.ServiceSpec(
            service=service,
            invocation=invocation,
            entry=run.entry,
            script=run.script,
            code=run.code,
            path=run.path,
            config=run.config,
            controller_timeout_s=self._registry.cluster.controller_timeout_s,
            stop_timeout_s=definition.spec.stop.timeout_s,
            watchdog_s=definition.spec.watchdog_s,
            heard=self._routes.is_heard(definition.service or service),
            parent=definition.spec.parent,
            endpoint=str(self._endpoints.make(invocation, definition.launch.uid, definition.launch.gid)),
            runtime={**run.runtime, **run.runtime_variables},
            record_imports=run.preload_auto,
            keep_state=definition.launch.state.keep,
            export_every_s=definition.launch.state.every_s if definition.launch.state.keep else 0.0,
            version=definition.launch.version,
            takes_over=self.is_successor(invocation),
        )

    def send(self, invocation: int, message: messages.Message) -> None:
        """To the stub of that run, if it is connected."""
        route = self._route_of.get(invocation)
        if route is not None:
            self._control.send(route, b"", message)
