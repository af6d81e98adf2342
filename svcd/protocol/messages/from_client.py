"""What a client asks of the controller."""

from __future__ import annotations

from typing import ClassVar

from svcd.protocol.messages.base import Message
from svcd.record import record


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
