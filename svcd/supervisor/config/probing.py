"""From ``ready:`` and ``health:`` to what the shell watches.

Must not ask anyone whether a service is ready: it only checks that the question makes sense.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from svcd.supervisor.config.launch import HealthProbe, HttpTarget, ReadyProbe
from svcd.supervisor.config.tree import Loc
from svcd.supervisor.config.words import HEALTH_KEYS, HTTP_ONLY_KEYS, READY_KEYS, LogDriver
from svcd.supervisor.core.spec import ReadyKind

if TYPE_CHECKING:  # the daemon resolves child services with these functions, and pays for no validator
    from svcd.supervisor.config.service_source import Notes
    from svcd.supervisor.config.shape import Health, Ready, Service

CheckCommand = Callable[[Loc, tuple[str, ...]], None]
"""Notes what is wrong with a command that stands at a place."""

READY_KINDS: Final = {each.value: each for each in ReadyKind if each is not ReadyKind.STARTED}
_WITH_INTERVAL: Final = (ReadyKind.TCP, ReadyKind.HTTP, ReadyKind.EXEC)
DEFAULT_TIMEOUT_S: Final = 60.0
DEFAULT_INTERVAL_S: Final = 0.1
FIRST_DESCRIPTOR: Final = 3
"""Sockets are handed over from here on (sd_listen_fds(3))."""


def resolve_ready(block: Service, run: str | None, notes: Notes, check: CheckCommand) -> tuple[ReadyKind, ReadyProbe]:
    """``run``: which key says what runs."""
    kind = ReadyKind.STARTED if run in ("python", "code") else ReadyKind.IMMEDIATE
    written = block.ready
    if written is None:
        return kind, ReadyProbe()
    for key in ("immediate", "notify"):
        if getattr(written, key) is False:
            notes.find(("ready", key), "false says nothing", "write true, or remove it")
    given = [key for key in READY_KEYS if getattr(written, key.replace("-", "_")) is not None]
    for key in given[1:]:
        notes.find(("ready", key), f"does not go with {given[0]}:", "keep one of the two")
    kind = READY_KINDS[given[0]] if given else kind
    _check_http_keys(written, ("ready",), notes)
    if kind not in _WITH_INTERVAL and notes.is_written("ready", "interval") and written.interval != DEFAULT_INTERVAL_S:
        notes.find(("ready", "interval"), "goes with tcp:, http: or exec:", "remove it")
    if kind is ReadyKind.LOG and block.logs.driver is LogDriver.NONE:
        notes.find(("ready", "log"), "finds nothing: logs: driver: none discards the output", "write driver: file")
    if written.notification_fd is not None:
        _check_descriptor(written.notification_fd, block, run, notes)
    if written.exec is not None:
        check(("ready", "exec"), written.exec)
    host, port = written.tcp or (None, None)
    return kind, ReadyProbe(
        delay_s=written.delay,
        tcp_host=host,
        tcp_port=port,
        http=_http_target(written),
        argv=written.exec,
        pattern=written.log,
        notification_fd=written.notification_fd,
        interval_s=written.interval,
    )


def ready_timeout_s(block: Service, notes: Notes) -> float:
    """How long a start may take. A delay that is longer than the default only makes it longer."""
    written = block.ready
    if written is None:
        return DEFAULT_TIMEOUT_S
    if written.delay is None or written.delay < written.timeout:
        return written.timeout
    if notes.is_written("ready", "timeout"):
        notes.find(("ready", "timeout"), "is over before the delay is: it would never be ready", "make it longer")
    return written.delay + written.timeout


def resolve_health(block: Service, run: str | None, notes: Notes, check: CheckCommand) -> HealthProbe | None:
    written = block.health
    if written is None:
        return None
    given = [key for key in HEALTH_KEYS if getattr(written, key) is not None]
    if not given:
        notes.find(("health",), "says nothing to check", "add http:, tcp:, exec: or, for Python services, rpc:")
    for key in given[1:]:
        notes.find(("health", key), f"does not go with {given[0]}:", "keep one of the two")
    if written.rpc is not None and run is not None and run not in ("python", "code"):
        notes.find(
            ("health", "rpc"), "goes with python: or code:, whose service has methods", "use http:, tcp: or exec:"
        )
    _check_http_keys(written, ("health",), notes)
    if written.exec is not None:
        check(("health", "exec"), written.exec)
    host, port = written.tcp or (None, None)
    return HealthProbe(
        tcp_host=host,
        tcp_port=port,
        http=_http_target(written),
        argv=written.exec,
        method=written.rpc,
        interval_s=written.interval,
        timeout_s=written.timeout,
    )


def _http_target(written: Ready | Health) -> HttpTarget | None:
    if written.http is None:
        return None
    return HttpTarget(written.http, written.status or HttpTarget("").status, written.body)


def _check_http_keys(written: Ready | Health, loc: Loc, notes: Notes) -> None:
    if written.http is None:
        for key in HTTP_ONLY_KEYS:
            if getattr(written, key) is not None:
                notes.find((*loc, key), "goes with http:", "add http:, or remove it")


def _check_descriptor(number: int, block: Service, run: str | None, notes: Notes) -> None:
    loc = ("ready", "notification-fd")
    if run not in ("command", None):
        notes.find(loc, "goes with command:", "remove it: a Python service is ready when its start has ended")
    last = FIRST_DESCRIPTOR + len(block.sockets) - 1
    if number <= last:
        held = (
            f"descriptor {number} is" if last == FIRST_DESCRIPTOR else f"descriptors {FIRST_DESCRIPTOR} to {last} are"
        )
        notes.find(loc, f"{held} for its sockets", f"use {last + 1}")
