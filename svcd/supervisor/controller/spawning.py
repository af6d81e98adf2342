"""From the core's order to spawn to the order that a launcher gets: what belongs to a run is opened here, and closes
with it.

Must not wait for anything: what cannot be opened is a run that was rejected.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from svcd.supervisor.config.launch import ServiceDefinition
from svcd.supervisor.controller import launching
from svcd.supervisor.controller.parts import Parts
from svcd.supervisor.controller.probes import Probe
from svcd.supervisor.controller.records import Records
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.controller.runs import Run, Runs
from svcd.supervisor.core import actions
from svcd.supervisor.core.events import Event
from svcd.supervisor.core.spec import ReadyKind


class Spawner:
    """Executor of ``SpawnProcess`` and ``AwaitReadiness``. ``run_id`` is unique on this host."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        registry: Registry,
        runs: Runs,
        parts: Parts,
        records: Records,
        submit: Callable[[Event], None],
        around: launching.Surroundings,
        run_id: str,
    ) -> None:
        self._loop = loop
        self._registry = registry
        self._runs = runs
        self._parts = parts
        self._records = records
        self._submit = submit
        self._around = around
        self._run_id = run_id
        self._probes: dict[int, Probe] = {}

    def spawn(self, action: actions.SpawnProcess) -> None:
        definition = self._registry[action.service]
        launcher = launching.launcher_of(definition)
        mark = f"{self._run_id}-{action.invocation}"
        run = Run(action.service, action.invocation, mark, launcher)
        probe = self._probe_for(definition, run)
        self._records.begin_run(action.service)
        try:
            cgroup = self._runs.open(run)
        except OSError as error:
            self._runs.rejected(action.invocation, f"cannot make a cgroup for it: {error.strerror}", False)
            return
        environment = {} if probe is None else probe.environment
        order = launching.spawn_order(definition, action.invocation, mark, cgroup, environment, self._around)
        self._parts.send(launcher, order)

    def _probe_for(self, definition: ServiceDefinition, run: Run) -> Probe | None:
        kind = definition.spec.ready
        if kind in (ReadyKind.IMMEDIATE, ReadyKind.STARTED):
            return None
        uids = frozenset({0, os.geteuid(), definition.launch.uid if definition.launch.uid is not None else 0})
        probe = Probe(self._loop, self._submit, run.service, run.invocation, definition.launch.probe, kind, uids)
        self._probes[run.invocation] = probe
        run.clean_up.append(lambda: self._probes.pop(run.invocation).close())
        return probe

    def await_readiness(self, action: actions.AwaitReadiness) -> None:
        probe = self._probes.get(action.invocation)
        if probe is not None:
            probe.begin()
