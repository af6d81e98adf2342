"""The file in which services say when they ran, and the program that says so.

Must not start anything but the compiler.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PATIENCE_S = 120.0
LOOK_EVERY_S = 0.002


def build_program(directory: Path) -> str:
    """Compile ``first.c``; the path of the executable."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("cannot run the benchmarks: there is no C compiler (Debian: apt-get install gcc libc6-dev)")
    target = directory / "first"
    subprocess.run([compiler, "-O2", "-static", "-o", str(target), str(HERE / "first.c")], check=True)
    return str(target)


class Marks:
    """Lines of "NAME NANOSECONDS", read as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        self._file = path.open("rb")
        self._rest = b""
        self.seen: list[tuple[str, int]] = []

    def read(self) -> list[tuple[str, int]]:
        """All marks so far."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        self.seen += [(name.decode(), int(when)) for name, when in (line.split() for line in lines)]
        return self.seen

    def wait_count(self, count: int) -> list[tuple[str, int]]:
        """All marks, once there are ``count``."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.read()) < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"waited in vain: {len(self.seen)} of {count} services ran ({self.path})")
            time.sleep(LOOK_EVERY_S)
        return self.seen

    def wait_more(self, count: int) -> list[tuple[str, int]]:
        """The next ``count`` marks after those seen."""
        before = len(self.seen)
        return self.wait_count(before + count)[before:]

    def close(self) -> None:
        self._file.close()
