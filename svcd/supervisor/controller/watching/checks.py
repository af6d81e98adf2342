"""One look at a service from outside: does its port answer, is its page as it should be, does a command say yes?

Must not repeat itself, nor decide what the answer means: ``probes`` (readiness) and ``health`` do.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

from svcd.supervisor.config.launch import HttpTarget, ServiceDefinition
from svcd.supervisor.controller.patience import within
from svcd.supervisor.controller.processes.errands import Errand, Errands
from svcd.supervisor.controller.processes.last_words import LastWords

BODY_LIMIT_BYTES: Final = 1024 * 1024
CHUNK_BYTES: Final = 64 * 1024
NAME_LIMIT: Final = 40  # characters of a shell's string that name it
SHELL: Final = ("/bin/sh", "-c")

Check = Callable[[float], Awaitable[str | None]]
"""Takes the seconds that it may last; None when all is well, else what is wrong. Never raises for what it looks at."""


Said = Callable[[str, tuple[str, ...]], None]
"""Takes a service, and what the command that looked at it has printed last."""


def tcp(host: str, port: int) -> Check:
    """Somebody accepts a connection."""

    async def check(timeout_s: float) -> str | None:
        try:
            async with within(timeout_s):
                _, writer = await asyncio.open_connection(host, port)
        except TimeoutError:
            return f"no connection to {host}:{port} within {timeout_s:g} s"
        except OSError as error:
            return f"cannot connect to {host}:{port}: {_words(error)}"
        alone = writer.get_extra_info("sockname") == writer.get_extra_info("peername")
        writer.close()
        # where nobody listens, our own end can get that very port: TCP then connects us to ourselves
        return f"cannot connect to {host}:{port}: nobody listens" if alone else None

    return check


def http(target: HttpTarget) -> Check:
    """A GET is answered with the status, and with the body, that are expected (RFC 9110). Redirects are answers."""
    pattern = None if target.body is None else re.compile(target.body)

    async def check(timeout_s: float) -> str | None:
        try:
            async with within(timeout_s):
                status, body = await _get(target.url, pattern is not None)
        except TimeoutError:
            return f"{target.url}: no answer within {timeout_s:g} s"
        except (OSError, ValueError) as error:
            return f"{target.url}: {_words(error)}"
        if status != target.status:
            return f"{target.url}: status {status} instead of {target.status}"
        if pattern is not None and pattern.search(body) is None:
            return f"{target.url}: no {target.body!r} in its body"
        return None

    return check


def command(
    errands: Errands, definition: ServiceDefinition, argv: tuple[str, ...], said: Said = lambda service, lines: None
) -> Check:
    """A command exits with 0. One that cannot even be killed is not joined by another. ``said`` is told the last lines
    of one that fails, and that there are none of one that does not.
    """
    last: Errand | None = None
    name = _name_of(argv)

    async def check(timeout_s: float) -> str | None:
        nonlocal last
        if last is not None and not last.gone:
            return f"{name}: the last one has been killed, and does not end"
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

        def done(error: str | None) -> None:
            if not answer.done():
                answer.set_result(error)

        words = _ear()
        try:
            prints_to = None if words is None else words.fd
            last = errands.run(definition, argv, timeout_s, {}, done, output=False, prints_to=prints_to)
            if words is not None:
                words.passed()
            error = await answer
        except asyncio.CancelledError:
            if last is not None:
                last.kill()
            raise
        finally:
            lines = () if words is None else words.close()
        said(definition.spec.name, () if error is None else lines)
        return None if error is None else f"{name}: {error}"

    return check


def _ear() -> LastWords | None:
    """Without descriptors a command is still run, and not heard."""
    try:
        return LastWords(asyncio.get_running_loop())
    except OSError:
        return None


def _name_of(argv: tuple[str, ...]) -> str:
    """The program; of a string, which a shell runs, the beginning of the string."""
    if argv[:2] != SHELL or len(argv) != len(SHELL) + 1:
        return argv[0]
    text = " ".join(argv[-1].split())
    return text if len(text) <= NAME_LIMIT else f"{text[: NAME_LIMIT - 1]}…"


def _words(error: OSError | ValueError) -> str:
    """The event loops put the address, which is said already, into what the system says."""
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError | socket.gaierror):
        return os.strerror(error.errno)
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


async def _get(url: str, wants_body: bool) -> tuple[int, str]:
    """Status and, if wanted, the first ``BODY_LIMIT_BYTES`` of the body. Raises OSError, ValueError."""
    import h11  # noqa: PLC0415 - only clusters with such checks pay for it

    parts = urlsplit(url)
    secure = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure)
    try:
        connection = h11.Connection(our_role=h11.CLIENT)
        headers = [("Host", parts.netloc.rpartition("@")[2]), ("User-Agent", "svcd"), ("Connection", "close")]
        resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        request = h11.Request(method="GET", target=resource, headers=headers)
        writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        return await _answer(connection, reader, wants_body)
    except h11.ProtocolError as error:
        raise ValueError(f"no HTTP: {error}") from None
    finally:
        writer.close()


async def _answer(connection: Any, reader: asyncio.StreamReader, wants_body: bool) -> tuple[int, str]:
    import h11  # noqa: PLC0415 - see above

    status, body = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(CHUNK_BYTES))
        elif isinstance(event, h11.Response):
            status = event.status_code
            if not wants_body:
                break
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) >= BODY_LIMIT_BYTES:
                break
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            break
    if status == 0:
        raise ValueError("it closed the connection without an answer")
    return status, body[:BODY_LIMIT_BYTES].decode("utf-8", "replace")
