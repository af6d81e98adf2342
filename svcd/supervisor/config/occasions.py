"""When a service runs: its start mode, the sockets that call for it, how long it stays unused, its schedule.

Must not open a socket (``addresses`` tries them) and must not read a clock.
"""

from __future__ import annotations

from typing import Final

from svcd.record import record
from svcd.supervisor.config.block import keys_of
from svcd.supervisor.config.launch import Schedule as LaunchSchedule
from svcd.supervisor.config.launch import SocketSpec
from svcd.supervisor.config.service_source import Notes, ServiceSource, Surroundings
from svcd.supervisor.config.shape import Service, SocketType
from svcd.supervisor.config.shape import Socket as SocketBlock
from svcd.supervisor.config.targets import check_socket_path
from svcd.supervisor.config.words import SCHEDULE_KEYS
from svcd.supervisor.core.spec import ServiceType, StartMode

MAX_SOCKETS: Final = 12
"""So many descriptors fit into one message to the launcher, with those that it needs itself."""


@record
class Occasions:
    """``sockets`` have absolute paths. ``schedule``: of a task."""

    start: StartMode
    sockets: tuple[SocketSpec, ...]
    schedule: LaunchSchedule | None


def resolve_occasions(source: ServiceSource, run: str | None, notes: Notes, around: Surroundings) -> Occasions:
    """``run``: which key says what runs."""
    block = source.block
    sockets = _sockets(source, notes, around) if run == "command" else ()
    if run is not None and not source.bad & {"start", "sockets", "type"}:
        _check_start(block, run, notes)
        _check_idle(block, notes)
    schedule = _schedule(block, notes)
    return Occasions(StartMode.MANUAL if schedule else block.start, sockets, schedule)


def _check_start(block: Service, run: str, notes: Notes) -> None:
    loc = ("start",)
    if block.start is StartMode.ON_DEMAND:
        if run == "script":
            text = "on_demand does not go with script:, which is neither handed sockets nor called"
            notes.find(loc, text, "use eager or manual")
        elif run == "command" and not block.sockets:
            text = "on_demand needs sockets: it starts at the first connection to one of them"
            notes.find(loc, text, "add sockets: [{listen: '127.0.0.1:8080'}]")
    elif block.start is StartMode.PRELOAD and run not in ("python", "code"):
        text = "preload needs python: or code:, which can be loaded without being started"
        notes.find(loc, text, "use eager or manual")
    if block.schedule is not None and block.start in (StartMode.ON_DEMAND, StartMode.PRELOAD):
        notes.find(loc, f"{block.start.value} does not go with schedule:", "keep one of the two")


def _check_idle(block: Service, notes: Notes) -> None:
    if block.idle_timeout is None:
        return
    if block.start is not StartMode.ON_DEMAND:
        text = "needs start: on_demand, for nothing else would start it again"
        notes.find(("idle_timeout",), text, "write start: on_demand, or remove it")
    elif any(each.type is SocketType.DGRAM for each in block.sockets):
        text = "cannot be kept with a dgram socket: it does not show whether anybody uses it"
        notes.find(("idle_timeout",), text, "remove it")


def _schedule(block: Service, notes: Notes) -> LaunchSchedule | None:
    written = block.schedule
    if written is None:
        return None
    if block.type is not ServiceType.TASK:
        notes.find(("schedule",), "goes with a task", "write type: task")
    if written.cron is None and written.every is None:
        notes.find(("schedule",), "says no time", 'add cron: "*/5 * * * *", or every: 10m')
    elif written.cron is not None and written.every is not None:
        notes.find(("schedule", SCHEDULE_KEYS[1]), f"does not go with {SCHEDULE_KEYS[0]}:", "keep one of the two")
    return LaunchSchedule(written.cron, written.every)


# ---- sockets -------------------------------------------------------------------------------------------------------


def _sockets(source: ServiceSource, notes: Notes, around: Surroundings) -> tuple[SocketSpec, ...]:
    found: dict[str, SocketSpec] = {}
    for index, each in enumerate(source.block.sockets):
        name = each.name or source.name
        if name in found:
            loc = ("sockets", index, "name") if each.name else ("sockets", index)
            notes.find(loc, f"two sockets are called {name}", "give each its own name:")
        if index == MAX_SOCKETS:
            notes.find(("sockets",), f"more than {MAX_SOCKETS} sockets", "use fewer")
        found[name] = _socket(name, index, each, notes, around)
    return tuple(found.values())


def _socket(name: str, index: int, block: SocketBlock, notes: Notes, around: Surroundings) -> SocketSpec:
    host, port, path = block.listen
    mark = notes.mark("sockets", index, "listen")
    if path is None:
        if block.mode != keys_of(SocketBlock)["mode"].default:
            notes.find(("sockets", index, "mode"), "goes with unix:", "remove it")
        return SocketSpec(name, block.type.value, host, port)
    path = around.absolute(path, mark)
    notes.ask(("sockets", index, "listen"), check_socket_path, path)
    return SocketSpec(name, block.type.value, path=path, mode=block.mode)
