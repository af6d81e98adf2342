"""Imports the modules of one preload set into a fork server, and finds what would not survive a fork.

Must not repair what a module has done: a fork server that is not fit is of no use any more. Standard library only.

A fork copies the memory and one thread. Of everything else that an import may leave behind, a child has half: locks of
threads that are not there, descriptors that are closed in it, handlers that were reset. So after each module it is
looked at what the kernel says of this process, and the first difference is told with the module's name.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from svcd.record import record

SIGNAL_LINES: Final = ("SigIgn", "SigCgt")
PACKAGES: Final = ("site-packages", "dist-packages")
MAX_WATCHED: Final = 5000
MAX_TEXT: Final = 300
OPENED: Final = (
    ("anon_inode:[eventpoll]", "opens an event loop (epoll)"),
    ("anon_inode:[eventfd]", "opens an eventfd, as a ZeroMQ context does"),
    ("socket:", "opens a socket"),
    ("pipe:", "opens a pipe"),
)
MACHINERY: Final = ("<frozen ", os.path.abspath(__file__), os.path.dirname(importlib.__file__) + os.sep)
# OpenBLAS starts a thread per processor as soon as it is loaded, but for this. The stub gives each service its own
# number of them after the fork (worker_runtime/forking/forked.py).
WHILE_IMPORTING: Final = {"OPENBLAS_NUM_THREADS": "1"}


class Unfit(Exception):  # noqa: N818 - it says what it is
    """A module cannot be preloaded. ``text`` says why, whole; ``module`` is its name."""

    def __init__(self, module: str, text: str) -> None:
        super().__init__(text)
        self.module, self.text = module, text


@record
class Footing:
    """What a fork server must not have more of than before: what the kernel knows of this process."""

    threads: frozenset[int]
    children: frozenset[int]
    opened: dict[int, str]
    signals: dict[str, int]
    blocked: int

    @classmethod
    def now(cls) -> Footing:
        status = _status()
        return cls(
            frozenset(map(int, os.listdir("/proc/self/task"))),
            frozenset(_children()),
            dict(_opened()),
            {name: status[name] for name in SIGNAL_LINES},
            status["SigBlk"],
        )

    def fault_since(self, before: Footing) -> str:
        """What an import has done, as in "importing it ..."; empty when it has left nothing."""
        if threads := self.threads - before.threads:
            return f"starts a thread ({', '.join(sorted(map(_thread_name, threads)))[:MAX_TEXT]})"
        if self.children - before.children:
            return "starts a process"
        for fd, target in self.opened.items():
            if before.opened.get(fd) != target:
                return next((words for kind, words in OPENED if target.startswith(kind)), f"keeps {target} open")
        changed = 0
        for name in SIGNAL_LINES:
            changed |= self.signals[name] ^ before.signals[name]
        if changed:
            return f"changes what {', '.join(_signal_names(changed))} does"
        if blocked := self.blocked ^ before.blocked:
            return f"changes whether {', '.join(_signal_names(blocked))} is blocked"
        return ""


def preload(modules: Iterable[str], path: Iterable[str], began: Callable[[str], None]) -> dict[str, list[int]]:
    """Import them, with ``path`` first on ``sys.path``; what they came from, to be watched. Raises ``Unfit``.

    ``began`` is told each name before its import. Processes that were started by what is not fit are killed: nobody
    else knows of them.
    """
    first = list(path)
    known, base, outside = set(sys.modules), [each for each in sys.path if each not in first], _surroundings()
    watched = dict(_states(each for each in base if os.path.basename(each) in PACKAGES))
    sys.path[:] = [*first, *base]
    os.environ.update(WHILE_IMPORTING)
    children = set(_children())
    try:
        for each in modules:
            began(each)
            _import(each)
    except Unfit:
        _kill(set(_children()) - children)
        raise
    finally:
        for name in WHILE_IMPORTING:
            os.environ.pop(name, None)
        _restore(outside)
        sys.path[:] = [each for each in sys.path if each not in first]
    return watched | dict(_states(_own_files(first, [name for name in sys.modules if name not in known])))


def _import(module: str) -> None:
    before = Footing.now()
    try:
        importlib.import_module(module)
    except BaseException as error:
        raise Unfit(module, f"cannot preload {module}: {_one_line(error)}{_place_of(error)}") from None
    fault = Footing.now().fault_since(before)
    if fault:
        gc.collect()  # what it has opened and forgotten
        fault = Footing.now().fault_since(before)
    if fault:
        text = f"cannot preload {module}: importing it {fault}, which a fork does not inherit; take it out of preload:"
        raise Unfit(module, text)


def _kill(children: Iterable[int]) -> None:
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has ended, and the module has noticed
            pass


# ---- what a module leaves behind that is no harm, but not for others to find ----------------------------------------


def _surroundings() -> tuple[str, int]:
    mask = os.umask(0)
    os.umask(mask)
    return os.getcwd(), mask


def _restore(outside: tuple[str, int]) -> None:
    os.chdir(outside[0])
    os.umask(outside[1])
    signal.set_wakeup_fd(-1)


# ---- what the kernel says -------------------------------------------------------------------------------------------


def _status() -> dict[str, int]:
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return {name: int(lines[name], 16) for name in (*SIGNAL_LINES, "SigBlk")}


def _children() -> Iterator[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            yield from map(int, file.read().split())
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN
        return


def _opened() -> Iterator[tuple[int, str]]:
    for name in os.listdir("/proc/self/fd"):
        try:
            yield int(name), os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass  # that of the listing itself


def _thread_name(number: int) -> str:
    threading = sys.modules.get("threading")  # no thread of Python's without it
    for each in threading.enumerate() if threading is not None else ():
        if each.native_id == number:
            return str(each.name)
    try:
        with open(f"/proc/self/task/{number}/comm") as file:
            return file.read().strip()
    except OSError:
        return "it has ended"


def _signal_names(mask: int) -> Iterator[str]:
    for number in range(1, 65):
        if mask & 1 << (number - 1):
            yield signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"


# ---- words ----------------------------------------------------------------------------------------------------------


def _one_line(error: BaseException) -> str:
    try:
        lines = str(error).strip().splitlines()
    except BaseException as broken:  # an exception's own text is the module's code
        lines = [f"<{type(broken).__name__} in its __str__>"]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _place_of(error: BaseException) -> str:
    """Where in the module, or in what it imports, it went wrong; nothing when the module was not found."""
    try:
        import traceback  # noqa: PLC0415 - the lean launcher never needs it

        stack = traceback.extract_tb(error.__traceback__)
    except Exception:
        return ""
    for frame in reversed(stack):
        if not frame.filename.startswith(MACHINERY):
            return f" ({frame.filename}:{frame.lineno})"
    return ""


# ---- what to watch --------------------------------------------------------------------------------------------------


def _own_files(path: list[str], modules: Iterable[str]) -> list[str]:
    """Those of modules that came from ``path``. Of others the directory is watched that a package installer changes."""
    prefixes = tuple(os.path.join(each, "") for each in path)
    files = {_file_of(sys.modules[name]) for name in modules}
    return sorted(each for each in files if each and each.startswith(prefixes))[:MAX_WATCHED] if prefixes else []


def _states(paths: Iterable[str]) -> Iterator[tuple[str, list[int]]]:
    for each in paths:
        state = state_of(each)
        if state is not None:
            yield each, state


def _file_of(module: Any) -> str | None:
    file = getattr(module, "__file__", None)
    return file if isinstance(file, str) else None


def state_of(path: str) -> list[int] | None:
    """[mtime in nanoseconds, size]; None when it is not there. Of a directory the size says nothing."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return [found.st_mtime_ns, found.st_size]
