"""What services do to each other when they die, stand still, block or flood: only they, and who asked them, notice.

Must not test what one process can show by itself: tests/worker does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import psutil
import pytest
from acting import LOADS, Play
from clusters import wait_until
from stage import Stage

from svcd.protocol import call_wire, zmtp
from svcd.protocol.call_wire import Call

MIB = 1024 * 1024
SHOP = """
class Hostile(Exception):
    def __repr__(self):
        raise RuntimeError("no words")
    __str__ = __repr__

@dataclasses.dataclass
class Deep:
    found: list[memoryview]

class Billing(Actor):
    @rpc
    async def wait(self) -> str:
        await self.hold()
        return "done"

    @rpc
    async def hello(self, value=None) -> str:
        self.begun += 1
        return "hello"

    @rpc
    async def history(self) -> AsyncIterator[int]:
        try:
            for number in range(10**9):
                yield number
        finally:
            self.ended.append("history")

    @rpc
    async def fails(self) -> None:
        raise Hostile

    @rpc
    async def blocks(self) -> None:
        os.close(os.open("blocked", os.O_CREAT))
        time.sleep(1000)

    @rpc
    async def huge(self) -> memoryview:
        return memoryview(mmap.mmap(-1, 1 << 30))

class Stubborn(Billing):
    async def stop(self, reason):
        print("stopping", flush=True)
        await asyncio.Event().wait()

class Blocked(Billing):
    async def stop(self, reason):
        print("stopping", flush=True)
        time.sleep(1000)

class Web(Actor):
    @rpc
    async def read(self) -> None:
        async for _ in self.ctx.stream("billing.history"):
            self.begun += 1

    @on_event("billing.charged")
    async def charged(self, event: object) -> None:
        self.begun += 1
        if self.gate.is_set():
            return
        await self.gate.wait()
"""
TWO = "billing: {ACT %s}\nweb: {ACT Web, permissions: {services: [billing]}}"
LONG = "await ctx.call('billing.wait', timeout=3000)"


def large(count: int, mib: int) -> str:
    """So many buffers of that size, which cost nothing before they are read."""
    return f"[memoryview(mmap.mmap(-1, {mib} << 20)) for _ in range({count})]"


class Measured:
    """How much more memory these have had at any moment since than they have now."""

    def __init__(self, stage: Stage, *services: str) -> None:
        self._before: dict[int, int] = {}
        for pid in map(stage.pid_of, services):
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): the peak is measured anew
            self._before[pid] = _peak_bytes(pid)

    def most_bytes(self) -> int:
        return max(_peak_bytes(pid) - before for pid, before in self._before.items())


def _peak_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024


def rss_bytes(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def wait_notice(stage: Stage, service: str, text: str) -> None:
    def is_given() -> bool:
        stage.read_events(0.1)
        return any(text in each for each in stage.notices(service))

    wait_until(is_given, text)


def test_a_callee_that_is_killed_is_an_error_at_once(stage: Stage) -> None:
    """Not at the deadline, which is in an hour; and who comes next is asked when it is there."""
    play = Play(stage, SHOP, TWO % "Billing")
    calls = [play.begin("web", LONG) for _ in range(3)]
    play.wait("billing", "self.begun", 3)
    stage.crash("billing")
    for each in calls:
        failed = each.failure()
        assert failed.kind == "ServiceUnavailable"
        assert failed.text.startswith("billing was lost before billing.wait had ended"), failed.text
    assert play.ask("web", "await ctx.call('billing.hello', wait=60)") == "hello"


def test_a_caller_that_is_killed_has_its_streams_closed(stage: Stage) -> None:
    play = Play(stage, SHOP, TWO % "Billing" + "\nfront: {ACT Web, depends_on: [web]}")
    play.begin("front", "await ctx.call('web.read', timeout=3000)")
    play.wait("web", "self.begun > 100")
    assert play.ask("billing", "self.ended") == []
    stage.crash("web")
    play.wait("billing", "self.ended", ["history"])
    play.wait("billing", "ctx.in_flight.count", 0)


def test_a_callee_that_stands_still_holds_nobody_and_nothing_piles_up(stage: Stage) -> None:
    play = Play(stage, SHOP, TWO % "Billing")
    assert play.ask("web", "await ctx.call('billing.hello')") == "hello"
    pid = stage.pid_of("billing")
    os.kill(pid, signal.SIGSTOP)
    try:
        failed = play.failure("web", "await ctx.call('billing.hello', timeout=0.2)")
        assert failed.kind == "DeadlineExceeded"
        words = """
            async def ask():
                try:
                    await ctx.call("billing.hello", "x" * 1000, timeout=0.05)
                except (DeadlineExceeded, ServiceUnavailable) as error:
                    return type(error).__name__
            found = set()
            for _ in range(%d):
                found |= set(await asyncio.gather(*[ask() for _ in range(500)]))
            result = sorted(found)
        """
        assert play.ask("web", words % 10) == ["DeadlineExceeded"]
        tasks = play.ask("web", "len(asyncio.all_tasks())")
        grown = []  # with each 20 MB that are asked; what may wait to go out is full sooner or later, and then no more
        while not grown or grown[-1] > 4 * MIB:
            assert len(grown) < 6, grown
            before = rss_bytes(stage.pid_of("web"))
            assert play.ask("web", words % 40) == ["DeadlineExceeded"]
            grown.append(rss_bytes(stage.pid_of("web")) - before)
        play.wait("web", "len(asyncio.all_tasks())", tasks)
        links = "list(ctx._joined._caller._links.values())"
        play.wait("web", f"sum(len(each.pending) for each in {links})", 0)
        assert play.ask("web", f"sum(len(each._wire._queue) for each in {links})") < 3000
    finally:
        os.kill(pid, signal.SIGCONT)
    assert play.ask("web", "await ctx.call('billing.hello', timeout=60)") == "hello"
    play.wait("billing", "ctx.in_flight.count", 0)
    assert stage.row("billing").pid == pid


@pytest.mark.parametrize(
    "how",
    [
        f"{large(1, 1024)}[0]",
        large(4, 256),
        f"{{'a': {large(2, 512)}}}",
        f"[[[[{large(20, 64)}]]]]",
        f"Deep({large(2, 512)})",
    ],
)
def test_a_call_of_a_gibibyte_is_refused_before_memory_is_spent(stage: Stage, how: str) -> None:
    play = Play(stage, SHOP, TWO % "Billing")
    assert play.ask("web", "await ctx.call('billing.hello')") == "hello"
    measured = Measured(stage, "web", "billing")
    failed = play.failure("web", f"await ctx.call('billing.hello', {how})")
    assert failed.kind == "CallRefused", failed
    assert "at most 268435456 travel in one call" in failed.text, failed.text
    assert measured.most_bytes() < 16 * MIB
    assert play.ask("billing", "self.begun") == 1


def test_a_text_of_a_gibibyte_is_not_copied(stage: Stage) -> None:
    play = Play(stage, SHOP, TWO % "Billing")
    play.ask("web", "setattr(self, 'text', 'x' * (1 << 30))")
    for how in ("self.text", "value={'a': [1, (self.text,)]}"):
        measured = Measured(stage, "web")
        failed = play.failure("web", f"await ctx.call('billing.hello', {how})")
        assert failed.kind == "CallRefused", failed
        assert "1073741824 bytes beside large buffers" in failed.text
        assert measured.most_bytes() < 16 * MIB


def test_an_answer_of_a_gibibyte_is_refused_before_memory_is_spent(stage: Stage) -> None:
    play = Play(stage, SHOP, TWO % "Billing")
    measured = Measured(stage, "web", "billing")
    failed = play.failure("web", "await ctx.call('billing.huge')")
    assert failed.kind == "RemoteError"
    assert "too large to travel in one piece" in failed.text
    assert measured.most_bytes() < 16 * MIB


def test_a_gibibyte_from_who_keeps_to_no_limit_is_let_pass_unkept(stage: Stage) -> None:
    """A client of its own making sends it all: it is read and dropped, answered, and the next call is served."""
    play = Play(stage, SHOP, TWO % "Billing")
    address = play.ask("web", "ctx._joined._routes.known('billing')[0].calls")
    measured = Measured(stage, "billing")
    with socket.socket(socket.AF_UNIX) as hostile:
        hostile.settimeout(60)
        hostile.connect(address)
        hostile.sendall(zmtp.hello(b"DEALER"))
        head = call_wire.encode(Call(1, "hello", None, 0))
        hostile.sendall(bytes([1, len(head)]) + head + b"\x02" + (1 << 30).to_bytes(8))
        block = bytes(MIB)
        for _ in range(1024):
            hostile.sendall(block)
        answer = b""
        while b"bytes or more" not in answer:
            more = hostile.recv(65536)
            assert more, answer
            answer += more
    assert measured.most_bytes() < 16 * MIB
    assert play.ask("web", "await ctx.call('billing.hello')") == "hello"


def test_an_exception_without_words_is_an_answer_all_the_same(stage: Stage) -> None:
    play = Play(stage, SHOP, TWO % "Billing")
    failed = play.failure("web", "await ctx.call('billing.fails')")
    assert failed.kind == "RemoteError"
    assert failed.text.startswith("billing.fails raised Hostile"), failed.text
    assert play.ask("web", "await ctx.call('billing.hello')") == "hello"
    stage.tells()


def test_a_service_that_blocks_its_loop_is_found_out_by_its_watchdog(stage: Stage) -> None:
    play = Play(
        stage, SHOP, "billing: {ACT Billing, watchdog: 500ms}\nweb: {ACT Web, permissions: {services: [billing]}}"
    )
    waiting = play.begin("web", LONG)
    play.wait("billing", "self.begun", 1)
    blocking = play.begin("web", "await ctx.call('billing.blocks', timeout=3000)")
    for each in (waiting, blocking):
        failed = each.failure()
        assert failed.kind == "ServiceUnavailable"
        assert "was lost before" in failed.text
    assert play.ask("web", "await ctx.call('billing.hello', wait=60)") == "hello"
    steps = stage.tells(f"billing: running → stopping → {LOADS}")
    assert "watchdog" in steps[0].cause, steps[0].cause


@pytest.mark.parametrize("name", ["Stubborn", "Blocked"])
def test_a_stop_that_never_returns_is_killed_and_its_callers_are_told(stage: Stage, name: str) -> None:
    play = Play(
        stage,
        SHOP,
        f"billing: {{ACT {name}, stop: {{drain_timeout: 100ms, timeout: 300ms}}}}\n"
        "web: {ACT Web, permissions: {services: [billing]}}",
    )
    call = play.begin("web", LONG)
    play.wait("billing", "self.begun", 1)
    order = stage.order("stop", "billing")
    failed = call.failure()
    assert failed.kind == "ServiceUnavailable"
    assert order.outcome() == "done"
    steps = stage.tells("billing: running → draining → stopping → stopped")
    assert "killed" in steps[-1].cause, steps[-1].cause


def test_a_service_that_blocks_its_loop_while_it_drains_is_not_waited_for(stage: Stage) -> None:
    play = Play(
        stage,
        SHOP,
        "billing: {ACT Billing, stop: {drain_timeout: 100ms, timeout: 100ms}}\n"
        "web: {ACT Web, permissions: {services: [billing]}}",
    )
    call = play.begin("web", LONG)
    play.wait("billing", "self.begun", 1)
    blocking = play.begin("web", "await ctx.call('billing.blocks', timeout=3000)")
    wait_until((stage.directory / "blocked").exists, "it to block")
    order = stage.order("stop", "billing")
    assert {each.failure().kind for each in (call, blocking)} == {"ServiceUnavailable"}
    assert order.outcome() == "done"
    stage.tells("billing: running → draining → stopping → stopped")


def test_a_subscriber_that_does_not_read_costs_a_bounded_queue_and_is_counted(stage: Stage) -> None:
    play = Play(stage, SHOP, TWO % "Billing")
    play.wait_heard("billing")
    play.ask("billing", "ctx.publish('charged', 0)")
    play.wait("web", "self.begun", 1)
    web, billing = stage.pid_of("web"), stage.pid_of("billing")
    os.kill(web, signal.SIGSTOP)
    try:
        words = """
            for number in range(5000):
                ctx.publish("charged", "x" * 10000)
                if number % 100 == 0:
                    await asyncio.sleep(0)
        """
        play.ask("billing", words)
        measured = Measured(stage, "billing")
        for _ in range(3):
            play.ask("billing", words)
        assert measured.most_bytes() < 16 * MIB
        dropped = play.ask("billing", "ctx._joined.publisher.dropped")
        assert dropped >= 15_000
        stage.wait_status(lambda _: stage.row("billing").events_lost == dropped, "the losses to be told")
    finally:
        os.kill(web, signal.SIGCONT)
    wait_notice(stage, "billing", "events lost for web, which does not keep up")
    rows = json.loads(stage.svcd("status", "--json").out)["services"]
    assert rows[0]["events_lost"] >= 15_000
    assert "events lost" in stage.svcd("status", "billing").out
    assert (stage.pid_of("billing"), stage.pid_of("web")) == (billing, web)


def test_a_method_that_does_not_keep_up_loses_its_own_events_counted(stage: Stage) -> None:
    play = Play(stage, SHOP, TWO % "Billing")
    play.wait_heard("billing")
    play.ask("billing", "ctx.publish('charged', 0)")
    play.wait("web", "self.begun", 1)
    words = """
        (web,) = ctx._joined.publisher.subscribers
        for number in range(3000):
            ctx.publish("charged", 0)
            while not web._queue[-1].begun:  # it travels: what is lost is lost by who hears it
                await asyncio.sleep(0)
        result = ctx._joined.publisher.dropped
    """
    assert play.ask("billing", words) == 0
    stage.wait_status(lambda _: stage.row("web").events_lost > 1000, "the losses to be told")
    wait_notice(stage, "web", "events of billing lost: its methods do not keep up")
