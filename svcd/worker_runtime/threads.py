"""The bounded threads in which the plain methods of a service serve requests.

Must not run a service's ``init``, ``start`` or ``stop``: those have one thread of their own (``body``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Final

COUNT: Final = 8


class Threads:
    """Made when first needed; what does not find a thread waits for one."""

    def __init__(self, count: int = COUNT) -> None:
        self._count = count
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, function: Callable[[], Any]) -> Any:
        """``function()``, in this context, and what comes out of it."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="rpc")
        context = copy_context()
        loop = asyncio.get_running_loop()
        result, error = await loop.run_in_executor(self._pool, lambda: context.run(_caught, function))
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """Nothing new; what runs is not waited for."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _caught(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Nothing may be left to the pool: a StopIteration or a SystemExit would get lost in it."""
    try:
        return function(), None
    except BaseException as error:
        return None, error
