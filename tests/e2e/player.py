"""A program that does what a test says: becomes ready, exits, is silent, in the moment that the test chooses.

Must not import anything beyond the standard library: svcd starts it as any program, and it must start quickly.

Words on its command line: ``unready`` (is not ready before it is told to be), ``lingers`` and ``deaf`` (a SIGTERM alone
does not end it), ``beats`` (gives signs of life all the while), ``CODE`` (the exit code after SIGTERM). Words of the
test, to the socket ``PLAYERS/PID``: ``ready``, ``exit CODE``, ``die SIGNAL``, ``notify TEXT``, ``silent`` (beats no
more).
"""

from __future__ import annotations

import os
import signal
import socket
import sys

BEAT_S = 0.05


def notify(text: str) -> None:
    address = os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.sendto(text.encode(), address)


def obey(word: str, rest: str) -> None:
    if word == "ready":
        notify("READY=1")
    elif word == "notify":
        notify(rest)
    elif word == "die":
        os.kill(os.getpid(), int(rest))
    elif word == "exit":
        os._exit(int(rest))


def main(words: list[str]) -> None:
    code = next((int(word) for word in words if word.isdigit()), 0)
    lingers = "lingers" in words or "deaf" in words
    signal.signal(signal.SIGTERM, (lambda *_: None) if lingers else (lambda *_: os._exit(code)))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as orders:
        orders.bind(os.path.join(os.environ["PLAYERS"], str(os.getpid())))
        if "unready" not in words and "NOTIFY_SOCKET" in os.environ:
            notify("READY=1")
        orders.settimeout(BEAT_S if "beats" in words else None)
        while True:
            try:
                word, _, rest = orders.recv(1000).decode().partition(" ")
            except TimeoutError:
                notify("WATCHDOG=1")
                continue
            if word == "silent":
                orders.settimeout(None)
            obey(word, rest)


if __name__ == "__main__":
    main(sys.argv[1:])
