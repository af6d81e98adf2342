"""``python -m svcd.supervisor.controller JSON``: the controller's process, started by the guardian.

Must not do more than set the process up: signals, limits, title, loop.
"""

from __future__ import annotations

import resource
import signal
import sys

import uvloop
from setproctitle import setproctitle

from svcd.supervisor.controller.daemon import Arguments, Daemon


def main() -> None:
    """Run until the cluster has ended. Signals are the guardian's business: it tells us of them."""
    arguments = Arguments.parse(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    setproctitle(f"svcd: controller {arguments.cluster}")
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(Daemon(arguments, loop).run())
    finally:
        loop.close()


if __name__ == "__main__":
    main()
