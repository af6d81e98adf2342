"""Whether running on-demand services are used, and who has not been for its idle timeout.

Must not stop anything (the core does), nor touch a connection: it looks at the kernel's tables, some times within an
idle timeout, and only while a service with an idle timeout runs.

In use is a service with a connection at one of its sockets, or with somebody who waits there. Connections that came and
went between two looks are found where they leave a trace: for a minute in TIME_WAIT, on our side or that of a client on
this host; and by the sockets' own watch, which sees most arrivals, but not those that were taken before we came to
look. Where health checks connect to the service, traces tell nothing, and only what is connected at a look counts.
Datagrams leave no trace at all: a service with a datagram socket is always in use.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from svcd.record import entity, field
from svcd.supervisor.config.launch import ServiceDefinition
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.processes.listening import Listener
from svcd.supervisor.controller.processes.sockets import HeldSockets, is_waiting
from svcd.supervisor.core.events import IdleReached

LONGEST_INTERVAL_S: Final = 5.0
LOOKS: Final = 4  # within one idle timeout, at the least
TIME_WAIT_S: Final = 60.0  # TCP_TIMEWAIT_LEN
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
ANY_ADDRESS: Final = rb"[0-9A-F]{8,32}"


class Tables:
    """The kernel's tables of connections, as they are now."""

    def __init__(self) -> None:
        self._inet = b"".join(_read(name) for name in ("tcp", "tcp6"))
        self._unix = _read("unix")

    def unused_for(self, listener: Listener, traces: bool) -> float | None:
        """Seconds since the socket was last seen in use, 0 for now; None when nothing tells of any use.

        ``traces``: connections that have ended count.
        """
        if listener.spec.path is not None:
            return 0.0 if self._has_unix(listener.spec.path) else None
        address, port = _inet_patterns(listener)
        if re.search(rb": %s:%s \S+ (?:01|03|08) " % (address, port), self._inet):
            return 0.0
        return self._last_trace(address, port) if traces else None

    def _has_unix(self, path: str) -> bool:
        """Connected, or waiting to be accepted: what the service's side of a connection is called after."""
        return re.search(rb" 0[23] +\d+ %s\n" % re.escape(os.fsencode(path)), self._unix) is not None

    def _last_trace(self, address: bytes, port: bytes) -> float | None:
        """The youngest TIME_WAIT: at the service's end, or at that of a client on this very host."""
        ours = re.findall(rb": %s:%s \S+ 06 \S+ 03:([0-9A-F]+) " % (address, port), self._inet)
        theirs = re.findall(rb": (%s):\S+ \1:%s 06 \S+ 03:([0-9A-F]+) " % (address, port), self._inet)
        left = [int(each, 16) / TICKS_PER_S for each in (*ours, *(ticks for _, ticks in theirs))]
        return max(0.0, TIME_WAIT_S - max(left)) if left else None


def _read(name: str) -> bytes:
    try:
        return Path(f"/proc/net/{name}").read_bytes()
    except OSError:
        return b""


def _inet_patterns(listener: Listener) -> tuple[bytes, bytes]:
    """Address and port as /proc/net/tcp writes them: each word of 32 bits as a number of this machine's."""
    host, port = listener.socket.getsockname()[:2]
    number = ipaddress.ip_address(host.partition("%")[0])
    if number.is_unspecified:
        return ANY_ADDRESS, b"%04X" % port
    packed = socket.inet_pton(listener.socket.family, str(number))
    words = (int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4))
    return b"".join(b"%08X" % word for word in words), b"%04X" % port


@entity
class Watched:
    """A running service with an idle timeout. ``used_at``: monotonic; when it was last known to be in use."""

    service: str
    invocation: int
    timeout_s: float
    traces: bool
    used_at: float = field(default_factory=clock.now)


class IdleWatch:
    """``submit`` gets an ``IdleReached`` when a watched service was not used for its idle timeout, and again after
    each further one. Say ``arrived`` when the sockets see somebody come.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, submit: Callable[[IdleReached], None], sockets: HeldSockets
    ) -> None:
        self._loop = loop
        self._submit = submit
        self._sockets = sockets
        self._watched: dict[str, Watched] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, definition: ServiceDefinition, invocation: int) -> None:
        """This run is ready for use. Does nothing for services without an idle timeout, or without sockets."""
        launch = definition.launch
        if launch.idle_timeout_s is None or not launch.sockets or any(each.type == "dgram" for each in launch.sockets):
            return
        health = launch.health
        connects = health is not None and (health.tcp_port is not None or health.http is not None)
        name = definition.spec.name
        self._watched[name] = Watched(name, invocation, launch.idle_timeout_s, traces=not connects)
        self._sockets.watch(name)
        self._set_timer()

    def adopt(self, definition: ServiceDefinition) -> None:
        """Go by this from now on, if it is watched; its time begins anew."""
        each = self._watched.get(definition.spec.name)
        if each is not None:
            self.end(each.service)
            self.begin(definition, each.invocation)

    def end(self, service: str) -> None:
        """It does not run any more, or not as something that may be idle."""
        if self._watched.pop(service, None) is not None:
            self._sockets.cease_watching(service)

    def arrived(self, service: str) -> None:
        each = self._watched.get(service)
        if each is not None and each.traces:
            each.used_at = clock.now()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for service in list(self._watched):
            self.end(service)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._watched:
            now = clock.now()
            self._timer = self._loop.call_later(
                min(_next_look_s(each, now) for each in self._watched.values()), self._look
            )

    def _look(self) -> None:
        tables = Tables()
        for each in list(self._watched.values()):
            self._look_at(each, tables)
        self._set_timer()

    def _look_at(self, each: Watched, tables: Tables) -> None:
        now = clock.now()
        for listener in self._sockets.listeners(each.service):
            ago = 0.0 if is_waiting(listener) else tables.unused_for(listener, each.traces)
            if ago is not None:
                each.used_at = max(each.used_at, now - ago)
        self._sockets.watch(each.service)
        if now - each.used_at >= each.timeout_s:
            each.used_at = now
            self._submit(IdleReached(now, each.service, each.invocation))


def _next_look_s(each: Watched, now: float) -> float:
    left = each.used_at + each.timeout_s - now
    return max(0.001, min(LONGEST_INTERVAL_S, each.timeout_s / LOOKS, left))
