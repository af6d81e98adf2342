"""The remote-service stub as the fork server uses it: ``import`` this once, fork, call ``main`` in the child.

Must not start a thread, make a ZeroMQ context or an event loop, or open a descriptor when imported.

Besides the runtime it imports what services usually need and would otherwise import in each child.
"""

from __future__ import annotations

import structlog

import svcd
from svcd.worker_runtime import logger
from svcd.worker_runtime.process import main

__all__ = ["main"]

_WARM = (structlog, logger, svcd.__version__)
