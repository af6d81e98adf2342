"""Orders that wait for a fork server whose import does not end: what becomes of them when their start is given up.

Must not import anything: that a fork server hangs is played.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from svcd.supervisor.controller import clock
from svcd.supervisor.controller.python.fork_servers import ForkServers, Held
from svcd.supervisor.controller.python.preload_sets import AUTO, PreloadSet
from svcd.supervisor.wiring import PartDismissed

BOUND_S = 2.0
OVERDUE = "cannot preload unfit: importing it has not ended within 2 s"
STOPPED = "stopped by request"


class Neighbours:
    """Parts and runs in one: what they are told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.rejections: list[tuple[int, str]] = []

    def send_guardian(self, message: Any) -> None:
        self.told.append(message)

    def rejected(self, invocation: int, reason: str, born: bool) -> None:
        assert not born
        self.rejections.append((invocation, reason))


@pytest.mark.parametrize(
    ("preload", "after_s", "reason", "ends"),
    [
        (PreloadSet(("unfit",)), 0.0, STOPPED, False),
        (PreloadSet(("unfit",)), BOUND_S, OVERDUE, True),
        (AUTO, BOUND_S, STOPPED, False),
    ],
)
def test_a_start_that_is_overdue_is_so_for_its_import_whoever_says_it_first(
    monkeypatch: pytest.MonkeyPatch, preload: PreloadSet, after_s: float, reason: str, ends: bool
) -> None:
    """The core's deadline and that of the import are one: after a standstill either may be told before the other."""

    async def scene() -> None:
        world = cast("Any", Neighbours())
        servers = ForkServers(asyncio.get_running_loop(), world, world, world, world, lambda *_, **__: None)
        server = servers._start(preload, ("unfit",))
        run = cast("Any", type("Run", (), {"invocation": 7}))
        servers._hold(server, Held(run, cast("Any", None), (), BOUND_S))
        now_s = clock.now()
        monkeypatch.setattr(clock, "now", lambda: now_s + after_s)
        servers.give_up(7, STOPPED)
        assert world.rejections == [(7, reason)]
        assert (PartDismissed(server.part) in world.told) == ends
        assert not server.held

    asyncio.run(scene())
