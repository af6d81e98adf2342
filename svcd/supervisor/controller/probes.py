"""Watching a starting service until it is ready: a delay, a TCP port that answers, an sd_notify READY=1.

Must not decide how long is too long (the core's READY timer does) nor what follows.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
from collections.abc import Callable

from svcd.supervisor.config.launch import ReadyProbe
from svcd.supervisor.controller import clock
from svcd.supervisor.core.events import ReadinessReached
from svcd.supervisor.core.spec import ReadyKind

FIRST_INTERVAL_S = 0.01
LAST_INTERVAL_S = 0.25
CONNECT_TIMEOUT_S = 1.0
NOTIFY_LIMIT_BYTES = 4096
CREDENTIALS = struct.Struct("=3i")  # pid, uid, gid: struct ucred, unix(7)
DESCRIPTOR = struct.Struct("=i")


class NotifySocket:
    """One service run's end of the sd_notify protocol (sd_notify(3)): an abstract datagram socket with an
    unguessable name.

    A datagram counts if its sender's uid, as the kernel says, is ours, root's or the service's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, uids: frozenset[int], ready: Callable[[], None]) -> None:
        self._loop = loop
        self._uids = uids
        self._ready = ready
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        name = f"svcd-notify-{secrets.token_hex(16)}"
        self._socket.bind("\0" + name)
        self.address = "@" + name
        loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(NOTIFY_LIMIT_BYTES, 1024)
            except BlockingIOError:
                return
            if self._is_trusted(ancillary) and b"READY=1" in data.split(b"\n"):
                self._ready()

    def _is_trusted(self, ancillary: list[tuple[int, int, bytes]]) -> bool:
        trusted = False
        for level, kind, data in ancillary:
            if level != socket.SOL_SOCKET:
                continue
            if kind == socket.SCM_CREDENTIALS:
                trusted = CREDENTIALS.unpack_from(data)[1] in self._uids
            elif kind == socket.SCM_RIGHTS:  # descriptors that nobody asked for
                for (fd,) in DESCRIPTOR.iter_unpack(data[: len(data) // DESCRIPTOR.size * DESCRIPTOR.size]):
                    os.close(fd)
        return trusted


class Probe:
    """The readiness of one run. ``begin`` is the core's order; what a notify socket heard before it counts as well."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        submit: Callable[[ReadinessReached], None],
        service: str,
        invocation: int,
        spec: ReadyProbe,
        kind: ReadyKind,
        uids: frozenset[int],
    ) -> None:
        self._loop = loop
        self._submit = submit
        self._service = service
        self._invocation = invocation
        self._spec = spec
        self._kind = kind
        self._begun = False
        self._heard = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._notify = NotifySocket(loop, uids, self._on_notified) if kind is ReadyKind.NOTIFY else None

    @property
    def environment(self) -> dict[str, str]:
        """What the process must be told."""
        return {"NOTIFY_SOCKET": self._notify.address} if self._notify else {}

    def begin(self) -> None:
        self._begun = True
        if self._kind is ReadyKind.DELAY:
            self._timer = self._loop.call_later(self._spec.delay_s or 0.0, self._reached)
        elif self._kind is ReadyKind.TCP:
            self._task = self._loop.create_task(self._connect_until_answered())
        elif self._heard:
            self._reached()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._notify is not None:
            self._notify.close()
            self._notify = None

    def _on_notified(self) -> None:
        self._heard = True
        if self._begun:
            self._reached()

    def _reached(self) -> None:
        self._submit(ReadinessReached(clock.now(), self._service, self._invocation))

    async def _connect_until_answered(self) -> None:
        interval_s = FIRST_INTERVAL_S
        while not await self._answers():
            await asyncio.sleep(interval_s)
            interval_s = min(interval_s * 1.5, LAST_INTERVAL_S)
        self._reached()

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, writer = await asyncio.open_connection(self._spec.tcp_host, self._spec.tcp_port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True
