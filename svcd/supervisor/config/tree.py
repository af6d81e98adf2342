"""The tree that a YAML file becomes: values that know where they were written.

Must not judge what it holds: types and names are checked by ``shape`` and ``resolve``.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from svcd.record import entity
from svcd.supervisor.config.errors import Mark

Plain: TypeAlias = bool | int | float | str | None
Loc: TypeAlias = tuple[int | str, ...]


@entity
class Scalar:
    """``text`` is what was written (after interpolation), ``value`` what it means; ``quoted``: it is text for sure.

    ``block_indent``: of text written as ``|``, whose n-th line is the n-th line below ``mark``, so far to the right.
    ``variables``: the names whose values are in it.
    """

    mark: Mark
    value: Plain
    text: str
    quoted: bool
    block_indent: int | None = None
    variables: tuple[str, ...] = ()


@entity
class Sequence:
    mark: Mark
    items: list[Node]


@entity
class Mapping:
    """``key_marks``: where each key of ``entries`` was written."""

    mark: Mark
    entries: dict[str, Node]
    key_marks: dict[str, Mark]


Node: TypeAlias = Scalar | Sequence | Mapping


def plain(node: Node) -> Any:
    """The bare Python value: dict, list, str, int, float, bool or None."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Mapping):
        return {key: plain(child) for key, child in node.entries.items()}
    return [plain(child) for child in node.items]


def as_texts(node: Node) -> Any:
    """Like ``plain``, but numbers and booleans stay the text that was written: ``022`` and ``1.10`` keep their look."""
    if isinstance(node, Scalar):
        return None if node.value is None else node.text
    if isinstance(node, Mapping):
        return {key: as_texts(child) for key, child in node.entries.items()}
    return [as_texts(child) for child in node.items]


def locate(node: Node, loc: Loc, prefer_key: bool = False) -> Mark:
    """Where the value at ``loc`` was written, or the nearest thing around it; ``prefer_key``: where its key was."""
    mark = node.mark
    for index, step in enumerate(loc):
        last = index == len(loc) - 1
        found = child(node, step)
        if found is None:
            break
        if last and prefer_key and isinstance(node, Mapping):
            return node.key_marks[str(step)]
        node, mark = found, found.mark
    return mark


def find(node: Node, loc: Loc) -> Node | None:
    """The node at ``loc``, or None."""
    found: Node | None = node
    for step in loc:
        found = child(found, step) if found is not None else None
    return found


def child(node: Node, step: int | str) -> Node | None:
    """One step down. A name leads to the item of a list that says it, as in the short ``depends_on: [db]``."""
    if isinstance(node, Mapping):
        return node.entries.get(str(step))
    if isinstance(node, Sequence):
        if isinstance(step, int):
            return node.items[step] if step < len(node.items) else None
        return next((each for each in node.items if isinstance(each, Scalar) and each.text == step), None)
    return None


def kind_of(value: object) -> str:
    """What a value is, in a user's words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f'"{value}"' if value and len(value) <= 40 else ("text" if value else "empty text")
    return "a mapping" if isinstance(value, dict) else "a list"


def dotted(loc: Loc) -> str:
    """``services.web.command[1]``."""
    words = ""
    for step in loc:
        words += f"[{step}]" if isinstance(step, int) else (f".{step}" if words else step)
    return words
