"""Runs svcd for a benchmark and asks it, and the kernel, for figures.

Must not compute or print results.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import zmq

from benchmarks.marks import HERE, LOOK_EVERY_S, PATIENCE_S, Marks
from svcd.protocol import codec, messages

SVCD = str(Path(sys.executable).parent / "svcd")
ALWAYS = {"policy": "always", "backoff": {"initial": 0, "jitter": 0}, "intensity": {"restarts": "unlimited"}}


def programs(first: str, marks: Marks, count: int) -> dict[str, Any]:
    """``count`` services that are programs."""
    return {
        f"p{number}": {"command": [first, str(marks.path), f"p{number}"], "restart": ALWAYS} for number in range(count)
    }


def python_services(marks: Marks, count: int) -> dict[str, Any]:
    """``count`` services that are forked from the warm server."""
    common = {"python": "service:Idle", "path": [str(HERE)], "restart": ALWAYS}
    return {
        f"s{number}": {**common, "env": {"BENCH_MARKS": str(marks.path), "BENCH_NAME": f"s{number}"}}
        for number in range(count)
    }


class Running:
    """One cluster in directories of its own: ``with Running(services) as svcd``. In the foreground with its console,
    whose output goes to a file, or ``detached``.
    """

    def __init__(self, services: dict[str, Any], detached: bool = False) -> None:
        self.words = ["-d"] if detached else []
        self.base = Path(tempfile.mkdtemp(prefix="svcd-bench-"))
        self.file = self.base / "cluster.json"  # JSON is YAML
        self.file.write_text(json.dumps({"cluster": "bench", "services": services}))
        self.environ = {
            **os.environ,
            "SVCD_RUN_DIR": str(self.base / "run"),
            "SVCD_STATE_DIR": str(self.base / "state"),
        }

    def __enter__(self) -> Running:
        self.began_ns = time.monotonic_ns()
        self.process = subprocess.Popen(
            [SVCD, "start", *self.words, str(self.file)],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=(self.base / "console.txt").open("wb"),
            stderr=subprocess.STDOUT,
        )
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.reconnect_ivl = 5
        self.socket.connect(f"ipc://{self.base}/run/control")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
        self.context.term()
        if self.words:
            subprocess.run([SVCD, "shutdown"], env=self.environ, stdout=subprocess.DEVNULL, check=False)
        elif self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)
        shutil.rmtree(self.base, ignore_errors=True)

    def ask(self) -> messages.StatusReported:
        self.socket.send_multipart([b"", codec.encode(messages.GetStatus())])
        if not self.socket.poll(int(PATIENCE_S * 1000)):
            raise SystemExit(f"svcd does not answer:\n{(self.base / 'console.txt').read_text()[-2000:]}")
        answer = codec.decode(self.socket.recv_multipart()[1])
        assert isinstance(answer, messages.StatusReported)
        return answer

    def wait_all_running(self) -> messages.StatusReported:
        """The status, once every service runs; the moment is then in ``settled_ns``."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            status = self.ask()
            self.settled_ns = time.monotonic_ns()
            if status.state == "running" and all(row.state == "running" for row in status.services):
                return status
            if time.monotonic() > deadline:
                bad = next(row for row in status.services if row.state != "running")
                raise SystemExit(f"{bad.name} does not run: {bad.state}, {bad.cause}")
            time.sleep(LOOK_EVERY_S)

    def calls_per_s(self, calls: int) -> float:
        """Status calls a second on the held connection, one at a time; the answers are received, not decoded."""
        question = codec.encode(messages.GetStatus())
        began = time.monotonic()
        for _ in range(calls):
            self.socket.send_multipart([b"", question])
            self.socket.recv_multipart()
        return calls / (time.monotonic() - began)

    def command_s(self, *words: str) -> float:
        """How long a command takes, as a user waits for it."""
        began = time.monotonic()
        subprocess.run([SVCD, *words], env=self.environ, stdout=subprocess.DEVNULL, check=True)
        return time.monotonic() - began

    def end_s(self) -> float:
        """SIGTERM to the main pid until it is gone."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)
        return time.monotonic() - began


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds that these processes have used so far, all threads (/proc/PID/task/TID/schedstat, nanoseconds)."""
    total = 0
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            total += int(path.read_text().split()[0])
    return total / 1e9


def pss_bytes(pid: int) -> int:
    """Proportional set size of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
