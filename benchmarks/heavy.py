"""A Python service that imports much: numpy where it is installed, else a good part of the standard library. Says when
that is done.

Must not do anything with it.
"""

import importlib
import os
import time
from importlib.util import find_spec

from service import Idle, say

STANDARD = ("sqlite3", "xml.sax", "http.server", "email.mime.text", "unittest.mock", "multiprocessing.pool")
MODULES = ("numpy",) if find_spec("numpy") is not None else STANDARD

for _each in MODULES:
    importlib.import_module(_each)
if "BENCH_MARKS" in os.environ:
    say(os.environ["BENCH_MARKS"], os.environ["BENCH_NAME"] + "-heavy", time.monotonic_ns())


class Heavy(Idle):
    pass
