"""Looks after running services: one check after the other, each result told to the core.

Must not count failures nor decide what they lead to: thresholds are the core's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from svcd.protocol import messages
from svcd.supervisor.config.launch import HealthProbe, ServiceDefinition
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.patience import within
from svcd.supervisor.controller.processes.errands import Errands
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.controller.watching import checks
from svcd.supervisor.core.actions import CeaseHealthChecks, CheckHealth
from svcd.supervisor.core.events import Event, HealthChecked

AskStub = Callable[[str, int, int, str], None]
"""service, invocation, token, method: has a stub asked how it is."""


class Health:
    """Executor of ``CheckHealth`` and ``CeaseHealthChecks``. ``said`` hears what commands print."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        registry: Registry,
        errands: Errands,
        submit: Callable[[Event], None],
        ask_stub: AskStub,
        said: checks.Said = lambda service, lines: None,
    ) -> None:
        self._loop = loop
        self._registry = registry
        self._errands = errands
        self._submit = submit
        self._ask_stub = ask_stub
        self._said = said
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._answers: dict[tuple[int, int], asyncio.Future[str | None]] = {}  # by invocation and token
        self._token = 0

    def begin(self, action: CheckHealth) -> None:
        definition = self._registry[action.service]
        if definition.launch.health is not None:
            self.end(action.invocation)
            work = self._look_after(definition, definition.launch.health, action.invocation)
            self._tasks[action.invocation] = self._loop.create_task(work)

    def cease(self, action: CeaseHealthChecks) -> None:
        self.end(action.invocation)

    def end(self, invocation: int) -> None:
        """No more checks of this run."""
        task = self._tasks.pop(invocation, None)
        if task is not None:
            task.cancel()

    def close(self) -> None:
        for invocation in list(self._tasks):
            self.end(invocation)

    def take_answer(self, message: messages.HealthReported) -> None:
        """A stub says how it is."""
        answer = self._answers.get((message.invocation, message.token))
        if answer is not None and not answer.done():
            answer.set_result(None if message.healthy else message.text or "it says that it is not")

    async def _look_after(self, definition: ServiceDefinition, probe: HealthProbe, invocation: int) -> None:
        check = self._check_for(definition, probe, invocation)
        while True:
            began = self._loop.time()
            error = await check(probe.timeout_s)
            name = definition.spec.name
            self._submit(HealthChecked(clock.now(), name, invocation, error is None, error or ""))
            await asyncio.sleep(max(0.0, probe.interval_s - (self._loop.time() - began)))

    def _check_for(self, definition: ServiceDefinition, probe: HealthProbe, invocation: int) -> checks.Check:
        if probe.http is not None:
            return checks.http(probe.http)
        if probe.argv is not None:
            return checks.command(self._errands, definition, probe.argv, self._said)
        if probe.tcp_host is not None and probe.tcp_port is not None:
            return checks.tcp(probe.tcp_host, probe.tcp_port)
        return self._stub_check(definition.spec.name, invocation, probe.method or "")

    def _stub_check(self, service: str, invocation: int, method: str) -> checks.Check:
        async def check(timeout_s: float) -> str | None:
            self._token += 1
            token = self._token
            answer = self._answers[invocation, token] = self._loop.create_future()
            try:
                self._ask_stub(service, invocation, token, method)
                async with within(timeout_s):
                    error: str | None = await answer
                    return error
            except TimeoutError:
                return f"{method}(): no answer within {timeout_s:g} s"
            finally:
                del self._answers[invocation, token]

        return check
