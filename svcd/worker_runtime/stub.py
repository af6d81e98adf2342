"""The remote-service stub as the fork server uses it: import this once, ``prepare``, fork, call ``main`` in each child.

Must not leave a thread, a ZeroMQ context, an open event loop or a descriptor behind when imported.

Besides the runtime it imports what services usually need and would otherwise import in each child. A fork server that
has imported more calls ``look_around`` before its first fork.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from svcd.worker_runtime import interpreter, logger, process
from svcd.worker_runtime.forking import forked
from svcd.worker_runtime.forking.plugging import plug
from svcd.worker_runtime.forking.warm import warm_up, warm_up_with

__all__ = ["look_around", "main", "prepare"]


def look_around() -> None:
    """Once more is imported: find what a fork will have to set, and warm up again: imports have filled the caches."""
    forked.look_around()
    warm_up(packs=False)


def prepare(rehearse: Callable[[], None] = lambda: None) -> None:
    """The last thing before the first fork. ``rehearse``: what each fork does before it calls ``main``, as far as that
    can be done here.
    """
    interpreter.prepare()
    warm_up_with(rehearse)
    plug()


def main(stub: Any) -> int:
    """Run the service that ``stub`` names until it ends; the exit code."""
    forked.settle()
    return process.main(stub, _made)


logger.import_apart()
warm_up()
_made = process.Process()
