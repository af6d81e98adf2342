"""What `preload:` is worth: the same services with it and without.

Must not compare with anything but svcd itself: the figure without is in the place of the bare primitive.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.util import find_spec
from statistics import median
from typing import Any

from benchmarks.marks import HERE, Marks
from benchmarks.running import Running, pss_bytes, python_services
from benchmarks.table import Figure

SERVICES = 20
ROUNDS = 5
CRASHES = 20

Open = Callable[[], AbstractContextManager[Marks]]


def modules() -> tuple[str, ...]:
    """What the service imports."""
    sys.path.insert(0, str(HERE))
    try:
        from heavy import MODULES  # noqa: PLC0415 - the benchmark's own file, found as the service finds it
    finally:
        sys.path.remove(str(HERE))
    return tuple(MODULES)


def heavy_services(marks: Marks, count: int, preload: tuple[str, ...]) -> dict[str, Any]:
    """``count`` services that import much, by themselves or before they are forked."""
    services = python_services(marks, count)
    for name, keys in services.items():
        keys |= {"python": "heavy:Heavy", "preload": list(preload)}
        keys["env"] = {**keys["env"], "BENCH_NAME": name}
    return services


def _boot_s(marks: Marks, preload: tuple[str, ...]) -> tuple[float, float]:
    """(seconds from the command until all run, PSS of one in MiB)."""
    with Running(heavy_services(marks, SERVICES, preload), detached=True) as svcd:
        status = svcd.wait_all_running()
        memory = median(pss_bytes(row.pid) / 2**20 for row in status.services if row.pid)
        return (svcd.settled_ns - svcd.began_ns) / 1e9, memory


def _replacement_ms(marks: Marks, preload: tuple[str, ...]) -> float:
    """From a kill to the moment when the replacement has imported all."""
    times = []
    with Running(heavy_services(marks, 1, preload)) as svcd:
        for _ in range(CRASHES):
            (row,) = svcd.wait_all_running().services
            marks.read()
            assert row.pid is not None
            began = time.monotonic_ns()
            os.kill(row.pid, signal.SIGKILL)
            times.append((max(when for _, when in marks.wait_more(2)) - began) / 1e6)
    return median(times)


def measure(open_marks: Open) -> list[Figure]:
    """With, and without in the place of "bare"."""
    found: dict[str, list[tuple[float, ...]]] = {"with": [], "without": []}
    for _ in range(ROUNDS):
        for kind, preload in (("with", modules()), ("without", ())):
            with open_marks() as marks:
                boot_s, memory = _boot_s(marks, preload)
            with open_marks() as marks:
                found[kind].append((boot_s, memory, _replacement_ms(marks, preload)))
    mine, plain = ([median(column) for column in zip(*found[kind], strict=True)] for kind in ("with", "without"))
    what = "numpy" if find_spec("numpy") is not None else "much of the standard library"
    return [
        Figure(f"preload: command until {SERVICES} services with {what} run", mine[0], "s", plain[0]),
        Figure("preload: memory (PSS) of each", mine[1], "MiB", plain[1]),
        Figure("preload: crash to the replacement, imports done", mine[2], "ms", plain[2]),
    ]
