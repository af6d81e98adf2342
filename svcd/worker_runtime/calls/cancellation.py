"""Cancellation tokens as a tree, and the tracker of what is in flight.

Must not cancel tasks or know requests: a token says that something is over, and calls who asked to be called.

The tree of a service: the primary token, cancelled when the service is to stop; below it the endpoint-shutdown token,
cancelled when it takes nothing new; below that one for each request. A cancelled token has cancelled those below it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from svcd.worker_runtime.flags import Flag

ENDED: Final = "it ended"


class Token:
    """Cancelled once, and then for good, with a reason. ``is_cancelled``, ``wait`` and ``child`` are for any thread;
    ``cancel`` and ``call`` belong to the loop's.
    """

    __slots__ = ("_callbacks", "_children", "_flag", "parent", "reason")

    def __init__(self, parent: Token | None = None) -> None:
        self.parent = parent
        self.reason: str | None = None
        self._children: dict[Token, None] | None = None  # in the order of their making
        self._callbacks: list[Callable[[], None]] | None = None
        self._flag: Flag | None = None

    def child(self) -> Token:
        """A token below this one; cancelled already if this is. ``detach`` it when it is of no use any more."""
        made = Token(self)
        if self.reason is None:
            if self._children is None:
                self._children = {}
            self._children[made] = None
        if self.reason is not None:  # looked at after it was told of the child: ``cancel`` sees it or we see ``cancel``
            made.reason = self.reason
        return made

    def detach(self) -> None:
        """Leave the tree: what this token was for is over."""
        if self.parent is not None and self.parent._children is not None:
            self.parent._children.pop(self, None)

    def cancel(self, reason: str) -> None:
        """This token and all below it. Everybody is told before anybody's reaction to it runs to its end."""
        if self.reason is not None:
            return
        self.reason = reason
        if self._flag is not None:
            self._flag.set()
        children, self._children = self._children, None
        for each in tuple(children or ()):
            each.cancel(reason)
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            callback()
        self.detach()

    def call(self, callback: Callable[[], None]) -> None:
        """Call this, which must not raise, when the token is cancelled; at once if it is."""
        if self.reason is not None:
            callback()
            return
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(callback)

    def is_cancelled(self) -> bool:
        return self.reason is not None

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread until it is cancelled, or for ``timeout`` seconds; True when it is."""
        return self._wake().wait(timeout)

    async def wait_async(self) -> None:
        """Return once it is cancelled."""
        await self._wake().wait_async()

    def _wake(self) -> Flag:
        if self._flag is None:
            self._flag = Flag("token.wait")
        if self.reason is not None:  # looked at after the flag was made: ``cancel`` sees the one or we see the other
            self._flag.set()
        return self._flag


class InFlight:
    """Counts what was begun and has not ended. ``changed`` is called with each new count while somebody waits."""

    __slots__ = ("_idle", "changed", "count")

    def __init__(self) -> None:
        self.count = 0
        self.changed: Callable[[int], None] | None = None
        self._idle: list[asyncio.Future[None]] = []

    def begin(self) -> None:
        self.count += 1

    def end(self) -> None:
        self.count -= 1
        if not self._idle:
            return
        if self.changed is not None:
            self.changed(self.count)
        if not self.count:
            for each in self._idle:
                if not each.done():
                    each.set_result(None)

    async def wait_idle(self, timeout_s: float | None) -> int:
        """Until nothing is in flight, or for so long; how many are left."""
        if not self.count or timeout_s == 0:
            return self.count
        idle = asyncio.get_running_loop().create_future()
        self._idle.append(idle)
        try:
            await asyncio.wait((idle,), timeout=timeout_s)
        finally:
            self._idle.remove(idle)
        return self.count
