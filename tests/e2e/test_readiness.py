"""Readiness: in each of its ways a service is running when it is ready, not before; not in time is a failed start.

Must not test what dependents make of it: other files do.
"""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from typing import ClassVar

import pytest
from clusters import free_ports, wait_until
from stage import Stage
from traces import starts

NEVER = "restart: {policy: never}"
FAILS = "a: waiting → starting → stopping → failed"


class Page(http.server.BaseHTTPRequestHandler):
    """Answers with what the test has put there."""

    answer: ClassVar[tuple[int, bytes]] = (503, b"not yet")

    def do_GET(self) -> None:
        status, body = type(self).answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:  # silence
        pass


@pytest.fixture
def page() -> Iterator[tuple[type[Page], int]]:
    handler = type("OwnPage", (Page,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield handler, server.server_address[1]
        server.shutdown()
        thread.join()


def begin(stage: Stage, keys: str) -> None:
    """Service ``a`` is on its way."""
    stage.up(f"a: {{start: manual, {NEVER}, {keys}}}")
    stage.order("start", "a")


def test_a_newline_on_its_descriptor_makes_it_ready(stage: Stage) -> None:
    begin(stage, 'command: "echo >&4; exec sleep 1000", ready: {notification-fd: 4}')
    stage.tells("a: unloaded → waiting", starts("a"))


def test_a_descriptor_that_is_closed_without_a_newline(stage: Stage) -> None:
    begin(stage, 'command: "exec 4>&-; exec sleep 1000", ready: {notification-fd: 4, timeout: 1h}')
    stage.tells("a: unloaded → waiting", FAILS)
    assert "without a newline" in stage.row("a").cause


def test_a_program_that_goes_into_the_background_has_not_started(stage: Stage) -> None:
    begin(stage, 'command: "sleep 1000 & exit 0", ready: {notify: true, timeout: 1h}')
    stage.tells("a: unloaded → waiting", FAILS)
    assert stage.row("a").cause == "ended before it was ready: exit code 0"


def test_a_page_with_its_status_and_body(stage: Stage, page: tuple[type[Page], int]) -> None:
    handler, port = page
    ready = f'{{http: "http://127.0.0.1:{port}/up", status: 200, body: "^all .* well$", interval: 10ms}}'
    begin(stage, f"ready: {ready}")
    stage.tells("a: unloaded → waiting → starting")
    handler.answer = (200, b"all is lost")
    stage.tells()
    handler.answer = (200, b"all is well")
    stage.tells("a: starting → running")


def test_a_page_that_never_comes(stage: Stage) -> None:
    (port,) = free_ports(1)
    begin(stage, f'ready: {{http: "http://127.0.0.1:{port}/", interval: 10ms, timeout: 500ms}}')
    stage.tells("a: unloaded → waiting", FAILS)
    assert stage.row("a").cause == f"not ready within 0.5 s: http://127.0.0.1:{port}/: Connection refused"


def test_an_answer_that_is_no_page(stage: Stage) -> None:
    """Something answers, in a language that is no HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_speak_ssh, args=(server,))
        thread.start()
        port = server.getsockname()[1]
        begin(stage, f'ready: {{http: "http://127.0.0.1:{port}/", interval: 10ms, timeout: 300ms}}')
        stage.tells("a: unloaded → waiting", FAILS)
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def _speak_ssh(server: socket.socket) -> None:
    try:
        while True:
            with server.accept()[0] as peer:
                peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    except OSError:  # the end of the test
        pass


def test_a_command_that_says_yes(stage: Stage) -> None:
    begin(stage, "ready: {exec: [test, -e, ready.now], interval: 10ms}")
    stage.tells("a: unloaded → waiting → starting")
    (stage.directory / "ready.now").touch()
    stage.tells("a: starting → running")


def test_a_command_that_never_says_yes(stage: Stage) -> None:
    begin(stage, "ready: {exec: ['false'], interval: 10ms, timeout: 200ms}")
    stage.tells("a: unloaded → waiting", FAILS)


def test_a_line_of_its_output(stage: Stage) -> None:
    begin(
        stage, 'command: "echo booting; echo \'ready to accept\' >&2; exec sleep 1000", ready: {log: "^ready to .*pt$"}'
    )
    stage.tells("a: unloaded → waiting", starts("a"))


def test_words_without_an_end_of_line_in_strange_bytes(stage: Stage) -> None:
    begin(stage, 'command: "printf \'\\\\377\\\\376 prompt> \'; exec sleep 1000", ready: {log: "prompt> $"}')
    stage.tells("a: unloaded → waiting", starts("a"))


def test_words_of_an_earlier_run_do_not_count(stage: Stage) -> None:
    command = "echo up; until test -e go; do sleep 0.01; done; rm go; echo ready; exec sleep 1000"
    stage.write("", "go")
    begin(stage, f'command: "{command}", ready: {{log: "^ready$"}}')
    stage.tells("a: unloaded → waiting", starts("a"))
    stage.order("restart", "a")
    wait_until(lambda: stage.output("a").count(b"up\n") == 2, "the words of the second run")
    stage.tells("a: running → stopping → waiting → starting")
    stage.write("", "go")
    stage.tells("a: starting → running")


def test_output_that_never_says_so(stage: Stage) -> None:
    begin(stage, 'command: "echo no; exec sleep 1000", ready: {log: "yes", timeout: 200ms}')
    stage.tells("a: unloaded → waiting", FAILS)
