"""Lives of services in real stub processes: what is reported in which order, what is called, how it ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from svcd.protocol.messages import ExceptionRaised, Init, Ping, Pong, ServiceSpec, Start, StatusReported, Stop

UP = ("loaded", "initialized", "starting", "running")

CALLS = """
from svcd import Service
class Web(Service):
    {a}def init(self, config):
        print("init", config, self.ctx.name, self.ctx.cluster, self.ctx.instance, self.ctx.invocation)
    {a}def start(self):
        print("start")
    {a}def stop(self, reason):
        print("stop:", reason, self.ctx.stopping.is_set())
"""


@pytest.mark.parametrize("kind", ["", "async "], ids=["sync", "async"])
def test_a_class_lives_its_whole_life(controller: Any, kind: str) -> None:
    stub = controller.spawn()
    stub.run(code=CALLS.format(a=kind), config={"port": 80})
    stub.expect_states(*UP)
    stub.stop("asked by ann")
    assert stub.expect_states("stopping").error is None
    assert stub.end() == (0, "init {'port': 80} web shop 0 7\nstart\nstop: asked by ann True\n", "")


def test_every_sync_method_runs_in_the_same_thread(controller: Any) -> None:
    stub = controller.spawn()
    code = """
import threading
from svcd import Service
class Web(Service):
    def init(self, config): self.thread = threading.get_ident()
    def start(self): assert threading.get_ident() == self.thread != threading.main_thread().ident
    def stop(self, reason): assert threading.get_ident() == self.thread
"""
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, "", "")


def test_a_service_without_methods_of_its_own(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="import svcd\nclass Web(svcd.Service): pass")
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, "", "")


def test_the_context_is_there_in_the_constructor(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="import svcd\nclass Web(svcd.Service):\n  def __init__(self): print(self.ctx.name)")
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end()[1] == "web\n"


def test_module_and_class_from_the_path(controller: Any, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "web.py").write_text(CALLS.format(a="async "))
    stub = controller.spawn()
    stub.run(entry="shop.web:Web", path=(str(tmp_path),))
    stub.expect_states(*UP)
    stub.stops_well()


def test_pythonpath_is_honoured_after_path(controller: Any, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "place.py").write_text(f"def main(ctx): print({name!r})")
    (tmp_path / "second" / "other.py").write_text("import place\nmain = place.main")
    stub = controller.spawn(env={"PYTHONPATH": str(tmp_path / "second")})
    stub.run(entry="other:main", path=(str(tmp_path / "first"),))
    stub.expect_states(*UP, "stopping")
    assert stub.end() == (0, "first\n", "")


@pytest.mark.parametrize("name", ["protocol", "cli", "supervisor", "load", "connection", "stub", "exceptions"])
def test_modules_of_the_user_are_not_shadowed_by_ours(controller: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("def main(ctx): print(__file__)")
    stub = controller.spawn()
    stub.run(entry=f"{name}:main", path=(str(tmp_path),))
    stub.expect_states(*UP, "stopping")
    assert stub.end() == (0, f"{tmp_path / name}.py\n", "")


def test_the_current_directory_is_not_on_the_path(controller: Any, tmp_path: Path) -> None:
    stub = controller.spawn(cwd=tmp_path)
    stub.run(code="import sys, os\ndef main(ctx): print(os.getcwd(), os.getcwd() in sys.path, '' in sys.path)")
    stub.expect_states(*UP, "stopping")
    assert stub.end()[1] == f"{tmp_path} False False\n"


# ---- functions -----------------------------------------------------------------------------------------------------


def test_a_sync_function_waits_for_stopping(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="def main(ctx):\n  print(ctx.config, ctx.stopping.wait(60))", config={"a": 1})
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, "{'a': 1} True\n", "")


def test_an_async_function_is_cancelled(controller: Any) -> None:
    code = """
import asyncio
async def main(ctx):
    try:
        await asyncio.sleep(3600)
    finally:
        print("finally", ctx.stopping.is_set())
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, "finally True\n", "")


def test_an_async_function_that_waits_for_stopping_is_woken_instead(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="async def main(ctx):\n  await ctx.stopping.wait_async()\n  print('went on')")
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, "went on\n", "")


@pytest.mark.parametrize("kind", ["", "async "], ids=["sync", "async"])
def test_a_function_that_returns_ends_the_service(controller: Any, kind: str) -> None:
    stub = controller.spawn()
    stub.run(code=f"{kind}def main(ctx): return 5")
    assert stub.expect_states(*UP, "stopping").error is None
    assert stub.end()[0] == 0


@pytest.mark.parametrize("kind", ["", "async "], ids=["sync", "async"])
def test_a_function_that_raises_fails_the_service(controller: Any, kind: str) -> None:
    stub = controller.spawn()
    stub.run(code=f"{kind}def main(ctx):\n  raise LookupError('no\\nbread')")
    stub.expect_states(*UP)
    raised, stopping = stub.expect_failure("run")
    assert (raised.type, raised.message) == ("LookupError", "no\nbread")
    assert [(each.file, each.line, each.function) for each in raised.frames] == [("<code of web>", 2, "main")]
    assert stopping.error == "LookupError: no"
    code, _, err = stub.end()
    assert code == 1
    assert err == raised.traceback
    assert "raise LookupError" in err


def test_an_error_while_being_cancelled_is_a_failed_stop(controller: Any) -> None:
    code = """
import asyncio
async def main(ctx):
    try: await asyncio.sleep(3600)
    finally: 1 / 0
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.stop()
    assert stub.expect_states("stopping").error is None
    assert stub.expect(ExceptionRaised).phase == "stop"
    assert stub.end()[0] == 1


def test_a_stopiteration_gets_lost_nowhere(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="def main(ctx): next(iter(()))")
    stub.expect_states(*UP)
    raised, _ = stub.expect_failure("run")
    assert "StopIteration" in raised.traceback
    assert stub.end()[0] == 1


def test_waiting_for_stopping_on_the_event_loop_is_refused(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="async def main(ctx): ctx.stopping.wait()")
    stub.expect_states(*UP)
    raised, _ = stub.expect_failure("run")
    assert raised.type.endswith("StateError")
    assert "wait_async" in raised.message
    assert stub.end()[0] == 1


# ---- stop at any time ----------------------------------------------------------------------------------------------


def test_a_stop_before_any_code(controller: Any) -> None:
    stub = controller.spawn()
    stub.ready()
    stub.stops_well()


def test_a_stop_before_init_calls_nothing(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(init=False, start=False, code=CALLS.format(a=""))
    stub.expect_states("loaded")
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, "", "")


def test_a_stop_after_init_calls_stop(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(start=False, code=CALLS.format(a="async "))
    stub.expect_states("loaded", "initialized")
    stub.stop("changed my mind")
    stub.expect_states("stopping")
    assert stub.end()[1].splitlines()[1:] == ["stop: changed my mind True"]


STARTS = """
import asyncio, os
from svcd import Service
class Web(Service):
    async def start(self):
        print("start", flush=True)
        while not os.path.exists({gate!r}):
            await asyncio.sleep(0.01)
        {end}
    async def stop(self, reason):
        print("stop", flush=True)
"""


@pytest.mark.parametrize(("end", "code"), [("pass", 0), ("1 / 0", 1)], ids=["well", "badly"])
def test_a_stop_during_start_waits_for_the_start_to_end(controller: Any, tmp_path: Path, end: str, code: int) -> None:
    gate = tmp_path / "gate"
    stub = controller.spawn()
    stub.run(code=STARTS.format(gate=str(gate), end=end))
    stub.expect_states("loaded", "initialized", "starting")
    stub.stop()
    stub.tell(Ping(7))
    stub.expect(Pong)  # so the stop has arrived as well, and has not been reported
    gate.touch()
    if code:
        stub.expect_failure("start")
    else:
        stub.expect_states("stopping")  # without running
    assert stub.end()[:2] == (code, "start\nstop\n")


@pytest.mark.parametrize("phase", ["init", "start"])
@pytest.mark.parametrize("kind", ["", "async "], ids=["sync", "async"])
def test_a_failed_start_is_followed_by_a_stop(controller: Any, phase: str, kind: str) -> None:
    code = CALLS.format(a=kind).replace(f'print("{phase}"', 'raise ValueError("no bread"', 1)
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP[: 1 if phase == "init" else 3])
    raised, stopping = stub.expect_failure(phase)
    assert stopping.error is not None
    assert stopping.error.startswith("ValueError: ")
    assert raised.frames[0].function == phase
    code_, out, err = stub.end()
    assert code_ == 1
    assert out.splitlines()[-1] == f"stop: {phase} ended with {stopping.error} True"
    assert err == raised.traceback


def test_a_constructor_that_fails_leaves_nothing_to_stop(controller: Any) -> None:
    code = CALLS.format(a="") + "    def __init__(self): 1 / 0\n"
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states("loaded")
    stub.expect_failure("init")
    assert stub.end()[:2] == (1, "")


def test_a_stop_that_fails(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="import svcd\nclass W(svcd.Service):\n  async def stop(self, reason): 1 / 0")
    stub.expect_states(*UP)
    stub.stop()
    assert stub.expect_states("stopping").error is None
    assert stub.expect(ExceptionRaised).phase == "stop"
    assert stub.end()[0] == 1


def test_a_second_stop_joins_the_first(controller: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    code = STARTS.format(gate=str(gate), end="pass").replace("def start(self)", "def stop(self, reason)", 1)
    code = code[: code.rindex("    async def stop")]
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.stop("one")
    stub.expect_states("stopping")
    stub.stop("two")
    stub.tell(Ping(7))
    stub.expect(Pong)
    gate.touch()
    assert stub.end()[:2] == (0, "start\n")


def test_a_stop_that_hangs_is_left_to_the_controller(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="import svcd, time\nclass W(svcd.Service):\n  def stop(self, reason): time.sleep(3600)")
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    stub.tell(Ping(7))
    stub.expect(Pong)  # the stub itself still answers
    os.killpg(stub.process.pid, signal.SIGKILL)
    assert stub.end()[0] == -signal.SIGKILL


# ---- ends by itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "code", "error"),
    [
        ("self.ctx.stop()", 0, None),
        ("self.ctx.stop('out of bread')", 1, "out of bread"),
        ("self.fail(ValueError('no bread'))", 1, "ValueError: no bread"),
    ],
)
def test_a_service_stops_by_itself(controller: Any, call: str, code: int, error: str | None) -> None:
    source = f"""
import asyncio, svcd
class Web(svcd.Service):
    async def start(self):
        asyncio.get_running_loop().call_later(0.01, lambda: {call})
    async def stop(self, reason): print("stop:", reason)
"""
    stub = controller.spawn()
    stub.run(code=source)
    stub.expect_states(*UP)
    if "ValueError" in call:
        stopping = stub.expect_failure("run")[1]
    else:
        stopping = stub.expect_states("stopping")
    assert stopping.error == error
    ended = stub.end()
    assert ended[:2] == (code, "stop: it asked for it\n")
    assert (error or "") in ended[2]


def test_sigterm_from_outside_is_a_graceful_stop(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code=CALLS.format(a="async "))
    stub.expect_states(*UP)
    os.kill(stub.process.pid, signal.SIGINT)
    os.kill(stub.process.pid, signal.SIGTERM)
    stub.expect_states("stopping")
    code, out, err = stub.end()
    assert (code, out.splitlines()[-1], err) == (0, "stop: SIGTERM True", "")


def test_sigint_does_nothing(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code=CALLS.format(a="async "))
    stub.expect_states(*UP)
    os.kill(stub.process.pid, signal.SIGINT)
    stub.tell(Ping(7))
    stub.expect(Pong)
    stub.stops_well()


def test_what_a_service_forks_or_executes_dies_of_sigterm(controller: Any) -> None:
    code = """
import os, signal, subprocess
def main(ctx):
    pid = os.fork()
    if pid == 0:
        print(signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT).__name__, flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    print(subprocess.run(["sh", "-c", "kill -TERM $$"]).returncode)
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP, "stopping")
    out = stub.end()[1].splitlines()
    assert out[0].endswith("default_int_handler")
    assert ("SIG_DFL" in out[0] or out[0].startswith("0 "), out[1]) == (True, "-15")


@pytest.mark.parametrize(
    ("raised", "code", "error"),
    [
        ("SystemExit", 0, None),
        ("SystemExit(0)", 0, None),
        ("SystemExit(3)", 3, "SystemExit: 3"),
        ("SystemExit('bye')", 1, "SystemExit: bye"),
        ("KeyboardInterrupt", 130, "KeyboardInterrupt"),
    ],
)
@pytest.mark.parametrize("kind", ["", "async "], ids=["sync", "async"])
def test_exits_of_user_code_have_their_code(
    controller: Any, raised: str, code: int, error: str | None, kind: str
) -> None:
    stub = controller.spawn()
    stub.run(code=f"{kind}def main(ctx): raise {raised}")
    assert stub.expect_states(*UP, "stopping").error == error
    ended = stub.end()
    assert ended[0] == code
    assert ended[2] == ("bye\n" if "bye" in raised else "")


def test_an_exit_in_a_background_task_stops_in_order(controller: Any) -> None:
    code = """
import asyncio, svcd
class Web(svcd.Service):
    async def start(self):
        self.task = asyncio.create_task(self.leave())
    async def leave(self):
        await asyncio.sleep(0.01)
        raise SystemExit(4)
    async def stop(self, reason): print("stop")
"""
    stub = controller.spawn()
    stub.run(code=code)
    assert stub.expect_states(*UP, "stopping").error == "SystemExit: 4"
    assert stub.end()[:2] == (4, "stop\n")


def test_cancelling_every_task_there_is_hurts_only_its_own(controller: Any) -> None:
    code = """
import asyncio, svcd
class Web(svcd.Service):
    async def start(self):
        self.task = asyncio.create_task(self.cancel())
    async def cancel(self):
        for task in asyncio.all_tasks(): task.cancel()
    async def stop(self, reason): print("stop")
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.tell(Ping(7))
    stub.expect(Pong)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end()[:2] == (0, "stop\n")


def test_leftover_tasks_are_cancelled(controller: Any) -> None:
    code = """
import asyncio, svcd
class Web(svcd.Service):
    async def start(self): self.task = asyncio.create_task(self.work())
    async def work(self):
        try: await asyncio.sleep(3600)
        except asyncio.CancelledError: print("cancelled")
    async def stop(self, reason): print("stop")
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end()[:2] == (0, "stop\ncancelled\n")


# ---- orders that are not for it ------------------------------------------------------------------------------------


def test_garbage_and_foreign_orders_are_ignored(controller: Any) -> None:
    stub = controller.spawn()
    stub.ready()
    for frames in ([b"", b"\xc1garbage"], [b"only one"], [b"", b"a", b"b"], [b"", b""]):
        controller.router.send_multipart([stub.route, *frames])
    stub.tell(ServiceSpec("web", 8, code="1/0"), Stop(8, "foreign"), Ping(8))
    stub.tell(StatusReported("shop", 1, "running", 1, "/", (), ()))
    stub.tell(ServiceSpec("web", 7, code=CALLS.format(a="")), Init(7), Start(7))
    stub.expect_states(*UP)
    stub.tell(ServiceSpec("web", 7, code="1/0"), Init(7), Start(7), Ping(7))
    stub.expect(Pong)
    stub.stop()
    stub.expect_states("stopping")
    code, out, err = stub.end()
    assert code == 0
    assert out.count("init") == 1
    assert len([line for line in err.splitlines() if line.startswith("svcd: ignored ")]) == 4
