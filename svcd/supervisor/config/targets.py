"""The types of values that point at something: addresses, URLs, sockets, patterns, times of a calendar, methods.

Must not look anything up, nor connect to anything: a value is judged by itself.
"""

from __future__ import annotations

import re
import warnings
from typing import Annotated, Any, Final

from svcd.supervisor.config.leaves import Parsed, parse_path, parse_text
from svcd.supervisor.config.tree import kind_of
from svcd.supervisor.config.units import RefusedError

_WORD: Final = r"\{(?:instance|port)\}"
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")
_MAX_SOCKET_PATH: Final = 107  # sun_path of sockaddr_un, with its closing zero


def parse_address(value: Any) -> tuple[str, int]:
    """``host:port``; an IPv6 address stands in brackets."""
    example = "write host:port, such as 127.0.0.1:6379"
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536:
        raise RefusedError(f"{value} has no host", f"write 127.0.0.1:{value}")
    if not isinstance(value, str):
        raise RefusedError(f"must be host:port, not {kind_of(value)}", example)
    host, _, port = value.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise RefusedError(f'"{value[:80]}" is not host:port', "put an IPv6 address in brackets, such as [::1]:6379")
    if not host or not re.fullmatch(r"[^\s/\[\]\0]{1,255}", host):
        raise RefusedError(f'"{value[:80]}" is not host:port', example)
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise RefusedError(f'"{port[:20]}" is no port', "ports are 1 to 65535")
    return host, int(port)


def parse_url(value: Any) -> str:
    """An http or https URL with a host, such as a probe can ask."""
    example = "write one such as http://127.0.0.1:8080/health"
    text = parse_text(value)
    from urllib.parse import urlsplit  # noqa: PLC0415 - few files ask for it

    try:
        parts = urlsplit(text)
        port_ok = parts.port != 0
    except ValueError as error:
        raise RefusedError(f'"{text[:80]}" is no URL: {_lower(str(error))}', example) from None
    if parts.scheme not in ("http", "https"):
        raise RefusedError(f'"{text[:80]}" is no http:// or https:// URL', example)
    if not parts.hostname:
        raise RefusedError(f'"{text[:80]}" names no host', example)
    if not port_ok:
        raise RefusedError('"0" is no port', "ports are 1 to 65535")
    if _CONTROL.search(text):
        raise RefusedError("holds a blank or a control character", "write it as %20 or the like")
    if parts.username is not None:
        raise RefusedError("holds a user's name or password", "probes send none: leave out what stands before the @")
    return text


def parse_pattern(value: Any) -> str:
    """A regular expression of Python's re."""
    text = parse_text(value)
    if not text:
        raise RefusedError("is empty: it is found in everything", "write what is to be found")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        reason = error.msg if isinstance(error, re.error) else str(error) or "too deep"
        at = f" at position {error.pos}" if isinstance(error, re.error) and error.pos is not None else ""
        raise RefusedError(
            f"is no regular expression: {reason}{at}", "correct it; \\ before . ( [ * + ? takes them as they are"
        ) from None
    return text


def parse_cron(value: Any) -> str:
    """A cron line: minute, hour, day of the month, month, day of the week."""
    example = 'write one such as "*/5 * * * *" (minute, hour, day, month, day of the week)'
    text = " ".join(parse_text(value).split())
    if len(text.split(" ")) != 5:
        raise RefusedError(f'"{text[:80]}" has not five fields', example)
    from datetime import datetime  # noqa: PLC0415 - few files have a schedule

    from cronsim import CronSim, CronSimError  # noqa: PLC0415

    try:
        next(CronSim(text, datetime(2024, 1, 1)))
    except CronSimError as error:
        raise RefusedError(f'"{text[:80]}" is no cron line: {_lower(str(error))}', example) from None
    except (StopIteration, ValueError, OverflowError):
        raise RefusedError(f'"{text[:80]}" never comes', "name a day that there is") from None
    return text


def parse_listen(value: Any) -> tuple[str | None, int | None, str | None]:
    """Host (None: every address), port and path of ``host:port`` or ``unix:path``."""
    example = "write host:port, such as 127.0.0.1:8080, or unix:/path"
    if isinstance(value, str) and value.startswith("unix:"):
        path = parse_path(value.removeprefix("unix:"))
        if path.startswith("@"):
            raise RefusedError("abstract sockets have no owner and no mode", "write unix:/path")
        return None, None, path
    if isinstance(value, str) and value.startswith("/"):
        raise RefusedError(f'"{value[:80]}" is not host:port', f"write unix:{value[:80]}")
    if isinstance(value, str) and value.startswith("*:"):
        return None, parse_address("0.0.0.0" + value[1:])[1], None
    if isinstance(value, str) and value.startswith(":"):
        raise RefusedError(
            f'"{value[:80]}" has no host', f"write 127.0.0.1{value[:20]}, or *{value[:20]} for every address"
        )
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise RefusedError(f"must be host:port or unix:path, not {kind_of(value)}", example)
    host, port = parse_address(value)
    return _number_of_host(host), port, None


def _number_of_host(host: str) -> str:
    """The host of a socket is a number: looking up a name may take for ever, and may find what is not ours."""
    if host == "localhost":
        return host
    from ipaddress import ip_address  # noqa: PLC0415

    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        raise RefusedError(
            f"{host[:80]} is no address of this host", "write its number, such as 127.0.0.1, or * for every one"
        ) from None
    return host


def check_socket_path(path: str) -> None:
    """Raise ``RefusedError`` when the kernel would not take it."""
    length = len(path.encode("utf-8", "surrogateescape"))
    if length > _MAX_SOCKET_PATH:
        raise RefusedError(
            f"the path has {length} bytes, and a socket's at most {_MAX_SOCKET_PATH}", "use a shorter one"
        )


def parse_socket_name(value: Any) -> str:
    """What LISTEN_FDNAMES can carry: sd_listen_fds(3) wants no colon, no control character, at most 255."""
    text = parse_text(value)
    if not re.fullmatch(r"[!-9;-~]{1,255}", text):
        raise RefusedError(
            f'"{text[:80]}" cannot name a socket', "use ASCII letters, digits and signs without a colon or blank"
        )
    return text


def parse_method(value: Any) -> str:
    text = parse_text(value)
    if not text.isidentifier() or text.startswith("_"):
        raise RefusedError(f'"{text[:80]}" is no method', "write the name of a method of the service, such as healthy")
    return text


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


Address = Annotated[
    tuple[str, int],
    Parsed(parse_address, "`host:port`", {"type": "string", "pattern": rf"^.+:(?:[0-9]{{1,5}}|.*{_WORD}.*)$"}),
]
Url = Annotated[
    str, Parsed(parse_url, "`http://` or `https://` URL", {"type": "string", "pattern": r"^[Hh][Tt][Tt][Pp][Ss]?://."})
]
Pattern = Annotated[str, Parsed(parse_pattern, "regular expression", {"type": "string", "minLength": 1})]
CRON_SCHEMA: Final = {"type": "string", "pattern": r"^\s*(?:\S+\s+){4}\S+\s*$"}
Cron = Annotated[str, Parsed(parse_cron, "cron line of five fields", CRON_SCHEMA)]
Listen = Annotated[
    tuple[str | None, int | None, str | None],
    Parsed(
        parse_listen,
        "`host:port`, `*:port` or `unix:path`",
        {"type": "string", "pattern": rf"^(?:unix:.+|.+:(?:[0-9]{{1,5}}|.*{_WORD}.*))$"},
    ),
]
SocketName = Annotated[str, Parsed(parse_socket_name, "word", {"type": "string", "pattern": "^[!-9;-~]{1,255}$"})]
Method = Annotated[str, Parsed(parse_method, "name of a method", {"type": "string", "pattern": r"^[^\W\d_]\w*$"})]
