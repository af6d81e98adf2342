"""Services that come when somebody connects, and go when nobody does (design 8, `start: on_demand`, `idle_timeout`)."""

from __future__ import annotations

import socket

import pytest
from calling import HOST, ask, connect, listener, move, occupied, staying, told
from clusters import free_ports
from stage import Stage
from traces import starts, stops

RISES = "waiting → starting → running"
FALLS = "running → stopping → stopped"


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


def on_demand(port: int, *more: str, command: str = "") -> str:
    keys = [
        f"command: {command or listener()}",
        "start: on_demand",
        f"sockets: [{{listen: '{HOST}:{port}'}}]",
        *more,
    ]
    return f"{{{', '.join(keys)}}}"


def test_it_starts_when_somebody_connects(stage: Stage, port: int) -> None:
    stage.up(f"web: {on_demand(port)}")
    stage.tells()
    assert stage.row("web").pid is None
    answer = ask(port)
    assert answer.pid == stage.pid_of("web")
    steps = stage.tells(f"web: unloaded → {RISES}")
    assert steps[0].cause == f"on demand: a connection to {HOST}:{port}"
    assert ask(port).pid == answer.pid


def test_a_hundred_that_come_at_once_are_one_demand(stage: Stage, port: int) -> None:
    stage.up(f"web: {on_demand(port)}")
    callers = [connect(port) for _ in range(100)]
    assert {told(each).pid for each in callers} == {stage.pid_of("web")}
    stage.tells(f"web: unloaded → {RISES}")


def test_what_it_requires_comes_first(stage: Stage, port: int) -> None:
    stage.up(f"db: {{start: manual}}\nweb: {on_demand(port, 'depends_on: [db]')}")
    ask(port)
    stage.tells("db: unloaded → waiting", "web: unloaded → waiting", starts("db", "web"))


def test_one_datagram_is_a_demand_and_is_not_lost(stage: Stage, port: int) -> None:
    stage.up(f"web: {{command: {listener()}, start: on_demand, sockets: [{{listen: '{HOST}:{port}', type: dgram}}]}}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(60)
        sender.sendto(b"?", (HOST, port))
        assert int(sender.recv(100).split()[0]) == stage.pid_of("web")


def test_it_goes_when_nobody_uses_it_and_comes_again(stage: Stage) -> None:
    path = stage.base / "web.sock"
    stage.up(
        f"web: {{command: {listener()}, start: on_demand, idle_timeout: 200ms, sockets: [{{listen: 'unix:{path}'}}]}}"
    )
    first = ask(path).pid
    steps = stage.tells(f"web: unloaded → {RISES}", f"web: {FALLS}")
    assert steps[-1].cause == "idle"
    assert ask(path).pid != first
    stage.tells(f"web: stopped → {RISES}", f"web: {FALLS}")


def test_who_is_connected_keeps_it(stage: Stage) -> None:
    path = stage.base / "web.sock"
    stage.up(
        f"""
        web: {{command: {listener()}, start: on_demand, idle_timeout: 100ms, sockets: [{{listen: 'unix:{path}'}}]}}
        clock: {{command: sleep 0.2, restart: {{policy: always, reset_after: 0s, intensity: {{restarts: unlimited}}}}}}
        """
    )
    with staying(path) as answer:
        for _ in range(3):
            stage.wait_state("clock", "running", after=stage.row("clock").invocation)
        assert stage.pid_of("web") == answer.pid
    stage.wait_state("web", "stopped")


def test_what_something_that_is_up_requires_is_not_idle(stage: Stage, port: int) -> None:
    stage.up(f"db: {on_demand(port, 'idle_timeout: 50ms')}\nweb: {{depends_on: [db]}}")
    stage.tells()
    pid = stage.pid_of("db")
    stage.does("stop", "web")
    stage.tells(stops("web"), f"db: {FALLS}")
    assert ask(port).pid != pid


def test_what_was_stopped_by_name_does_not_come_by_itself(stage: Stage, port: int) -> None:
    stage.up(f"web: {on_demand(port)}")
    assert stage.row("web").on_demand
    ask(port)
    stage.does("stop", "web")
    assert not stage.row("web").on_demand
    waiting = connect(port)
    stage.tells(f"web: unloaded → {RISES} → stopping → stopped")
    stage.does("start", "web")
    assert told(waiting).pid == stage.pid_of("web")
    stage.tells(f"web: stopped → {RISES}")


def test_one_that_cannot_serve_fails_and_does_not_spin(stage: Stage, port: int) -> None:
    stage.up(f"web: {on_demand(port, 'restart: {policy: never}', command=listener('refuses'))}")
    with connect(port):
        stage.tells(f"web: unloaded → {RISES} → failed")
        assert stage.row("web").cause == "exit code 3"
        stage.does("start", "web")
        stage.tells(f"web: failed → {RISES} → failed")


def test_a_socket_that_cannot_be_had_is_a_failed_start(stage: Stage, port: int) -> None:
    taken = free_ports(1)[0]
    stage.up(f"web: {on_demand(port, 'restart: {policy: never}')}")
    with occupied(taken):
        move(stage, port, taken)
        stage.tells("web: unloaded → waiting → starting → failed")
        assert f"cannot listen on {HOST}:{taken}: Address already in use" in stage.row("web").cause
    stage.does("start", "web")
    stage.tells(f"web: failed → {RISES}")
    assert ask(taken).pid == stage.pid_of("web")


def test_one_that_is_no_longer_on_demand_is_not_awaited(stage: Stage, port: int) -> None:
    stage.up(f"web: {on_demand(port)}")
    changed = f"cluster: cluster\nservices:\n  web: {on_demand(port).replace('on_demand', 'manual')}\n"
    stage.svcd("apply", str(stage.write(changed, "changed.yaml")))
    with connect(port) as waiting:
        stage.tells()
        stage.does("start", "web")
        assert told(waiting).pid == stage.pid_of("web")


def test_a_shutdown_does_not_answer_demand(stage: Stage, port: int) -> None:
    stage.up(f"web: {on_demand(port)}\nslow: {{PLAYER lingers}}")
    assert stage.process is not None
    stage.process.terminate()
    stage.tells("slow: running → stopping")
    with connect(port):
        stage.say("slow", "exit 0")
        assert stage.wait_end() == 0
    stage.tells("slow: stopping → stopped")
