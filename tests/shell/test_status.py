"""Status: rows follow the machine and the records, and an answer always fits into a message."""

from __future__ import annotations

from svcd.protocol import codec
from svcd.protocol.messages import ExceptionRaised, StatusReported
from svcd.supervisor.config.launch import ClusterSpec, LaunchSpec, Program, ServiceDefinition
from svcd.supervisor.controller.clients.status import Status, Whole
from svcd.supervisor.controller.engine import Engine
from svcd.supervisor.controller.records import TRACEBACK_LIMIT, Records
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core.actions import Action, SpawnProcess
from svcd.supervisor.core.events import ProcessSpawned, ProgramExecuted, ServicesRegistered, StartRequested
from svcd.supervisor.core.machine import Machine
from svcd.supervisor.core.spec import Dependency, ServiceSpec


class Scene:
    """A status over a real machine whose actions go nowhere but into a list."""

    def __init__(self, *specs: ServiceSpec) -> None:
        definitions = tuple(ServiceDefinition(each, LaunchSpec(Program(("true",)), "/")) for each in specs)
        self.machine = Machine()
        self.engine = Engine(self.machine)
        self.records = Records(self.changed)
        cluster = ClusterSpec("shop", (), definitions)
        self.status = Status(
            Registry(cluster), "/var/lib/svcd/shop", self.machine, self.records, Whole(), lambda: {"guardian": 1}
        )
        self.orders: list[Action] = []
        self.engine.connect(dict.fromkeys(Action.__args__, self.orders.append), self.status.views_changed)
        self.engine.submit(ServicesRegistered(0.0, specs))

    def changed(self, service: str) -> None:
        self.status.changed(service)

    def report(self) -> StatusReported:
        message = codec.decode(self.status.encoded())
        assert isinstance(message, StatusReported)
        return message


def test_rows_follow_the_machine_without_a_transition() -> None:
    scene = Scene(ServiceSpec("db"), ServiceSpec("web", dependencies=(Dependency("db"),)))
    assert [row.state for row in scene.report().services] == ["unloaded", "unloaded"]
    scene.engine.submit(StartRequested(1.0, "r", ()))
    before = scene.report()
    assert [row.cause for row in before.services][1] == "for db (starting)"
    spawn = next(each for each in scene.orders if isinstance(each, SpawnProcess))
    scene.engine.submit(ProcessSpawned(2.0, "db", spawn.invocation, 4242))
    assert scene.report().services[0].pid == 4242
    scene.engine.submit(ProgramExecuted(3.0, "db", spawn.invocation))
    assert [row.state for row in scene.report().services] == ["running", "starting"]


def test_the_whole_answer_is_encoded_once_until_something_changes() -> None:
    scene = Scene(ServiceSpec("db"))
    first = scene.status.encoded()
    assert scene.status.encoded() is first
    scene.records.take_usage("db", 1.0, 0.0, 1000)
    assert scene.status.encoded() is not first
    scene.records.take_usage("db", 2.0, 0.5, 2000)
    row = scene.report().services[0]
    assert (row.cpu_percent, row.memory_bytes) == (50.0, 2000)


def test_thousands_of_tracebacks_still_make_an_answer() -> None:
    scene = Scene(*(ServiceSpec(f"s{number}") for number in range(2500)))
    for number in range(2500):
        raised = ExceptionRaised(f"s{number}", 1, "run", "ValueError", "no", "x" * 100_000)
        scene.records.take_exception(raised)
    report = scene.report()
    assert len(report.services) == 2500
    assert report.services[0].exception is None
    assert scene.status.report(("s7",)).services[0].exception is not None


def test_an_exception_of_the_stop_stands_below_that_which_led_to_it() -> None:
    scene = Scene(ServiceSpec("db"))

    def shown(invocation: int, phase: str, words: str) -> str | None:
        scene.records.take_exception(
            ExceptionRaised("db", invocation, phase, "ValueError", "", f"ValueError: {words}\n")
        )
        return scene.report().services[0].exception

    shown(1, "start", "no port")
    assert shown(1, "stop", "no port to close") == (
        "ValueError: no port\n\nand while it stopped:\nValueError: no port to close\n"
    )
    assert shown(2, "stop", "another run") == "ValueError: another run\n"
    assert shown(2, "run", "later") == "ValueError: later\n"
    both = shown(2, "stop", "x" * 100_000)
    assert both is not None
    assert both.startswith("ValueError: later\n\nand while it stopped:\nxxx")
    assert len(both) < TRACEBACK_LIMIT
