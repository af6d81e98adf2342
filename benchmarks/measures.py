"""What is measured, and how: each function runs svcd and the bare primitive in turn and returns figures.

Must not print.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import calls, flows, preload
from benchmarks.marks import Marks, build_program
from benchmarks.running import Running, cpu_s, programs, pss_bytes, python_services
from benchmarks.table import Figure

PROGRAMS, PYTHON_SERVICES = 500, 200
ROUNDS = 3  # of what takes seconds
CRASHES, BURST_ROUNDS, BURST = 60, 10, 20
IDLE_S = 20.0
CALLS, COMMANDS = 2000, 9

MakeServices = Callable[[Marks, int], dict[str, Any]]


class Bench:
    """A directory with the compiled program, and new files of marks in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.first = build_program(directory)
        self._files = 0

    @contextmanager
    def marks(self) -> Iterator[Marks]:
        self._files += 1
        made = Marks(self.directory / f"marks-{self._files}")
        try:
            yield made
        finally:
            made.close()

    def bare(self, name: str, *numbers: int) -> dict[str, Any]:
        """The answer of ``benchmarks.bare``, run in an interpreter of its own."""
        with self.marks() as marks:
            command = [sys.executable, "-m", "benchmarks.bare", name, self.first, str(marks.path), *map(str, numbers)]
            answer: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
            return answer

    def kinds(self) -> dict[str, MakeServices]:
        return {"program": lambda marks, count: programs(self.first, marks, count), "fork": python_services}


@contextmanager
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="svcd-bench-") as directory:
        yield Bench(Path(directory))


def _boot(bench: Bench, kind: str, count: int) -> dict[str, list[float]]:
    names = ("ran", "settled", "first", "cpu", "end", "bare", "bare_end")
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        answer = bench.bare(f"boot-{kind}", count)
        found["bare"].append(answer["boot_s"])
        found["bare_end"].append(answer["end_s"])
        with bench.marks() as marks, Running(bench.kinds()[kind](marks, count)) as svcd:
            status = svcd.wait_all_running()
            found["cpu"].append(median(cpu_s([row.pid]) * 1e3 for row in status.services if row.pid))
            times = [when for _, when in marks.wait_count(count)]
            found["first"].append((min(times) - svcd.began_ns) / 1e9)
            found["ran"].append((max(times) - min(times)) / 1e9)
            found["settled"].append((svcd.settled_ns - min(times)) / 1e9)
            found["end"].append(svcd.end_s())
    return found


def boot_programs(bench: Bench) -> list[Figure]:
    found = {key: median(values) for key, values in _boot(bench, "program", PROGRAMS).items()}
    vfork = median(bench.bare("boot-vfork", PROGRAMS)["boot_s"] for _ in range(ROUNDS))
    return [
        Figure(f"start-up, {PROGRAMS} programs: until the first one's first instr.", found["first"] * 1e3, "ms"),
        Figure(f"boot of {PROGRAMS} programs: until all have run", found["ran"], "s", found["bare"], "ratio <= 1.1"),
        Figure("  the same, beside a posix_spawn loop", found["ran"], "s", vfork),
        Figure(f"boot of {PROGRAMS} programs: until status says running", found["settled"], "s", found["bare"]),
        Figure(f"shutdown of {PROGRAMS} programs", found["end"], "s", found["bare_end"], "<= 0.25 s"),
    ]


def boot_python(bench: Bench) -> list[Figure]:
    found = {key: median(values) for key, values in _boot(bench, "fork", PYTHON_SERVICES).items()}
    loop = median(bench.bare("boot-loop", PYTHON_SERVICES)["boot_s"] for _ in range(ROUNDS))
    what = f"{PYTHON_SERVICES} Python services"
    return [
        Figure(f"boot of {what}: until all are ready", found["settled"], "s", found["bare"], "ratio <= 1.5"),
        Figure("  the same, beside forks with an event loop", found["settled"], "s", loop),
        Figure("CPU of each between its fork and that", found["cpu"], "ms", None),
        Figure(f"shutdown of {what}", found["end"], "s", found["bare_end"]),
    ]


def start_up(bench: Bench) -> list[Figure]:
    times = []
    for _ in range(ROUNDS * 3):
        with bench.marks() as marks, Running(programs(bench.first, marks, 1)) as svcd:
            times.append((marks.wait_count(1)[0][1] - svcd.began_ns) / 1e6)
    python = []
    for _ in range(ROUNDS * 3):
        with bench.marks() as marks, Running(python_services(marks, 1)) as svcd:
            python.append((marks.wait_count(1)[0][1] - svcd.began_ns) / 1e6)
    bare = median(_command_s([sys.executable, "-I", "-c", ""]) for _ in range(COMMANDS)) * 1e3
    return [
        Figure("start-up: command to a program's first instruction", median(times), "ms", bare, "<= 250 ms"),
        Figure("start-up: command to a Python service's first instruction", median(python), "ms", bare, "<= 250 ms"),
    ]


def _command_s(command: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True)
    return time.monotonic() - began


def _crashes(bench: Bench, kind: str, rounds: int, burst: int) -> list[float]:
    """Milliseconds from the kill of ``burst`` services to the last replacement's first instruction."""
    times = []
    with bench.marks() as marks, Running(bench.kinds()[kind](marks, burst)) as svcd:
        for _ in range(rounds):
            pids = [row.pid for row in svcd.wait_all_running().services]
            marks.read()
            began = time.monotonic_ns()
            for pid in pids:
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
            times.append((max(when for _, when in marks.wait_more(burst)) - began) / 1e6)
    return times


def crash(bench: Bench) -> list[Figure]:
    figures = []
    for kind, what, budget in (("program", "program", "<= 4 ms"), ("fork", "Python service", "<= 6 ms")):
        for rounds, burst in ((CRASHES, 1), (BURST_ROUNDS, BURST)):
            mine = _crashes(bench, kind, rounds, burst)
            bare = bench.bare(f"replace-{kind}", rounds, burst)["ms"]
            name = f"crash to replacement, {what}" + (f", burst of {burst}: last one" if burst > 1 else "")
            figures.append(Figure(name, median(mine), "ms", median(bare), budget if burst == 1 else ""))
            if burst > 1:
                figures.append(
                    Figure("  the same, per service", median(mine) / burst, "ms", median(bare) / burst, budget)
                )
    return figures


def idle(bench: Bench) -> list[Figure]:
    """CPU and memory of svcd's own parts with many services that do nothing, and what a status costs then."""
    figures = []
    with bench.marks() as marks, Running(programs(bench.first, marks, PROGRAMS), detached=True) as svcd:
        status = svcd.wait_all_running()
        parts = {part.name: part.pid for part in status.parts}
        figures += _idle_figures(parts, f"{PROGRAMS} programs, sampled each 5 s", "<= 1 %")
        memory = {name: pss_bytes(pid) / 2**20 for name, pid in parts.items()}
        detail = ", ".join(f"{name} {value:.0f}" for name, value in memory.items())
        figures.append(
            Figure("memory (PSS) of svcd's parts", sum(memory.values()), "MiB", None, f"<= 60 MiB ({detail})")
        )
        figures += _status_figures(svcd)
    with bench.marks() as marks, Running(python_services(marks, PYTHON_SERVICES), detached=True) as svcd:
        status = svcd.wait_all_running()
        each = median(pss_bytes(row.pid) / 2**20 for row in status.services if row.pid)
        figures.append(
            Figure(f"memory (PSS) per Python service, {PYTHON_SERVICES} of them", each, "MiB", None, "<= 4 MiB")
        )
        parts = {part.name: part.pid for part in status.parts}
        figures += _idle_figures(parts, f"{PYTHON_SERVICES} Python services, sampled each 5 s", "")
    return figures


def _idle_figures(parts: dict[str, int], what: str, budget: str) -> list[Figure]:
    time.sleep(3)  # the start-up's late work
    before = {name: cpu_s([pid]) for name, pid in parts.items()}
    began = time.monotonic()
    time.sleep(IDLE_S)
    took = time.monotonic() - began
    used = {name: 100 * (cpu_s([pid]) - before[name]) / took for name, pid in parts.items()}
    detail = ", ".join(f"{name} {value:.2f}" for name, value in used.items())
    return [Figure(f"idle CPU, {what}", sum(used.values()), "% core", None, f"{budget} ({detail})".strip())]


def _status_figures(svcd: Running) -> list[Figure]:
    commands = [svcd.command_s("status") for _ in range(COMMANDS)]
    bare = median(_command_s([sys.executable, "-c", "import click, zmq, msgpack"]) for _ in range(COMMANDS)) * 1e3
    return [
        Figure(f"svcd status, {PROGRAMS} services: the command", median(commands) * 1e3, "ms", bare, "<= 100 ms"),
        Figure(
            f"status of {PROGRAMS} services on a held connection", svcd.calls_per_s(CALLS), "calls/s", None, ">= 2000"
        ),
    ]


ALL: dict[str, Callable[[Bench], list[Figure]]] = {
    "start-up": start_up,
    "programs": boot_programs,
    "python": boot_python,
    "crash": crash,
    "idle": idle,
    "calls": lambda _bench: calls.measure(),
    "flows": lambda _bench: flows.measure(),
    "preload": lambda bench: preload.measure(bench.marks),
}
