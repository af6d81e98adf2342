"""The public face and the logger: what importing costs, what the logger writes, with and without structlog."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

import svcd
from svcd.worker_runtime import logger
from svcd.worker_runtime.flags import Stopping
from svcd.worker_runtime.lifetime.outcome import StateError

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \[(\w+)\] (.*)")


def run(code: str, *flags: str) -> str:
    ended = subprocess.run(
        [sys.executable, *flags, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_importing_svcd_imports_nothing() -> None:
    code = "import sys; before = set(sys.modules); import svcd; print(*sorted(set(sys.modules) - before - {'typing'}))"
    loaded = {name for name in run(code).split() if name != "svcd"}
    assert not {name for name in loaded if name.startswith(("svcd.", "zmq", "asyncio", "importlib.metadata"))}


def test_the_public_names() -> None:
    for name in svcd.__all__:
        assert getattr(svcd, name) is not None
        assert name in dir(svcd)
    with pytest.raises(AttributeError, match="module 'svcd' has no attribute 'Servise'"):
        _ = svcd.Servise  # type: ignore[attr-defined]


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert svcd.__version__ == project["version"]


def test_the_runtime_imports_neither_structlog_nor_the_supervisor_nor_uvloop() -> None:
    code = "import sys, svcd.worker_runtime.process; print(*sorted(sys.modules))"
    loaded = run(code).split()
    assert not [
        name
        for name in loaded
        if name.partition(".")[0] in ("structlog", "uvloop", "pydantic", "rich", "psutil", "zmq")
    ]
    assert not [name for name in loaded if name.startswith(("svcd.supervisor", "svcd.cli"))]


def test_importing_the_stub_leaves_no_thread_descriptor_or_path_behind() -> None:
    code = """
import os, sys
fds, path, main = os.listdir("/proc/self/fd"), list(sys.path), sys.modules["__main__"]
import svcd.worker_runtime.stub
print(len(os.listdir("/proc/self/task")), os.listdir("/proc/self/fd") == fds, sys.path == path,
      sys.modules["__main__"] is main, "svcd_service_code" in sys.modules)
"""
    assert run(code) == "1 True True True False"


def test_the_fork_server_has_a_structlog_for_us_alone() -> None:
    """A service's own is whole, with what it imports where that is installed; what is bound there counts here."""
    code = """
import sys
import svcd.worker_runtime.stub
assert not [name for name in sys.modules if name.partition(".")[0] in ("structlog", "rich", "zmq")]
from svcd.worker_runtime import logger
log = logger.make_logger("web", 7)
assert "structlog" not in sys.modules and not isinstance(log, logger.PlainLogger)
import structlog
sys.stderr = sys.stdout
with structlog.contextvars.bound_contextvars(user="ann"):
    log.info("hello")
assert type(log) is not type(structlog.wrap_logger(None).bind())
"""
    found = LINE.fullmatch(run(code))
    assert found is not None
    assert found[2] == "hello service=web invocation=7 user=ann"


@pytest.mark.parametrize("plain", [False, True], ids=["structlog", "plain"])
def test_log_lines(plain: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if plain:
        monkeypatch.setitem(sys.modules, "structlog", None)
    log = logger.make_logger("web", 7)
    assert isinstance(log, logger.PlainLogger) == plain
    log.debug("not shown")
    log.info("started", port=80, name="a b")
    log.bind(user="ann").warning("odd")
    try:
        raise ValueError("no bread")
    except ValueError:
        log.exception("failed")
    lines = capsys.readouterr().err.splitlines()
    found = [match.groups() for match in map(LINE.fullmatch, lines) if match]
    assert found == [
        ("info", "started service=web invocation=7 port=80 name='a b'"),
        ("warning", "odd service=web invocation=7 user=ann"),
        ("error", "failed service=web invocation=7"),
    ]
    assert lines[-1] == "ValueError: no bread"
    assert "Traceback (most recent call last):" in lines


def test_the_level_comes_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SVCD_LOG_LEVEL", "debug")
    logger.make_logger("web", 7).debug("shown")
    monkeypatch.setenv("SVCD_LOG_LEVEL", "nonsense")
    logger.make_logger("web", 7).debug("hidden")
    assert [line.split("] ")[1] for line in capsys.readouterr().err.splitlines()] == ["shown service=web invocation=7"]


def test_logging_without_stderr_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    logger.make_logger("web", 7).info("into the void")


def test_stopping_wakes_threads_and_coroutines() -> None:
    stopping = Stopping()
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(stopping.wait(30)))
    thread.start()

    async def wait() -> None:
        waiter = asyncio.create_task(stopping.wait_async())
        while not stopping.awaited:
            await asyncio.sleep(0)
        cancelled = asyncio.create_task(stopping.wait_async())
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait({cancelled})
        stopping.set()
        await asyncio.wait_for(waiter, 30)
        await asyncio.wait_for(stopping.wait_async(), 30)
        assert not stopping.awaited

    assert not stopping.wait(0)
    asyncio.run(wait())
    thread.join(30)
    assert seen == [True]
    assert stopping.is_set()


def test_blocking_the_event_loop_is_refused() -> None:
    async def wait() -> None:
        Stopping().wait(0)

    with pytest.raises(StateError):
        asyncio.run(wait())
