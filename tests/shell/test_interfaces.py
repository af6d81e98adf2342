"""What of an interface a new version would break, by table: described as stubs do it, compared by the controller.

Must not test the refusal of an update (the core's tests do).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any

import pytest

from svcd import Service, on_event, rpc
from svcd.protocol.messages import InterfaceReported, MethodDescribed
from svcd.supervisor.controller.python.interfaces import SHOWN, Interfaces
from svcd.worker_runtime.calls.describing import interface_of


def service(*methods: Any) -> type:
    return type("Tills", (Service,), {each.__name__: each for each in methods})


def differences(old: object, new: object) -> list[str]:
    interfaces = Interfaces()
    for invocation, each in ((1, old), (2, new)):
        found = interface_of(each, "till", invocation)
        if found is not None:
            interfaces.reported(found)
    return list(interfaces.differences(1, 2))


def _plain() -> Any:
    @rpc
    def charge(self: Any, user: str, cents: int, note: str = "") -> int: ...

    return charge


def _same_but_wider() -> Any:
    @rpc
    async def charge(self: Any, user: str | None, cents: int | float, note: str = "", more: bool = False) -> int: ...

    return charge


def _without_note() -> Any:
    @rpc
    def charge(self: Any, user: str, cents: int) -> int: ...

    return charge


def _needs_more() -> Any:
    @rpc
    def charge(self: Any, user: str, cents: int, note: str, currency: str) -> int: ...

    return charge


def _narrower() -> Any:
    @rpc
    def charge(self: Any, user: str, cents: bool, note: str = "") -> int: ...

    return charge


def _other_result() -> Any:
    @rpc
    def charge(self: Any, user: str, cents: int, note: str = "") -> int | None: ...

    return charge


def _other_order() -> Any:
    @rpc
    def charge(self: Any, cents: int, user: str, note: str = "") -> int: ...

    return charge


def _stream() -> Any:
    @rpc
    def charge(self: Any, user: str, cents: int, note: str = "") -> Iterator[int]:
        yield 1

    return charge


def _without_annotations() -> Any:
    @rpc
    def charge(self, user, cents, note=""): ...  # type: ignore[no-untyped-def]

    return charge


def _any_arguments() -> Any:
    @rpc
    def refund(self: Any) -> None: ...

    return refund


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ((_plain,), (_plain,), []),
        ((_plain,), (_same_but_wider,), []),
        ((_plain,), (_plain, _any_arguments), []),
        ((), (_plain,), []),
        ((_plain,), (), ["charge() is gone"]),
        ((_plain, _any_arguments), (_plain,), ["refund() is gone"]),
        ((_plain,), (_without_note,), ["charge() has no parameter note any more"]),
        ((_plain,), (_needs_more,), ["charge() needs note, which had a default", "charge() needs currency"]),
        ((_plain,), (_narrower,), ["charge() takes cents: bool, not int"]),
        ((_narrower,), (_plain,), ["charge() takes cents: int, not bool"]),
        ((_plain,), (_other_result,), ["charge() returns int | None, not int"]),
        ((_other_result,), (_plain,), []),
        ((_plain,), (_other_order,), ["charge() takes its arguments in another order: cents, user, note"]),
        ((_plain,), (_stream,), ["charge() is a stream"]),
        ((_stream,), (_plain,), ["charge() is no stream any more"]),
        ((_plain,), (_without_annotations,), ["charge() returns anything, not int"]),
        (
            (_without_annotations,),
            (_plain,),
            ["charge() takes user: str, not anything", "charge() takes cents: int, not anything",
             "charge() takes note: str, not anything"],
        ),
    ],
)  # fmt: skip
def test_what_callers_would_miss(old: tuple[Any, ...], new: tuple[Any, ...], found: list[str]) -> None:
    assert differences(service(*(each() for each in old)), service(*(each() for each in new))) == found


def test_who_has_offered_nothing_breaks_nobody() -> None:
    assert differences(lambda ctx: None, service(_plain())) == []
    assert differences(service(_plain()), lambda ctx: None) == ["charge() is gone"]


def test_events_that_nobody_hears_any_more() -> None:
    class Old(Service):
        @on_event("orders.created", "orders.paid")
        async def heard(self, event: Any) -> None: ...

    class New(Service):
        @on_event("orders.created", "clock.ticked")
        async def hears(self, event: Any) -> None: ...

    assert differences(Old, New) == ["it does not listen to orders.paid any more"]


class Colour(Enum):
    RED = "red"


@dataclass
class Order:
    user: str
    colour: Colour
    lines: list[str] = field(default_factory=list)
    before: Order | None = None


def _order_of(order: type) -> type:
    @rpc
    async def take(self: Any, order: order) -> AsyncIterator[dict[str, order]]:  # type: ignore[valid-type]
        yield {}

    take.__annotations__ = {"order": Annotated[order, "of today"], "return": AsyncIterator[dict[str, order]]}  # type: ignore[valid-type]
    return service(take)


def test_dataclasses_are_what_they_hold_wherever_they_are() -> None:
    found = interface_of(_order_of(Order), "till", 1)
    assert found is not None
    words = "Order(user: str, colour: Colour('red'), lines: list[str] = …, before: Order(…) | None = …)"
    assert found.methods[0].parameters[0]["annotation"] == words
    assert found.methods[0].result == f"dict[str, {words}]"

    @dataclass
    class Other:
        user: str

    (taken, returned) = differences(_order_of(Order), _order_of(Other))
    assert taken.startswith("take() takes order: ")
    assert "Other(user: str), not Order(" in taken
    assert returned.startswith("take() returns dict[str, ")


def test_hostile_descriptions_are_bounded_and_harmless() -> None:
    interfaces = Interfaces()
    interfaces.reported(InterfaceReported("till", 1, (MethodDescribed("x", parameters=({"name": 5},)),)))
    assert interfaces.differences(1, 2) == ()
    many = tuple(MethodDescribed("m" * 10_000) for _ in range(SHOWN + 5))
    interfaces.reported(InterfaceReported("till", 1, many))
    found = interfaces.differences(1, 2)
    assert found[-1] == "and 5 more"
    assert max(map(len, found)) <= 300
    interfaces.forget(1)
    assert interfaces.differences(1, 2) == ()
