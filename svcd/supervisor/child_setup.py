"""What a newborn service process does before it becomes its program: session, signals, streams, passed descriptors,
limits, user, directory.

Must not return to the loop that forked it: everything here ends in exec, in the stub, or in ``os._exit``. Standard
library only; nothing is imported here after the fork, for every page that is touched is copied.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
from collections.abc import Callable
from typing import Any, Final, NoReturn

from svcd.record import record, replace
from svcd.supervisor import clone
from svcd.supervisor.wiring import SpawnRequested

NOT_STARTED: Final = 127
GO: Final = b"g"
SIGKILL: Final = int(signal.SIGKILL)
DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


@record
class Ground:
    """What is the same for every child. ``parent``: the guardian's pid; ``run_stub``: None in a launcher of programs.

    The process itself is part of it: no signal has a handler or is ignored in it, and all of them are blocked.
    """

    parent: int
    null_fd: int
    soft_limit: int
    hard_limit: int
    run_stub: Callable[[dict[str, Any]], int] | None
    set_title: Callable[[str], None]


class Refused(Exception):  # noqa: N818 - it says what happened
    """A step failed: ``stage`` names it, ``text`` says it to a person."""

    def __init__(self, stage: str, number: int | None, text: str) -> None:
        super().__init__(text)
        self.stage, self.number, self.text = stage, number or 0, text


def become(order: SpawnRequested, gate: int, writes: list[int], passed: list[int], ground: Ground) -> NoReturn:
    """Be the process that ``order`` asks for. ``passed``: the descriptors for ``order.targets``.

    ``gate``: one byte lets us go, then our error, or end of file, is the answer. End of file instead of the byte: the
    launcher is gone and has not told anybody of us. What concerns us alone is done while it tells.
    """
    code = NOT_STARTED
    try:
        clone.close_all_but(
            (gate, ground.null_fd, *writes, *passed)
        )  # other newborns' gates first of all: no copy holds them up
        trouble: Exception | None = None
        env: dict[str, str] = {}
        try:
            _set_streams(writes, ground)
            if order.targets:
                gate = _place(passed, order.targets, gate)
            os.setsid()
            env = _set_up(order, ground)
        except (Refused, OSError, ValueError) as error:  # ValueError: a NUL in an argument, a lone surrogate
            trouble = error
        if os.read(gate, 1) == GO:
            try:
                if trouble is not None:
                    raise trouble
                clone.unblock_signals()
                code = _run(order, env, ground)
            except (Refused, OSError, ValueError) as error:
                _report(gate, error)
    except BaseException as error:  # nothing may get back into the launcher's loop
        os.write(2, f"svcd: cannot start {order.service}: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def _report(gate: int, error: Exception) -> None:
    if not isinstance(error, Refused):
        error = Refused("start", getattr(error, "errno", 0), f"cannot set it up: {error}")
    os.write(gate, json.dumps([error.stage, error.number, error.text]).encode())


def _set_streams(writes: list[int], ground: Ground) -> None:
    stdout = writes[0] if writes else ground.null_fd
    os.dup2(ground.null_fd, 0)
    os.dup2(stdout, 1)
    os.dup2(writes[-1] if writes else stdout, 2)


def _place(passed: list[int], targets: tuple[int, ...], gate: int) -> int:
    """Put each passed descriptor at its number, open across exec; the number at which the gate is from now on.

    By way of copies beyond all of these numbers: one of them may be where another is to go. What was there is lost;
    nothing but the gate and these is needed any more.
    """
    beyond = max(targets) + 1
    try:
        copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, beyond) for fd in (gate, *passed)]
    except OSError as error:
        text = f"cannot give it descriptor {beyond - 1}: {error.strerror}"
        raise Refused("descriptors", error.errno, text) from None
    for copy, target in zip(copies[1:], targets, strict=True):
        os.dup2(copy, target)
    return copies[0]


def _set_up(order: SpawnRequested, ground: Ground) -> dict[str, str]:
    """All that nobody else notices; its environment."""
    _limit(order, ground)
    _tie(ground)
    _enter(order.workdir)
    env = order.env
    if order.pid_variables:
        env = {**env, **dict.fromkeys(order.pid_variables, str(os.getpid()))}
    if order.argv is None:
        ground.set_title(order.title)
        _change_environment(env)
    return env


def _limit(order: SpawnRequested, ground: Ground) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (ground.soft_limit, ground.hard_limit))
    if order.umask is not None:
        os.umask(order.umask)
    if order.uid is not None or order.gid is not None:
        _change_user(order)


def _tie(ground: Ground) -> None:
    """To the guardian's life; a change of user would have cleared it."""
    clone.set_parent_death_signal(SIGKILL)
    if os.getppid() != ground.parent:
        os._exit(NOT_STARTED)  # it died before we could ask to be told


def _enter(workdir: str) -> None:
    try:
        os.chdir(workdir)
    except OSError as error:
        text = f"cannot enter its working directory {workdir}: {error.strerror}"
        raise Refused("workdir", error.errno, text) from None


def _change_user(order: SpawnRequested) -> None:
    """Give up our own groups with our own user: a service must not keep what it was not given."""
    uid = os.getuid() if order.uid is None else order.uid
    gid = os.getgid() if order.gid is None else order.gid
    if os.geteuid() != 0 and (uid, gid) == (os.getuid(), os.getgid()):
        return  # its own user, named
    try:
        os.setgroups(order.groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise Refused("user", error.errno, f"cannot run it as uid {uid}, gid {gid}: {error.strerror}") from None


def _execute(argv: tuple[str, ...], env: dict[str, str]) -> NoReturn:
    """exec, looking ``argv[0]`` up on the service's own PATH as execvp(3) does."""
    name = argv[0]
    if "/" in name:
        candidates = [name]
    else:
        candidates = [f"{each or '.'}/{name}" for each in env.get("PATH", DEFAULT_PATH).split(":")]
    number, reason = errno.ENOENT, os.strerror(errno.ENOENT)
    for path in candidates:
        try:
            os.execve(path, argv, env)
        except OSError as error:
            if error.errno == errno.ENOENT and os.path.exists(path):
                number, reason = errno.ENOENT, "it is there, but the interpreter that it names is not"
            elif error.errno not in (errno.ENOENT, errno.ENOTDIR):
                number, reason = error.errno or 0, error.strerror or str(error)
    raise Refused("exec", number, f"cannot execute {name}: {reason}")


def _run(order: SpawnRequested, env: dict[str, str], ground: Ground) -> int:
    """Its program; or Python code, in this very process. The gate, closed, says that it begins."""
    if order.argv is not None:
        _execute(order.argv, env)
    if ground.run_stub is None:
        raise Refused("exec", 0, "a launcher of programs cannot run Python code")
    clone.close_all_but(order.targets)
    return ground.run_stub(order.stub or {})


def _change_environment(env: dict[str, str]) -> None:
    """Where it differs from ours: what is the same for all stays shared memory."""
    environ = os.environ
    for name in [each for each in environ if each not in env]:
        del environ[name]
    for name, value in env.items():
        if environ.get(name) != value:
            environ[name] = value


# ---- before any fork -------------------------------------------------------------------------------------------------


def rehearse(ground: Ground, title: str) -> None:
    """All that a stub's process does here, in the fork server, as far as it changes nothing there: memory that this
    writes to is written to before it is shared. ``title``: that of the fork server, whose stdin is /dev/null from now
    on.
    """
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    everything = sorted(map(int, os.listdir("/proc/self/fd")))
    order = SpawnRequested("", 0, title, None, dict(os.environ), os.getcwd(), targets=tuple(everything), stub={})
    clone.close_all_but(everything)
    _set_streams([1, 2], ground)
    _run(order, _set_up(order, ground), replace(ground, run_stub=lambda _stub: 0))
    clone.set_parent_death_signal(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
