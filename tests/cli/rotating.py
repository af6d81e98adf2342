"""Writes log files as the collector does: filled to the bound, then moved up.

Must not import the collector: what the command line may rely on is written down here once more.
"""

from __future__ import annotations

import os
from pathlib import Path


class Writer:
    """One stream's files below ``directory``. With ``keep`` 0 a full file is truncated."""

    def __init__(self, path: Path, max_size: int, keep: int) -> None:
        self.path, self.max_size, self.keep = path, max_size, keep
        self.written = b""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = self._open()

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def _size(self) -> int:
        return os.fstat(self._fd).st_size

    def write(self, data: bytes) -> None:
        self.written += data
        while data:
            if self._size() >= self.max_size:
                self.rotate()
            room = self.max_size - self._size()
            os.write(self._fd, data[:room])
            data = data[room:]

    def rotate(self) -> None:
        for step in self.rotation_steps():
            step()

    def rotation_steps(self):  # type: ignore[no-untyped-def]  # callables, in order
        """The rotation in its single steps, so that a reader can look in between."""
        if self.keep == 0:
            yield lambda: os.ftruncate(self._fd, 0)
            return
        before = f"{self.path.name}."
        numbers = [name.removeprefix(before) for name in os.listdir(self.path.parent) if name.startswith(before)]
        for number in sorted((int(each) for each in numbers if each.isdecimal()), reverse=True):
            if number < self.keep:
                yield lambda number=number: os.replace(f"{self.path}.{number}", f"{self.path}.{number + 1}")
        yield lambda: os.replace(self.path, f"{self.path}.1")
        yield self._reopen

    def _reopen(self) -> None:
        os.close(self._fd)
        self._fd = self._open()

    def kept(self) -> bytes:
        """What is in the files now, oldest first."""
        numbers = range(self.keep + 1, 0, -1)
        files = [self.path.with_name(f"{self.path.name}.{number}") for number in numbers]
        return b"".join(file.read_bytes() for file in [*files, self.path] if file.exists())

    def close(self) -> None:
        os.close(self._fd)
