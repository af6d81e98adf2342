"""A server written against sd_listen_fds(3) alone: answers each caller with its pid and the name of the socket.

Must not know svcd, nor bind anything itself. Words on its command line: ``refuses`` (exits with 3 at once, whoever
waits), ``slow`` (answers when a file of the name ``open`` is in its directory).
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time


def sockets() -> dict[int, tuple[socket.socket, str]]:
    """What was handed over, by descriptor, with its name."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        sys.exit("the sockets are not for this process")
    names = os.environ["LISTEN_FDNAMES"].split(":")
    count = int(os.environ["LISTEN_FDS"])
    assert len(names) == count, names
    return {fd: (socket.socket(fileno=fd), names[fd - 3]) for fd in range(3, 3 + count)}


def answer(listener: socket.socket, name: str) -> None:
    text = f"{os.getpid()} {name}\n".encode()
    if listener.type == socket.SOCK_DGRAM:
        _, sender = listener.recvfrom(100)
        listener.sendto(text, sender)
        return
    caller = accept(listener, text)
    with caller:
        if caller.recv(100) == b"stay":
            caller.recv(100)


def accept(listener: socket.socket, text: bytes) -> socket.socket:
    """The next caller, who has been told that: a SIGTERM does not come between."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        caller, _ = listener.accept()
        caller.sendall(text)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return caller


def main(words: list[str]) -> None:
    if "refuses" in words:
        sys.exit(3)
    while "slow" in words and not os.path.exists("open"):
        time.sleep(0.01)
    held = sockets()
    poll = select.poll()
    for fd in held:
        poll.register(fd, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            answer(*held[fd])


if __name__ == "__main__":
    main(sys.argv[1:])
