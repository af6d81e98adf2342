"""svcd's controller, or the whole machine, stands still for a while: nothing of that is held against a service.

Must not test what becomes of a service that stands still by itself: its watchdog is for that.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from clusters import wait_until
from stage import Stage

WATCHDOG_S = 2.0
TILL = """\
import svcd
class Till(svcd.Service):
    @svcd.rpc
    async def fine(self) -> bool: return True
"""
WATCHDOG = f"watchdog: {WATCHDOG_S:g}s"
HEALTH = f"interval: 100ms, timeout: {WATCHDOG_S:g}s, failure_threshold: 1"
SERVICES = f"""\
till: {{command: null, python: 'till:Till', stop: {{timeout: 200ms}}, {WATCHDOG}, health: {{rpc: fine, {HEALTH}}}}}
web: {{depends_on: [till], command: exec sleep 1000, health: {{exec: ['true'], {HEALTH}}}}}
"""


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


def pass_time(seconds: float) -> None:
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, "time to pass")


def controller_of(stage: Stage) -> int:
    pid = next(each.pid for each in stage.status().parts if each.name == "controller")
    assert pid is not None
    return pid


def test_nobody_pays_for_it(stage: Stage) -> None:
    stage.write(TILL, "till.py")
    stage.up(SERVICES)
    wait_until(lambda: all(stage.row(name).healthy for name in ("till", "web")), "them to be healthy")
    pids = {name: stage.pid_of(name) for name in ("till", "web")}
    with stopped([controller_of(stage), *pids.values()]):
        pass_time(1.5 * WATCHDOG_S)
    pass_time(WATCHDOG_S)  # in which whoever gives no sign of life is found out, and nobody else
    assert {name: stage.pid_of(name) for name in pids} == pids
    stage.tells()


def test_who_gives_no_sign_afterwards_is_found_out(stage: Stage) -> None:
    """What was lost is given once more, and not for ever."""
    stage.write(TILL, "till.py")
    stage.up(SERVICES)
    pid = stage.pid_of("till")
    controller = controller_of(stage)
    os.kill(pid, signal.SIGSTOP)  # for good
    with stopped([controller]):
        pass_time(1.5 * WATCHDOG_S)
    stage.wait_state("till", "running", after=stage.row("till").invocation)
    assert stage.pid_of("till") != pid
    assert any("no sign of life" in cause or "no answer" in cause for cause in stage.causes("till"))
