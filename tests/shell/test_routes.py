"""Routes: they follow what runs and what is configured, and only who may call hears of them."""

from __future__ import annotations

from neighbourhood import Neighbourhood, defined, route

from svcd.protocol.messages import RouteChanged
from svcd.supervisor.config.launch import ClusterSpec
from svcd.supervisor.controller.python.routes import NO_METHODS, callable_by
from svcd.supervisor.core.spec import RestartMode, RestartPolicy, StartMode

WEB = 77  # the invocation of a stub that calls
NEVER = RestartPolicy(mode=RestartMode.NEVER)


def told(scene: Neighbourhood) -> list[tuple[int, str, tuple[int, ...], str]]:
    """(invocation, target, pids of its routes, why there are none) of what was told."""
    found = []
    for invocation, message in scene.news():
        assert isinstance(message, RouteChanged)
        assert message.permitted
        found.append((invocation, message.target, tuple(each.pid for each in message.routes), message.why))
    return found


def test_whom_a_service_may_call() -> None:
    assert callable_by(defined("web", "db", "pool.0", "pool.1", may_call=("mail",))) == {"db", "pool", "mail"}


def test_whose_events_are_listened_to_in_vain() -> None:
    scene = Neighbourhood(
        defined("orders.0"),
        defined("mail"),
        defined("other"),
        defined("web", "orders.0", may_call=("mail",)),
        defined("pool", max_children=3),
    )
    unheard = scene.routes.unheard
    assert not list(unheard("web", ("orders.made", "orders.gone*", "mail.sent")))
    assert list(unheard("web", ("other.a", "other.b", "order.made", "nobody.at"))) == [
        "it hears no events of other: it is neither in depends_on nor in permissions.services",
        "it hears no events of order: there is no such service; did you mean orders?",
        "it hears no events of nobody: there is no such service",
    ]
    assert not list(unheard("pool", ("shard-7.done",))), "it may be there in a moment"
    assert len(list(unheard("pool", ("mail.sent",)))) == 1
    assert not list(unheard("gone", ("mail.sent",)))


def test_who_joins_is_told_all_and_then_what_changes() -> None:
    scene = Neighbourhood(defined("db"), defined("mail"), defined("other"), defined("web", "db", may_call=("mail",)))
    scene.routes.joined("web", WEB)
    assert told(scene) == [
        (WEB, "db", (), "it is unloaded: registered"),
        (WEB, "mail", (), "it is unloaded: registered"),
    ]
    number = scene.starts("db")
    assert told(scene)[-1] == (WEB, "db", (1000 + number,), "")
    scene.starts("other")
    assert told(scene) == []
    scene.ends("db", number)
    news = told(scene)
    assert news[0][:3] == (WEB, "db", ())
    assert news[0][3].startswith("it is ")
    again = scene.spawned("db")
    assert told(scene)[-1] == (WEB, "db", (1000 + again,), "")
    scene.routes.closed(WEB)
    scene.ends("db", again)
    assert told(scene) == []


def test_what_runs_without_an_endpoint_says_so_until_it_has_one() -> None:
    scene = Neighbourhood(defined("db"), defined("web", "db"))
    scene.routes.joined("web", WEB)
    number = scene.starts("db", takes_calls=False)
    assert told(scene)[-1] == (WEB, "db", (), NO_METHODS)
    scene.routes.opened("db", number, route(number))
    assert told(scene) == [(WEB, "db", (1000 + number,), "")]


def test_an_endpoint_of_a_run_that_is_not_up_is_no_route() -> None:
    scene = Neighbourhood(defined("db"), defined("web", "db"))
    scene.routes.joined("web", WEB)
    told(scene)
    scene.routes.opened("db", 5, route(5))
    assert told(scene) == []
    assert scene.routes.target("db").routes == ()
    assert scene.routes.target("nobody").why == "there is no such service"


def test_instances_are_one_target_with_a_route_each() -> None:
    scene = Neighbourhood(defined("pool.0"), defined("pool.1"), defined("web", "pool.0", "pool.1"))
    scene.routes.joined("web", WEB)
    assert told(scene) == [
        (WEB, "pool", (), "none of its 2 instances runs (pool.0: unloaded: registered)"),
    ]
    first, second = scene.starts("pool.0"), scene.starts("pool.1")
    assert told(scene)[-1] == (WEB, "pool", (1000 + first, 1000 + second), "")
    scene.ends("pool.0", first)
    assert told(scene)[0] == (WEB, "pool", (1000 + second,), "")


def test_a_fallback_takes_the_routes_of_what_was_given_up() -> None:
    scene = Neighbourhood(
        defined("db", restart=NEVER, fallback="spare"),
        defined("spare", start=StartMode.MANUAL),
        defined("web", may_call=("db",)),
    )
    scene.routes.joined("web", WEB)
    number = scene.starts("db")
    assert told(scene)[-1][2] == (1000 + number,)
    scene.ends("db", number)
    assert told(scene)[0][2] == ()
    spare = scene.spawned("spare")
    assert told(scene)[-1] == (WEB, "db", (1000 + spare,), "")
    assert scene.registry.covered_by("spare") == ["db"]
    again = scene.starts("db")
    assert told(scene)[-1] == (WEB, "db", (1000 + again,), "")


def test_a_new_configuration_holds_at_once() -> None:
    old = defined("db"), defined("mail"), defined("web", "db")
    scene = Neighbourhood(*old)
    number = scene.starts("mail")
    scene.routes.joined("web", WEB)
    told(scene)
    assert scene.routes.is_heard("db")
    assert not scene.routes.is_heard("mail")
    new = defined("db"), defined("mail"), defined("web", may_call=("mail",))
    scene.registry.change(ClusterSpec("shop", (), new))
    news = [message for _, message in scene.news()]
    assert news[0] == RouteChanged(WEB, "db", (), "it is not permitted any more", permitted=False)
    assert news[1] == RouteChanged(WEB, "mail", (route(number),))
    assert scene.routes.is_heard("mail")
    assert not scene.routes.is_heard("db")
    scene.starts("db")
    assert told(scene) == []


def test_on_demand_is_said() -> None:
    scene = Neighbourhood(defined("db", start=StartMode.ON_DEMAND), defined("web", may_call=("db",)))
    scene.routes.joined("web", WEB)
    ((_, message),) = scene.news()
    assert isinstance(message, RouteChanged)
    assert message.on_demand
