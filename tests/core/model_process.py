"""What the model knows of processes and hooks: records.

Must not act: the shell and the world around it do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from svcd.supervisor.core import events as ev
from svcd.supervisor.core.actions import StubOrder
from svcd.supervisor.core.spec import Hook

PHASES = {
    StubOrder.LOAD: (ev.StubPhase.LOADED,),
    StubOrder.INIT: (ev.StubPhase.INITIALIZED,),
    StubOrder.START: (ev.StubPhase.STARTING, ev.StubPhase.RUNNING),
    StubOrder.DRAIN: (),
    StubOrder.IMPORT: (),
}


@dataclass(slots=True, eq=False)
class Process:
    """One invocation. ``alive``: the main process; ``leftovers``: what it left behind."""

    service: str
    invocation: int
    born: bool = False
    executed: bool = False
    alive: bool = True
    leftovers: bool = False
    pid: int | None = None
    connected: bool = False
    told: set[StubOrder] = field(default_factory=set)  # by this connection
    reached: list[ev.StubPhase] = field(default_factory=list)
    to_reach: list[ev.StubPhase] = field(default_factory=list)
    is_asked_to_end: bool = False
    is_killed: bool = False
    is_stopping: bool = False  # its stop has begun
    is_frozen: bool = False
    probes: bool = False  # its readiness is awaited
    is_checked: bool = False  # its health is
    pausing: StubOrder | None = None
    is_paused: bool = False
    has_endpoint: bool = False
    is_drained: bool = False
    is_leaving: bool = False  # it wants to end, and waits to be told to
    is_handing_over: bool = False
    is_compared: bool = False  # its interface, with that of the one before
    is_ending: bool = False  # it has said so
    is_stale: bool = False  # of a configuration that it does not do for any more
    ahead: bool = False  # loaded ahead of time
    lost: set[str] = field(default_factory=set)  # what it requires now and did not when it began

    @property
    def lives(self) -> bool:
        return self.alive or self.leftovers

    @property
    def is_up(self) -> bool:
        """Others may rely on it."""
        return self.alive and not (self.is_asked_to_end or self.is_killed)

    @property
    def has_started(self) -> bool:
        return ev.StubPhase.RUNNING in self.reached


@dataclass(slots=True, eq=False)
class RunningHook:
    service: str
    invocation: int
    hook: Hook
    is_killed: bool = False


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that may happen now. ``is_kind``: a well-meaning world would do it."""

    kind: str
    service: str
    is_kind: bool
    happen: Callable[[], None] = field(repr=False)
