"""The command ``svcd``: from the arguments to an exit code, with one line for whatever goes wrong.

Must not import more than the standard library at its top: whatever fails later has to be caught here.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

OTHER, INTERRUPTED = 1, 130
UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})


def main() -> NoReturn:
    """The console script: run one command and leave, without the ten milliseconds of an orderly interpreter's end."""
    code = run(sys.argv[1:])
    try:
        sys.stderr.flush()
    except (OSError, AttributeError):  # closed, or never there
        pass
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code. Never raises for a user's mistake, nor for svcd's own."""
    gc.disable()  # a command is short; the collector would walk what was just imported
    try:
        _open_standard_streams()
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that goes away ends us quietly, as it ends cat
        return _run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        if error.errno not in UNWRITABLE or error.filename is not None:
            return _last_resort(error)
        _discard_output()
        _complain(f"cannot write the output: {error.strerror}")
        return OTHER
    except Exception as error:
        return _last_resort(error)


def _run(arguments: Sequence[str]) -> int:
    from svcd.cli import headstart  # noqa: PLC0415 - see above

    headstart.begin(arguments)
    try:
        from svcd.cli import commands  # noqa: PLC0415 - see above

        code = commands.run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()  # before success is claimed: a full disk may show only now
        return code
    finally:
        headstart.give_up()


def _open_standard_streams() -> None:
    """A descriptor 0, 1 or 2 that is closed would be given to the next socket, and then written to."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the guardian that we may become needs it, too


def _last_resort(error: Exception) -> int:
    if os.environ.get("SVCD_DEBUG", "") not in ("", "0"):
        raise error
    text = " ".join(str(error).split())
    _complain(f"cannot go on: {type(error).__name__}{': ' if text else ''}{text}")
    _complain("this is a fault of svcd's own; with SVCD_DEBUG=1 it shows where")
    _discard_output()
    return OTHER


def _discard_output() -> None:
    """What is still buffered cannot be written; the interpreter must not try it again at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _complain(text: str) -> None:
    try:
        print(f"svcd: {text}", file=sys.stderr)
    except OSError:
        pass


if __name__ == "__main__":
    main()
