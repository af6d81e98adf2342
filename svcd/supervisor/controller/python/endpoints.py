"""The directories in which services bind the sockets of their endpoints: one for each run, gone with it.

Must not look at what a service puts there beyond removing it.

A directory belongs to the user that the service runs as. Others may pass through, so that services of several users can
call each other: who may is asked at each endpoint, and the run directory above lets nobody in where there is one user.
A service of our own user makes its directory itself, with its first socket: most services have none, and on a disk the
removal of a directory takes as long as a fork.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

MODE: Final = 0o711

Later = Callable[[Callable[[], None]], object]


class Endpoints:
    """``base``: the directory of them all; what an earlier controller left there is removed. ``later`` does some work
    when nobody waits for us.
    """

    def __init__(self, base: Path, later: Later = lambda work: work()) -> None:
        self._base = base
        self._later = later

    def open(self) -> None:
        """Raises ``OSError``."""
        shutil.rmtree(self._base, ignore_errors=True)
        self._base.mkdir(MODE)
        self._base.chmod(MODE)

    def make(self, invocation: int, uid: int | None, gid: int | None) -> Path:
        """For a run of that user, None for ours. Raises ``OSError``."""
        path = self._base / str(invocation)
        if uid in (None, os.geteuid()) and gid in (None, os.getegid()):
            return path
        path.mkdir(MODE, exist_ok=True)
        path.chmod(MODE)
        if uid is not None:
            os.chown(path, uid, -1 if gid is None else gid)
        return path

    def place(self, invocation: int, name: str) -> Path:
        return self._base / str(invocation) / name

    def remove(self, invocation: int) -> None:
        path = self._base / str(invocation)
        if path.exists():
            self._later(lambda: shutil.rmtree(path, ignore_errors=True))

    def close(self) -> None:
        shutil.rmtree(self._base, ignore_errors=True)
