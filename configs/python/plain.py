"""A program like any other: SIGTERM ends it.

Must not import svcd: it shows that nothing has to.
"""

import os
import time

while True:
    print(f"plain, pid {os.getpid()}", flush=True)
    time.sleep(1)
