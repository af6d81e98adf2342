"""The addresses that svcd is to listen on for services: each of one service only (whose instances share it), and to be
had on this host now.

Must not keep a socket open, nor touch a file: it only tries.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable
from typing import Final

from svcd.supervisor.config.launch import ServiceDefinition, SocketSpec, address
from svcd.supervisor.config.programs import error_text
from svcd.supervisor.config.service_source import Notes

_KINDS: Final = {"stream": socket.SOCK_STREAM, "dgram": socket.SOCK_DGRAM}
_ANYBODY: Final = "127.0.0.1"

Resolved = tuple[Notes, ServiceDefinition]


def free_port() -> int:
    """A TCP port of the loopback interface that nobody has."""
    with socket.socket() as trial:
        trial.bind((_ANYBODY, 0))
        port: int = trial.getsockname()[1]
        return port


def check_sockets(resolved: Iterable[Resolved], held: frozenset[str]) -> None:
    """Note every address that two services want, or that cannot be had. ``held``: as ``launch.address`` says them,
    those that a running svcd of the same cluster listens on.
    """
    taken: dict[tuple[object, ...], list[tuple[SocketSpec, ServiceDefinition]]] = {}
    for notes, definition in resolved:
        for index, spec in enumerate(definition.launch.sockets):
            loc = ("sockets", index, "listen")
            others = taken.setdefault(_place(spec), [])
            other = next((owner for each, owner in others if _meet(each, spec)), None)
            others.append((spec, definition))
            if other is not None and _is_beside(other, definition):
                continue  # one socket for all of them: whoever accepts first has the connection
            if other is not None:
                notes.find(loc, *_clash(spec, definition, other))
            elif address(spec) not in held and (reason := why_not(spec)):
                suggestion = "use another address, or end what listens there" if "in use" in reason else "correct it"
                notes.find(loc, f"cannot listen on {address(spec)}: {reason}", suggestion)


def check_shared_targets(first: Resolved, second: Resolved) -> None:
    """Note what two instances of one service would both be asked for."""
    notes, one = first
    for key, probe, other in (
        ("ready", one.launch.probe, second[1].launch.probe),
        ("health", one.launch.health, second[1].launch.health),
    ):
        if probe is None or other is None or probe.tcp_port is None:
            continue
        if (probe.tcp_host, probe.tcp_port) == (other.tcp_host, other.tcp_port):
            text = f"every instance would be asked for at port {probe.tcp_port}"
            notes.find((key, "tcp"), text, "write {port} instead of the number")


def _place(spec: SocketSpec) -> tuple[object, ...]:
    """What two sockets that meet have in common."""
    return ("unix", spec.path) if spec.path is not None else (spec.type, spec.port)


def _meet(one: SocketSpec, other: SocketSpec) -> bool:
    """Whether two sockets of the same place want the same address, or one wants every address."""
    if one.path is not None:
        return True
    hosts = {_number(one.host), _number(other.host)}
    if len(hosts) == 1 or None in hosts:
        return True
    every = hosts & {"0.0.0.0", "::"}
    return bool(every) and len({":" in each for each in hosts if each}) == 1


def _is_beside(one: ServiceDefinition, other: ServiceDefinition) -> bool:
    """Whether these are two instances of one service."""
    return one.service == other.service and one.spec.name != other.spec.name


def _number(host: str | None) -> str | None:
    return _ANYBODY if host == "localhost" else host


def _clash(spec: SocketSpec, definition: ServiceDefinition, other: ServiceDefinition) -> tuple[str, str]:
    if other.spec.name == definition.spec.name:
        return f"two of its sockets would listen on {address(spec)}", "use another address"
    return f"{other.service} listens on {address(spec)} already", "use another address"


# ---- trying --------------------------------------------------------------------------------------------------------


def why_not(spec: SocketSpec) -> str:
    """Why svcd could not listen there; nothing when it can."""
    try:
        if spec.path is not None:
            _try_path(spec.path)
        else:
            _try_port(spec)
    except OSError as error:
        return "it is in use" if error.errno == errno.EADDRINUSE else error_text(error)
    return ""


def _try_port(spec: SocketSpec) -> None:
    every = spec.host is None
    host = _number(spec.host) or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, _KINDS[spec.type]) as trial:
        if spec.type == "stream":
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not every))
        name, _, scope = host.partition("%")
        zone = _zone(scope) if scope else 0
        trial.bind((name, spec.port, 0, zone) if family == socket.AF_INET6 else (name, spec.port))


def _zone(name: str) -> int:
    return int(name) if name.isascii() and name.isdigit() else socket.if_nametoindex(name)


def _try_path(path: str) -> None:
    """A socket file at which nobody listens is no obstacle: it is replaced."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        _try_directory(os.path.dirname(path))
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "there is a file that is no socket")
    if any(_answers(path, kind) for kind in (*_KINDS.values(), socket.SOCK_SEQPACKET)):
        raise OSError(errno.EADDRINUSE, "somebody listens there")


def _answers(path: str, kind: int) -> bool:
    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK) as caller:
        try:
            caller.connect(path)
        except OSError as error:  # anything else: its backlog is full, or it does not let us in
            return error.errno not in (errno.ECONNREFUSED, errno.ENOENT, errno.EPROTOTYPE)
    return True


def _try_directory(directory: str) -> None:
    if not stat.S_ISDIR(os.stat(directory).st_mode):
        raise OSError(errno.ENOTDIR, "its directory is a file")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, "its directory cannot be written to")
