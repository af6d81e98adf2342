"""The ends of main processes that a run has named itself: one that is no child of the guardian has no one to tell us.

Must not decide which process is the main one (``Runs.adopt_main``), and must not reap: whoever is the parent does.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

from svcd.supervisor.controller.patience import Deadline
from svcd.supervisor.controller.processes.containment import stat_fields
from svcd.supervisor.controller.processes.runs import Run, Runs
from svcd.supervisor.core.events import ExitStatus

GRACE_S: Final = 1.0  # for the guardian, to say what it may have reaped a moment ago
EXIT_CODE: Final = 49  # in ``stat_fields``: field 52 of proc(5), a status as wait(2) gives it
UNKNOWN: Final = ExitStatus(code=255)  # its parent took its status: nobody can say that all was well


class NamedMains:
    """Watches such processes by pidfd. ``guardian``: the pid of who reaps what has lost its parent."""

    def __init__(self, loop: asyncio.AbstractEventLoop, runs: Runs, guardian: int) -> None:
        self._loop = loop
        self._runs = runs
        self._guardian = guardian

    def watch(self, run: Run, pid: int) -> None:
        """``pid`` is the main process of ``run`` since just now."""
        if run.pidfd is None:
            return
        pidfd = os.dup(run.pidfd)

        def stop() -> None:
            nonlocal pidfd
            if pidfd >= 0:
                self._loop.remove_reader(pidfd)
                os.close(pidfd)
                pidfd = -1

        def ended() -> None:
            stop()
            self._ended(run, pid)

        run.clean_up.append(stop)
        self._loop.add_reader(pidfd, ended)

    def _ended(self, run: Run, pid: int) -> None:
        fields = stat_fields(pid)
        if fields is None:  # reaped: by the guardian, who says so, or by a parent of its own, who does not
            Deadline(self._loop, GRACE_S, self._runs.main_ended, run, pid, UNKNOWN)
        elif int(fields[1]) != self._guardian:
            self._runs.main_ended(run, pid, _status(int(fields[EXIT_CODE])))


def _status(waited: int) -> ExitStatus:
    if os.WIFSIGNALED(waited):
        return ExitStatus(signal=os.WTERMSIG(waited))
    return ExitStatus(code=os.WEXITSTATUS(waited))
