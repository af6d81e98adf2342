"""Stubs: a connection speaks for a run only if the kernel says that it comes from the process that was spawned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from svcd.protocol import messages
from svcd.supervisor.config.launch import ClusterSpec, LaunchSpec, PythonCode, ServiceDefinition
from svcd.supervisor.controller.asking import Asking
from svcd.supervisor.controller.control import Peer
from svcd.supervisor.controller.processes.runs import Run
from svcd.supervisor.controller.python.endpoints import Endpoints
from svcd.supervisor.controller.python.lookups import Lookups
from svcd.supervisor.controller.python.routes import Routes
from svcd.supervisor.controller.python.stubs import EARLY_LIMIT, Stubs
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core.actions import PublishTransition, StubOrder, TellStub
from svcd.supervisor.core.events import (
    DrainProgressed,
    EndpointOpened,
    ServicesRegistered,
    StubConnected,
    StubPhase,
    StubReported,
)
from svcd.supervisor.core.machine import Machine
from svcd.supervisor.core.spec import Dependency, Runner, ServiceSpec, StopPolicy
from svcd.supervisor.core.states import State

CARRIED_BY_HANDOVERS = {StubOrder.HAND_OVER, StubOrder.GO_ON, StubOrder.IMPORT}
CARRIED_BY_STUBS = [order for order in StubOrder if order not in CARRIED_BY_HANDOVERS]
GENUINE, FOREIGN = Peer(b"r1", 0, 4242), Peer(b"r2", 0, 6666)


class Sent:
    """Stands where the control sockets are."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, messages.Message]] = []

    def send(self, route: bytes, correlation: bytes, message: messages.Message) -> bool:
        self.messages.append((route, message))
        return True


class Known:
    """Stands where the runs are: one run, of "web"."""

    def __init__(self) -> None:
        self.run = Run("web", 7, "mark-7", "fork-server")

    def get(self, invocation: int | None) -> Run | None:
        return self.run if invocation == 7 else None


class Scene:
    """A service web, which requires db; its stub is told whom it may call by real routes."""

    def __init__(self, directory: Path) -> None:
        code = PythonCode(entry="shop.web:Web", path=("/srv/shop",), config={"port": 80})
        stop = StopPolicy(drain_timeout_s=4.0, drain_grace_s=0.5)
        web = ServiceSpec("web", Runner.PYTHON, dependencies=(Dependency("db"),), stop=stop)
        specs = web, ServiceSpec("db", Runner.PYTHON)
        registry = Registry(
            ClusterSpec(
                "shop",
                (),
                tuple(ServiceDefinition(each, LaunchSpec(code, "/srv/shop")) for each in specs),
                controller_timeout_s=9.0,
            )
        )
        machine = Machine()
        machine.handle(ServicesRegistered(0.0, specs))
        self.sent, self.known = Sent(), Known()
        self.endpoints = Endpoints(directory / "endpoints")
        self.endpoints.open()
        self.routes = Routes(registry, machine, self.stub_told)
        self.events: list[Any] = []
        self.exceptions: list[messages.ExceptionRaised] = []
        self.samples: list[messages.ResourceSampled] = []
        self.health: list[messages.HealthReported] = []
        self.lost: list[messages.EventsLost] = []
        self.use: list[messages.UseReported] = []
        self.stubs = Stubs(
            self.sent,  # type: ignore[arg-type]  # only send is used
            self.known,  # type: ignore[arg-type]  # only get is used
            registry,
            self.events.append,
            self.endpoints,
            self.routes,
        )
        lookups = Lookups(
            registry, machine, self.routes, self.events.append, Asking(self.events.append), self.stub_told
        )
        self.stubs.hears(messages.ServiceLookup, lookups.begin)
        for kind, heard in (
            (messages.ExceptionRaised, self.exceptions),
            (messages.ResourceSampled, self.samples),
            (messages.HealthReported, self.health),
            (messages.EventsLost, self.lost),
            (messages.UseReported, self.use),
        ):
            self.stubs.hears(kind, heard.append)

    def stub_told(self, invocation: int, message: messages.Message) -> None:
        self.stubs.send(invocation, message)

    def spawned(self) -> None:
        self.known.run.pid = 4242
        self.stubs.spawned(self.known.run)

    def runs(self, service: str, invocation: int) -> None:
        """As far as routes are concerned."""
        self.routes.transitioned(PublishTransition(1.0, service, invocation, State.STARTING, State.RUNNING, "", 0.0))

    def hear(self, peer: Peer, message: messages.Message) -> None:
        self.stubs.receivers[type(message)](peer, message)

    def ready(self, peer: Peer, invocation: int = 7, service: str = "web") -> None:
        self.hear(peer, messages.RemoteReady(service, invocation, peer.pid, "0"))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_the_spawned_process_is_let_in(scene: Scene) -> None:
    scene.spawned()
    scene.ready(GENUINE)
    assert [type(event) for event in scene.events] == [StubConnected]


def test_a_stub_that_is_quicker_than_its_birth_is_let_in_with_it(scene: Scene) -> None:
    scene.ready(GENUINE)
    assert scene.events == []
    scene.spawned()
    assert [type(event) for event in scene.events] == [StubConnected]


@pytest.mark.parametrize("early", [True, False])
def test_a_foreign_process_cannot_take_the_place(scene: Scene, early: bool) -> None:
    if early:
        for number in range(EARLY_LIMIT - 1):
            scene.ready(Peer(b"x%d" % number, 0, 7000 + number))
        scene.ready(GENUINE)
        scene.spawned()
    else:
        scene.spawned()
        scene.ready(FOREIGN)
        scene.ready(GENUINE)
        scene.ready(FOREIGN)
    assert [type(event) for event in scene.events] == [StubConnected]
    scene.stubs.tell(TellStub("web", 7, StubOrder.INIT))
    assert scene.sent.messages == [(b"r1", messages.Init(7))]


@pytest.mark.parametrize(("invocation", "service"), [(8, "web"), (7, "db")])
def test_other_runs_and_names_are_refused(scene: Scene, invocation: int, service: str) -> None:
    scene.spawned()
    scene.ready(GENUINE, invocation, service)
    assert scene.events == []
    assert scene.stubs.rejected["foreign stub"] == 1


def test_only_its_own_connection_speaks_for_a_run(scene: Scene) -> None:
    scene.spawned()
    scene.ready(GENUINE)
    for peer, invocation in ((FOREIGN, 7), (GENUINE, 8)):
        scene.hear(peer, messages.StateChanged("web", invocation, "running"))
        scene.hear(peer, messages.ResourceSampled("web", invocation, 1.0, 2, 3, 4))
        scene.hear(peer, messages.ExceptionRaised("web", invocation, "run", "ValueError", "no", "…"))
    scene.hear(GENUINE, messages.StateChanged("web", 7, "no such state"))
    assert len(scene.events) == 1
    assert (scene.exceptions, scene.samples) == ([], [])
    scene.hear(GENUINE, messages.StateChanged("web", 7, "stopping", "ValueError: no"))
    reported = scene.events[-1]
    assert isinstance(reported, StubReported)
    assert (reported.phase, reported.error) == (StubPhase.STOPPING, "ValueError: no")


def test_the_code_travels_only_after_the_stub_is_known(scene: Scene) -> None:
    scene.stubs.tell(TellStub("web", 7, StubOrder.LOAD))
    assert scene.sent.messages == []
    scene.spawned()
    scene.ready(GENUINE)
    for order in CARRIED_BY_STUBS:
        scene.stubs.tell(TellStub("web", 7, order, "because"))
    spec, route, init, start, pause, resume, drain, stop = (message for _, message in scene.sent.messages)
    assert spec == messages.ServiceSpec(
        "web",
        7,
        "shop.web:Web",
        path=("/srv/shop",),
        config={"port": 80},
        controller_timeout_s=9.0,
        endpoint=str(scene.endpoints.place(7, "")),
    )
    assert route == messages.RouteChanged(7, "db", (), "it is unloaded: registered")
    assert drain == messages.Drain(7, "because", grace_s=0.5, timeout_s=4.0)
    assert (init, start, stop) == (messages.Init(7), messages.Start(7), messages.Stop(7, "because"))
    assert (pause, resume) == (messages.Pause(7), messages.Resume(7))


def test_a_reconnected_stub_is_welcomed_and_the_old_connection_is_forgotten(scene: Scene) -> None:
    scene.spawned()
    scene.ready(GENUINE)
    again = Peer(b"r9", 0, 4242)
    scene.ready(again)
    assert scene.sent.messages == [
        (b"r9", messages.Welcome(7)),
        (b"r9", messages.RouteChanged(7, "db", (), "it is unloaded: registered")),
    ]
    assert len(scene.events) == 1
    scene.hear(GENUINE, messages.StateChanged("web", 7, "running"))
    assert len(scene.events) == 1


def test_its_last_word_is_answered(scene: Scene) -> None:
    scene.spawned()
    scene.ready(GENUINE)
    scene.hear(FOREIGN, messages.EndAnnounced("web", 7))
    scene.hear(GENUINE, messages.EndAnnounced("web", 7))
    assert scene.sent.messages == [(GENUINE.route, messages.EndNoted(7))]


def test_the_end_of_the_run_ends_its_connection(scene: Scene) -> None:
    scene.spawned()
    scene.ready(GENUINE)
    for step in scene.known.run.clean_up:
        step()
    scene.hear(GENUINE, messages.StateChanged("web", 7, "running"))
    assert len(scene.events) == 1


def test_an_endpoint_is_where_it_was_told_to_be(scene: Scene) -> None:
    scene.spawned()
    scene.ready(GENUINE)
    scene.stubs.tell(TellStub("web", 7, StubOrder.LOAD))
    directory = scene.endpoints.place(7, "")
    directory.mkdir()  # which the stub does
    scene.hear(GENUINE, messages.EndpointOpened("web", 7, calls=False, events=True))
    scene.hear(FOREIGN, messages.EndpointOpened("web", 7, calls=True, events=True))
    assert [type(event) for event in scene.events] == [StubConnected]
    scene.hear(GENUINE, messages.EndpointOpened("web", 7, calls=True, events=True))
    assert type(scene.events[-1]) is EndpointOpened
    expected = messages.Route(str(directory / "calls"), str(directory / "events"), 4242)
    scene.runs("web", 7)
    assert scene.routes.target("web").routes == (expected,)
    scene.hear(GENUINE, messages.DrainProgress("web", 7, -3))
    assert scene.events[-1] == DrainProgressed(scene.events[-1].at, "web", 7, 0)
    for step in scene.known.run.clean_up:
        step()
    assert not directory.exists()
    assert scene.routes.target("web").routes == ()


def test_a_lookup_of_another_name_than_ones_own_is_not_begun(scene: Scene) -> None:
    scene.spawned()
    scene.ready(GENUINE)
    scene.hear(GENUINE, messages.ServiceLookup("db", 7, 1, "web"))
    assert scene.sent.messages == []
    scene.hear(GENUINE, messages.ServiceLookup("web", 7, 2, "db"))
    assert scene.sent.messages == [(b"r1", messages.LookupEnded(7, 2, "it is unloaded: registered"))]
