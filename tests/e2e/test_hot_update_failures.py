"""Hot updates that fail, at every step: the old one goes on as if nothing had happened, and the reason is told.

Must not test what succeeds (test_hot_update does).
"""

from __future__ import annotations

import os
import signal

import pytest
from acting import Play
from clusters import is_alive, wait_until
from stage import Command, Stage

from svcd.supervisor.config import plan as plans
from svcd.supervisor.config.launch import PythonCode

TILLS = """
import threading

class Tills(Actor):
    def init(self, config):
        self.handled, self.rests, self.bad = 0, [], ""

    @rpc
    async def charge(self, cents: int) -> int:
        self.handled += 1
        return self.handled

    @rpc
    async def wait(self) -> int:
        await self.hold()
        return self.handled

    def pause(self):
        if self.bad == "pause":
            raise OSError("cannot rest")
        self.rests.append("pause")

    def resume(self):
        self.rests.append("resume")

    async def stop(self, reason):
        await super().stop(reason)
        if self.bad == "stop":
            await asyncio.sleep(1000)

    async def export_state(self):
        if self.bad == "export":
            raise KeyError("no such till")
        if self.bad == "hang":
            await asyncio.sleep(1000)
        return {"handled": self.handled, **({"lock": threading.Lock()} if self.bad == "lock" else {})}

    def import_state(self, state):
        self.handled = state["handled"]

class BadConstructor(Tills):
    def __init__(self):
        raise ValueError("not to be made")

class BadInit(Tills):
    def init(self, config):
        raise ValueError("bad init")

class HangingInit(Tills):
    async def init(self, config):
        await asyncio.sleep(1000)

class BadImport(Tills):
    def import_state(self, state):
        raise ValueError("no such state")

class BadStart(Tills):
    async def start(self):
        raise ValueError("bad start")

class HangingStart(Tills):
    async def start(self):
        await asyncio.sleep(1000)

class Exits(Tills):
    async def start(self):
        os._exit(3)

class Incompatible(Tills):
    @rpc
    async def charge(self, dollars: int) -> int:
        return 0

class HangingStop(HangingStart):
    async def stop(self, reason):
        await asyncio.sleep(1000)

class SlowInit(Tills):
    async def init(self, config):
        await asyncio.sleep(1000)

class SlowStart(Tills):
    async def start(self):
        await asyncio.sleep(1000)

class Caller(Actor):
    pass
"""
KEYS = "stop: {timeout: 1s, drain_timeout: 500ms}"
SERVICES = f"till: {{ACT Tills, {KEYS}}}\ncaller: {{ACT Caller, depends_on: [till]}}"
GOES_ON = "; the one before goes on"


def up(stage: Stage) -> Play:
    play = Play(stage, TILLS, SERVICES)
    assert play.ask("caller", "await ctx.call('till.charge', cents=1)") == 1
    return play


def goes_on(play: Play, pid: int, handled: int, transitions: bool = False) -> None:
    """The old one serves, alone; it was never anything but running, and a restart would bring it back."""
    stage = play.stage
    row = stage.row("till")
    assert (row.pid, row.state, row.restarts) == (pid, "running", 0)
    assert play.ask("caller", "await ctx.call('till.charge', cents=1)") == handled + 1
    wait_until(lambda: stage.processes("till") == [pid], "its process to be the only one")
    assert {*stage.causes("till")[-1:]} <= {"ready"}  # of steps that were heard: the first may come before we listen
    (code,) = (each.launch.run for each in plans.from_json(stage.configuration().encode()).services[:1])
    assert isinstance(code, PythonCode)
    assert code.entry == "app:Tills"


def update(stage: Stage, entry: str, *options: str) -> str:
    """Why that came to nothing."""
    outcome = stage.svcd("update", "till", "--python", entry, *options, code=3)
    assert outcome.out.startswith("1. update  till  ")
    first = outcome.err.splitlines()[0]
    assert first.startswith("svcd: cannot update till: "), outcome.err
    return first.removeprefix("svcd: cannot update till: ")


BAD_VERSIONS = {
    "nowhere:Tills": "the new version failed (loading): ModuleNotFoundError: No module named 'nowhere'",
    "app:Nothing": "the new version failed (loading): ",
    "app:BadConstructor": "the new version failed (",
    "app:BadInit": "the new version failed (init()): ValueError: bad init",
    "app:BadImport": "the new version failed (start()): ValueError: no such state",
    "app:BadStart": "the new version failed (start()): ValueError: bad start",
    "app:Exits": "the new version ended (start()): exit code 3",
    "app:Incompatible": "the new version is not compatible: charge() has no parameter cents any more; charge() needs "
    "dollars (--force updates all the same)",
}


def test_new_versions_that_fail(stage: Stage) -> None:
    play = up(stage)
    pid = stage.pid_of("till")
    for handled, (entry, why) in enumerate(BAD_VERSIONS.items(), 1):
        said = update(stage, entry)
        assert said.startswith(why), said
        assert said.endswith(GOES_ON)
        goes_on(play, pid, handled)
        assert play.ask("till", "self.rests") in ([], ["pause", "resume"])
        play.ask("till", "self.rests.clear()")
        assert stage.row("till").cause == f"ready; not updated: {said.removesuffix(GOES_ON)}"
    stage.tells()  # not one transition; and all notices have come
    assert len([each for each in stage.notices("till") if each.startswith("cannot update till: ")]) == len(BAD_VERSIONS)
    stage.svcd("restart", "till")  # and no failed version comes in by it
    assert play.ask("caller", "await ctx.call('till.charge', cents=1)") == 1


@pytest.mark.parametrize(
    ("entry", "step"), [("HangingInit", "init()"), ("HangingStart", "start()"), ("HangingStop", "start()")]
)
def test_new_versions_that_hang(stage: Stage, entry: str, step: str) -> None:
    play = Play(stage, TILLS, SERVICES.replace("ACT Tills", "ACT Tills, ready: {timeout: 2s}"))
    pid = stage.pid_of("till")
    why = f"the new version was not ready within 2 s ({step})"
    assert update(stage, f"app:{entry}") == why + GOES_ON
    goes_on(play, pid, 0)
    assert stage.row("till").cause == f"ready; not updated: {why}"
    stage.tells()


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("pause", "pause() failed: OSError: cannot rest"),
        ("export", "export_state() failed: KeyError: 'no such till'"),
        ("hang", "it has not finished its requests, rested and exported its state within 10.5 s"),
    ],
)
def test_an_old_one_that_cannot_hand_over(stage: Stage, bad: str, why: str) -> None:
    play = up(stage)
    pid = stage.pid_of("till")
    play.ask("till", f"self.bad = {bad!r}")
    said = update(stage, "app:Tills", "--version", "2")
    assert why in said
    goes_on(play, pid, 1)


def test_requests_that_do_not_end(stage: Stage) -> None:
    """They are not cut off for an update that has failed because of them."""
    play = up(stage)
    pid = stage.pid_of("till")
    waiting = play.begin("caller", "await ctx.call('till.wait', timeout=60)")
    play.wait("till", "self.begun", 1)
    assert update(stage, "app:Tills", "--version", "2") == f"1 request not finished within 0.5 s{GOES_ON}"
    goes_on(play, pid, 1)
    play.ask("till", "self.gate.set()")
    assert waiting.end() == 2


# ---- killed, or overtaken, at a step ---------------------------------------------------------------------------------

STEPS = {
    "loading": "slow:Tills",
    "init()": "app:SlowInit",
    "start()": "app:SlowStart",
    "the old one finishes its requests": "app:Tills",
}
STEADY = """
till: {ACT Tills, stop: {timeout: 500ms, drain_timeout: 1m}}
web: {ACT Caller, depends_on: [till]}
caller: {ACT Caller, permissions: {services: [till]}}
"""


def reach(stage: Stage, step: str) -> tuple[Play, Command, int, int]:
    """An update that is in the middle of this step; with the pids of both versions."""
    stage.write("import time; time.sleep(1000)", "slow.py")
    play = Play(stage, TILLS, STEADY)
    old = stage.pid_of("till")
    if step.startswith("the old one"):
        play.begin("caller", "await ctx.call('till.wait', timeout=60)")
        play.wait("till", "self.begun", 1)
    command = stage.command("update", "till", "--python", STEPS[step], "--version", "2")
    stage.wait_status(lambda _: stage.row("till").cause == f"being updated: {step}", f"the update to be at {step}")
    new: int
    (new,) = wait_until(lambda: {*stage.processes("till")} - {old}, "the new one to have a process")
    stage.skip()
    return play, command, old, new


def let_go(play: Play, step: str) -> None:
    """What the old one finishes at this step, if it is that, is over now: nobody waits for the end of its drain."""
    if step.startswith("the old one"):
        play.begin("till", "self.gate.set()")


def ends(command: Command) -> str:
    code, err = command.wait()
    assert code == 3
    return err.splitlines()[0].removeprefix("svcd: cannot update till: ")


@pytest.mark.parametrize("step", STEPS)
def test_the_new_one_is_killed(stage: Stage, step: str) -> None:
    play, command, old, new = reach(stage, step)
    os.kill(new, signal.SIGKILL)
    assert ends(command) == f"the new version ended ({step}): signal SIGKILL{GOES_ON}"
    play.ask("till", "self.gate.set()")
    goes_on(play, old, play.ask("till", "self.handled"))
    stage.tells()


@pytest.mark.parametrize("step", STEPS)
def test_the_old_one_is_killed(stage: Stage, step: str) -> None:
    """Then it is as after any crash: it comes back as it was, and once."""
    _play, command, old, new = reach(stage, step)
    invocation, web = stage.row("till").invocation, stage.row("web").invocation
    os.kill(old, signal.SIGKILL)
    assert "superseded" in ends(command)
    row = stage.wait_state("till", "running", after=invocation)
    stage.wait_state("web", "running", after=web)
    assert not is_alive(new)
    assert row.restarts == 1
    assert row.pid is not None
    wait_until(lambda: stage.processes("till") == [row.pid], "its process to be the only one")


@pytest.mark.parametrize("step", STEPS)
def test_a_stop_in_the_middle(stage: Stage, step: str) -> None:
    play, command, old, new = reach(stage, step)
    stop = stage.order("stop", "till")
    let_go(play, step)
    assert "superseded" in ends(command)
    assert stop.outcome() == "done"
    assert stage.states()["till"] == "stopped"
    assert not is_alive(old)
    assert not is_alive(new)


@pytest.mark.parametrize("step", STEPS)
def test_a_restart_in_the_middle(stage: Stage, step: str) -> None:
    play, command, old, new = reach(stage, step)
    restart = stage.order("restart", "till")
    let_go(play, step)
    assert "superseded" in ends(command)
    assert restart.outcome() == "done"
    row = stage.row("till")
    assert (row.state, row.version) == ("running", None)
    assert row.pid not in (old, new)
    assert stage.processes("till") == [row.pid]


@pytest.mark.parametrize("step", STEPS)
def test_a_shutdown_in_the_middle(stage: Stage, step: str) -> None:
    play, command, _old, _new = reach(stage, step)
    assert stage.process is not None
    stage.process.terminate()
    stage.wait_cluster("stopping")
    let_go(play, step)
    assert stage.wait_end() == 0
    assert command.wait()[0] != 0


def retiring(stage: Stage) -> tuple[Play, Command, int, int]:
    """An update whose new version serves, and whose old one does not end before it is killed."""
    play = Play(stage, TILLS, STEADY.replace("500ms", "1h"))
    old = stage.pid_of("till")
    play.ask("till", "self.bad = 'stop'")
    command = stage.command("update", "till", "--version", "2")
    cause = "being updated: retiring the old one"
    stage.wait_status(lambda _: stage.row("till").cause == cause, "the switch")
    stage.skip()
    return play, command, old, stage.pid_of("till")


def test_the_old_one_is_killed_when_it_is_not_the_service_any_more(stage: Stage) -> None:
    play, command, old, new = retiring(stage)
    os.kill(old, signal.SIGKILL)
    assert command.wait() == (0, "")
    assert play.ask("caller", "await ctx.call('till.charge', cents=1)") == 1
    assert stage.pid_of("till") == new
    stage.tells()


def test_the_new_one_is_killed_when_it_is_the_service(stage: Stage) -> None:
    """That is a crash of the new version, which comes back when nothing is left of the old one."""
    _play, command, old, new = retiring(stage)
    invocation = stage.row("till").invocation
    os.kill(new, signal.SIGKILL)
    stage.wait_status(lambda _: stage.row("till").state != "running", "the crash")
    os.kill(old, signal.SIGKILL)
    assert command.wait() == (0, "")
    row = stage.wait_state("till", "running", after=invocation)
    assert row.version == "2"
    assert not is_alive(old)
    assert stage.processes("till") == [row.pid]


def test_a_stop_while_the_old_one_is_retired(stage: Stage) -> None:
    _play, command, old, new = retiring(stage)
    stop = stage.order("stop", "till")
    wait_until(lambda: not is_alive(new), "the new one to end")
    os.kill(old, signal.SIGKILL)
    assert stop.outcome() == "done"
    assert not is_alive(old)
    assert command.wait() == (0, "")


def test_a_change_of_its_configuration_in_the_middle(stage: Stage) -> None:
    play, command, old, new = reach(stage, "start()")
    play.apply(STEADY.replace("ACT Tills", "ACT Tills, env: {A: b}"))
    assert "superseded" in ends(command)
    row = stage.row("till")
    assert row.pid not in (old, new)
    assert stage.processes("till") == [row.pid]
