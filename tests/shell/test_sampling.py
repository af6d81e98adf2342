"""What the programs use, as the kernel counts it: of real processes.

Must not wait for the time between two rounds: a round begins at once here.
"""

from __future__ import annotations

import asyncio
import os
import subprocess

import psutil
import pytest

from svcd.supervisor.controller.watching import sampling
from svcd.supervisor.controller.watching.sampling import Sampler

PATIENCE_S = 60.0
Taken = list[tuple[str, float, int]]
BUSY = "import time\nblock = bytearray(50_000_000)\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"


def sampled(
    monkeypatch: pytest.MonkeyPatch, targets: list[tuple[str, int]], wanted: int
) -> list[tuple[str, float, int]]:
    """What the first rounds say, until there are so many words."""
    taken: Taken = []

    async def body() -> None:
        enough = asyncio.get_running_loop().create_future()

        def take(service: str, now: float, cpu_s: float, rss_bytes: int) -> None:
            taken.append((service, cpu_s, rss_bytes))
            if len(taken) == wanted:
                enough.set_result(None)

        sampler = Sampler(asyncio.get_running_loop(), lambda: targets, take)
        await asyncio.wait_for(enough, PATIENCE_S)
        sampler.close()

    monkeypatch.setattr(sampling, "INTERVAL_S", 0.0)
    asyncio.run(body())
    return taken[:wanted]


def test_it_says_what_the_kernel_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["python3", "-c", BUSY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        ((service, cpu_s, rss_bytes),) = sampled(monkeypatch, [("busy", process.pid)], 1)
        other = psutil.Process(process.pid)
        assert service == "busy"
        assert 0.15 <= cpu_s <= sum(other.cpu_times()[:2])
        assert 50_000_000 < rss_bytes == pytest.approx(other.memory_info().rss, rel=0.1)
        process.kill()


def test_who_is_gone_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    found = sampled(monkeypatch, [("gone", process.pid), ("here", os.getpid())], 1)
    assert [service for service, _, _ in found] == ["here"]


def test_many_are_asked_slice_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [(f"s{number}", os.getpid()) for number in range(3 * sampling.SLICE + 1)]
    found = sampled(monkeypatch, names, len(names))
    assert [service for service, _, _ in found] == [name for name, _ in names]
