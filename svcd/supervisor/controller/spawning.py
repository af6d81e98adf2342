"""From the core's order to spawn to the order that a launcher gets: what belongs to a run is opened here, and closes
with it.

Must not wait for anything: what cannot be opened is a run that was rejected.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from svcd.supervisor.config.launch import PythonCode, ServiceDefinition
from svcd.supervisor.controller.parts import Parts
from svcd.supervisor.controller.processes import launching
from svcd.supervisor.controller.processes.announcements import Announcements
from svcd.supervisor.controller.processes.errands import Errands
from svcd.supervisor.controller.processes.listening import CannotListen
from svcd.supervisor.controller.processes.runs import Run, Runs
from svcd.supervisor.controller.processes.sockets import HeldSockets
from svcd.supervisor.controller.python.fork_servers import ForkServers, needs_fork_server
from svcd.supervisor.controller.records import Records
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.controller.watching.probes import Logged, Probe, probe_for
from svcd.supervisor.core import actions
from svcd.supervisor.core.events import Event
from svcd.supervisor.wiring import StreamBegan


class Spawner:
    """Executor of ``SpawnProcess`` and ``AwaitReadiness``. ``run_id`` is unique on this host. ``hear_stubs`` takes what
    stubs have said already.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        registry: Registry,
        runs: Runs,
        parts: Parts,
        sockets: HeldSockets,
        records: Records,
        submit: Callable[[Event], None],
        around: launching.Surroundings,
        run_id: str,
        errands: Errands,
        announcements: Announcements,
        hear_stubs: Callable[[], None],
        fork_servers: ForkServers,
    ) -> None:
        self._loop = loop
        self._fork_servers = fork_servers
        self._errands = errands
        self._announcements = announcements
        self._hear_stubs = hear_stubs
        self._registry = registry
        self._runs = runs
        self._parts = parts
        self._sockets = sockets
        self._records = records
        self._submit = submit
        self._around = around
        self._run_id = run_id
        self._probes: dict[int, Probe] = {}

    def spawn(self, action: actions.SpawnProcess) -> None:
        self._records.begin_run(action.service)
        self.spawn_from(action.service, action.invocation, self._registry[action.service])

    def spawn_from(self, service: str, invocation: int, definition: ServiceDefinition) -> None:
        """A run of this definition, be it in force or to come."""
        run = Run(service, invocation, f"{self._run_id}-{invocation}", launching.LAUNCHER)
        if isinstance(definition.launch.run, PythonCode):
            run.before_end.append(self._hear_stubs)  # what it said last says why it ended
        try:
            cgroup = self._runs.open(run)
        except OSError as error:
            self._runs.rejected(invocation, f"cannot make a cgroup for it: {error.strerror}", False)
            return
        try:
            self._order(definition, run, cgroup)
        except CannotListen as error:
            self._runs.rejected(invocation, str(error), False)
        except OSError as error:
            self._runs.rejected(invocation, f"cannot open what it needs: {error.strerror or error}", False)

    def _order(self, definition: ServiceDefinition, run: Run, cgroup: str | None) -> None:
        probe = self._probe_for(definition, run)
        given = self._announcements.open(definition, run, None if probe is None else probe.report)
        if probe is not None:
            given.descriptors.update(probe.descriptors)
        self._sockets.give(run.service, given)  # says so when a number is taken
        order = launching.spawn_order(definition, run.invocation, run.mark, cgroup, given, self._around)
        fds = tuple(given.descriptors.values())
        if needs_fork_server(definition):
            self._fork_servers.send(definition, run, order, fds)
        else:
            self._parts.send(run.launcher, order, fds)
        if probe is not None:
            probe.sent()

    def _probe_for(self, definition: ServiceDefinition, run: Run) -> Probe | None:
        said = self._records.take_check_output
        probe = probe_for(self._loop, self._submit, definition, run.invocation, self._errands, said)
        if probe is not None:
            self._probes[run.invocation] = probe
            run.clean_up.append(lambda: self._probes.pop(run.invocation).close())
        return probe

    def await_readiness(self, action: actions.AwaitReadiness) -> None:
        probe = self._probes.get(action.invocation)
        if probe is not None:
            probe.begin()

    def stream_began(self, message: StreamBegan, fds: list[int]) -> None:
        """The collector knows where this run's output begins."""
        probe = self._probes.get(message.invocation)
        if isinstance(probe, Logged):
            probe.follow(Path(message.path), fds.pop() if fds else None)
        for fd in fds:
            os.close(fd)
