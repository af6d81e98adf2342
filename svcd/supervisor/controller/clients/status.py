"""What ``svcd status`` and ``svcd graph`` show, built from the machine's views and the shell's records.

Must not change anything. The answer to the usual question (everything) is kept encoded until something changes.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from svcd.protocol import codec
from svcd.protocol.errors import MessageTooLarge
from svcd.protocol.messages import Edge, GraphReported, Part, ServiceStatus, StatusReported
from svcd.record import entity, replace
from svcd.supervisor.config.launch import address
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.records import Records
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core.machine import Machine


@entity
class Whole:
    """What is shown of the cluster itself."""

    state: str = "starting"
    cause: str = ""
    sequence: int = 0


class Status:
    """Rows and answers. Call ``changed(service)`` (or with None: the head line) whenever something shown
    has changed.
    """

    def __init__(
        self,
        registry: Registry,
        state_dir: str,
        machine: Machine,
        records: Records,
        whole: Whole,
        parts: Callable[[], dict[str, int]],
    ) -> None:
        self._registry = registry
        self._state_dir = state_dir
        self._machine = machine
        self._records = records
        self._whole = whole
        self._parts = parts
        self._rows: dict[str, ServiceStatus] = {}
        self._since: dict[str, float] = {}
        self._encoded: bytes | None = None

    def changed(self, service: str | None = None) -> None:
        self._encoded = None
        if service is not None:
            self._rows.pop(service, None)

    def forget(self, service: str) -> None:
        self.changed(service)
        self._since.pop(service, None)

    def views_changed(self, services: tuple[str, ...]) -> None:
        """What the machine says of these services reads differently now."""
        if services:
            self._encoded = None
            for service in services:
                self._rows.pop(service, None)

    def transitioned(self, service: str, at: float) -> None:
        """``service`` entered its present state at monotonic ``at``."""
        self._since[service] = clock.wall(at)

    def encoded(self) -> bytes:
        """The whole status, as a message body."""
        if self._encoded is None:
            report = self.report(())
            try:
                self._encoded = codec.encode(report)
            except MessageTooLarge:  # thousands of failed services: their words are for `svcd status NAME`
                rows = tuple(replace(row, exception=None, last_output=()) for row in report.services)
                self._encoded = codec.encode(replace(report, services=rows))
        return self._encoded

    def report(self, services: tuple[str, ...]) -> StatusReported:
        """The status of ``services``, or of all when empty. Unknown names are the caller's to refuse."""
        names = services or self._names()
        return StatusReported(
            cluster=self._registry.cluster.name,
            pid=os.getppid(),
            state=self._whole.state,
            cause=self._whole.cause,
            sequence=self._whole.sequence,
            state_dir=self._state_dir,
            parts=tuple(Part(name, pid) for name, pid in self._parts().items()),
            services=tuple(self._row(name) for name in names),
        )

    def _names(self) -> tuple[str, ...]:
        """Every service, in the order of the files, each followed by its children; what was removed and has not ended
        comes last.
        """
        known = self._machine.services
        in_order: dict[str, None] = {}
        for each in (*(each.spec.name for each in self._registry.cluster.services), *known):
            if each in known and each not in in_order:
                self._enter(each, in_order)
        return tuple(in_order)

    def _enter(self, name: str, in_order: dict[str, None]) -> None:
        """This one, and then the children of it that there are."""
        in_order[name] = None
        for child in self._registry.children_of(name):
            if child in self._machine.services:
                self._enter(child, in_order)

    def graph(self) -> GraphReported:
        """Every service and every edge, as registered."""
        edges = (
            Edge(
                name,
                edge.target,
                edge.kind.value,
                edge.condition.value,
                edge.on_crash.value,
                edge.target == view.spec.parent,
            )
            for name, view in self._machine.services.items()
            for edge in view.spec.dependencies
        )
        return GraphReported(self._registry.cluster.name, tuple(self._machine.services), tuple(edges))

    def _row(self, name: str) -> ServiceStatus:
        row = self._rows.get(name)
        if row is None:
            row = self._rows[name] = self._build(name)
        return row

    def _build(self, name: str) -> ServiceStatus:
        view, record, definition = self._machine.services[name], self._records.of(name), self._registry[name]
        since = self._since.get(name)
        return ServiceStatus(
            name=name,
            service=definition.service or name,
            instance=definition.instance,
            state=view.state.value,
            desired=view.desired,
            pid=view.pid,
            invocation=view.invocation,
            restarts=view.restarts,
            since=since if since is not None else self._since.setdefault(name, clock.wall()),
            cause=view.cause,
            cpu_percent=record.cpu_percent,
            memory_bytes=record.memory_bytes,
            depends_on=tuple(edge.target for edge in view.spec.dependencies),
            type=view.spec.type.value,
            tags=definition.launch.tags,
            last_output=record.last_output,
            exception=record.exception,
            healthy=view.healthy,
            ailment=view.ailment,
            text=record.text,
            port=definition.launch.port,
            sockets=tuple(address(each) for each in definition.launch.sockets),
            next_run=None if view.held_back else record.next_run,
            fallback=view.stand_in,
            on_demand=view.listening,
            parent=view.spec.parent,
            version=definition.launch.version,
            in_flight=view.draining,
            events_lost=record.events_lost,
            not_restarted=view.not_restarted,
            check_output=record.check_output,
        )
