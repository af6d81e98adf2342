"""Python services that come when they are called, and go when nobody calls them (on_demand, idle_timeout)."""

from __future__ import annotations

from acting import LOADS, Play
from stage import Stage

DRAINS = "running → draining → stopping → stopped"
SHOP = """
class Billing(Actor):
    @rpc
    async def hello(self) -> int:
        return self.ctx.invocation

    @rpc
    async def wait(self) -> str:
        await self.hold()
        return "done"

class Web(Actor):
    pass
"""
TWO = "billing: {ACT Billing, start: on_demand, idle_timeout: %s}\nweb: {ACT Web, permissions: {services: [billing]}}"


def tells_visits(stage: Stage, invocation: int, came: str = "unloaded") -> None:
    """It has come, been called in this run, and gone. Before that it may have come for the same call and gone again:
    whoever needs longer than the idle timeout to reach it is served by the next one.
    """
    stage.wait_status(
        lambda _: (stage.row("billing").state, stage.row("billing").invocation) == ("stopped", invocation),
        "it to be gone again",
    )
    early = sum(each.line == "billing: stopping → stopped" for each in stage.untold()) - 1
    visit = f"{LOADS} → draining → stopping → stopped"
    steps = stage.tells(f"billing: {came} → {visit}", *[f"billing: stopped → {visit}"] * early)
    assert {each.cause for each in steps if each.new == "stopped"} == {"idle"}
    assert steps[-1].invocation == invocation


def test_it_goes_when_nobody_calls_it_and_comes_again(stage: Stage) -> None:
    play = Play(stage, SHOP, TWO % "200ms")
    first = play.ask("web", "await ctx.call('billing.hello')")
    tells_visits(stage, first)
    assert stage.row("billing").on_demand
    second = play.ask("web", "await ctx.call('billing.hello')")
    assert second > first
    tells_visits(stage, second, came="stopped")


def test_one_that_was_only_looked_up_goes_too(stage: Stage) -> None:
    play = Play(stage, SHOP, TWO % "100ms")
    play.ask("web", "(await ctx.lookup('billing', start=True)) and None")
    stage.tells(f"billing: unloaded → {LOADS}", f"billing: {DRAINS}")


def test_what_was_stopped_by_name_is_not_started_by_calls_and_they_say_so(stage: Stage) -> None:
    """Neither itself, nor what it requires; a person may."""
    two = TWO.replace("start:", "depends_on: [db], start:")
    play = Play(stage, SHOP, two % "100ms" + "\ndb: {command: exec sleep 1000}")
    play.ask("web", "await ctx.call('billing.hello')")
    stage.wait_state("billing", "stopped")
    stage.does("stop", "billing")
    failure = play.failure("web", "await ctx.call('billing.hello')")
    assert (failure.kind, failure.text) == (
        "ServiceUnavailable",
        "cannot call billing: it is stopped: stopped by request",
    )
    stage.does("start", "billing")
    stage.wait_state("billing", "stopped")
    stage.does("stop", "db")
    failure = play.failure("web", "await ctx.call('billing.hello')")
    assert failure.kind == "ServiceUnavailable"
    assert "requires db, which is down (stopped by request)" in failure.text
    assert stage.row("db").state == "stopped"
    stage.does("start", "db")
    assert play.ask("web", "await ctx.call('billing.hello', wait=60)")


def test_a_request_in_flight_keeps_it(stage: Stage) -> None:
    play = Play(
        stage,
        SHOP,
        TWO % "50ms"
        + "\nclock: {command: sleep 0.2, restart: {policy: always, reset_after: 0s, intensity: {restarts: unlimited}}}",
    )
    call = play.begin("web", "await ctx.call('billing.wait', timeout=600)")
    play.wait("billing", "self.begun", 1)
    pid = stage.pid_of("billing")
    for _ in range(3):
        stage.wait_state("clock", "running", after=stage.row("clock").invocation)
    assert stage.pid_of("billing") == pid
    play.ask("billing", "self.gate.set()")
    assert call.end() == "done"
    stage.wait_state("billing", "stopped")


def test_what_something_that_is_up_requires_is_not_idle(stage: Stage) -> None:
    play = Play(
        stage,
        SHOP,
        "billing: {ACT Billing, start: on_demand, idle_timeout: 50ms}\nweb: {ACT Web, depends_on: [billing]}",
    )
    stage.tells()
    pid = stage.pid_of("billing")
    assert play.ask("web", "await ctx.call('billing.hello')")
    assert stage.pid_of("billing") == pid
    stage.does("stop", "web")
    stage.tells("web: running → stopping → stopped", f"billing: {DRAINS}")


def test_calls_that_come_while_it_goes_are_served_by_the_next_run(stage: Stage) -> None:
    """Whatever the moment, not one of them fails: it comes and goes many times meanwhile, but not so often that it is
    taken for one that serves nobody (which is twenty times in two seconds, also where a caller is too late for it).
    """
    play = Play(stage, SHOP, TWO % "20ms")
    words = """
        result = set()
        for number in range(15):
            result.add(await ctx.call("billing.hello", timeout=60))
            await asyncio.sleep((20 + number) / 1000)
        result = len(result)
    """
    assert play.ask("web", words) > 1


def test_another_idle_timeout_holds_at_once(stage: Stage) -> None:
    play = Play(stage, SHOP, TWO % "1h")
    assert play.ask("web", "await ctx.call('billing.hello')")
    pid = stage.pid_of("billing")
    stage.tells(f"billing: unloaded → {LOADS}")
    assert stage.pid_of("billing") == pid
    play.apply(TWO % "100ms")
    stage.tells(f"billing: {DRAINS}")
