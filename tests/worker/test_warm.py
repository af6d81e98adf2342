"""What a rehearsal of stubs leaves behind in the fork server: nothing that a service could find."""

from __future__ import annotations

import json
import subprocess
import sys

LOOK = """
import faulthandler, json, os, signal, sys, threading
import svcd.worker_runtime.process
from svcd.worker_runtime import logger
logger.import_apart()

def look():
    return {
        "path": list(sys.path), "main": id(sys.modules["__main__"]), "modules": sorted(sys.modules),
        "handlers": [repr(signal.getsignal(each)) for each in sorted(signal.valid_signals())],
        "excepthook": id(threading.excepthook), "faults": faulthandler.is_enabled(),
        "stdout": sys.stdout.line_buffering, "descriptors": sorted(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(), "environ": dict(os.environ), "profile": repr(sys.getprofile()),
        "importers": sorted(sys.path_importer_cache),
        "files": [each for each in made if os.path.exists(each)],
    }

from svcd.worker_runtime import warm
made, make = [], warm._make_directory
warm._make_directory = lambda: made.append(make()) or made[-1]
before = look()
warm.warm_up()
assert made
print(json.dumps([before, look()]))
"""


def test_nothing_is_left_behind() -> None:
    answer = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stderr == ""
    before, after = json.loads(answer.stdout)
    for what, found in before.items():
        assert after[what] == found, what
