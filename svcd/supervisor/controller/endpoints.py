"""The directories in which services bind the sockets of their endpoints: one for each run, gone with it.

Must not look at what a service puts there beyond removing it.

A directory belongs to the user that the service runs as. Others may pass through, so that services of several users can
call each other: who may is asked at each endpoint, and the run directory above lets nobody in where there is one user.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

MODE: Final = 0o711


class Endpoints:
    """``base``: the directory of them all; what an earlier controller left there is removed."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def open(self) -> None:
        """Raises ``OSError``."""
        shutil.rmtree(self._base, ignore_errors=True)
        self._base.mkdir(MODE)
        self._base.chmod(MODE)

    def make(self, invocation: int, uid: int | None, gid: int | None) -> Path:
        """For a run of that user, None for ours. Raises ``OSError``."""
        path = self._base / str(invocation)
        path.mkdir(MODE, exist_ok=True)
        path.chmod(MODE)
        if uid is not None:
            os.chown(path, uid, -1 if gid is None else gid)
        return path

    def place(self, invocation: int, name: str) -> Path:
        return self._base / str(invocation) / name

    def remove(self, invocation: int) -> None:
        shutil.rmtree(self._base / str(invocation), ignore_errors=True)

    def close(self) -> None:
        shutil.rmtree(self._base, ignore_errors=True)
