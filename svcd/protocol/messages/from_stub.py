"""What a stub says to the controller."""

from __future__ import annotations

from typing import Any, ClassVar

from svcd.protocol.messages.base import Message
from svcd.protocol.messages.shared import Listener
from svcd.record import record


@record
class RemoteReady(Message):
    """The stub's first words; only then does it get code to run. ``version``: of the Python that runs it."""

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int
    pid: int
    version: str


@record
class StateChanged(Message):
    """The stub reached ``state`` (loaded, initialized, starting, running, paused, leaving, drained, stopping);
    ``error`` is one line, with stopping. Leaving: the service wants to end by itself, and waits to be told to drain and
    to stop.
    """

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int
    state: str
    error: str | None = None


@record
class Frame(Message):
    """One frame of a traceback, outermost first."""

    direction: ClassVar[str] = "part of ExceptionRaised"
    file: str
    line: int
    function: str
    source: str = ""


@record
class ExceptionRaised(Message):
    """An exception that user code did not handle. ``phase``: load, init, import, start, run, pause,
    resume, export, stop.
    """

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int
    phase: str
    type: str
    message: str
    traceback: str
    frames: tuple[Frame, ...] = ()


@record
class EndAnnounced(Message):
    """The process is about to end, with an error that it has reported. Answered by ``EndNoted``, so that the report is
    there before the exit, which travels another way.
    """

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int


@record
class ResourceSampled(Message):
    """What the stub's own process uses: CPU seconds since its start, memory in bytes."""

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int
    cpu_s: float
    rss_bytes: int
    threads: int
    fds: int


@record
class ImportsRecorded(Message):
    """What took long when the service was loaded: seconds by installed module, with all that it pulled in. Said where
    the ``ServiceSpec`` asks for it and there is something to say.
    """

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int
    imports: dict[str, Any]


@record
class Pong(Message):
    """The answer to a ``Ping``, from the stub's event loop: it still turns."""

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int


@record
class LoopAlive(Message):
    """A sign of life from the stub's event loop, several times within the service's watchdog time."""

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int


@record
class HealthReported(Message):
    """The answer to a ``CheckHealth``; ``token`` is the question's. ``text`` says what is wrong."""

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int
    token: int
    healthy: bool
    text: str = ""


@record
class EndpointOpened(Message):
    """The service takes requests (``calls``), publishes (``events``), at the places that its ``ServiceSpec`` names.

    ``safe``: methods that may be called again when it was lost in the course of a call.
    """

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int
    calls: bool
    events: bool
    safe: tuple[str, ...] = ()


@record
class MethodDescribed(Message):
    """A method that others may call. ``parameters``: mappings with name, annotation ("" where there is none), required
    and positional. ``result``: its annotation; of a stream, that of an item.
    """

    direction: ClassVar[str] = "part of InterfaceReported"
    name: str
    stream: bool = False
    parameters: tuple[dict[str, Any], ...] = ()
    result: str = ""


@record
class InterfaceReported(Message):
    """What the code offers, said when it has been imported; nothing is said of code that offers nothing."""

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int
    methods: tuple[MethodDescribed, ...] = ()
    listens: tuple[str, ...] = ()


@record
class HandedOver(Message):
    """The answer to ``HandOver``: no request is in flight, none is taken, and its code rests. Or ``error``: why not.
    ``listeners``: who hears its events, for its successor to expect.
    """

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int
    error: str | None = None
    listeners: tuple[Listener, ...] = ()


@record
class DrainProgress(Message):
    """So many requests are in flight while the service drains."""

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int
    in_flight: int


@record
class UseReported(Message):
    """Answers ``ReportUse``. ``unused_s``: since the last request has ended; None: there was none."""

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int
    in_flight: int
    unused_s: float | None


@record
class EventsLost(Message):
    """So many events of ``publisher`` have not reached ``subscriber``, one of which says this: a queue was full."""

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int
    publisher: str
    subscriber: str
    count: int


@record
class PeerAsked(Message):
    """Who has connected to the service's endpoint? The kernel says ``pid`` and ``uid``. Answered by
    ``PeerIdentified``.
    """

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int
    token: int
    pid: int
    uid: int


@record
class ServiceLookup(Message):
    """Somebody waits for ``target``. ``start``: it is to be started; so it is where it starts on demand. Answered by
    ``LookupEnded``.
    """

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int
    token: int
    target: str
    start: bool = False


@record
class ChildServiceRequested(Message):
    """Create the child service ``name``. ``definition``: keys of cluster.yaml; ``start``: and start it; ``wait``: the
    answer comes once it is up. Answered by ``ChildRequestEnded``.
    """

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int
    token: int
    name: str
    definition: dict[str, Any]
    start: bool = True
    wait: bool = True


@record
class ChildOrderRequested(Message):
    """``order`` is start, stop, restart or remove. Answered by ``ChildRequestEnded``."""

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int
    token: int
    child: str
    order: str


@record
class StateExported(Message):
    """Part number ``part`` (from 0) of ``parts`` of what ``export_state()`` has returned; only the stub can read it.

    ``token``: of the ``ExportState`` that asked; below zero: unasked, to be kept, answered by ``StateSaved``.
    ``omitted``: what could not travel and was left out, each with the reason. ``error``: the export failed, and why. No
    parts and no error: it has no state.
    """

    direction: ClassVar[str] = "stub to controller"
    service: str
    invocation: int
    token: int
    part: int = 0
    parts: int = 0
    data: bytes = b""
    omitted: tuple[str, ...] = ()
    error: str | None = None
