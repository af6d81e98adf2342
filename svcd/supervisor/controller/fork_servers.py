"""The fork servers with preload sets: one per set, from the first service that needs it to the last; orders wait here
while theirs imports.

Must not import anything itself, nor know why a service starts. A module that cannot be imported, or hangs, costs the
services that name it and nobody else.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from svcd.supervisor import wiring
from svcd.supervisor.config.launch import PythonCode, ServiceDefinition
from svcd.supervisor.controller.parts import Parts
from svcd.supervisor.controller.preload_sets import PreloadSet, has_changed, set_of
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.controller.runs import Run, Runs
from svcd.supervisor.core.spec import StartMode

FORK_SERVER: Final = "fork-server"
SHORT_LIFE_S: Final = 1.0  # one that ends so soon after its imports is not started again before somebody needs it
RETIRED_S: Final = 0.5  # between two looks whether one that is out of date still has something to answer


@dataclass(slots=True)
class Held:
    """An order that waits for its fork server. ``fds`` are our copies."""

    run: Run
    order: wiring.SpawnRequested
    fds: tuple[int, ...]
    bound_s: float
    deadline: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class Server:
    """``importing``: the module that it is at, as far as we have heard; ``watched``: once it is ready."""

    part: str
    preload: PreloadSet
    importing: str = ""
    watched: dict[str, list[int]] | None = None
    ready_at: float = 0.0
    held: dict[int, Held] = field(default_factory=dict)


class ForkServers:
    """Sends orders for Python services where they belong, and follows the registry. ``note`` is svcd's own log."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        parts: Parts,
        runs: Runs,
        registry: Registry,
        note: Callable[..., None],
    ) -> None:
        self._loop = loop
        self._parts = parts
        self._runs = runs
        self._registry = registry
        self._note = note
        self._numbers = itertools.count(1)
        self._servers: dict[str, Server] = {}
        self._by_set: dict[PreloadSet, Server] = {}
        self._set_of: dict[str, PreloadSet] = {}
        self._uses: Counter[PreloadSet] = Counter()
        self._is_closed = False
        self.receivers: dict[type, Callable[[Any, list[int]], None]] = {
            wiring.PreloadBegan: lambda message, fds: self._began(message),
            wiring.PreloadEnded: lambda message, fds: self._ended(message),
        }

    # ---- what is registered ----------------------------------------------------------------------------------------

    def start_eager(self) -> None:
        """Those of services that start with the cluster import while others of it start."""
        for definition in self._registry.current.values():
            wanted = self._set_of.get(definition.spec.name)
            if wanted is not None and definition.spec.start in (StartMode.EAGER, StartMode.PRELOAD):
                self._server_for(wanted)

    def adopt(self, definition: ServiceDefinition) -> None:
        self._use(definition.spec.name, set_of(definition, (), os.geteuid()))

    def forget(self, service: str) -> None:
        self._use(service, None)

    def _use(self, service: str, wanted: PreloadSet | None) -> None:
        """Take note of what a service needs now; what nobody needs any more is ended."""
        before = self._set_of.pop(service, None)
        if wanted is not None:
            self._set_of[service] = wanted
            self._uses[wanted] += 1
        if before is None:
            return
        self._uses[before] -= 1
        if self._uses[before] <= 0:
            del self._uses[before]
            if before in self._by_set:
                self._retire(self._by_set[before])

    # ---- orders ------------------------------------------------------------------------------------------------------

    def send(self, definition: ServiceDefinition, run: Run, order: wiring.SpawnRequested, fds: tuple[int, ...]) -> None:
        """Have this order carried out, now or when its modules are imported. ``fds`` stay the caller's."""
        wanted = set_of(definition, (), os.geteuid())  # again: files may have come or gone
        self._use(definition.spec.name, wanted)
        if wanted is None:
            self._send_plain(run, order, fds)
            return
        server = self._server_for(wanted)
        run.launcher = server.part
        if server.watched is not None:
            self._parts.send(server.part, order, fds)
            return
        bound_s = definition.spec.ready_timeout_s
        held = Held(run, order, tuple(map(os.dup, fds)), bound_s)
        held.deadline = self._loop.call_later(bound_s, self._overdue, server, held)
        server.held[run.invocation] = held

    def _send_plain(self, run: Run, order: wiring.SpawnRequested, fds: tuple[int, ...]) -> None:
        run.launcher = FORK_SERVER
        if not self._parts.runs(FORK_SERVER):  # a cluster that began without Python services has none
            self._parts.send_guardian(wiring.PartRequested(FORK_SERVER))
        self._parts.send(FORK_SERVER, order, fds)

    def give_up(self, invocation: int, reason: str) -> None:
        """The run is to end: if its order still waits, there will be no process."""
        for server in self._servers.values():
            held = server.held.pop(invocation, None)
            if held is not None:
                self._reject(held, reason)
                return

    def _overdue(self, server: Server, held: Held) -> None:
        """It has waited as long as its start may take. A server that nobody waits for any more hangs for nobody."""
        del server.held[held.run.invocation]
        module = server.importing or ", ".join(server.preload.modules)
        self._reject(held, f"cannot preload {module}: importing it has not ended within {held.bound_s:g} s")
        if not server.held:
            self._end(server)

    def _reject(self, held: Held, reason: str) -> None:
        _close(held)
        self._runs.rejected(held.run.invocation, reason, born=False)

    # ---- servers -----------------------------------------------------------------------------------------------------

    def _server_for(self, wanted: PreloadSet) -> Server:
        """The one that is there, unless what it has imported is not any more what a start would import."""
        found = self._by_set.get(wanted)
        if found is not None and found.watched is not None and has_changed(found.watched):
            self._note("preloaded modules have changed", part=found.part)
            self._retire(found)
            found = None
        return found or self._start(wanted)

    def _start(self, wanted: PreloadSet) -> Server:
        server = Server(f"{FORK_SERVER}.{next(self._numbers)}", wanted)
        self._servers[server.part] = self._by_set[wanted] = server
        settings = {"modules": list(wanted.modules), "path": list(wanted.path)}
        self._parts.send_guardian(wiring.PartRequested(server.part, settings))
        return server

    def _began(self, message: wiring.PreloadBegan) -> None:
        server = self._servers.get(message.part)
        if server is not None:
            server.importing = message.module

    def _ended(self, message: wiring.PreloadEnded) -> None:
        """Its imports are done, well or badly."""
        server = self._servers.get(message.part)
        if server is None:
            return
        if message.refusal:
            self._note("preload refused", part=server.part, reason=message.refusal)
            self._end(server)
            self._fail(server, message.refusal)
            return
        server.watched, server.ready_at = message.watched, self._loop.time()
        self._note("preloaded", part=server.part, modules=list(server.preload.modules))
        for held in list(server.held.values()):
            del server.held[held.run.invocation]
            try:
                self._parts.send(server.part, held.order, held.fds)
            except OSError as error:
                self._runs.rejected(held.run.invocation, f"cannot pass it what it needs: {error.strerror}", born=False)
            _close(held)

    def part_ended(self, message: wiring.PartEnded) -> None:
        """One is gone. If it was killed from outside, the next one imports before somebody needs it."""
        server = self._servers.pop(message.part, None)
        if server is None:
            return
        is_present = self._by_set.get(server.preload) is server
        if is_present:
            del self._by_set[server.preload]
        if server.watched is None:
            what = f"cannot preload {server.importing or ', '.join(server.preload.modules)}"
            self._fail(server, f"{what}: the fork server {_how(message)} while importing it")
        elif is_present and self._is_worth_another(server):
            self._start(server.preload)

    def _is_worth_another(self, server: Server) -> bool:
        lived_s = self._loop.time() - server.ready_at
        return not self._is_closed and self._uses[server.preload] > 0 and lived_s >= SHORT_LIFE_S

    def _fail(self, server: Server, reason: str) -> None:
        for held in list(server.held.values()):
            del server.held[held.run.invocation]
            self._reject(held, reason)

    def _retire(self, server: Server) -> None:
        """No new order goes there; it ends when it has answered those that it has."""
        if self._by_set.get(server.preload) is server:
            del self._by_set[server.preload]
        if server.part not in self._servers or self._is_closed:
            return
        if server.held or any(run.launcher == server.part and run.verdict is None for run in self._runs.all()):
            self._loop.call_later(RETIRED_S, self._retire, server)
        else:
            self._end(server)

    def _end(self, server: Server) -> None:
        if self._by_set.get(server.preload) is server:
            del self._by_set[server.preload]
        self._parts.send_guardian(wiring.PartDismissed(server.part))

    def close(self) -> None:
        """The end of the cluster."""
        self._is_closed = True
        for server in self._servers.values():
            for held in server.held.values():
                _close(held)
            server.held.clear()


def needs_fork_server(definition: ServiceDefinition) -> bool:
    run = definition.launch.run
    return isinstance(run, PythonCode) and run.interpreter is None


def _close(held: Held) -> None:
    if held.deadline is not None:
        held.deadline.cancel()
    for fd in held.fds:
        os.close(fd)


def _how(message: wiring.PartEnded) -> str:
    if message.signal is not None:
        return f"was killed (signal {message.signal})"
    return "could not be started" if message.pid == 0 else f"ended (exit code {message.code})"
