"""Sockets that svcd holds for services: whoever connects is served in the end, whatever the service does meanwhile.

Must not test demand: test_on_demand.py does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket

import pytest
from calling import HOST, ask, connect, is_refused, listener, move, occupied, told
from clusters import free_ports, wait_until
from stage import Stage
from traces import then

RISES = "waiting → starting → running"
LONG = "restart: {reset_after: 1h, backoff: {initial: 1h}}"


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


def test_connections_that_come_before_the_service_are_served_by_it(stage: Stage, port: int) -> None:
    stage.up(f"web: {{command: {listener()}, start: manual, sockets: [{{listen: '{HOST}:{port}'}}]}}")
    callers = [connect(port) for _ in range(20)]
    stage.does("start", "web")
    stage.tells(f"web: unloaded → {RISES}")
    assert {told(each).pid for each in callers} == {stage.pid_of("web")}
    stage.drains("web: running → stopping → stopped")
    assert is_refused(port)


def test_a_restart_refuses_nobody(stage: Stage, port: int) -> None:
    stage.up(f"web: {{command: {listener()}, sockets: [{{name: http, listen: '{HOST}:{port}'}}]}}")
    first = ask(port)
    assert first == (stage.pid_of("web"), "http")
    restart = stage.order("restart", "web")
    answers = [ask(port) for _ in range(50)]
    assert restart.outcome() == "done"
    second = ask(port).pid
    assert second != first.pid
    assert {each.pid for each in answers} <= {first.pid, second}
    stage.tells(f"web: running → stopping → {RISES}")


def test_a_crash_refuses_nobody(stage: Stage, port: int) -> None:
    """Neither while it waits for its restart, nor while it is down for good."""
    stage.up(f"web: {{command: {listener()}, {LONG}, sockets: [{{listen: '{HOST}:{port}'}}]}}")
    stage.crash("web")
    stage.tells("web: running → backoff")
    waiting = connect(port)
    stage.does("stop", "web")
    late = connect(port)
    stage.does("start", "web")
    assert told(waiting).pid == told(late).pid == stage.pid_of("web")


def test_every_kind_of_socket_is_handed_over_under_its_name(stage: Stage, port: int) -> None:
    path = stage.base / "web.sock"
    stage.up(
        f"""
        web:
          command: {listener()}
          sockets:
            - {{name: http, listen: "{HOST}:{port}"}}
            - {{name: local, listen: "unix:{path}"}}
            - {{name: log, listen: "{HOST}:{port}", type: dgram}}
        """
    )
    pid = stage.pid_of("web")
    assert ask(port) == (pid, "http")
    assert ask(path) == (pid, "local")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(60)
        sender.sendto(b"?", (HOST, port))
        assert sender.recv(100).decode() == f"{pid} log\n"
    assert path.stat().st_mode & 0o777 == 0o660
    assert stage.row("web").sockets == (f"{HOST}:{port}", f"unix:{path}", f"{HOST}:{port} (dgram)")
    stage.drain()
    assert not path.exists()


def test_a_port_that_is_taken_is_a_failed_start_of_that_service_alone(stage: Stage, port: int) -> None:
    taken = free_ports(1)[0]
    stage.up(
        f"""
        web: {{command: {listener()}, restart: {{policy: never}}, sockets: [{{listen: '{HOST}:{port}'}}]}}
        other: {{}}
        """
    )
    with occupied(taken):
        move(stage, port, taken)
        stage.tells(
            "web: running → stopping → waiting → starting → failed",
        )
        assert stage.row("other").state == "running"
        cause = stage.row("web").cause
        assert f"cannot listen on {HOST}:{taken}: Address already in use (pid {os.getpid()}, " in cause
    stage.does("start", "web")
    stage.tells(f"web: failed → {RISES}")
    assert ask(taken).pid == stage.pid_of("web")
    assert is_refused(port)


def test_it_is_tried_again_with_each_restart(stage: Stage, port: int) -> None:
    taken = free_ports(1)[0]
    restart = "{policy: always, intensity: {restarts: unlimited}, backoff: {initial: 50ms, factor: 1}}"
    stage.up(f"web: {{command: {listener()}, restart: {restart}, sockets: [{{listen: '{HOST}:{port}'}}]}}")
    with occupied(taken):
        move(stage, port, taken)
        stage.wait_state("web", "backoff")
    stage.wait_state("web", "running")
    assert ask(taken).pid == stage.pid_of("web")


def test_a_socket_file_of_a_killed_svcd_is_no_hindrance(stage: Stage) -> None:
    path = stage.base / "web.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    stage.up(f"web: {{command: {listener()}, sockets: [{{listen: 'unix:{path}'}}]}}")
    assert ask(path).pid == stage.pid_of("web")


def test_a_guardian_that_is_killed_leaves_no_socket_file(stage: Stage) -> None:
    path = stage.base / "web.sock"
    stage.up(f"web: {{command: {listener()}, sockets: [{{listen: 'unix:{path}'}}]}}")
    assert stage.process is not None
    os.kill(stage.process.pid, signal.SIGKILL)
    stage.wait_end()
    wait_until(lambda: not path.exists(), "the socket to be removed")


def test_a_change_of_one_socket_leaves_the_others_alone(stage: Stage) -> None:
    kept, old, new = free_ports(3)

    def file(changing: int) -> str:
        return f"""\
cluster: cluster
services:
  web:
    command: {listener("slow")}
    stop: {{timeout: 500ms}}
    sockets:
      - {{name: kept, listen: "{HOST}:{kept}"}}
      - {{name: changing, listen: "{HOST}:{changing}"}}
"""

    stage.write(file(old))
    stage.start()
    waiting = connect(kept)
    stage.skip()
    stage.svcd("apply", "--no-wait", str(stage.write(file(new), "new.yaml")))
    stage.tells(f"web: running → stopping → {RISES}")
    (stage.directory / "open").touch()
    assert told(waiting).name == "kept", "who waited there is served by the new one"
    assert ask(new).name == "changing"
    assert is_refused(old)


def test_no_socket_is_lost_or_doubled_over_many_restarts(stage: Stage, port: int) -> None:
    stage.up(f"web: {{command: {listener()}, sockets: [{{listen: '{HOST}:{port}'}}]}}")
    parts = {part.name: part.pid for part in stage.status().parts}

    def sockets_of(pid: int) -> list[str]:
        found = []
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed since: it may still be starting
                found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        return [each for each in found if each.startswith("socket:")]

    def held() -> list[str]:
        """What the service has, and svcd as well."""
        return [each for each in sockets_of(stage.pid_of("web")) if each in sockets_of(parts["controller"])]

    (first,) = held()
    for _ in range(10):
        stage.does("restart", "web")
        assert held() == [first]
    assert sockets_of(parts["controller"]).count(first) == 1
    wait_until(lambda: first not in sockets_of(parts["launcher"]), "the launcher to have closed its copy")
    stage.tells(*[then(f"web: running → stopping → {RISES}")] * 10)
