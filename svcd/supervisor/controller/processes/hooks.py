"""A service's own commands at the moments that the core names: what they find in their environment, and what came of
them.

Must not decide what a failure means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from svcd.supervisor.controller import clock
from svcd.supervisor.controller.processes.errands import Errand, Errands
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core.actions import KillHook, RunHook
from svcd.supervisor.core.events import Event, ExitStatus, HookEnded
from svcd.supervisor.core.machine import Machine
from svcd.supervisor.core.spec import Hook

AFTER_THE_END: Final = frozenset({Hook.POST_STOP, Hook.ON_FAILURE})

Key = tuple[int, Hook]


class Hooks:
    """Executor of ``RunHook`` and ``KillHook``. ``status_of``: how a run of a service has ended, if it has run."""

    def __init__(
        self,
        errands: Errands,
        registry: Registry,
        machine: Machine,
        submit: Callable[[Event], None],
        status_of: Callable[[str, int], ExitStatus | None],
        notice: Callable[[str, str], None],
    ) -> None:
        self._errands = errands
        self._registry = registry
        self._machine = machine
        self._submit = submit
        self._status_of = status_of
        self._notice = notice
        self._running: dict[Key, Errand] = {}
        self._when_none: Callable[[], None] | None = None

    def run(self, action: RunHook) -> None:
        definition = self._registry[action.service]
        command = definition.launch.hooks[action.hook.value]
        key = (action.invocation, action.hook)
        self._running[key] = self._errands.run(
            definition,
            command.argv,
            command.timeout_s,
            self._environment(action),
            lambda error: self._ended(action, error),
            output=True,
        )

    def kill(self, action: KillHook) -> None:
        errand = self._running.get((action.invocation, action.hook))
        if errand is not None:
            errand.kill()

    def kill_all(self) -> None:
        for errand in list(self._running.values()):
            errand.kill()

    def when_none(self, then: Callable[[], None]) -> None:
        """Call ``then`` once no hook runs: who is told last of a failure is not cut short by the cluster's end."""
        self._when_none = then
        self._look_for_the_end()

    def _look_for_the_end(self) -> None:
        if self._when_none is not None and not self._running:
            then, self._when_none = self._when_none, None
            then()

    def _environment(self, action: RunHook) -> dict[str, str]:
        pid = self._machine.services[action.service].pid
        found = {
            "SVCD_HOOK": action.hook.value,
            "SVCD_INVOCATION": str(action.invocation),
            "SVCD_CAUSE": action.cause,
            "SVCD_PID": "" if pid is None else str(pid),
        }
        status = self._status_of(action.service, action.invocation) if action.hook in AFTER_THE_END else None
        if status is not None and status.signal is not None:
            found["SVCD_EXIT_SIGNAL"] = str(status.signal)
        elif status is not None:
            found["SVCD_EXIT_CODE"] = str(status.code)
        return found

    def _ended(self, action: RunHook, error: str | None) -> None:
        self._running.pop((action.invocation, action.hook), None)
        if action.hook is not Hook.ON_FAILURE:
            self._submit(HookEnded(clock.now(), action.service, action.invocation, action.hook, error, clock.jitter()))
        elif error is not None:
            self._notice(action.service, f"{action.hook.value} hook: {error}")
        self._look_for_the_end()
