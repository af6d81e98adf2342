"""What the creation of a child service, or an order to one, can come to instead, for its parent to catch; and the codes
on the wire.

Must not know how children are made.
"""

# ruff: noqa: N818 - these are named for what they are

from __future__ import annotations

from enum import Enum
from typing import Final


class ChildErrorCode(Enum):
    """The ``code`` of a ``ChildRequestEnded``."""

    NOT_PERMITTED = "not_permitted"  # permissions.spawn does not allow it, or not one more
    NAME_TAKEN = "name_taken"
    DEFINITION = "definition"  # it cannot be used; the problems are told
    REFUSED = "refused"  # not possible as things are: a cycle, something that another child requires
    UNKNOWN = "unknown"  # no child of that name
    FAILED = "failed"  # it was tried, and did not come to what was asked


class ChildError(Exception):
    """Base of everything below."""

    code = ChildErrorCode.REFUSED


class ChildRefused(ChildError):
    """Nothing was changed: it is not possible as things are (a cycle, a parent that is about to stop)."""


class SpawnNotPermitted(ChildRefused):
    """``permissions.spawn`` of the service does not allow a child, or not one more."""

    code = ChildErrorCode.NOT_PERMITTED


class ChildNameTaken(ChildRefused):
    """There is a service of that name already."""

    code = ChildErrorCode.NAME_TAKEN


class BadChildDefinition(ChildRefused):
    """The definition cannot be used. ``problems``: everything that is wrong with it, each with its key."""

    code = ChildErrorCode.DEFINITION

    def __init__(self, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class UnknownChild(ChildRefused):
    """The child is gone, or never was."""

    code = ChildErrorCode.UNKNOWN


class ChildFailed(ChildError):
    """A child did not come up, or has ended badly; the message says why."""

    code = ChildErrorCode.FAILED


CLASSES: Final[dict[ChildErrorCode, type[ChildError]]] = {
    each.code: each
    for each in (ChildRefused, SpawnNotPermitted, ChildNameTaken, BadChildDefinition, UnknownChild, ChildFailed)
}
assert set(CLASSES) == set(ChildErrorCode)


def error_of(code: str, message: str, problems: tuple[str, ...] = ()) -> ChildError:
    """The error that was told; one of a later version is a ``ChildRefused``."""
    known = {each.value: each for each in ChildErrorCode}
    cls = CLASSES[known.get(code, ChildErrorCode.REFUSED)]
    return BadChildDefinition(message, problems) if cls is BadChildDefinition else cls(message)
