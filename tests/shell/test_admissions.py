"""Who knocks is told or refused; who was let in and may not stay under a new configuration is put out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from neighbourhood import Neighbourhood, defined

from svcd.protocol.call_errors import PermissionDenied
from svcd.protocol.messages import PeerAsked, PeerDismissed, PeerIdentified
from svcd.supervisor.config.launch import ClusterSpec
from svcd.supervisor.controller.processes.runs import Run
from svcd.supervisor.controller.python.admissions import Admissions
from svcd.supervisor.controller.python.introductions import CLIENT, Introductions, not_permitted

DB, WEB, OTHER, NOBODY = 7, 100, 200, 300
"""The invocation of db, and pids."""


class Doorman(Introductions):
    """Knows two services by their pids, and everything else of permissions as ever."""

    def name_of(self, callee: str, pid: int, uid: int) -> str:
        name = {WEB: "web", OTHER: "other"}.get(pid)
        if name is None and uid == 0:
            return CLIENT
        if name is None or not self.may_call(name, callee):
            raise PermissionDenied("a stranger" if name is None else not_permitted(name))
        return name


class Runs:
    def __init__(self) -> None:
        self.run = Run("db", DB, "mark", "launcher")

    def get(self, invocation: int) -> Run | None:
        return self.run if invocation == DB else None


class Scene:
    def __init__(self) -> None:
        self.definitions = defined("db"), defined("web", may_call=("db",)), defined("other", "db")
        self.around = Neighbourhood(*self.definitions)
        self.runs: Any = Runs()
        self.told: list[Any] = []
        tell: Callable[[int, Any], None] = lambda invocation, message: self.told.append(message)  # noqa: E731
        registry = self.around.registry
        self.admissions = Admissions(Doorman((), registry, 1), registry, self.runs, tell)

    def asks(self, pid: int, uid: int = 9, token: int = 1) -> PeerIdentified:
        self.admissions.asked(PeerAsked("db", DB, token, pid, uid))
        found = self.told.pop()
        assert isinstance(found, PeerIdentified)
        return found

    def changed(self, *definitions: Any) -> list[Any]:
        """What is told when this is in force."""
        self.told.clear()
        self.around.registry.change(ClusterSpec("shop", (), definitions))
        return self.told


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_who_knocks_is_told_or_refused(scene: Scene) -> None:
    assert scene.asks(WEB, token=5) == PeerIdentified(DB, 5, "web")
    assert scene.asks(NOBODY, uid=0) == PeerIdentified(DB, 1, "client")
    assert scene.asks(NOBODY) == PeerIdentified(DB, 1, "", "cannot call db: a stranger")


def test_who_may_not_call_any_more_is_put_out_once(scene: Scene) -> None:
    for pid in (WEB, WEB, OTHER):
        scene.asks(pid)
    scene.asks(NOBODY, uid=0)
    db, _, other = scene.definitions
    reason = "cannot call db: web neither depends on it nor has the permission"
    assert scene.changed(db, defined("web"), other) == [PeerDismissed(DB, "web", reason)]
    assert scene.changed(db, defined("web"), other) == []
    assert scene.asks(WEB) == PeerIdentified(DB, 1, "", reason)


def test_who_may_still_call_stays(scene: Scene) -> None:
    scene.asks(WEB)
    scene.asks(OTHER)
    db, web, other = scene.definitions
    assert scene.changed(db, defined("web", "db"), replace(other, launch=replace(other.launch, may_call=("db",)))) == []
    assert scene.changed(db, web, other) == []


def test_nothing_is_kept_of_a_run_that_has_ended(scene: Scene) -> None:
    scene.asks(WEB)
    for step in scene.runs.run.clean_up:
        step()
    assert scene.changed(scene.definitions[0], defined("web")) == []
