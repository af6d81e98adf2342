"""How the cluster comes to its end: asked for, more and more urgently; then the last hooks and the last output.

Must not end a service (the core does, in order), nor close what the daemon has opened.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Final

from svcd.supervisor import wiring
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.asking import Asking, Told
from svcd.supervisor.controller.parts import Parts
from svcd.supervisor.controller.patience import Deadline
from svcd.supervisor.controller.processes.errands import Errands
from svcd.supervisor.controller.processes.hooks import Hooks
from svcd.supervisor.core.actions import AnswerRequest, EndCluster
from svcd.supervisor.core.events import ShutdownLevel, ShutdownRequested

COLLECTOR: Final = "collector"
EVERYTHING: Final = ""  # as the service of a FlushRequested
LAST_FLUSH_S: Final = 1.0
LAST_ERRAND_S: Final = 5.0  # for killed ones to be gone
HURRIED_HOOK_S: Final = 1.0


class Shutdown:
    """``enter`` says that the cluster as a whole goes on to a state. ``ended`` is done when there is nothing left to
    wait for; ``exit_code`` is the cluster's then.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        asking: Asking,
        errands: Errands,
        hooks: Hooks,
        parts: Parts,
        enter: Callable[[str, str], None],
    ) -> None:
        self._loop = loop
        self._asking = asking
        self._errands = errands
        self._hooks = hooks
        self._parts = parts
        self._enter = enter
        self._signals = 0
        self.ended: asyncio.Future[None] = loop.create_future()
        self.exit_code = 0

    def on_signal(self, number: int) -> None:
        """SIGTERM or SIGINT: the second one is in a hurry, the third one kills."""
        self._signals += 1
        level = ShutdownLevel(min(self._signals, ShutdownLevel.KILL.value))
        self.begin(level, signal.Signals(number).name, _nobody_waits)

    def begin(self, level: ShutdownLevel, by: str, told: Told) -> None:
        self._enter("stopping", f"asked by {by}")
        self._asking.ask(lambda key: ShutdownRequested(clock.now(), key, level), told)
        if level is not ShutdownLevel.DRAIN:
            delay_s = 0.0 if level is ShutdownLevel.KILL else HURRIED_HOOK_S
            self._loop.call_later(delay_s, self._hooks.kill_all)

    def end(self, action: EndCluster) -> None:
        """Nothing runs any more, but perhaps what tells somebody of it: on_failure hooks."""
        self.exit_code = action.exit_code
        self._hooks.when_none(self._end_errands)

    def _end_errands(self) -> None:
        Deadline(self._loop, LAST_ERRAND_S, self._last_flush)
        self._errands.end(self._last_flush)

    def _last_flush(self) -> None:
        """Let the collector write out what the pipes still hold, then say so and go."""
        self._parts.send(COLLECTOR, wiring.FlushRequested(0, EVERYTHING, 0))
        Deadline(self._loop, LAST_FLUSH_S, self.finish)

    def finish(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


def _nobody_waits(_answer: AnswerRequest) -> None:
    """Who sends a signal is told nothing."""
