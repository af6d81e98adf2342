"""What programs say of themselves by sd_notify(3), passed on as events and as text for the status.

Must not decide anything: the core does.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

from svcd.supervisor.config.launch import PythonCode, ServiceDefinition
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.processes.launching import Given
from svcd.supervisor.controller.processes.named_mains import NamedMains
from svcd.supervisor.controller.processes.notify import Assignments, NotifySocket, whole_number
from svcd.supervisor.controller.processes.runs import Run, Runs
from svcd.supervisor.controller.records import Records
from svcd.supervisor.core.events import Event, StopAnnounced, TimeoutExtended, WatchdogPinged, WatchdogTriggered
from svcd.supervisor.core.spec import ReadyKind

TEXT_LIMIT: Final = 400  # characters of STATUS= that are shown
RELOADING: Final = "reloading"
ERRNO_LIMIT: Final = 4095  # MAX_ERRNO of the kernel


class Announcements:
    """Makes the notify socket of each run that is to have one."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, runs: Runs, records: Records, submit: Callable[[Event], None]
    ) -> None:
        self._loop = loop
        self._runs = runs
        self._records = records
        self._submit = submit
        self._named = NamedMains(loop, runs, os.getppid())

    def open(self, definition: ServiceDefinition, run: Run, ready: Callable[[None], None] | None) -> Given:
        """What the process is told in its environment. The socket closes with the run.

        ``ready`` is called at READY=1, if that is what its readiness is about.
        """
        spec = definition.spec
        run_of_it = definition.launch.run
        is_program = not isinstance(run_of_it, PythonCode) or run_of_it.script is not None
        watchdog_s = spec.watchdog_s if is_program else None  # the stub of other Python services looks after its loop
        if spec.ready is not ReadyKind.NOTIFY and watchdog_s is None:
            return Given()
        ready = ready if spec.ready is ReadyKind.NOTIFY else None
        uid = definition.launch.uid
        uids = frozenset({0, os.geteuid(), 0 if uid is None else uid})
        notify = NotifySocket(
            self._loop,
            uids,
            lambda pid: self._runs.has_member(run, pid),
            lambda said: self._take(run, said, ready),
        )
        run.at_birth.append(notify.listen)
        run.before_end.append(notify.hear_out)
        run.clean_up.append(notify.close)
        found = {"NOTIFY_SOCKET": notify.address}
        if watchdog_s is None:
            return Given(found)
        return Given({**found, "WATCHDOG_USEC": str(int(watchdog_s * 1e6))}, pid_variables=("WATCHDOG_PID",))

    def _take(self, run: Run, said: Assignments, ready: Callable[[None], None] | None) -> None:
        at, name, invocation = clock.now(), run.service, run.invocation
        main = whole_number(said.get("MAINPID"))
        if main is not None and self._runs.adopt_main(run, main):
            self._named.watch(run, main)
        self._note_text(run, said)
        by_us = whole_number(said.get("EXTEND_TIMEOUT_USEC"))
        if by_us is not None:
            self._submit(TimeoutExtended(at, name, invocation, by_us / 1e6))
        if said.get("READY") == "1" and ready is not None:
            ready(None)
        if said.get("STOPPING") == "1":
            self._submit(StopAnnounced(at, name, invocation))
        watchdog = said.get("WATCHDOG")
        if watchdog == "1":
            self._submit(WatchdogPinged(at, name, invocation))
        elif watchdog == "trigger":
            self._submit(WatchdogTriggered(at, name, invocation))

    def _note_text(self, run: Run, said: Assignments) -> None:
        text = said.get("STATUS")
        if text is None and said.get("RELOADING") == "1":
            text = RELOADING
        elif text is None and said.get("READY") == "1" and self._records.of(run.service).text == RELOADING:
            text = ""
        number = whole_number(said.get("ERRNO"))
        if text is None and number is not None:
            text = os.strerror(number) if number <= ERRNO_LIMIT else str(number)
        if text is None:
            text = said.get("BUSERROR")
        if text is not None:
            self._records.take_text(run.service, text[:TEXT_LIMIT])
