"""Hot updates, carried out: successors are made from definitions to come, states go from run to run, routes follow.

Must not decide how far an update goes, nor when it has failed: the core does. What is in force changes with
``SwitchRun`` alone: until then the definition to come is known here and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from svcd.protocol.errors import ProtocolError
from svcd.protocol.messages import GoOn, HandedOver, HandOver, InterfaceReported, ListenersExpected, Message
from svcd.record import entity, field
from svcd.supervisor.config.launch import Program, PythonCode, ServiceDefinition
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.asking import Asking, Make, Told
from svcd.supervisor.controller.processes.runs import Run, Runs
from svcd.supervisor.controller.python.exchange import Exchange, Exported, ExportFailed
from svcd.supervisor.controller.python.interfaces import Interfaces
from svcd.supervisor.controller.python.routes import Routes
from svcd.supervisor.controller.registry import Registry
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
from svcd.supervisor.core.requests import overall
from svcd.supervisor.core.states import State

OF_SEVERAL: Final = ""  # as the id of what was several requests

Spawn = Callable[[str, int, ServiceDefinition], None]


@entity
class _Series:
    """What one client has asked for: one service after the other. ``todo``: those that have not had their turn."""

    told: Told
    forced: bool
    todo: deque[ServiceDefinition]
    results: list[ServiceResult] = field(default_factory=list)
    also: tuple[str, ...] = ()
    refusals: int = 0

    def skip_siblings(self, failed: ServiceDefinition) -> None:
        """The other instances of a service stay as they are when one could not be updated."""
        for each in tuple(self.todo):
            if each.service == failed.service:
                self.todo.remove(each)
                text = f"{each.spec.name} was not updated: {failed.spec.name} was not"
                self.results.append(ServiceResult(each.spec.name, Outcome.FAILED, text))


class Handovers:
    """``tell`` carries an order to a stub as for any run; ``switched`` makes a definition the one that is in force."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        machine: Machine,
        registry: Registry,
        runs: Runs,
        routes: Routes,
        exchange: Exchange,
        submit: Callable[[events.Event], None],
        asking: Asking,
        tell: Callable[[TellStub], None],
        tell_successor: Callable[[TellStub], None],
        send: Callable[[int, Message], None],
        spawn: Spawn,
        switched: Callable[[ServiceDefinition, SwitchRun], None],
        notice: Callable[[str, str], None],
    ) -> None:
        self._loop = loop
        self._machine = machine
        self._registry = registry
        self._runs = runs
        self._routes = routes
        self._exchange = exchange
        self._submit = submit
        self._asking = asking
        self._tell = tell
        self._tell_successor = tell_successor
        self._send = send
        self._spawn = spawn
        self._switched = switched
        self._notice = notice
        self.interfaces = Interfaces()
        self.on_taken_over: Callable[[str, int, Exported], None] = lambda service, invocation, exported: None
        self._waiting: dict[str, deque[tuple[_Series, ServiceDefinition]]] = {}  # by service whose turn is taken
        self._to_come: dict[str, ServiceDefinition] = {}
        self._successors: dict[int, ServiceDefinition] = {}  # by invocation, until it is the service
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

    def to_come(self, service: str) -> ServiceDefinition | None:
        """What it is being updated to: it will be in force, unless the update fails."""
        return self._to_come.get(service)

    def begin(
        self,
        definitions: Sequence[ServiceDefinition],
        forced: bool,
        told: Told,
        first: Make | None = None,
    ) -> None:
        """One after the other; ``told`` when all have been. ``first`` is done before them."""
        series = _Series(told, forced, deque(definitions))
        if first is None:
            self._next(series)
        else:
            self._asking.ask(first, lambda answer: self._begun(series, answer))

    def _next(self, series: _Series) -> None:
        """The next one's turn; who is being updated already is so again after that."""
        if not series.todo:
            self._end(series)
            return
        definition = series.todo.popleft()
        name = definition.spec.name
        waiting = self._waiting.get(name)
        if waiting is not None:
            waiting.append((series, definition))
            return
        self._waiting[name] = deque()
        self._update(series, definition)

    def _update(self, series: _Series, definition: ServiceDefinition) -> None:
        self._to_come[definition.spec.name] = definition
        self._asking.ask(
            lambda key: events.UpdateRequested(clock.now(), key, definition.spec, series.forced),
            lambda answer: self._updated(series, definition, answer),
        )

    def _begun(self, series: _Series, answer: AnswerRequest) -> None:
        """The end of what came before them all."""
        if answer.outcome is Outcome.REFUSED:
            series.told(answer)
            return
        series.also += answer.also
        series.results.extend(answer.results)
        self._next(series)

    def _updated(self, series: _Series, present: ServiceDefinition, answer: AnswerRequest) -> None:
        """The end of one service's update."""
        series.also += answer.also
        self._take(series, present, answer)
        self._next(series)

    def _take(self, series: _Series, present: ServiceDefinition, answer: AnswerRequest) -> None:
        name = present.spec.name
        self._to_come.pop(name, None)
        self._states.pop(name, None)
        if answer.outcome is Outcome.REFUSED:
            series.refusals += 1
            series.results.append(ServiceResult(name, Outcome.FAILED, answer.text))
        else:
            series.results.extend(answer.results)
        if answer.outcome is not Outcome.DONE:
            series.skip_siblings(present)
        waiting = self._waiting[name]
        if waiting:
            self._update(*waiting.popleft())
        else:
            del self._waiting[name]

    def _end(self, series: _Series) -> None:
        """All have been."""
        results = tuple(series.results)
        text = "; ".join(dict.fromkeys(each.text for each in results if each.text))
        outcome = Outcome.REFUSED if results and series.refusals == len(results) else overall(results)
        series.told(AnswerRequest(OF_SEVERAL, outcome, results, series.also, text))

    # ---- what the core orders ----------------------------------------------------------------------------------------

    def _spawn_successor(self, action: SpawnSuccessor) -> None:
        definition = self._successors[action.invocation] = self._to_come[action.service]
        self._spawn(action.service, action.invocation, definition)
        run = self._runs.get(action.invocation)
        if run is not None:
            run.clean_up.append(lambda: self._ended(action.invocation))
        else:
            self._ended(action.invocation)

    def _ended(self, invocation: int) -> None:
        """Nothing of that run is left."""
        self._successors.pop(invocation, None)

    def _switch(self, action: SwitchRun) -> None:
        definition = self._successors.pop(action.invocation)
        exported = self._states.pop(action.service, None)
        self._to_come.pop(action.service, None)
        self._switched(definition, action)
        self._routes.switched(action.service, action.invocation)
        if exported is not None and definition.launch.state.keep:
            self.on_taken_over(action.service, action.invocation, exported)

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
        return self._successors.get(run.invocation) or self._registry[run.service]

    def is_successor(self, invocation: int) -> bool:
        """Whether this run is to take over from another, and has not yet."""
        return invocation in self._successors

    # ---- what stubs say ----------------------------------------------------------------------------------------------

    def described(self, message: InterfaceReported) -> None:
        """What this run offers is known as long as there is something of it; what it will miss is told, of a successor
        what the one before did not miss.
        """
        run = self._runs.get(message.invocation)
        if run is not None:
            serving = self._machine.services[run.service].invocation if run.invocation in self._successors else None
            before = () if serving is None else self.interfaces.topics_of(serving)
            for text in self._routes.unheard(run.service, (each for each in message.listens if each not in before)):
                self._notice(run.service, text)
            self.interfaces.reported(message)
            run.clean_up.append(lambda: self.interfaces.forget(message.invocation))

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
            self._expect(message)
            self._do(self._export(message))

    def _expect(self, message: HandedOver) -> None:
        """Its successor keeps events for who has listened to it, until they listen there."""
        for invocation, definition in self._successors.items():
            if definition.spec.name == message.service and message.listeners:
                self._send(invocation, ListenersExpected(invocation, message.listeners))

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
        exported = self._states.get(action.service)
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
