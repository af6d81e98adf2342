"""{instance} and {port} in the values of a service: what each of its instances gets instead.

Must not touch keys, nor other words in braces, nor choose a port.
"""

from __future__ import annotations

from typing import Final

from svcd.record import replace
from svcd.supervisor.config.reader import resolve
from svcd.supervisor.config.tree import Mapping, Node, Scalar, Sequence

INSTANCE: Final = "{instance}"
PORT: Final = "{port}"
KEYS: Final = ("command", "env", "sockets", "ready", "health", "hooks")


def mentions(service: Mapping, word: str) -> bool:
    """Whether one of the values that are replaced holds ``word``."""
    return any(_holds(service.entries[key], word) for key in KEYS if key in service.entries)


def _holds(node: Node, word: str) -> bool:
    if isinstance(node, Scalar):
        return word in node.text
    children = node.entries.values() if isinstance(node, Mapping) else node.items
    return any(_holds(each, word) for each in children)


def substituted(service: Mapping, instance: int, port: int | None) -> Mapping:
    """The service with the words replaced; the same object when none is there. ``port`` None: {port} stays."""
    words = {INSTANCE: str(instance)} if port is None else {INSTANCE: str(instance), PORT: str(port)}
    entries = {key: _replaced(node, words) if key in KEYS else node for key, node in service.entries.items()}
    return _same_or_new(service, entries)


def _replaced(node: Node, words: dict[str, str]) -> Node:
    if isinstance(node, Scalar):
        return _replaced_scalar(node, words)
    if isinstance(node, Mapping):
        return _same_or_new(node, {key: _replaced(child, words) for key, child in node.entries.items()})
    items = [_replaced(child, words) for child in node.items]
    return node if all(map(_is, items, node.items)) else Sequence(node.mark, items)


def _replaced_scalar(node: Scalar, words: dict[str, str]) -> Scalar:
    text = node.text
    if "{" not in text or not isinstance(node.value, str):
        return node
    for word, instead in words.items():
        text = text.replace(word, instead)
    if text == node.text:
        return node
    return replace(node, text=text, value=text if node.quoted else resolve(text))


def _same_or_new(mapping: Mapping, entries: dict[str, Node]) -> Mapping:
    unchanged = all(map(_is, entries.values(), mapping.entries.values()))
    return mapping if unchanged else Mapping(mapping.mark, entries, mapping.key_marks)


def _is(one: object, other: object) -> bool:
    return one is other
