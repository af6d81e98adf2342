"""Finding what is to be executed, and saying why it cannot be.

Must not execute anything, and must not decide for which user a file is checked: that is handed in.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from svcd.supervisor.config.units import RefusedError

DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"  # what the launcher searches for a service without PATH


def find_program(name: str, path: str | None, workdir: str, other_user: bool) -> str:
    """The absolute path of a program, looked up as exec does it. Raises ``RefusedError``.

    ``path``: the service's PATH, None when it has none. ``other_user``: it runs as somebody else than svcd, so that
    svcd's own rights say nothing.
    """
    if "/" in name:
        return _usable(os.path.join(workdir, name), name, other_user)
    path = DEFAULT_PATH if path is None else path
    refused: RefusedError | None = None
    for directory in path.split(":"):
        candidate = os.path.join(workdir, directory, name)
        try:
            return _usable(candidate, candidate, other_user)
        except RefusedError as error:
            refused = refused or (error if os.path.isfile(candidate) else None)
    if refused is not None:
        raise refused
    if os.path.isfile(os.path.join(workdir, name)):
        raise RefusedError(f"cannot find the program {name} on PATH", f"for the file in the workdir write ./{name}")
    raise RefusedError(f"cannot find the program {name} on PATH ({path[:200]})", "install it, or write its whole path")


def _usable(path: str, shown: str, other_user: bool) -> str:
    try:
        found = os.stat(path)
    except OSError as error:
        reason = error_text(error)
        raise RefusedError(f"cannot execute {shown}: {reason}", "check the path, or install the program") from None
    except ValueError:
        raise RefusedError(f"cannot execute {shown}: the path is not valid", "check the path") from None
    if stat.S_ISDIR(found.st_mode):
        raise RefusedError(f"cannot execute {shown}: it is a directory", "name the program in it")
    executable = bool(found.st_mode & 0o111) if other_user else os.access(path, os.X_OK)
    if not executable:
        raise RefusedError(
            f"cannot execute {shown}: it is not executable", f"chmod +x {shown}, or name its interpreter"
        )
    return os.path.normpath(path) if os.path.isabs(path) else path


def check_directory(path: str, shown: str) -> None:
    """Raise ``RefusedError`` unless ``path`` is a directory."""
    try:
        found = os.stat(path)
    except OSError as error:
        reason = error_text(error)
        raise RefusedError(f"cannot use the directory {shown}: {reason}", f"create {path}, or correct it") from None
    except ValueError:
        raise RefusedError(f"cannot use the directory {shown}: the path is not valid", "correct it") from None
    if not stat.S_ISDIR(found.st_mode):
        raise RefusedError(f"cannot use the directory {shown}: it is a file", "name a directory")


def check_file(path: str, shown: str, other_user: bool) -> None:
    """Raise ``RefusedError`` unless ``path`` is a file that can be read."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise RefusedError(f"cannot read {shown}: {error_text(error)}", "check the path") from None
    except ValueError:
        raise RefusedError(f"cannot read {shown}: the path is not valid", "check the path") from None
    if not stat.S_ISREG(found.st_mode):
        what = "a directory" if stat.S_ISDIR(found.st_mode) else "no regular file"
        raise RefusedError(f"cannot read {shown}: it is {what}", "name a file")
    if not other_user and not os.access(path, os.R_OK):
        raise RefusedError(f"cannot read {shown}: permission denied", f"chmod +r {shown}")


def error_text(error: OSError) -> str:
    """ "no such file or directory", as in the middle of a sentence."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
