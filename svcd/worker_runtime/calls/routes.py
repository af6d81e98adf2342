"""Where the services are that this one may call: told by the controller, asked by calls, waited for by those who can.

Must not connect, nor decide what is permitted: that is handed in as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from svcd.protocol.call_errors import CallError, PermissionDenied, ServiceUnavailable
from svcd.protocol.messages import RouteChanged, RouteReported
from svcd.record import record

NO_METHODS: Final = "it takes no calls: none of its methods is marked with @rpc"


@record
class Address:
    """One running instance of a service: the path of its socket for calls, empty where it takes none, and, if it
    publishes, of that for events. ``pid``: who must be listening there, None where anybody may. ``safe``: its methods
    that may be called again after a loss.
    """

    calls: str
    events: str | None = None
    pid: int | None = None
    safe: tuple[str, ...] = ()


class Routes:
    """``set_route`` and ``withdraw`` as the controller says; ``permits`` says whether a service may be called at all.

    ``on_missing`` is told the name of a service that starts on demand and that somebody waits for, and whoever is told
    says how that ended: ``came`` or ``missed``. Until then nobody who waits is disturbed by what becomes of it.
    """

    def __init__(
        self,
        permits: Callable[[str], bool] = lambda service: True,
        on_missing: Callable[[str], None] = lambda service: None,
    ) -> None:
        self._permits = permits
        self._on_missing = on_missing
        self._addresses: dict[str, tuple[Address, ...]] = {}
        self._callable: dict[str, tuple[Address, ...]] = {}  # those of them that take calls
        self._why: dict[str, str] = {}
        self._watchers: list[Callable[[str], None]] = []
        self._safe: dict[str, frozenset[str]] = {}  # methods that may be asked again; kept when the route is withdrawn
        self.on_demand: set[str] = set()
        self.held: set[str] = set()  # who is back in a moment: callers wait
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._asked_for: set[str] = set()  # by ``on_missing``, and how that ended has not been said

    def take(self, service: str, told: RouteChanged | RouteReported) -> None:
        """As the controller says."""
        (self.on_demand.add if told.on_demand else self.on_demand.discard)(service)
        if told.routes:
            addresses = (Address(each.calls, each.events or None, each.pid, each.safe) for each in told.routes)
            self.set_route(service, tuple(addresses))
        elif told.held:
            self.hold(service)
        else:
            self.withdraw(service, told.why)

    def set_route(self, service: str, addresses: tuple[Address, ...]) -> None:
        """From now on it is found there, and only there."""
        self.held.discard(service)
        self._addresses[service] = addresses
        self._safe[service] = frozenset[str]().union(*(each.safe for each in addresses))
        self._callable[service] = tuple(each for each in addresses if each.calls)
        self._changed(service)

    def hold(self, service: str) -> None:
        """It is back in a moment, there or elsewhere: calls wait for that; its events are heard as before."""
        self.held.add(service)
        self._callable.pop(service, None)

    def withdraw(self, service: str, why: str = "it does not run") -> None:
        """From now on it is not found. What is under way there goes on."""
        self.held.discard(service)
        self._addresses.pop(service, None)
        self._callable.pop(service, None)
        self._why[service] = why
        self._changed(service)

    def is_safe(self, service: str, method: str) -> bool:
        """Whether this may be asked again when nobody knows whether it was begun."""
        return method in self._safe.get(service, ())

    def came(self, service: str) -> None:
        """It was to be started, and that went well: who waits finds it, or asks for it anew if it has gone already."""
        self._asked_for.discard(service)
        self._look_again(service)

    def missed(self, service: str, why: str, kind: type[CallError] = ServiceUnavailable) -> None:
        """It was to be started, and that has failed: nobody waits for it any longer."""
        self._asked_for.discard(service)
        self._why[service] = why
        for each in self._waiting.get(service, ()):
            if not each.done():
                each.set_exception(kind(f"cannot call {service}: {why}"))

    def lookup(self, service: str) -> tuple[Address, ...]:
        """At least one. Raises ``PermissionDenied`` or ``ServiceUnavailable``."""
        found = self._callable.get(service)
        if found:
            return found
        self.check_permitted(service)
        is_mute = service in self._addresses and service not in self.held
        why = NO_METHODS if is_mute else self._why.get(service, "it does not run")
        raise ServiceUnavailable(f"cannot call {service}: {why}")

    def check_permitted(self, service: str) -> None:
        """Raises ``PermissionDenied``."""
        if not self._permits(service):
            raise PermissionDenied(f"cannot call {service}: it is neither in depends_on nor in permissions.services")

    def known(self, service: str) -> tuple[Address, ...]:
        """As ``lookup``, with nothing where there is none."""
        return self._addresses.get(service, ())

    def watch(self, watcher: Callable[[str], None]) -> None:
        """Call this with the name of each service whose route has changed."""
        self._watchers.append(watcher)

    async def wait_change(self, service: str, timeout_s: float) -> bool:
        """Until its route changes, or for so long; whether it did. Raises ``ServiceUnavailable`` for what was to be
        started and did not come up.
        """
        changed = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(service, [])
        waiting.append(changed)
        if service in self.on_demand and not self._addresses.get(service) and service not in self._asked_for:
            self._asked_for.add(service)
            self._on_missing(service)
        try:
            await asyncio.wait((changed,), timeout=timeout_s)
        finally:
            waiting.remove(changed)
            if not waiting:
                self._waiting.pop(service, None)
        if changed.done():
            changed.result()
        return changed.done()

    def _changed(self, service: str) -> None:
        if self._addresses.get(service) or service not in self._asked_for:
            self._look_again(service)
        for watcher in self._watchers:
            watcher(service)

    def _look_again(self, service: str) -> None:
        """Who waits for it does."""
        for each in self._waiting.get(service, ()):
            if not each.done():
                each.set_result(None)
