"""Hot updates, carried out: successors are made from definitions to come, states go from run to run, routes follow.

Must not decide how far an update goes, nor when it has failed: the core does. What is in force changes with
``SwitchRun`` alone: until then the definition to come is known here and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from svcd.protocol.errors import ProtocolError
from svcd.protocol.messages import GoOn, HandedOver, HandOver, Message
from svcd.supervisor.config.launch import Program, PythonCode, ServiceDefinition
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.exchange import Exchange, Exported, ExportFailed
from svcd.supervisor.controller.interfaces import Interfaces
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.controller.routes import Routes
from svcd.supervisor.controller.runs import Run, Runs
from svcd.supervisor.core import events
from svcd.supervisor.core.actions import (
    AnswerRequest,
    HoldRoutes,
    Outcome,
    ReleaseRoutes,
    ServiceResult,
    SpawnSuccessor,
    StubOrder,
    SwitchRun,
    TellStub,
)
from svcd.supervisor.core.machine import Machine
from svcd.supervisor.core.states import State

PREFIX: Final = "update-"

Spawn = Callable[[str, int, ServiceDefinition], None]
Answer = Callable[[AnswerRequest], None]


@dataclass(slots=True)
class _Series:
    """What one client has asked for: one service after the other. ``todo``: those that have not had their turn."""

    key: str
    forced: bool
    todo: list[ServiceDefinition]
    results: list[ServiceResult] = field(default_factory=list)


class Handovers:
    """``tell`` carries an order to a stub as for any run; ``adopted`` makes a definition the one that is in force."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        machine: Machine,
        registry: Registry,
        runs: Runs,
        routes: Routes,
        exchange: Exchange,
        submit: Callable[[events.Event], None],
        tell: Callable[[TellStub], None],
        tell_successor: Callable[[TellStub], None],
        send: Callable[[int, Message], None],
        spawn: Spawn,
        switched: Callable[[ServiceDefinition, SwitchRun], None],
        notice: Callable[[str, str], None],
        answer: Answer,
    ) -> None:
        self._loop = loop
        self._machine = machine
        self._registry = registry
        self._runs = runs
        self._routes = routes
        self._exchange = exchange
        self._submit = submit
        self._tell = tell
        self._tell_successor = tell_successor
        self._send = send
        self._spawn = spawn
        self._switched = switched
        self._notice = notice
        self._answer = answer
        self.interfaces = Interfaces()
        self._count = 0
        self._series: dict[str, _Series] = {}
        self._to_come: dict[str, ServiceDefinition] = {}
        self._successors: dict[int, str] = {}  # invocation -> service
        self._states: dict[str, Exported] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself only remembers tasks weakly
        self.executors: dict[type, Callable[[Any], None]] = {
            SpawnSuccessor: self._spawn_successor,
            SwitchRun: self._switch,
            HoldRoutes: lambda action: routes.hold(action.service, True),
            ReleaseRoutes: lambda action: routes.hold(action.service, False),
        }

    # ---- what is asked for -------------------------------------------------------------------------------------------

    def can_take_over(self, new: ServiceDefinition) -> bool:
        """Whether a run of this definition could take over from the one that serves now."""
        old = self._registry.get(new.spec.name)
        view = self._machine.services.get(new.spec.name)
        if old is None or view is None or view.state is not State.RUNNING or view.desired != "up":
            return False
        before, after = old.launch.run, new.launch.run
        if isinstance(before, PythonCode) and isinstance(after, PythonCode):
            return before.script is None and after.script is None and not view.spec.scheduled
        both = isinstance(before, Program) and isinstance(after, Program)
        return both and bool(old.launch.sockets) and old.launch.sockets == new.launch.sockets

    def begin(self, key: str, definitions: Sequence[ServiceDefinition], forced: bool) -> None:
        """One after the other; ``key``: of the request, which is answered when all have been, or one has failed."""
        self._next(_Series(key, forced, list(definitions)))

    def _next(self, series: _Series) -> None:
        definition = series.todo.pop(0)
        name = definition.spec.name
        self._count += 1
        key = f"{PREFIX}{self._count}"
        self._series[key] = series
        if name not in self._to_come:  # else it is refused, and what it is being updated to stays
            self._to_come[name] = definition
        self._submit(events.UpdateRequested(clock.now(), key, definition.spec, series.forced))

    @staticmethod
    def owns(request: str) -> bool:
        return request.startswith(PREFIX)

    def answer(self, action: AnswerRequest) -> None:
        """The end of one service's update."""
        series = self._series.pop(action.request)
        results = action.results or (ServiceResult(action.text, Outcome.FAILED, action.text),)
        if action.outcome is Outcome.REFUSED:
            name = action.text.removeprefix("cannot update ").partition(":")[0]
            results = (ServiceResult(name, Outcome.FAILED, action.text),)
        series.results.extend(results)
        if action.outcome is Outcome.DONE and series.todo:
            self._next(series)
            return
        for each in series.todo:
            text = f"{each.spec.name} was not updated: {results[-1].service} was not"
            series.results.append(ServiceResult(each.spec.name, Outcome.FAILED, text))
        text = "; ".join(each.text for each in series.results if each.text)
        self._answer(AnswerRequest(series.key, action.outcome, tuple(series.results), text=text))

    # ---- what the core orders ----------------------------------------------------------------------------------------

    def _spawn_successor(self, action: SpawnSuccessor) -> None:
        self._successors[action.invocation] = action.service
        self._spawn(action.service, action.invocation, self._to_come[action.service])
        run = self._runs.get(action.invocation)
        if run is not None:
            run.clean_up.append(lambda: self._ended(action.service, action.invocation))
        else:
            self._ended(action.service, action.invocation)

    def _ended(self, service: str, invocation: int) -> None:
        """Nothing of that run is left."""
        self.interfaces.forget(invocation)
        if self._successors.pop(invocation, None) is not None:
            self._to_come.pop(service, None)
            self._states.pop(service, None)

    def _switch(self, action: SwitchRun) -> None:
        self._successors.pop(action.invocation, None)
        self._states.pop(action.service, None)
        definition = self._to_come.pop(action.service)
        self._switched(definition, action)
        self._routes.switched(action.service, action.invocation)

    def tell(self, action: TellStub) -> None:
        """Executor of ``TellStub``: what belongs to an update is done here, everything else as ever."""
        if action.order is StubOrder.HAND_OVER:
            timeout_s = self._registry[action.service].spec.stop.drain_timeout_s
            self._send(action.invocation, HandOver(action.invocation, action.reason, timeout_s))
        elif action.order is StubOrder.GO_ON:
            self._send(action.invocation, GoOn(action.invocation))
        elif action.order is StubOrder.IMPORT:
            self._import(action)
        elif action.invocation in self._successors:
            self._tell_successor(action)  # its state does not come from a file
        else:
            self._tell(action)

    def definition_of(self, run: Run) -> ServiceDefinition:
        """What this run was made from."""
        is_successor = run.invocation in self._successors
        return self._to_come[run.service] if is_successor else self._registry[run.service]

    # ---- what stubs say ----------------------------------------------------------------------------------------------

    def loaded(self, run: Run) -> None:
        """Its code was imported: a successor's interface is compared with that of the run it is to replace."""
        if run.invocation in self._successors:
            serving = self._machine.services[run.service].invocation or 0
            differences = self.interfaces.differences(serving, run.invocation)
            self._submit(events.InterfaceChecked(clock.now(), run.service, run.invocation, differences))

    def handed_over(self, message: HandedOver) -> None:
        """The old run rests, or cannot: its state is next."""
        if message.error is not None:
            self._report(message, message.error)
        else:
            self._do(self._export(message))

    async def _export(self, message: HandedOver) -> None:
        try:
            exported = await self._exchange.export(message.invocation)
        except ExportFailed as failed:
            self._report(message, str(failed))
            return
        if message.service not in self._to_come:  # given up meanwhile
            return
        self._states[message.service] = exported
        if exported.omitted:
            self._notice(message.service, f"its state is handed over without {', '.join(exported.omitted)}")
        self._report(message, None)

    def _report(self, message: HandedOver, error: str | None) -> None:
        self._submit(events.HandedOver(clock.now(), message.service, message.invocation, error))

    def _import(self, action: TellStub) -> None:
        exported = self._states.pop(action.service, None)
        if exported is None or exported.state is None:
            return
        try:
            self._exchange.import_into(action.invocation, exported.state, exported.version)
        except ProtocolError as error:  # it was small enough to come, so it is small enough to go
            self._notice(action.service, f"its state cannot be handed over: {error}")

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
