"""What a service's threads and processes are made by: the settings of ``runtime:``, as they come with the code.

Must not merge or word anything for users: where the values come from is decided, and told, before they are sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from svcd.record import record

THREADS: Final = "threads"
PROCESSES: Final = "processes"


class BadRuntime(ValueError):  # noqa: N818 - it says what is
    """The controller sent settings that nothing can be made by."""


@record
class RuntimeSettings:
    """``compute``: "threads" or "processes". ``compute_threads``: how many of them at most; 0: the blocking threads do
    their work. ``stack_size_bytes``: of a computing thread.
    """

    compute: str = THREADS
    compute_threads: int = 2
    max_blocking_threads: int = 8
    stack_size_bytes: int = 2 * 1024 * 1024
    thread_prefix: str = "compute"

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> RuntimeSettings:
        """From ``ServiceSpec.runtime``; what is not there has its default, unknown keys are a newer controller's.

        Raises ``BadRuntime``.
        """
        known = {name: values[name] for name in _ALLOWED if name in values}
        for name, value in known.items():
            if not _ALLOWED[name](value):
                raise BadRuntime(f"cannot use the runtime settings: {name} is {value!r}")
        return cls(**known)


def _whole(low: int, high: int) -> Any:
    return lambda value: type(value) is int and low <= value <= high


_ALLOWED: Final[dict[str, Any]] = {
    "compute": lambda value: value in (THREADS, PROCESSES),
    "compute_threads": _whole(0, 256),
    "max_blocking_threads": _whole(2, 1024),
    "stack_size_bytes": _whole(256 * 1024, 1024 * 1024 * 1024),
    "thread_prefix": lambda value: isinstance(value, str) and 0 < len(value) <= 32,
}
