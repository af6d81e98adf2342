"""A directory for interpreters of services' own, in which svcd and msgpack are found and nothing else is.

Must not copy: what is there are links to what this svcd runs from.

To put our own ``site-packages`` on their ``sys.path`` would lend them all that is installed for svcd: packages that a
service forgot to install, in versions that nobody chose, with extension modules of another Python.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
from pathlib import Path
from typing import Any, Final

NAME: Final = "python"  # in the run directory; the guardian removes it at the end (RUN_FILES)
PACKAGES: Final = ("svcd", "msgpack")


class Borrowed:
    """``directory``: where to make it, when it is first needed."""

    def __init__(self, run_dir: Path) -> None:
        self._directory = run_dir / NAME
        self._is_made = False

    def settings(self) -> dict[str, Any]:
        """What ``worker_runtime.foreign`` is told. Raises ``OSError`` when the directory cannot be made."""
        if not self._is_made:
            self._make()
        return {"borrowed": str(self._directory), "suffix": importlib.machinery.EXTENSION_SUFFIXES[0]}

    def _make(self) -> None:
        """Others must be able to read it: services may run as somebody else."""
        self._directory.mkdir(mode=0o755, exist_ok=True)
        os.chmod(self._directory, 0o755)
        for package in PACKAGES:
            link = self._directory / package
            link.unlink(missing_ok=True)
            link.symlink_to(_home_of(package))
        self._is_made = True


def _home_of(package: str) -> str:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(2, f"{package} is not installed")
    return os.path.dirname(os.path.abspath(spec.origin))
