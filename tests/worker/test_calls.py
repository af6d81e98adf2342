"""Calls between services: results, refusals, deadlines, cancellation, losses, and what each of them leaves behind."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from svcd.protocol.call_errors import (
    CallRefused,
    DeadlineExceeded,
    Draining,
    PermissionDenied,
    RemoteError,
    ServiceUnavailable,
)
from svcd.worker_runtime.calls.cancellation import Token
from svcd.worker_runtime.calls.endpoint import Bounds
from svcd.worker_runtime.calls.link import Pending
from svcd.worker_runtime.calls.methods import on_event, rpc
from svcd.worker_runtime.calls.peers import Peers
from svcd.worker_runtime.calls.request import Request, current
from svcd.worker_runtime.calls.wire_socket import Peer, WireSocket
from tests.worker.peers_stage import Stage, play, raised, settled


@dataclass
class User:
    name: str
    born: datetime | None = None


class Hostile(Exception):  # noqa: N818 - it is what it is called
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Billing:
    peers: Peers

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.ended: list[str] = []
        self.thread_go_on = threading.Event()

    @rpc
    async def charge(self, user: str, cents: int = 1) -> dict[str, int]:
        return {user: cents}

    @rpc
    async def greet(self, user: User) -> User:
        assert type(user) is User
        return User(user.name.upper(), user.born)

    @rpc
    async def echo(self, value):  # type: ignore[no-untyped-def]
        return value

    @rpc
    def plain(self, cents: int) -> int:
        assert threading.current_thread() is not threading.main_thread()
        return cents + 1

    @rpc
    async def wait(self) -> str:
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("well")
        return "done"

    @rpc
    def block(self) -> bool:
        self.peers._loop.call_soon_threadsafe(self.begun.set)
        request = current.get()
        assert request is not None
        found = request.token.wait(30)
        self.ended.append("found its token cancelled" if found else "waited in vain")
        return found

    @rpc
    async def fail(self, how: str) -> None:
        if how == "hostile":
            raise Hostile
        if how == "cancelled":
            raise asyncio.CancelledError
        raise ValueError(f"cannot: {how}")

    @rpc
    async def lie(self) -> int:
        return "no int"  # type: ignore[return-value]

    @rpc
    async def stranger(self) -> Any:
        return object()

    @rpc
    async def nested(self, timeout: float) -> float:
        request = current.get()
        assert request is not None
        assert request.deadline_s is not None
        inner = await self.peers.call("ledger.left", timeout=timeout)
        return request.deadline_s - inner  # type: ignore[no-any-return]

    @rpc
    def nested_in_a_thread(self) -> Any:
        return self.peers.call_sync("ledger.left")

    async def hidden(self) -> None: ...


class Ledger:
    @rpc
    async def left(self) -> float:
        request = current.get()
        assert request is not None
        assert request.deadline_s is not None
        return request.deadline_s


# ---- results ---------------------------------------------------------------------------------------------------------


def test_a_call_and_its_result() -> None:
    async def scene(stage: Stage) -> None:
        stage.serve(Billing())
        caller = stage.client()
        assert await caller.call("billing.charge", user="ann", cents=5) == {"ann": 5}
        assert await caller.call("billing.charge", "ann", 5) == {"ann": 5}
        assert await caller.call("billing.charge", "ann") == {"ann": 1}
        assert await caller.call("billing.plain", 1) == 2
        assert await caller.call("billing.echo", None) is None
        assert stage.callers[0] == Peer(os.getpid(), os.getuid(), os.getgid())

    play(scene)


def test_many_calls_at_once_on_one_connection() -> None:
    async def scene(stage: Stage) -> None:
        stage.serve(Billing())
        caller = stage.client()
        many = [caller.call("billing.echo", index) for index in range(1000)]
        assert await asyncio.gather(*many) == list(range(1000))
        assert len(stage.callers) == 1

    play(scene)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 32767, 32768, 65536, 10_000_000])
def test_bytes_of_all_sizes(size: int) -> None:
    async def scene(stage: Stage) -> None:
        stage.serve(Billing())
        assert await stage.client().call("billing.echo", bytes(size)) == bytes(size)

    play(scene)


def test_large_arrays_in_both_directions_at_once() -> None:
    numpy = pytest.importorskip("numpy")

    async def scene(stage: Stage) -> None:
        stage.serve(Billing())
        caller = stage.client()
        arrays = [numpy.full((1000, 1000), index, "f8") for index in range(4)]
        came = await asyncio.gather(*(caller.call("billing.echo", each) for each in arrays))
        assert all((one == other).all() for one, other in zip(arrays, came, strict=True))

    play(scene)


def test_a_proxy_is_of_a_class_or_a_name() -> None:
    async def scene(stage: Stage) -> None:
        with pytest.raises(TypeError, match=r"by its class or its name, not by <.*Ledger object"):
            stage.client().service(Ledger())
        with pytest.raises(TypeError, match="by its class or its name, not by None"):
            await stage.client().lookup(None)

    play(scene)


class Named:
    """Its parameters are called as those of what calls it."""

    @rpc
    async def all(self, name: str, row: int, timeout: float, wait: float, of: str, service: str) -> list[Any]:
        return [name, row, timeout, wait, of, service]

    @rpc
    async def rows(self, name: str, row: int, timeout: float) -> AsyncIterator[Any]:
        yield name
        yield row
        yield timeout

    peers: Any


def test_a_proxy_takes_parameters_of_every_name() -> None:
    given = {"name": "a", "row": 1, "timeout": 2.0, "wait": 3.0, "of": "b", "service": "c"}

    async def scene(stage: Stage) -> None:
        stage.serve(Named())
        caller = stage.client()
        for of in (Named, "named"):
            assert await caller.service(of).all(**given) == list(given.values())
        rows = caller.service(Named).rows(name="a", row=1, timeout=2.0)
        assert [each async for each in rows] == ["a", 1, 2.0]

    play(scene)


def test_a_proxy_checks_on_this_side_and_gives_objects_back() -> None:
    async def scene(stage: Stage) -> None:
        billing: Any = stage.serve(Billing())
        proxy = stage.client().service(Billing)
        assert await proxy.greet(User("ann", datetime(2026, 1, 2))) == User("ANN", datetime(2026, 1, 2))
        error = await raised(proxy.charge(user=5))  # type: ignore[arg-type]
        assert isinstance(error, CallRefused)
        assert "user must be str, not int" in str(error)
        assert not billing.endpoint.callers or billing.endpoint.in_flight.count == 0
        with pytest.raises(AttributeError, match="offers no 'hidden', but block, charge"):
            _ = proxy.hidden
        assert await stage.client().service("billing").charge("bob") == {"bob": 1}  # type: ignore[attr-defined]

    play(scene)


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "args", "named", "words"),
    [
        ("charge", [], {}, r"it lacks user: charge\(user: .*str.*, cents: .*int.* = 1\)"),
        ("charge", ["ann", "5"], {}, "cents must be int, not str"),
        ("charge", ["ann", True], {}, "cents must be int, not bool"),
        ("charge", ["ann", 1, 2], {}, "it takes 2 arguments, not 3"),
        ("charge", ["ann"], {"user": "bob"}, "got 'user' twice"),
        ("charge", ["ann"], {"dollars": 1}, "no parameter 'dollars'"),
        ("greet", [{"name": "ann", "age": 5}], {}, "user: User has no 'age'"),
        ("greet", [{}], {}, "user: User lacks 'name'"),
        ("greet", [{"name": 1}], {}, "user.name must be str, not int"),
        ("hidden", [], {}, "billing has no method 'hidden'"),
        ("chrge", [], {}, "did you mean 'charge'"),
        ("__init__", [], {}, "billing has no method"),
        ("echo", [object()], {}, "object cannot travel"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(name: str, args: list[Any], named: dict[str, Any], words: str) -> None:
    async def scene(stage: Stage) -> None:
        billing = stage.serve(Billing())
        caller = stage.client()
        with pytest.raises(CallRefused, match=words):
            await caller.call(f"billing.{name}", *args, **named)
        assert await caller.call("billing.charge", "ann") == {"ann": 1}
        assert billing.endpoint is not None
        assert billing.endpoint.in_flight.count == 0

    play(scene)


def test_a_message_that_is_too_large_is_refused_and_the_connection_goes_on() -> None:
    async def scene(stage: Stage) -> None:
        stage.serve(Billing(), bounds=Bounds(message_bytes=1_000_000))
        caller = stage.client()
        waits = asyncio.ensure_future(caller.call("billing.wait"))
        with pytest.raises(CallRefused, match=r"billing.echo: 10000\d\d\d bytes or more; it takes 1000000"):
            await caller.call("billing.echo", bytes(10_000_000))
        assert await caller.call("billing.charge", "ann") == {"ann": 1}
        assert not waits.done()
        waits.cancel()
        assert len(stage.callers) == 1

    play(scene)


def test_a_gibibyte_is_refused_before_it_is_sent() -> None:
    numpy = pytest.importorskip("numpy")

    async def scene(stage: Stage) -> None:
        stage.serve(Billing())
        with pytest.raises(CallRefused, match="at most"):
            await stage.client().call("billing.echo", numpy.zeros(2**30, "u1"))

    play(scene)


def test_who_may_not_call_is_told_so() -> None:
    def check(peer: Peer) -> str:
        raise PermissionDenied(f"process {peer.pid} may not call billing")

    async def scene(stage: Stage) -> None:
        stage.serve(Billing(), check=check)
        with pytest.raises(PermissionDenied, match=f"process {os.getpid()} may not call billing"):
            await stage.client().call("billing.charge", "ann")

    play(scene)


def test_what_is_no_dependency_is_not_even_looked_for() -> None:
    async def scene(stage: Stage) -> None:
        with pytest.raises(PermissionDenied, match=r"neither in depends_on nor in permissions\.services"):
            await stage.client(permits=lambda service: False).call("billing.charge", "ann", wait=20)

    play(scene)


@pytest.mark.parametrize("name", ["", "billing", ".charge", "billing.", None])
def test_a_call_of_no_name(name: Any) -> None:
    async def scene(stage: Stage) -> None:
        with pytest.raises(ValueError, match=r'name it "service\.method"'):
            await stage.client().call(name)

    play(scene)


# ---- what methods raise ----------------------------------------------------------------------------------------------


def test_an_exception_arrives_with_its_traceback() -> None:
    async def scene(stage: Stage) -> None:
        stage.serve(Billing())
        with pytest.raises(RemoteError) as caught:
            await stage.client().call("billing.fail", "at all")
        error = caught.value
        assert (error.type, error.text) == ("ValueError", "cannot: at all")
        assert error.args == ("billing.fail raised ValueError: cannot: at all",)
        assert "in fail" in error.traceback
        assert error.traceback in str(error) + "\n"
        assert "endpoint.py" not in error.traceback
        assert [(method, type(each)) for method, each in stage.errors] == [("fail", ValueError)]

    play(scene)


def test_an_exception_whose_words_raise() -> None:
    async def scene(stage: Stage) -> None:
        stage.serve(Billing())
        with pytest.raises(RemoteError, match=r"billing.fail raised Hostile: <RuntimeError in its __str__>"):
            await stage.client().call("billing.fail", "hostile")

    play(scene)


def test_a_method_that_cancels_itself() -> None:
    async def scene(stage: Stage) -> None:
        stage.serve(Billing())
        with pytest.raises(RemoteError, match="raised CancelledError"):
            await stage.client().call("billing.fail", "cancelled")

    play(scene)


@pytest.mark.parametrize(
    ("name", "words"), [("lie", "its result must be int, not str"), ("stranger", "builtins.object cannot travel")]
)
def test_a_result_that_is_not_as_promised(name: str, words: str) -> None:
    """The caller is told once who it was; the service's own record has no line of code that would say it."""

    async def scene(stage: Stage) -> None:
        stage.serve(Billing())
        error = await raised(stage.client().call(f"billing.{name}"))
        assert str(error).splitlines()[0] == f"billing.{name} raised BadResult: {words}"
        assert [str(each) for _method, each in stage.errors] == [f"billing.{name}: {words}"]

    play(scene)


class Hidden:
    """It has a number, and things, where it has methods."""

    def __init__(self, **own: Any) -> None:
        vars(self).update(own)

    @rpc
    async def total(self) -> int:
        return 1

    @on_event("orders.made")
    async def made(self, order: int) -> None: ...

    peers: Any


def test_a_method_that_its_object_hides_is_told_at_the_start() -> None:
    """Not with each call, as something that cannot be called, without a line of whose fault it is."""

    async def scene(stage: Stage) -> None:
        for own, kind in (("total", "int"), ("made", "int")):
            words = rf"cannot offer Hidden\.{own}: self\.{own} = … has put {kind} in its place; rename one of them"
            with pytest.raises(TypeError, match=words):
                stage.serve(Hidden(**{own: 3}))

        async def five() -> int:
            return 5

        stage.serve(Hidden(total=five), "own")
        assert await stage.client().call("own.total") == 5

    play(scene)


class Hasty:
    """Its author has forgotten something."""

    @rpc
    def plain(self) -> int:
        return self.peers.call("ledger.left")  # type: ignore[no-any-return]

    @rpc
    async def unannotated(self):  # type: ignore[no-untyped-def]
        return self.peers.call("ledger.left")

    peers: Any


@pytest.mark.parametrize("method", ["plain", "unannotated"])
def test_a_result_that_nobody_has_awaited(method: str) -> None:
    async def scene(stage: Stage) -> None:
        stage.serve(Hasty())
        words = r"returned the coroutine call\(\): await it in an async method; plain ones have ctx\.call_sync\(\)"
        with pytest.raises(RemoteError, match=words):
            await stage.client().call(f"hasty.{method}")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            gc.collect()

    play(scene)


# ---- deadlines and cancellation --------------------------------------------------------------------------------------


def test_a_deadline_ends_the_call_and_the_method() -> None:
    async def scene(stage: Stage) -> None:
        billing = Billing()
        served = stage.serve(billing)
        caller = stage.client()
        for timeout in (0.05, 1, 10):  # as long as it takes here until it has begun
            error = await raised(caller.call("billing.wait", timeout=timeout))
            if billing.begun.is_set():
                break
        assert isinstance(error, DeadlineExceeded)
        assert isinstance(error, TimeoutError)
        assert str(error) == "billing.wait did not answer in time"
        assert served.endpoint is not None
        await settled(lambda: billing.ended == ["cancelled"])

    play(scene)


def test_who_is_cancelled_cancels_the_method() -> None:
    async def scene(stage: Stage) -> None:
        billing = Billing()
        stage.serve(billing)
        caller = stage.client()
        call = asyncio.ensure_future(caller.call("billing.wait"))
        await billing.begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await settled(lambda: billing.ended == ["cancelled"])
        assert not stage.errors

    play(scene)


def test_a_method_in_a_thread_finds_its_token_cancelled() -> None:
    async def scene(stage: Stage) -> None:
        billing = Billing()
        stage.serve(billing)
        call = asyncio.ensure_future(stage.client().call("billing.block"))
        await billing.begun.wait()
        call.cancel()
        await settled(lambda: billing.ended == ["found its token cancelled"])

    play(scene)


def test_what_is_cancelled_before_it_was_sent_is_never_begun() -> None:
    async def scene(stage: Stage) -> None:
        billing = Billing()
        stage.serve(billing)
        caller = stage.client()
        calls = [asyncio.ensure_future(caller.call("billing.wait")) for _ in range(10)]
        await asyncio.sleep(0)  # they have said it; nothing is out: the handshake is not over
        for each in calls:
            each.cancel()
        await asyncio.wait(calls)
        (link,) = caller._caller._open
        assert link._wire.backlog_bytes == 0
        assert await caller.call("billing.charge", "ann") == {"ann": 1}
        assert not billing.begun.is_set()

    play(scene)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_of_nothing(timeout: float) -> None:
    async def scene(stage: Stage) -> None:
        with pytest.raises(ValueError, match="more than 0 seconds"):
            await stage.client().call("billing.charge", timeout=timeout)

    play(scene)


@pytest.mark.parametrize(
    ("times", "kind", "words"),
    [
        ({"timeout": "5"}, TypeError, "a timeout is a number of seconds, not '5'"),
        ({"timeout": timedelta(5)}, TypeError, r"a timeout is a number of seconds, not datetime\.timedelta\(days=5\)"),
        ({"wait": "5s"}, TypeError, "a wait is a number of seconds, not '5s'"),
        ({"wait": -1}, ValueError, "a wait must be 0 seconds or more, not -1"),
        ({"wait": float("nan")}, ValueError, "a wait must be 0 seconds or more, not nan"),
    ],
)
def test_times_that_are_none(times: dict[str, Any], kind: type[Exception], words: str) -> None:
    """Told even where the service runs, so that nobody is surprised once it does not."""

    async def scene(stage: Stage) -> None:
        stage.serve(Billing())
        caller = stage.client()
        with pytest.raises(kind, match=words):
            await caller.call("billing.charge", "ann", **times)
        with pytest.raises(kind, match=words):
            await anext(caller.stream("billing.charge", "ann", **times))
        if "wait" in times:
            with pytest.raises(kind, match=words):
                await caller.lookup("billing", **times)

    play(scene)


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, 2e9])
def test_a_timeout_for_ever(timeout: float) -> None:
    async def scene(stage: Stage) -> None:
        stage.serve(Billing())
        caller = stage.client()
        assert await caller.call("billing.charge", "ann", timeout=timeout, wait=timeout) == {"ann": 1}
        request = Request(1, "nested", "tester", 7.0, Token(), is_sync=False)
        current.set(request)
        assert caller._caller.deadline(timeout, None, 5.0) == 7.0

    play(scene)


def test_a_call_that_cannot_be_said_leaves_nothing_behind() -> None:
    """Its future would be told of the connection's end with nobody there to hear it, which asyncio complains of."""

    async def scene(stage: Stage) -> None:
        stage.serve(Billing())
        caller = stage.client()
        link = caller._caller._link("billing")
        with pytest.raises(OverflowError):
            link.begin("charge", [], 1e300, 0, Pending("billing.charge", None))
        assert not link.pending

    play(scene)


def test_deadlines_are_handed_on() -> None:
    async def scene(stage: Stage) -> None:
        stage.serve(Billing())
        stage.serve(Ledger())
        caller = stage.client()
        for routes in stage.routes:
            routes.set_route("ledger", stage.found["ledger"])
        later = await caller.call("billing.nested", 25.0, timeout=20)
        assert abs(later) < 0.001, "the inner call had more time than the outer one"
        assert await caller.call("billing.nested", 8.0, timeout=20) > 10
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        deadline_s = await caller.call("billing.nested_in_a_thread", timeout=7)
        assert began_s + 6.9 < deadline_s < loop.time() + 7.1

    play(scene)


# ---- losses and draining ---------------------------------------------------------------------------------------------


def test_a_lost_callee_is_an_error_at_once() -> None:
    async def scene(stage: Stage) -> None:
        billing = Billing()
        served = stage.serve(billing)
        call = asyncio.ensure_future(stage.client().call("billing.wait", timeout=1000))
        await billing.begun.wait()
        served.close()
        with pytest.raises(ServiceUnavailable, match=r"billing was lost before billing\.wait had ended"):
            await call
        await settled(lambda: billing.ended == ["cancelled"])

    play(scene)


def test_a_service_that_does_not_run() -> None:
    async def scene(stage: Stage) -> None:
        caller = stage.client()
        with pytest.raises(ServiceUnavailable, match="cannot call billing: it does not run"):
            await caller.call("billing.charge", "ann")
        stage.routes[0].withdraw("billing", "it is in backoff, next try in 1.6 s")
        with pytest.raises(ServiceUnavailable, match="cannot call billing: it is in backoff") as caught:
            await caller.call("billing.charge", "ann", wait=0.01)
        assert caught.value.__suppress_context__  # how that was found out is nobody's concern

    play(scene)


def test_who_asks_again_and_again_without_a_pause_lets_the_loop_turn() -> None:
    """Or nobody in this process ever hears that the service is back, nor that it is to stop."""

    async def scene(stage: Stage) -> None:
        caller = stage.client()
        asyncio.get_running_loop().call_soon(stage.serve, Billing())
        for _ in range(3):
            try:
                assert await caller.call("billing.charge", "ann") == {"ann": 1}
            except ServiceUnavailable:
                continue
            return
        raise AssertionError("it has not heard of it")

    play(scene)


@pytest.mark.parametrize("on_demand", [True, False])
def test_who_waits_for_a_service_gets_it_when_it_is_there(on_demand: bool) -> None:
    """What starts on demand is asked for, and waited for without a word; what does not is nobody's to start."""

    async def scene(stage: Stage) -> None:
        asked: list[str] = []
        caller = stage.client(on_missing=asked.append)
        routes = stage.routes[0]
        if on_demand:
            routes.on_demand.add("billing")
        call = asyncio.ensure_future(caller.call("billing.charge", "ann", wait=None if on_demand else 20))
        await settled(lambda: "billing" in routes._waiting)
        assert asked == (["billing"] if on_demand else [])
        stage.serve(Billing())
        assert await call == {"ann": 1}

    play(scene)


def test_what_does_not_come_up_on_demand_is_told_to_all_who_wait() -> None:
    async def scene(stage: Stage) -> None:
        caller = stage.client()
        routes = stage.routes[0]
        routes.on_demand.add("billing")
        calls = [asyncio.ensure_future(raised(caller.call("billing.charge", "ann"))) for _ in range(3)]
        await settled(lambda: len(routes._waiting.get("billing", ())) == 3)
        routes.missed("billing", "it has failed")
        told = [await each for each in calls]
        assert [str(each) for each in told] == ["cannot call billing: it has failed"] * 3
        assert {type(each) for each in told} == {ServiceUnavailable}
        assert all(each.__suppress_context__ for each in told)
        assert not routes._waiting

    play(scene)


def test_a_start_on_demand_that_fails_is_asked_for_once_whatever_is_told_first() -> None:
    """Its states are told beside the end of what was asked: on a machine that stands still, all in the same moment."""

    async def scene(stage: Stage) -> None:
        asked: list[str] = []
        caller = stage.client(on_missing=asked.append)
        routes = stage.routes[0]
        routes.on_demand.add("billing")
        call = asyncio.ensure_future(raised(caller.call("billing.charge", "ann")))
        await settled(lambda: "billing" in routes._waiting)
        routes.withdraw("billing", "it is starting")
        routes.withdraw("billing", "it is failed: no disk")
        routes.missed("billing", "billing failed: no disk")
        assert str(await call) == "cannot call billing: billing failed: no disk"
        assert asked == ["billing"]

    play(scene)


def test_what_went_before_anybody_could_call_it_is_asked_for_anew() -> None:
    async def scene(stage: Stage) -> None:
        asked: list[str] = []
        caller = stage.client(on_missing=asked.append)
        routes = stage.routes[0]
        routes.on_demand.add("billing")
        call = asyncio.ensure_future(caller.call("billing.charge", "ann"))
        await settled(lambda: "billing" in routes._waiting)
        routes.withdraw("billing", "it is stopped: not used")
        routes.came("billing")
        await settled(lambda: asked == ["billing", "billing"])
        stage.serve(Billing())
        assert await call == {"ann": 1}

    play(scene)


def test_a_new_instance_takes_over_from_one_that_drains() -> None:
    """As at a hot update: not one call fails, whatever the order in which things become known."""

    async def scene(stage: Stage) -> None:
        old, new = Billing(), Billing()
        first = stage.serve(old)
        caller = stage.client()
        under_way = asyncio.ensure_future(caller.call("billing.wait"))
        await old.begun.wait()
        assert first.endpoint is not None
        drain = asyncio.ensure_future(first.drain(20))
        await asyncio.sleep(0)
        with pytest.raises(Draining, match="billing takes no new requests: it is about to stop"):
            await caller.call("billing.charge", "ann")
        late = asyncio.ensure_future(caller.call("billing.charge", "bob", wait=20))
        second = stage.serve(new, announce=False)
        stage.announce("billing", (second.address,))  # type: ignore[attr-defined]
        assert await late == {"bob": 1}
        old.go_on.set()
        assert await under_way == "done"
        assert await drain == 0

    play(scene)


def test_a_drain_is_bounded_and_says_what_is_left() -> None:
    async def scene(stage: Stage) -> None:
        billing = Billing()
        served = stage.serve(billing)
        call = asyncio.ensure_future(stage.client().call("billing.wait"))
        await billing.begun.wait()
        assert await served.drain(0.01) == 1
        assert billing.ended == []
        served.primary.cancel("stop")
        with pytest.raises(ServiceUnavailable, match="billing was stopped before it answered: stop"):
            await call
        assert await served.drain(20) == 0
        assert billing.ended == ["cancelled"]

    play(scene)


def test_too_many_in_flight_are_refused_and_not_queued() -> None:
    async def scene(stage: Stage) -> None:
        billing = Billing()
        stage.serve(billing, bounds=Bounds(in_flight=3))
        caller = stage.client()
        calls = [asyncio.ensure_future(caller.call("billing.wait")) for _ in range(3)]
        await billing.begun.wait()
        with pytest.raises(ServiceUnavailable, match="billing has 3 requests in flight"):
            await caller.call("billing.charge", "ann")
        billing.go_on.set()
        assert await asyncio.gather(*calls) == ["done"] * 3

    play(scene)


def test_the_instance_with_the_least_in_flight_is_asked() -> None:
    async def scene(stage: Stage) -> None:
        several = [Billing(), Billing(), Billing()]
        for each in several:
            stage.serve(each)
        caller = stage.client()
        calls = [asyncio.ensure_future(caller.call("billing.wait")) for _ in range(3)]
        await asyncio.gather(*(each.begun.wait() for each in several))
        several[1].go_on.set()
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        several[1].begun.clear()
        calls.append(asyncio.ensure_future(caller.call("billing.wait")))
        await several[1].begun.wait()
        for each in several:
            each.go_on.set()
        assert await asyncio.gather(*calls) == ["done"] * 4

    play(scene)


@pytest.mark.parametrize("others", [0, 2])
def test_what_had_not_gone_out_to_one_that_was_lost_is_asked_of_another(
    monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """Once of each: where all are lost, that is the answer."""

    async def scene(stage: Stage) -> None:
        caller = stage.client()
        lost = stage.serve(Billing())
        assert await caller.call("billing.charge", "ann") == {"ann": 1}
        link = next(iter(caller._caller._links.values()))
        with monkeypatch.context() as patched:
            patched.setattr(WireSocket, "_flush", lambda wire: None)
            calls = [asyncio.ensure_future(caller.call("billing.charge", "bob")) for _ in range(2)]
            await settled(lambda: len(link.pending) == 2)
            lost.close()
            for _ in range(others):
                stage.serve(Billing())
            link.close("Connection reset by peer")
        told = await asyncio.gather(*calls, return_exceptions=True)
        if others:
            assert told == [{"bob": 1}] * 2
        else:
            assert list(map(str, told)) == ["billing cannot be reached: Connection reset by peer"] * 2

    play(scene)


def test_a_process_that_listens_there_and_should_not_is_not_called() -> None:
    async def scene(stage: Stage) -> None:
        served: Any = stage.serve(Billing())
        caller = stage.client()
        stage.routes[-1].set_route("billing", (type(served.address)(served.address.calls, None, 1),))
        with pytest.raises(ServiceUnavailable, match="another process than 1 listens there"):
            await caller.call("billing.charge", "ann")

    play(scene)


@pytest.mark.parametrize(
    ("reads", "words"),
    [
        (True, "billing takes no new requests: it is about to stop"),
        (False, "billing has ended before it began with billing.charge"),
    ],
)
def test_what_was_on_its_way_when_the_callee_closed_was_not_begun(
    monkeypatch: pytest.MonkeyPatch, reads: bool, words: str
) -> None:
    """Whatever it had not begun goes to the next one, and fails nobody who waits; had it read that or not."""

    async def scene(stage: Stage) -> None:
        old = stage.serve(Billing())
        caller = stage.client()
        assert await caller.call("billing.charge", "ann") == {"ann": 1}
        link = next(iter(caller._caller._links.values()))
        calls = [asyncio.ensure_future(caller.call("billing.charge", "bob", wait=20)) for _ in range(3)]
        unwilling = asyncio.ensure_future(raised(caller.call("billing.charge", "bob")))
        await asyncio.sleep(0)
        link._wire._flush()
        assert all(each.begun for each in link.pending.values())
        with monkeypatch.context() as patched:
            if not reads:
                patched.setattr(WireSocket, "_read", lambda wire: None)
            old.close()
        error = await unwilling
        assert isinstance(error, Draining)
        assert str(error) == words
        stage.announce("billing", ())
        stage.serve(Billing())
        assert [await each for each in calls] == [{"bob": 1}] * 3

    play(scene)
