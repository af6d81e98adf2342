"""A part that was started before there was anything for it to do: it waits until somebody hands it its argument.

Must not know which part it is, nor who begins it (``cli.headstart``). Standard library only.

Until then it holds nothing but one end of a socketpair. The other end's end is its own: nobody has to look for it.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

STANDARD_STREAMS: Final = 3
MAX_ARGUMENT_BYTES: Final = 1024 * 1024
MAX_DESCRIPTORS: Final = 16
GONE: Final = 0
LAST_FD: Final = 2**31 - 1


def hand_over(fd: int, argument: Mapping[str, Any], fds: Mapping[str, int]) -> None:
    """Let the part go on with ``argument``, our standard streams and ``fds``; closes ``fd``. Raises ``OSError`` when
    it is gone.
    """
    text = json.dumps({**argument, "fds": list(fds)}).encode()
    with socket.socket(fileno=fd) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_ARGUMENT_BYTES)
        link.settimeout(None)
        socket.send_fds(link, (text,), (*range(STANDARD_STREAMS), *fds.values()))


def argument(text: str, meanwhile: Callable[[], object]) -> dict[str, Any]:
    """What a part is told on its command line: its argument, or where to wait for it, when ``meanwhile`` is done."""
    given: dict[str, Any] = json.loads(text)
    if "waiting_fd" not in given:
        return given
    meanwhile()
    return _wait(given["waiting_fd"])


def _wait(fd: int) -> dict[str, Any]:
    """The argument, with the numbers that its descriptors have here. Ends the process when nobody will say it."""
    os.closerange(STANDARD_STREAMS, fd)
    os.closerange(fd + 1, LAST_FD)
    with socket.socket(fileno=fd) as link:
        text, received, _, _ = socket.recv_fds(link, MAX_ARGUMENT_BYTES, MAX_DESCRIPTORS)
    if not text:
        os._exit(GONE)
    for each in received:
        os.set_inheritable(each, False)
    for number, own in enumerate(received[:STANDARD_STREAMS]):
        os.dup2(own, number)
        os.close(own)
    told: dict[str, Any] = json.loads(text)
    named = zip(told.pop("fds"), received[STANDARD_STREAMS:], strict=True)
    return {**told, **dict(named)}
