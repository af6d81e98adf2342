"""Words of a service that mean more than one value: which keys exclude each other, and short forms made long.

Must not import the validator: the daemon reads the definitions of child services with these.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from svcd.supervisor.config.tree import kind_of
from svcd.supervisor.config.units import RefusedError, near_miss

RUN_KEYS: Final = ("command", "python", "script", "code")
READY_KEYS: Final = ("immediate", "delay", "notify", "tcp", "notification-fd", "http", "exec", "log")
READY_WORDS: Final = ("immediate", "notify")
HEALTH_KEYS: Final = ("http", "tcp", "exec", "rpc")
HTTP_ONLY_KEYS: Final = ("status", "body")
SCHEDULE_KEYS: Final = ("cron", "every")
MAX_CHILDREN: Final = 1000


class UpdateMode(Enum):
    RESTART = "restart"
    HOT = "hot"


class LogDriver(Enum):
    FILE = "file"
    NONE = "none"


READY_EXAMPLES: Final = {
    "delay": "{delay: 300ms}",
    "tcp": "{tcp: 127.0.0.1:6379, timeout: 10s}",
    "notification-fd": "{notification-fd: 3}",
    "http": "{http: 'http://127.0.0.1:80/ok'}",
    "exec": "{exec: [pg_isready]}",
    "log": "{log: ready to accept}",
}
"""The kinds that a word alone does not say."""


def expand_ready(value: Any) -> Any:
    if isinstance(value, dict):
        return value
    if not isinstance(value, str):
        text = f"must be a word or a mapping, not {kind_of(value)}"
        raise RefusedError(text, f"write immediate, notify, or a mapping such as {READY_EXAMPLES['tcp']}")
    if value in READY_WORDS:
        return {value: True}
    if value in READY_EXAMPLES:
        raise RefusedError(f"{value} needs a value", f"write ready: {READY_EXAMPLES[value]}")
    near = near_miss(value, READY_KEYS)
    raise RefusedError(f'"{value[:80]}" is no kind of readiness', near or f"use {', '.join(READY_KEYS)}")


def expand_dependencies(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: {} if edge is None else edge for name, edge in value.items()}
    if not isinstance(value, list):
        suggestion = f"write [{value}]" if isinstance(value, str) else "write one such as [db]"
        raise RefusedError(f"must be a list or a mapping, not {kind_of(value)}", suggestion)
    bad, edges = [], dict[str, dict[str, Any]]()
    for index, name in enumerate(value):
        if not isinstance(name, str):
            text = f"must be the name of a service, not {kind_of(name)}"
            bad.append(RefusedError(text, "for a kind or condition use a mapping: {db: {kind: wants}}", (index,)))
        elif name in edges:
            bad.append(RefusedError(f"{name} is named twice", "remove one of the two", (index,)))
        else:
            edges[name] = {}
    if bad:
        raise RefusedError(bad[0].text, bad[0].suggestion, bad[0].at, tuple(bad[1:]))
    return edges


def expand_spawn(value: Any) -> Any:
    if isinstance(value, bool):
        return {"max": MAX_CHILDREN if value else 0}
    if not isinstance(value, dict):
        mend = f"write {{max: {value}}}" if isinstance(value, int) else "write true, or one such as {max: 10}"
        raise RefusedError(f"must be true, false or a mapping, not {kind_of(value)}", mend)
    return value
