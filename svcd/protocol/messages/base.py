"""What every message is, and the version of them all."""

from __future__ import annotations

from typing import ClassVar, Final

from svcd.record import record

VERSION: Final = 1


@record
class Message:
    """Base of all messages. ``direction`` is for the reference page: who says it to whom."""

    direction: ClassVar[str] = ""
