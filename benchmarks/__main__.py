"""``python -m benchmarks [NAME…]``: runs the named measures, or all, and prints a line for each figure.

Must not hide a measure that fails: its reason is printed in its place.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

from benchmarks.measures import ALL, bench
from benchmarks.table import HEAD


def steal_percent(seconds: float = 1.0) -> float:
    """The share of CPU time that this machine's host, or other processes, took during a second of doing nothing."""

    def busy() -> tuple[int, int]:
        words = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        return sum(words) - words[3] - words[4], sum(words)

    before = busy()
    time.sleep(seconds)
    after = busy()
    return 100 * (after[0] - before[0]) / max(1, after[1] - before[1])


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in ALL]
    if unknown:
        print(f"cannot measure {', '.join(unknown)}; there are {', '.join(ALL)}", file=sys.stderr)
        return 2
    print(
        f"Python {platform.python_version()}, Linux {platform.release()}, {os.cpu_count()} cores,"
        f" {steal_percent():.0f} % of them busy with something else before we begin; medians; lower is better"
    )
    print(HEAD, flush=True)
    with bench() as prepared:
        for name in names or ALL:
            for figure in ALL[name](prepared):
                print(figure, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
