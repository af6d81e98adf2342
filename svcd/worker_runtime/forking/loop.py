"""The event loop of a stub: made before the fork, with all that it consists of but descriptors; opened after it.

Must not do anything else than asyncio's own loop does, once it is open.

Making a loop takes 400 microseconds and 80 pages of each fork; opening one that was made, a tenth of that.
"""

from __future__ import annotations

import os
import selectors
import sys
from asyncio import BaseEventLoop, SelectorEventLoop


class _Unopened(selectors.SelectSelector):
    """What stands in for the selector until there is one: this kind has no descriptor."""


class StubLoop(SelectorEventLoop):
    """``open`` it, once, before it runs."""

    def __init__(self) -> None:
        self._is_open = False
        super().__init__(_Unopened())

    def open(self) -> None:
        """Raises ``OSError`` when there are no descriptors for it."""
        self._selector = selectors.DefaultSelector()
        self._is_open = True
        self._make_self_pipe()
        if os.environ.get("PYTHONASYNCIODEBUG") and not sys.flags.ignore_environment:  # of the service, not the server
            self.set_debug(True)

    def _make_self_pipe(self) -> None:
        if self._is_open:
            super()._make_self_pipe()  # type: ignore[misc]  # asyncio's own, as its tests override it too

    def close(self) -> None:
        if self._is_open:
            super().close()
        else:
            BaseEventLoop.close(self)
