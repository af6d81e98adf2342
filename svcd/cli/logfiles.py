"""The last lines of a stream, over all of its rotated files.

Must not change a file; must not miss a byte when a rotation happens meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from svcd.protocol.rotation import PIECE_BYTES, numbered, open_log, rotated_numbers

BLOCK_BYTES: Final = 64 * 1024

Place = tuple[int, int]  # descriptor, offset


def copy_tail(path: Path, count: int | None, put: Callable[[bytes], None], keep_open: bool = False) -> int | None:
    """Give the last ``count`` lines (None: all) of the stream to ``put``, oldest first.

    With ``keep_open`` the descriptor of the current file is returned, standing where the copy ended; None when there is
    no file yet.
    """
    fds = _open_all(path)
    kept: int | None = None
    try:
        start = len(fds) - 1 if count is None else _seek_to_lines(fds, count)
        for fd in reversed(fds[: start + 1]):
            while data := os.read(fd, PIECE_BYTES):
                put(data)
        kept = fds[0] if keep_open and fds else None
        return kept
    finally:
        for fd in fds:
            if fd != kept:
                os.close(fd)


def _open_all(path: Path) -> list[int]:
    """Descriptors of all files of the stream, youngest first.

    Opened in that order, because files only move up: one that is rotated between two opens is met again under its next
    number and known by its inode, so none is left out.
    """
    fds: list[int] = []
    seen: set[tuple[int, int]] = set()
    number, highest = 0, rotated_numbers(path)[-1]
    while number <= highest + 1:
        fd = open_log(numbered(path, number))
        number += 1
        if fd is None:
            continue
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) in seen:
            os.close(fd)
            highest += 1  # everything has moved up by one
            continue
        seen.add((found.st_dev, found.st_ino))
        fds.append(fd)
    return fds


def _seek_to_lines(fds: list[int], count: int) -> int:
    """Seek so that reading from ``fds[result]`` on, down to ``fds[0]``, gives the last ``count`` lines."""
    missing = count
    is_last_byte = True
    for index, fd in enumerate(fds):
        end = os.fstat(fd).st_size
        while end > 0:
            begin = max(0, end - BLOCK_BYTES)
            block = os.pread(fd, end - begin, begin)
            if is_last_byte and block:
                is_last_byte = False
                missing += block.endswith(b"\n")  # this one ends a line, the others separate two
            at = len(block)
            while missing and (at := block.rfind(b"\n", 0, at)) >= 0:
                missing -= 1
            if missing == 0:
                os.lseek(fd, begin + at + 1 if count else os.fstat(fd).st_size, os.SEEK_SET)
                return index
            end = begin
    return len(fds) - 1
