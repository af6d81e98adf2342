"""Where services are, for callers that are no Python services: told when they ask, and again when it changes.

Must not carry a request to a service, nor take anybody's word for who asks: the kernel names the process, introductions
say whose it is.

Nobody tells when such a caller has gone. Whenever those who are told have doubled in number all of them are told once
more: who is gone cannot be reached, and is forgotten. So there are never more than twice as many as live.
"""

from __future__ import annotations

from typing import Final

from svcd.protocol.call_errors import PermissionDenied
from svcd.protocol.errors import ErrorCode
from svcd.protocol.messages import GetRoute, RouteReported
from svcd.supervisor.controller.clients.requests import Requests
from svcd.supervisor.controller.control import Control, Peer
from svcd.supervisor.controller.python.introductions import CLIENT, Introductions
from svcd.supervisor.controller.python.lookups import Lookups
from svcd.supervisor.controller.python.routes import A_PROGRAM, Routes
from svcd.supervisor.controller.registry import Registry

SWEEP_FROM: Final = 64


class Inquiries:
    """``receive`` takes each ``GetRoute``."""

    def __init__(
        self,
        control: Control,
        registry: Registry,
        routes: Routes,
        lookups: Lookups,
        introductions: Introductions,
        requests: Requests,
    ) -> None:
        self._control = control
        self._registry = registry
        self._routes = routes
        self._lookups = lookups
        self._introductions = introductions
        self._requests = requests
        self._followers: dict[str, dict[bytes, tuple[Peer, bytes]]] = {}  # name in the file -> by route
        self._count = 0
        self._sweep_at = SWEEP_FROM
        routes.watch(self._route_changed)

    def receive(self, peer: Peer, correlation: bytes, message: GetRoute) -> None:
        service = message.service
        try:
            asker = self._asker(peer, service)
        except PermissionDenied as denied:
            self._requests.refuse(peer, correlation, ErrorCode.NOT_PERMITTED, f"cannot call {service}: {denied}")
            return
        if service not in self._registry.instances:
            self._requests.refuse(peer, correlation, ErrorCode.UNKNOWN_SERVICE, self._requests.not_called_so(service))
            return
        if self._routes.is_program(service):  # to wait for it would be in vain
            self._requests.refuse(peer, correlation, ErrorCode.UNKNOWN_SERVICE, A_PROGRAM)
            return
        if message.follow:
            self._follow(peer, correlation, service)
        if message.start:
            by = f"a client (pid {peer.pid})" if asker == CLIENT else asker

            def end(error: str | None) -> None:
                self._report(peer, correlation, service, error)

            self._lookups.find(service, by, False, end)
        else:
            self._report(peer, correlation, service)

    def _asker(self, peer: Peer, service: str) -> str:
        """Raises ``PermissionDenied``."""
        return self._introductions.name_of(self._registry.expand([service])[0], peer.pid, peer.uid)

    def _report(self, peer: Peer, correlation: bytes, service: str, error: str | None = None) -> bool:
        """Whether it could be sent. ``error``: why it could not be started."""
        target = self._routes.target(service)
        routes = () if error is not None else target.routes
        why = error if error is not None else target.why
        report = RouteReported(service, routes, why, target.on_demand, target.held)
        return self._control.send(peer.route, correlation, report)

    # ---- who is told of changes --------------------------------------------------------------------------------------

    def _follow(self, peer: Peer, correlation: bytes, service: str) -> None:
        """One connection follows a service once: the last question counts."""
        followers = self._followers.setdefault(service, {})
        self._count += peer.route not in followers
        followers[peer.route] = peer, correlation
        if self._count > self._sweep_at:
            for each in tuple(self._followers):
                self._route_changed(each)
            self._sweep_at = max(SWEEP_FROM, 2 * self._count)

    def _route_changed(self, service: str) -> None:
        for peer, correlation in tuple(self._followers.get(service, {}).values()):
            if not self._tell(peer, correlation, service):
                self._forget(peer, service)

    def _tell(self, peer: Peer, correlation: bytes, service: str) -> bool:
        """Whether it goes on being told: permissions may have changed with the configuration."""
        try:
            self._asker(peer, service)
        except PermissionDenied as denied:
            self._requests.refuse(peer, correlation, ErrorCode.NOT_PERMITTED, f"cannot call {service}: {denied}")
            return False
        return self._report(peer, correlation, service)

    def _forget(self, peer: Peer, service: str) -> None:
        followers = self._followers[service]
        del followers[peer.route]
        self._count -= 1
        if not followers:
            del self._followers[service]
