"""Every message on svcd's control plane, as frozen values with a type tag (the class name).

Must not know sockets or encodings (``codec`` does that), nor decide anything.

A message on the wire is two frames: a correlation (0 to 16 bytes, chosen by whoever asks; the answers repeat it;
empty where nothing is asked) and a body, ``msgpack([VERSION, tag, {field: value}])``. Times called ``at`` and
``since`` are Unix seconds.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from svcd.record import field, record

VERSION: Final = 1


@record
class Message:
    """Base of all messages. ``direction`` is for the reference page: who says it to whom."""

    direction: ClassVar[str] = ""


# ---- stub -> controller --------------------------------------------------------------------------------------------


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
class Listener(Message):
    """Who listens to a service's events, and how the topics begin that it wants."""

    direction: ClassVar[str] = "part of HandedOver and ListenersExpected"
    name: str
    topics: tuple[str, ...]


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


# ---- controller -> stub --------------------------------------------------------------------------------------------


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
class Route(Message):
    """Where one running instance takes requests; ``events``: where it publishes, empty where it does not.
    ``safe``: methods that may be called again when it was lost in the course of a call.
    """

    direction: ClassVar[str] = "part of RouteChanged and RouteReported"
    calls: str
    events: str
    pid: int
    safe: tuple[str, ...] = ()


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


# ---- client -> controller ------------------------------------------------------------------------------------------


@record
class GetStatus(Message):
    """Answered by ``StatusReported``. No names: every service."""

    direction: ClassVar[str] = "client to controller"
    services: tuple[str, ...] = ()


@record
class StartServices(Message):
    """Answered by ``RequestAccepted`` at once, then ``RequestEnded``; or by ``RequestRefused``. No names:
    all eager ones.
    """

    direction: ClassVar[str] = "client to controller"
    services: tuple[str, ...] = ()


@record
class StopServices(Message):
    """Stops what requires them first. Answered as ``StartServices``. ``unneeded``: afterwards also whatever was started
    only because something else needed it, and is needed no more.
    """

    direction: ClassVar[str] = "client to controller"
    services: tuple[str, ...] = ()
    unneeded: bool = False


@record
class RestartServices(Message):
    """Answered as ``StartServices``. ``rolling``: one after the other, each once the one before is running again."""

    direction: ClassVar[str] = "client to controller"
    services: tuple[str, ...] = ()
    rolling: bool = False


@record
class PauseServices(Message):
    """Answered as ``StartServices``."""

    direction: ClassVar[str] = "client to controller"
    services: tuple[str, ...] = ()


@record
class ResumeServices(Message):
    """Answered as ``StartServices``."""

    direction: ClassVar[str] = "client to controller"
    services: tuple[str, ...] = ()


@record
class ApplyConfiguration(Message):
    """Bring the cluster to a new configuration. ``plan``: the JSON document that ``config.plan`` writes.

    ``mode``: "all" (what the plan does not name is removed), "register" (its services are added or updated, all others
    stay) or "update" (only ``services`` are, from this plan). Answered by ``PlanReported`` and, unless ``dry_run``, as
    ``StartServices``.
    """

    direction: ClassVar[str] = "client to controller"
    plan: str
    mode: str = "all"
    services: tuple[str, ...] = ()
    dry_run: bool = False


@record
class UpdateServices(Message):
    """Replace ``services`` by what ``plan`` says of them, in place where that is possible: a successor is loaded beside
    each and takes over. ``force``: also where its interface is not compatible. Answered as ``ApplyConfiguration``.
    """

    direction: ClassVar[str] = "client to controller"
    plan: str
    services: tuple[str, ...] = ()
    force: bool = False


@record
class UnregisterServices(Message):
    """Stop and forget these. Refused while others require them. Answered as ``ApplyConfiguration``."""

    direction: ClassVar[str] = "client to controller"
    services: tuple[str, ...] = ()


@record
class GetConfiguration(Message):
    """Answered by ``ConfigurationReported``."""

    direction: ClassVar[str] = "client to controller"


@record
class GetChanges(Message):
    """The last ``limit`` changes, oldest first, or the one with the id ``transaction``. Answered by
    ``ChangesReported``.
    """

    direction: ClassVar[str] = "client to controller"
    limit: int = 20
    transaction: int | None = None


@record
class GetStory(Message):
    """Why a service is where it is. Answered by ``StoryReported``."""

    direction: ClassVar[str] = "client to controller"
    service: str


@record
class SignalServices(Message):
    """Send signal number ``signal`` to the main process of each."""

    direction: ClassVar[str] = "client to controller"
    signal: int
    services: tuple[str, ...] = ()


@record
class ShutDown(Message):
    """Drain and end the daemon; ``now``: no drain, every stop timeout one second."""

    direction: ClassVar[str] = "client to controller"
    now: bool = False


@record
class GetRoute(Message):
    """Where to call the service that the file calls so. Answered by ``RouteReported``, or by ``RequestRefused``: a
    program of the cluster needs the permission to call it.

    ``follow``: told again, with the same correlation, whenever that changes. ``start``: where it starts on demand this
    is one, and the answer comes once it runs or is known not to.
    """

    direction: ClassVar[str] = "client to controller"
    service: str
    follow: bool = False
    start: bool = False


@record
class GetGraph(Message):
    """Answered by ``GraphReported``."""

    direction: ClassVar[str] = "client to controller"


# ---- controller -> client ------------------------------------------------------------------------------------------


@record
class Part(Message):
    """One of svcd's own processes."""

    direction: ClassVar[str] = "part of StatusReported"
    name: str
    pid: int


@record
class ServiceStatus(Message):
    """One row of ``svcd status``. ``desired`` is "up" or "down"; ``since`` is when ``state`` began.

    ``depends_on``: the names alone. ``last_output``: its last lines, when it ended badly. ``exception``: the
    traceback of the exception that ended its last run. ``healthy``: None without health checks, or before the first;
    ``ailment``: why it is not. ``text``: what the service says of itself (STATUS=). ``sockets``: where svcd listens for
    it. ``on_demand``: whether a connection there starts it. ``next_run``: of a scheduled task, Unix seconds.
    ``fallback``: the service that stands in for it now. ``version``: the one that the cluster file says. ``in_flight``:
    the requests that it has not answered, while it drains. ``parent``: the service that has created it.
    ``events_lost``: of those that it has published or was to hear in its present run. ``not_restarted``: the rule that
    forbids a restart, where it has failed. ``check_output``: what the command of its readiness or health check has
    printed last, when it found fault.
    """

    direction: ClassVar[str] = "part of StatusReported"
    name: str
    service: str
    instance: int
    state: str
    desired: str
    pid: int | None
    invocation: int | None
    restarts: int
    since: float
    cause: str
    cpu_percent: float | None
    memory_bytes: int | None
    depends_on: tuple[str, ...]
    type: str = "service"
    tags: tuple[str, ...] = ()
    last_output: tuple[str, ...] = ()
    exception: str | None = None
    healthy: bool | None = None
    ailment: str = ""
    text: str = ""
    port: int | None = None
    sockets: tuple[str, ...] = ()
    next_run: float | None = None
    fallback: str | None = None
    on_demand: bool = False
    parent: str | None = None
    version: str | None = None
    in_flight: int | None = None
    events_lost: int = 0
    not_restarted: str = ""
    check_output: tuple[str, ...] = ()


@record
class StatusReported(Message):
    """``state`` of the cluster: "starting", "running", "stopping", "ended"; ``cause``: why it stops. ``pid`` is the
    guardian's. ``sequence``: the last event's.
    """

    direction: ClassVar[str] = "controller to client"
    cluster: str
    pid: int
    state: str
    sequence: int
    state_dir: str
    parts: tuple[Part, ...]
    services: tuple[ServiceStatus, ...]
    cause: str = ""


@record
class Edge(Message):
    """One dependency. ``to_parent``: its dependent was created by the dependency."""

    direction: ClassVar[str] = "part of GraphReported"
    dependent: str
    dependency: str
    kind: str
    condition: str
    on_crash: str
    to_parent: bool = False


@record
class GraphReported(Message):
    direction: ClassVar[str] = "controller to client"
    cluster: str
    services: tuple[str, ...]
    edges: tuple[Edge, ...]


@record
class RouteReported(Message):
    """No routes: it cannot be called now, and ``why``. ``on_demand``: starting it is what it waits for. ``held``: it is
    back in a moment.
    """

    direction: ClassVar[str] = "controller to client"
    service: str
    routes: tuple[Route, ...] = ()
    why: str = ""
    on_demand: bool = False
    held: bool = False


@record
class RequestAccepted(Message):
    """The request is in force. ``also``: services that it moves without having been named. ``removed``: those of them
    that go with their parent's run, as its children.
    """

    direction: ClassVar[str] = "controller to client"
    also: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@record
class Result(Message):
    """What became of one service. ``text`` says why when it is not done."""

    direction: ClassVar[str] = "part of RequestEnded"
    service: str
    outcome: str
    text: str = ""


@record
class RequestEnded(Message):
    """``outcome``: done, failed, superseded."""

    direction: ClassVar[str] = "controller to client"
    outcome: str
    results: tuple[Result, ...] = ()
    also: tuple[str, ...] = ()
    text: str = ""


@record
class RequestRefused(Message):
    """Nothing was done. ``code`` is an ``errors.ErrorCode`` value."""

    direction: ClassVar[str] = "controller to client"
    code: str
    text: str


@record
class Step(Message):
    """One step that a change would take: ``verb`` is start, stop, restart, update, add or remove."""

    direction: ClassVar[str] = "part of PlanReported"
    verb: str
    service: str
    why: str


@record
class PlanReported(Message):
    """What a change of configuration does, in order. No steps: nothing differs."""

    direction: ClassVar[str] = "controller to client"
    steps: tuple[Step, ...] = ()


@record
class ConfigurationReported(Message):
    """``files``: absolute paths, in layer order; ``profiles``: those that were chosen; ``plan``: the document of what
    is in force. ``scales``: services whose number of instances was changed.
    """

    direction: ClassVar[str] = "controller to client"
    files: tuple[str, ...]
    plan: str
    profiles: tuple[str, ...] = ()
    scales: dict[str, Any] = field(default_factory=dict)


@record
class Transition(Message):
    """One step of a service: at ``at`` it went from ``old`` to ``new``."""

    direction: ClassVar[str] = "part of ChangesReported and StoryReported"
    at: float
    service: str
    invocation: int | None
    old: str
    new: str
    cause: str
    spent_s: float
    transaction: int = 0


@record
class Change(Message):
    """One transaction: everything that followed from one cause. ``ended`` None: it goes on. ``omitted``: steps that
    were too many to keep. ``earlier``: so many of its kind (crashes of the same service, say) came before it and are
    not kept, the first of them at ``since``.
    """

    direction: ClassVar[str] = "part of ChangesReported"
    id: int
    cause: str
    began: float
    ended: float | None
    services: tuple[str, ...]
    steps: tuple[Transition, ...] = ()
    omitted: int = 0
    earlier: int = 0
    since: float | None = None


@record
class ChangesReported(Message):
    direction: ClassVar[str] = "controller to client"
    changes: tuple[Change, ...] = ()


@record
class Link(Message):
    """One link of a chain of causes: where ``service`` stands and why; the next link is what that comes from."""

    direction: ClassVar[str] = "part of StoryReported"
    service: str
    state: str
    desired: str
    cause: str
    since: float


@record
class Remark(Message):
    """What was worth telling of a service at ``at``, and was no step (``NoticeGiven``)."""

    direction: ClassVar[str] = "part of StoryReported"
    at: float
    text: str


@record
class StoryReported(Message):
    """``chain``: from the service that was asked about to the root of it all. ``history``: its last transitions, oldest
    first. ``changes``: the transactions that these belong to. ``remarks``: the last ones, oldest first. ``parent``: the
    service that has created it.
    """

    direction: ClassVar[str] = "controller to client"
    service: str
    chain: tuple[Link, ...]
    history: tuple[Transition, ...]
    changes: tuple[Change, ...] = ()
    remarks: tuple[Remark, ...] = ()
    parent: str | None = None


# ---- published (topic frame = tag), every one with a sequence number -------------------------------------------------


@record
class ServiceTransitioned(Message):
    """A service changed its state; ``spent_s`` is how long it was in ``old``."""

    direction: ClassVar[str] = "published"
    sequence: int
    at: float
    service: str
    invocation: int | None
    old: str
    new: str
    cause: str
    spent_s: float
    transaction: int = 0


@record
class NoticeGiven(Message):
    """``service`` empty: about the cluster."""

    direction: ClassVar[str] = "published"
    sequence: int
    at: float
    service: str
    text: str


@record
class ExceptionRecorded(Message):
    """A stub reported an exception that user code did not handle."""

    direction: ClassVar[str] = "published"
    sequence: int
    at: float
    exception: ExceptionRaised


@record
class ClusterStateChanged(Message):
    """``state``: starting, running, stopping, ended (the last message of all)."""

    direction: ClassVar[str] = "published"
    sequence: int
    at: float
    state: str
    text: str = ""
