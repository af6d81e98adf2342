"""The remote-service stub as the fork server uses it: import this once, fork, call ``main`` in the child.

Must not leave a thread, a ZeroMQ context, an event loop or a descriptor behind when imported.

Besides the runtime it imports what services usually need and would otherwise import in each child.
"""

from __future__ import annotations

from svcd.worker_runtime import logger
from svcd.worker_runtime.process import main
from svcd.worker_runtime.warm import warm_up

__all__ = ["main"]

logger.import_apart()
warm_up()
