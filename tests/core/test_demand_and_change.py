"""What is awaited on the sockets of a service follows what the service is."""

from __future__ import annotations

from dataclasses import replace

from svcd.supervisor.core import actions, events
from svcd.supervisor.core.machine import Machine
from svcd.supervisor.core.spec import ServiceSpec, StartMode

WEB = ServiceSpec("web", start=StartMode.ON_DEMAND)
AWAITS, CEASES = actions.AwaitDemand("web"), actions.CeaseAwaitingDemand("web")


def change(spec: ServiceSpec, request: str = "r") -> events.ConfigurationApplied:
    return events.ConfigurationApplied(2.0, request, changed=(events.SpecChange(spec, False),))


def test_it_is_awaited_from_its_registration_on() -> None:
    machine = Machine()
    assert machine.handle(events.ServicesRegistered(1.0, (WEB, ServiceSpec("other")))) == [AWAITS]


def test_it_is_awaited_no_more_when_it_is_no_longer_on_demand() -> None:
    machine = Machine()
    machine.handle(events.ServicesRegistered(1.0, (WEB,)))
    assert CEASES in machine.handle(change(replace(WEB, start=StartMode.MANUAL)))
    assert machine.handle(events.DemandArose(3.0, "web")) == []
    assert AWAITS in machine.handle(change(WEB, "r2"))


def test_it_is_not_awaited_once_it_is_removed() -> None:
    machine = Machine()
    machine.handle(events.ServicesRegistered(1.0, (WEB,)))
    told = machine.handle(events.ConfigurationApplied(2.0, "r", removed=("web",)))
    assert actions.ForgetService("web") in told
    assert AWAITS not in told
    assert machine.handle(events.DemandArose(3.0, "web")) == []
