"""Services that create services: children come after their parent, end before it and go with it (design 4.3).

Must not test how definitions are read (tests/config does), nor every order of events (tests/core does).
"""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
from acting import DRAINS, LOADS, STOPS, Play, acts
from clusters import wait_until
from stage import Stage
from traces import then, together

CODE = """
class Pool(Actor):
    async def child_ended(self, child, error):
        self.heard.append([child.name, None if error is None else str(error)])
        if getattr(self, "gives_up", False):
            self.fail(error)

    @rpc
    async def name(self) -> str:
        return self.ctx.name

    @rpc
    async def work(self) -> str:
        await self.hold()
        return "done"

class Shard(Actor):
    async def init(self, config):
        self.number = config.get("number", 0)

    @rpc
    async def who(self) -> dict:
        parent = await self.ctx.service(self.ctx.parent).name()
        return {"name": self.ctx.name, "number": self.number, "parent": parent, "caller": self.ctx.request.caller}

class Broken(Service):
    async def start(self):
        raise ValueError("no luck")

class Slow(Service):
    async def start(self):
        await self.ctx.stopping.wait_async()

class Early(Actor):
    async def start(self):
        await super().start()
        self.shard = await self.ctx.spawn_service("shard-0", Shard)

async def waiter(ctx):
    child = await ctx.spawn_service("shard-0", Shard, restart={"policy": "never"})
    async for child, error in ctx.child_ends():
        ctx.stop(error)
"""
POOL = "pool: {ACT Pool, permissions: {spawn: {max: 3}}}"
RISES = f"unloaded → {LOADS}"
STOPPED = "running → draining → stopping → stopped"


def pool(stage: Stage, services: str = POOL, head: str = "") -> Play:
    return Play(stage, CODE, services, head)


def spawn(play: Play, name: str, more: str = "", parent: str = "pool") -> Any:
    """A child that takes requests; told when it runs."""
    found = play.ask(parent, f"(await ctx.spawn_service({name!r}, Shard{', ' + more if more else ''})).state")
    play.stage.tells(f"{name}: {RISES}")
    return found


def wait_children(play: Play, *, parent: str = "pool", **states: str) -> None:
    """Until these are all that the parent knows of, and so: it is told of them a moment after everybody else."""
    found = "{name.replace('-', '_'): child.state for name, child in ctx.children.items()}"
    play.wait(parent, found, states)


# ---- a pool ----


def test_a_pool_of_three_shards(stage: Stage) -> None:
    play = pool(stage, f"{POOL}\nweb: {{}}")
    for number in range(3):
        assert spawn(play, f"shard-{number}", f"config={{'number': {number}}}") == "running"
    wait_children(play, shard_0="running", shard_1="running", shard_2="running")
    assert play.ask("pool", "await ctx.children['shard-2'].service.who()") == {
        "name": "shard-2",
        "number": 2,
        "parent": "pool",
        "caller": "pool",
    }
    assert play.ask("pool", "await ctx.call('shard-1.who')")["number"] == 1
    assert stage.names() == ["pool", "shard-0", "shard-1", "shard-2", "web"]
    assert stage.row("shard-1").parent == "pool"
    stage.drains(
        together(
            then(together(*(f"shard-{number}: {STOPPED}" for number in range(3))), f"pool: {DRAINS}"),
            f"web: {STOPS}",
        )
    )


def test_a_stop_of_the_parent_removes_them_first(stage: Stage) -> None:
    play = pool(stage)
    spawn(play, "shard-0")
    spawn(play, "shard-1")
    said = stage.svcd("stop", "pool").out
    assert said in {
        "removes with their parent: shard-0, shard-1\npool: stopped\n",
        "removes with their parent: shard-1, shard-0\npool: stopped\n",
    }
    stage.tells(together(f"shard-0: {STOPPED}", f"shard-1: {STOPPED}"), f"pool: {DRAINS}")
    assert stage.names() == ["pool"]
    stage.does("start", "pool")
    stage.tells(f"pool: stopped → {LOADS}")
    wait_children(play)
    spawn(play, "shard-0")


def test_a_request_in_flight_holds_the_parent_after_its_children(stage: Stage) -> None:
    play = pool(stage, f"{POOL}\nweb: {{ACT Actor, depends_on: {{pool: {{kind: wants}}}}}}")
    spawn(play, "shard-0")
    call = play.begin("web", "await ctx.call('pool.work')")
    play.wait("pool", "self.begun == 1")
    stop = stage.order("stop", "pool")
    stage.tells(f"shard-0: {STOPPED}", "pool: running → draining")
    play.ask("pool", "self.gate.set()")
    assert call.end() == "done"
    assert stop.outcome() == "done"
    stage.tells("pool: draining → stopping → stopped")


def test_a_restart_of_the_parent_begins_without_them(stage: Stage) -> None:
    play = pool(stage)
    spawn(play, "shard-0")
    stage.does("restart", "pool")
    stage.tells(f"shard-0: {STOPPED}", f"pool: running → draining → stopping → {LOADS}")
    wait_children(play)
    assert stage.names() == ["pool"]


def test_a_killed_parent_takes_them_along_and_begins_again_without(stage: Stage) -> None:
    play = pool(stage)
    for number in range(3):
        spawn(play, f"shard-{number}")
    stage.crash("pool")
    stage.tells(
        together(
            "pool: running → waiting",
            *(f"shard-{number}: {STOPPED}" for number in range(3)),
        ),
        "pool: waiting → loading → loaded → initialized → starting → running",
    )
    assert stage.names() == ["pool"]
    assert not any(stage.processes(f"shard-{number}") for number in range(3))
    assert stage.output("shard-0") == b""  # its logs are kept
    wait_children(play)
    spawn(play, "shard-0")


def test_a_child_that_refuses_to_end_keeps_the_next_run_waiting(stage: Stage) -> None:
    play = pool(stage)
    stage.tells()
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); open('deaf', 'w').close(); time.sleep(1000)"
    command = ["python3", "-c", code]
    play.ask("pool", f"(await ctx.spawn_service('deaf', command={command!r}, stop={{'timeout': '200ms'}})).state")
    stage.tells("deaf: unloaded → waiting → starting → running")
    wait_until((stage.directory / "deaf").exists, "it to be deaf")
    stage.crash("pool")
    stage.tells(together("pool: running → waiting", "deaf: running → stopping → stopped"), f"pool: {LOADS}")


# ---- the crash of a child ----


def test_a_killed_child_is_told_and_comes_back_by_its_policy(stage: Stage) -> None:
    play = pool(stage)
    spawn(play, "shard-0", "restart={'reset_after': 0}")
    spawn(play, "shard-1")
    stage.crash("shard-0")
    stage.tells(f"shard-0: running → {LOADS}")
    play.wait("pool", "self.heard", [["shard-0", "shard-0 has ended: signal SIGKILL"]])
    wait_children(play, shard_0="running", shard_1="running")
    assert play.ask("pool", "await ctx.children['shard-0'].service.who()")["name"] == "shard-0"


def test_the_parent_may_restart_it(stage: Stage) -> None:
    play = pool(stage)
    spawn(play, "shard-0", "restart={'policy': 'never'}")
    stage.crash("shard-0")
    stage.tells("shard-0: running → failed")
    play.wait("pool", "ctx.children['shard-0'].state", "failed")
    assert play.ask("pool", "ctx.children['shard-0'].cause") == "signal SIGKILL"
    play.ask("pool", "await ctx.children['shard-0'].restart()")
    stage.tells(f"shard-0: failed → {LOADS}")
    wait_children(play, shard_0="running")


def test_the_parent_may_give_up(stage: Stage) -> None:
    play = pool(stage, "pool: {ACT Pool, permissions: {spawn: true}, restart: {policy: never}}")
    spawn(play, "shard-0", "restart={'policy': 'never'}")
    spawn(play, "shard-1")
    play.ask("pool", "setattr(self, 'gives_up', True)")
    stage.crash("shard-0")
    stage.tells("shard-0: running → failed", together("pool: running → stopping → failed", f"shard-1: {STOPPED}"))
    assert stage.row("pool").cause == "ChildFailed: shard-0 has ended: signal SIGKILL"
    assert stage.names() == ["pool"]


def test_a_function_hears_of_its_children_too(stage: Stage) -> None:
    services = "pool: {command: null, python: 'app:waiter', permissions: {spawn: true}, restart: {policy: never}}"
    pool(stage, services)
    stage.wait_status(lambda status: any(row.name == "shard-0" for row in status.services), "the shard")
    stage.wait_state("shard-0", "running")
    stage.crash("shard-0")
    stage.wait_state("pool", "failed")
    assert stage.row("pool").cause == "ChildFailed: shard-0 has ended: signal SIGKILL"


# ---- what is refused, and what fails ----


@pytest.mark.parametrize(
    ("words", "kind", "text"),
    [
        ("'pool', Shard", "ChildNameTaken", "cannot create pool: there is a service of that name already"),
        ("'shard-0', Shard", "ChildNameTaken", "there is a service of that name already, a child of pool"),
        ("'many', Shard", "ChildNameTaken", "cannot create many: there is a service of that name already"),
        ("'a.b', Shard", "BadChildDefinition", 'cannot create a.b: name: "a.b" cannot be a name; use letters'),
        ("'x', Shard, restart={'policy': 'no'}", "BadChildDefinition", 'restart.policy: "no" is not one of always'),
        ("'x', Shard, user='root'", "BadChildDefinition", "user: is no key of a child; a child has its parent's"),
        ("'x', Shard, config={'a': object()}", "BadChildDefinition", "cannot create x: "),
        ("'x'", "BadChildDefinition", "cannot create x: it says nothing that can run"),
        ("'x', Shard, depends_on=['nobody']", "BadChildDefinition", "depends_on.nobody: there is no service nobody"),
        ("'x', Shard, depends_on=['vault']", "BadChildDefinition", "pool may not call vault, so no child of it may"),
        ("'x', Broken, restart={'policy': 'never'}", "ChildFailed", "cannot create x: x failed: ValueError: no luck"),
        ("'x', Slow, wait=0.2", "ChildFailed", "cannot create x: it was not up within 0.2 s"),
        ("'x', command=['/no/such/thing'], restart={'policy': 'never'}", "ChildFailed", "cannot create x: "),
    ],
)
def test_refusals_are_typed_and_nothing_changes(stage: Stage, words: str, kind: str, text: str) -> None:
    play = pool(stage, f"{POOL}\nmany: {{instances: 2}}\nvault: {{}}")
    spawn(play, "shard-0")
    before = stage.names()
    failure = play.failure("pool", f"await ctx.spawn_service({words})")
    assert (failure.kind, text in failure.text) == (kind, True), failure
    assert stage.names() == before
    wait_children(play, shard_0="running")


def test_no_more_than_permitted(stage: Stage) -> None:
    play = pool(stage, "pool: {ACT Pool, permissions: {spawn: {max: 1}}}\nother: {ACT Pool}")
    spawn(play, "shard-0")
    failure = play.failure("pool", "await ctx.spawn_service('shard-1', Shard)")
    text = "cannot create shard-1: pool has 1 children, as many as it may (permissions.spawn)"
    assert (failure.kind, failure.text) == ("SpawnNotPermitted", text)
    failure = play.failure("other", "await ctx.spawn_service('shard-1', Shard)")
    text = "cannot create shard-1: other may have no children; write permissions: {spawn: true} at other"
    assert (failure.kind, failure.text) == ("SpawnNotPermitted", text)
    play.ask("pool", "await ctx.children['shard-0'].remove()")
    stage.tells(f"shard-0: {STOPPED}")
    spawn(play, "shard-1")


def test_children_of_children_need_a_permission_and_have_a_depth(stage: Stage) -> None:
    play = pool(stage)
    more = "permissions={'spawn': {'max': 3}}"
    spawn(play, "c1", more)
    spawn(play, "plain")
    assert play.failure("plain", "await ctx.spawn_service('x', Shard)").kind == "SpawnNotPermitted"
    for number in range(2, 5):
        spawn(play, f"c{number}", more, parent=f"c{number - 1}")
    failure = play.failure("c4", "await ctx.spawn_service('c5', Shard)")
    assert (failure.kind, "go 4 deep" in failure.text) == ("ChildRefused", True)
    assert stage.names() == ["pool", "c1", "c2", "c3", "c4", "plain"]
    stage.does("stop", "c1")
    stage.tells(*(f"c{number}: {STOPPED}" for number in (4, 3, 2, 1)))
    assert stage.names() == ["pool", "c1", "plain"]


def test_who_may_call_whom(stage: Stage) -> None:
    play = pool(stage, f"{POOL}\nweb: {{ACT Actor}}")
    spawn(play, "shard-0")
    spawn(play, "shard-1")
    assert play.failure("shard-1", "await ctx.call('shard-0.who')").kind == "PermissionDenied"
    assert play.failure("web", "await ctx.call('shard-0.who')").kind == "PermissionDenied"
    spawn(play, "shard-2", "depends_on=['shard-0']")
    assert play.ask("shard-2", "await ctx.call('shard-0.who')")["caller"] == "shard-2"
    failure = play.failure("pool", "await ctx.children['shard-0'].remove()")
    assert (failure.kind, failure.text) == ("ChildRefused", "cannot remove shard-0: required by shard-2")
    play.ask("pool", "await ctx.children['shard-2'].remove()")
    play.ask("pool", "await ctx.children['shard-0'].remove()")
    stage.tells(f"shard-2: {STOPPED}", f"shard-0: {STOPPED}")
    assert play.failure("pool", "await ctx.call('shard-0.who')").kind == "PermissionDenied"


def test_an_instance_has_children_of_its_own(stage: Stage) -> None:
    play = pool(stage, "pool: {ACT Pool, instances: 2, permissions: {spawn: true}}")
    spawn(play, "shard-0", parent="pool.0")
    assert play.ask("pool.0", "(await ctx.children['shard-0'].service.who())['parent']") == "pool.0"
    assert play.failure("pool.1", "await ctx.call('shard-0.who')").kind == "PermissionDenied"
    assert play.failure("pool.1", "await ctx.spawn_service('shard-0', Shard)").kind == "ChildNameTaken"
    stage.does("restart", "pool.1")
    wait_children(play, parent="pool.0", shard_0="running")


# ---- at other moments ----


def test_they_may_be_created_in_the_parents_own_start(stage: Stage) -> None:
    play = pool(stage, "pool: {ACT Early, permissions: {spawn: true}, start: manual}", head="max_parallel: 1\n")
    stage.does("start", "pool")
    assert stage.row("shard-0").state == "running"
    wait_children(play, shard_0="running")


def test_a_parent_that_is_stopped_while_it_waits_for_a_child(stage: Stage) -> None:
    play = pool(stage)
    begun = play.begin("pool", "await ctx.spawn_service('x', Slow)")
    stage.tells("x: unloaded → waiting → loading → loaded → initialized → starting")
    stage.does("stop", "pool")
    stage.tells("x: starting → stopping → stopped", f"pool: {DRAINS}")
    failure = begun.failure()
    assert (failure.kind, "superseded by the end of its parent pool" in failure.text) == ("ChildFailed", True), failure
    assert stage.names() == ["pool"]


def test_whoever_waits_no_longer_leaves_nothing_behind(stage: Stage) -> None:
    play = pool(stage)
    begun = play.begin("pool", "await ctx.spawn_service('x', Slow)")
    stage.tells("x: unloaded → waiting → loading → loaded → initialized → starting")
    begun.cancel()
    stage.tells("x: starting → stopping → stopped")
    assert stage.names() == ["pool"]


def test_registered_started_stopped_by_its_parent(stage: Stage) -> None:
    play = pool(stage)
    assert play.ask("pool", "(await ctx.spawn_service('shard-0', Shard, start=False)).state") == "unloaded"
    stage.tells()
    play.ask("pool", "await ctx.children['shard-0'].start()")
    stage.tells(f"shard-0: {RISES}")
    play.ask("pool", "await ctx.children['shard-0'].stop()")
    stage.tells(f"shard-0: {STOPPED}")
    wait_children(play, shard_0="stopped")
    assert play.ask("pool", "(await ctx.spawn_service('shard-1', Shard, wait=0)).name") == "shard-1"
    stage.tells(f"shard-1: {RISES}")
    play.wait("pool", "ctx.children['shard-1'].state", "running")


def test_stopped_by_name_it_waits_for_somebody_to_start_it(stage: Stage) -> None:
    play = pool(stage)
    spawn(play, "shard-0")
    stage.does("stop", "shard-0")
    stage.tells(f"shard-0: {STOPPED}")
    assert play.ask("pool", "self.heard") == []
    play.ask("pool", "await ctx.children['shard-0'].restart()")
    stage.tells(f"shard-0: stopped → {LOADS}")


# ---- people, and their files ----


def test_changes_of_the_configuration_leave_them_alone(stage: Stage) -> None:
    play = pool(stage, f"{POOL}\nweb: {{}}")
    spawn(play, "shard-0")
    before = stage.pid_of("shard-0")
    services = acts(f"{POOL}\nweb: {{}}\nnew: {{}}")
    file = stage.write_services(services, name="changed.yaml")
    assert "shard" not in stage.svcd("plan", str(file)).out
    stage.svcd("apply", str(file))
    stage.tells("new: unloaded → waiting → starting → running")
    stage.write_services(services + "\nnewer: {}", name="changed.yaml")
    assert stage.process is not None
    stage.process.send_signal(signal.SIGHUP)
    stage.tells("newer: unloaded → waiting → starting → running")
    assert stage.pid_of("shard-0") == before
    assert "shard-0" not in stage.configuration()


def test_a_change_that_restarts_or_removes_the_parent_says_so(stage: Stage) -> None:
    play = pool(stage, f"{POOL}\nweb: {{}}")
    spawn(play, "shard-0")
    services = "pool: {command: null, python: 'app:Pool', permissions: {spawn: true}, env: {NEW: '1'}}\nweb: {}"
    file = stage.write_services(services, name="changed.yaml")
    assert "shard-0" in stage.svcd("plan", str(file)).out
    stage.svcd("apply", str(file))
    stage.tells(f"shard-0: {STOPPED}", f"pool: running → draining → stopping → {LOADS}")
    spawn(play, "shard-0")
    stage.svcd("unregister", "pool")
    stage.tells(f"shard-0: {STOPPED}", f"pool: {DRAINS}")
    assert stage.names() == ["web"]


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (("unregister", "shard-0"), "cannot unregister shard-0: it is a child of pool, and goes with it"),
        (("scale", "shard-0=2"), "cannot scale: shard-0 is a child of pool, which alone can make it anew"),
        (("register", "taken.yaml"), "cannot register: pool has created a service of the name shard-0"),
    ],
)
def test_what_people_cannot_do_with_a_child(stage: Stage, command: tuple[str, ...], text: str) -> None:
    play = pool(stage)
    spawn(play, "shard-0")
    stage.write("cluster: cluster\nservices:\n  shard-0: {command: sleep 9}\n", "taken.yaml")
    outcome = stage.svcd(*command, code=None)
    assert (outcome.code != 0, text in outcome.err) == (True, True), outcome.err
    assert stage.names() == ["pool", "shard-0"]


def test_what_people_see_of_a_child(stage: Stage) -> None:
    play = pool(stage)
    spawn(play, "shard-0")
    assert "\n  shard-0  running" in stage.svcd("status").out
    assert json.loads(stage.svcd("status", "--json").out)["services"][1]["parent"] == "pool"
    assert "child of     pool" in stage.svcd("status", "shard-0").out
    assert "shard-0 is a child of pool: it ends before pool does" in stage.svcd("why", "shard-0").out
    assert "shard-0 ← pool (its parent)" in stage.svcd("graph").out
