"""Services that call each other: what travels, who may, and to whom of several (design 5).

Must not test the engine of calls by itself: tests/worker does. Here is what the controller has a part in.
"""

from __future__ import annotations

from collections import Counter

from acting import LOADS, Play
from clusters import wait_until
from stage import Stage
from traces import together

SHOP = """
class Billing(Actor):
    async def start(self):
        await super().start()
        self.served = 0

    @rpc
    async def charge(self, user: str, cents: int) -> dict[str, int]:
        self.served += 1
        self.ctx.publish("charged", {"user": user, "by": self.ctx.request.caller})
        return {user: cents}

    @rpc
    def plain(self, cents: int) -> int:
        return cents + 1

    @rpc
    async def history(self, count: int) -> AsyncIterator[int]:
        try:
            for number in range(count):
                yield number
        finally:
            self.ended.append("history")

    @rpc
    async def wait(self) -> str:
        self.served += 1
        await self.hold()
        return self.ctx.name

    @rpc
    async def deadline(self) -> float:
        return self.ctx.request.deadline_s - asyncio.get_running_loop().time()

    @rpc
    async def passes_on(self, method: str):
        return await self.ctx.call(method)

class Web(Actor):
    @on_event("billing.charged")
    async def charged(self, event: dict[str, str]) -> None:
        self.heard.append(event)

class Other(Actor):
    @rpc
    async def hello(self) -> str:
        return "hello"

    @rpc
    async def wait(self) -> None:
        await self.hold()
"""


def test_calls_proxies_streams_and_events(stage: Stage) -> None:
    play = Play(stage, SHOP, "billing: {ACT Billing}\nweb: {ACT Web, depends_on: [billing]}")
    play.wait_heard("billing")
    assert play.ask("web", "await ctx.call('billing.charge', user='ann', cents=5)") == {"ann": 5}
    assert play.ask("web", "await ctx.service(Billing).charge(user='bob', cents=7)") == {"bob": 7}
    assert play.ask("web", "await asyncio.to_thread(ctx.call_sync, 'billing.plain', 41)") == 42
    assert play.ask("web", "[each async for each in ctx.stream('billing.history', count=100)]") == list(range(100))
    play.wait("web", "[each['user'] for each in self.heard]", ["ann", "bob"])
    assert play.ask("web", "self.heard[0]['by']") == "web"
    play.wait("billing", "ctx.in_flight.count", 0)


def test_who_is_neither_depended_on_nor_permitted_cannot_be_called(stage: Stage) -> None:
    play = Play(
        stage,
        SHOP,
        "billing: {ACT Billing}\nweb: {ACT Web, depends_on: [billing]}\n"
        "other: {ACT Other, permissions: {services: [web]}}",
    )
    failed = play.failure("web", "await ctx.call('other.hello')")
    assert (failed.kind, failed.text) == (
        "PermissionDenied",
        "cannot call other: it is neither in depends_on nor in permissions.services",
    )
    failed = play.failure("web", "await ctx.lookup('other', start=True)")
    assert failed.kind == "PermissionDenied"
    failed = play.failure("other", "await ctx.call('web.hello')")
    assert (failed.kind, failed.text) == (
        "ServiceUnavailable",
        "cannot call web: it takes no calls: none of its methods is marked with @rpc",
    )


def test_the_callee_asks_who_knocks_whatever_the_caller_believes(stage: Stage) -> None:
    """A service that makes its own connection is found out by its pid, and told why it gets no answer."""
    play = Play(stage, SHOP, "billing: {ACT Billing}\nweb: {ACT Web, depends_on: [billing]}\nother: {ACT Other}")
    address = play.ask("web", "ctx._joined._routes.known('billing')[0].calls")
    words = f"""
        from svcd.worker_runtime.calls.routes import Address
        ctx._joined._routes.set_route("billing", (Address({address!r}),))
        result = await ctx.call("billing.charge", "eve", 1)
    """
    failed = play.failure("other", words)
    assert (failed.kind, failed.text) == (
        "PermissionDenied",
        "cannot call billing: other neither depends on it nor has the permission",
    )
    assert play.ask("billing", "self.served") == 0


def test_a_child_process_of_a_service_calls_in_its_name(stage: Stage) -> None:
    """What a service has forked knocks with a pid of its own: it is the service's all the same."""
    play = Play(
        stage,
        SHOP,
        "billing: {ACT Billing}\nweb: {ACT Web, depends_on: [billing]}\nother: {ACT Other}",
    )
    address = play.ask("web", "ctx._joined._routes.known('billing')[0].calls")
    script = f"""
import asyncio
from svcd.worker_runtime.calls.peers import Peers
from svcd.worker_runtime.calls.routes import Address, Routes
async def main():
    routes = Routes()
    routes.set_route("billing", (Address({address!r}),))
    try:
        print(await Peers("x", routes).call("billing.charge", "ann", 1))
    except Exception as error:
        print(type(error).__name__)
asyncio.run(main())
"""
    words = f"""
        import subprocess, sys
        environ = {{**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}}
        run = lambda: subprocess.run([sys.executable, "-c", {script!r}], env=environ, capture_output=True, text=True)
        done = await asyncio.to_thread(run)
        result = done.stdout + done.stderr
    """
    assert play.ask("web", words) == "{'ann': 1}\n"
    assert play.ask("other", words) == "PermissionDenied\n"


def test_instances_are_balanced_by_what_is_in_flight(stage: Stage) -> None:
    play = Play(stage, SHOP, "billing: {ACT Billing, instances: 3}\nweb: {ACT Web, depends_on: [billing]}")
    calls = [play.begin("web", "await ctx.call('billing.wait')") for _ in range(6)]
    names = [f"billing.{number}" for number in range(3)]
    for name in names:
        play.wait(name, "self.begun", 2)
    play.ask(names[0], "self.gate.set()")
    play.wait(names[0], "len(self.ended)", 2)
    more = [play.begin("web", "await ctx.call('billing.wait')") for _ in range(2)]
    assert [each.end() for each in more] == [names[0]] * 2
    for name in names[1:]:
        play.ask(name, "self.gate.set()")
    assert Counter(each.end() for each in calls) == dict.fromkeys(names, 2)


def test_the_route_follows_a_restart_and_a_crash(stage: Stage) -> None:
    play = Play(
        stage,
        SHOP,
        "billing: {ACT Billing}\nweb: {ACT Web, permissions: {services: [billing]}}",
    )
    pid = "await ctx.call('billing.charge', 'ann', 1, wait=60)"
    assert play.ask("web", pid) == {"ann": 1}
    stage.does("restart", "billing")
    stage.tells(
        "billing: running → draining → stopping → waiting → loading → loaded → initialized → starting → running"
    )
    assert play.ask("web", pid) == {"ann": 1}
    stage.crash("billing")
    stage.tells("billing: running → waiting → loading → loaded → initialized → starting → running")
    assert play.ask("web", pid) == {"ann": 1}


def test_who_waits_is_served_when_it_comes_and_who_does_not_is_told(stage: Stage) -> None:
    play = Play(
        stage, SHOP, "billing: {ACT Billing, start: manual}\nweb: {ACT Web, permissions: {services: [billing]}}"
    )
    failed = play.failure("web", "await ctx.call('billing.charge', 'ann', 1)")
    assert (failed.kind, failed.text) == ("ServiceUnavailable", "cannot call billing: it is unloaded: registered")
    waiting = [play.begin("web", "await ctx.call('billing.charge', 'ann', 1, wait=60)") for _ in range(5)]
    play.wait("web", "len(ctx._joined._routes._waiting['billing'])", 5)
    stage.tells()
    stage.does("start", "billing")
    assert [each.end() for each in waiting] == [{"ann": 1}] * 5
    stage.does("stop", "billing")
    failed = play.failure("web", "await ctx.call('billing.charge', 'ann', 1, wait=0.05)")
    assert failed.kind == "ServiceUnavailable"
    assert failed.text.startswith("cannot call billing: it is stopped: ")


def test_lookups_share_one_start(stage: Stage) -> None:
    """Two services look it up, each many times at once: it starts once, with what it requires."""
    play = Play(
        stage,
        SHOP,
        """
        db: {start: manual}
        billing: {ACT Billing, start: manual, depends_on: [db]}
        web: {ACT Web, permissions: {services: [billing]}}
        other: {ACT Other, permissions: {services: [billing]}}
        """,
    )
    words = "[await each for each in [asyncio.ensure_future(ctx.lookup('billing', start=True)) for _ in range(20)]]"
    asked = [play.begin(name, f"len({words})") for name in ("web", "other")]
    assert [each.end() for each in asked] == [20, 20]
    stage.tells(
        together("db: unloaded → waiting", "billing: unloaded → waiting"),
        "db: waiting → starting → running",
        f"billing: {LOADS}",
    )
    assert play.ask("web", "await (await ctx.lookup(Billing)).charge('ann', 1)") == {"ann": 1}


def test_a_lookup_of_what_cannot_start_says_why(stage: Stage) -> None:
    play = Play(
        stage,
        SHOP,
        """
        db: {start: manual, command: "exit 3", ready: {delay: 1h, timeout: 2h}, restart: {policy: never}}
        billing: {ACT Billing, start: manual, depends_on: [db]}
        web: {ACT Web, permissions: {services: [billing]}}
        """,
    )
    failed = play.failure("web", "await ctx.lookup('billing', start=True)")
    assert failed.kind == "ServiceUnavailable"
    assert "db" in failed.text, failed.text
    stage.wait_state("db", "failed")


def test_a_call_starts_what_starts_on_demand(stage: Stage) -> None:
    play = Play(
        stage,
        SHOP,
        "billing: {ACT Billing, start: on_demand}\nweb: {ACT Web, permissions: {services: [billing]}}\n"
        "other: {ACT Other, permissions: {services: [billing]}}",
    )
    stage.tells()
    asked = [play.begin(name, "await ctx.call('billing.charge', 'ann', 1)") for name in ("web", "other", "web")]
    assert [each.end() for each in asked] == [{"ann": 1}] * 3
    steps = stage.tells(f"billing: unloaded → {LOADS}")
    assert steps[0].cause in ("on demand: called by web", "on demand: called by other")


def test_a_stop_by_name_is_not_overruled_by_calls(stage: Stage) -> None:
    play = Play(
        stage, SHOP, "billing: {ACT Billing, start: on_demand}\nweb: {ACT Web, permissions: {services: [billing]}}"
    )
    assert play.ask("web", "await ctx.call('billing.charge', 'ann', 1)") == {"ann": 1}
    stage.does("stop", "billing")
    stage.tells(f"billing: unloaded → {LOADS} → draining → stopping → stopped")
    failed = play.failure("web", "await ctx.call('billing.charge', 'ann', 1)")
    assert failed.kind == "ServiceUnavailable"
    assert failed.text.startswith("cannot call billing: it is stopped"), failed.text
    stage.tells()
    assert play.ask("web", "(await ctx.lookup('billing', start=True)) and 1") == 1  # that asks by name
    stage.tells(f"billing: stopped → {LOADS}")


def test_one_that_fails_on_demand_fails_who_called(stage: Stage) -> None:
    code = (
        SHOP
        + """
class Broken(Other):
    async def start(self):
        raise RuntimeError("no luck")
"""
    )
    play = Play(
        stage,
        code,
        "broken: {ACT Broken, start: on_demand, restart: {policy: never}}\n"
        "web: {ACT Web, permissions: {services: [broken]}}",
    )
    failed = play.failure("web", "await ctx.call('broken.hello')")
    assert failed.kind == "ServiceUnavailable"
    assert "no luck" in failed.text
    stage.wait_state("broken", "failed")


def test_a_fallback_takes_the_calls(stage: Stage) -> None:
    play = Play(
        stage,
        SHOP,
        """
        billing: {ACT Billing, fallback: spare, restart: {policy: never}}
        spare: {ACT Billing, start: manual}
        web: {ACT Web, permissions: {services: [billing]}}
        """,
    )
    play.ask("billing", "self.gate.set()")
    assert play.ask("web", "await ctx.call('billing.wait')") == "billing"
    stage.crash("billing")
    stage.wait_state("spare", "running")
    play.ask("spare", "self.gate.set()")
    assert play.ask("web", "await ctx.call('billing.wait', wait=60)") == "spare"
    stage.does("start", "billing")
    play.ask("billing", "self.gate.set()")
    wait_until(lambda: play.ask("web", "await ctx.call('billing.wait', wait=60)") == "billing", "the way back")
    stage.wait_state("spare", "stopped")


def test_a_paused_service_takes_no_requests_and_comes_back(stage: Stage) -> None:
    play = Play(stage, SHOP, "billing: {ACT Billing}\nweb: {ACT Web, permissions: {services: [billing]}}")
    under_way = play.begin("web", "await ctx.call('billing.wait')")
    play.wait("billing", "self.begun", 1)
    stage.does("pause", "billing")
    failed = play.failure("web", "await ctx.call('billing.plain', 1)")
    assert failed.kind == "ServiceUnavailable"
    assert "paused" in failed.text
    play.ask("billing", "self.gate.set()")
    assert under_way.end() == "billing"
    waiting = play.begin("web", "await ctx.call('billing.plain', 1, wait=60)")
    play.wait("web", "len(ctx._joined._routes._waiting['billing'])", 1)
    stage.does("resume", "billing")
    assert waiting.end() == 2
    stage.tells("billing: running → paused → running")


def test_deadlines_reach_through_nested_calls(stage: Stage) -> None:
    play = Play(
        stage,
        SHOP,
        """
        last: {ACT Billing}
        middle: {ACT Billing, depends_on: [last]}
        web: {ACT Web, depends_on: [middle]}
        """,
    )
    left = play.ask("web", "await ctx.call('middle.passes_on', 'last.deadline', timeout=25)")
    assert 0 < left <= 25, "and not the 30 s of who says nothing"
    timeout = 0.3
    while not play.ask("last", "self.begun"):  # who is slow may not get there in time
        failed = play.failure("web", f"await ctx.call('middle.passes_on', 'last.wait', timeout={timeout})")
        assert failed.kind == "DeadlineExceeded"
        timeout *= 2
    play.wait("last", "set(self.ended) == {'cancelled'} and len(self.ended) == self.begun")
    play.wait("middle", "ctx.in_flight.count", 0)


def test_a_cancelled_caller_cancels_the_callee_two_hops_away(stage: Stage) -> None:
    play = Play(
        stage,
        SHOP,
        """
        last: {ACT Billing}
        middle: {ACT Billing, depends_on: [last]}
        web: {ACT Web, depends_on: [middle]}
        """,
    )
    call = play.begin("web", "await ctx.call('middle.passes_on', 'last.wait')")
    play.wait("last", "self.begun", 1)
    call.cancel()
    play.wait("last", "self.ended", ["cancelled"])
    for name in ("middle", "last"):
        play.wait(name, "ctx.in_flight.count", 0)


def test_a_permission_that_is_applied_holds_at_once_and_so_does_its_removal(stage: Stage) -> None:
    services = "billing: {ACT Billing}\nweb: {ACT Web%s}"
    play = Play(stage, SHOP, services % "")
    words = "await ctx.call('billing.charge', 'ann', 1)"
    assert play.failure("web", words).kind == "PermissionDenied"
    pid = stage.pid_of("web")
    play.apply(services % ", permissions: {services: [billing]}")
    assert play.ask("web", words) == {"ann": 1}
    play.apply(services % "")
    assert play.failure("web", words).kind == "PermissionDenied"
    assert stage.pid_of("web") == pid
    stage.tells()
    play.wait("billing", "len(ctx._joined.offered.callers)", 0)


def test_who_may_not_call_any_more_is_put_out_with_what_it_has_under_way(stage: Stage) -> None:
    """A stream, a call and a subscription, on connections that there are; another caller is left alone."""
    services = "billing: {ACT Billing}\nother: {ACT Web, permissions: {services: [billing]}}\nweb: {ACT Web%s}"
    play = Play(stage, SHOP, services % ", permissions: {services: [billing]}")
    play.wait_heard("billing", 2)
    call = play.begin("web", "await ctx.call('billing.wait', timeout=600)")
    theirs = play.begin("other", "await ctx.call('billing.wait', timeout=600)")
    play.ask("web", "setattr(self, 'rows', ctx.stream('billing.history', 10_000))")
    assert play.ask("web", "await anext(self.rows)") == 0
    play.wait("billing", "self.begun", 2)
    play.apply(services % "")
    failed = call.failure()
    assert failed.kind == "PermissionDenied"
    assert failed.text == "cannot call billing: web neither depends on it nor has the permission"
    assert play.failure("web", "[each async for each in self.rows]").kind == "PermissionDenied"
    play.wait("billing", "(len(ctx._joined.offered.callers), len(ctx._joined.publisher.subscribers))", [1, 1])
    play.wait("billing", "sorted(self.ended)", ["cancelled", "history"])
    play.ask("billing", "self.gate.set()")
    assert theirs.end() == "billing"
