"""Plugging: gaps in the interpreter's pools are filled, stderr is as it was, and nothing is left open."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from svcd.worker_runtime.forking import plugging


def total(gaps: dict[int, int]) -> int:
    return sum(size * count for size, count in gaps.items())


def test_gaps_are_filled_for_all_sizes_of_objects() -> None:
    held = {number: str(number) * 20 for number in range(20_000)}
    for number in range(0, 20_000, 3):
        del held[number]
    before, stderr = plugging._gaps(), os.fstat(2)
    assert total(before) > 500_000
    assert set(before) == set(range(16, 513, 16))
    plugging.plug()
    assert total(plugging._gaps()) < total(before) / 2
    now = os.fstat(2)
    assert (now.st_dev, now.st_ino) == (stderr.st_dev, stderr.st_ino)
    plugging._plugs.clear()


def test_where_nothing_is_told_nothing_is_done(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(plugging, "_statistics", lambda: b"another allocator")
    plugging.plug()
    assert plugging._gaps() == {}
    assert not any(plugging._plugs)


HEAP = """
import ctypes
from svcd.worker_runtime.forking import plugging

libc = ctypes.PyDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
libc.free.restype, libc.free.argtypes = None, (ctypes.c_void_p,)
taken = [libc.malloc(2000) for _ in range(300)]
for each in taken[::2]:
    libc.free(each)
PLUG
new = [libc.malloc(2000) for _ in range(100)]
print(sum(each > max(taken) for each in new))
"""


@pytest.mark.parametrize(("plug", "found"), [("plugging.plug()", "100"), ("", "0")])
def test_what_the_c_library_has_freed_is_not_given_again(plug: str, found: str) -> None:
    """In a process as fresh as a fork server: one that has run for long may have more gaps than are plugged."""
    command = [sys.executable, "-c", HEAP.replace("PLUG", plug)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.split() == [found]
