"""``python -m svcd.supervisor.controller JSON``: the controller's process, started by the guardian or ahead of it.

Must not do more than set the process up: signals, limits, title, loop.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys

from setproctitle import setproctitle

from svcd.supervisor import headstart


def main() -> None:
    """Run until the cluster has ended. Signals are the guardian's business: it tells us of them."""
    gc.disable()  # until all is imported: it would walk again and again what stays anyway
    import uvloop  # noqa: PLC0415

    from svcd.supervisor.controller.daemon import Arguments, Daemon  # noqa: PLC0415

    gc.freeze()
    gc.enable()
    arguments = Arguments.of(headstart.argument(sys.argv[1], _show_that_we_wait))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    setproctitle(f"svcd: controller {arguments.cluster}")
    os.chdir("/")
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(Daemon(arguments, loop).run())
    finally:
        loop.close()


def _show_that_we_wait() -> None:
    setproctitle("svcd: controller (waits for its cluster)")


if __name__ == "__main__":
    main()
