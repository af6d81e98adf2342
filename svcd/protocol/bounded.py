"""The bounds of what strangers send, as far as the library that reads it leaves them to us.

Must not know messages or values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from svcd.protocol.errors import MessageTooLarge
from svcd.protocol.limits import MAX_COLLECTIONS


def counter(what: str) -> Callable[[Any], Any]:
    """A hook for each array and map that is read: an empty one is a single byte on the wire and 64 in memory."""
    left = MAX_COLLECTIONS

    def count(collection: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise MessageTooLarge(f"{what} of more than {MAX_COLLECTIONS} collections")
        return collection

    return count


def words(error: Exception) -> str:
    """What a library says of hostile bytes, which may quote them."""
    return str(error)[:200] or type(error).__name__
