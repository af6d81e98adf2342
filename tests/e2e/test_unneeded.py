"""`svcd stop --unneeded`: what was started only because of others goes when they do (design, issue "dependencies").

Must not test stops by name: test_requests does.
"""

from __future__ import annotations

from stage import Stage
from traces import stops, then, together

STACK = """
    db: {start: manual}
    cache: {start: manual, depends_on: [db]}
    api: {start: manual, depends_on: {db: {}, cache: {kind: wants}}}
    other: {start: manual, depends_on: [db]}
"""


def test_what_was_started_for_its_sake_goes_with_it(stage: Stage) -> None:
    stage.up(STACK)
    stage.does("start", "api")
    stage.skip()
    stage.does("stop", "api", unneeded=True)
    stage.tells(stops("api", "cache", "db"))


def test_without_it_they_stay(stage: Stage) -> None:
    stage.up(STACK)
    stage.does("start", "api")
    stage.skip()
    stage.does("stop", "api")
    stage.tells(stops("api"))
    assert stage.states() == {"db": "running", "cache": "running", "api": "stopped", "other": "unloaded"}
    stage.does("stop", unneeded=True)
    stage.tells(stops("cache", "db"))


def test_what_somebody_else_needs_stays(stage: Stage) -> None:
    stage.up(STACK)
    stage.does("start", "api", "other")
    stage.skip()
    stage.does("stop", "api", unneeded=True)
    stage.tells(stops("api", "cache"))
    stage.does("stop", "other", unneeded=True)
    stage.tells(stops("other", "db"))


def test_what_was_asked_for_by_name_stays(stage: Stage) -> None:
    stage.up(STACK)
    stage.does("start", "db")
    stage.does("start", "api")
    stage.skip()
    stage.does("stop", "api", unneeded=True)
    stage.tells(stops("api", "cache"))


def test_what_starts_with_the_cluster_stays(stage: Stage) -> None:
    stage.up("db: {}\napi: {start: manual, depends_on: [db]}")
    stage.does("start", "api")
    stage.skip()
    stage.does("stop", "api", unneeded=True)
    stage.tells(stops("api"))


def test_nothing_unneeded_is_done_at_once(stage: Stage) -> None:
    stage.up(STACK)
    stage.does("stop", unneeded=True)
    stage.tells()


def test_a_chain_that_only_holds_itself_goes_as_a_whole(stage: Stage) -> None:
    stage.up(
        """
        a: {start: manual}
        b: {start: manual, depends_on: [a]}
        left: {start: manual, depends_on: [b]}
        right: {start: manual, depends_on: [b]}
        top: {start: manual, depends_on: [left, right]}
        """
    )
    stage.does("start", "top")
    stage.skip()
    stage.does("stop", "top", unneeded=True)
    stage.tells(then(stops("top"), together(stops("left"), stops("right")), stops("b", "a")))
