"""Users and groups of a service: from names or numbers to what setuid needs.

Must not change any identity; it only looks accounts up, and refuses what svcd would not be allowed to do.
"""

from __future__ import annotations

import grp
import os
import pwd

from svcd.record import record
from svcd.supervisor.config.units import RefusedError, near_miss


@record
class Identity:
    """None: svcd's own stays."""

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()


def identity(user: str | int | None, group: str | int | None) -> Identity:
    """The identity for ``user:`` and ``group:``. Raises ``RefusedError`` whose ``at`` is the key at fault."""
    gid = _gid(group) if group is not None else None
    if user is None:
        return _permitted(Identity(gid=gid), "group", group)
    account = _account(user)
    if account is None:
        assert isinstance(user, int)
        if gid is None and user != os.getuid():
            text = f"uid {user} has no account, so its group is unknown"
            raise RefusedError(text, "say group: as well", ("user",))
        return _permitted(Identity(user, gid, () if gid is None else (gid,)), "user", user)
    primary = account.pw_gid if gid is None else gid
    groups = tuple(sorted(os.getgrouplist(account.pw_name, primary)))
    return _permitted(Identity(account.pw_uid, primary, groups), "user", user)


def _permitted(wanted: Identity, key: str, named: str | int | None) -> Identity:
    """Only root may change; for everyone else what is already so is no change."""
    if os.geteuid() == 0:
        return wanted
    if wanted.uid not in (None, os.geteuid()):
        text = f"cannot run as {named}: svcd does not run as root"
        raise RefusedError(text, "start svcd as root, or remove the key", (key,))
    if wanted.gid not in (None, os.getegid()):
        at = "group" if key == "group" or wanted.uid is None else key
        text = f"cannot change to the group {wanted.gid}: svcd does not run as root"
        raise RefusedError(text, "start svcd as root, or remove the key", (at,))
    return Identity()


def _account(user: str | int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except (KeyError, ValueError, UnicodeError):
        if isinstance(user, int):
            return None
    near = near_miss(user, (each.pw_name for each in pwd.getpwall()))
    raise RefusedError(f"there is no user {user}", near or "create it, or name one that exists", ("user",))


def _gid(group: str | int) -> int:
    if isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError, UnicodeError):
        near = near_miss(group, (each.gr_name for each in grp.getgrall()))
        raise RefusedError(
            f"there is no group {group}", near or "create it, or name one that exists", ("group",)
        ) from None
