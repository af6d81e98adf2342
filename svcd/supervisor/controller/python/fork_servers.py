"""The fork servers with preload sets: one per set, from the first service that needs it to the last; orders wait here
while theirs imports.

Must not import anything itself, nor know why a service starts. A module that cannot be imported, or hangs, costs the
services that name it and nobody else; where `auto` has chosen it, it costs nobody anything.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from svcd.protocol import messages
from svcd.record import entity, field
from svcd.supervisor import wiring
from svcd.supervisor.config.launch import PythonCode, ServiceDefinition
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.parts import Parts
from svcd.supervisor.controller.patience import Deadline
from svcd.supervisor.controller.processes.runs import Run, Runs
from svcd.supervisor.controller.python.import_history import ImportHistory
from svcd.supervisor.controller.python.preload_sets import AUTO, PreloadSet, has_changed, set_of
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core.spec import StartMode

FORK_SERVER: Final = "fork-server"
SHORT_LIFE_S: Final = 1.0  # one that ends so soon after its imports is not started again before somebody needs it
RETIRED_S: Final = 0.5  # between two looks whether one that is out of date still has something to answer
AUTO_PATIENCE_S: Final = 5.0  # `auto` is there to save time
AUTO_LIMIT_S: Final = 60.0  # for all of its imports
SAME_MOMENT_S: Final = 0.02  # timers that were set for one
SETTLED_S: Final = 1.0  # services that start together tell what they import one after the other


@entity
class Held:
    """An order that waits for its fork server, ``since`` then. ``fds`` are our copies."""

    run: Run
    order: wiring.SpawnRequested
    fds: tuple[int, ...]
    bound_s: float
    since: float = field(default_factory=clock.now)
    deadline: Deadline | None = None


@entity
class Server:
    """``importing``: the module that it is at, as far as we have heard; ``watched``: once it is ready."""

    part: str
    preload: PreloadSet
    modules: tuple[str, ...]
    importing: str = ""
    watched: dict[str, list[int]] | None = None
    ready_at: float = 0.0
    held: dict[int, Held] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        return self.watched is not None

    @property
    def at(self) -> str:
        return self.importing or ", ".join(self.modules)


class ForkServers:
    """Sends orders for Python services where they belong, and follows the registry. ``note`` is svcd's own log.

    There is at most one server in ``_by_set`` for a set, and that is where orders go. One for `auto` that is to replace
    one that works (``_coming``) gets there when it is ready.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        parts: Parts,
        runs: Runs,
        registry: Registry,
        history: ImportHistory,
        note: Callable[..., None],
    ) -> None:
        self._loop = loop
        self._parts = parts
        self._runs = runs
        self._registry = registry
        self._history = history
        self._note = note
        self._numbers = itertools.count(1)
        self._servers: dict[str, Server] = {}
        self._by_set: dict[PreloadSet, Server] = {}
        self._coming: Server | None = None
        self._set_of: dict[str, PreloadSet] = {}
        self._uses: Counter[PreloadSet] = Counter()
        self._renewal: asyncio.TimerHandle | None = None
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
        service, run = definition.spec.name, definition.launch.run
        wanted = set_of(definition, os.geteuid())
        if wanted is AUTO and isinstance(run, PythonCode):
            self._history.adopt(service, run)
        else:
            self._history.forget(service)
        self._use(service, wanted)

    def forget(self, service: str) -> None:
        self._history.forget(service)
        self._use(service, None)

    def recorded(self, message: messages.ImportsRecorded) -> None:
        """A stub tells what it imported: with that the next start is to be quicker."""
        definition = self._registry.get(message.service)
        if definition is not None and self._history.take(definition, message.imports):
            self._renew_later()

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

    # ---- orders -----------------------------------------------------------------------------------------------------

    def send(self, definition: ServiceDefinition, run: Run, order: wiring.SpawnRequested, fds: tuple[int, ...]) -> None:
        """Have this order carried out, now or when its modules are imported. ``fds`` stay the caller's."""
        wanted = set_of(definition, os.geteuid())  # again: files may have come or gone
        self._use(definition.spec.name, wanted)
        server = None if wanted is None else self._server_for(wanted)
        if server is None:
            self._send_plain(run, order, fds)
        elif server.is_ready:
            run.launcher = server.part
            self._parts.send(server.part, order, fds)
        else:
            run.launcher = server.part
            bound_s = definition.spec.ready_timeout_s
            self._hold(server, Held(run, order, tuple(map(os.dup, fds)), bound_s))

    def _send_plain(self, run: Run, order: wiring.SpawnRequested, fds: tuple[int, ...]) -> None:
        run.launcher = FORK_SERVER
        if not self._parts.runs(FORK_SERVER):  # a cluster that began without Python services has none
            self._parts.send_guardian(wiring.PartRequested(FORK_SERVER))
        self._parts.send(FORK_SERVER, order, fds)

    def _hold(self, server: Server, held: Held) -> None:
        server.held[held.run.invocation] = held
        patience_s = min(held.bound_s, AUTO_PATIENCE_S) if server.preload is AUTO else held.bound_s
        held.deadline = Deadline(self._loop, patience_s, self._overdue, server, held)

    def give_up(self, invocation: int, reason: str) -> None:
        """The run is to end: if its order still waits, there will be no process.

        The core has a deadline for the same start. Where either may be told first (we stood still when they passed, and
        both are given a while more), what is said is the same.
        """
        for server in self._servers.values():
            held = server.held.get(invocation)
            if held is None:
                continue
            if server.preload is not AUTO and clock.now() - held.since > held.bound_s - SAME_MOMENT_S:
                self._overdue(server, held)
            else:
                del server.held[invocation]
                self._reject(held, reason)
            return

    def _overdue(self, server: Server, held: Held) -> None:
        """It has waited as long as its start may take. A server that nobody waits for any more hangs for nobody."""
        del server.held[held.run.invocation]
        if server.preload is AUTO:
            self._go_without(held)
            return
        self._reject(held, f"cannot preload {server.at}: importing it has not ended within {held.bound_s:g} s")
        if not server.held:
            self._end(server)

    def _go_without(self, held: Held) -> None:
        try:
            self._send_plain(held.run, held.order, held.fds)
        except OSError as error:
            self._runs.rejected(held.run.invocation, _cannot_pass(error), born=False)
        _close(held)

    def _reject(self, held: Held, reason: str) -> None:
        _close(held)
        self._runs.rejected(held.run.invocation, reason, born=False)

    # ---- servers ----------------------------------------------------------------------------------------------------

    def _server_for(self, wanted: PreloadSet) -> Server | None:
        """The one that is there, unless what it has imported is not any more what a start would import. None: there is
        nothing to preload.
        """
        found = self._by_set.get(wanted)
        if found is not None and found.watched is not None and has_changed(found.watched):
            self._note("preloaded modules have changed", part=found.part)
            self._retire(found)
            found = None
        modules = self._history.modules() if wanted is AUTO else wanted.modules
        if found is None and modules:
            found = self._by_set[wanted] = self._start(wanted, modules)
        return found

    def _start(self, wanted: PreloadSet, modules: tuple[str, ...]) -> Server:
        server = Server(f"{FORK_SERVER}.{next(self._numbers)}", wanted, modules)
        self._servers[server.part] = server
        settings = {"modules": list(modules), "path": list(wanted.path)}
        self._parts.send_guardian(wiring.PartRequested(server.part, settings))
        if wanted is AUTO:
            Deadline(self._loop, AUTO_LIMIT_S, self._end_hanging, server)
        return server

    def _end_hanging(self, server: Server) -> None:
        if self._servers.get(server.part) is server and not server.is_ready and not self._is_closed:
            self._end(server)
            self._fail(server, server.at, f"its import has not ended within {AUTO_LIMIT_S:g} s")

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
            self._end(server)
            self._fail(server, message.module, message.refusal)
            return
        server.watched, server.ready_at = message.watched, self._loop.time()
        self._note("preloaded", part=server.part, modules=list(server.modules))
        for held in _taken(server):
            self._release(server, held)
        if server is self._coming:
            self._coming = None
            if AUTO in self._by_set:
                self._retire(self._by_set[AUTO])
            self._by_set[AUTO] = server
        if server.preload is AUTO:
            self._renew_later()  # more may have been recorded meanwhile

    def _release(self, server: Server, held: Held) -> None:
        try:
            self._parts.send(server.part, held.order, held.fds)
        except OSError as error:
            self._runs.rejected(held.run.invocation, _cannot_pass(error), born=False)
        _close(held)

    def part_ended(self, message: wiring.PartEnded) -> None:
        """One is gone. If it was killed from outside, the next one imports before somebody needs it."""
        server = self._servers.pop(message.part, None)
        if server is None:
            return
        is_present = self._by_set.get(server.preload) is server
        is_wanted = is_present or server is self._coming
        self._let_go(server)
        if not server.is_ready:
            if is_wanted or server.held:
                reason = f"cannot preload {server.at}: the fork server {_how(message)} while importing it"
                is_its_fault = message.signal != signal.SIGKILL
                self._fail(server, server.importing if is_its_fault else "", reason)
        elif is_present and self._is_worth_another(server):
            self._server_for(server.preload)

    def _is_worth_another(self, server: Server) -> bool:
        lived_s = self._loop.time() - server.ready_at
        return not self._is_closed and self._uses[server.preload] > 0 and lived_s >= SHORT_LIFE_S

    def _fail(self, server: Server, module: str, reason: str) -> None:
        """Because of ``module`` it will never fork. Who has asked for it hears why; `auto` goes on without it."""
        self._note("not preloaded", part=server.part, module=module, reason=reason)
        if server.preload is not AUTO:
            for held in _taken(server):
                self._reject(held, reason)
            return
        if module:
            self._history.refuse(module, reason)
            self._renew_later()
        for held in _taken(server):
            self._go_without(held)

    def _retire(self, server: Server) -> None:
        """No new order goes there; it ends when it has answered those that it has."""
        self._let_go(server)
        if server.part not in self._servers or self._is_closed:
            return
        if server.held or any(run.launcher == server.part and run.verdict is None for run in self._runs.all()):
            self._loop.call_later(RETIRED_S, self._retire, server)
        else:
            self._end(server)

    def _end(self, server: Server) -> None:
        self._let_go(server)
        self._parts.send_guardian(wiring.PartDismissed(server.part))

    def _let_go(self, server: Server) -> None:
        if self._by_set.get(server.preload) is server:
            del self._by_set[server.preload]
        if self._coming is server:
            self._coming = None

    # ---- auto -------------------------------------------------------------------------------------------------------

    def _renew_later(self) -> None:
        if self._renewal is None and not self._is_closed:
            self._renewal = self._loop.call_later(SETTLED_S, self._renew)

    def _renew(self) -> None:
        """Have a server for `auto` with what is recorded now, while the one before goes on."""
        self._renewal = None
        present, modules = self._by_set.get(AUTO), self._history.modules()
        latest = self._coming or present
        if self._is_closed or self._uses[AUTO] <= 0 or (latest is not None and not latest.is_ready):
            return  # when that one is ready we are called again
        if modules == (latest.modules if latest is not None else ()):
            return
        if present is None:
            self._server_for(AUTO)
        elif modules:
            self._coming = self._start(AUTO, modules)
        else:
            self._retire(present)

    # ---- the end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        self._is_closed = True
        if self._renewal is not None:
            self._renewal.cancel()
        for server in self._servers.values():
            for held in _taken(server):
                _close(held)


def needs_fork_server(definition: ServiceDefinition) -> bool:
    run = definition.launch.run
    return isinstance(run, PythonCode) and run.interpreter is None


def _taken(server: Server) -> list[Held]:
    taken = list(server.held.values())
    server.held.clear()
    return taken


def _close(held: Held) -> None:
    if held.deadline is not None:
        held.deadline.cancel()
    for fd in held.fds:
        os.close(fd)


def _cannot_pass(error: OSError) -> str:
    return f"cannot open what it needs: {error.strerror or error}"


def _how(message: wiring.PartEnded) -> str:
    if message.signal is not None:
        return f"was killed (signal {message.signal})"
    return "could not be started" if message.pid == 0 else f"ended (exit code {message.code})"
