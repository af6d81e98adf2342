"""Fixtures of the command line's tests: directories, a controller that obeys, and the command in this process.

Must not know the real daemon.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_daemon import Directories, FakeDaemon, Outcome

from svcd.cli import commands


@pytest.fixture
def directories(monkeypatch: pytest.MonkeyPatch) -> Iterator[Directories]:
    """A run and a state directory, which ``SVCD_RUN_DIR`` and ``SVCD_STATE_DIR`` name."""
    base = Path(tempfile.mkdtemp(prefix="svcd-cli-"))
    found = Directories(base / "run", base / "state")
    monkeypatch.setenv("SVCD_RUN_DIR", str(found.run_dir))
    monkeypatch.setenv("SVCD_STATE_DIR", str(found.state_dir))
    monkeypatch.delenv("SVCD_DEBUG", raising=False)
    yield found
    shutil.rmtree(base)


@pytest.fixture
def daemon(directories: Directories) -> Iterator[FakeDaemon]:
    """A cluster ``shop`` that runs."""
    made = FakeDaemon(directories.run_dir, directories.state_dir)
    yield made
    made.close()


@pytest.fixture
def svcd(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a command in this process."""

    def run(*arguments: str) -> Outcome:
        capfd.readouterr()
        code = commands.run(arguments)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
