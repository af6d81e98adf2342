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
from svcd.supervisor.controller.launching import Given
from svcd.supervisor.controller.notify import Assignments, NotifySocket, microseconds
from svcd.supervisor.controller.records import Records
from svcd.supervisor.controller.runs import Run, Runs
from svcd.supervisor.core.events import Event, StopAnnounced, TimeoutExtended, WatchdogPinged, WatchdogTriggered
from svcd.supervisor.core.spec import ReadyKind

TEXT_LIMIT: Final = 400  # characters of STATUS= that are shown
RELOADING: Final = "reloading"


class Announcements:
    """Makes the notify socket of each run that is to have one."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, runs: Runs, records: Records, submit: Callable[[Event], None]
    ) -> None:
        self._loop = loop
        self._runs = runs
        self._records = records
        self._submit = submit

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
            lambda said, pid: self._take(run, said, ready),
        )
        run.at_birth.append(notify.listen)
        run.clean_up.append(notify.close)
        found = {"NOTIFY_SOCKET": notify.address}
        if watchdog_s is None:
            return Given(found)
        return Given({**found, "WATCHDOG_USEC": str(int(watchdog_s * 1e6))}, pid_variables=("WATCHDOG_PID",))

    def _take(self, run: Run, said: Assignments, ready: Callable[[None], None] | None) -> None:
        at, name, invocation = clock.now(), run.service, run.invocation
        if said.get("MAINPID", "").isdigit():
            self._runs.adopt_main(run, int(said["MAINPID"]))
        self._note_text(run, said)
        by_s = microseconds(said.get("EXTEND_TIMEOUT_USEC", ""))
        if by_s is not None:
            self._submit(TimeoutExtended(at, name, invocation, by_s))
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
        if text is None and (number := said.get("ERRNO", "")).isdigit():
            text = os.strerror(int(number)) if len(number) < 6 else number
        if text is None:
            text = said.get("BUSERROR")
        if text is not None:
            self._records.take_text(run.service, text[:TEXT_LIMIT])
