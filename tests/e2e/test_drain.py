"""The drain in phases (design 4.5): routes withdrawn, late requests served, then refused, those in flight awaited."""

from __future__ import annotations

import json

import pytest
from acting import DRAINS, LOADS, STOPS, Begun, Play
from clusters import wait_until
from stage import Stage
from traces import together

SHOP = """
class Billing(Actor):
    @rpc
    async def wait(self) -> str:
        await self.hold()
        return "done"

    @rpc
    async def hello(self) -> str:
        return "hello"

    @rpc
    async def will_not_leave(self) -> None:
        for _ in range(2):
            try:
                await self.hold()
            except asyncio.CancelledError:
                pass

    @rpc
    async def until_shut(self) -> str:
        self.begun += 1
        await self.ctx.request.token.wait_async()
        return self.ctx.request.token.reason

    async def stop(self, reason):
        print("stopping", self.ctx.in_flight.count, flush=True)
        await super().stop(reason)

class Front(Actor):
    pass

class Web(Actor):
    @rpc
    async def shop(self) -> str:
        self.begun += 1
        return await self.ctx.call("billing.wait")
"""
TWO = "billing: {ACT Billing, stop: {%s}}\nweb: {ACT Web, permissions: {services: [billing]}}"


def under_way(play: Play, count: int, service: str = "billing") -> list[Begun]:
    """So many calls of web's in flight there."""
    calls = [play.begin("web", f"await ctx.call('{service}.wait', timeout=600)") for _ in range(count)]
    play.wait(service, "self.begun", count)
    return calls


def wait_withdrawn(play: Play) -> None:
    """Until web has heard that billing is not to be found."""
    play.wait("web", "len(ctx._joined._routes.known('billing'))", 0)


def late(play: Play) -> str:
    """What becomes of a request on the connection that web has had: as it is when the news of a route is late."""
    words = """
        from svcd.worker_runtime.calls.link import Pending
        pending = Pending("billing.hello", asyncio.get_running_loop().create_future())
        self.link.begin("hello", [b"\\x92\\x90\\x80"], None, 0, pending)
        try:
            await pending.future
            result = "served"
        except CallError as error:
            result = f"{type(error).__name__}: {error}"
    """
    return str(play.ask("web", words))


def test_what_is_in_flight_is_finished_and_told(stage: Stage) -> None:
    play = Play(stage, SHOP, TWO % "drain_timeout: 1h, timeout: 1h")
    calls = under_way(play, 3)
    order = stage.order("stop", "billing")
    stage.tells("billing: running → draining")
    stage.wait_status(lambda _: stage.row("billing").in_flight == 3, "three in flight")
    assert stage.row("billing").cause == "stopped by request"
    shown = stage.svcd("status", code=None).out
    assert "draining, 3 in flight" in shown, shown
    assert "draining, 3 in flight" in stage.svcd("status", "billing", code=None).out
    rows = json.loads(stage.svcd("status", "--json", code=None).out)["services"]
    assert rows[0]["in_flight"] == 3
    play.ask("billing", "self.gate.set()")
    assert [each.end() for each in calls] == ["done"] * 3
    assert order.outcome() == "done"
    stage.tells("billing: draining → stopping → stopped")
    wait_until(lambda: stage.output("billing") == b"stopping 0\n", "its last word")


def test_late_requests_are_served_for_the_grace_and_then_refused(stage: Stage) -> None:
    play = Play(stage, SHOP, TWO % "drain_grace: 1h, drain_timeout: 1h")
    call = under_way(play, 1)[0]
    play.ask("web", "setattr(self, 'link', next(iter(ctx._joined._caller._links.values())))")
    stage.order("stop", "billing")
    stage.tells("billing: running → draining")
    wait_withdrawn(play)
    failed = play.failure("web", "await ctx.call('billing.hello')")
    assert (failed.kind, failed.text) == (
        "ServiceUnavailable",
        "cannot call billing: it is draining: stopped by request",
    )
    assert late(play) == "served"
    play.ask("billing", "ctx._joined.offered.shut('the grace is over')")
    assert late(play) == "Draining: billing takes no new requests: the grace is over"
    play.ask("billing", "self.gate.set()")
    assert call.end() == "done"
    stage.svcd("shutdown", "--now")
    stage.wait_end()


def test_who_waits_is_served_by_the_next_one(stage: Stage) -> None:
    play = Play(stage, SHOP, TWO % "drain_timeout: 1h, timeout: 1h")
    call = under_way(play, 1)[0]
    order = stage.order("restart", "billing")
    stage.tells("billing: running → draining")
    waiting = play.begin("web", "await ctx.call('billing.hello', wait=60)")
    play.wait("web", "len(ctx._joined._routes._waiting['billing'])", 1)
    play.ask("billing", "self.gate.set()")
    assert call.end() == "done"
    assert order.outcome() == "done"
    assert waiting.end() == "hello"
    stage.tells(f"billing: draining → stopping → {LOADS}")


def test_what_takes_too_long_is_bounded_told_and_its_callers_are(stage: Stage) -> None:
    play = Play(stage, SHOP, TWO % "drain_timeout: 200ms, timeout: 1h")
    calls = under_way(play, 2)
    order = stage.order("stop", "billing")
    for each in calls:
        failed = each.failure()
        assert failed.kind == "ServiceUnavailable"
        assert failed.text.startswith("billing was stopped before it answered: "), failed.text
    assert order.outcome() == "done"
    steps = stage.tells(f"billing: {DRAINS}")
    assert "2 requests not finished within 0.2 s" in steps[-1].cause, [each.cause for each in steps]


def test_who_waits_for_no_end_finds_his_token_cancelled(stage: Stage) -> None:
    """A long poll ends well: the endpoint's token, above its own, is cancelled when the drain begins."""
    play = Play(stage, SHOP, TWO % "drain_timeout: 1h, timeout: 1h")
    call = play.begin("web", "await ctx.call('billing.until_shut')")
    play.wait("billing", "self.begun", 1)
    stage.does("stop", "billing")
    assert call.end() == "stopped by request"
    stage.tells(f"billing: {DRAINS}")


def test_a_shutdown_drains_in_reverse_order(stage: Stage) -> None:
    """Who calls ends first, and what it has asked for ends with it; so does what was asked in the course of that."""
    services = """
        billing: {ACT Billing}
        web: {ACT Web, depends_on: [billing]}
        front: {ACT Front, depends_on: [web, billing]}
    """
    play = Play(stage, SHOP, services)
    play.begin("front", "await ctx.call('web.shop', timeout=600)")
    play.wait("billing", "self.begun", 1)
    stage.drains(f"front: {STOPS}", f"web: {DRAINS}", f"billing: {DRAINS}")


def test_a_shutdown_now_does_not_drain(stage: Stage) -> None:
    play = Play(stage, SHOP, TWO % "drain_timeout: 1h, timeout: 1h")
    under_way(play, 1)
    stage.svcd("shutdown", "--now")
    assert stage.wait_end() == 0
    stage.tells(together(f"billing: {STOPS}", f"web: {DRAINS.replace('draining → ', '')}"))


def test_a_second_signal_ends_the_drain(stage: Stage) -> None:
    services = """
        billing: {ACT Billing, stop: {drain_timeout: 1h, timeout: 1h}}
        web: {ACT Web, depends_on: [billing]}
    """
    play = Play(stage, SHOP, services)
    play.begin("web", "await ctx.call('billing.will_not_leave')")
    play.wait("billing", "self.begun", 1)
    assert stage.process is not None
    stage.process.terminate()
    stage.tells(f"web: {DRAINS}", "billing: running → draining")
    stage.process.terminate()
    assert stage.wait_end() == 0
    stage.tells("billing: draining → stopping → stopped")


ALONE = "billing: {ACT Billing, %s}\nweb: {ACT Web, permissions: {services: [billing]}}"


@pytest.mark.parametrize("how", ["ctx.stop()", "await asyncio.to_thread(ctx.stop)"])
def test_a_service_that_stops_by_itself_is_drained_first(stage: Stage, how: str) -> None:
    """Nobody finds it, new requests are refused, those in flight are finished; only then does it stop."""
    play = Play(stage, SHOP, ALONE % "restart: {policy: never}, stop: {drain_timeout: 1h}")
    (call,) = under_way(play, 1)
    play.ask("billing", how)
    stage.tells("billing: running → draining")
    wait_withdrawn(play)
    failed = play.failure("web", "await ctx.call('billing.hello')")
    assert (failed.kind, "stops by itself" in str(failed)) == ("ServiceUnavailable", True)
    assert play.ask("billing", "ctx.stopping.is_set()") is False
    play.ask("billing", "ctx.stop()")  # again, which changes nothing
    play.ask("billing", "self.gate.set()")
    assert call.end() == "done"
    stage.tells("billing: draining → stopping → completed")
    wait_until(lambda: stage.output("billing") == b"stopping 0\n", "its last word")


def test_a_method_that_stops_its_service_answers(stage: Stage) -> None:
    code = (
        SHOP
        + """
class Leaver(Actor):
    @rpc
    async def leave(self) -> str:
        self.ctx.stop()
        return "bye"
"""
    )
    play = Play(
        stage,
        code,
        "leaver: {ACT Leaver, restart: {policy: never}}\nweb: {ACT Web, permissions: {services: [leaver]}}",
    )
    assert play.ask("web", "await ctx.call('leaver.leave')") == "bye"
    stage.tells("leaver: running → draining → stopping → completed")


def test_what_does_not_end_in_time_is_cut_off_then_too(stage: Stage) -> None:
    play = Play(stage, SHOP, ALONE % "restart: {policy: never}, stop: {drain_timeout: 200ms}")
    (call,) = under_way(play, 1)
    play.ask("billing", "ctx.stop()")
    assert call.failure().kind == "ServiceUnavailable"
    stage.tells("billing: running → draining → stopping → completed")


def test_a_service_that_breaks_does_not_drain(stage: Stage) -> None:
    play = Play(stage, SHOP, ALONE % "restart: {policy: never}")
    (call,) = under_way(play, 1)
    play.begin("billing", "ctx.stop('broken')")
    assert call.failure().kind == "ServiceUnavailable"
    stage.tells("billing: running → stopping → failed")


def test_who_breaks_while_it_drains_stops_at_once(stage: Stage) -> None:
    play = Play(stage, SHOP, ALONE % "restart: {policy: never}, stop: {drain_timeout: 1h}")
    (call,) = under_way(play, 1)
    play.ask("billing", "ctx.stop()")
    stage.tells("billing: running → draining")
    play.begin("billing", "ctx.stop('broken')")
    assert call.failure().kind == "ServiceUnavailable"
    stage.tells("billing: draining → stopping → failed")
    assert stage.causes("billing")[-1] == "broken"


def test_whoever_requires_it_hears_at_the_beginning_of_the_drain(stage: Stage) -> None:
    """And may still ask it while it goes down itself."""
    services = """
        billing: {ACT Billing, restart: {policy: always}, stop: {drain_timeout: 1h}}
        front: {ACT Front, depends_on: [billing]}
        web: {ACT Web, permissions: {services: [billing]}}
    """
    play = Play(stage, SHOP, services)
    call = play.begin("web", "await ctx.call('billing.wait', timeout=600)")
    play.wait("billing", "self.begun", 1)
    play.ask("billing", "ctx.stop()")
    stage.tells(together("billing: running → draining", "front: running → stopping → waiting"))
    play.ask("billing", "self.gate.set()")
    assert call.end() == "done"
    stage.tells(f"billing: draining → stopping → {LOADS}", f"front: {LOADS}")
