"""``ctx.compute()``, ``ctx.blocking()`` and ``svcd.current_context()`` in real stub processes, from start to end."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from svcd.protocol.messages import ExceptionRaised
from svcd.worker_runtime.computing.runtime_settings import BadRuntime, RuntimeSettings

UP = ("loaded", "initialized", "starting", "running")
KINDS = pytest.mark.parametrize("compute", ["threads", "processes"])


def wait_for_file(path: Path, stub: Any) -> str:
    while not path.exists():
        assert stub.process.poll() is None, stub.output_so_far()
        threading.Event().wait(0.005)
    return path.read_text()


def wait_gone(pid: int) -> None:
    """Until that process has ended; who has adopted it may take its time to reap it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 30)[0], "it lives on"
    finally:
        os.close(descriptor)


WORK = """
import os, threading
from svcd import Service, current_context

def work(number, service):
    ctx = current_context()
    return f"{ctx.name} {ctx.config['factor'] * number} {threading.current_thread().name} {os.getpid() == service}"

class Web(Service):
    async def start(self):
        print(await self.ctx.compute(work, 3, service=os.getpid()))
        print(await self.ctx.blocking(work, 4, service=os.getpid()))
    def stop(self, reason):
        print(self.ctx.compute_sync(work, 5, os.getpid()), current_context() is self.ctx)
"""


@pytest.mark.parametrize(("compute", "name"), [("threads", "crunch-0 True"), ("processes", "crunch False")])
@pytest.mark.parametrize("how", ["code", "entry"])
def test_functions_of_a_service_run_where_they_are_told_to(
    controller: Any, tmp_path: Path, compute: str, name: str, how: str
) -> None:
    """Those of a code string and of a module."""
    (tmp_path / "web.py").write_text(WORK)
    names = {"code": WORK} if how == "code" else {"entry": "web:Web", "path": (str(tmp_path),)}
    stub = controller.spawn()
    stub.run(config={"factor": 2}, runtime={"compute": compute, "thread_prefix": "crunch"}, **names)
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, f"web 6 {name}\nweb 8 blocking-0 True\nweb 10 {name} True\n", "")


def test_a_service_may_make_of_its_config_what_it_likes(controller: Any) -> None:
    code = """
import threading
from svcd import Service, current_context
def work(): return current_context().config
class Web(Service):
    async def init(self, config): config["lock"] = threading.Lock()
    async def start(self): print(await self.ctx.compute(work))
"""
    stub = controller.spawn()
    stub.run(code=code, config={"a": 1}, runtime={"compute": "processes"})
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, "{'a': 1}\n", "")


def test_whatever_the_service_calls_svcd_does_not_take_its_place(controller: Any, tmp_path: Path) -> None:
    (tmp_path / "svcd.py").write_text("raise ImportError('not this one')")
    stub = controller.spawn()
    stub.run(code=WORK, path=(str(tmp_path),), config={"factor": 2}, runtime={"compute": "processes"})
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end()[2] == ""


def test_a_segmentation_fault_there_leaves_its_traceback(controller: Any) -> None:
    code = """
import ctypes
from svcd import ComputeError, Service
def work(): ctypes.string_at(0)
class Web(Service):
    async def start(self):
        try: await self.ctx.compute(work)
        except ComputeError as error: print(error)
"""
    stub = controller.spawn()
    stub.run(code=code, runtime={"compute": "processes"})
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    exit_code, out, errors = stub.end()
    assert (exit_code, out) == (0, "cannot compute work(): its process was killed by SIGSEGV\n")
    assert 'File "<code of web>", line 4 in work' in errors


def test_without_compute_threads_the_blocking_ones_compute(controller: Any) -> None:
    code = """
import threading
from svcd import Service
def work(): return threading.current_thread().name
class Web(Service):
    async def start(self):
        print(await self.ctx.compute(work), await self.ctx.blocking(self.ctx.compute_sync, work))
"""
    stub = controller.spawn()
    stub.run(code=code, runtime={"compute_threads": 0, "compute": "processes"})
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, "blocking-0 blocking-0\n", "")


def test_the_context_is_known_in_every_thread_and_not_before(controller: Any) -> None:
    code = """
import threading
from svcd import Service, StateError, current_context
try:
    current_context()
except StateError as error:
    print(error)
class Web(Service):
    def start(self):
        seen = []
        own = threading.Thread(target=lambda: seen.append(current_context() is self.ctx))
        own.start(); own.join()
        print(current_context() is self.ctx, *seen)
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, "no service runs in this process, or its code is only being imported\nTrue True\n", "")


def test_each_way_in_says_which_is_the_right_one(controller: Any) -> None:
    code = """
from svcd import Service, StateError
def words(call, *args):
    try:
        return call(*args)
    except StateError as error:
        return error
class Web(Service):
    async def init(self, config):
        print(words(self.ctx.compute_sync, int))
    def start(self):
        print(words(self.ctx.compute, int))
        print(words(self.ctx.blocking, int))
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end()[1].splitlines() == [
        "ctx.compute_sync() would block the event loop: use 'await ctx.compute()'",
        "ctx.compute() is for coroutines, and no event loop runs here: a thread calls ctx.compute_sync()",
        "ctx.blocking() is for coroutines, and no event loop runs here: a thread calls the function itself",
    ]


@KINDS
def test_what_fails_there_fails_the_service_with_its_traceback(controller: Any, compute: str) -> None:
    code = """
def work(number): raise ValueError(f"no {number}")
async def main(ctx): await ctx.compute(work, 7)
"""
    stub = controller.spawn()
    stub.run(code=code, runtime={"compute": compute})
    stub.expect_states(*UP)
    raised, stopping = stub.expect_failure("run")
    assert stopping.error == "ValueError: no 7"
    assert 'def work(number): raise ValueError(f"no {number}")' in raised.traceback
    assert stub.end()[0] == 1


def test_what_nobody_waits_for_any_more_is_told_when_it_fails(controller: Any) -> None:
    code = """
import asyncio, threading
go = threading.Event()
begun = threading.Event()
def work():
    begun.set(); go.wait(); raise ValueError("too late")
async def main(ctx):
    task = asyncio.create_task(ctx.compute(work))
    await ctx.blocking(begun.wait)
    task.cancel()
    await asyncio.wait({task})
    go.set()
    await ctx.stopping.wait_async()
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    assert stub.expect(ExceptionRaised).message == "too late"
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end()[0] == 0


HANG = """
import asyncio, os, time
def work(path):
    with open(path + ".new", "w") as file: file.write(str(os.getpid()))
    os.rename(path + ".new", path)
    while True: time.sleep(1)
async def main(ctx):
    asyncio.create_task(ctx.compute(work, ctx.config["path"]))
    await ctx.stopping.wait_async()
"""


@pytest.mark.parametrize("how", ["stop", "SIGKILL", "SIGTERM"])
def test_no_process_outlives_the_service(controller: Any, tmp_path: Path, how: str) -> None:
    stub = controller.spawn()
    stub.run(code=HANG, config={"path": str(tmp_path / "pid")}, runtime={"compute": "processes"})
    stub.expect_states(*UP)
    pid = int(wait_for_file(tmp_path / "pid", stub))
    assert os.getpgid(pid) == stub.process.pid  # what is done to all of the service is done to it
    if how == "stop":
        stub.stop()
    else:
        os.kill(stub.process.pid, signal.Signals[how])
    if how != "SIGKILL":
        stub.expect_states("stopping")
    code, _, errors = stub.end()
    assert (code, errors) == (-signal.SIGKILL if how == "SIGKILL" else 0, "")
    wait_gone(pid)


def test_a_thread_that_computes_for_ever_does_not_hold_up_the_end(controller: Any, tmp_path: Path) -> None:
    stub = controller.spawn()
    stub.run(code=HANG, config={"path": str(tmp_path / "pid")})
    stub.expect_states(*UP)
    wait_for_file(tmp_path / "pid", stub)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, "", "svcd: work() still runs, and ends with the process\n")


def test_a_thread_that_comes_to_its_end_is_waited_for(controller: Any, tmp_path: Path) -> None:
    patient = tmp_path / "patient.py"
    patient.write_text(
        "from svcd.worker_runtime.computing import pools\npools.LEFTOVERS_S = 30.0\n"
        "from svcd.worker_runtime.foreign import run\nrun()\n"
    )
    code = """
import asyncio, threading
begun = threading.Event()
def work(ctx):
    begun.set(); ctx.stopping.wait(); print("put away")
async def main(ctx):
    asyncio.create_task(ctx.compute(work, ctx))
    await ctx.blocking(begun.wait)
    ctx.stop()
"""
    stub = controller.spawn([sys.executable, str(patient)])
    stub.run(code=code, stop_timeout_s=300.0)
    stub.expect_states(*UP, "stopping")
    assert stub.end() == (0, "put away\n", "")


# ---- the settings, as they come --------------------------------------------------------------------------------------


def test_settings_that_nothing_can_be_made_by_end_the_stub_in_words(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="async def main(ctx): pass", runtime={"compute_threads": -1})
    code, _, errors = stub.end()
    assert code == 70
    assert errors == "svcd: the stub failed: BadRuntime: cannot use the runtime settings: compute_threads is -1\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("compute", "fibres"),
        ("compute", None),
        ("compute_threads", True),
        ("compute_threads", 257),
        ("max_blocking_threads", 1),
        ("max_blocking_threads", "8"),
        ("stack_size_bytes", 0),
        ("stack_size_bytes", 2**40),
        ("thread_prefix", ""),
        ("thread_prefix", 7),
        ("thread_prefix", "x" * 33),
    ],
)
def test_a_hostile_setting_is_refused(name: str, value: object) -> None:
    with pytest.raises(BadRuntime, match=f"^cannot use the runtime settings: {name} is "):
        RuntimeSettings.read({name: value})


def test_what_a_newer_controller_adds_is_ignored() -> None:
    assert RuntimeSettings.read({"fibres": 3, "compute_threads": 1}) == RuntimeSettings(compute_threads=1)
