"""Short commands on a service's behalf: hooks, and the commands that check readiness and health.

Must not decide what their outcome means, and must not start anything by itself: errands are spawned by the launcher,
are children of the guardian and are contained, as every run is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from svcd.record import entity
from svcd.supervisor.config.launch import ServiceDefinition
from svcd.supervisor.controller.parts import Parts
from svcd.supervisor.controller.patience import Deadline
from svcd.supervisor.controller.processes import launching
from svcd.supervisor.controller.processes.containment import Containment
from svcd.supervisor.controller.processes.runs import Run, Runs
from svcd.supervisor.core.causes import exit_words, seconds
from svcd.supervisor.core.events import LeftoversGone, ProcessExited, SpawnFailed

FIRST_INVOCATION: Final = 1 << 40
"""Errands are numbered from here on, so that nobody takes one for a run."""

KILL_GRACE_S: Final = 2.0
STANDARD: Final = (1, 2)  # output and errors

Done = Callable[[str | None], None]


@entity
class Errand:
    """One command that runs. ``done`` is called once: with None for exit code 0, else with what went wrong.

    ``words``: that, once it is known, "" for nothing; ``gone``: nothing of it is left.
    """

    invocation: int
    program: str
    done: Done
    kill: Callable[[], None]
    timer: Deadline | None = None
    words: str | None = None
    gone: bool = False


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
        prints_to: int | None = None,
    ) -> Errand:
        """Run ``argv`` as ``definition``'s service would run: its user, environment and directory.

        Args:
            timeout_s: after so many seconds everything of it gets SIGKILL
            environment: variables beyond the service's own
            output: into the service's log files; otherwise nowhere, or ``prints_to`` that descriptor, which stays the
                caller's
        """
        self._next += 1
        invocation, name = self._next, definition.spec.name
        errand = Errand(invocation, argv[0], done, lambda: self._kill(invocation, "killed"))
        self._open[invocation] = errand
        mark = f"{self._run_id}-{invocation}"
        try:
            cgroup = self.runs.open(Run(name, invocation, mark, launching.LAUNCHER))
            fds = () if prints_to is None else (prints_to, prints_to)
            order = launching.errand_order(
                definition, argv, invocation, mark, cgroup, environment, output, self._around, STANDARD[: len(fds)]
            )
            self._parts.send(launching.LAUNCHER, order, fds)
        except OSError as error:  # no cgroup, or no descriptor for a long order
            self._loop.call_soon(self.runs.rejected, invocation, error.strerror or str(error), False)
            return errand
        words = f"no end within {seconds(timeout_s)}: killed"
        errand.timer = Deadline(self._loop, timeout_s, self._kill, invocation, words)
        return errand

    def end(self, then: Callable[[], None]) -> None:
        """Nobody waits any more: kill them all, and call ``then`` when nothing of them is left."""
        for errand in list(self._open.values()):
            errand.done = _nobody
            errand.kill()
        self._when_none = then
        self._look_for_the_end()

    def _look_for_the_end(self) -> None:
        if self._when_none is not None and not self._open:
            then, self._when_none = self._when_none, None
            then()

    def _kill(self, invocation: int, words: str) -> None:
        errand = self._open.get(invocation)
        if errand is None or errand.words is not None:
            return
        errand.words = words
        self._clear(errand)

    def _clear(self, errand: Errand) -> None:
        """Kill what is there of it. Who hangs inside the kernel does not die: whoever waits is not to wait for that."""
        if errand.timer is not None:
            errand.timer.cancel()
        errand.timer = Deadline(self._loop, KILL_GRACE_S, self._answer, errand)
        self.runs.kill(errand.invocation)

    def _hear(self, event: Any) -> None:
        errand = self._open.get(event.invocation)
        if errand is None:
            return
        if isinstance(event, SpawnFailed):
            reason = event.reason.removeprefix(f"cannot execute {errand.program}: ")
            self._gone(errand, f"cannot run {errand.program}: {reason}")
        elif isinstance(event, ProcessExited):
            self._exited(errand, event)
        elif isinstance(event, LeftoversGone):
            self._gone(errand, None)
        elif errand.words is not None:  # it was killed before there was anything to kill
            self.runs.kill(event.invocation)

    def _exited(self, errand: Errand, event: ProcessExited) -> None:
        words = None if event.status.code == 0 else exit_words(event.status)
        if not event.leftovers:
            self._gone(errand, words)
            return
        errand.words = errand.words or words or ""
        self._clear(errand)

    def _gone(self, errand: Errand, words: str | None) -> None:
        """Nothing of it is left."""
        del self._open[errand.invocation]
        errand.gone = True
        if errand.words is None:
            errand.words = words or ""
        self._answer(errand)
        self._look_for_the_end()

    @staticmethod
    def _answer(errand: Errand) -> None:
        if errand.timer is not None:
            errand.timer.cancel()
        done, errand.done = errand.done, _nobody
        done(errand.words or None)


def _nobody(error: str | None) -> None:
    """Whoever waited is gone."""
