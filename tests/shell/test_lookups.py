"""Lookups: found, started for who asks, or ended with the reason; and calls of what starts on demand."""

from __future__ import annotations

import pytest
from neighbourhood import Neighbourhood, defined

from svcd.protocol.messages import LookupEnded, ServiceLookup
from svcd.supervisor.core import events as ev
from svcd.supervisor.core.spec import RestartMode, RestartPolicy, StartMode

WEB = 77
NEVER = RestartPolicy(mode=RestartMode.NEVER)


def ask(scene: Neighbourhood, target: str, token: int = 1, start: bool = False) -> None:
    scene.lookups.begin(ServiceLookup("web", WEB, token, target, start))


def ends(scene: Neighbourhood) -> dict[int, str | None]:
    """token -> error of the lookups that have ended since."""
    return {message.token: message.error for _, message in scene.news() if isinstance(message, LookupEnded)}


def shop(mode: StartMode = StartMode.MANUAL) -> Neighbourhood:
    return Neighbourhood(
        defined("db", start=StartMode.MANUAL),
        defined("billing", "db", start=mode, restart=NEVER),
        defined("web", may_call=("billing",)),
    )


@pytest.mark.parametrize("target", ["db", "web", "none"])
def test_what_may_not_be_called_is_not_looked_up(target: str) -> None:
    scene = shop()
    ask(scene, target, start=True)
    assert ends(scene) == {1: "it is neither in depends_on nor in permissions.services"}
    assert not any(isinstance(each, ev.StartRequested) for each in scene.events)


def test_who_does_not_want_it_started_is_told_how_it_stands() -> None:
    scene = shop()
    ask(scene, "billing")
    assert ends(scene) == {1: "it is unloaded: registered"}


def test_it_is_started_with_what_it_requires_once_for_all() -> None:
    scene = shop()
    for token in range(3):
        ask(scene, "billing", token, start=True)
    assert ends(scene) == {}
    scene.spawned("db")
    scene.spawned("billing")
    assert ends(scene) == dict.fromkeys(range(3))
    ask(scene, "billing", 9, start=True)
    assert ends(scene) == {9: None}


def test_a_start_that_fails_ends_the_lookup_with_its_reason() -> None:
    scene = shop()
    ask(scene, "billing", start=True)
    scene.spawned("db")
    order = next(each for each in scene.orders if type(each).__name__ == "SpawnProcess")
    scene.submit(ev.SpawnFailed(2.0, "billing", order.invocation, "no such file"))
    found = ends(scene)[1]
    assert found is not None
    assert "no such file" in found


def test_one_that_takes_no_requests_is_not_found() -> None:
    scene = shop()
    ask(scene, "billing", start=True)
    scene.spawned("db")
    scene.spawned("billing", takes_calls=False)
    assert ends(scene) == {1: "it takes no requests: none of its methods is marked with @rpc"}


def test_a_call_of_what_starts_on_demand_starts_it() -> None:
    scene = shop(StartMode.ON_DEMAND)
    ask(scene, "billing")
    demands = [each for each in scene.events if isinstance(each, ev.DemandArose)]
    assert [(each.service, each.text) for each in demands] == [("billing", "called by web")]
    scene.spawned("db")
    scene.spawned("billing")
    assert ends(scene) == {1: None}


def test_what_was_stopped_by_name_is_not_started_by_a_call_but_by_a_lookup() -> None:
    scene = shop(StartMode.ON_DEMAND)
    scene.submit(ev.StopRequested(1.0, "stop", ("billing",)))
    ask(scene, "billing")
    assert list(ends(scene)) == [1]
    assert not any(isinstance(each, ev.StartRequested) for each in scene.events)
    ask(scene, "billing", 2, start=True)
    assert any(isinstance(each, ev.StartRequested) for each in scene.events)
