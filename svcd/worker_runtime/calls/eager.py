"""A task whose first step is run at once: what never waits is over before the next message is looked at.

Must not know what the coroutine does. Whoever asks for it is a callback of the loop, not a task.

Python has such tasks from 3.12 on. Before that, the loop is asked to hand over a new task's first step instead of
queuing it; the task is a task like any other, with a context of its own, from that step on.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

Queued = tuple[Callable[..., object], tuple[Any, ...], Context | None]


def begin(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], name: str
) -> asyncio.Task[None] | None:
    """The task; None where the coroutine has ended already. A SystemExit or KeyboardInterrupt in its first step ends
    the loop's run, as in any other, but not the callback that has begun it.
    """
    try:
        task = _begin(loop, coroutine, name)
    except (SystemExit, KeyboardInterrupt) as ending:
        loop.call_soon(_raise, ending)
        return None
    return None if task.done() else task


def _raise(error: BaseException) -> None:
    raise error


if sys.version_info >= (3, 12):

    def _begin(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return asyncio.Task(coroutine, loop=loop, name=name, eager_start=True)

else:

    def _begin(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        if not isinstance(loop, asyncio.BaseEventLoop) or asyncio.current_task(loop) is not None:
            return loop.create_task(coroutine, name=name)
        queued: list[Queued] = []

        def queue(callback: Callable[..., object], *args: Any, context: Context | None = None) -> None:
            queued.append((callback, args, context))

        loop.call_soon = queue  # type: ignore[assignment]  # hides the method, on this object alone
        try:
            task = asyncio.Task(coroutine, loop=loop, name=name)
        finally:
            del loop.call_soon
        for callback, args, context in queued:
            if getattr(callback, "__self__", None) is task and context is not None:
                context.run(callback, *args)
            else:  # the garbage collector may have come by: finalizers queue things, too
                loop.call_soon(callback, *args, context=context)
        return task
