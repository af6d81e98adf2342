"""What some libraries need in a fork of a process that had imported them, before the service's code runs.

Must not import them: what was not preloaded is not there, and costs nothing.

OpenBLAS, which numpy and scipy bring, starts a thread per processor when it is loaded. A fork server loads it with one
thread, itself (supervisor/preloading.py); here each service gets the number that it would have got by itself. And
numpy's global generator was seeded in the fork server: without a new seed all services would draw the same numbers.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

BLAS_VARIABLES: Final = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")  # as OpenBLAS reads them
BLAS_SETTERS: Final = tuple(
    f"{prefix}openblas_set_num_threads{suffix}" for prefix in ("", "scipy_") for suffix in ("", "64_", "_64_")
)

_set_threads: list[Callable[[int], Any]] = []


def look_around() -> None:
    """In the fork server, once all is imported: find what each fork will have to set. Without /proc nothing is."""
    _set_threads[:] = [setter for path in sorted(set(_blas_files())) for setter in _setters(path)]


def settle() -> None:
    """In the fork."""
    if _set_threads:
        threads = _wanted_threads()
        for setter in _set_threads:
            setter(threads)
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()


def _wanted_threads() -> int:
    for name in BLAS_VARIABLES:
        text = os.environ.get(name, "")
        if text.isascii() and text.isdigit() and int(text[:6]) > 0:
            return int(text[:6])
    return len(os.sched_getaffinity(0))


def _blas_files() -> Iterator[str]:
    try:
        with open("/proc/self/maps", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        path = line.partition("/")[2]
        if "openblas" in os.path.basename(path).lower():
            yield f"/{path}"


def _setters(path: str) -> Iterator[Callable[[int], Any]]:
    try:
        library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return
    for name in BLAS_SETTERS:
        setter = getattr(library, name, None)
        if setter is not None:
            setter.argtypes, setter.restype = [ctypes.c_int], None
            yield setter
            return
