"""Short commands on a service's behalf: hooks, and the commands that check readiness and health.

Must not decide what their outcome means, and must not start anything by itself: errands are spawned by the launcher,
are children of the guardian and are contained, as every run is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from svcd.supervisor.config.launch import ServiceDefinition
from svcd.supervisor.controller import launching
from svcd.supervisor.controller.containment import Containment
from svcd.supervisor.controller.parts import Parts
from svcd.supervisor.controller.runs import Run, Runs
from svcd.supervisor.core.causes import exit_words, seconds
from svcd.supervisor.core.events import LeftoversGone, ProcessExited, SpawnFailed

FIRST_INVOCATION: Final = 1 << 40
"""Errands are numbered from here on, so that nobody takes one for a run."""

Done = Callable[[str | None], None]


@dataclass(slots=True, eq=False)
class Errand:
    """One command that runs. ``done`` is called once: with None for exit code 0, else with what went wrong."""

    invocation: int
    program: str
    done: Done
    kill: Callable[[], None]
    timer: asyncio.TimerHandle | None = None
    killed: str = ""


class Errands:
    """All errands. ``runs`` hears of their processes what ``Runs`` hears of those of services."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        parts: Parts,
        containment: Containment,
        mains: set[int],
        around: launching.Surroundings,
        run_id: str,
    ) -> None:
        self._loop = loop
        self._parts = parts
        self._around = around
        self._run_id = run_id
        self._next = FIRST_INVOCATION
        self._open: dict[int, Errand] = {}
        self._when_none: Callable[[], None] | None = None
        self.runs = Runs(self._hear, containment, mains)

    def __len__(self) -> int:
        return len(self._open)

    @staticmethod
    def owns(invocation: int | None) -> bool:
        return invocation is not None and invocation >= FIRST_INVOCATION

    def run(
        self,
        definition: ServiceDefinition,
        argv: tuple[str, ...],
        timeout_s: float,
        environment: dict[str, str],
        done: Done,
        output: bool,
    ) -> Errand:
        """Run ``argv`` as ``definition``'s service would run: its user, environment and directory.

        Args:
            timeout_s: after so many seconds everything of it gets SIGKILL
            environment: variables beyond the service's own
            output: into the service's log files; otherwise nowhere
        """
        self._next += 1
        invocation, name = self._next, definition.spec.name
        errand = Errand(invocation, argv[0], done, lambda: self._kill(invocation, "killed"))
        self._open[invocation] = errand
        mark = f"{self._run_id}-{invocation}"
        try:
            cgroup = self.runs.open(Run(name, invocation, mark, launching.LAUNCHER))
            order = launching.errand_order(
                definition, argv, invocation, mark, cgroup, environment, output, self._around
            )
            self._parts.send(launching.LAUNCHER, order)
        except OSError as error:  # no cgroup, or no descriptor for a long order
            self._loop.call_soon(self.runs.rejected, invocation, error.strerror or str(error), False)
            return errand
        words = f"no end within {seconds(timeout_s)}: killed"
        errand.timer = self._loop.call_later(timeout_s, self._kill, invocation, words)
        return errand

    def end(self, then: Callable[[], None]) -> None:
        """Nobody waits any more: kill them all, and call ``then`` when nothing of them is left."""
        for errand in list(self._open.values()):
            errand.done = _nobody
            errand.kill()
        self._when_none = then
        self._look_for_the_end()

    def _look_for_the_end(self) -> None:
        if self._when_none is not None and len(self.runs) == 0:
            then, self._when_none = self._when_none, None
            then()

    def _kill(self, invocation: int, words: str) -> None:
        errand = self._open.get(invocation)
        if errand is None or errand.killed:
            return
        errand.killed = words
        self.runs.kill(invocation)

    def _hear(self, event: Any) -> None:
        if isinstance(event, SpawnFailed):
            self._failed(event)
        elif isinstance(event, ProcessExited):
            if event.leftovers:
                self.runs.kill(event.invocation)
            errand = self._open.get(event.invocation)
            words = errand.killed if errand is not None else ""
            ok = event.status.code == 0
            self._end(event.invocation, words or (None if ok else exit_words(event.status)))
        elif not isinstance(event, LeftoversGone):
            self._began(event.invocation)
        self._look_for_the_end()

    def _failed(self, event: SpawnFailed) -> None:
        errand = self._open.get(event.invocation)
        if errand is not None:
            reason = event.reason.removeprefix(f"cannot execute {errand.program}: ")
            self._end(event.invocation, f"cannot run {errand.program}: {reason}")

    def _began(self, invocation: int) -> None:
        errand = self._open.get(invocation)
        if errand is not None and errand.killed:  # before there was anything to kill
            self.runs.kill(invocation)

    def _end(self, invocation: int, error: str | None) -> None:
        errand = self._open.pop(invocation, None)
        if errand is None:
            return
        if errand.timer is not None:
            errand.timer.cancel()
        errand.done(error)


def _nobody(error: str | None) -> None:
    """Whoever waited is gone."""
