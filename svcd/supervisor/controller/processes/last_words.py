"""What a short command prints, of which its last lines are kept: a pipe, read as it comes.

Must not let a command that floods it keep the loop busy, nor keep more than a few lines of it.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

KEPT_LINES: Final = 10
LINE_LIMIT: Final = 400  # characters
KEPT_BYTES: Final = 4096
READ_BYTES: Final = 65536  # a pipe holds no more
REST_S: Final = 0.01  # for who fills the pipe as quickly as it is read


class LastWords:
    """``fd`` is for the command, ours to close once it was passed on (``passed``). ``close`` ends it and says what was
    heard. Raises ``OSError`` when no descriptors are left.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._kept = b""
        self._rest: asyncio.TimerHandle | None = None
        self._reading, self.fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self.fd, True)
        loop.add_reader(self._reading, self._hear)

    def passed(self) -> None:
        os.close(self.fd)

    def close(self) -> tuple[str, ...]:
        """The last lines. What is still in the pipe belongs to them."""
        if self._rest is not None:
            self._rest.cancel()
        self._loop.remove_reader(self._reading)
        self._read()
        os.close(self._reading)
        text = self._kept.decode("utf-8", "replace").strip("\n")
        return tuple(line[:LINE_LIMIT] for line in text.split("\n")[-KEPT_LINES:]) if text else ()

    def _hear(self) -> None:
        count = self._read()
        if 0 < count < READ_BYTES:
            return
        self._loop.remove_reader(self._reading)
        if count:
            self._rest = self._loop.call_later(REST_S, self._loop.add_reader, self._reading, self._hear)

    def _read(self) -> int:
        """How much there was; 0 at the end."""
        try:
            data = os.read(self._reading, READ_BYTES)
        except BlockingIOError:
            return 1  # nothing yet
        self._kept = (self._kept + data)[-KEPT_BYTES:]
        return len(data)
