"""A process that computes for a service: run as a file, it takes one function after the other from its descriptor.

Must not outlive its service, nor import anything of svcd before it has been told where that is.

The two ends speak pickle over a socket pair of their own, which no other process has: both are the same service.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib.util
import os
import pickle
import signal
import socket
import struct
import sys
import threading
from typing import Any, Final, NoReturn

LENGTH: Final = struct.Struct("!Q")
PR_SET_PDEATHSIG: Final = 1

RETURNED, RAISED, STRANGE, UNPICKLED, UNKNOWN = "returned", "raised", "strange", "unpicklable", "unknown"
"""What became of a call: a value; an exception; one that cannot be pickled; a value that cannot; no such function."""


class Gone(Exception):  # noqa: N818 - it says what happened
    """The other end is there no more."""


def say(connection: socket.socket, message: bytes) -> None:
    """Raises ``OSError``."""
    connection.sendall(LENGTH.pack(len(message)))
    connection.sendall(message)


def hear(connection: socket.socket) -> bytearray:
    """Raises ``Gone`` or ``OSError``."""
    (size,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
    return _exactly(connection, size)


def _exactly(connection: socket.socket, size: int) -> bytearray:
    taken, position = bytearray(size), 0
    view = memoryview(taken)
    while position < size:
        count = connection.recv_into(view[position:])
        if not count:
            raise Gone
        position += count
    return taken


# ---- the process -----------------------------------------------------------------------------------------------------


def run(descriptor: int, parent: int) -> NoReturn:
    """Compute until the other end goes away."""
    _die_with(parent)
    for number in (signal.SIGINT, signal.SIGTERM):  # those for the whole group are the service's to answer
        signal.signal(number, lambda _number, _frame: None)
    connection = socket.socket(fileno=descriptor)
    try:
        told = pickle.loads(hear(connection))
    except (Gone, OSError):
        os._exit(0)
    sys.path[:] = told["path"]
    take_svcd()
    threading.stack_size(told["stack_size_bytes"])
    thread = threading.Thread(target=_serve, args=(connection, told), name=told["name"])
    thread.start()
    thread.join()
    os._exit(0)


def _die_with(parent: int) -> None:
    """Should the service be killed, so are we; it may have been before we could say so."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def take_svcd() -> None:
    """The svcd that this file is of, whichever the service's environment has under that name."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    init = os.path.join(package, "__init__.py")
    spec = importlib.util.spec_from_file_location("svcd", init, submodule_search_locations=[package])
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["svcd"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _serve(connection: socket.socket, told: dict[str, Any]) -> None:
    try:
        become(told)
        while True:
            answer = pickle.dumps(_answer(hear(connection)), pickle.HIGHEST_PROTOCOL)
            _flush()
            say(connection, answer)
    except (Gone, OSError):
        return


def become(told: dict[str, Any]) -> None:
    """Look like the service to what it computes: its title, its context, its code string."""
    from svcd.worker_runtime import context, flags, load  # noqa: PLC0415 - its place is known only now
    from svcd.worker_runtime.computing import pools  # noqa: PLC0415 - its place is known only now

    try:
        from setproctitle import setproctitle  # noqa: PLC0415 - not everywhere installed
    except ImportError:
        pass
    else:
        setproctitle(told["title"])
    faulthandler.enable(2)  # a segmentation fault leaves the Python traceback in the service's output
    try:
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # whatever lacks it is let be
    except (AttributeError, ValueError, OSError):
        pass
    ctx = context.Context(**told["context"], stopping=flags.Stopping(), request_stop=_refuse_stop)
    ctx.equip(pools.InPlace())
    context.enter(ctx)
    if told["code"] is not None:
        load.run_code(ctx.name, told["code"])


def _refuse_stop(_error: object) -> None:
    from svcd.worker_runtime.lifetime.outcome import StateError  # noqa: PLC0415

    raise StateError("cannot stop the service from a compute process: raise an exception instead")


def _answer(message: bytearray) -> tuple[Any, ...]:
    """What the other end gets for one call; all of it can be pickled."""
    try:
        function, args, named = pickle.loads(message)
    except BaseException as error:  # importing is user code
        return UNKNOWN, *_told_of(error)
    try:
        value = function(*args, **named)
    except BaseException as error:
        return _raised(error)
    try:
        return RETURNED, pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except BaseException as error:  # pickling is user code, too
        return UNPICKLED, *_told_of(error)


def _raised(error: BaseException) -> tuple[Any, ...]:
    """Many an exception can be pickled, but not be made again of what was: that is tried here."""
    words, printed = _told_of(error)
    try:
        pickled = pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
        if type(pickle.loads(pickled)) is type(error):
            return RAISED, pickled, words, printed
    except BaseException:
        pass
    return STRANGE, words, printed


def _told_of(error: BaseException) -> tuple[str, str]:
    """Its line, and its traceback."""
    from svcd.worker_runtime.exceptions import describe, one_line  # noqa: PLC0415

    return one_line(error), describe(error, "", 0, "run").traceback


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # closed, replaced or broken by user code
            pass


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]))
