"""How one of svcd's own processes is made: forked from the guardian, and exec'ed when it needs more than we have.

Must not know what the parts do for each other, nor watch them: the guardian does. Standard library only.

The launcher and the collector run in a plain fork of the guardian: they need nothing that it has not loaded, so they
begin at once and share its memory.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from svcd.supervisor import clone, collector, headstart, launcher

BUILT_IN: Final[dict[str, Callable[[dict[str, Any]], None]]] = {"collector": collector.run, "launcher": launcher.run}
MODULES: Final = {
    "controller": "svcd.supervisor.controller",
    "fork-server": "svcd.supervisor.launcher",
    "console": "svcd.cli.console",
}
TOLD: Final = ("cluster", "run_dir", "state_dir", "site")
NOT_STARTED: Final = 127


def start(name: str, given: dict[str, Any], more: dict[str, Any], fds: dict[str, int]) -> int:
    """Start a part; its pid. A number may follow its name ("fork-server.3"). ``given`` is the guardian's argument; the
    part gets a little of it, ``more``, and ``fds``, the descriptors that are meant for it, by name. Raises ``OSError``
    when there is no process.
    """
    argument = {key: given[key] for key in TOLD} | {"part": name} | more
    waiting = given.get("waiting", {}).pop(name, None)
    if waiting is not None:
        try:
            headstart.hand_over(waiting["fd"], argument, fds)
            return int(waiting["pid"])
        except OSError:
            pass  # it is gone: we reap it, and start another
    argument |= fds
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # none may come to the wrong one
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    if pid == 0:
        _become(name, given, argument, fds)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def dismiss_waiting(given: dict[str, Any]) -> None:
    """What was begun ahead and is not needed ends by itself."""
    for each in given.pop("waiting", {}).values():
        os.close(each["fd"])


def _become(name: str, given: dict[str, Any], argument: dict[str, Any], fds: dict[str, int]) -> NoReturn:
    code = NOT_STARTED
    try:
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if name != "console":  # it keeps our terminal and our process group: Ctrl-C is for it and for us
            os.setsid()
        clone.close_all_but(fds.values())
        kind = name.partition(".")[0]
        argv = given.get("parts", {}).get(kind)
        if argv is None and kind in BUILT_IN:
            BUILT_IN[kind](argument)
            code = 0
        else:
            _execute(argv or [given["python"], "-m", MODULES[kind], "{}"], given, argument, fds)
    except SystemExit as error:
        code = 1
        os.write(2, f"{error}\n".encode())
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _execute(argv: list[str], given: dict[str, Any], argument: dict[str, Any], fds: dict[str, int]) -> NoReturn:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(given["site"]), "PYTHONSAFEPATH": "1"}
    for fd in fds.values():
        os.set_inheritable(fd, True)
    text = json.dumps(argument)
    os.execve(argv[0], [text if word == "{}" else word for word in argv], environment)
