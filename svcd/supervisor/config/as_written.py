"""Bare values of a service as its keys mean them: where text is meant, numbers stay as they were written.

Must not check them.
"""

from __future__ import annotations

from typing import Any, Final

from svcd.supervisor.config.tree import Loc, Mapping, Node, Scalar, Sequence, as_texts, plain

_TEXTS: Final = ("env", "tags")
_WITH_COMMANDS: Final = ("ready", "health", "hooks")


def plain_service(node: Mapping) -> dict[str, Any]:
    """All of it."""
    return {key: plain_at(child, (key,)) for key, child in node.entries.items()}


def plain_at(node: Node, within: Loc) -> Any:
    """The value at the place ``within`` a service."""
    if within[:1] and within[0] in _TEXTS:
        return as_texts(node)
    if isinstance(node, Mapping) and within[:1] and within[0] in _WITH_COMMANDS:
        return {key: plain_at(child, (*within, key)) for key, child in node.entries.items()}
    if isinstance(node, Sequence) and within == ("depends_on",):
        return as_texts(node)
    if isinstance(node, Sequence) and _is_command(within):
        return [_argument(each) for each in node.items]
    return plain(node)


def _is_command(within: Loc) -> bool:
    if within[:1] == ("hooks",):
        return len(within) == 2 or within[2:] == ("command",)
    return within in (("command",), ("ready", "exec"), ("health", "exec"))


def _argument(node: Node) -> Any:
    """One of a command's arguments: ``~`` and ``null`` are words here, nothing at all is none."""
    if isinstance(node, Scalar):
        return node.text if node.text or node.quoted else None
    return plain(node)
