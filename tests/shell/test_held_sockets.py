"""Held sockets: what is opened, what stays, what is told when it cannot be, who gets it, and who has come."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from guarded import PATH, Guarded, wait_until

from svcd.record import as_dict
from svcd.supervisor.config.launch import LaunchSpec, Program, ServiceDefinition, SocketSpec
from svcd.supervisor.controller.processes.launching import Given
from svcd.supervisor.controller.processes.listening import CannotListen, Listener, Owner, listen
from svcd.supervisor.controller.processes.sockets import HeldSockets, is_waiting
from svcd.supervisor.core.events import DemandArose
from svcd.supervisor.core.spec import ServiceSpec
from svcd.supervisor.wiring import ProgramExecuted

DEADLINE_S = 30.0
LOCAL = "127.0.0.1"

# A server written against sd_listen_fds(3) alone: answers each connection with its pid, the name of the socket, and
# what was said.
SERVER = """
import os, select, socket
assert int(os.environ["LISTEN_PID"]) == os.getpid()
names = os.environ["LISTEN_FDNAMES"].split(":")
count = int(os.environ["LISTEN_FDS"])
assert count == len(names)
sockets = {3 + place: socket.socket(fileno=3 + place) for place in range(count)}
assert all(each.getblocking() and os.get_blocking(fd) for fd, each in sockets.items())
poll = select.poll()
for fd in sockets:
    poll.register(fd, select.POLLIN)
while True:
    for fd, _ in poll.poll():
        if sockets[fd].type == socket.SOCK_DGRAM:
            said, sender = sockets[fd].recvfrom(100)
            sockets[fd].sendto(f"{os.getpid()} {names[fd - 3]} {said.decode()}".encode(), sender)
        else:
            caller, _ = sockets[fd].accept()
            caller.sendall(f"{os.getpid()} {names[fd - 3]} {caller.recv(100).decode()}".encode())
            caller.close()
"""


def service(name: str, *sockets: SocketSpec, group: str = "", **launch: Any) -> ServiceDefinition:
    return ServiceDefinition(ServiceSpec(name), LaunchSpec(Program(("true",)), "/", sockets=sockets, **launch), group)


def tcp(name: str = "web", port: int = 0, host: str | None = LOCAL, kind: str = "stream") -> SocketSpec:
    return SocketSpec(name, kind, host, port)


def unix(path: Path, kind: str = "stream", **more: Any) -> SocketSpec:
    return SocketSpec("local", kind, path=str(path), **more)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCAL, 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def listening() -> Iterator[Callable[[SocketSpec], Listener]]:
    with contextlib.ExitStack() as stack:

        def make(spec: SocketSpec, owner: Owner | None = None) -> Listener:
            return stack.enter_context(contextlib.closing(listen(spec, owner or Owner())))

        yield make


# ---- one socket ------------------------------------------------------------------------------------------------------


def test_a_tcp_socket_takes_connections_with_nobody_there(listening: Callable[[SocketSpec], Listener]) -> None:
    made = listening(tcp())
    with socket.create_connection(made.socket.getsockname(), DEADLINE_S):
        wait_until(lambda: is_waiting(made), "the connection to be seen at this end as well")
    assert os.get_blocking(made.fileno())
    assert not os.get_inheritable(made.fileno())


@pytest.mark.parametrize("host", [None, "", "*"])
def test_every_address_is_that_of_both_kinds(listening: Callable[[SocketSpec], Listener], host: str | None) -> None:
    port = listening(tcp(host=host)).socket.getsockname()[1]
    for address in ("127.0.0.1", "::1"):
        socket.create_connection((address, port), DEADLINE_S).close()


def test_an_ipv6_address_leaves_ipv4_to_others(listening: Callable[[SocketSpec], Listener]) -> None:
    port = listening(tcp(host="::")).socket.getsockname()[1]
    listening(tcp(host="0.0.0.0", port=port))


def test_a_unix_socket_is_for_its_owner_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    old = os.umask(0)
    try:
        made = listen(unix(path), Owner())
        open_to_all = listen(unix(tmp_path / "open.sock", mode=0o666), Owner())
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert stat.S_IMODE((tmp_path / "open.sock").stat().st_mode) == 0o666
    for each in (made, open_to_all):
        each.close()
    assert os.listdir(tmp_path) == []


def test_a_unix_socket_belongs_to_the_services_user(listening: Callable[..., Listener], tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    listening(unix(tmp_path / "web.sock"), Owner(65534, 65533))
    found = (tmp_path / "web.sock").stat()
    assert (found.st_uid, found.st_gid) == (65534, 65533)


@pytest.mark.parametrize("kind", ["stream", "dgram"])
def test_a_stale_socket_file_makes_room(listening: Callable[[SocketSpec], Listener], tmp_path: Path, kind: str) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listening(unix(path, kind))


@pytest.mark.parametrize("theirs", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("ours", ["stream", "dgram"])
def test_a_socket_where_somebody_listens_stays(tmp_path: Path, theirs: int, ours: str) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX, theirs) as alive:
        alive.bind(str(path))
        if theirs != socket.SOCK_DGRAM:
            alive.listen(1)
        with pytest.raises(CannotListen, match=r"web\.sock.*: somebody listens there already"):
            listen(unix(path, ours), Owner())
        assert path.is_socket()


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for name in ("a", "link"):
        with pytest.raises(CannotListen, match="there is a file that is no socket"):
            listen(unix(tmp_path / name), Owner())
    assert (tmp_path / "a").read_text() == "mine"


def test_a_file_that_others_have_put_in_our_place_stays(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    made = listen(unix(path), Owner())
    path.unlink()
    path.write_text("theirs")
    made.close()
    assert path.read_text() == "theirs"


def test_who_has_the_port_is_told() -> None:
    with socket.socket() as other:
        other.bind((LOCAL, 0))
        other.listen(1)
        port = other.getsockname()[1]
        with pytest.raises(CannotListen) as caught:
            listen(tcp(port=port), Owner())
    name = Path("/proc/self/comm").read_text().strip()
    assert str(caught.value) == f"cannot listen on 127.0.0.1:{port}: Address already in use (pid {os.getpid()}, {name})"


def test_who_has_the_datagram_port_is_told() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((LOCAL, 0))
        port = other.getsockname()[1]
        with pytest.raises(CannotListen, match=rf"127\.0\.0\.1:{port} \(dgram\): Address already in use \(pid "):
            listen(tcp(port=port, kind="dgram"), Owner())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (tcp(port=80, host="no.such.name"), "no.such.name:80: no.such.name is no IP address"),
        (tcp(port=80, host="192.0.2.1"), "192.0.2.1:80: Cannot assign requested address"),
        (tcp(port=80, host="x" * 300), "is no IP address"),
        (SocketSpec("a", path="/no/such/web.sock"), "unix:/no/such/web.sock: there is no directory /no/such"),
        (SocketSpec("a", path="/" + "x" * 200), "AF_UNIX path too long"),
    ],
)
def test_what_else_is_wrong_is_told(spec: SocketSpec, words: str) -> None:
    with pytest.raises(CannotListen) as caught:
        listen(spec, Owner())
    assert str(caught.value).startswith("cannot listen on ")
    assert words in str(caught.value)


# ---- all of them -----------------------------------------------------------------------------------------------------


class Heard:
    """``held`` with a loop, what it submitted, and who was seen to arrive."""

    def __init__(self) -> None:
        self.events: list[DemandArose] = []
        self.arrived: list[str] = []
        self.held = HeldSockets(asyncio.get_running_loop(), self.events.append, self.arrived.append)

    def place(self, name: str, which: int = 0) -> Any:
        return self.held.listeners(name)[which].socket.getsockname()

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.001)


def run(body: Callable[[Heard], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        heard = Heard()
        try:
            await body(heard)
        finally:
            heard.held.close()

    asyncio.run(whole())


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_the_same_sockets_are_handed_over_again_and_again() -> None:
    async def body(heard: Heard) -> None:
        heard.held.adopt(service("a", tcp("x"), tcp("y")))
        first, second = Given(), Given()
        heard.held.give("a", first)
        heard.held.give("a", second)
        assert as_dict(first) == as_dict(second)
        assert list(first.descriptors) == [3, 4]
        assert first.env == {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "x:y"}
        assert first.pid_variables == ("LISTEN_PID",)

    run(body)


def test_a_service_without_sockets_is_given_nothing() -> None:
    async def body(heard: Heard) -> None:
        given = Given()
        heard.held.adopt(service("a"))
        for name in ("a", "unknown"):
            heard.held.give(name, given)
        assert as_dict(given) == as_dict(Given())

    run(body)


def test_a_number_that_is_taken_is_refused() -> None:
    async def body(heard: Heard) -> None:
        heard.held.adopt(service("a", tcp(), tcp("y")))
        with pytest.raises(CannotListen, match="descriptor 4 is meant for something else"):
            heard.held.give("a", Given(descriptors={4: 0}))

    run(body)


def test_what_stays_in_the_configuration_stays_open(tmp_path: Path) -> None:
    async def body(heard: Heard) -> None:
        port = free_port()
        old = service("a", tcp("x", port), unix(tmp_path / "old"))
        heard.held.adopt(old)
        kept = heard.held.listeners("a")[0]
        with socket.create_connection((LOCAL, port), DEADLINE_S):
            heard.held.adopt(service("a", unix(tmp_path / "new"), tcp("renamed", port)))
            assert heard.held.listeners("a")[1] is kept
            wait_until(lambda: is_waiting(kept), "who waits there, goes on waiting")
        assert os.listdir(tmp_path) == ["new"]
        given = Given()
        heard.held.give("a", given)
        assert given.env["LISTEN_FDNAMES"] == "local:renamed"
        heard.held.adopt(service("a"))
        assert os.listdir(tmp_path) == []
        listen(tcp(port=port), Owner()).close()

    run(body)


def test_what_is_forgotten_is_closed(tmp_path: Path) -> None:
    async def body(heard: Heard) -> None:
        heard.held.adopt(service("a", unix(tmp_path / "a")))
        heard.held.await_demand("a")
        heard.held.forget("a")
        assert os.listdir(tmp_path) == []
        heard.held.forget("a")

    run(body)


def test_what_cannot_be_had_is_tried_at_each_spawn() -> None:
    async def body(heard: Heard) -> None:
        port = free_port()
        with socket.socket() as other:
            other.bind((LOCAL, port))
            other.listen(1)
            heard.held.adopt(service("a", tcp(), tcp("y", port)))
            heard.held.adopt(service("b", tcp()))
            with pytest.raises(CannotListen, match=f"127.0.0.1:{port}: Address already in use"):
                heard.held.descriptors("a")
            assert len(heard.held.descriptors("b")) == 1, "it is the matter of that service alone"
        assert len(heard.held.descriptors("a")) == 2

    run(body)


def test_instances_of_one_service_share_an_address_and_others_do_not(tmp_path: Path) -> None:
    async def body(heard: Heard) -> None:
        spec = unix(tmp_path / "a")
        for number in range(3):
            heard.held.adopt(service(f"a.{number}", spec, group="a"))
        heard.held.adopt(service("b", spec))
        assert len({heard.held.descriptors(f"a.{number}") for number in range(3)}) == 1
        with pytest.raises(CannotListen, match=r"unix:.*/a: svcd listens there for a$"):
            heard.held.descriptors("b")
        for number in range(3):
            assert os.listdir(tmp_path) == ["a"]
            heard.held.forget(f"a.{number}")
        assert os.listdir(tmp_path) == []
        assert len(heard.held.descriptors("b")) == 1

    run(body)


# ---- demand ----------------------------------------------------------------------------------------------------------


def test_the_first_connection_is_one_demand() -> None:
    async def body(heard: Heard) -> None:
        port = free_port()
        heard.held.adopt(service("a", tcp(), tcp("y", port)))
        heard.held.await_demand("a")
        await settle()
        assert heard.events == []
        with contextlib.ExitStack() as callers:
            for _ in range(5):
                callers.enter_context(socket.create_connection((LOCAL, port), DEADLINE_S))
            await heard.until(lambda: heard.events)
            callers.enter_context(socket.create_connection(heard.place("a"), DEADLINE_S))
            await settle()
        assert [(each.service, each.text) for each in heard.events] == [("a", f"a connection to 127.0.0.1:{port}")]

    run(body)


def test_who_waits_already_is_a_demand_again() -> None:
    async def body(heard: Heard) -> None:
        heard.held.adopt(service("a", tcp()))
        with socket.create_connection(heard.place("a"), DEADLINE_S):
            for count in (1, 2):
                heard.held.await_demand("a")
                await heard.until(lambda count=count: len(heard.events) == count)

    run(body)


def test_nobody_spins_on_who_waits() -> None:
    """What has been told of stays readable until the service takes it: it must not wake us again and again."""

    async def body(heard: Heard) -> None:
        heard.held.adopt(service("a", tcp(), tcp("y")))
        heard.held.await_demand("a")
        heard.held.watch("a")
        with (
            socket.create_connection(heard.place("a"), DEADLINE_S),
            socket.create_connection(heard.place("a", 1), DEADLINE_S),
        ):
            await heard.until(lambda: heard.events)
            assert heard.held._epoll.poll(0) == []

    run(body)


def test_nobody_looks_at_what_is_not_awaited() -> None:
    async def body(heard: Heard) -> None:
        heard.held.adopt(service("a", tcp()))
        heard.held.await_demand("a")
        heard.held.cease_awaiting("a")
        with socket.create_connection(heard.place("a"), DEADLINE_S):
            await settle()
            assert heard.events == []

    run(body)


def test_a_datagram_is_a_demand_and_stays_to_be_read() -> None:
    async def body(heard: Heard) -> None:
        heard.held.adopt(service("a", tcp(kind="dgram")))
        heard.held.await_demand("a")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"hello", heard.place("a"))
        await heard.until(lambda: heard.events)
        assert heard.events[0].text.startswith("a message for 127.0.0.1:")
        assert heard.held.listeners("a")[0].socket.recv(100) == b"hello"

    run(body)


def test_the_sockets_stay_blocking_while_they_are_watched() -> None:
    async def body(heard: Heard) -> None:
        heard.held.adopt(service("a", tcp()))
        heard.held.await_demand("a")
        await settle()
        assert os.get_blocking(heard.held.descriptors("a")[0])

    run(body)


def test_a_socket_that_cannot_be_had_is_a_demand_that_says_so() -> None:
    async def body(heard: Heard) -> None:
        with socket.socket() as other:
            other.bind((LOCAL, 0))
            other.listen(1)
            port = other.getsockname()[1]
            heard.held.adopt(service("a", tcp(port=port)))
            heard.held.await_demand("a")
        assert [each.text.partition(" (")[0] for each in heard.events] == [
            f"cannot listen on 127.0.0.1:{port}: Address already in use"
        ]
        heard.held.await_demand("a")
        socket.create_connection((LOCAL, port), DEADLINE_S).close()
        await heard.until(lambda: len(heard.events) == 2)

    run(body)


def test_demand_follows_a_change_of_sockets() -> None:
    async def body(heard: Heard) -> None:
        heard.held.adopt(service("a", tcp(port=free_port())))
        heard.held.await_demand("a")
        heard.held.adopt(service("a", tcp(port=free_port())))
        with socket.create_connection(heard.place("a"), DEADLINE_S):
            await heard.until(lambda: heard.events)

    run(body)


def test_arrivals_are_told_once_each_time_somebody_watches() -> None:
    async def body(heard: Heard) -> None:
        heard.held.adopt(service("a", tcp()))
        heard.held.watch("a")
        with socket.create_connection(heard.place("a"), DEADLINE_S):
            await heard.until(lambda: heard.arrived)
            await settle()
        assert (heard.arrived, heard.events) == (["a"], [])
        heard.held.watch("a")
        await heard.until(lambda: heard.arrived == ["a", "a"])

    run(body)


# ---- whole: a server that knows nothing of svcd ----------------------------------------------------------------------


def ask(place: Any, family: int = socket.AF_INET) -> list[str]:
    with socket.socket(family) as caller:
        caller.settimeout(DEADLINE_S)
        caller.connect(place)
        caller.sendall(b"hello")
        return caller.recv(100).decode().split()


def test_a_restart_refuses_nobody(guarded: Guarded, tmp_path: Path) -> None:
    async def body(heard: Heard) -> None:
        heard.held.adopt(service("a", tcp("web"), unix(tmp_path / "web.sock"), tcp("log", kind="dgram")))
        given = Given(env={"PATH": PATH})
        heard.held.give("a", given)

        def spawn(invocation: int) -> int:
            return guarded.spawn(
                "a",
                sys.executable, "-ISc", SERVER,
                invocation=invocation,
                env=given.env,
                targets=tuple(given.descriptors),
                pid_variables=given.pid_variables,
                fds=tuple(given.descriptors.values()),
            )  # fmt: skip

        first = spawn(1)
        assert ask(heard.place("a")) == [str(first), "web", "hello"]
        assert ask(str(tmp_path / "web.sock"), socket.AF_UNIX) == [str(first), "local", "hello"]
        os.kill(first, 9)
        with contextlib.ExitStack() as stack:
            waiting = [stack.enter_context(socket.create_connection(heard.place("a"), DEADLINE_S)) for _ in range(50)]
            datagram = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            datagram.settimeout(DEADLINE_S)
            datagram.sendto(b"hello", heard.place("a", 2))
            for each in waiting:
                each.sendall(b"hello")
            second = spawn(2)
            assert {each.recv(100).decode() for each in waiting} == {f"{second} web hello"}
            assert datagram.recv(100).decode() == f"{second} log hello"
        os.kill(second, 9)
        assert os.get_blocking(heard.held.descriptors("a")[0])

    run(body)
    guarded.wait(lambda: len(guarded.all(ProgramExecuted, service="a")) == 2, "both to have been told")


def test_a_shell_hands_them_on(guarded: Guarded) -> None:
    """What execs another keeps its pid, so LISTEN_PID holds."""

    async def body(heard: Heard) -> None:
        heard.held.adopt(service("a", tcp()))
        given = Given(env={"PATH": PATH})
        heard.held.give("a", given)
        pid = guarded.spawn(
            "a",
            "sh", "-c", f"exec {sys.executable} -ISc '{SERVER.replace(chr(39), chr(34))}'",
            env=given.env,
            targets=tuple(given.descriptors),
            pid_variables=given.pid_variables,
            fds=tuple(given.descriptors.values()),
        )  # fmt: skip
        assert ask(heard.place("a"))[0] == str(pid)
        os.kill(pid, 9)

    run(body)
    wait_until(lambda: guarded.output("a", "stderr") == "", "no complaint")


def test_specs_differ_in_mode_alone(tmp_path: Path) -> None:
    """A socket whose file is to be another is another socket."""

    async def body(heard: Heard) -> None:
        spec = unix(tmp_path / "a")
        heard.held.adopt(service("a", spec))
        heard.held.adopt(service("a", replace(spec, mode=0o600)))
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600

    run(body)
