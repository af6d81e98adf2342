"""A head start: the controller and the fork server come up and import while the command line still validates.

Must not decide whether there will be a cluster. What was begun waits; where there is to be none it is ended and
reaped, and when we are killed it sees the end of its socket, and ends. Nothing but the standard library, and little of
that: this runs before anything else of a ``svcd start``.

The guardian must be their parent. In the foreground this process becomes the guardian by exec, so they are begun as our
children. With ``-d`` a child of ours will be the guardian: it is forked at once, begins them, and waits for us to have
what it needs.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

COMMANDS: Final = {
    "controller": ("-m", "svcd.supervisor.controller"),
    "fork-server": ("-m", "svcd.supervisor.launcher"),
}
"""The words after the interpreter, for each part, as the guardian would start it."""

PYTHON_KEY: Final = re.compile(rb"(?:^|[\s{,\"'])(?:python|code|script)[\"']?\s*:")
LOOKED_AT_BYTES: Final = 256 * 1024
ENDINGS: Final = (".yaml", ".yml")
CONSOLE_FORMAT: Final = "SVCD_CONSOLE_FORMAT"
MAX_MESSAGE_BYTES: Final = 1024 * 1024
FAILED: Final = 1


class Headstart:
    """Parts that wait. ``waiting``: by name their pid, and our end of their socket."""

    def __init__(self, parts: Sequence[str]) -> None:
        self.waiting: dict[str, dict[str, int]] = {}
        try:
            for name in parts:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with ours, theirs:
                    self.waiting[name] = {"pid": _spawn(name, theirs), "fd": ours.detach()}
        except OSError:
            self.end()
            raise

    def end(self) -> None:
        """There will be no cluster: nothing is left of them."""
        for each in self.waiting.values():
            os.close(each["fd"])
            os.kill(each["pid"], signal.SIGKILL)
            os.waitpid(each["pid"], 0)

    def become_guardian(self, guardian: str, arguments: Mapping[str, Any], lock: int) -> NoReturn:
        """Replace this process. Raises ``OSError``."""
        for fd in (lock, *(each["fd"] for each in self.waiting.values())):
            os.set_inheritable(fd, True)
        text = json.dumps({**arguments, "lock_fd": lock, "waiting": self.waiting})
        os.execv(sys.executable, [sys.executable, "-I", "-S", guardian, text])


class Second:
    """With ``-d``: a child in a session of its own, which begins the parts and will be the guardian."""

    def __init__(self, parts: Sequence[str]) -> None:
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            self._link.close()
            _wait_for_ground(theirs, parts)
        theirs.close()

    def end(self) -> None:
        """There will be no cluster: nothing is left of it."""
        self._link.close()
        os.waitpid(self.pid, 0)

    def become_guardian(self, guardian: str, arguments: Mapping[str, Any], lock: int, log: int) -> None:
        """Let it go on; its words go to ``log``."""
        text = json.dumps({"guardian": guardian, "arguments": arguments}).encode()
        with self._link as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_MESSAGE_BYTES)
            socket.send_fds(link, (text,), (lock, log), socket.MSG_NOSIGNAL)


_begun: list[Headstart | Second] = []


def begin(arguments: Sequence[str]) -> None:
    """Begin what these words of a command line will need, as far as one can see without reading them properly: nothing
    depends on it.
    """
    words = list(arguments)
    files = [word for word in words[words.index("start") + 1 :] if _is_file(word)] if "start" in words else []
    if not files or "--help" in words:
        return
    detached = any(word == "--detach" or (word[:1] == "-" != word[1:2] and "d" in word) for word in words)
    parts = ("controller", "fork-server") if any(map(_has_python, files)) else ("controller",)
    try:
        _begun.append(Second(parts) if detached else Headstart(parts))
    except OSError:
        pass  # it will be tried again when it has to be, and told


def in_foreground() -> Headstart:
    """The waiting parts of a start in the foreground. Raises ``OSError``."""
    if not _begun or not isinstance(_begun[0], Headstart):
        give_up()
        _begun.append(Headstart(("controller",)))
    found = _begun[0]
    assert isinstance(found, Headstart)
    return found


def detached() -> Second:
    """The guardian-to-be of a start in the background; it is the caller's now. Raises ``OSError``."""
    if not _begun or not isinstance(_begun[0], Second):
        give_up()
        _begun.append(Second(("controller",)))
    found = _begun.pop()
    assert isinstance(found, Second)
    return found


def give_up() -> None:
    """End what was begun and is not used."""
    while _begun:
        _begun.pop().end()


def own_path() -> list[str]:
    """Our own ``sys.path``, absolute: where svcd's parts find what we have found."""
    found = [os.path.abspath(each) for each in sys.path if each]
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return found if home in found else [*found, home]  # an editable installation may not be on it


def _is_file(word: str) -> bool:
    return word.lower().endswith(ENDINGS) or "/" in word or os.path.isfile(word)


def _has_python(file: str) -> bool:
    """Whether it looks as if it had Python services."""
    try:
        with open(file, "rb") as opened:
            return PYTHON_KEY.search(opened.read(LOOKED_AT_BYTES)) is not None
    except OSError:
        return False


def _spawn(part: str, link: socket.socket) -> int:
    """As the guardian starts it: a session of its own, no signal handled or blocked; and without streams for now."""
    os.set_inheritable(link.fileno(), True)
    streams = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
    handled = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    return os.posix_spawn(
        sys.executable,
        [sys.executable, *COMMANDS[part], json.dumps({"waiting_fd": link.fileno()})],
        {**os.environ, "PYTHONPATH": os.pathsep.join(own_path()), "PYTHONSAFEPATH": "1"},
        file_actions=streams,
        setsid=True,
        setsigmask=(),
        setsigdef=handled,
    )


def _wait_for_ground(link: socket.socket, parts: Sequence[str]) -> NoReturn:
    """In the second: be the guardian once we are told of what, or leave with the parts that nobody needs."""
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        begun = Headstart(parts)
        text, received, _, _ = socket.recv_fds(link, MAX_MESSAGE_BYTES, 2)
        if not text:
            begun.end()
            os._exit(0)
        lock, log = received
        os.set_inheritable(log, False)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        for source, own in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, own)
        os.environ.pop(CONSOLE_FORMAT, None)
        told = json.loads(text)
        begun.become_guardian(told["guardian"], told["arguments"], lock)
    except BaseException as error:
        os.write(2, f"svcd: {error}\n".encode("utf-8", "backslashreplace"))
    finally:
        os._exit(FAILED)
