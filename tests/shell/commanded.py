"""A real guardian, launcher and collector, with the controller's own rooms for short commands on an event loop.

Must not decide what a test expects: it puts together what ``daemon`` would, and takes it apart again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from guarded import PATIENCE_S, Guarded

from svcd.supervisor import wiring
from svcd.supervisor.config.launch import ClusterSpec, LaunchSpec, Program, ServiceDefinition
from svcd.supervisor.controller.parts import Parts
from svcd.supervisor.controller.processes import containment, launching
from svcd.supervisor.controller.processes.borrowed import Borrowed
from svcd.supervisor.controller.processes.errands import Errand, Errands
from svcd.supervisor.core.events import ExitStatus
from svcd.supervisor.core.spec import ServiceSpec

PATH = "/usr/local/bin:/usr/bin:/bin"
Got = TypeVar("Got")


def on_loop(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it, within patience."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await body()

    asyncio.run(bounded())


async def eventually(condition: Callable[[], Got], what: str) -> Got:
    """For what nobody announces."""
    try:
        async with asyncio.timeout(PATIENCE_S / 2):
            while not (value := condition()):
                await asyncio.sleep(0.01)
            return value
    except TimeoutError:
        raise AssertionError(f"waited in vain: {what}") from None


async def settled() -> None:
    """Whatever has arrived by now is handled."""
    for _ in range(5):
        await asyncio.sleep(0.001)


def definition(name: str = "web", workdir: str = "/", **launch: Any) -> ServiceDefinition:
    launch.setdefault("env", {"PATH": PATH})
    return ServiceDefinition(ServiceSpec(name), LaunchSpec(Program(("true",)), workdir, **launch))


def may_make_cgroups() -> bool:
    try:
        containment.CgroupContainment(f"svcd-test-{os.getpid()}", "0").close()
    except OSError:
        return False
    return True


class Answer:
    """What came of an errand."""

    def __init__(self) -> None:
        self.came: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.errand: Errand | None = None

    def __call__(self, error: str | None) -> None:
        assert not self.came.done(), "it is told once"
        self.came.set_result(error)

    def __await__(self) -> Any:
        return self.came.__await__()

    def kill(self) -> None:
        assert self.errand is not None
        self.errand.kill()


class Commanded:
    """``errands`` on the running loop, the guardian being a real one. ``async with`` it."""

    def __init__(self, guarded: Guarded, directory: Path, in_cgroups: bool) -> None:
        self.guarded = guarded
        self.in_cgroups = in_cgroups
        self.directory = directory
        self.lost: list[str] = []

    async def __aenter__(self) -> Commanded:
        loop = asyncio.get_running_loop()
        mains: set[int] = set()
        run_id = os.urandom(8).hex()
        self.containment: containment.Containment
        if self.in_cgroups:
            self.containment = containment.CgroupContainment(f"svcd-test-{os.getpid()}", run_id)
        else:
            self.containment = containment.SessionContainment(self.guarded.pid, mains)
        self.parts = Parts(
            loop, self.guarded.links["guardian"], self._receivers(), lambda: self.lost.append("guardian")
        )
        cluster = ClusterSpec("shop", (), ())
        around = launching.Surroundings(cluster, "", "", str(self.directory), Borrowed(self.directory))
        self.errands = Errands(loop, self.parts, self.containment, mains, around, run_id)
        return self

    async def __aexit__(self, *_: object) -> None:
        ended = asyncio.Event()
        self.errands.end(ended.set)
        await ended.wait()
        assert len(self.errands) == len(self.errands.runs) == 0
        self.containment.close()
        self.parts.send_guardian(wiring.ClusterEnded(0))
        await self.parts.drained()
        self.guarded.relay.send(b"")
        await eventually(lambda: self.guarded.process.poll() is not None, "the guardian's end")
        self.parts.close()

    def run(self, *argv: str, timeout_s: float = PATIENCE_S, output: bool = True, **more: Any) -> Answer:
        """An errand for a service; ``environment``: for it alone; the rest is the service's own."""
        answer = Answer()
        environment = more.pop("environment", {})
        answer.errand = self.errands.run(definition(**more), argv, timeout_s, environment, answer, output)
        return answer

    async def said(self, service: str = "web", stream: str = "stdout") -> str:
        """What is in its log, once something is."""
        path = self.directory / "logs" / service / f"{stream}.log"
        return await eventually(lambda: path.exists() and path.read_text(), f"{service} to say something")

    async def launcher(self) -> int:
        return await eventually(lambda: self.parts.pids.get("launcher"), "the launcher")

    def _receivers(self) -> dict[type, Callable[[Any, list[int]], None]]:
        def born(message: wiring.ProcessBorn, fds: list[int]) -> None:
            self.errands.runs.born(message.invocation, message.pid, fds[0])

        def reaped(message: wiring.ProcessReaped, fds: list[int]) -> None:
            status = ExitStatus(message.code, message.signal)
            if message.invocation is None:
                self.errands.runs.orphan_reaped()
            else:
                self.errands.runs.reaped(message.invocation, status, message.pid)

        def part_started(message: wiring.PartStarted, fds: list[int]) -> None:
            self.parts.started(message, fds)

        def part_ended(message: wiring.PartEnded, fds: list[int]) -> None:
            self.parts.ended(message)
            self.errands.runs.launcher_lost(message.part)

        return {
            wiring.ProcessBorn: born,
            wiring.ProcessReaped: reaped,
            wiring.ProgramExecuted: lambda message, fds: self.errands.runs.executed(message.invocation),
            wiring.SpawnRejected: lambda message, fds: self.errands.runs.rejected(
                message.invocation, message.reason, message.born
            ),
            wiring.PartStarted: part_started,
            wiring.PartEnded: part_ended,
        }


Body = Callable[[Commanded], Awaitable[None]]
