"""Making one listening socket out of its spec, and saying why when there can be none.

Must not keep anything: ``sockets`` holds what is made here.

A TCP socket has SO_REUSEADDR, so that connections of an earlier life do not keep the port; a datagram socket has not,
for it would share its port with whoever asks. Addresses are numbers (and ``localhost``, 127.0.0.1; an empty host or
``*`` is every address, of IPv6 and IPv4): looking names up may take for ever. A Unix socket's file belongs to the
service's user and group and has ``SocketSpec.mode``, 0660 unless the configuration says otherwise. It never is more
open than that, not even for a moment. A socket file is removed if nobody answers there; any other file stays.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from typing import Final

from svcd.record import record
from svcd.supervisor.config.launch import SocketSpec, address
from svcd.supervisor.controller.processes import holders

BACKLOG: Final = 4096  # what the kernel allows is less where net.core.somaxconn says so
EVERY_ADDRESS: Final = frozenset({None, "", "*"})
PRIVATE: Final = 0o600
CREDENTIALS: Final = struct.Struct("=3i")  # pid, uid, gid: struct ucred, unix(7)
KINDS: Final = {"stream": socket.SOCK_STREAM, "dgram": socket.SOCK_DGRAM}


class CannotListen(Exception):  # noqa: N818 - it says what happened
    """There is no such socket now: "cannot listen on 127.0.0.1:80: Permission denied"."""


@record
class Owner:
    """Whose a Unix socket's file is; None: ours."""

    uid: int | None = None
    gid: int | None = None


@record
class Listener:
    """An open socket. ``file``: (device, inode) of a Unix socket's file, by which it is known as ours at the end."""

    spec: SocketSpec
    socket: socket.socket
    file: tuple[int, int] | None = None

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        """Stop listening, and remove the file if it still is the one that was made."""
        path = self.spec.path
        try:
            if path is not None and self.file == _identity(os.lstat(path)):
                os.unlink(path)
        except OSError:
            pass
        self.socket.close()


def listen(spec: SocketSpec, owner: Owner) -> Listener:
    """Open it. Raises ``CannotListen``."""
    try:
        return _listen_unix(spec, spec.path, owner) if spec.path is not None else _listen_inet(spec)
    except OSError as error:
        raise CannotListen(f"cannot listen on {address(spec)}: {_reason(spec, error)}") from None


def _listen_inet(spec: SocketSpec) -> Listener:
    if spec.host not in EVERY_ADDRESS:
        return _bind_inet(spec, "127.0.0.1" if spec.host == "localhost" else spec.host or "")
    try:
        return _bind_inet(spec, "::")
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        return _bind_inet(spec, "0.0.0.0")  # a machine without IPv6


def _bind_inet(spec: SocketSpec, host: str) -> Listener:
    try:
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        family, kind, protocol, _, place = socket.getaddrinfo(host, spec.port, type=KINDS[spec.type], flags=flags)[0]
    except (socket.gaierror, UnicodeError):
        raise OSError(errno.EINVAL, f"{host} is no IP address") from None
    made = socket.socket(family, kind, protocol)
    try:
        if spec.type == "stream":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(spec.host not in EVERY_ADDRESS))
        made.bind(place)
        if spec.type == "stream":
            made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return Listener(spec, made)


def _listen_unix(spec: SocketSpec, path: str, owner: Owner) -> Listener:
    made = socket.socket(socket.AF_UNIX, KINDS[spec.type])
    file = None
    try:
        os.fchmod(made.fileno(), PRIVATE)  # the file is made with this mode, less our umask
        try:
            made.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _remove_stale(path)
            made.bind(path)
        file = _identity(os.lstat(path))
        if owner.uid is not None or owner.gid is not None:
            os.chown(path, _or_same(owner.uid), _or_same(owner.gid), follow_symlinks=False)
        os.chmod(path, spec.mode)
        if spec.type == "stream":
            made.listen(BACKLOG)
    except BaseException:
        Listener(spec, made, file).close()
        raise
    return Listener(spec, made, file)


def _or_same(number: int | None) -> int:
    return -1 if number is None else number


def _remove_stale(path: str) -> None:
    """Remove a socket file at which nobody listens any more. Raises ``OSError`` when it is something else."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise OSError(errno.EEXIST, "there is a file that is no socket")
    holder = _unix_holder(path)
    if holder is not None:
        raise OSError(errno.EADDRINUSE, f"somebody listens there already{holder}")
    os.unlink(path)


def _unix_holder(path: str) -> str | None:
    """Who listens there, to be added in brackets; None: nobody."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK) as caller:
            try:
                caller.connect(path)
            except OSError as error:
                if error.errno == errno.EPROTOTYPE:
                    continue
                if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                    return None
                return ""  # its backlog is full, or it does not let us in: somebody is there
            credentials = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
            pid = CREDENTIALS.unpack(credentials)[0]
            return holders.words(pid) if pid > 0 else ""
    return ""


def _reason(spec: SocketSpec, error: OSError) -> str:
    text = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE and spec.path is None and spec.port:
        pid = holders.pid_at_port(spec.port, spec.type)
        return text + (holders.words(pid) if pid is not None else "")
    if error.errno == errno.ENOENT and spec.path is not None:
        return f"there is no directory {os.path.dirname(spec.path)}"
    if error.errno == errno.EACCES and spec.port is not None and spec.port < 1024:
        return f"{text}: ports below 1024 need root or CAP_NET_BIND_SERVICE"
    return text


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
