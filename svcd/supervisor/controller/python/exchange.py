"""Exported states on their way from stubs and to stubs: asked for, put together, handed on.

Must not keep one: whoever asks for a state gets it, and what comes unasked goes to ``on_unasked``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from svcd.protocol.errors import ProtocolError
from svcd.protocol.limits import MAX_OMITTED
from svcd.protocol.messages import ExportState, ImportState, Message, StateExported
from svcd.protocol.state_parts import Assembly, parts_of
from svcd.record import record
from svcd.supervisor.controller.patience import within
from svcd.supervisor.controller.processes.runs import Runs
from svcd.supervisor.controller.registry import Registry

EXPORT_TIMEOUT_S: Final = 30.0
WORDS_LENGTH: Final = 300


class ExportFailed(Exception):  # noqa: N818 - it says what happened
    """No state came. The text says why."""


@record
class Exported:
    """``state`` None: the service has none. ``version``: of the service. ``omitted``: what was left out, and why."""

    state: bytes | None
    version: str | None = None
    omitted: tuple[str, ...] = ()


Unasked = Callable[[str, int, int, "Exported | ExportFailed"], None]
"""service, invocation, token, what came."""


class Exchange:
    """``send`` says a message to the stub of an invocation, and nothing where there is none."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, runs: Runs, registry: Registry, send: Callable[[int, Message], None]
    ) -> None:
        self._loop = loop
        self._runs = runs
        self._registry = registry
        self._send = send
        self.on_unasked: Unasked = lambda service, invocation, token, exported: None
        self._token = 0
        self._waiting: dict[tuple[int, int], asyncio.Future[Exported]] = {}  # by invocation and token
        self._assemblies: dict[int, dict[int, Assembly]] = {}

    async def export(self, invocation: int, timeout_s: float = EXPORT_TIMEOUT_S) -> Exported:
        """Have a running service export its state; it goes on. Raises ``ExportFailed``, also when it ends meanwhile."""
        self._token += 1
        key = invocation, self._token
        answer: asyncio.Future[Exported] = self._loop.create_future()
        self._waiting[key] = answer
        try:
            if not self._follow(invocation):
                raise ExportFailed("it does not run")
            self._send(invocation, ExportState(invocation, self._token))
            async with within(timeout_s):
                return await answer
        except TimeoutError:
            raise ExportFailed(f"export_state(): no answer within {timeout_s:g} s") from None
        finally:
            del self._waiting[key]
            self._assemblies.get(invocation, {}).pop(key[1], None)

    def import_into(self, invocation: int, state: bytes, version: str | None) -> None:
        """Hand a state over, to be imported before the ``start`` of that run. To be followed by the order to start.

        Raises ``MessageTooLarge``.
        """
        parts = parts_of(state)
        for index, part in enumerate(parts):
            self._send(invocation, ImportState(invocation, index, len(parts), part, version))

    def receive(self, message: StateExported) -> None:
        """A part of a state, from the stub that it belongs to."""
        key = message.invocation, message.token
        if message.token >= 0 and key not in self._waiting:  # nobody waits any more
            return
        definition = self._registry.get(message.service)
        if definition is None or not self._follow(message.invocation):
            return
        outcome: Exported | ExportFailed | None
        if message.error is not None:
            outcome = ExportFailed(message.error[:WORDS_LENGTH])
        elif message.parts == 0:
            outcome = Exported(None)
        else:
            outcome = self._assembled(message, definition.launch.version)
        if outcome is not None:
            self._assemblies.get(message.invocation, {}).pop(message.token, None)
            self._hand_on(message, outcome)

    def _assembled(self, message: StateExported, version: str | None) -> Exported | ExportFailed | None:
        mine = self._assemblies.setdefault(message.invocation, {})
        if message.token < 0:  # unasked, one at a time
            for token in [each for each in mine if each < 0 and each != message.token]:
                del mine[token]
        assembly = mine.setdefault(message.token, Assembly())
        try:
            state = assembly.add(message.part, message.parts, message.data)
        except ProtocolError as error:
            return ExportFailed(str(error))
        if state is None:
            return None
        omitted = tuple(each[:WORDS_LENGTH] for each in message.omitted[: MAX_OMITTED + 1])
        return Exported(state, version, omitted)

    def _hand_on(self, message: StateExported, outcome: Exported | ExportFailed) -> None:
        if message.token < 0:
            self.on_unasked(message.service, message.invocation, message.token, outcome)
            return
        answer = self._waiting[message.invocation, message.token]
        if answer.done():
            return
        if isinstance(outcome, ExportFailed):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    def _follow(self, invocation: int) -> bool:
        """Hear of the end of this run; whether there is such a run."""
        run = self._runs.get(invocation)
        if run is not None and invocation not in self._assemblies:
            self._assemblies[invocation] = {}
            run.clean_up.append(lambda: self._ended(invocation))
        return run is not None

    def _ended(self, invocation: int) -> None:
        self._assemblies.pop(invocation, None)
        for (one, _), answer in self._waiting.items():
            if one == invocation and not answer.done():
                answer.set_exception(ExportFailed("it ended before it had exported its state"))
