"""The bounded threads in which the plain methods of a service serve requests and hear events.

Must not run a service's ``init``, ``start`` or ``stop``: those have one thread of their own (``body``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from svcd.worker_runtime.computing.thread_pool import ThreadPool

COUNT: Final = 8
METHODS: Final = "methods"


def is_async(function: Callable[..., Any]) -> bool:
    """Whether it runs on the event loop; everything else is for a thread."""
    of_object = getattr(type(function), "__call__", None)  # noqa: B004 - for objects with an async __call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(of_object)


class Threads:
    """One lane of a pool that others may use too; of its own, if it is given none. What finds no thread waits.
    ``pool`` is asked for it when it is needed.
    """

    def __init__(self, pool: Callable[[], ThreadPool] | None = None) -> None:
        self._own = ThreadPool(COUNT, "rpc", (METHODS,)) if pool is None else None
        self._pool = pool

    async def run(self, function: Callable[[], Any]) -> Any:
        """``function()``, in this context, and what comes out of it."""
        pool = self._own if self._pool is None else self._pool()
        assert pool is not None
        return await pool.run(METHODS, "a method", function)

    def close(self) -> None:
        """Nothing new; what runs is not waited for. A pool that others use too is theirs to close."""
        if self._own is not None:
            self._own.close()
