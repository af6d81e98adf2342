"""svcd.Client and svcd.AsyncClient against real clusters: what they ask, and what they find when things go wrong.

Must not test the engine of calls by itself: tests/worker does.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import PATIENCE_S, Cluster, is_alive, wait_until
from stage import Stage
from till import Till

import svcd

HERE = Path(__file__).parent
TILL = f'python: "till:Till", path: ["{HERE}"]'
MAY_CALL = "permissions: {services: [till]}"


def program(code: str) -> str:
    """The command of a service that runs this."""
    lines = "; ".join(filter(None, map(str.strip, code.strip().splitlines())))
    return f"command: ['{sys.executable}', -c, \"import svcd; {lines}\"]"


@pytest.fixture
def client(stage: Stage) -> Iterator[svcd.Client]:
    """Of a cluster with a till."""
    stage.up(f"till: {{{TILL}, stop: {{drain_timeout: 100ms}}}}")
    with svcd.Client(run_dir=stage.run_dir) as made:
        yield made


def error_of(ask: Callable[[], Any]) -> svcd.CallError:
    with pytest.raises(svcd.CallError) as caught:
        ask()
    return caught.value


# ---- what can be asked -----------------------------------------------------------------------------------------------


def test_calls(client: svcd.Client) -> None:
    assert client.call("till.charge", user="ann", cents=5) == {"ann": 5}
    assert client.call("till.charge", "ann", 5) == {"ann": 10}
    assert client.call("till.caller") == "client"


def test_proxies(client: svcd.Client) -> None:
    assert client.service(Till).charge(user="ann", cents=5) == {"ann": 5}
    assert client.service("till").charge(user="ann", cents=5) == {"ann": 10}
    assert list(client.service(Till).count(3)) == [0, 1, 2]
    assert repr(client.service(Till)) == "<methods of till>"
    assert "charge" in dir(client.service(Till))
    assert dir(client.service("till")) == []
    with pytest.raises(svcd.CallRefused, match=r"cannot call till\.charge: cents must be int, not str"):
        client.service(Till).charge(user="ann", cents="5")


def test_streams(client: svcd.Client, stage: Stage) -> None:
    assert list(client.stream("till.count", to=1000)) == list(range(1000))
    with client.stream("till.count", to=10**9) as rows:
        assert [next(rows), next(rows)] == [0, 1]
    wait_until(lambda: stage.output("till") == b"closed\nclosed\n", "both generators to be closed")


def test_a_stream_that_is_forgotten_is_left(client: svcd.Client, stage: Stage) -> None:
    rows = client.stream("till.count", to=10**9)
    assert next(rows) == 0
    del rows
    wait_until(lambda: stage.output("till") == b"closed\n", "the generator to be closed")


def test_what_cannot_be_called(client: svcd.Client, stage: Stage) -> None:
    def said(name: str, **named: Any) -> str:
        error = error_of(lambda: client.call(name, **named))
        assert type(error) is svcd.CallRefused
        return str(error)

    assert said("tile.charge") == "cannot call tile: no service 'tile'; did you mean 'till'?"
    assert said("till.chagre") == "till has no method 'chagre': did you mean 'charge'?"
    assert said("till.charge", user=5, cents=5) == "cannot call till.charge: user must be str, not int"
    assert said("till.charge", user="ann").startswith("cannot call till.charge: it lacks cents: charge(user: 'str'")
    with pytest.raises(ValueError, match=r'name it "service\.method"'):
        client.call("till")


def test_what_a_method_raises(client: svcd.Client) -> None:
    error = error_of(lambda: client.call("till.break_down"))
    assert isinstance(error, svcd.RemoteError)
    assert (error.type, error.text) == ("ValueError", "the drawer is stuck")
    assert "till.py" in error.traceback


def test_a_deadline(client: svcd.Client, stage: Stage) -> None:
    for doubled in itertools.count():  # what comes too late is not begun
        timeout = 0.05 * 2**doubled
        error = error_of(functools.partial(client.call, "till.hold", timeout=timeout))
        assert isinstance(error, svcd.DeadlineExceeded)
        if stage.output("till"):
            break

    def is_left() -> bool:
        words = stage.output("till").split()
        return words.count(b"held") == words.count(b"left")

    wait_until(is_left, "the method to be left")


def test_how_the_cluster_stands(client: svcd.Client, stage: Stage) -> None:
    report = client.status()
    assert [(each.name, each.state) for each in report.services] == [("till", "running")]
    assert client.status("till").services[0].pid == stage.pid_of("till")
    assert str(error_of(lambda: client.status("tile"))) == "no service 'tile'; did you mean 'till'?"


def test_events(client: svcd.Client, stage: Stage) -> None:
    with client.events(svcd.ServiceTransitioned, timeout=PATIENCE_S) as events:
        stage.does("restart", "till")
        seen = [each.new for each in itertools.takewhile(lambda each: each.new != "running", events)]
    assert seen == ["draining", "stopping", "waiting", "loading", "loaded", "initialized", "starting"]
    with pytest.raises(TypeError, match="is no event: there are ServiceTransitioned"):
        client.events(Till)
    with pytest.raises(svcd.DeadlineExceeded), client.events(svcd.ExceptionRecorded, timeout=0.05) as events:
        next(events)


def test_everything_without_waiting_for_it(stage: Stage) -> None:
    stage.up(f"till: {{{TILL}}}")

    async def scene() -> None:
        async with svcd.AsyncClient(run_dir=stage.run_dir) as client:
            await asyncio.gather(*(client.call("till.charge", user="ann", cents=1) for _ in range(100)))
            assert await client.service(Till).charge("ann", 0) == {"ann": 100}
            assert [row async for row in client.stream("till.count", to=3)] == [0, 1, 2]
            assert [row async for row in client.service(Till).count(3)] == [0, 1, 2]
            assert (await client.status("till")).services[0].state == "running"
            async with client.events() as events:
                holding = asyncio.ensure_future(client.call("till.hold"))
                while b"held" not in await asyncio.to_thread(stage.output, "till"):
                    await asyncio.sleep(0.01)
                holding.cancel()
                await asyncio.wait((holding,))
                assert aiter(events) is events
            while b"left" not in await asyncio.to_thread(stage.output, "till"):
                await asyncio.sleep(0.01)
        with pytest.raises(svcd.StateError, match="not open"):
            await client.call("till.pid")

    asyncio.run(asyncio.wait_for(scene(), PATIENCE_S))


def test_a_client_of_another_loop(stage: Stage) -> None:
    stage.up(f"till: {{{TILL}}}")
    client = svcd.AsyncClient(run_dir=stage.run_dir)

    async def ask() -> None:
        with pytest.raises(svcd.StateError, match="belongs to another event loop"):
            client.call("till.pid")

    async def scene() -> None:
        async with client:
            await asyncio.to_thread(asyncio.run, ask())
            assert await client.call("till.pid") == stage.pid_of("till")

    asyncio.run(scene())


# ---- threads, loops, processes ---------------------------------------------------------------------------------------


def test_many_threads_share_one(client: svcd.Client) -> None:
    def work() -> None:
        for _ in range(50):
            client.call("till.charge", user="ann", cents=1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert client.call("till.charge", user="ann", cents=0) == {"ann": 400}


def test_who_waits_when_another_thread_closes_it(client: svcd.Client, stage: Stage) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            client.call("till.hold")
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: stage.output("till") == b"held\n", "the call to begin")
    client.close()
    thread.join()
    assert [str(each) for each in errors] == ["this client was closed by another thread"]
    with pytest.raises(svcd.StateError, match="this client is closed"):
        client.call("till.pid")


def test_it_does_not_block_a_loop(client: svcd.Client) -> None:
    async def scene() -> None:
        with pytest.raises(svcd.StateError, match="would block the event loop"):
            client.call("till.pid")

    asyncio.run(scene())


def test_a_forked_process_is_told_to_make_its_own(stage: Stage) -> None:
    stage.up(f"till: {{{TILL}}}")
    code = """
        import os, svcd
        client = svcd.Client()
        client.call("till.pid")
        pid = os.fork()
        if not pid:
            try:
                client.call("till.pid")
            except svcd.StateError as error:
                print("child:", str(error).partition(":")[2], flush=True)
            client.close()
            with svcd.Client() as own:
                print(type(own.call("till.pid")), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        print(type(client.call("till.pid")))
        client.close()
    """
    ended = run_python(stage, code)
    own = "child:  make another client here"
    assert ended.stdout.splitlines() == [own, "<class 'int'>", "<class 'int'>"], ended


def test_ctrl_c_cancels_what_is_under_way(stage: Stage) -> None:
    stage.up(f"till: {{{TILL}}}")
    code = "import svcd\nwith svcd.Client() as client: client.call('till.hold', timeout=1000)\n"
    with subprocess.Popen([sys.executable, "-c", code], env=stage.environ, stderr=subprocess.PIPE) as asks:
        wait_until(lambda: stage.output("till") == b"held\n", "the call to begin")
        asks.send_signal(signal.SIGINT)
        assert asks.stderr is not None
        assert asks.stderr.read().rstrip().endswith(b"KeyboardInterrupt")
    wait_until(lambda: stage.output("till") == b"held\nleft\n", "the method to be left")


def test_what_is_left_over_when_the_client_is_closed(client: svcd.Client) -> None:
    rows = client.stream("till.count", to=10)
    assert next(rows) == 0
    with rows, client.events():
        client.close()
    with pytest.raises(svcd.StateError, match="this client is closed"):
        next(rows)


def run_python(stage: Cluster, code: str) -> subprocess.CompletedProcess[str]:
    lines = code.splitlines()
    indent = min(len(each) - len(each.lstrip()) for each in lines if each.strip())
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-"],
        input="\n".join(each[indent:] for each in lines),
        env=stage.environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


# ---- services come and go --------------------------------------------------------------------------------------------


def test_a_callee_that_is_killed_in_the_middle(client: svcd.Client, stage: Stage) -> None:
    """The error comes at once, not at the deadline; the next call waits for the next one, and finds it."""
    errors: list[svcd.CallError] = []
    thread = threading.Thread(target=lambda: errors.append(error_of(lambda: client.call("till.hold", timeout=1000))))
    thread.start()
    wait_until(lambda: stage.output("till") == b"held\n", "the call to begin")
    old = client.call("till.pid")
    stage.crash("till")
    thread.join(PATIENCE_S)
    assert type(errors[0]) is svcd.ServiceUnavailable
    assert "till was lost before till.hold had ended" in str(errors[0])
    assert client.call("till.pid", wait=PATIENCE_S) != old


def test_who_waits_is_told_when_it_is_there(client: svcd.Client, stage: Stage) -> None:
    stage.does("stop", "till")
    error = error_of(lambda: client.call("till.pid"))
    assert type(error) is svcd.ServiceUnavailable
    assert str(error) == "cannot call till: it is stopped: stopped by request"
    assert str(error_of(lambda: client.call("till.pid", wait=0.05))) == str(error)
    start = threading.Timer(0.2, lambda: stage.svcd("start", "till"))
    start.start()
    assert client.call("till.pid", wait=PATIENCE_S) > 0
    start.join()


def test_new_instances_are_found_and_take_their_part(client: svcd.Client, stage: Stage) -> None:
    assert client.call("till.pid") == stage.pid_of("till")
    stage.svcd("scale", "till=3")
    pids = {row.pid for row in stage.status().services}
    wait_until(lambda: {client.call("till.pid", wait=PATIENCE_S) for _ in range(9)} == pids, "calls to reach them all")


def test_on_demand(stage: Stage) -> None:
    broken = "broken: {python: 'nowhere:X', start: on_demand, restart: {policy: never}}"
    stage.up(f"till: {{{TILL}, start: on_demand}}\n{broken}")
    mark = stage.mark()
    with svcd.Client(run_dir=stage.run_dir) as client:
        assert client.call("till.pid") == stage.pid_of("till")
        first = stage.since(mark)[0]
        assert (first.service, first.cause) == ("till", f"on demand: called by a client (pid {os.getpid()})")
        stage.does("stop", "till")
        error = error_of(lambda: client.call("till.pid"))
        assert "stopped by request" in str(error), "who calls does not overrule who has stopped it by name"
        error = error_of(lambda: client.call("broken.x"))
        assert "ModuleNotFoundError" in str(error)


def test_a_client_that_is_killed_leaves_its_stream(stage: Stage) -> None:
    stage.up(f"till: {{{TILL}}}")
    code = "import svcd\nfor row in svcd.Client().stream('till.count', to=10**9): print(row, flush=True)\n"
    with subprocess.Popen([sys.executable, "-c", code], env=stage.environ, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"0\n"
        reader.kill()
    wait_until(lambda: stage.output("till") == b"closed\n", "the generator to be closed")


# ---- the cluster comes and goes --------------------------------------------------------------------------------------


def test_without_a_cluster(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(svcd.ClusterUnavailable, match=f"no cluster runs in {stage.run_dir}"):
        svcd.Client(run_dir=stage.run_dir)
    monkeypatch.setenv("SVCD_CONTROL", str(stage.run_dir / "control"))
    with pytest.raises(svcd.ClusterUnavailable, match=f"the cluster in {stage.run_dir} has ended"):
        svcd.Client()
    with pytest.raises(ValueError, match="either says which cluster"):
        svcd.Client("shop", run_dir=stage.run_dir)


def test_the_cluster_ends_and_another_takes_its_place(client: svcd.Client, stage: Stage) -> None:
    errors: list[svcd.CallError] = []
    thread = threading.Thread(target=lambda: errors.append(error_of(lambda: client.call("till.hold", timeout=1000))))
    with client.events(svcd.ClusterStateChanged, timeout=PATIENCE_S) as events:
        thread.start()
        wait_until(lambda: stage.output("till") == b"held\n", "the call to begin")
        assert stage.drain() == 0
        assert [each.state for each in events] == ["stopping", "ended"]
    thread.join(PATIENCE_S)
    assert isinstance(errors[0], svcd.ServiceUnavailable)
    error = error_of(client.status)
    assert type(error) is svcd.ClusterUnavailable
    assert str(error) == f"the cluster in {stage.run_dir} has ended"
    assert type(error_of(lambda: client.call("till.pid"))) is svcd.ClusterUnavailable
    stage.start()
    assert client.call("till.pid") == stage.pid_of("till")


def test_who_waits_when_the_cluster_ends(client: svcd.Client, stage: Stage) -> None:
    stage.does("stop", "till")
    errors: list[svcd.CallError] = []
    waits = threading.Thread(target=lambda: errors.append(error_of(lambda: client.call("till.pid", wait=1000))))
    waits.start()
    stage.drain()
    waits.join(PATIENCE_S)
    assert isinstance(errors[0], svcd.ServiceUnavailable)


def test_a_cluster_that_is_killed(client: svcd.Client, stage: Stage) -> None:
    client.call("till.pid")
    with client.events(timeout=PATIENCE_S) as events:
        assert stage.process is not None
        stage.process.kill()
        stage.process.wait(PATIENCE_S)
        with pytest.raises(svcd.ClusterUnavailable, match="has ended"):
            list(events)
    assert isinstance(error_of(lambda: client.call("till.pid")), svcd.ServiceUnavailable)
    wait_until(lambda: not stage.run_dir.exists() or not os.listdir(stage.run_dir), "everything to be cleared away")


# ---- programs of the cluster -----------------------------------------------------------------------------------------

ASK = """
c = svcd.Client()
print(c.call('till.caller'), flush=True)
c.close()
"""


def test_a_program_of_the_cluster_may_call_what_it_is_permitted(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds its own cluster, whatever its environment says of others."""
    stage.environ["SVCD_RUN_DIR"] = str(stage.run_dir)
    stage.up(
        f"""
        till: {{{TILL}}}
        asks: {{{program(ASK)}, {MAY_CALL}, env: {{SVCD_RUN_DIR: /nowhere}}, type: task, start: manual}}
        needs: {{{program(ASK)}, depends_on: [till], type: task}}
        child: {{command: "sh -c 'exec 3<&0; svcd call till.caller; exit 0'", {MAY_CALL}, type: task, start: manual}}
        """,
        wait=None,
    )
    stage.wait_state("till", "running")  # nothing orders the others after it
    stage.svcd("start", "--no-wait", "asks", "child", code=0)
    for name in ("asks", "needs", "child"):
        stage.wait_state(name, "completed")
        wait_until(lambda name=name: stage.output(name) == f"{name}\n".encode(), f"the answer that {name} got")


def test_a_program_without_the_permission(stage: Stage) -> None:
    stage.up(
        f"""
        till: {{{TILL}}}
        asks: {{{program(ASK)}, type: task, depends_on: {{till: {{kind: after}}}}}}
        rogue: {{{program(ASK)}, type: task}}
        """,
        wait=None,
    )
    stage.wait_state("rogue", "failed")
    text = "PermissionDenied: cannot call till: rogue neither depends on it nor has the permission"
    wait_until(lambda: text in stage.output("rogue", "stderr").decode(), "the refusal")
    stage.wait_state("asks", "completed")
    outcome = stage.svcd("call", "till.pid", code=0)
    assert int(outcome.out) == stage.pid_of("till")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_other_users(stage: Stage) -> None:
    """A program that runs as another user has its door; whoever else of that user knocks there is turned away."""
    for each in (stage.base, stage.directory, *stage.directory.parents[:3]):
        with contextlib.suppress(OSError):
            each.chmod(0o755)
    become = "import os, asyncio, socket, encodings.idna; from svcd import Client, PermissionDenied; Client.call"
    code = f"{become}; os.setuid(65534)"
    stage.up(
        f"""
        till: {{{TILL}}}
        asks: {{command: sleep 1000, user: "65534", {MAY_CALL}}}
        """
    )
    door = stage.run_dir / "stubs" / "control"
    assert door.exists()
    stage.environ["SVCD_CONTROL"] = str(door)
    asked = """
        try:
            with Client() as client:
                client.call("till.caller")
        except PermissionDenied as error:
            print(error)
    """
    lines = "\n".join(each[8:] for each in asked.splitlines())
    ended = run_python(stage, f"{code}\n{lines}")
    assert ended.stdout == "cannot call till: uid 65534 may not call services of this cluster\n", ended
    del stage.environ["SVCD_CONTROL"]


# ---- strangers -------------------------------------------------------------------------------------------------------


def test_garbage_at_every_socket(client: svcd.Client, stage: Stage) -> None:
    client.call("till.pid")
    paths = [path for path in stage.run_dir.rglob("*") if path.is_socket()]
    assert {"control", "events", "calls"} <= {path.name for path in paths}
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
    for path in paths:
        for data in (b"GET / HTTP/1.1\r\n\r\n", secrets.token_bytes(4096), greeting, greeting + b"\xff" * 4096):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(str(path))
                with contextlib.suppress(OSError):
                    stranger.sendall(data)
    assert client.call("till.pid") == stage.pid_of("till")
    assert client.status().state == "running"


def test_a_frozen_client_holds_nobody_up(stage: Stage) -> None:
    stage.up(f"till: {{{TILL}}}")
    code = "import svcd, time\nc = svcd.Client(); c.call('till.pid'); print(flush=True); time.sleep(1000)\n"
    with subprocess.Popen([sys.executable, "-c", code], env=stage.environ, stdout=subprocess.PIPE) as frozen:
        assert frozen.stdout is not None
        try:
            frozen.stdout.readline()
            frozen.send_signal(signal.SIGSTOP)
            with svcd.Client(run_dir=stage.run_dir) as client:
                for _ in range(5):
                    stage.does("restart", "till")
                    assert client.call("till.pid", wait=PATIENCE_S) == stage.pid_of("till")
            assert is_alive(frozen.pid)
        finally:
            frozen.kill()
