"""A head start: the controller's interpreter comes up and imports while the command line still validates.

Must not decide whether there will be a cluster. What was begun waits; where there is to be none it is ended and
reaped, and when we are killed it sees the end of its socket, and ends. Nothing but the standard library, and little of
that: this runs before anything else of a ``svcd start``.

The guardian must be the controller's parent. In the foreground this process becomes the guardian by exec, so the
controller is begun as our child. With ``-d`` a child of ours will be the guardian: it is forked at once, begins the
controller, and waits for us to have what it needs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

CONTROLLER: Final = "svcd.supervisor.controller"
ENDINGS: Final = (".yaml", ".yml")
CONSOLE_FORMAT: Final = "SVCD_CONSOLE_FORMAT"
MAX_MESSAGE_BYTES: Final = 1024 * 1024
FAILED: Final = 1


class Headstart:
    """A controller that waits. ``fd`` is our end of its socket."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.pid = _spawn_controller(theirs)
        self.fd = ours.detach()

    def end(self) -> None:
        """There will be no cluster: nothing is left of it."""
        os.close(self.fd)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def become_guardian(self, guardian: str, arguments: Mapping[str, Any], lock: int) -> NoReturn:
        """Replace this process. Raises ``OSError``."""
        for fd in (lock, self.fd):
            os.set_inheritable(fd, True)
        text = json.dumps({**arguments, "lock_fd": lock, "waiting": {"pid": self.pid, "fd": self.fd}})
        os.execv(sys.executable, [sys.executable, "-I", "-S", guardian, text])


class Second:
    """With ``-d``: a child in a session of its own, which begins the controller and will be the guardian."""

    def __init__(self) -> None:
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            self._link.close()
            _wait_for_ground(theirs)
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
            socket.send_fds(link, (text,), (lock, log))


_begun: list[Headstart | Second] = []


def begin(arguments: Sequence[str]) -> None:
    """Begin what these words of a command line will need, as far as one can see without reading them properly: nothing
    depends on it.
    """
    words = list(arguments)
    if "start" not in words or not any(map(_is_file, words[words.index("start") + 1 :])) or "--help" in words:
        return
    detached = any(word == "--detach" or (word[:1] == "-" != word[1:2] and "d" in word) for word in words)
    try:
        _begun.append(Second() if detached else Headstart())
    except OSError:
        pass  # it will be tried again when it has to be, and told


def in_foreground() -> Headstart:
    """The waiting controller of a start in the foreground. Raises ``OSError``."""
    if not _begun or not isinstance(_begun[0], Headstart):
        give_up()
        _begun.append(Headstart())
    found = _begun[0]
    assert isinstance(found, Headstart)
    return found


def detached() -> Second:
    """The guardian-to-be of a start in the background; it is the caller's now. Raises ``OSError``."""
    if not _begun or not isinstance(_begun[0], Second):
        give_up()
        _begun.append(Second())
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


def _spawn_controller(link: socket.socket) -> int:
    """As the guardian starts it: a session of its own, no signal handled or blocked; and without streams for now."""
    os.set_inheritable(link.fileno(), True)
    streams = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
    handled = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-S", "-m", CONTROLLER, json.dumps({"waiting_fd": link.fileno()})],
        {**os.environ, "PYTHONPATH": os.pathsep.join(own_path()), "PYTHONSAFEPATH": "1"},
        file_actions=streams,
        setsid=True,
        setsigmask=(),
        setsigdef=handled,
    )


def _wait_for_ground(link: socket.socket) -> NoReturn:
    """In the second: be the guardian once we are told of what, or leave with the controller that nobody needs."""
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        controller = Headstart()
        received = array("i")
        space = socket.CMSG_SPACE(2 * received.itemsize)
        text, controls, _, _ = link.recvmsg(MAX_MESSAGE_BYTES, space, socket.MSG_CMSG_CLOEXEC)
        if not text:
            controller.end()
            os._exit(0)
        for _, _, content in controls:
            received.frombytes(content)
        lock, log = received
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        for source, own in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, own)
        os.environ.pop(CONSOLE_FORMAT, None)
        told = json.loads(text)
        controller.become_guardian(told["guardian"], told["arguments"], lock)
    except BaseException as error:
        os.write(2, f"svcd: {error}\n".encode("utf-8", "backslashreplace"))
    finally:
        os._exit(FAILED)
