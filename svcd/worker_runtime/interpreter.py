"""Makes the interpreter of a fork, or of a bootstrap, look like one that was started for the service alone.

Must not import or run user code.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import signal
import sys
import time
import types
from collections.abc import Callable
from typing import Any

_main: types.ModuleType | None = None
_on_terminate: Callable[[], None] | None = None


def prepare() -> None:
    """What is the same for all services, and lasts through a fork. Before it, where there is one."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python's own defaults, which a launcher has reset
        signal.signal(number, signal.SIG_IGN)
    try:
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # whatever lacks it is let be
    except (AttributeError, ValueError, OSError):
        pass
    try:
        faulthandler.enable(2)  # a segmentation fault leaves the Python traceback as its last words
    except (OSError, ValueError, RuntimeError):
        pass


def settle() -> None:
    """``__main__``, clock zone and bytecode as a fresh ``python`` has them."""
    fresh_main()
    if "TZ" in os.environ:
        time.tzset()
    sys.dont_write_bytecode = sys.dont_write_bytecode or bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))


def fresh_main() -> types.ModuleType:
    """Put a new, empty ``__main__`` in the place of the program that forked or bootstrapped us."""
    global _main
    if _main is None:
        _main = sys.modules["__main__"]  # kept: its functions may be on the stack
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = module
    return module


def catch_signals(on_terminate: Callable[[], None]) -> None:
    """SIGTERM calls ``on_terminate``, SIGINT does nothing. What the service forks has both at their defaults again.

    Handlers rather than SIG_IGN: exec resets them, so the programs that a service starts are not affected.
    """
    global _on_terminate
    _on_terminate = on_terminate
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGINT, _ignore)


def release_signals() -> None:
    """Both at their defaults again, where nobody else has caught them meanwhile."""
    global _on_terminate
    if _on_terminate is None:
        return
    _on_terminate = None
    if signal.getsignal(signal.SIGTERM) is _terminate:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is _ignore:
        signal.signal(signal.SIGINT, signal.default_int_handler)


os.register_at_fork(after_in_child=release_signals)  # once, here: what is made in a service costs it pages


def _terminate(_number: int, _frame: Any) -> None:
    if _on_terminate is not None:
        _on_terminate()


def _ignore(_number: int, _frame: Any) -> None:
    return


def finish(complain: Callable[[str], None]) -> None:
    """What the interpreter does at its end, for a process that ends by ``os._exit``: exit handlers, then flushing."""
    try:
        atexit._run_exitfuncs()
    except BaseException as error:  # exit handlers are user code
        complain(f"svcd: an exit handler failed: {type(error).__name__}\n")
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # closed, replaced or broken by user code
            pass
