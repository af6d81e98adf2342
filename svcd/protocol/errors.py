"""What can be wrong with a message, and the codes by which a refused request says why.

Must not know how messages are encoded.
"""

# ruff: noqa: N818 - these are named for what they are, as the protocol reference names them

from __future__ import annotations

from enum import Enum


class ErrorCode(Enum):
    """The ``code`` of a ``RequestRefused``."""

    UNKNOWN_SERVICE = "unknown_service"  # a name that is not in the cluster
    SHUTTING_DOWN = "shutting_down"  # the cluster ends: nothing new is started
    MALFORMED = "malformed"  # the message could not be understood
    UNKNOWN_MESSAGE = "unknown_message"  # well formed, but of a type that is not known or not meant for the receiver
    VERSION_MISMATCH = "version_mismatch"  # another version of the protocol
    TOO_LARGE = "too_large"
    NOT_PERMITTED = "not_permitted"  # the asking user may not do this
    REFUSED = "refused"  # understood and permitted, but not possible as things are; the text says why
    INTERNAL = "internal"  # svcd's own fault


class ProtocolError(Exception):
    """A message that cannot be sent or understood. ``code`` is what its sender is told."""

    code = ErrorCode.MALFORMED


class MalformedMessage(ProtocolError):
    """Not MessagePack, not of the agreed shape, or with a field of the wrong type."""


class UnknownMessage(ProtocolError):
    """A tag that names no message."""

    code = ErrorCode.UNKNOWN_MESSAGE


class VersionMismatch(ProtocolError):
    """The peer speaks another version of the protocol."""

    code = ErrorCode.VERSION_MISMATCH


class MessageTooLarge(ProtocolError):
    """More bytes, or more collections, than ``limits`` allows."""

    code = ErrorCode.TOO_LARGE
