"""Updates that clients ask for: their turns, and the one answer that each client gets.

Must not test steps of one update (the core's tests do), nor processes: the core is played by the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from svcd.supervisor.config.launch import ClusterSpec, LaunchSpec, Program, PythonCode, ServiceDefinition, SocketSpec
from svcd.supervisor.controller.asking import Asking
from svcd.supervisor.controller.changing.handovers import Handovers
from svcd.supervisor.controller.processes.runs import Run
from svcd.supervisor.controller.python.exchange import Exchange
from svcd.supervisor.controller.python.routes import Routes
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core import events
from svcd.supervisor.core.actions import AnswerRequest, Outcome, ServiceResult
from svcd.supervisor.core.machine import Machine
from svcd.supervisor.core.spec import Runner, ServiceSpec


def definition(name: str, service: str = "", version: str = "1", **launch: Any) -> ServiceDefinition:
    spec = ServiceSpec(name, Runner.PYTHON)
    given = {"run": PythonCode(entry="a:b"), "workdir": "/", "version": version, **launch}
    return ServiceDefinition(spec, LaunchSpec(**given), service=service or name)


class Nobody:
    """Stands where the runs are."""

    def get(self, invocation: int | None) -> Run | None:
        return None


class Scene:
    """Three services, a with two instances; what the core is asked, and what clients are answered."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        services = definition("a.0", "a"), definition("a.1", "a"), definition("b")
        machine, registry, runs = Machine(), Registry(ClusterSpec("shop", (), services)), Nobody()
        machine.handle(events.ServicesRegistered(0.0, tuple(each.spec for each in services)))
        self.asked: list[Any] = []
        self.answers: list[AnswerRequest] = []
        self.answered: list[str] = []  # whose they are
        unused: Callable[..., None] = lambda *_: None  # noqa: E731
        routes = Routes(registry, machine, unused)
        exchange = Exchange(loop, runs, registry, unused)  # type: ignore[arg-type]
        self.asking = Asking(self.asked.append)
        self.handovers = Handovers(
            loop, machine, registry, runs, routes, exchange, self.asked.append, self.asking,  # type: ignore[arg-type]
            unused, unused, unused, unused, unused, unused,
        )  # fmt: skip

    def begin(self, key: str, *names: str, version: str = "2", **more: Any) -> None:
        named = [definition(name, name.partition(".")[0], version) for name in names]

        def told(answer: AnswerRequest) -> None:
            self.answers.append(answer)
            self.answered.append(key)

        self.handovers.begin(named, False, told, **more)

    def turn(self) -> str:
        """Whose turn it is."""
        event = self.asked[-1]
        return f"{event.spec.name}" if isinstance(event, events.UpdateRequested) else "first"

    def ends(self, outcome: Outcome = Outcome.DONE, text: str = "", turn: int = -1) -> None:
        event = self.asked[turn]
        name = event.spec.name if isinstance(event, events.UpdateRequested) else "c"
        results = () if outcome is Outcome.REFUSED else (ServiceResult(name, outcome, text),)
        self.asking.answer(AnswerRequest(event.request, outcome, results, text=text))


@pytest.fixture
def scene() -> Iterator[Scene]:
    loop = asyncio.new_event_loop()
    yield Scene(loop)
    loop.close()


def results(answer: AnswerRequest) -> list[tuple[str, str]]:
    return [(each.service, each.outcome.value) for each in answer.results]


def test_one_after_the_other_and_one_answer(scene: Scene) -> None:
    scene.begin("r1", "a.0", "a.1", "b")
    for name in ("a.0", "a.1", "b"):
        assert scene.turn() == name
        assert scene.answers == []
        scene.ends()
    (answer,) = scene.answers
    assert answer.outcome is Outcome.DONE
    assert results(answer) == [("a.0", "done"), ("a.1", "done"), ("b", "done")]
    assert len(scene.asked) == 3


def test_the_other_instances_of_one_that_failed_are_left_alone(scene: Scene) -> None:
    scene.begin("r1", "a.0", "a.1", "b")
    scene.ends(Outcome.FAILED, "cannot update a.0: no")
    assert scene.turn() == "b"
    scene.ends()
    (answer,) = scene.answers
    assert results(answer) == [("a.0", "failed"), ("a.1", "failed"), ("b", "done")]
    assert answer.text == "cannot update a.0: no; a.1 was not updated: a.0 was not"
    assert scene.handovers.to_come("a.0") is None


def test_what_comes_first_is_answered_with_them(scene: Scene) -> None:
    scene.begin("r1", "b", first=lambda key: events.ConfigurationApplied(0.0, key))
    assert scene.turn() == "first"
    scene.ends()
    assert scene.turn() == "b"
    scene.ends(Outcome.FAILED, "no")
    (answer,) = scene.answers
    assert (answer.outcome, results(answer)) == (Outcome.FAILED, [("c", "done"), ("b", "failed")])


def test_a_refusal_of_what_comes_first_is_one_of_all(scene: Scene) -> None:
    scene.begin("r1", "b", first=lambda key: events.ConfigurationApplied(0.0, key))
    scene.ends(Outcome.REFUSED, "the cluster is shutting down")
    (answer,) = scene.answers
    assert (answer.outcome, len(scene.asked)) == (Outcome.REFUSED, 1)


def test_a_refusal(scene: Scene) -> None:
    scene.begin("r1", "b")
    scene.ends(Outcome.REFUSED, "cannot update b: it has children")
    (answer,) = scene.answers
    assert (answer.outcome, answer.text) == (Outcome.REFUSED, "cannot update b: it has children")
    assert scene.handovers.to_come("b") is None


def test_who_is_being_updated_has_its_turn_after_that(scene: Scene) -> None:
    scene.begin("r1", "b")
    scene.begin("r2", "b", version="3")
    scene.begin("r3", "b", "a.0", version="4")
    assert len(scene.asked) == 1
    for key, version in (("r1", "2"), ("r2", "3"), ("r3", "4")):
        found = scene.handovers.to_come("b")
        assert found is not None
        assert found.launch.version == version
        before = [*scene.answered]
        scene.ends(turn=-1)
        assert scene.answered == ([*before, key] if key != "r3" else before)
    assert scene.turn() == "a.0"
    scene.ends()
    assert scene.answered[-1] == "r3"
    assert scene.handovers.to_come("b") is None


def test_who_can_take_over(scene: Scene) -> None:
    assert not scene.handovers.can_take_over(definition("b"))  # it does not run
    assert not scene.handovers.can_take_over(definition("new"))
    socket = SocketSpec("web", port=80)
    assert not scene.handovers.can_take_over(definition("b", run=Program(("x",)), sockets=(socket,)))
