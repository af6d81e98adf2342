"""`preload:` from the file to real processes: who shares a fork server, what cannot be preloaded, what a death costs.

Must not measure time: what is preloaded says so itself.
"""

from __future__ import annotations

import psutil
import pytest
from clusters import wait_until
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
        print("preloaded" if where not in (None, os.getpid()) else "imported", heavy.pid, flush=True)
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
    """The last line of a service's output, word by word."""
    return str(wait_until(lambda: stage.output(service), f"output of {service}"), "utf-8").splitlines()[-1].split()


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
