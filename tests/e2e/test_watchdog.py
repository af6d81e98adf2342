"""The watchdog: who gives no sign of life is taken for crashed and killed, be it a program or a blocked event loop.

Must not test health checks, which look from outside.
"""

from __future__ import annotations

from clusters import wait_until
from stage import PLAYER, Stage
from traces import starts, together

BLOCKS = """\
from svcd import Service
import asyncio, os, time
class Blocks(Service):
    async def start(self):
        asyncio.get_running_loop().create_task(self.wait())
    async def wait(self):
        while not os.path.exists("block"):
            await asyncio.sleep(0.01)
        os.rename("block", "blocked")
        time.sleep(1000)
"""
COMES_BACK = "waiting → starting → running"


def test_a_program_that_falls_silent(stage: Stage) -> None:
    """It is killed at once: who hangs would not hear of a stop."""
    stage.up("a: {PLAYER deaf beats, watchdog: 500ms, stop: {timeout: 1h}}\nb: {depends_on: [a]}")
    stage.say("a", "silent")
    stage.tells(together(f"a: running → stopping → {COMES_BACK}", "b: running → stopping → waiting"), starts("b"))
    assert any("no sign of life within 0.5 s" in cause for cause in stage.causes("a"))
    assert stage.row("a").restarts == 1


def test_a_program_is_told_of_it(stage: Stage) -> None:
    stage.up('a: {command: "echo $WATCHDOG_USEC $WATCHDOG_PID $$$$; exec sleep 1000", watchdog: 1h, ready: {log: "."}}')
    usec, pid, own = wait_until(lambda: stage.output("a").split(), "its words")
    assert usec == b"3600000000"
    assert pid == own


def test_a_program_that_gives_itself_up(stage: Stage) -> None:
    stage.up("a: {PLAYER, watchdog: 1h}")
    stage.say("a", "notify WATCHDOG=1")
    stage.tells()
    stage.say("a", "notify WATCHDOG=trigger")
    stage.tells(f"a: running → stopping → {COMES_BACK}")


def test_a_loop_that_is_blocked(stage: Stage) -> None:
    stage.write(BLOCKS, "blocks.py")
    stage.up("a: {command: null, python: 'blocks:Blocks', watchdog: 1s, stop: {timeout: 1h}}")
    assert stage.row("a").state == "running"
    stage.write("", "block")
    stage.tells("a: running → stopping → waiting → loading → loaded → initialized → starting → running")
    assert any("no sign of life" in cause for cause in stage.causes("a"))


def test_a_policy_of_its_own_for_this_end(stage: Stage) -> None:
    stage.up("a: {PLAYER, start: manual, watchdog: 100ms, restart: {policy: always, by_cause: {watchdog: never}}}")
    stage.order("start", "a")
    stage.tells(f"a: unloaded → {COMES_BACK} → stopping → failed")


def test_nobody_is_watched_while_paused(stage: Stage) -> None:
    """Another one, that is watched meanwhile, is found out."""
    never = "restart: {by_cause: {watchdog: never}}"
    stage.up(f"a: {{PLAYER beats, watchdog: 500ms, {never}}}\nb: {{PLAYER, start: manual, watchdog: 1s, {never}}}")
    stage.does("pause", "a")
    stage.tells("a: running → paused")
    stage.order("start", "b")
    stage.tells(f"b: unloaded → {COMES_BACK} → stopping → failed")
    stage.does("resume", "a")
    stage.tells("a: paused → running")
    stage.say("a", "silent")
    stage.tells("a: running → stopping → failed")


TURNS = """\
import asyncio, time
from svcd import Service
class Turns(Service):
    async def start(self): asyncio.get_running_loop().call_later(3, lambda: print("still here", flush=True))
def blocks_its_thread(ctx):
    time.sleep(3)
    print("still here", flush=True)
    ctx.stopping.wait()
"""


def test_a_loop_that_turns_is_left_alone(stage: Stage) -> None:
    """Three times as long as a silence would be forgiven; what blocks a thread does not block the loop."""
    stage.write(TURNS, "turns.py")
    stage.up(
        """
        a: {command: null, python: 'turns:Turns', watchdog: 1s}
        b: {command: null, python: 'turns:blocks_its_thread', watchdog: 1s}
        """
    )
    for service in ("a", "b"):
        wait_until(lambda service=service: stage.output(service) == b"still here\n", f"{service} to live on")
    stage.tells()


def test_a_script_speaks_for_itself_like_any_program(stage: Stage) -> None:
    stage.write(PLAYER.read_text().replace("sys.argv[1:]", "['deaf']"), "script.py")
    keys = "command: null, script: script.py, ready: {notify: true}, stop: {timeout: 1h}"
    never = "start: manual, restart: {by_cause: {watchdog: never}}"
    stage.up(f"a: {{{keys}, watchdog: 1h}}\nb: {{{keys}, watchdog: 100ms, {never}}}")
    stage.order("start", "b")
    rises = "waiting → loading → loaded → initialized → starting → running"
    stage.tells(f"b: unloaded → {rises} → stopping → failed")
    stage.say("a", "notify WATCHDOG=trigger")
    stage.tells(f"a: running → stopping → {rises}")
