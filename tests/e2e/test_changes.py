"""Everything that follows from one cause is one transaction, kept and shown; every state has a story (design 4, 7).

Must not test how `svcd changes` and `svcd why` look: tests/cli does.
"""

from __future__ import annotations

from stage import Stage
from traces import mismatch, starts, stops, then, together

from svcd.protocol import messages

RISES = "waiting → starting → running"
CHAIN = "db: {}\napi: {depends_on: [db]}\nweb: {depends_on: [api]}"


def changes(stage: Stage) -> list[messages.Change]:
    answer = stage.ask(messages.GetChanges(limit=100))
    assert isinstance(answer, messages.ChangesReported), answer
    return list(answer.changes)


def steps_of(stage: Stage, change: messages.Change) -> list[str]:
    answer = stage.ask(messages.GetChanges(transaction=change.id))
    assert isinstance(answer, messages.ChangesReported), answer
    (whole,) = answer.changes
    assert whole.omitted == 0
    return [f"{step.service}: {step.old} → {step.new}" for step in whole.steps]


def chain(stage: Stage, service: str) -> list[str]:
    answer = stage.ask(messages.GetStory(service))
    assert isinstance(answer, messages.StoryReported), answer
    return [f"{link.service} {link.state}: {link.cause}" for link in answer.chain]


def test_a_cascade_is_one_change_with_its_cause_and_all_its_steps(stage: Stage) -> None:
    stage.up(CHAIN)
    stage.crash("db")
    story = then(
        "db: running → waiting",
        together(f"db: {RISES}", stops("web", "api", to="waiting")),
        starts("api", "web"),
    )
    stage.tells(story)
    start, cascade = changes(stage)
    assert start.cause == "start of the cluster"
    assert cascade.cause == "db crashed: signal SIGKILL"
    assert sorted(cascade.services) == ["api", "db", "web"]
    assert cascade.services[0] == "db"
    assert mismatch(story, steps_of(stage, cascade)) is None
    assert cascade.ended is not None
    assert cascade.began <= cascade.ended


def test_two_crashes_are_two_changes(stage: Stage) -> None:
    stage.up("a: {}\nb: {depends_on: [a]}\nc: {}\nd: {depends_on: [c]}")
    stage.crash("a", "c")
    one = then("a: running → waiting", together(f"a: {RISES}", stops("b", to="waiting")), starts("b"))
    other = then("c: running → waiting", together(f"c: {RISES}", stops("d", to="waiting")), starts("d"))
    stage.tells(together(one, other))
    told = {change.services[0]: steps_of(stage, change) for change in changes(stage)[1:]}
    assert mismatch(one, told["a"]) is None
    assert mismatch(other, told["c"]) is None


def test_a_change_is_open_until_the_last_of_it_is_at_rest(stage: Stage) -> None:
    stage.up("db: {}\napi: {PLAYER lingers, depends_on: [db]}")
    stage.crash("db")
    stage.tells("db: running → waiting", together(f"db: {RISES}", "api: running → stopping"))
    assert changes(stage)[-1].ended is None
    stage.say("api", "exit 0")
    stage.tells(f"api: stopping → {RISES}")
    (cascade,) = changes(stage)[1:]
    assert cascade.ended is not None


def test_what_was_asked_for_is_a_change_with_whom_it_took_along(stage: Stage) -> None:
    stage.up(CHAIN)
    stage.does("stop", "db")
    stage.tells(stops("web", "api", to="waiting"), stops("db"))
    stage.does("start", "db")
    stage.tells(f"db: stopped → {RISES}", starts("api", "web"))
    stage.does("restart", "api")
    stage.tells(stops("web", to="waiting"), f"api: running → stopping → {RISES}", starts("web"))
    told = [(change.cause, sorted(change.services)) for change in changes(stage)[1:]]
    assert told[0] == ("stop of db", ["api", "db", "web"])
    assert told[1][0] == "start of db"
    assert told[2] == ("restart of api", ["api", "web"])


def test_every_step_that_is_published_names_its_change(stage: Stage) -> None:
    stage.up(CHAIN)
    stage.crash("db")
    stage.tells(
        "db: running → waiting",
        together(f"db: {RISES}", stops("web", "api", to="waiting")),
        starts("api", "web"),
    )
    published = [event for event in stage.trace if isinstance(event, messages.ServiceTransitioned)]
    (cascade,) = changes(stage)[1:]
    assert {event.transaction for event in published[-11:]} == {cascade.id}


def test_a_change_that_nobody_made_is_not_there(stage: Stage) -> None:
    stage.up("a: {}")
    stage.does("start", "a")
    assert [change.cause for change in changes(stage)] == ["start of the cluster"], "what moved nothing is not kept"
    answer = stage.ask(messages.GetChanges(transaction=999_999))
    assert answer == messages.ChangesReported()


def test_why_leads_to_the_root_of_it_all(stage: Stage) -> None:
    stage.up("db: {restart: {policy: never}}\napi: {depends_on: [db]}\nweb: {depends_on: [api]}")
    stage.crash("db")
    stage.tells("db: running → failed", stops("web", "api", to="waiting"))
    assert chain(stage, "web") == [
        "web waiting: for api (waiting; requires db, which failed (signal SIGKILL))",
        "api waiting: for db (failed: signal SIGKILL)",
        "db failed: signal SIGKILL",
    ]


def test_why_of_a_stop_that_waits_names_who_holds_it(stage: Stage) -> None:
    stage.up("db: {}\napi: {PLAYER lingers, depends_on: [db]}")
    stop = stage.order("stop", "db")
    stage.tells("api: running → stopping")
    assert chain(stage, "db") == [
        "db running: stopped by request; what depends on it ends first",
        "api stopping: db was stopped by request",
    ]
    stage.say("api", "exit 0")
    assert stop.outcome() == "done"
    stage.tells("api: stopping → waiting", stops("db"))


def test_a_story_holds_its_last_steps_and_their_causes(stage: Stage) -> None:
    stage.up("a: {}")
    stage.crash("a")
    stage.tells(f"a: running → {RISES}")
    answer = stage.ask(messages.GetStory("a"))
    assert isinstance(answer, messages.StoryReported)
    told = [(step.old, step.new, step.cause) for step in answer.history]
    assert told == [
        ("unloaded", "waiting", "asked to run"),
        ("waiting", "starting", "asked to run"),
        ("starting", "running", "ready"),
        ("running", "waiting", "restart after signal SIGKILL"),
        ("waiting", "starting", "restart after signal SIGKILL"),
        ("starting", "running", "ready"),
    ]
    assert [change.cause for change in answer.changes] == ["start of the cluster", "a crashed: signal SIGKILL"]
