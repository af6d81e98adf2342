"""``python -m svcd.worker_runtime``: the same as ``bootstrap.py``, for an interpreter that has svcd installed.

Must not do anything of its own, but for what ``-m`` does: it puts the current directory on ``sys.path``.
"""

from __future__ import annotations

import os
import sys

if sys.path and sys.path[0] in ("", os.getcwd()) and not sys.flags.safe_path:
    del sys.path[0]

from svcd.worker_runtime.foreign import run

run()
