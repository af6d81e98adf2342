"""One fork whose child is a child of the caller's parent, with its pidfd and, if asked for, in a cgroup from birth.

Must not decide what the child becomes: ``child_setup`` does. Standard library only.

clone(2) with CLONE_PARENT instead of a double fork: one fork, no moment in which the process is somebody else's
child, and no race for its pidfd. os.fork cannot pass flags, so the system call is made here, between the calls that
CPython documents for a process that forks by itself (PyOS_BeforeFork and its two partners), with what glibc's fork
does for the child beside: its thread id is stored anew (CLONE_CHILD_SETTID at the address that set_tid_address was
given) and its robust futex list registered again. The caller must be single-threaded and have every signal blocked.

What a child does before its exec is done here as well where Python's own way is long: a fork shares its pages until
they are written to, and each page that Python touches costs a copy.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
from collections.abc import Iterable
from typing import Final

CLONE_PIDFD: Final = 0x00001000
CLONE_PARENT: Final = 0x00008000
CLONE_CHILD_CLEARTID: Final = 0x00200000
CLONE_CHILD_SETTID: Final = 0x01000000
CLONE_INTO_CGROUP: Final = 0x200000000
FLAGS: Final = CLONE_PIDFD | CLONE_PARENT | CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID
PR_SET_PDEATHSIG: Final = 1
PR_GET_TID_ADDRESS: Final = 40
SYS_CLONE3: Final = 435
SYS_CLOSE_RANGE: Final = 436
LAST_FD: Final = 2**31 - 1
SIG_SETMASK: Final = int(signal.SIG_SETMASK)  # plain numbers: an enumeration member is work to convert
SIGCHLD: Final = int(signal.SIGCHLD)
AF_UNIX: Final = int(socket.AF_UNIX)
SEQPACKET_CLOEXEC: Final = int(socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
NUMBERS: Final = {"x86_64": (56, 274, 273), "aarch64": (220, 100, 99), "riscv64": (220, 100, 99)}
"""By machine: clone, get_robust_list, set_robust_list."""

_libc: Final = ctypes.PyDLL(None, use_errno=True)  # PyDLL: the GIL is kept, as a fork needs it
# looked up here once: each look-up of a library's function is work, and in a child memory of its own
_syscall, _prctl, _socketpair, _sigprocmask = _libc.syscall, _libc.prctl, _libc.socketpair, _libc.sigprocmask
_syscall.restype = ctypes.c_long
_before_fork: Final = ctypes.pythonapi.PyOS_BeforeFork
_after_fork_in_parent: Final = ctypes.pythonapi.PyOS_AfterFork_Parent
_after_fork_in_child: Final = ctypes.pythonapi.PyOS_AfterFork_Child
_NO_SIGNAL: Final = ctypes.create_string_buffer(128)  # an empty sigset_t, of any C library


class _CloneArgs(ctypes.Structure):
    """struct clone_args of clone3(2), first version that knows cgroups."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack",
            "stack_size", "tls", "set_tid", "set_tid_size", "cgroup",
        )
    ]  # fmt: skip


class Forker:
    """Makes siblings. Raises ``OSError`` when it is made on a machine or kernel that cannot."""

    def __init__(self) -> None:
        machine = os.uname().machine
        if machine not in NUMBERS:
            raise OSError(errno.ENOSYS, f"svcd cannot fork on {machine}: it knows {', '.join(NUMBERS)}")
        self._clone, get_robust_list, self._set_robust_list = NUMBERS[machine]
        self._tid = ctypes.c_void_p()
        self._check(_prctl(PR_GET_TID_ADDRESS, ctypes.byref(self._tid), 0, 0, 0), "PR_GET_TID_ADDRESS")
        self._head, self._head_size = ctypes.c_void_p(), ctypes.c_size_t()
        found = _syscall(get_robust_list, 0, ctypes.byref(self._head), ctypes.byref(self._head_size))
        self._check(found, "get_robust_list")
        self._pidfd = ctypes.c_int(-1)
        self._pidfd_at = ctypes.byref(self._pidfd)
        self._number = ctypes.c_long(self._clone)
        self._flags = ctypes.c_ulong(FLAGS | SIGCHLD)
        self._null = ctypes.c_void_p(0)
        self._args = _CloneArgs(
            flags=FLAGS | CLONE_INTO_CGROUP, pidfd=ctypes.addressof(self._pidfd), child_tid=self._tid.value or 0
        )
        self._args_at = ctypes.byref(self._args)
        self._args_size = ctypes.sizeof(self._args)

    @staticmethod
    def _check(result: int, what: str) -> None:
        if result != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"svcd cannot fork here: {what}: {os.strerror(code)}")

    def fork_sibling(self, cgroup_fd: int | None = None) -> tuple[int, int]:
        """``(pid, pidfd)`` in the caller; ``(0, -1)`` in the child.

        ``cgroup_fd``: descriptor of the cgroup v2 directory to be born in. Raises ``OSError`` when there is no child.
        """
        if cgroup_fd is not None:
            self._args.cgroup = cgroup_fd
        _before_fork()  # nothing that may raise until its partner has been called
        if cgroup_fd is None:
            # the order of the last two arguments differs between machines; without CLONE_SETTLS one of them is ignored
            pid = _syscall(self._number, self._flags, self._null, self._pidfd_at, self._tid, self._tid)
        else:
            pid = _syscall(SYS_CLONE3, self._args_at, self._args_size)
        if pid == 0:
            _after_fork_in_child()
            _syscall(self._set_robust_list, self._head, self._head_size)
            return 0, -1
        code = ctypes.get_errno()
        _after_fork_in_parent()
        if pid < 0:
            if cgroup_fd is not None and code == errno.ENOSYS:
                raise OSError(code, "clone3 is not allowed here, so nothing can be born in a cgroup")
            raise OSError(code, os.strerror(code))
        return pid, self._pidfd.value


def set_parent_death_signal(number: int) -> None:
    """PR_SET_PDEATHSIG of prctl(2): what we get when our parent dies. A change of user clears it."""
    if _prctl(PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def unblock_signals() -> None:
    """Let every signal through. ``signal.pthread_sigmask`` makes an enumeration member of each that was blocked."""
    _sigprocmask(SIG_SETMASK, _NO_SIGNAL, None)


def socketpair() -> tuple[int, int]:
    """Two connected SEQPACKET sockets, as numbers, not inheritable."""
    pair = (ctypes.c_int * 2)()
    if _socketpair(AF_UNIX, SEQPACKET_CLOEXEC, 0, pair) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return pair[0], pair[1]


def close_range(first: int, last: int) -> None:
    """Close every descriptor from ``first`` to ``last``: close_range(2), else one by one those that are open.

    Not ``os.closerange``: in a Python that was built on an old system it closes a million numbers one by one.
    """
    if first > last or _syscall(SYS_CLOSE_RANGE, first, last, 0) == 0:
        return
    for name in os.listdir("/proc/self/fd"):
        if first <= int(name) <= last:
            try:
                os.close(int(name))
            except OSError:
                pass  # the listing's own


def close_all_but(kept: Iterable[int]) -> None:
    """Close every descriptor above 2 that is not in ``kept``."""
    first = 3
    for fd in sorted(kept):
        close_range(first, fd - 1)
        first = max(first, fd + 1)
    close_range(first, LAST_FD)
