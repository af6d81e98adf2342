"""The sockets that svcd holds for its services, from the start of the cluster to its end, and the demand at them.

Must not decide what a demand leads to (the core does), nor accept anything: connections wait in the backlog until the
service takes them, so that its restart refuses nobody.

Several instances of one service that name the same address share one socket. A socket that cannot be had is tried
again whenever its service is spawned; until it is there the service cannot start. For a service that waits for demand
there is no spawn, so that its lack counts as demand: the start that follows fails, visibly, with the reason.

The sockets are never made non-blocking, as the descriptions that we hold are those that the services get; that is
why they are watched in an epoll of their own: an event loop would switch them over.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable
from typing import Final

from svcd.record import entity, field
from svcd.supervisor.config.launch import ServiceDefinition, SocketSpec, address
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.processes.launching import Given
from svcd.supervisor.controller.processes.listening import EVERY_ADDRESS, CannotListen, Listener, Owner, listen
from svcd.supervisor.core.events import DemandArose

FIRST_TARGET: Final = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)

Key = tuple[object, ...]


@entity
class Shared:
    """One address. ``group``: the service, as named in the file, whose instances share it."""

    group: str
    listener: Listener
    users: set[str] = field(default_factory=set)


class HeldSockets:
    """``submit`` gets a ``DemandArose`` per ``await_demand`` at the most; ``on_arrival`` the name of a watched service
    that somebody has just connected to.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        submit: Callable[[DemandArose], None],
        on_arrival: Callable[[str], None] = lambda service: None,
    ) -> None:
        self._loop = loop
        self._submit = submit
        self._on_arrival = on_arrival
        self._definitions: dict[str, ServiceDefinition] = {}  # of services that have sockets
        self._shared: dict[Key, Shared] = {}
        self._awaiting: set[str] = set()
        self._watching: set[str] = set()
        self._watched: dict[int, Shared] = {}  # by descriptor: those in the epoll that are armed
        self._epoll = select.epoll()
        loop.add_reader(self._epoll.fileno(), self._arrived)

    # ---- what is held ------------------------------------------------------------------------------------------------

    def adopt(self, definition: ServiceDefinition) -> None:
        """Hold what this service wants from now on: what it wanted before as well stays the same socket.

        What cannot be had is left for ``descriptors`` to complain about.
        """
        service = definition.spec.name
        self._release(service, keep=set(_keys(definition)))
        if not definition.launch.sockets:
            self._definitions.pop(service, None)
            return
        self._definitions[service] = definition
        for spec in definition.launch.sockets:
            try:
                self._hold(definition, spec)
            except CannotListen:
                pass
        if service in self._awaiting:
            self._look(service)

    def forget(self, service: str) -> None:
        self.cease_awaiting(service)
        self.cease_watching(service)
        self._release(service, keep=set())
        self._definitions.pop(service, None)

    def descriptors(self, service: str) -> tuple[int, ...]:
        """The service's sockets, in the order of its configuration; they stay ours. Raises ``CannotListen``."""
        definition = self._definitions.get(service)
        if definition is None:
            return ()
        return tuple(self._hold(definition, spec).listener.fileno() for spec in definition.launch.sockets)

    def give(self, service: str, given: Given) -> None:
        """Hand them over, as sd_listen_fds(3) has it. Raises ``CannotListen``."""
        descriptors = self.descriptors(service)
        if not descriptors:
            return
        taken = given.descriptors.keys() & set(range(FIRST_TARGET, FIRST_TARGET + len(descriptors)))
        if taken:
            raise CannotListen(f"cannot hand over its sockets: descriptor {min(taken)} is meant for something else")
        names = (each.name for each in self._definitions[service].launch.sockets)
        given.descriptors.update(enumerate(descriptors, FIRST_TARGET))
        given.env.update(LISTEN_FDS=str(len(descriptors)), LISTEN_FDNAMES=":".join(names))
        given.pid_variables += ("LISTEN_PID",)

    def listeners(self, service: str) -> tuple[Listener, ...]:
        return tuple(each.listener for each in self._held_by(service))

    def close(self) -> None:
        """The end of the cluster: nobody listens any more, and no file is left."""
        for service in list(self._definitions):
            self.forget(service)
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _held_by(self, service: str) -> list[Shared]:
        """What is held for it, in the order of its configuration."""
        definition = self._definitions.get(service)
        if definition is None:
            return []
        found = (self._shared.get(each) for each in _keys(definition))
        return [each for each in found if each is not None and service in each.users]

    def _hold(self, definition: ServiceDefinition, spec: SocketSpec) -> Shared:
        launch, group = definition.launch, definition.service or definition.spec.name
        key = _key(spec, definition)
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = Shared(group, listen(spec, Owner(launch.uid, launch.gid)))
        elif shared.group != group:
            raise CannotListen(f"cannot listen on {address(spec)}: svcd listens there for {shared.group}")
        shared.users.add(definition.spec.name)
        return shared

    def _release(self, service: str, keep: set[Key]) -> None:
        definition = self._definitions.get(service)
        for key in _keys(definition) if definition is not None else ():
            shared = self._shared.get(key)
            if shared is None or key in keep or service not in shared.users:
                continue
            shared.users.discard(service)
            if not shared.users:
                del self._shared[key]
                self._disarm(shared)
                shared.listener.close()

    # ---- who comes ---------------------------------------------------------------------------------------------------

    def await_demand(self, service: str) -> None:
        """Tell of the first connection, or datagram, that comes or waits already; once."""
        self._awaiting.add(service)
        self._look(service)

    def cease_awaiting(self, service: str) -> None:
        self._awaiting.discard(service)
        self._disarm_unused(service)

    def watch(self, service: str) -> None:
        """Say ``on_arrival`` when somebody next connects; once. Whoever has been accepted before we look is missed."""
        self._watching.add(service)
        self._arm(service)

    def cease_watching(self, service: str) -> None:
        self._watching.discard(service)
        self._disarm_unused(service)

    def _look(self, service: str) -> None:
        try:
            self.descriptors(service)
        except CannotListen as error:
            self._arise(service, str(error))
        else:
            self._arm(service)

    def _arise(self, service: str, text: str) -> None:
        self.cease_awaiting(service)
        self._submit(DemandArose(clock.now(), service, text))

    def _arm(self, service: str) -> None:
        for shared in self._held_by(service):
            fd = shared.listener.fileno()
            if fd not in self._watched:
                self._watched[fd] = shared
                self._epoll.register(fd, select.EPOLLIN)

    def _disarm_unused(self, service: str) -> None:
        """Nobody spins on a socket that nobody waits for: it stays readable until its service takes what is there."""
        for shared in self._held_by(service):
            if not shared.users & (self._awaiting | self._watching):
                self._disarm(shared)

    def _disarm(self, shared: Shared) -> None:
        fd = shared.listener.fileno()
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _arrived(self) -> None:
        for fd, _ in self._epoll.poll(0):
            shared = self._watched.get(fd)
            if shared is None:  # given up because of one before
                continue
            self._disarm(shared)
            what = "a connection to" if shared.listener.spec.type == "stream" else "a message for"
            for service in sorted(shared.users & self._watching):
                self.cease_watching(service)
                self._on_arrival(service)
            for service in sorted(shared.users & self._awaiting):
                self._arise(service, f"{what} {address(shared.listener.spec)}")


def is_waiting(listener: Listener) -> bool:
    """Whether somebody waits there to be taken."""
    poll = select.poll()
    poll.register(listener.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _keys(definition: ServiceDefinition) -> list[Key]:
    return [_key(each, definition) for each in definition.launch.sockets]


def _key(spec: SocketSpec, definition: ServiceDefinition) -> Key:
    """What has to be the same for a socket to be the same: its place, and whose its file is."""
    if spec.path is not None:
        return spec.type, os.path.normpath(spec.path), spec.mode, definition.launch.uid, definition.launch.gid
    host = None if spec.host in EVERY_ADDRESS else spec.host
    if not spec.port:  # any port that is free: nobody shares that
        return spec.type, host, definition.spec.name, spec.name
    return spec.type, host, spec.port
