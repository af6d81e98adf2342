"""Hot updates under load: no request fails or is handled twice, and whoever is not concerned notices nothing.

Must not look into the daemon: what the services have counted, and what callers got, is what counts.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from acting import Play, acts
from clusters import wait_until
from stage import Stage

import svcd

SHOP = """
class Tills(Actor):
    VERSION = 1

    def init(self, config):
        self.handled, self.before = [], 0
        self.paused = 0

    @rpc
    async def charge(self, number: int) -> list[int]:
        await asyncio.sleep(0)
        self.handled.append(number)
        self.ctx.publish("charged", number)
        return [number, os.getpid(), self.VERSION]

    @rpc
    def plain(self, number: int) -> int:
        return number

    @rpc
    async def wait(self) -> int:
        await self.hold()
        return self.VERSION

    @rpc
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number
            if number == 3:
                await self.hold()

    @rpc
    async def alive(self) -> bool:
        return True

    def export_state(self):
        return {"handled": self.handled}

    def import_state(self, state):
        self.handled = state["handled"]
        self.before = len(self.handled)

    @on_event("clock.ticked")
    async def ticked(self, number: int) -> None:
        self.heard.append(number)

class Tills2(Tills):
    VERSION = 2

class Load(Actor):
    async def start(self):
        await super().start()
        self.got, self.errors, self.went = [], [], True
        self.workers = [asyncio.create_task(self.call(i)) for i in range(self.ctx.config.get("workers", 0))]

    async def call(self, first):
        number = first
        while self.went:
            try:
                self.got.append(await self.ctx.call("till.charge", number=number * 1000 + self.ctx.config["base"]))
            except Exception as error:
                self.errors.append(repr(error))
            number += len(self.workers)

    async def finish(self):
        self.went = False
        await asyncio.gather(*self.workers)
        return {"errors": self.errors[:3], "got": [each[0] for each in self.got],
                "versions": sorted({each[2] for each in self.got})}

class Audience(Actor):
    @on_event("till.charged")
    async def charged(self, number: int) -> None:
        self.heard.append(number)

class Clock(Actor):
    pass
"""
STOPS = "stop: {timeout: 1m, drain_timeout: 1m}"  # who is killed at the end of it has not told what it had to tell
TILL = f"ACT Tills, version: '1', {STOPS}"


def callers(*numbers: int) -> str:
    return "\n".join(f"load{n}: {{ACT Load, depends_on: [till], config: {{workers: 8, base: {n}}}}}" for n in numbers)


def finished(play: Play, *numbers: int) -> list[int]:
    """What all callers have got; none of them has seen an error, and both versions have answered each."""
    numbers_got: list[int] = []
    for number in numbers:
        told = play.ask(f"load{number}", "await self.finish()")
        assert told["errors"] == []
        assert told["versions"][-1] == 2
        numbers_got += told["got"]
    return numbers_got


@contextmanager
def outside(stage: Stage, base: int, answered: list[int]) -> Iterator[None]:
    """A program beside the cluster calls all the while; an error is raised at the end."""
    errors: list[BaseException] = []
    is_over = threading.Event()

    def call() -> None:
        try:
            with svcd.Client(run_dir=stage.run_dir) as client:
                for number in range(10**9):
                    if is_over.is_set():
                        return
                    answered.append(client.call("till.charge", number=number * 1000 + base)[0])
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    assert errors == []


def update(stage: Stage, name: str = "till", *options: str) -> str:
    return stage.svcd("update", name, *options).out


def fails(stage: Stage, *arguments: str) -> str:
    """What a command says that comes to nothing."""
    return stage.svcd(*arguments, code=3).err


def test_under_load_nothing_fails_and_nothing_is_handled_twice(stage: Stage) -> None:
    play = Play(stage, SHOP, f"till: {{{TILL}}}\n{callers(1, 2)}")
    answered: list[int] = []
    with outside(stage, 3, answered):
        wait_until(lambda: len(answered) > 20, "the client to be served")
        old = stage.pid_of("till")
        out = update(stage, "till", "--python", "app:Tills2", "--version", "2")
        assert out == "1. update  till  python, version changed; a new version takes over in place\ntill: updated\n"
        count = len(answered)
        wait_until(lambda: len(answered) > count + 20, "the client to be served by the new one")
        for _ in range(3):  # and again, however often
            update(stage)
    row = stage.row("till")
    assert (row.version, row.state, row.cause, row.restarts) == ("2", "running", "ready", 0)
    assert row.pid != old
    got = finished(play, 1, 2) + answered
    handled = play.ask("till", "self.handled")
    assert sorted(handled) == sorted(got)
    assert len(set(handled)) == len(handled)
    assert play.ask("till", "self.before") > 0


def test_what_an_update_was_told_stays_until_it_is_taken_back(stage: Stage) -> None:
    services = f"till: {{{TILL}, config: {{a: 1}}}}\nclock: {{ACT Clock}}"
    play = Play(stage, SHOP, services)
    file = stage.directory / "cluster.yaml"
    config = stage.directory / "other.yaml"
    config.write_text("a: 2\n")

    def stands() -> tuple[object, ...]:
        return tuple(play.ask("till", "[type(self).__name__, ctx.version, ctx.config['a']]"))

    update(stage, "till", "--python", "app:Tills2", "--config", str(config))
    assert stands() == ("Tills2", "1", 2)
    assert "--python app:Tills2 --config … is in force" in update(stage)
    assert stands() == ("Tills2", "1", 2)
    stage.svcd("restart", "till")
    assert stands() == ("Tills2", "1", 2)
    assert "\n# svcd update till --python app:Tills2 --config … is in force\n" in "\n" + stage.svcd("config").out
    assert update(stage, "till", "--reset").startswith("1. update  till  python, config changed;")
    assert stands() == ("Tills", "1", 1)
    update(stage, "till", "--version", "7")
    assert stage.svcd("plan", str(file)).out == "1. restart till  version changed\n"
    stage.svcd("apply", str(file))
    assert stands() == ("Tills", "1", 1)
    assert update(stage).startswith("1. update  till  a new version takes over in place")


# ---- who is connected all the while ----------------------------------------------------------------------------------

BESIDE = "audience: {ACT Audience, depends_on: [till]}\nclock: {ACT Clock}"


def test_streams_and_requests_in_flight_end_on_the_old_one(stage: Stage) -> None:
    play = Play(stage, SHOP, f"till: {{{TILL}}}\n{BESIDE}")
    stage.skip()
    rows = play.begin("audience", "[each async for each in ctx.stream('till.count', to=10)]")
    request = play.begin("audience", "await ctx.call('till.wait', timeout=60)")
    play.wait("till", "self.begun", 2)
    command = stage.command("update", "till", "--python", "app:Tills2", "--version", "2")
    cause = "being updated: the old one finishes its requests"
    stage.wait_status(lambda _: stage.row("till").cause == cause, "the old one to be asked")
    assert stage.row("till").state == "running"
    late = play.begin("audience", "await ctx.call('till.charge', number=7)")
    play.ask("till", "self.gate.set()")
    assert rows.end() == list(range(10))
    assert request.end() == 1
    assert late.end()[2] == 2
    assert command.wait() == (0, "")
    assert stage.row("till").version == "2"
    stage.tells()  # not one transition, of nobody
    (unheard, notice) = stage.notices("till")
    assert unheard == "it hears no events of clock: it is neither in depends_on nor in permissions.services"
    assert notice.startswith("updated: pid ")
    assert "updated: pid " in stage.svcd("why", "till").out
    assert "update of till" in stage.svcd("changes").out


def test_events_before_and_after(stage: Stage) -> None:
    """Who has listened goes on to listen, and so does the service itself."""
    services = f"till: {{{TILL}, depends_on: {{clock: {{kind: wants}}}}}}\n{BESIDE}"
    play = Play(stage, SHOP, services)
    play.wait_heard("till")
    play.wait_heard("clock")
    play.ask("audience", "await ctx.call('till.charge', number=1)")
    play.wait("audience", "self.heard", [1])
    update(stage, "till", "--python", "app:Tills2")
    play.wait_heard("till")
    play.wait_heard("clock")
    play.ask("audience", "await ctx.call('till.charge', number=2)")
    play.wait("audience", "self.heard", [1, 2])
    play.ask("clock", "ctx.publish('ticked', 5)")
    play.wait("till", "self.heard", [5])


@pytest.mark.parametrize("stops", [False, True], ids=["who listens runs", "who listens stands still"])
def test_no_event_of_one_that_is_updated_is_lost(stage: Stage, stops: bool) -> None:
    """Each call is published: what was handled was heard, once, or is told to be lost."""
    play = Play(stage, SHOP, f"till: {{{TILL}}}\n{BESIDE}\n{callers(1, 2)}")
    play.wait_heard("till")
    for version in range(8):
        play.wait("audience", f"len(self.heard) > {version * 20}")
        with standing_still(stage.pid_of("audience")) if stops else nullcontext():
            update(stage, "till", "--version", f"v{version}")
    for number in (1, 2):
        play.ask(f"load{number}", "await self.finish()")
    handled = play.ask("till", "self.handled")
    assert len(handled) > 100
    since = handled.index(play.ask("audience", "self.heard[0]"))  # it began to listen after they had begun to call
    published = len(handled) - since

    def heard_and_lost() -> tuple[int, int]:
        return play.ask("audience", "len(self.heard)"), lost(stage, "till", "audience")

    # these are some ten thousand a second: who is kept from the processor for long finds its queue full, and is told
    wait_until(lambda: sum(heard_and_lost()) >= published, f"{published} events to be heard or told to be lost")
    heard = play.ask("audience", "self.heard")
    assert sum(heard_and_lost()) == published
    assert len(heard) == len(set(heard))
    assert set(heard) <= set(handled)


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def lost(stage: Stage, *services: str) -> int:
    """How many events they say that they have lost."""
    stage.read_events(0)
    told = [text for each in services for text in stage.notices(each)]
    return sum(int(text.split()[0]) for text in told if " lost" in text)


def test_no_event_is_lost_for_one_that_is_updated(stage: Stage) -> None:
    """Who is replaced hears until its successor does; some in between are heard by both."""
    code = """
class Ticker(Actor):
    async def start(self):
        await super().start()
        self.number = 0
        self.work = asyncio.create_task(self.tick())

    async def tick(self):
        while True:
            if self.number - self.last_heard() < 300:  # who is kept from the processor is not to lose any
                self.number += 1
                self.ctx.publish("ticked", self.number)
            await asyncio.sleep(0.0005)

    def last_heard(self):
        try:
            with open(self.ctx.config["file"], "rb") as file:
                file.seek(-10, os.SEEK_END)
                return int(file.read())
        except OSError:  # nothing so far
            return self.number

class Hearer(Actor):
    @on_event("ticker.ticked")
    async def ticked(self, number: int) -> None:
        with open(self.ctx.config["file"], "a") as file:
            print(f"{number:9}", file=file)

    @rpc
    async def hello(self) -> str:
        return "hello"
"""
    file = stage.directory / "heard"
    config = f"config: {{file: {file}}}"
    services = f"ticker: {{ACT Ticker, {config}}}\nhearer: {{ACT Hearer, depends_on: [ticker], {config}, {STOPS}}}"
    play = Play(stage, code, services)
    wait_until(file.exists, "the first to be heard")
    for version in range(8):
        update(stage, "hearer", "--version", f"v{version}")
    play.ask("ticker", "self.work.cancel()")
    last = play.ask("ticker", "self.number")
    wait_until(lambda: file.read_text().endswith(f"{last}\n"), "the last to be heard")
    heard = {int(line) for line in file.read_text().split()}
    assert sorted(set(range(min(heard), last + 1)) - heard) == []


def test_what_cannot_travel_is_left_out_and_named(stage: Stage) -> None:
    code = (
        SHOP
        + """
class Locked(Tills):
    def export_state(self):
        import threading
        return {"handled": [1, 2, 3], "lock": threading.Lock()}
"""
    )
    play = Play(stage, code, "till: {ACT Locked}")
    update(stage)
    assert play.ask("till", "self.handled") == [1, 2, 3]
    stage.tells()
    (unheard, without, updated) = stage.notices("till")
    assert unheard == "it hears no events of clock: there is no such service", "told once: the new one listens alike"
    assert without == "its state is handed over without state['lock']: _thread.lock cannot travel"
    assert updated.startswith("updated: ")


def test_an_interface_that_breaks_callers_is_forced(stage: Stage) -> None:
    code = (
        SHOP
        + """
class Smaller(Actor):
    @rpc
    async def charge(self, number: int, currency: str) -> list[int]:
        return [number, 0, 3]

    def import_state(self, state):
        pass
"""
    )
    play = Play(stage, code, f"till: {{{TILL}}}\n{BESIDE}")
    said = fails(stage, "update", "till", "--python", "app:Smaller")
    assert "cannot update till: the new version is not compatible: " in said
    stage.svcd("update", "till", "--python", "app:Smaller", "--force")
    assert play.ask("audience", "await ctx.call('till.charge', number=7, currency='EUR')") == [7, 0, 3]


def test_kept_state_is_that_of_the_new_one(stage: Stage) -> None:
    """What the old one saves when it stops is history by then."""
    play = Play(stage, SHOP, f"till: {{{TILL}, state: keep}}\n{BESIDE}")
    play.ask("audience", "await ctx.call('till.charge', number=1)")
    update(stage, "till", "--python", "app:Tills2")
    wait_until((Path(stage.status().state_dir) / "state" / "till").exists, "the state to be saved")
    invocation = stage.row("till").invocation
    stage.crash("till")
    stage.wait_state("till", "running", after=invocation)
    assert play.ask("till", "self.handled") == [1]
    play.ask("audience", "await ctx.call('till.charge', number=2)")
    stage.svcd("restart", "till")
    assert play.ask("till", "self.handled") == [1, 2]
    play.ask("audience", "await ctx.call('till.charge', number=3)")
    invocation = stage.row("till").invocation
    stage.crash("till")
    stage.wait_state("till", "running", after=invocation)
    assert play.ask("till", "self.before") == 2


def test_health_and_watchdog_are_about_the_new_one(stage: Stage) -> None:
    keys = "watchdog: 2s, health: {rpc: alive, interval: 50ms}, restart: {policy: always}"
    play = Play(stage, SHOP, f"till: {{{TILL}, {keys}}}\n{BESIDE}")
    update(stage, "till", "--python", "app:Tills2")
    new, invocation = stage.pid_of("till"), stage.row("till").invocation
    stage.wait_status(lambda _: stage.row("till").healthy, "it to be found healthy")
    os.kill(new, signal.SIGSTOP)
    row = stage.wait_state("till", "running", after=invocation)
    assert row.pid != new
    assert play.ask("audience", "(await ctx.call('till.charge', number=1))[2]") == 2  # what is in force came back


# ---- instances, dependents, configuration ----------------------------------------------------------------------------


def test_instances_one_after_the_other(stage: Stage) -> None:
    play = Play(stage, SHOP, f"till: {{{TILL}, instances: 3}}\n{callers(1)}\n{BESIDE}")
    pids = {row.name: row.pid for row in stage.status().services}
    out = update(stage, "till", "--python", "app:Tills2", "--version", "2")
    assert out.splitlines()[3:] == ["till.0: updated", "till.1: updated", "till.2: updated"]
    now = {row.name: row.pid for row in stage.status().services}
    assert {name for name in pids if pids[name] != now[name]} == {"till.0", "till.1", "till.2"}
    assert finished(play, 1)
    said = fails(stage, "update", "till", "--python", "nowhere:Tills")
    assert "cannot update till.0: the new version failed (loading): ModuleNotFoundError" in said
    assert "svcd: cannot update till.1: it was not updated: till.0 was not" in said
    assert {row.name: row.pid for row in stage.status().services} == now


def test_apply_brings_in_what_says_hot_in_place_and_the_rest_as_before(stage: Stage) -> None:
    services = f"""
till: {{{TILL}, update: hot}}
clock: {{ACT Clock}}
old: {{ACT Clock}}
{callers(1)}
"""
    play = Play(stage, SHOP, services)
    before = {row.name: (row.pid, row.invocation) for row in stage.status().services}
    changed = services.replace("ACT Tills, version: '1'", "ACT Tills2, version: '2'").replace("old:", "new:")
    changed = changed.replace("{ACT Clock}", "{ACT Clock, env: {A: b}}", 1)
    file = stage.write_services(acts(changed))
    plan = stage.svcd("plan", str(file)).out.splitlines()
    assert plan[-1] == "4. update  till   python, version changed; a new version takes over in place"
    out = stage.svcd("apply", str(file)).out.splitlines()
    assert out[:4] == plan
    assert {*out[4:]} == {"clock: restarted", "old: removed", "new: up", "till: updated"}
    now = {row.name: (row.pid, row.invocation) for row in stage.status().services}
    assert now["load1"] == before["load1"]
    assert stage.row("till").version == "2"
    assert stage.svcd("plan", str(file)).out == "nothing differs\n"
    assert finished(play, 1)
    # SIGHUP does the same; what fails stays as it was, and is tried again by the next one
    bad = changed.replace("ACT Tills2, version: '2'", "ACT Nothing, version: '3'")
    stage.write_services(acts(bad))
    assert stage.process is not None
    stage.process.send_signal(signal.SIGHUP)
    wait = "ready; not updated: the new version failed (loading)"
    stage.wait_status(lambda _: stage.row("till").cause.startswith(wait), "the update to fail")
    assert (stage.row("till").version, stage.row("till").pid) == ("2", now["till"][0])
    assert (
        stage.svcd("plan", str(file)).out.splitlines()[0].startswith("1. update  till  python, version changed; a new")
    )
    stage.write_services(acts(changed.replace("version: '2'", "version: '4'")))
    stage.process.send_signal(signal.SIGHUP)
    stage.wait_status(lambda _: stage.row("till").version == "4", "the update to be done")


def test_an_update_during_another_one_waits_for_its_turn(stage: Stage) -> None:
    play = Play(stage, SHOP, f"till: {{{TILL}}}\n{BESIDE}")
    play.begin("audience", "await ctx.call('till.wait', timeout=60)")
    play.wait("till", "self.begun", 1)
    first = stage.command("update", "till", "--version", "2")
    cause = "being updated: the old one finishes its requests"
    stage.wait_status(lambda _: stage.row("till").cause == cause, "the first update")
    second = stage.command("update", "till", "--version", "3")
    play.ask("till", "self.gate.set()")
    assert [first.wait(), second.wait()] == [(0, ""), (0, "")]
    assert stage.row("till").version == "3"


def test_changes_of_others_during_an_update_leave_it_alone(stage: Stage) -> None:
    play = Play(stage, SHOP, f"till: {{{TILL}}}\nold: {{ACT Clock}}\n{BESIDE}")
    play.begin("audience", "await ctx.call('till.wait', timeout=60)")
    play.wait("till", "self.begun", 1)
    first = stage.command("update", "till", "--python", "app:Tills2", "--version", "2")
    cause = "being updated: the old one finishes its requests"
    stage.wait_status(lambda _: stage.row("till").cause == cause, "the update")
    update(stage, "clock", "--version", "3")
    stage.svcd("unregister", "old")
    extra = stage.write("services: {extra: {command: sleep 1000}}", "extra.yaml")
    assert stage.svcd("register", str(extra)).out == "1. start   extra  new\nextra: up\n"
    assert stage.row("till").cause == cause
    play.ask("till", "self.gate.set()")
    assert first.wait() == (0, "")
    assert (stage.row("till").version, stage.row("clock").version) == ("2", "3")
    assert play.ask("audience", "(await ctx.call('till.charge', number=1))[2]") == 2


def test_who_follows_another_that_is_scaled_during_its_update_is_updated_again(stage: Stage) -> None:
    services = f"""
till: {{command: sleep 1000, instances: 2}}
shop: {{{TILL}, depends_on: [till]}}
caller: {{ACT Clock, permissions: {{services: [shop]}}}}
"""
    play = Play(stage, SHOP, services)
    play.begin("caller", "await ctx.call('shop.wait', timeout=60)")
    play.wait("shop", "self.begun", 1)
    first = stage.command("update", "shop", "--python", "app:Tills2", "--version", "2")
    cause = "being updated: the old one finishes its requests"
    stage.wait_status(lambda _: stage.row("shop").cause == cause, "the update")
    second = stage.command("scale", "till=3")
    stage.wait_status(lambda status: "till.2" in [row.name for row in status.services], "the third one")
    stage.wait_state("till.2", "running")
    play.ask("shop", "self.gate.set()")
    assert [first.wait(), second.wait()] == [(0, ""), (0, "")]
    row = stage.row("shop")
    assert (row.version, row.depends_on, row.cause) == ("2", ("till.0", "till.1", "till.2"), "ready")
    assert play.ask("shop", "type(self).__name__") == "Tills2"


def test_a_parent_is_not_updated_over_its_children(stage: Stage) -> None:
    code = (
        SHOP
        + """
class Parent(Actor):
    pass
"""
    )
    keys = "permissions: {spawn: true}, update: hot"
    play = Play(stage, code, f"parent: {{ACT Parent, {keys}}}")
    play.ask("parent", "await ctx.spawn_service('child', code='def main(ctx): ctx.stopping.wait()')")
    outcome = stage.svcd("update", "parent", code=1)
    assert "it has children, which belong to its run: restart it instead" in outcome.err
    file = stage.write_services(acts(f"parent: {{ACT Parent, {keys}, env: {{A: b}}}}"))
    out = stage.svcd("apply", str(file)).out
    assert "2. restart parent  env.A changed\n" in out
    assert "parent: restarted" in out


def test_who_does_not_run_is_just_changed(stage: Stage) -> None:
    play = Play(
        stage,
        SHOP,
        f"till: {{{TILL}, start: on_demand}}\n{BESIDE}".replace(
            "depends_on: [till]", "permissions: {services: [till]}"
        ),
    )
    assert stage.states()["till"] == "unloaded"
    update(stage, "till", "--python", "app:Tills2")
    assert play.ask("audience", "(await ctx.call('till.charge', number=1))[2]") == 2
    update(stage, "till", "--python", "app:Tills")
    assert play.ask("audience", "(await ctx.call('till.charge', number=1))[2]") == 1


def test_from_another_fork_server_and_in_another_interpreter(stage: Stage) -> None:
    """What the process is made of may change as well, and comes from the new definition at once."""
    play = Play(stage, SHOP, f"till: {{{TILL}}}\n{BESIDE}")
    play.ask("audience", "await ctx.call('till.charge', number=1)")
    for number, more in enumerate(("preload: [decimal]", f"interpreter: {sys.executable}", "env: {EXTRA: '5'}"), 2):
        stage.write_services(acts(f"till: {{{TILL}, {more}}}\n{BESIDE}"))
        old = stage.pid_of("till")
        update(stage)
        assert stage.pid_of("till") != old
        play.ask("audience", f"await ctx.call('till.charge', number={number})")
    assert play.ask("till", "self.handled") == [1, 2, 3, 4]
    assert play.ask("till", "os.environ['EXTRA']") == "5"
