"""What the controller answers to a client."""

from __future__ import annotations

from typing import Any, ClassVar

from svcd.protocol.messages.base import Message
from svcd.protocol.messages.shared import Route
from svcd.record import field, record


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
