"""The service's end of its compute processes: each belongs to one thread, which hands it one call after the other.

Must not fork: a process with threads cannot do that safely. Each is a fresh interpreter, made when first needed.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from svcd.worker_runtime.computing import compute_process
from svcd.worker_runtime.computing.compute_errors import Abandoned, ComputeError, RemoteTraceback
from svcd.worker_runtime.computing.compute_process import Gone, hear, say
from svcd.worker_runtime.lifetime.outcome import StateError

PROGRAM: Final = os.path.abspath(compute_process.__file__)
WAIT_S: Final = 5.0  # for the end of one that was killed


class ComputeProcess:
    """One of them. Raises ``OSError`` when it cannot be made."""

    def __init__(self, told: dict[str, Any]) -> None:
        greeting = pickle.dumps(told)
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", PROGRAM, str(theirs.fileno()), str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                )
            except OSError:
                ours.close()
                raise
        self._connection = ours
        with suppress(OSError):  # it has ended already: the first call finds that out
            say(ours, greeting)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def exchange(self, message: bytes) -> bytearray:
        """Raises ``Gone`` or ``OSError`` when it has ended."""
        say(self._connection, message)
        return hear(self._connection)

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> str:
        """Killed, reaped and forgotten; how it ended."""
        self._process.kill()  # without effect, where it has ended by itself
        self._connection.close()
        try:
            return _how(self._process.wait(WAIT_S))
        except subprocess.TimeoutExpired:  # in the middle of something that the kernel does not interrupt
            return "it could not be killed"


def _how(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code}"
    try:
        return f"its process was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"its process was killed by signal {-code}"


class Call:
    """One function to be called in a process: ``run`` in the thread that waits for it, ``abandon`` in any other."""

    def __init__(
        self, processes: ProcessPool, what: str, function: Callable[..., Any], args: Any, named: dict[str, Any]
    ) -> None:
        self._processes = processes
        self._what = what
        self._call = function, args, named
        self._lock = threading.Lock()
        self._process: ComputeProcess | None = None
        self._is_abandoned = False

    def run(self) -> Any:
        """What the function returns. Raises what it raises, or ``ComputeError``."""
        message = self._message()
        process = self._processes.mine(self._what)
        with self._lock:
            if self._is_abandoned:
                raise Abandoned(self._what)
            self._process = process
        try:
            answer = pickle.loads(process.exchange(message))
        except (Gone, OSError):
            how = self._processes.drop(process)
            if self._is_abandoned:
                raise Abandoned(self._what) from None
            raise ComputeError(f"cannot compute {self._what}: {how}") from None
        except BaseException:  # no memory for the answer, say: the next call is not to find the rest of it
            self._processes.drop(process)
            raise
        finally:
            with self._lock:
                self._process = None
        return self._taken(*answer)

    def abandon(self) -> None:
        """Nobody waits for it: its process is killed, as nothing else ends a computation."""
        with self._lock:
            self._is_abandoned = True
            if self._process is not None:
                self._process.kill()

    def _message(self) -> bytes:
        try:
            return pickle.dumps(self._call, pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            raise ComputeError(
                f"cannot compute {self._what} in a process: it or its arguments cannot be pickled"
                f" ({type(error).__name__}: {error}); use a function at the top of a module and plain values,"
                " or runtime: {compute: threads}"
            ) from None

    def _taken(self, verdict: str, first: Any, *more: str) -> Any:
        if verdict == compute_process.RETURNED:
            try:
                return pickle.loads(first)
            except Exception as error:
                raise ComputeError(f"cannot read what {self._what} returned: {error}") from error
        if verdict == compute_process.RAISED:
            self._raise(first, *more)
        cause = RemoteTraceback(more[-1])
        if verdict == compute_process.STRANGE:
            raise ComputeError(f"{self._what} raised {first}") from cause
        if verdict == compute_process.UNKNOWN:
            raise ComputeError(f"cannot find {self._what} or its arguments in a compute process: {first}") from cause
        raise ComputeError(
            f"cannot bring back what {self._what} returned: it cannot be pickled: {first}; return plain values"
        ) from cause

    def _raise(self, pickled: bytes, words: str, printed: str) -> None:
        try:
            error = pickle.loads(pickled)
        except Exception:  # a class that is otherwise here than there
            error = None
        if not isinstance(error, BaseException):
            raise ComputeError(f"{self._what} raised {words}") from RemoteTraceback(printed)
        raise error from RemoteTraceback(printed)


class ProcessPool:
    """One process for each thread that asks for one. ``told``: what each of them is told of the service."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told
        self._lock = threading.Lock()
        self._numbers: set[int] = set()
        self._all: dict[ComputeProcess, int] = {}
        self._here = threading.local()
        self._is_closed = False

    def mine(self, what: str) -> ComputeProcess:
        """This thread's own. Raises ``ComputeError`` when none can be made, ``StateError`` once closed."""
        process: ComputeProcess | None = getattr(self._here, "process", None)
        if process is not None and process.is_alive:
            return process
        if process is not None:
            self.drop(process)
        number = self._begin_number()
        told = {**self._told, "title": f"{self._told['title']} {number}", "path": list(sys.path)}
        try:
            process = ComputeProcess(told)
        except OSError as error:
            self._numbers.discard(number)
            raise ComputeError(f"cannot make a process for {what}: {error.strerror or error}") from None
        with self._lock:
            self._all[process] = number
            is_late = self._is_closed
        if is_late:
            self.drop(process)
            raise StateError(f"cannot compute {what}: the service has stopped")
        self._here.process = process
        return process

    def _begin_number(self) -> int:
        with self._lock:
            number = next(each for each in range(len(self._numbers) + 1) if each not in self._numbers)
            self._numbers.add(number)
            return number

    def drop(self, process: ComputeProcess) -> str:
        """It has ended, or is to; how."""
        self._here.process = None
        with self._lock:
            self._numbers.discard(self._all.pop(process, -1))
        return process.close()

    def close(self) -> None:
        """None is left when this returns."""
        with self._lock:
            self._is_closed = True
            processes, self._all = list(self._all), {}
        for process in processes:
            process.kill()
        for process in processes:
            process.close()
