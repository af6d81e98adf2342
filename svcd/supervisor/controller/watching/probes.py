"""Watching a starting service until it is ready, in the way that its configuration names.

Must not decide how long is too long (the core's READY timer does) nor what follows.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from svcd.protocol.rotation import Follower, follow_from_end
from svcd.supervisor.config.launch import ServiceDefinition
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.patience import Deadline
from svcd.supervisor.controller.processes.errands import Errands
from svcd.supervisor.controller.watching import checks
from svcd.supervisor.core.events import Event, ReadinessFailed, ReadinessMissed, ReadinessReached
from svcd.supervisor.core.spec import ReadyKind

ATTEMPT_S: Final = 5.0  # what one try may last
COMMAND_ATTEMPT_S: Final = 30.0  # and one of a command, which may take its time, or wait by itself
CLOSED_GRACE_S: Final = 0.5  # a process that ends closes its descriptors a moment before we hear of its end
FIRST_INTERVAL_S: Final = 0.01  # most services are there soon
LOG_INTERVAL_S: Final = 0.05
LINE_LIMIT_BYTES: Final = 64 * 1024  # of a line that has not ended, what is still looked at
READ_BYTES: Final = 512

Report = Callable[[str | None], None]


class Probe:
    """The readiness of one run. ``begin`` is the core's order; what was heard before it counts as well.

    ``descriptors``: what the process is to find at which number; ours to close once the order was sent.
    """

    def __init__(self, submit: Callable[[Event], None], service: str, invocation: int) -> None:
        self._submit = submit
        self._service = service
        self._invocation = invocation
        self._begun = False
        self._heard: tuple[str | None] | None = None
        self.descriptors: dict[int, int] = {}

    def begin(self) -> None:
        self._begun = True
        if self._heard is not None:
            self._tell(*self._heard)

    def close(self) -> None:
        self.sent()

    def sent(self) -> None:
        """The process has its own copies of the descriptors."""
        for fd in self.descriptors.values():
            os.close(fd)
        self.descriptors.clear()

    def report(self, error: str | None) -> None:
        """It is ready, or it says that it never will be."""
        if self._heard is None:
            self._heard = (error,)
            if self._begun:
                self._tell(error)

    def miss(self, reason: str) -> None:
        """Not ready yet: why, for whoever asks meanwhile."""
        if self._heard is None:
            self._submit(ReadinessMissed(clock.now(), self._service, self._invocation, reason))

    def _tell(self, error: str | None) -> None:
        at = clock.now()
        if error is None:
            self._submit(ReadinessReached(at, self._service, self._invocation))
        else:
            self._submit(ReadinessFailed(at, self._service, self._invocation, error))


class Delay(Probe):
    """Alive for so long."""

    def __init__(
        self,
        submit: Callable[[Event], None],
        service: str,
        invocation: int,
        loop: asyncio.AbstractEventLoop,
        delay_s: float,
    ) -> None:
        super().__init__(submit, service, invocation)
        self._loop = loop
        self._delay_s = delay_s
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        super().begin()
        self._timer = self._loop.call_later(self._delay_s, self.report, None)

    def close(self) -> None:
        super().close()
        if self._timer is not None:
            self._timer.cancel()


class Polled(Probe):
    """A check that is repeated until all is well."""

    def __init__(
        self,
        submit: Callable[[Event], None],
        service: str,
        invocation: int,
        loop: asyncio.AbstractEventLoop,
        check: checks.Check,
        attempt_s: float,
        interval_s: float,
    ) -> None:
        super().__init__(submit, service, invocation)
        self._loop = loop
        self._check = check
        self._attempt_s = attempt_s
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        super().begin()
        self._task = self._loop.create_task(self._poll())

    def close(self) -> None:
        super().close()
        if self._task is not None:
            self._task.cancel()

    async def _poll(self) -> None:
        pause_s = min(FIRST_INTERVAL_S, self._interval_s)
        told = None
        while (wrong := await self._check(self._attempt_s)) is not None:
            if wrong != told:
                told = wrong
                self.miss(wrong)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, self._interval_s)
        self.report(None)


class Newline(Probe):
    """A newline on a descriptor that the process was given (the convention of s6: notification-fd)."""

    def __init__(
        self,
        submit: Callable[[Event], None],
        service: str,
        invocation: int,
        loop: asyncio.AbstractEventLoop,
        number: int,
    ) -> None:
        super().__init__(submit, service, invocation)
        self._loop = loop
        self._grace: Deadline | None = None
        self._fd, write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._fd, False)
        self.descriptors[number] = write_end
        loop.add_reader(self._fd, self._read)

    def close(self) -> None:
        super().close()
        self._close_pipe()
        if self._grace is not None:
            self._grace.cancel()

    def _close_pipe(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        if b"\n" in data:
            self.report(None)
        elif not data:
            text = "it closed its notification descriptor without a newline"
            self._grace = Deadline(self._loop, CLOSED_GRACE_S, self.report, text)
        if b"\n" in data or not data:
            self._close_pipe()  # as s6 does: what else is written there is nobody's


class Logged(Probe):
    """A regular expression that is found in what it writes, in any stream of which the collector says that it began."""

    def __init__(
        self,
        submit: Callable[[Event], None],
        service: str,
        invocation: int,
        loop: asyncio.AbstractEventLoop,
        pattern: str,
    ) -> None:
        super().__init__(submit, service, invocation)
        self._loop = loop
        self._pattern = re.compile(pattern.encode("utf-8", "surrogateescape"))
        self._followers: dict[str, tuple[Follower, bytearray]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def follow(self, path: Path, fd: int | None) -> None:
        """``path`` is the file of one of its streams; what comes from ``fd``'s place on is its own."""
        if self._heard is None and str(path) not in self._followers:
            follower = follow_from_end(path) if fd is None else Follower(path, fd)
            self._followers[str(path)] = (follower, bytearray())
            if self._timer is None:
                self._timer = self._loop.call_later(FIRST_INTERVAL_S, self._look)
        elif fd is not None:  # a new collector begins anew, we do not
            os.close(fd)

    def close(self) -> None:
        super().close()
        if self._timer is not None:
            self._timer.cancel()
        for follower, _ in self._followers.values():
            follower.close()
        self._followers.clear()

    def _look(self) -> None:
        if any(self._finds(*each) for each in self._followers.values()):
            self.report(None)
            self.close()
        else:
            self._timer = self._loop.call_later(LOG_INTERVAL_S, self._look)

    def _finds(self, follower: Follower, rest: bytearray) -> bool:
        """Look at what has come, line by line; a line that has not ended is looked at as far as it goes."""
        for piece in follower.read():
            rest += piece
            *lines, last = bytes(rest).split(b"\n")
            if any(self._pattern.search(line.removesuffix(b"\r")) for line in (*lines, last)):
                return True
            rest[:] = last[-LINE_LIMIT_BYTES:]
        return False


def probe_for(
    loop: asyncio.AbstractEventLoop,
    submit: Callable[[Event], None],
    definition: ServiceDefinition,
    invocation: int,
    errands: Errands,
    said: checks.Said = lambda service, lines: None,
) -> Probe | None:
    """The probe of one run; None where the core needs none. ``said`` hears what commands print."""
    spec, name = definition.launch.probe, definition.spec.name
    kind = definition.spec.ready
    if kind in (ReadyKind.IMMEDIATE, ReadyKind.STARTED):
        return None
    if kind is ReadyKind.NOTIFY:
        return Probe(submit, name, invocation)
    if kind is ReadyKind.DELAY:
        return Delay(submit, name, invocation, loop, spec.delay_s or 0.0)
    if kind is ReadyKind.NOTIFICATION_FD and spec.notification_fd is not None:
        return Newline(submit, name, invocation, loop, spec.notification_fd)
    if kind is ReadyKind.LOG:
        return Logged(submit, name, invocation, loop, spec.pattern or "")
    attempt_s = ATTEMPT_S if spec.argv is None else COMMAND_ATTEMPT_S
    return Polled(submit, name, invocation, loop, _check_for(definition, errands, said), attempt_s, spec.interval_s)


def _check_for(definition: ServiceDefinition, errands: Errands, said: checks.Said) -> checks.Check:
    spec = definition.launch.probe
    if spec.http is not None:
        return checks.http(spec.http)
    if spec.argv is not None:
        return checks.command(errands, definition, spec.argv, said)
    return checks.tcp(spec.tcp_host or "127.0.0.1", spec.tcp_port or 0)
