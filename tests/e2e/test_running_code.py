"""Runtime settings from the cluster file to the threads and processes of a service, and what is left of these.

Must not test each setting: whole tables of them are tested where they are read.
"""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest
from clusters import is_alive, wait_until
from stage import Stage

WEB = """\
import asyncio, os, threading, time
from svcd import Service, current_context

def work():
    return f"{current_context().name} {threading.current_thread().name}"

def forever():
    while True:
        time.sleep(1)

class Web(Service):
    async def start(self):
        print(await self.ctx.compute(work), flush=True)
        self.task = asyncio.create_task(self.ctx.compute(forever))
"""
KEYS = "command: null, python: 'web:Web'"
RISES = "loading → loaded → initialized → starting → running"


def computing(stage: Stage, service: str = "a") -> psutil.Process:
    """The one compute process of a service, once there is one."""
    (child,) = psutil.Process(stage.pid_of(service)).children()
    return child


def test_settings_come_from_where_they_are_said(stage: Stage) -> None:
    stage.write(WEB, "web.py")
    stage.environ["SVCD_RUNTIME_THREAD_PREFIX"] = "crunch"
    stage.up(f"a: {{{KEYS}}}\nb: {{{KEYS}, env: {{SVCD_RUNTIME_THREAD_PREFIX: own}}, runtime: {{compute_threads: 0}}}}")
    wait_until(lambda: stage.output("a") == b"a crunch-0\n", "its words")
    wait_until(lambda: stage.output("b") == b"b blocking-0\n", "its words")
    del stage.environ["SVCD_RUNTIME_THREAD_PREFIX"]  # what the cluster was started with is what counts
    shown = stage.svcd("config", "--runtime", "a", "b").out
    assert "thread_prefix: crunch  # environment SVCD_RUNTIME_THREAD_PREFIX\n" in shown
    assert "thread_prefix: own  # " in shown


def test_a_change_of_settings_restarts_their_service_alone(stage: Stage) -> None:
    stage.write(WEB, "web.py")
    keys = f"{KEYS}, stop: {{timeout: 1h}}"  # which what computes for ever does not use up
    stage.up(f"a: {{{keys}}}\nb: {{}}")
    file = stage.write_services(f"a: {{{keys}, runtime: {{thread_prefix: other}}}}\nb: {{}}")
    assert stage.svcd("plan", str(file)).out == "1. restart a  runtime changed\n"
    stage.svcd("apply", str(file))
    stage.tells(f"a: running → stopping → waiting → {RISES}")
    wait_until(lambda: stage.output("a") == b"a compute-0\na other-0\n", "its words")


@pytest.mark.parametrize("how", ["stop", "crash"])
@pytest.mark.parametrize("kind", ["forked", "bare environment"])
def test_compute_processes_end_with_their_service(stage: Stage, how: str, kind: str) -> None:
    stage.write(WEB, "web.py")
    own = ""
    if kind != "forked":
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", stage.directory / ".venv"], check=True)
        own = ", interpreter: .venv/bin/python"
    stage.up(f"a: {{{KEYS}{own}, runtime: {{compute: processes, compute_threads: 1, thread_prefix: crunch}}}}")
    process = computing(stage)
    if kind == "forked":
        assert process.cmdline()[0] == "svcd: crunch cluster/a 0"
    if how == "stop":
        stage.svcd("stop", "a")
        stage.tells("a: running → stopping → stopped")
    else:
        before = stage.row("a").invocation
        stage.crash("a")
        stage.wait_state("a", "running", after=before)
        assert computing(stage).pid != process.pid
    assert not is_alive(process.pid)


def test_a_bad_variable_of_svcd_itself_starts_nothing(stage: Stage) -> None:
    stage.environ["SVCD_RUNTIME_COMPUTE_THREADS"] = "many"
    file = stage.write_services("a: {}")
    assert stage.svcd("start", str(file), code=2).err.splitlines()[-1] == (
        'environment SVCD_RUNTIME_COMPUTE_THREADS: must be a whole number, not "many"; use 0 to 256'
    )


FILES = """\
import asyncio, os, time
from svcd import Service, rpc

class Files(Service):
    @rpc
    def wait(self) -> str:
        while not os.path.exists("go"):
            time.sleep(0.01)
        return "went"

    @rpc
    async def read(self) -> int:
        return await self.ctx.blocking(len, "hello")

async def ask(ctx):
    waiting = [asyncio.create_task(ctx.call("files.wait", timeout=60.0)) for _ in range(6)]
    print(await ctx.call("files.read", timeout=60.0), flush=True)
    print(*await asyncio.gather(*waiting), flush=True)
    await ctx.stopping.wait_async()
"""


def test_plain_methods_that_hang_do_not_keep_others_from_their_threads(stage: Stage) -> None:
    stage.write(FILES, "files.py")
    stage.up(
        "files: {command: null, python: 'files:Files', runtime: {max_blocking_threads: 2}}\n"
        "ask: {command: null, python: 'files:ask', depends_on: [files]}"
    )
    wait_until(lambda: stage.output("ask") == b"5\n", "an answer beside those that hang")
    stage.write("", "go")
    wait_until(lambda: stage.output("ask") == b"5\nwent went went went went went\n", "the others")
