"""Stubs: a connection speaks for a run only if the kernel says that it comes from the process that was spawned."""

from __future__ import annotations

from typing import Any

import pytest

from svcd.protocol import messages
from svcd.supervisor.config.launch import ClusterSpec, LaunchSpec, PythonCode, ServiceDefinition
from svcd.supervisor.controller.control import Peer
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.controller.runs import Run
from svcd.supervisor.controller.stubs import EARLY_LIMIT, Stubs
from svcd.supervisor.core.actions import StubOrder, TellStub
from svcd.supervisor.core.events import StubConnected, StubPhase, StubReported
from svcd.supervisor.core.spec import Runner, ServiceSpec

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
    def __init__(self) -> None:
        code = PythonCode(entry="shop.web:Web", path=("/srv/shop",), config={"port": 80})
        definition = ServiceDefinition(ServiceSpec("web", Runner.PYTHON), LaunchSpec(code, "/srv/shop"))
        self.sent, self.known = Sent(), Known()
        self.events: list[Any] = []
        self.exceptions: list[messages.ExceptionRaised] = []
        self.samples: list[messages.ResourceSampled] = []
        self.health: list[messages.HealthReported] = []
        self.stubs = Stubs(
            self.sent,  # type: ignore[arg-type]  # only send is used
            self.known,  # type: ignore[arg-type]  # only get is used
            Registry(ClusterSpec("shop", (), (definition,), controller_timeout_s=9.0)),
            self.events.append,
            self.exceptions.append,
            self.samples.append,
            self.health.append,
        )

    def spawned(self) -> None:
        self.known.run.pid = 4242
        self.stubs.spawned(self.known.run)

    def hear(self, peer: Peer, message: messages.Message) -> None:
        self.stubs.receivers[type(message)](peer, message)

    def ready(self, peer: Peer, invocation: int = 7, service: str = "web") -> None:
        self.hear(peer, messages.RemoteReady(service, invocation, peer.pid, "0"))


@pytest.fixture
def scene() -> Scene:
    return Scene()


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
    for order in StubOrder:
        scene.stubs.tell(TellStub("web", 7, order, "because"))
    spec, init, start, pause, resume, stop = (message for _, message in scene.sent.messages)
    assert spec == messages.ServiceSpec(
        "web", 7, "shop.web:Web", path=("/srv/shop",), config={"port": 80}, controller_timeout_s=9.0
    )
    assert (init, start, stop) == (messages.Init(7), messages.Start(7), messages.Stop(7, "because"))
    assert (pause, resume) == (messages.Pause(7), messages.Resume(7))


def test_a_reconnected_stub_is_welcomed_and_the_old_connection_is_forgotten(scene: Scene) -> None:
    scene.spawned()
    scene.ready(GENUINE)
    again = Peer(b"r9", 0, 4242)
    scene.ready(again)
    assert scene.sent.messages == [(b"r9", messages.Welcome(7))]
    assert len(scene.events) == 1
    scene.hear(GENUINE, messages.StateChanged("web", 7, "running"))
    assert len(scene.events) == 1


def test_the_end_of_the_run_ends_its_connection(scene: Scene) -> None:
    scene.spawned()
    scene.ready(GENUINE)
    for step in scene.known.run.clean_up:
        step()
    scene.hear(GENUINE, messages.StateChanged("web", 7, "running"))
    assert len(scene.events) == 1
