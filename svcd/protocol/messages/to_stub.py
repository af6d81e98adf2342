"""What the controller says to a stub."""

from __future__ import annotations

from typing import Any, ClassVar

from svcd.protocol.messages.base import Message
from svcd.protocol.messages.shared import Listener, Route
from svcd.record import field, record


@record
class ServiceSpec(Message):
    """The code to run: exactly one of ``entry`` (module:name), ``script`` (path), ``code`` (source). The
    stub imports it. ``endpoint``: directory in which it binds ``calls`` and ``events``;
    ``heard``: somebody may listen to what it publishes. ``parent``: the service that has created it. ``keep_state``: it
    exports its state by itself when it stops, and every ``export_every_s``, if that is not 0. ``runtime``: by which its
    threads and processes are made.
    """

    direction: ClassVar[str] = "controller to stub"
    service: str
    invocation: int
    entry: str | None = None
    script: str | None = None
    code: str | None = None
    path: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    controller_timeout_s: float = 30.0
    stop_timeout_s: float = 10.0
    watchdog_s: float | None = None
    endpoint: str = ""
    heard: bool = False
    parent: str | None = None
    keep_state: bool = False
    export_every_s: float = 0.0
    version: str | None = None
    runtime: dict[str, Any] = field(default_factory=dict)
    record_imports: bool = False
    takes_over: bool = False


@record
class Init(Message):
    """Call ``init(config)``."""

    direction: ClassVar[str] = "controller to stub"
    invocation: int


@record
class Start(Message):
    """Call ``start()``; a function is called now, a script begins."""

    direction: ClassVar[str] = "controller to stub"
    invocation: int


@record
class Pause(Message):
    """Call ``pause()``; the stub answers with the state paused, or with an exception and the state running."""

    direction: ClassVar[str] = "controller to stub"
    invocation: int


@record
class Resume(Message):
    """Call ``resume()``; the stub answers with the state running."""

    direction: ClassVar[str] = "controller to stub"
    invocation: int


@record
class CheckHealth(Message):
    """Call ``method`` of the service; answered by ``HealthReported``."""

    direction: ClassVar[str] = "controller to stub"
    invocation: int
    token: int
    method: str


@record
class Stop(Message):
    """Stop, then end the process. During a start: waits for the start to end, well or badly, and then stops."""

    direction: ClassVar[str] = "controller to stub"
    invocation: int
    reason: str = ""


@record
class EndNoted(Message):
    """The answer to ``EndAnnounced``: all that was said before it has been heard."""

    direction: ClassVar[str] = "controller to stub"
    invocation: int


@record
class ExportState(Message):
    """Call ``export_state()`` of a service that runs; answered by ``StateExported`` in parts."""

    direction: ClassVar[str] = "controller to stub"
    invocation: int
    token: int


@record
class ImportState(Message):
    """Part number ``part`` of ``parts`` of a state that was exported, said before ``Start``: ``import_state`` gets it
    before ``start`` is called. ``version``: of the service that has exported it.
    """

    direction: ClassVar[str] = "controller to stub"
    invocation: int
    part: int
    parts: int
    data: bytes
    version: str | None = None


@record
class StateSaved(Message):
    """The state that was exported as ``token`` is kept; ``error``: it is not, and why."""

    direction: ClassVar[str] = "controller to stub"
    invocation: int
    token: int
    error: str | None = None


@record
class Drain(Message):
    """Serve late requests for ``grace_s``, then take no more; those in flight have ``timeout_s`` to end. Answered by
    ``DrainProgress`` and, at the end, the state drained.
    """

    direction: ClassVar[str] = "controller to stub"
    invocation: int
    reason: str = ""
    grace_s: float = 0.0
    timeout_s: float = 10.0


@record
class HandOver(Message):
    """A successor waits: finish what is in flight within ``timeout_s``, send new requests away to wait for it, and
    ``pause()``. Answered by ``HandedOver``; followed by ``ExportState`` and ``Stop``, or by ``GoOn``.
    """

    direction: ClassVar[str] = "controller to stub"
    invocation: int
    reason: str = ""
    timeout_s: float = 10.0


@record
class GoOn(Message):
    """The successor has failed: take requests again, and ``resume()``."""

    direction: ClassVar[str] = "controller to stub"
    invocation: int


@record
class RouteChanged(Message):
    """Where requests to ``target`` go from now on. No routes: nowhere, and ``why``. ``permitted`` False: this service
    may not call it any more. ``on_demand``: asking for it starts it. ``held``: it is back in a moment, callers wait.
    """

    direction: ClassVar[str] = "controller to stub"
    invocation: int
    target: str
    routes: tuple[Route, ...] = ()
    why: str = ""
    permitted: bool = True
    on_demand: bool = False
    held: bool = False


@record
class ReportUse(Message):
    """Say whether others use the service: ``UseReported``."""

    direction: ClassVar[str] = "controller to stub"
    invocation: int


@record
class PeerIdentified(Message):
    """Who that is; ``refusal``: why it is not to be let in."""

    direction: ClassVar[str] = "controller to stub"
    invocation: int
    token: int
    name: str
    refusal: str | None = None


@record
class ListenersExpected(Message):
    """To a successor, before its ``Start``: who has listened to the run that it replaces, and will listen to it."""

    direction: ClassVar[str] = "controller to stub"
    invocation: int
    listeners: tuple[Listener, ...]


@record
class PeerDismissed(Message):
    """Whoever was identified by that name may not call any more: its connections end, and what it has under way."""

    direction: ClassVar[str] = "controller to stub"
    invocation: int
    name: str
    reason: str


@record
class LookupEnded(Message):
    """``error`` None: it runs, and its ``RouteChanged`` has been sent."""

    direction: ClassVar[str] = "controller to stub"
    invocation: int
    token: int
    error: str | None = None


@record
class ChildRequestEnded(Message):
    """``code`` empty: it is done. Otherwise it is a ``child_errors.ChildErrorCode`` value, ``error`` says why, and
    ``problems`` are those of a definition that cannot be used.
    """

    direction: ClassVar[str] = "controller to stub"
    invocation: int
    token: int
    code: str = ""
    error: str = ""
    problems: tuple[str, ...] = ()


@record
class ChildChanged(Message):
    """A child of this service is in ``state`` from now on; ``removed``: it is there no more."""

    direction: ClassVar[str] = "controller to stub"
    invocation: int
    child: str
    state: str
    cause: str = ""


@record
class ChildEnded(Message):
    """A run of a child of this service has ended by itself: well, or badly for ``error``."""

    direction: ClassVar[str] = "controller to stub"
    invocation: int
    child: str
    error: str | None = None


@record
class Ping(Message):
    """Answered by ``Pong``."""

    direction: ClassVar[str] = "controller to stub"
    invocation: int


@record
class Welcome(Message):
    """The answer to a ``RemoteReady`` of a stub that came back: it goes on with what it was doing."""

    direction: ClassVar[str] = "controller to stub"
    invocation: int
