"""Health: one check after the other while a service runs, each result told; and the stub's own word for it.

Must not test thresholds (the core's) nor the single look (test_checks.py).
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

from commanded import definition, eventually, on_loop, settled

from svcd.protocol import messages
from svcd.supervisor.config.launch import ClusterSpec, HealthProbe
from svcd.supervisor.controller.patience import STOOD_STILL_S
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.controller.watching.health import Health
from svcd.supervisor.core.actions import CeaseHealthChecks, CheckHealth
from svcd.supervisor.core.events import Event, HealthChecked

QUICK = {"interval_s": 0.01, "timeout_s": 10.0}


class Scene:
    """Health of "web" on the running loop. ``asked``: what stubs were asked."""

    def __init__(self, probe: HealthProbe) -> None:
        self.told: list[HealthChecked] = []
        self.asked: list[tuple[str, int, int, str]] = []
        registry = Registry(ClusterSpec("shop", (), (definition(health=probe),)))
        loop = asyncio.get_running_loop()
        errands: Any = None  # no commands here
        self.health = Health(loop, registry, errands, self._submit, lambda *asked: self.asked.append(asked))

    def _submit(self, event: Event) -> None:
        assert isinstance(event, HealthChecked)
        assert event.service == "web"
        self.told.append(event)

    def answer(self, token: int, healthy: bool = True, text: str = "", invocation: int = 7) -> None:
        self.health.take_answer(messages.HealthReported("web", invocation, token, healthy, text))

    async def results(self, count: int) -> list[tuple[bool, str]]:
        """The next so many."""
        del self.told[:]
        await eventually(lambda: len(self.told) >= count, f"{count} results")
        return [(each.healthy, each.text) for each in self.told[:count]]


def test_results_come_until_they_are_to_cease() -> None:
    async def body() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=4096) as server:
            port = server.getsockname()[1]
            scene = Scene(HealthProbe(tcp_host="127.0.0.1", tcp_port=port, **QUICK))
            scene.health.begin(CheckHealth("web", 7))
            assert await scene.results(3) == [(True, "")] * 3
        await eventually(lambda: not scene.told[-1].healthy, "a failure")
        assert await scene.results(2) == [(False, f"cannot connect to 127.0.0.1:{port}: Connection refused")] * 2
        assert {each.invocation for each in scene.told} == {7}
        scene.health.cease(CeaseHealthChecks("web", 7))
        del scene.told[:]
        await asyncio.sleep(0.1)
        assert scene.told == []
        scene.health.cease(CeaseHealthChecks("web", 7))

    on_loop(body)


def test_a_second_beginning_is_no_second_series() -> None:
    """A service that was paused and resumed."""

    async def body() -> None:
        scene = Scene(HealthProbe(method="well", **QUICK))
        scene.health.begin(CheckHealth("web", 7))
        await eventually(lambda: scene.asked, "the first question")
        scene.health.begin(CheckHealth("web", 7))
        await eventually(lambda: len(scene.asked) == 2, "the second one's")
        first, second = (token for _, _, token, _ in scene.asked)
        scene.answer(first)
        await asyncio.sleep(0.1)
        assert (scene.told, len(scene.asked)) == ([], 2), "nobody waits for the first answer any more"
        scene.answer(second)
        await eventually(lambda: scene.told, "the second one's result")
        scene.health.close()
        await settled()

    on_loop(body)


def test_a_stub_is_asked_for_its_method_one_answer_at_a_time() -> None:
    async def body() -> None:
        scene = Scene(HealthProbe(method="well", **QUICK))
        scene.health.begin(CheckHealth("web", 7))
        await eventually(lambda: scene.asked, "a question")
        await asyncio.sleep(0.05)
        [(service, invocation, token, method)] = scene.asked
        assert (service, invocation, method) == ("web", 7, "well")
        scene.answer(token)
        await eventually(lambda: len(scene.asked) == 2, "the next question")
        scene.answer(scene.asked[1][2], healthy=False, text="disk full")
        await eventually(lambda: len(scene.asked) == 3, "the next question")
        scene.answer(scene.asked[2][2], healthy=False)
        await eventually(lambda: len(scene.told) == 3, "three results")
        assert [(each.healthy, each.text) for each in scene.told] == [
            (True, ""),
            (False, "disk full"),
            (False, "it says that it is not"),
        ]
        scene.health.close()
        await settled()

    on_loop(body)


def test_foreign_late_and_repeated_answers_are_none() -> None:
    async def body() -> None:
        scene = Scene(HealthProbe(method="well", interval_s=1000.0, timeout_s=0.2))
        scene.health.begin(CheckHealth("web", 7))
        await eventually(lambda: scene.asked, "a question")
        token = scene.asked[0][2]
        scene.answer(token + 1)
        scene.answer(token, invocation=8)  # another run that guessed the number
        await eventually(lambda: scene.told, "a result")
        assert (scene.told[0].healthy, scene.told[0].text) == (False, "well(): no answer within 0.2 s")
        scene.answer(token)
        scene.answer(token)
        await settled()
        assert len(scene.told) == 1
        scene.health.close()
        await settled()

    on_loop(body)


def test_a_check_that_hangs_is_a_failure_and_the_next_one_follows() -> None:
    async def body() -> None:
        scene = Scene(HealthProbe(method="well", interval_s=0.01, timeout_s=0.05))
        scene.health.begin(CheckHealth("web", 7))
        assert await scene.results(3) == [(False, "well(): no answer within 0.05 s")] * 3
        scene.health.close()
        await settled()

    on_loop(body)


def test_an_answer_that_came_while_everything_stood_still_is_heard() -> None:
    async def body() -> None:
        scene = Scene(HealthProbe(method="well", interval_s=1000.0, timeout_s=0.01))
        scene.health.begin(CheckHealth("web", 7))
        while not scene.asked:
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.02, scene.answer, scene.asked[0][2])
        time.sleep(2 * STOOD_STILL_S)
        await eventually(lambda: scene.told, "a result")
        assert (scene.told[0].healthy, scene.told[0].text) == (True, "")
        scene.health.close()
        await settled()

    on_loop(body)
