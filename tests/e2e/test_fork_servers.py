"""`preload:` from the file to real processes: who shares a fork server, what cannot be preloaded, what a death costs.

Must not measure time: what is preloaded says so itself.
"""

from __future__ import annotations

import os
import signal

import psutil
import pytest
from clusters import is_alive, wait_until
from stage import Stage

HEAVY = """
    import os
    pid = os.getpid()
"""
USER = """
    import os, sys, time
    def main(ctx):
        where = sys.modules["heavy"].pid if "heavy" in sys.modules else None
        import heavy
        print(os.getpid(), "preloaded" if where not in (None, os.getpid()) else "imported", heavy.pid, flush=True)
        ctx.stopping.wait()
"""
UNFIT = {
    "thread": (
        "import threading\nthreading.Thread(target=threading.Event().wait, name='ticker', daemon=True).start()",
        "importing it starts a thread (ticker)",
    ),
    "signal": ("import signal\nsignal.signal(signal.SIGUSR1, print)", "importing it changes what SIGUSR1 does"),
    "loop": ("import asyncio\nloop = asyncio.new_event_loop()", "importing it opens an event loop (epoll)"),
    "context": ("import zmq\ncontext = zmq.Context()", "importing it opens an eventfd, as a ZeroMQ context does"),
    "process": ("import subprocess\nchild = subprocess.Popen(['sleep', '1000'])", "importing it starts a process"),
    "file": ("import sys\nfile = open(__file__)", "unfit.py open"),
    "broken": ("1 / 0", "cannot preload unfit: ZeroDivisionError: division by zero ("),
    "exit": ("raise SystemExit(3)", "cannot preload unfit: SystemExit: 3 ("),
    "abort": (
        "import os\nos.abort()",
        "cannot preload unfit: the fork server was killed (signal 6) while importing it",
    ),
    "end": ("import os\nos._exit(3)", "cannot preload unfit: the fork server ended (exit code 3) while importing it"),
}


def servers(stage: Stage) -> dict[str, int]:
    """Fork servers with a preload set: name -> pid."""
    return {part.name: part.pid for part in stage.status().parts if part.name.startswith("fork-server.")}


def told(stage: Stage, service: str) -> list[str]:
    """What the present process of a service says of itself, word by word."""
    stage.wait_state(service, "running")
    pid = str(stage.pid_of(service))

    def said() -> list[str]:
        lines = [line.split() for line in stage.output(service).decode().splitlines()]
        return next((words[1:] for words in lines if words[0] == pid), [])

    return list(wait_until(said, f"the words of {service}"))


def up(stage: Stage, services: str) -> None:
    stage.write(HEAVY, "heavy.py")
    stage.write(USER, "user.py")
    stage.up(services)


def test_services_with_one_set_come_from_one_fork_server(stage: Stage) -> None:
    up(
        stage,
        """
        a: {command: null, python: "user:main", preload: [heavy, json]}
        b: {command: null, python: "user:main", preload: [json, heavy]}
        c: {command: null, python: "user:main", preload: [heavy]}
        d: {command: null, python: "user:main"}
        """,
    )
    a, b, c, d = (told(stage, name) for name in "abcd")
    assert [each[0] for each in (a, b, c, d)] == ["preloaded", "preloaded", "preloaded", "imported"]
    assert a == b
    assert {int(a[1]), int(c[1])} == set(servers(stage).values())
    titles = {" ".join(psutil.Process(pid).cmdline()).strip() for pid in servers(stage).values()}
    assert titles == {"svcd: fork-server cluster (heavy, json)", "svcd: fork-server cluster (heavy)"}
    stage.drain()


@pytest.mark.parametrize("name", UNFIT)
def test_what_cannot_be_preloaded_is_a_failed_start_that_says_why(stage: Stage, name: str) -> None:
    source, words = UNFIT[name]
    stage.write(source, "unfit.py")
    up(
        stage,
        """
        a: {command: null, python: "user:main", preload: [json, unfit], restart: {policy: never}}
        b: {command: null, python: "user:main", preload: [heavy]}
        c: {command: null, python: "user:main"}
        """,
    )
    row = stage.wait_state("a", "failed")
    assert row.cause.startswith("cannot be started: cannot preload unfit: ") or "cannot preload unfit: " in row.cause, (
        row
    )
    assert words in row.cause
    stage.wait_state("b", "running")
    stage.wait_state("c", "running")
    wait_until(lambda: len(servers(stage)) == 1, "the unfit one to be gone")
    stage.drain()


def test_a_server_that_hangs_holds_up_nobody_else(stage: Stage) -> None:
    stage.write("import threading\nthreading.Event().wait()", "unfit.py")
    up(
        stage,
        """
        a: {command: null, python: "user:main", preload: [unfit], restart: {policy: never}, ready: {timeout: 500ms}}
        b: {command: null, python: "user:main", preload: [heavy]}
        """,
    )
    assert told(stage, "b")[0] == "preloaded"
    row = stage.wait_state("a", "failed")
    assert "cannot preload unfit: importing it has not ended within 0.5 s" in row.cause
    wait_until(lambda: len(servers(stage)) == 1, "the one that hangs to be gone")
    stage.drain()


def test_a_stop_does_not_wait_for_an_import(stage: Stage) -> None:
    stage.write("import threading\nthreading.Event().wait()", "unfit.py")
    up(stage, 'a: {command: null, python: "user:main", preload: [unfit], start: manual}')
    start = stage.order("start", "a")
    wait_until(lambda: servers(stage), "its fork server")
    stage.does("stop", "a")
    assert start.outcome() == "superseded: superseded by a stop of a"
    assert stage.drain() == 0, "an import that hangs does not hold up the end"


def test_an_end_in_the_middle_of_an_import_leaves_nothing(stage: Stage) -> None:
    stage.write("import threading\nopen(__file__ + '.began', 'w').close()\nthreading.Event().wait()", "unfit.py")
    up(stage, 'a: {command: null, python: "user:main", preload: [unfit], start: manual}')
    stage.order("start", "a")
    pid = wait_until(lambda: [*servers(stage).values()], "its fork server")[0]
    wait_until((stage.directory / "unfit.py.began").exists, "its import")
    os.kill(stage.process.pid, signal.SIGKILL)  # type: ignore[union-attr]  # it runs
    wait_until(lambda: not is_alive(pid), "the fork server to end with the guardian")


def test_killing_a_fork_server_touches_no_service(stage: Stage) -> None:
    up(stage, 'a: {command: null, python: "user:main", preload: [heavy]}')
    before, (old,) = stage.pid_of("a"), servers(stage).values()
    assert told(stage, "a") == ["preloaded", str(old)]
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: old not in servers(stage).values(), "its end to be heard of")
    assert (stage.pid_of("a"), stage.row("a").state) == (before, "running")
    stage.does("restart", "a")
    (new,) = servers(stage).values()
    assert told(stage, "a") == ["preloaded", str(new)] != ["preloaded", str(old)]
    stage.drain()


def test_a_restart_runs_the_newest_code(stage: Stage) -> None:
    up(stage, 'a: {command: null, python: "user:main", preload: [heavy]}')
    stage.write("pid = 'new'\n", "heavy.py")
    stage.does("restart", "a")
    assert told(stage, "a") == ["preloaded", "new"]
    wait_until(lambda: len(servers(stage)) == 1, "the older one to be gone")
    stage.drain()


def test_what_was_mended_starts(stage: Stage) -> None:
    stage.write("1 / 0", "unfit.py")
    up(stage, 'a: {command: null, python: "user:main", preload: [unfit], restart: {policy: never}}')
    stage.wait_state("a", "failed")
    stage.write("", "unfit.py")
    stage.does("start", "a")
    stage.drain()


def test_servers_come_and_go_with_the_configuration(stage: Stage) -> None:
    """A cluster that began without Python services gets its fork servers when they come."""
    up(stage, "p: {}")
    assert [part.name for part in stage.status().parts if part.name.startswith("fork-server")] == []
    a = 'a: {command: null, python: "user:main"}'
    b = 'b: {command: null, python: "user:main", preload: [heavy]}'
    stage.write_services(f"p: {{}}\n{a}\n{b}")
    stage.svcd("apply", str(stage.file))
    assert (told(stage, "a")[0], told(stage, "b")[0]) == ("imported", "preloaded")
    stage.write_services(f"p: {{}}\n{a}\n{b.replace('heavy', 'heavy, json')}")
    stage.svcd("apply", str(stage.file))
    before = stage.pid_of("b")
    wait_until(lambda: not servers(stage), "the one that nobody needs to be gone")
    assert stage.pid_of("b") == before, "another preload is for the next start"
    stage.does("restart", "b")
    assert len(servers(stage)) == 1
    stage.write_services(f"p: {{}}\n{a}")
    stage.svcd("apply", str(stage.file))
    wait_until(lambda: not servers(stage), "that one to be gone as well")
    stage.drain()


def test_code_of_another_user_is_not_imported_with_our_rights(stage: Stage) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may become somebody else")
    up(
        stage,
        'a: {command: null, code: "def main(ctx): pass", preload: [heavy], user: nobody, restart: {policy: never}}',
    )
    row = stage.wait_state("a", "failed")
    assert "cannot preload heavy: ModuleNotFoundError: No module named 'heavy'" in row.cause
    stage.drain()


def test_numpy_is_as_if_each_service_had_imported_it(stage: Stage) -> None:
    """It starts threads, which a fork would not have; and its generator would draw the same numbers in all of them."""
    pytest.importorskip("numpy")
    stage.write(
        """
        import os, sys
        def main(ctx):
            assert "numpy" in sys.modules
            threads = len(os.listdir("/proc/self/task"))
            import numpy
            a = numpy.ones((300, 300))
            assert (a @ a)[0, 0] == 300
            print(os.getpid(), threads, numpy.random.randint(2**60), "OPENBLAS_NUM_THREADS" in os.environ, flush=True)
            ctx.stopping.wait()
        """,
        "user.py",
    )
    stage.up(
        """
        a: {command: null, python: "user:main", preload: [numpy.random]}
        b: {command: null, python: "user:main", preload: [numpy.random]}
        """
    )
    a, b = told(stage, "a"), told(stage, "b")
    assert a[0] == b[0]
    assert a[1] != b[1]
    assert a[2] == b[2] == "False"
    stage.drain()
