"""The name of a process, as ``ps`` shows it, without a library.

Must not fail: a name is a courtesy. Standard library only.

The kernel shows as a process' arguments whatever stands in the memory where it once put them; proc(5) says where that
is. The title is written there, and no further, so that the environment behind it stays what it was.
"""

from __future__ import annotations

import ctypes
from typing import Final

PR_SET_NAME: Final = 15
REWRITTEN: Final = b"."  # anything but NUL as the last byte tells the kernel to stop at the first NUL
ARG_START, ARG_END = 45, 46  # fields of /proc/PID/stat, counted from the one after the name


def set_title(title: str) -> None:
    """Name this process. What does not fit where its arguments stood is cut off, and ``comm`` shows 15 bytes."""
    text = title.encode("utf-8", "replace")
    try:
        ctypes.CDLL(None).prctl(PR_SET_NAME, text[:15], 0, 0, 0)
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        start, room = int(fields[ARG_START]), int(fields[ARG_END]) - int(fields[ARG_START])
        if start > 0 and room > 2:
            ctypes.memmove(start, text[: room - 2].ljust(room - 1, b"\0") + REWRITTEN, room)
    except (OSError, ValueError, IndexError):
        pass
