"""Pauses, signs of life, health and long waits in ``loaded``, in real stub processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from svcd.protocol.messages import (
    CheckHealth,
    ExceptionRaised,
    HealthReported,
    Init,
    LoopAlive,
    Message,
    Pause,
    Ping,
    Pong,
    Resume,
    Start,
    Stop,
)

UP = ("loaded", "initialized", "starting", "running")
KINDS = pytest.mark.parametrize("kind", ["", "async "], ids=["sync", "async"])


def healthy(token: int) -> HealthReported:
    return HealthReported("web", 7, token, True)


def unhealthy(token: int, text: str) -> HealthReported:
    return HealthReported("web", 7, token, False, text)


# ---- pause and resume ------------------------------------------------------------------------------------------------

PAUSES = """
from svcd import Service
class Web(Service):
    {a}def pause(self): print("pause", bool(self.ctx.paused))
    {a}def resume(self): print("resume", self.ctx.paused.is_set())
    {a}def stop(self, reason): print("stop", self.ctx.paused.is_set())
"""


@KINDS
def test_pause_and_resume_are_called_and_reported(controller: Any, kind: str) -> None:
    stub = controller.spawn()
    stub.run(code=PAUSES.format(a=kind))
    stub.expect_states(*UP)
    for _ in range(2):
        stub.tell(Pause(7))
        stub.expect_states("paused")
        stub.tell(Resume(7))
        stub.expect_states("running")
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, "pause False\nresume True\n" * 2 + "stop False\n", "")


@KINDS
def test_who_is_paused_is_not_paused_again(controller: Any, kind: str) -> None:
    """Each order is answered all the same: whoever gave it may not have heard of the one before."""
    stub = controller.spawn()
    stub.run(code=PAUSES.format(a=kind))
    stub.expect_states(*UP)
    stub.tell(Resume(7))
    stub.expect_states("running")
    stub.tell(Pause(7))
    stub.expect_states("paused")
    stub.tell(Pause(7))
    stub.expect_states("paused")
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, "pause False\nstop False\n", "")


@pytest.mark.parametrize("last", ["paused", "running"])
def test_the_last_order_that_came_in_the_middle_of_a_pause_counts(controller: Any, tmp_path: Path, last: str) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    code = f"""
from svcd import Service
class Web(Service):
    def pause(self):
        print("pause", flush=True)
        open({str(gate)!r}).close()
    def resume(self): print("resume")
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.tell(Pause(7))
    assert stub.line() == "pause\n"
    stub.tell(Resume(7), Pause(7), *([] if last == "paused" else [Resume(7)]), Ping(7))
    stub.expect(Pong)
    gate.open("w").close()
    stub.expect_states("paused", last)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, "" if last == "paused" else "resume\n", "")


@KINDS
def test_a_pause_that_fails_leaves_it_running(controller: Any, kind: str) -> None:
    code = f"""
from svcd import Service
class Web(Service):
    {kind}def pause(self): raise ValueError("not now")
    {kind}def stop(self, reason): print(bool(self.ctx.paused))
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.tell(Pause(7))
    raised = stub.expect(ExceptionRaised)
    assert (raised.phase, raised.type, raised.message) == ("pause", "ValueError", "not now")
    assert stub.expect_states("running").error == "ValueError: not now"
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, "False\n", raised.traceback)


def test_a_resume_that_fails_leaves_it_paused(controller: Any) -> None:
    code = """
from svcd import Service
class Web(Service):
    tries = 0
    async def resume(self):
        self.tries += 1
        if self.tries == 1: raise ValueError("not yet")
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.tell(Pause(7))
    stub.expect_states("paused")
    stub.tell(Resume(7))
    assert stub.expect(ExceptionRaised).phase == "resume"
    assert stub.expect_states("paused").error == "ValueError: not yet"
    stub.tell(Resume(7))
    assert stub.expect_states("running").error is None
    stub.stops_well()


def test_an_exit_in_a_pause_ends_the_service(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="import sys, svcd\nclass Web(svcd.Service):\n  def pause(self): sys.exit(4)")
    stub.expect_states(*UP)
    stub.tell(Pause(7))
    assert stub.expect_states("stopping").error == "SystemExit: 4"
    assert stub.end()[0] == 4


def test_a_stop_waits_for_the_pause_in_progress(controller: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    code = f"""
from svcd import Service
class Web(Service):
    def pause(self):
        print("pausing", flush=True)
        open({str(gate)!r}).close()
        print("paused")
    def stop(self, reason): print("stop", reason)
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.tell(Pause(7))
    assert stub.line() == "pausing\n"
    stub.tell(Stop(7, "enough"), Ping(7))
    stub.expect(Pong)
    gate.open("w").close()
    stub.expect_states("paused", "stopping")
    assert stub.end() == (0, "paused\nstop enough\n", "")


def test_a_pause_that_was_asked_for_too_early_comes_once_it_runs(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(init=False, start=False, code=PAUSES.format(a=""))
    stub.expect_states("loaded")
    stub.tell(Pause(7), Init(7), Start(7))
    stub.expect_states(*UP[1:], "paused")
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end()[1] == "pause False\nstop False\n"


def test_a_function_can_look_whether_it_is_paused(controller: Any) -> None:
    code = """
def main(ctx):
    while not ctx.paused:
        ctx.stopping.wait(0.001)
    assert not ctx.paused.wait_over(0.001)
    print("sees it", flush=True)
    assert ctx.paused.wait_over()
    print("goes on", bool(ctx.paused), flush=True)
    ctx.stopping.wait()
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.tell(Pause(7))
    stub.expect_states("paused")
    assert stub.line() == "sees it\n"
    stub.tell(Resume(7))
    stub.expect_states("running")
    assert stub.line() == "goes on False\n"
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, "", "")


def test_a_stop_ends_the_wait_for_the_end_of_a_pause(controller: Any) -> None:
    code = """
import time
def main(ctx):  # a plain function's end is waited for
    while not ctx.paused:
        time.sleep(0.001)
    print("waits", flush=True)
    ctx.paused.wait_over()
    print("stops", ctx.stopping.is_set(), flush=True)
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.tell(Pause(7))
    stub.expect_states("paused")
    assert stub.line() == "waits\n"
    stub.stop()
    stub.expect_states("stopping")
    assert stub.line() == "stops True\n"
    assert stub.end()[0] == 0


def test_a_coroutine_can_wait_for_the_end_of_a_pause(controller: Any) -> None:
    code = """
import asyncio
async def main(ctx):
    while not ctx.paused:
        await asyncio.sleep(0.001)
    print("waits", flush=True)
    await ctx.paused.wait_over_async()
    print("goes on", flush=True)
    try: ctx.paused.wait_over()
    except Exception as error: print(error, flush=True)
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.tell(Pause(7))
    stub.expect_states("paused")
    assert stub.line() == "waits\n"
    stub.tell(Resume(7))
    stub.expect_states("running", "stopping")
    refusal = "ctx.paused.wait_over() would block the event loop: use 'await ctx.paused.wait_over_async()'"
    assert stub.end() == (0, f"goes on\n{refusal}\n", "")


def test_a_function_that_never_looks_is_paused_by_word(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="def main(ctx): ctx.stopping.wait()")
    stub.expect_states(*UP)
    stub.tell(Pause(7))
    stub.expect_states("paused")
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, "", "")


def test_a_crash_while_paused_is_a_crash(controller: Any) -> None:
    code = """
import asyncio
async def main(ctx):
    while not ctx.paused:
        await asyncio.sleep(0.001)
    raise ValueError("on its own")
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.tell(Pause(7))
    stub.expect_states("paused")
    assert stub.expect(ExceptionRaised).phase == "run"
    assert stub.expect_states("stopping").error == "ValueError: on its own"
    assert stub.end()[0] == 1


# ---- signs of life ---------------------------------------------------------------------------------------------------


def drain_life(stub: Any) -> Message:
    """The next message that is no sign of life."""
    while isinstance(message := stub.next(), LoopAlive):
        pass
    return message  # type: ignore[no-any-return]  # a Stub is Any here


@pytest.mark.parametrize(
    "code",
    ["import svcd\nclass Web(svcd.Service): pass", "def main(ctx): ctx.stopping.wait()"],
    ids=["class", "function in a thread"],
)
def test_the_loop_says_that_it_lives_while_the_service_runs(controller: Any, code: str) -> None:
    stub = controller.spawn()
    stub.run(code=code, watchdog_s=0.03)
    stub.expect_states(*UP)
    for _ in range(10):
        assert stub.expect(LoopAlive) == LoopAlive("web", 7)
    stub.stop()
    assert drain_life(stub).state == "stopping"  # type: ignore[attr-defined]
    assert stub.end()[0] == 0, "and after the stop nothing more is said"


def test_nothing_is_said_unasked(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="import svcd\nclass Web(svcd.Service): pass")
    stub.expect_states(*UP)
    stub.tell(Ping(7))
    stub.expect(Pong)
    assert controller.rest() == []
    stub.stops_well()


def test_a_blocked_loop_is_silent(controller: Any, tmp_path: Path) -> None:
    """Blocked while it waits for the gate: what it sent before that is read first, and then there is silence."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    code = f"""
import asyncio
from svcd import Service
class Web(Service):
    async def start(self): asyncio.get_running_loop().call_later(0.05, self.block)
    def block(self):
        print("blocks", flush=True)
        open({str(gate)!r}).close()
"""
    stub = controller.spawn()
    stub.run(code=code, watchdog_s=0.006)
    stub.expect_states(*UP)
    assert stub.line() == "blocks\n"
    while stub.said or controller.router.poll(200):  # a hundred beats long
        assert isinstance(stub.next(), LoopAlive)
    gate.open("w").close()
    assert stub.expect(LoopAlive) == LoopAlive("web", 7)
    stub.stop()
    assert drain_life(stub).state == "stopping"  # type: ignore[attr-defined]
    assert stub.end()[0] == 0


def test_a_method_that_blocks_its_thread_does_not_block_the_loop(controller: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    stub = controller.spawn()
    stub.run(code=f"def main(ctx): open({str(gate)!r}).close()", watchdog_s=0.006)
    stub.expect_states(*UP)
    for _ in range(20):
        stub.expect(LoopAlive)
    gate.open("w").close()
    assert drain_life(stub).state == "stopping"  # type: ignore[attr-defined]
    assert stub.end()[0] == 0


# ---- health ----------------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize(
    ("does", "text"),
    [
        ("return None", None),
        ("return True", None),
        ("return False", "look() returned False"),
        ("return 1", "look() returned 1"),
        ("return 'disk full'", "look() returned 'disk full'"),
        ("return 'x' * 10000", "look() returned '" + "x" * 383),
        ("raise ValueError('broken')", "look(): ValueError: broken"),
        ("raise SystemExit(3)", "look(): SystemExit: 3"),
        ("raise KeyboardInterrupt", "look(): KeyboardInterrupt"),
        ("import asyncio; raise asyncio.CancelledError", "look(): CancelledError"),
        ("raise StopIteration", "look(): RuntimeError: coroutine raised StopIteration"),
    ],
)
def test_a_method_says_how_it_is(controller: Any, kind: str, does: str, text: str | None) -> None:
    stub = controller.spawn()
    stub.run(code=f"import svcd\nclass Web(svcd.Service):\n  {kind}def look(self): {does}")
    stub.expect_states(*UP)
    for token in (1, 2):
        stub.tell(CheckHealth(7, token, "look"))
        assert stub.expect(HealthReported) == (healthy(token) if text is None else unhealthy(token, text))
    stub.stops_well()


def test_a_method_that_is_not_there(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="import svcd\nclass Web(svcd.Service):\n  level = 5")
    stub.expect_states(*UP)
    for token, method in enumerate(["look", "level", "__class__x", ""]):
        stub.tell(CheckHealth(7, token, method))
        assert stub.expect(HealthReported) == unhealthy(token, f"Web has no method {method!r}")
    stub.stops_well()


def test_a_function_has_no_methods(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="def main(ctx): ctx.stopping.wait()")
    stub.expect_states(*UP)
    stub.tell(CheckHealth(7, 1, "look"))
    assert stub.expect(HealthReported) == unhealthy(1, "a function has no method 'look'")
    stub.stops_well()


@KINDS
def test_one_check_at_a_time(controller: Any, tmp_path: Path, kind: str) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    wait = f"open({str(gate)!r}).close()"
    wait = f"await asyncio.to_thread(lambda: {wait})" if kind else wait
    stub = controller.spawn()
    stub.run(code=f"import asyncio, svcd\nclass Web(svcd.Service):\n  {kind}def look(self): {wait}")
    stub.expect_states(*UP)
    stub.tell(CheckHealth(7, 1, "look"), CheckHealth(7, 2, "look"))
    assert stub.expect(HealthReported) == unhealthy(2, "look(): the check before has not ended")
    gate.open("w").close()
    assert stub.expect(HealthReported) == healthy(1)
    stub.tell(CheckHealth(7, 3, "look"))
    gate.open("w").close()
    assert stub.expect(HealthReported) == healthy(3)
    stub.stops_well()


def test_a_plain_method_runs_where_the_others_run(controller: Any) -> None:
    code = """
import threading
from svcd import Service
class Web(Service):
    def init(self, config): self.thread = threading.get_ident()
    def look(self): return threading.get_ident() == self.thread
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.tell(CheckHealth(7, 1, "look"))
    assert stub.expect(HealthReported) == healthy(1)
    stub.stops_well()


def test_nobody_is_asked_before_it_runs(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(init=False, start=False, code="import svcd\nclass Web(svcd.Service):\n  def look(self): print('asked')")
    stub.expect_states("loaded")
    stub.tell(CheckHealth(7, 1, "look"))
    assert stub.expect(HealthReported) == unhealthy(1, "it does not run")
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, "", "")


def test_a_check_that_hangs_holds_up_no_stop(controller: Any) -> None:
    """And what it would have said is said no more."""
    code = """
import asyncio, svcd
class Web(svcd.Service):
    async def look(self):
        print("looks", flush=True)
        await asyncio.sleep(3600)
    async def stop(self, reason): print("stop")
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.tell(CheckHealth(7, 1, "look"))
    assert stub.line() == "looks\n"
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, "stop\n", "")


# ---- loaded, and no further for now ----------------------------------------------------------------------------------


def test_who_is_only_loaded_idles(controller: Any) -> None:
    """Not one turn of its loop, counted as the switches that a sleeping process makes when it wakes."""
    stub = controller.spawn()
    stub.run(init=False, start=False, code=PAUSES.format(a=""), watchdog_s=0.01)
    stub.expect_states("loaded")
    stub.tell(Ping(7))
    stub.expect(Pong)
    process, looks = psutil.Process(stub.process.pid), 0
    before = None
    while process.num_ctx_switches() != before:
        assert (looks := looks + 1) < 20, "it never idles"
        settled(process)  # anew, where somebody has stopped it for a moment, and the machine with it
        before = process.num_ctx_switches()
        assert not controller.router.poll(300)  # thirty beats long
    stub.tell(Init(7), Start(7))
    stub.expect_states(*UP[1:])
    stub.stop()
    assert drain_life(stub).state == "stopping"  # type: ignore[attr-defined]
    assert stub.end()[0] == 0


def settled(process: psutil.Process) -> None:
    """Return once it sleeps: no switch of the main thread within a twentieth of a second."""
    deadline = time.monotonic() + 30
    while True:
        before = process.num_ctx_switches()
        time.sleep(0.05)
        if process.num_ctx_switches() == before and process.status() == psutil.STATUS_SLEEPING:
            return
        assert time.monotonic() < deadline, "it never sleeps"


@pytest.mark.parametrize("how", ["told", "signal"])
def test_who_is_only_loaded_obeys_a_stop(controller: Any, how: str) -> None:
    stub = controller.spawn()
    stub.run(init=False, start=False, code=PAUSES.format(a=""))
    stub.expect_states("loaded")
    if how == "told":
        stub.stop()
    else:
        os.kill(stub.process.pid, signal.SIGTERM)
    stub.expect_states("stopping")
    assert stub.end() == (0, "", "")


@pytest.mark.parametrize("script", [False, True])
def test_who_is_only_loaded_ends_when_the_controller_stays_away(controller: Any, script: bool, tmp_path: Path) -> None:
    path = tmp_path / "job.py"
    path.write_text("print('ran')")
    code = {"script": str(path)} if script else {"code": PAUSES.format(a="")}
    stub = controller.spawn()
    stub.run(init=False, start=False, controller_timeout_s=0.1, **code)
    stub.expect_states("loaded")
    controller.vanish()
    assert stub.end() == (0, "", "svcd: no controller for 0.1 s: stopping\n")


def test_who_is_only_loaded_goes_on_with_a_controller_that_comes_back(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(init=False, start=False, code=PAUSES.format(a=""))
    stub.expect_states("loaded")
    controller.vanish()
    controller.open()
    stub.ready()
    stub.expect_states("loaded")
    stub.tell(Init(7), Start(7))
    stub.expect_states(*UP[1:])
    stub.stops_well()


def test_who_is_paused_says_so_to_a_controller_that_comes_back(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code=PAUSES.format(a=""))
    stub.expect_states(*UP)
    stub.tell(Pause(7))
    stub.expect_states("paused")
    controller.vanish()
    controller.open()
    stub.ready()
    stub.expect_states("paused")
    stub.tell(Resume(7))
    stub.expect_states("running")
    stub.stops_well()
