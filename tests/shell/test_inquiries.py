"""Inquiries: who asks where a service is is told, told again when it changes, and forgotten when nobody is there."""

from __future__ import annotations

import os
from typing import Any

import pytest

from svcd.protocol import messages
from svcd.protocol.messages import GetRoute, RequestRefused, Route, RouteReported
from svcd.supervisor.config.launch import ClusterSpec, LaunchSpec, Program, PythonCode, ServiceDefinition
from svcd.supervisor.controller.asking import Asking
from svcd.supervisor.controller.clients.inquiries import SWEEP_FROM, Inquiries
from svcd.supervisor.controller.clients.requests import Requests
from svcd.supervisor.controller.control import Peer
from svcd.supervisor.controller.python.introductions import Introductions
from svcd.supervisor.controller.python.lookups import Lookups
from svcd.supervisor.controller.python.routes import Routes
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core.actions import PublishTransition
from svcd.supervisor.core.events import Event, ServicesRegistered
from svcd.supervisor.core.machine import Machine
from svcd.supervisor.core.spec import Runner, ServiceSpec, StartMode
from svcd.supervisor.core.states import State

OURS = os.geteuid()
STRANGER = OURS + 1
ROUTE = Route("/run/peers/7/calls", "", 4242)


class Sent:
    """Stands where the control sockets are: whoever is in ``gone`` cannot be reached."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes, messages.Message]] = []
        self.gone: set[bytes] = set()

    def send(self, route: bytes, correlation: bytes, message: messages.Message) -> bool:
        if route in self.gone:
            return False
        self.messages.append((route, correlation, message))
        return True

    def take(self) -> list[tuple[bytes, bytes, messages.Message]]:
        taken, self.messages = self.messages, []
        return taken


class Run:
    def __init__(self, service: str) -> None:
        self.service = service


class Runs:
    """Stands where the runs are: pid -> service."""

    def __init__(self) -> None:
        self.pids: dict[int, str] = {}

    def of_pid(self, pid: int) -> Run | None:
        return Run(self.pids[pid]) if pid in self.pids else None


class Scene:
    """A till, one that starts on demand, two of a clerk, a program that may call the till, and one that has somebody to
    stand in for it.
    """

    def __init__(self) -> None:
        code = PythonCode(entry="till:Till", path=("/srv",), config={})
        program = LaunchSpec(Program(("true",)), "/", may_call=("till",))
        definitions = (
            ServiceDefinition(ServiceSpec("till", Runner.PYTHON), LaunchSpec(code, "/srv")),
            ServiceDefinition(ServiceSpec("lazy", Runner.PYTHON, start=StartMode.ON_DEMAND), LaunchSpec(code, "/srv")),
            ServiceDefinition(ServiceSpec("web"), program),
            ServiceDefinition(ServiceSpec("covered", fallback="till"), program),
            ServiceDefinition(ServiceSpec("clerk.0", Runner.PYTHON), LaunchSpec(code, "/srv"), "clerk", 0, 2),
            ServiceDefinition(ServiceSpec("clerk.1", Runner.PYTHON), LaunchSpec(code, "/srv"), "clerk", 1, 2),
        )
        self.sent: Any = Sent()
        self.events: list[Event] = []
        self.runs: Any = Runs()
        registry, machine = Registry(ClusterSpec("shop", (), definitions)), Machine()
        machine.handle(ServicesRegistered(0.0, tuple(each.spec for each in definitions)))
        nothing: Any = None
        asking = Asking(self.events.append)
        requests = Requests(self.sent, machine, registry, nothing, asking, nothing, nothing)
        self.routes = Routes(registry, machine, nothing)
        lookups = Lookups(registry, machine, self.routes, self.events.append, asking, nothing)
        introductions = Introductions((self.runs,), registry, 1)
        self.inquiries = Inquiries(self.sent, registry, self.routes, lookups, introductions, requests)

    def ask(self, service: str, peer: Peer | None = None, **more: bool) -> Any:
        self.inquiries.receive(peer or Peer(b"r1", OURS, 1), b"1", GetRoute(service, **more))
        return self.sent.take()[-1][2] if self.sent.messages else None

    def runs_now(self, service: str = "till", invocation: int = 7) -> None:
        self.routes.opened(service, invocation, ROUTE)
        self.routes.transitioned(PublishTransition(0.0, service, invocation, State.STARTING, State.RUNNING, "", 0.0, 1))

    def stops_now(self, service: str = "till", invocation: int = 7) -> None:
        self.routes.transitioned(PublishTransition(0.0, service, invocation, State.RUNNING, State.STOPPING, "", 0.0, 1))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_who_asks_is_told(scene: Scene) -> None:
    assert scene.ask("till") == RouteReported("till", (), "it is unloaded: registered")
    scene.runs_now()
    assert scene.ask("till") == RouteReported("till", (ROUTE,))
    assert scene.ask("lazy") == RouteReported("lazy", (), "it is unloaded: registered", on_demand=True)
    assert scene.ask("tile") == RequestRefused("unknown_service", "no service 'tile'; did you mean 'till'?")


def test_an_instance_is_not_called_by_its_name(scene: Scene) -> None:
    words = "it is one instance of clerk: call clerk, which means whichever is free"
    assert scene.ask("clerk.1") == RequestRefused("unknown_service", words)
    assert scene.ask("clerk.2") == RequestRefused("unknown_service", "no service 'clerk.2'; did you mean 'clerk'?")


@pytest.mark.parametrize("is_running", [False, True])
def test_a_program_is_never_called(scene: Scene, is_running: bool) -> None:
    """Whoever waits for it would wait in vain; where somebody may stand in for it, who knows."""
    if is_running:
        scene.routes.transitioned(PublishTransition(0.0, "web", 8, State.STARTING, State.RUNNING, "", 0.0, 1))
    words = "it is a program, which takes no calls: only Python services do"
    assert scene.ask("web", follow=True) == RequestRefused("unknown_service", words)
    assert scene.routes.target("web").why == words
    assert scene.ask("covered") == RouteReported("covered", (), "it is unloaded: registered")


def test_who_may_not_ask(scene: Scene) -> None:
    stranger = scene.ask("till", Peer(b"r1", STRANGER, 1))
    text = f"cannot call till: uid {STRANGER} may not call services of this cluster"
    assert stranger == RequestRefused("not_permitted", text)
    assert scene.ask("tile", Peer(b"r1", STRANGER, 1)).code == "not_permitted", "nor learn which there are"


def test_a_program_of_the_cluster_needs_the_permission(scene: Scene) -> None:
    scene.runs.pids = {10: "web", 11: "lazy"}
    assert isinstance(scene.ask("till", Peer(b"r1", STRANGER, 10)), RouteReported), "whatever user it runs as"
    refused = scene.ask("till", Peer(b"r1", OURS, 11))
    assert refused.text == "cannot call till: lazy neither depends on it nor has the permission"
    assert scene.ask("lazy", Peer(b"r1", OURS, 10)).code == "not_permitted"


def test_followers_are_told_of_changes(scene: Scene) -> None:
    scene.ask("till", follow=True)
    scene.ask("till", Peer(b"r2", OURS, 1))
    scene.runs_now()
    assert scene.sent.take() == [(b"r1", b"1", RouteReported("till", (ROUTE,)))], "who has not asked to follow is not"
    scene.stops_now()
    ((_, _, told),) = scene.sent.take()
    assert told.routes == ()
    scene.runs_now("lazy")
    assert scene.sent.take() == []


def test_one_connection_follows_once(scene: Scene) -> None:
    for correlation in (b"1", b"2"):
        scene.inquiries.receive(Peer(b"r1", OURS, 1), correlation, GetRoute("till", follow=True))
    scene.sent.take()
    scene.runs_now()
    assert [correlation for _, correlation, _ in scene.sent.take()] == [b"2"]


def test_who_is_gone_is_forgotten(scene: Scene) -> None:
    scene.ask("till", follow=True)
    scene.sent.gone = {b"r1"}
    scene.runs_now()
    scene.sent.gone = set()
    scene.stops_now()
    assert scene.sent.take() == []


def test_those_who_come_and_go_do_not_add_up(scene: Scene) -> None:
    """Nothing happens to the service, so nothing is sent that would find out."""
    for number in range(100 * SWEEP_FROM):
        route = b"%d" % number
        scene.ask(("till", "lazy")[number % 2], Peer(route, OURS, 1), follow=True)
        scene.sent.gone.add(route)
    scene.sent.gone = set()
    scene.runs_now()
    scene.runs_now("lazy", 8)
    assert len(scene.sent.take()) <= SWEEP_FROM + 1


def test_a_follower_that_loses_its_permission_is_told_so(scene: Scene) -> None:
    scene.runs.pids = {10: "web"}
    web = Peer(b"r1", OURS, 10)
    scene.ask("till", web, follow=True)
    scene.runs.pids = {10: "lazy"}
    scene.runs_now()
    ((_, _, told),) = scene.sent.take()
    assert told.code == "not_permitted"
    scene.stops_now()
    assert scene.sent.take() == []


def test_demand(scene: Scene) -> None:
    assert scene.ask("lazy", start=True) is None, "it is answered when it is up"
    demand, start = scene.events
    assert (demand.service, demand.text) == ("lazy", "called by a client (pid 1)")  # type: ignore[union-attr]
    assert start.services == ("lazy",)  # type: ignore[union-attr]
    scene.events.clear()
    assert scene.ask("till", start=True) == RouteReported("till", (), "it is unloaded: registered")
    assert scene.events == [], "who calls does not start what does not start on demand"
