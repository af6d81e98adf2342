"""``python -m svcd.worker_runtime``: the same as ``bootstrap.py``, for an interpreter that has svcd installed.

Must not do anything of its own.
"""

from __future__ import annotations

from svcd.worker_runtime.foreign import run

run()
