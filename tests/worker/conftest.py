"""A controller of the tests' own: a ROUTER that talks to real stubs in real processes."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, TypeVar

import pytest
import zmq

from svcd.protocol import codec
from svcd.protocol.messages import (
    CheckHealth,
    EndAnnounced,
    EndNoted,
    ExceptionRaised,
    HealthReported,
    Init,
    Message,
    RemoteReady,
    ServiceSpec,
    Start,
    StateChanged,
    Stop,
)
from svcd.supervisor.config.launch import PythonCode
from svcd.supervisor.config.load import load

DEADLINE_S = 30.0
M = TypeVar("M", bound=Message)


class Stub:
    """One stub process and its connection, as the controller sees them."""

    def __init__(
        self, controller: Controller, process: subprocess.Popen[bytes], invocation: int, errors: IO[bytes]
    ) -> None:
        self.controller = controller
        self.process = process
        self.invocation = invocation
        self.errors = errors
        self.route = b""
        self.said: list[Message] = []

    def ready(self) -> RemoteReady:
        message = self.expect(RemoteReady)
        assert message.pid == self.process.pid
        return message

    def run(self, init: bool = True, start: bool = True, **fields: Any) -> None:
        """RemoteReady, then the code and its orders in one go, as the controller does it."""
        self.ready()
        self.tell(ServiceSpec("web", self.invocation, **fields))
        with suppress(zmq.ZMQError):  # it may have ended over its code already
            self.tell(*([Init(self.invocation)] if init else []), *([Start(self.invocation)] if start else []))

    def tell(self, *messages: Message) -> None:
        for message in messages:
            self.controller.router.send_multipart((self.route, b"", codec.encode(message)))

    def stop(self, reason: str = "asked") -> None:
        self.tell(Stop(self.invocation, reason))

    def stops_well(self) -> None:
        """Asked to, it stops, says so and nothing else, and exits with 0."""
        self.stop()
        self.expect_states("stopping")
        assert self.end()[0] == 0

    def stops_well_with(self, output: str) -> None:
        """Asked to, it stops well; this is all that it has printed in its life."""
        self.stop()
        self.expect_states("stopping")
        assert self.end() == (0, output, "")

    def wait_stopping(self) -> StateChanged:
        """It stops; what it says of exceptions before that does not matter."""
        while isinstance(message := self.next(), ExceptionRaised):
            pass
        assert isinstance(message, StateChanged)
        assert message.state == "stopping"
        return message

    def asks(self, method: str) -> None:
        """Have ``method`` of the service called, which finds nothing wrong."""
        self.tell(CheckHealth(self.invocation, 1, method))
        assert self.expect(HealthReported).healthy

    def expect(self, kind: type[M]) -> M:
        """The next message, which must be of this type."""
        message = self.next()
        assert isinstance(message, kind), f"{kind.__name__} expected, got {message}\n{self.output_so_far()}"
        return message

    def expect_states(self, *states: str) -> StateChanged:
        """The next messages are these states; the last one."""
        for state in states:
            changed = self.expect(StateChanged)
            assert changed.state == state, f"{state} expected, got {changed}\n{self.output_so_far()}"
        return changed

    def expect_failure(self, phase: str) -> tuple[ExceptionRaised, StateChanged]:
        raised = self.expect(ExceptionRaised)
        assert raised.phase == phase
        return raised, self.expect_states("stopping")

    def next(self) -> Message:
        while not self.said:
            self.controller.receive(self)
        return self.said.pop(0)

    def end(self, may_have_said_more: bool = False) -> tuple[int, str, str]:
        """Wait for the end: exit code (negative: signal), stdout, stderr."""
        deadline, more = time.monotonic() + DEADLINE_S, list[Message]()
        while self.controller.notes_ends and self.process.poll() is None and time.monotonic() < deadline:
            more += self.controller.rest()
        out, _ = self.process.communicate(timeout=DEADLINE_S)
        more += self.controller.rest()
        assert may_have_said_more or more == [], f"it said more than it should: {more}"
        self.errors.seek(0)
        return self.process.returncode, out.decode(errors="replace"), self.errors.read().decode(errors="replace")

    def line(self) -> str:
        """The next line of its stdout."""
        line, fd, deadline = b"", self.process.stdout.fileno(), time.monotonic() + DEADLINE_S  # type: ignore[union-attr]
        while not line.endswith(b"\n"):
            if not select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]:
                os.kill(self.process.pid, signal.SIGABRT)
                pytest.fail(f"no line: {line!r} {self.end(True)}")
            line += os.read(fd, 1) or pytest.fail(f"no line: {self.end(True)}")
        return line.decode()

    def output_so_far(self) -> str:
        if self.process.poll() is None:
            return "(it still runs)"
        return f"exit {self.end(may_have_said_more=True)}"


class Controller:
    """The ROUTER; ``spawn`` makes stubs that connect to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = str(directory / "control")
        self.context = zmq.Context()
        self.stubs: list[Stub] = []
        self.notes_ends = True
        self.open()

    def open(self) -> None:
        self.router = self.context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.LINGER, 0)
        self.router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.router.bind(f"ipc://{self.path}")

    def vanish(self) -> None:
        self.router.close()

    def spawn(
        self, argv: list[str] | None = None, env: dict[str, str] | None = None, cwd: Path | None = None, **stub: Any
    ) -> Stub:
        settings = {"service": "web", "invocation": 7, "cluster": "shop", "control": self.path, **stub}
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the stub
        process = subprocess.Popen(
            argv or [sys.executable, "-m", "svcd.worker_runtime"],
            env={**os.environ, "SVCD_STUB": json.dumps(settings), "PYTHONPATH": "", **(env or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,  # a file: nobody reads along
            start_new_session=True,
        )
        made = Stub(self, process, settings["invocation"], errors)
        self.stubs.append(made)
        return made

    def run_file(self, directory: Path, text: str) -> Stub:
        """The one Python service of a cluster file, spawned and told all that its file says to it."""
        (directory / "cluster.yaml").write_text(text)
        (service,) = load([directory / "cluster.yaml"], os.environ).services
        run = service.launch.run
        assert isinstance(run, PythonCode)
        stub = self.spawn(service=service.service)
        stub.ready()
        runtime = {**run.runtime, **run.runtime_variables}
        spec = ServiceSpec(service.service, stub.invocation, code=run.code, config=run.config, runtime=runtime)
        stub.tell(spec, Init(stub.invocation), Start(stub.invocation))
        return stub

    def receive(self, stub: Stub) -> None:
        """Take one message from the socket; to whom it belongs is decided by who said RemoteReady there."""
        deadline = time.monotonic() + DEADLINE_S
        while not self.router.poll(100):
            if stub.process.poll() is not None and not self.router.poll(5000):  # its last words may be under way
                pytest.fail(f"the stub has ended and said nothing more: {stub.end(True)}")
            if time.monotonic() > deadline:
                os.kill(stub.process.pid, signal.SIGABRT)  # faulthandler shows where it hangs
                pytest.fail(f"the stub said nothing: {stub.end(True)}")
        route, message = self._take()
        if message is None:
            return
        if isinstance(message, RemoteReady):
            next(each for each in self.stubs if each.process.pid == message.pid).route = route
        speaker = next(each for each in self.stubs if each.route == route)
        speaker.said.append(replace(message))

    def hear(self, count: int) -> list[Message]:
        """The next ``count`` messages, from whomever, and nothing after them."""
        said = []
        while len(said) < count:
            assert self.router.poll(DEADLINE_S * 1000), f"{count} messages expected, got {said}"
            said += filter(None, self._take()[1:])
        assert self.rest() == []
        return said

    def rest(self) -> list[Message]:
        """What has been said and not been received."""
        said: list[Message] = []
        while not self.router.closed and self.router.poll(10):
            said += filter(None, self._take()[1:])
        return said

    def _take(self) -> tuple[bytes, Message | None]:
        """A message and whose it is. What is answered at once, as the real one does it, is None."""
        route, correlation, body = self.router.recv_multipart()
        assert correlation == b""
        message = codec.decode(body)
        if isinstance(message, EndAnnounced) and self.notes_ends:
            with suppress(zmq.ZMQError):  # it has not waited for that any longer
                self.router.send_multipart((route, b"", codec.encode(EndNoted(message.invocation))))
            return route, None
        return route, message

    def close(self) -> None:
        for stub in self.stubs:
            if stub.process.poll() is None:
                os.killpg(stub.process.pid, signal.SIGKILL)
            stub.process.communicate(timeout=DEADLINE_S)
            stub.errors.close()
        self.router.close()
        self.context.term()


@pytest.fixture
def controller() -> Iterator[Controller]:
    with tempfile.TemporaryDirectory(prefix="svcd-") as directory:  # tmp_path may be too long for a socket
        made = Controller(Path(directory))
        try:
            yield made
        finally:
            made.close()
