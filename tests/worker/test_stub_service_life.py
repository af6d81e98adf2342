"""A service is a Startable: its states, its parts, what it watches, who is told of its stop and when.

Must not test what a Startable does by itself: test_startable.py and its neighbours do.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from svcd import Context, Service, StateError
from svcd.protocol.messages import ExceptionRaised
from svcd.worker_runtime.flags import Stopping

UP = ("loaded", "initialized", "starting", "running")

PARTS = """
import asyncio, signal, svcd

class Part(svcd.Startable):
    def __init__(self, name, fails=""):
        self.name, self.fails = name, fails
    async def raw_start(self):
        print("+", self.name)
        if self.fails == "start": raise OSError("no " + self.name)
    async def raw_stop(self, error):
        print("-", self.name, repr(error))
        if self.fails == "stop": raise OSError("stuck " + self.name)

def on_signal(call, *args):
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, call, *args)
"""

BREAKS = (
    PARTS
    + """
class Web(svcd.Service):
    async def start(self):
        self.db, self.cache = Part("db"), Part("cache")
        await self.start_part(self.db)
        await self.start_part(self.cache)
        on_signal(self.break_it)
    def break_it(self):
        print(self.state.value, self.ended.done())
        self.db.stop(ConnectionError("gone"))
        print(self.state.value, self.ctx.stopping.is_set(), repr(self.ended.error), self.cache.state.value)
    async def stop(self, reason):
        print("stop:", reason, self.state.value)
"""
)


def test_a_part_that_breaks_takes_the_service_with_it_in_the_same_tick(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code=BREAKS)
    stub.expect_states(*UP)
    os.kill(stub.process.pid, signal.SIGUSR1)
    raised, stopping = stub.expect_failure("run")
    assert (raised.message, stopping.error) == ("gone", "ConnectionError: gone")
    code, out, _ = stub.end()
    assert code == 1
    lines = out.splitlines()
    assert lines[:4] == ["+ db", "+ cache", "started False", "stopping True ConnectionError('gone') started"]
    by_itself = ["- db ConnectionError('gone')", "stop: it broke: ConnectionError: gone stopping"]
    assert sorted(lines[4:6]) == by_itself, "at the same time: nobody waits for what has broken"
    assert lines[6:] == ["- cache None"]


def test_a_stop_stops_the_parts_after_the_service_in_reverse(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code=BREAKS)
    stub.expect_states(*UP)
    stub.stops_well_with("+ db\n+ cache\nstop: asked stopping\n- cache None\n- db None\n")


def test_its_states(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(
        code="""
import svcd
class Web(svcd.Service):
    def __init__(self): print("made", self.state.value)
    def init(self, config): print("init", self.state.value)
    def start(self): print("start", self.state.value)
    def look(self): print("look", self.ctx.life.state.value)
    def stop(self, reason): print("stop", self.state.value, self.ended.done())
"""
    )
    stub.expect_states(*UP)
    stub.asks("look")
    stub.stops_well_with("made starting\ninit starting\nstart starting\nlook started\nstop stopping True\n")


@pytest.mark.parametrize("step", ["init(self, config)", "start(self)"])
def test_a_part_that_cannot_start_is_one_failed_start(controller: Any, step: str) -> None:
    """Told by its hook and raised out of ``start_part``: one failure, one record. What was started before stops."""
    code = f"""
class Web(svcd.Service):
    async def {step}:
        await self.start_part(Part("db"))
        await self.start_part(Part("cache", "start"))
    async def stop(self, reason): print("stop:", reason)
"""
    stub = controller.spawn()
    stub.run(code=PARTS + code)
    phase = step.partition("(")[0]
    stub.expect_states(*UP[: 1 if phase == "init" else 3])
    assert stub.expect_failure(phase)[0].message == "no cache"
    code_, out, err = stub.end()
    assert (code_, err.count("Traceback")) == (1, 1)
    assert out.splitlines() == [
        "+ db",
        "+ cache",
        "- cache OSError('no cache')",
        "stop: it broke: OSError: no cache",
        "- db None",
    ]


def test_a_failure_that_its_start_has_wrapped_is_one_failure(controller: Any) -> None:
    code = """
class Web(svcd.Service):
    async def start(self):
        try: await self.start_part(Part("cache", "start"))
        except OSError as error: raise RuntimeError("cannot open the shop") from error
"""
    stub = controller.spawn()
    stub.run(code=PARTS + code)
    stub.expect_states(*UP[:3])
    raised, stopping = stub.expect_failure("start")
    assert stopping.error == "RuntimeError: cannot open the shop"
    assert "no cache" in raised.traceback
    assert stub.end()[0] == 1


def test_a_part_that_does_not_stop_well_is_a_failed_stop(controller: Any) -> None:
    code = """
class Web(svcd.Service):
    async def start(self):
        await self.start_part(Part("db"))
        await self.start_part(Part("cache", "stop"))
"""
    stub = controller.spawn()
    stub.run(code=PARTS + code)
    stub.expect_states(*UP)
    stub.stop()
    assert stub.expect_states("stopping").error is None
    raised = stub.expect(ExceptionRaised)
    assert (raised.phase, raised.message) == ("stop", "stuck cache")
    assert stub.end()[:2] == (1, "+ db\n+ cache\n- cache None\n- db None\n")


def test_what_is_watched_stops_the_service_and_not_the_other_way(controller: Any) -> None:
    code = """
class Web(svcd.Service):
    async def start(self):
        self.clock = Part("clock")
        await self.clock.start()
        await self.watch(self.clock)
        on_signal(self.clock.stop)
    async def stop(self, reason):
        print("stop:", reason, self.clock.state.value)
        await self.clock.stop()
"""
    stub = controller.spawn()
    stub.run(code=PARTS + code)
    stub.expect_states(*UP)
    os.kill(stub.process.pid, signal.SIGUSR1)
    assert stub.expect_states("stopping").error is None
    code_, out, _ = stub.end()
    assert (code_, sorted(out.splitlines())) == (0, ["+ clock", "- clock None", "stop: it asked for it stopping"])

    other = controller.spawn(invocation=8)
    other.run(code=PARTS + code)
    other.expect_states(*UP)
    other.stops_well_with("+ clock\nstop: asked started\n- clock None\n")


def test_a_function_has_parts_as_well(controller: Any) -> None:
    code = """
async def main(ctx):
    part = Part("db")
    await ctx.life.start_part(part)
    on_signal(part.stop, ConnectionError("gone"))
    print("up", flush=True)
    await ctx.stopping.wait_async()
    print("stops", ctx.life.state.value)
"""
    stub = controller.spawn()
    stub.run(code=PARTS + code)
    stub.expect_states(*UP)
    assert [stub.line(), stub.line()] == ["+ db\n", "up\n"]
    os.kill(stub.process.pid, signal.SIGUSR1)
    stub.expect_failure("run")
    code_, out, _ = stub.end()
    assert code_ == 1
    assert sorted(out.splitlines()) == ["- db ConnectionError('gone')", "stops stopping"]


GUARDED = """
import asyncio, svcd
class Web(svcd.Service):
    def __init__(self):
        self.state, self.ended = {"open": True}, None
    async def init(self, config): await self.say()
    async def say(self):
        try: print(await self.served(), self.state)
        except svcd.StateError as error: print(error)
    @svcd.guarded(svcd.State.STARTED)
    async def served(self): return "served"
    async def look(self): await self.say()
    async def stop(self, reason): await self.say()
"""


def test_guarded_methods_go_by_its_life_and_its_own_names_stay_free(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code=GUARDED)
    stub.expect_states(*UP)
    stub.asks("look")
    stub.stops_well_with(
        "cannot call served() of Web: it is starting, not started\n"
        "served {'open': True}\n"
        "cannot call served() of Web: it is stopping, not started\n"
    )


def test_a_task_group_spans_start_and_stop(controller: Any) -> None:
    code = """
import asyncio, svcd
class Web(svcd.Service):
    async def start(self):
        self.group = await asyncio.TaskGroup().__aenter__()
        self.group.create_task(self.work())
    async def work(self):
        await self.ctx.stopping.wait_async()
        print("worked")
    async def stop(self, reason):
        await self.group.__aexit__(None, None, None)
        print("all done")
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.stops_well_with("worked\nall done\n")


def test_on_the_loop_it_stops_itself_at_the_call(controller: Any) -> None:
    code = (
        PARTS
        + """
class Web(svcd.Service):
    async def start(self): on_signal(self.leave)
    def leave(self):
        self.ctx.stop(ValueError("one"))
        print(self.state.value, self.ended.error, self.ctx.stopping.is_set())
        self.ctx.life.stop(ValueError("two"))
        print(self.ended.error, self.ctx.life.errors)
"""
    )
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    os.kill(stub.process.pid, signal.SIGUSR1)
    assert stub.expect_failure("run")[0].message == "one"
    assert stub.end()[:2] == (1, "stopping one True\none (ValueError('one'), ValueError('two'))\n")


def test_an_error_while_it_starts_is_why_it_stops(controller: Any) -> None:
    code = """
import svcd
class Web(svcd.Service):
    async def start(self):
        self.ctx.stop(ValueError("not today"))
        print(self.state.value, self.ctx.stopping.is_set())
    async def stop(self, reason): print(self.state.value, reason)
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP[:3])
    assert stub.expect_failure("run")[0].message == "not today"
    assert stub.end()[:2] == (1, "starting True\nstopping it asked for it\n")


def test_an_exit_that_says_that_all_is_well_is_no_error(controller: Any) -> None:
    code = """
import sys, svcd
class Web(svcd.Service):
    async def start(self): sys.exit(0)
    async def stop(self, reason): print(self.ended.error)
"""
    stub = controller.spawn()
    stub.run(code=code)
    assert stub.expect_states(*UP[:3], "stopping").error is None
    assert stub.end() == (0, "None\n", "")


def test_from_a_thread_parts_cannot_be_started(controller: Any) -> None:
    code = PARTS + 'class Web(svcd.Service):\n  def start(self): self.start_part(Part("db"))'
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP[:3])
    raised, _ = stub.expect_failure("start")
    assert raised.message == "cannot start Part: no event loop runs in this thread"
    assert stub.end()[0] == 1


def test_outside_of_a_stub_there_is_no_life() -> None:
    ctx = Context("web", "shop", 0, 1, {}, Stopping(), lambda error: None)
    with pytest.raises(StateError, match="web has no life: it does not run in a stub"):
        _ = ctx.life
    with pytest.raises(TypeError, match="cannot stop web with int: say why in words, or an exception"):
        ctx.stop(5)  # type: ignore[arg-type]  # on purpose
    assert repr(Service.state)


@pytest.mark.parametrize("what", ["self.ended", "self.ctx.life.stop()", "self.ctx.life.start()"])
@pytest.mark.parametrize("step", ["init(self, config)", "start(self)"])
def test_waiting_for_itself_is_refused(controller: Any, what: str, step: str) -> None:
    stub = controller.spawn()
    stub.run(code=f"import svcd\nclass Web(svcd.Service):\n  async def {step}: await {what}")
    phase = step.partition("(")[0]
    stub.expect_states(*UP[: 1 if phase == "init" else 3])
    assert "cannot wait for" in stub.expect_failure(phase)[0].message
    assert stub.end()[0] == 1


def test_nothing_comes_between_the_end_of_its_start_and_started(controller: Any) -> None:
    """Else what it has begun in its start, and what breaks at once, would find it starting still."""
    code = """
import asyncio, svcd
class Web(svcd.Service):
    async def start(self): self.task = asyncio.create_task(self.work())
    async def work(self):
        print(self.state.value)
        self.ctx.stop()
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP, "stopping")
    assert stub.end() == (0, "started\n", "")


@pytest.mark.parametrize("kind", ["", "async "], ids=["sync", "async"])
@pytest.mark.parametrize("more", ["", "self.ctx.stop(ValueError('no'))", "self.ctx.stop('no')"])
def test_who_is_done_in_its_start_was_up(controller: Any, kind: str, more: str) -> None:
    """A plain method's wish comes from a thread, before the end of its start is known."""
    stub = controller.spawn()
    code = f"""
import svcd
class Web(svcd.Service):
    {kind}def start(self): self.ctx.stop(); {more or "pass"}
"""
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.wait_stopping()
    assert stub.end()[0] == (1 if more else 0)
