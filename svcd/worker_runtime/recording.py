"""Measures what a service imports while it is loaded: which installed modules, and how long each took with all that it
pulls in.

Must not change how or in what order anything is imported, and must be gone when loading has ended.

Only what the service's own code imports counts, not what that imports in turn. Installed means the standard library
and site-packages: a service's own code is to be loaded at each start, so that a restart runs the newest.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
import threading
import time
from collections.abc import Iterable
from types import ModuleType, TracebackType
from typing import Any, Final

PACKAGES: Final = ("site-packages", "dist-packages")
HEAVY_S: Final = 0.005
MAX_TOLD: Final = 100
KNOWN_LOADERS: Final = (
    importlib.machinery.SourceFileLoader,
    importlib.machinery.SourcelessFileLoader,
    importlib.machinery.ExtensionFileLoader,
)


class Recording:
    """A finder that lets all others find, and takes the time. ``own``: the service's directories."""

    def __init__(self, own: Iterable[str]) -> None:
        mine = set(own)
        packages = [each for each in sys.path if os.path.basename(each) in PACKAGES and each not in mine]
        self._places = tuple(os.path.join(each, "") for each in (os.path.dirname(os.__file__), *packages))
        self._thread = threading.get_ident()
        self._depth = 0
        self._took_s: dict[str, float] = {}

    def __enter__(self) -> Recording:
        sys.meta_path.insert(0, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.meta_path[:] = [each for each in sys.meta_path if each is not self]

    def heavy(self) -> dict[str, float]:
        """Seconds by module, the longest first."""
        found = [(name, took_s) for name, took_s in self._took_s.items() if took_s >= HEAVY_S]
        return dict(sorted(found, key=lambda item: -item[1])[:MAX_TOLD])

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> Any:
        began = time.perf_counter()
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = None if find is None else find(name, path, target)
            if spec is not None:
                if threading.get_ident() == self._thread and self._is_installed(spec):
                    self._time(name, spec.loader, began)
                return spec
        return None

    def _is_installed(self, spec: importlib.machinery.ModuleSpec) -> bool:
        origin = spec.origin
        return type(spec.loader) in KNOWN_LOADERS and origin is not None and origin.startswith(self._places)

    def _time(self, name: str, loader: Any, began: float) -> None:
        """For one execution of this module."""
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module
            self._depth += 1
            try:
                execute(module)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._took_s[name] = time.perf_counter() - began

        loader.exec_module = exec_module
