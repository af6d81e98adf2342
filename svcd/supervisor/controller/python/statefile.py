"""One service's saved state as a file: written whole or not at all, read back only when every byte is as it was.

Must not decide when, nor look into the state itself: only the service's own runtime can read that.

The document is a MessagePack map: number of the format, whose state it is, of which version, when, digest, state.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]  # it ships no types

from svcd.protocol.limits import MAX_STATE_BYTES
from svcd.record import record

FORMAT: Final = 1
MAX_FILE_BYTES: Final = MAX_STATE_BYTES + 64 * 1024
BAD: Final = ".bad"
_KEY: Final = "svcd-state"
_SHAPE: Final[dict[str, tuple[type, ...]]] = {
    "service": (str,),
    "version": (str, type(None)),
    "at": (float, int),
    "digest": (bytes,),
    "state": (bytes,),
}


class BadStateFile(Exception):  # noqa: N818 - it says what it found
    """There is a file, and no state in it that could be used. The text says why."""


@record
class SavedState:
    """``version``: of the service that has exported it; ``at``: Unix seconds."""

    service: str
    version: str | None
    at: float
    state: bytes


def path_of(directory: Path, service: str) -> Path:
    """Names of services are safe as names of files; ".bad" belongs to no service's name."""
    return directory / service


def digest_of(saved: SavedState) -> bytes:
    """The same for states that are the same, whenever they were exported."""
    return hashlib.blake2b(saved.state, digest_size=32, key=repr((saved.service, saved.version)).encode()[:64]).digest()


def write(directory: Path, saved: SavedState) -> None:
    """Replace what is there. After this it survives a loss of power. Raises ``OSError``."""
    directory.mkdir(mode=0o700, exist_ok=True)
    fields = {"service": saved.service, "version": saved.version, "at": saved.at, "digest": digest_of(saved)}
    data = msgpack.packb({_KEY: FORMAT, **fields, "state": saved.state})
    path = path_of(directory, saved.service)
    temporary = directory / f".{saved.service}.new"
    try:
        _write_synced(temporary, data)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(directory)


def _write_synced(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(path, flags, 0o600), "wb", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) or 0 :]
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read(directory: Path, service: str) -> SavedState | None:
    """None: there is none. Raises ``BadStateFile`` and ``OSError``."""
    try:
        data = _read_bytes(path_of(directory, service))
    except FileNotFoundError:
        return None
    fields = _opened(data)
    saved = SavedState(fields["service"], fields["version"], float(fields["at"]), fields["state"])
    if digest_of(saved) != fields["digest"]:
        raise BadStateFile("its digest does not fit: it was changed or damaged")
    if saved.service != service:
        raise BadStateFile(f"it is the state of {saved.service[:100]}")
    return saved


def _read_bytes(path: Path) -> bytes:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe in its place is not waited for
    fd = os.open(path, flags)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise BadStateFile("it is no regular file")
        if found.st_size > MAX_FILE_BYTES:
            raise BadStateFile(f"it has {found.st_size} bytes; at most {MAX_FILE_BYTES} are read")
        with open(fd, "rb", buffering=0, closefd=False) as file:
            return file.readall() or b""
    finally:
        os.close(fd)


def _opened(data: bytes) -> dict[str, Any]:
    try:
        fields = msgpack.unpackb(data, max_ext_len=0, max_array_len=0, max_map_len=64)
    except Exception:  # whatever the library makes of bytes that have gone bad
        raise BadStateFile("it is cut off or damaged") from None
    if type(fields) is not dict or type(fields.get(_KEY)) is not int:
        raise BadStateFile("svcd has not written it")
    if fields[_KEY] != FORMAT:
        newer = "a newer svcd has written it: " if fields[_KEY] > FORMAT else ""
        raise BadStateFile(f"{newer}it has format {fields[_KEY]}, and this svcd reads {FORMAT}")
    for name, types in _SHAPE.items():
        if name not in fields or type(fields[name]) not in types:
            raise BadStateFile(f"its {name} is not what it should be")
    return fields


def set_aside(directory: Path, service: str) -> Path:
    """Out of the way of the next one, for people to look at. Raises ``OSError``."""
    path = path_of(directory, service)
    aside = path.with_name(path.name + BAD)
    os.replace(path, aside)
    return aside
