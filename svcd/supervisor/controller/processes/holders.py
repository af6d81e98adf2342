"""Who has a port: for the words of an error, from /proc.

Must not take long: what is not found soon is not said.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Final

PATIENCE_S: Final = 0.2  # of the processor's: what is said is not to depend on what else the machine does
TABLES: Final = {"stream": ("tcp", "tcp6"), "dgram": ("udp", "udp6")}
LISTENING: Final = {"stream": rb"0A", "dgram": rb"07"}


def words(pid: int) -> str:
    """`` (pid 4121, nginx)``, to be put behind a reason."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return f" (pid {pid})"
    return f" (pid {pid}, {name})"


def pid_at_port(port: int, kind: str) -> int | None:
    """A process that listens there, if it can be told within ``PATIENCE_S`` and is ours to look at."""
    inodes = _inodes(port, kind)
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    deadline = time.thread_time() + PATIENCE_S
    for name in os.listdir("/proc"):
        if name.isdigit() and _has_one(int(name), wanted):
            return int(name)
        if time.thread_time() > deadline:
            break
    return None


def _inodes(port: int, kind: str) -> set[str]:
    pattern = re.compile(
        rb"^ *\d+: [0-9A-F]+:%04X \S+ %s \S+ \S+ \S+ +\d+ +\d+ (\d+)" % (port, LISTENING[kind]), re.MULTILINE
    )
    found: set[str] = set()
    for table in TABLES[kind]:
        try:
            found.update(inode.decode() for inode in pattern.findall(Path(f"/proc/net/{table}").read_bytes()))
        except OSError:
            pass
    return found - {"0"}


def _has_one(pid: int, wanted: set[str]) -> bool:
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            return any(os.readlink(entry.path) in wanted for entry in entries)
    except OSError:
        return False
