"""The controller's own log: structlog, JSON lines, in STATE_DIR/svcd.log, bounded.

Must not be needed for anything to work: a disk that is full costs lines, never a decision.

structlog takes its time to import, so that happens when the loop has nothing more urgent to do; what is said before
then is kept (up to a bound) and written with its own time.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Final

from svcd.supervisor.controller import clock

LIMIT_BYTES: Final = 10 * 1024 * 1024
KEPT_LINES: Final = 20_000
WRITE_AFTER_S: Final = 1.0
TAKEN_ALONG: Final = ("rich", "better_exceptions", "twisted", "colorama")
"""What structlog imports where it is installed, for its console; lines of JSON need none of it."""


class _BoundedFile:
    """Appends lines; at ``LIMIT_BYTES`` the file becomes ``.1``. A write that fails is counted and forgotten."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = self._open()
        self.lost_lines = 0

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path, flags, 0o640)

    def write(self, text: str) -> None:
        try:
            os.write(self._fd, text.encode("utf-8", "backslashreplace"))
            if os.fstat(self._fd).st_size >= LIMIT_BYTES:
                os.replace(self._path, f"{self._path}.1")
                os.close(self._fd)
                self._fd = self._open()
        except OSError:
            self.lost_lines += 1

    def flush(self) -> None:
        pass

    def close(self) -> None:
        os.close(self._fd)


class Journal:
    """``note(event, service=…, invocation=…, …)`` writes one line, a moment later, with the time of the call."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: Path) -> None:
        self._loop = loop
        self._file = _BoundedFile(path)
        self._lines: deque[tuple[float, str, dict[str, Any]]] = deque(maxlen=KEPT_LINES)
        self._logger: Any = None
        self._timer: asyncio.TimerHandle | None = None

    def note(self, event: str, **bound: Any) -> None:
        self._lines.append((clock.wall(), event, bound))
        if self._timer is None:
            self._timer = self._loop.call_later(WRITE_AFTER_S, self._write)

    def close(self) -> None:
        self._write()
        self._file.close()

    def _write(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines and self._logger is None:
            self._logger = _make_logger(self._file)
        while self._lines:
            at, event, bound = self._lines.popleft()
            self._logger.info(event, at=at, **bound)


def _import_structlog() -> Any:
    """Alone: rich, which it takes along where it finds it, is three quarters of its import, and 5 MiB."""
    hidden = [name for name in TAKEN_ALONG if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: an import of it fails
    try:
        import structlog  # noqa: PLC0415 - see above
    finally:
        for name in hidden:
            del sys.modules[name]
    return structlog


def _make_logger(file: _BoundedFile) -> Any:
    structlog = _import_structlog()

    def stamp(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {"at": round(line.pop("at"), 6), "event": line.pop("event"), **line}

    return structlog.wrap_logger(
        structlog.WriteLogger(file),  # it needs write and flush alone
        processors=[stamp, structlog.processors.JSONRenderer(default=repr)],
    )
