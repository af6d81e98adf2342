"""The logger of ``ctx.logger``: structlog where it is installed, a small substitute where it is not.

Must not import structlog before it is asked for: it is the heaviest import of the whole runtime.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import MutableMapping
from datetime import UTC, datetime
from types import ModuleType
from typing import Any, Final

LEVEL_VARIABLE: Final = "SVCD_LOG_LEVEL"
DEFAULT_LEVEL: Final = logging.INFO

_PULLED_IN: Final = ("rich", "better_exceptions", "twisted", "colorama")
"""What structlog imports where it finds it, and we do not use: rich alone is 6 MiB that each fork would map."""

_apart: ModuleType | None = None


def import_apart() -> None:
    """For the fork server: a structlog for us alone, warm in each fork. ``sys.modules`` is left as it was: a service
    that imports structlog gets its own, with all that belongs to it.
    """
    global _apart
    known = set(sys.modules)
    hidden = [name for name in _PULLED_IN if name not in known]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: an import of it fails
    try:
        import structlog  # noqa: PLC0415 - see the module's docstring
    except ImportError:
        return
    finally:
        theirs = [name for name in sys.modules if name.partition(".")[0] == "structlog" and name not in known]
        for name in (*hidden, *theirs):
            del sys.modules[name]
    _apart = structlog


def _structlog() -> Any:
    if _apart is not None:
        return _apart
    import structlog  # noqa: PLC0415 - see the module's docstring

    return structlog


def make_logger(service: str, invocation: int) -> Any:
    """A logger with ``service`` and ``invocation`` bound, writing to whatever ``sys.stderr`` is at the time."""
    level = _level(os.environ.get(LEVEL_VARIABLE, ""))
    try:
        structlog = _structlog()
    except ImportError:
        return PlainLogger({"service": service, "invocation": invocation}, level)
    return structlog.wrap_logger(
        structlog.PrintLogger(_Stderr()),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            structlog.processors.UnicodeDecoder(),
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    ).bind(service=service, invocation=invocation)


def _level(name: str) -> int:
    level = logging.getLevelNamesMapping().get(name.upper())
    return DEFAULT_LEVEL if level is None else level


class _Stderr:
    """``sys.stderr`` as it is at each write."""

    def write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
        except (AttributeError, OSError, ValueError):  # none, full or closed: a log line is not worth a crash
            pass

    def flush(self) -> None:
        try:
            sys.stderr.flush()
        except (AttributeError, OSError, ValueError):
            pass


def _render(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """``TIME [level] event key=value …``, then tracebacks on lines of their own."""
    head = f"{event.pop('timestamp', '')} [{event.pop('level', 'info')}] {event.pop('event', '')}"
    blocks = [str(event.pop(key)) for key in ("stack", "exception") if event.get(key)]
    pairs = [f"{key}={_value(value)}" for key, value in event.items()]
    return "\n".join([" ".join([head, *pairs]), *blocks])


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return repr(text) if isinstance(value, str) and (not text or set(text) & set(" =\"'\n")) else text


class PlainLogger:
    """The part of structlog's interface that services use most, for interpreters without structlog."""

    def __init__(self, bound: dict[str, Any], level: int) -> None:
        self._bound = bound
        self._level = level

    def bind(self, **values: Any) -> PlainLogger:
        return PlainLogger({**self._bound, **values}, self._level)

    def debug(self, event: str, *args: Any, **values: Any) -> None:
        self._write(logging.DEBUG, event, args, values)

    def info(self, event: str, *args: Any, **values: Any) -> None:
        self._write(logging.INFO, event, args, values)

    def warning(self, event: str, *args: Any, **values: Any) -> None:
        self._write(logging.WARNING, event, args, values)

    def error(self, event: str, *args: Any, **values: Any) -> None:
        self._write(logging.ERROR, event, args, values)

    def critical(self, event: str, *args: Any, **values: Any) -> None:
        self._write(logging.CRITICAL, event, args, values)

    def exception(self, event: str, *args: Any, **values: Any) -> None:
        self._write(logging.ERROR, event, args, {"exc_info": True, **values})

    def _write(self, level: int, event: str, args: tuple[Any, ...], values: dict[str, Any]) -> None:
        if level < self._level:
            return
        exception = traceback.format_exc().rstrip() if values.pop("exc_info", False) else None
        line = {
            **self._bound,
            **values,
            "timestamp": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": logging.getLevelName(level).lower(),
            "event": event % args if args else event,
            "exception": exception,
        }
        if exception is None:
            del line["exception"]
        stderr = _Stderr()
        stderr.write(_render(None, "", line) + "\n")
        stderr.flush()
