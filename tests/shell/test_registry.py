"""The registry: what is in force at once, what when it is adopted, and who stands in for whom."""

from __future__ import annotations

from neighbourhood import defined

from svcd.supervisor.config.launch import ClusterSpec, ServiceDefinition
from svcd.supervisor.controller.registry import Registry


def cluster(*definitions: ServiceDefinition) -> ClusterSpec:
    return ClusterSpec("shop", (), definitions)


def test_a_changed_service_is_the_newest_at_once_and_the_present_one_when_it_is_adopted() -> None:
    old, new = defined("web"), defined("web", may_call=("db",))
    registry = Registry(cluster(old, defined("db")))
    registry.change(cluster(new, defined("db"), defined("more")))
    assert (registry["web"], registry.newest("web"), registry.find_newest("web")) == (old, new, new)
    assert registry["more"] is registry.newest("more")
    registry.adopt("web")
    assert registry["web"] is new
    registry.forget("web")
    assert (registry.get("web"), registry.find_newest("web")) == (None, None)


def test_watchers_are_told_once_for_each_configuration_when_it_is_in_force() -> None:
    registry = Registry(cluster(defined("web")))
    seen: list[object] = []
    registry.watched_by(lambda: seen.append(registry.find_newest("web")))
    assert seen == []
    new = defined("web", may_call=("db",))
    registry.change(cluster(new))
    assert seen == [new]
    registry.adopt("web")
    registry.forget("web")
    assert seen == [new]


def test_who_is_covered_follows_what_is_adopted_and_what_goes() -> None:
    registry = Registry(cluster(defined("spare"), defined("a", fallback="spare"), defined("b"), defined("c")))
    assert registry.covered_by("spare") == ["a"]
    assert registry.covered_by("a") == []
    registry.change(cluster(defined("spare"), defined("a"), defined("b", fallback="spare"), defined("c")))
    assert registry.covered_by("spare") == ["a"]
    registry.adopt("b")
    assert registry.covered_by("spare") == ["a", "b"]
    registry.adopt("a")
    assert registry.covered_by("spare") == ["b"]
    registry.forget("b")
    assert registry.covered_by("spare") == []
