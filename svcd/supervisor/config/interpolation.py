"""``${VAR}`` in values: the variables of svcd's own environment, put in after parsing.

Must not touch keys, and must not read the environment itself: it is handed in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Mapping as Environment
from typing import Final

from svcd.supervisor.config.errors import Findings
from svcd.supervisor.config.reader import resolve
from svcd.supervisor.config.tree import Mapping, Node, Scalar
from svcd.supervisor.config.units import RefusedError

MAX_TEXT: Final = 1024 * 1024
MAX_NESTING: Final = 16

_DOLLAR: Final = re.compile(r"\$(?:\$|\{)")
_HEAD: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(:?[-?+]|\})")


def interpolate(root: Node, environ: Environment[str, str], findings: Findings) -> None:
    """Replace in place, once per scalar however many aliases lead to it.

    ``${VAR}``, ``${VAR:-default}`` (unset or empty), ``${VAR-default}`` (unset), ``${VAR:?message}``,
    ``${VAR:+other}``; ``$$`` is a literal ``$``; any other ``$`` stays. An unquoted scalar gets
    its type after the replacement.
    """
    seen: set[int] = set()
    watched = _Watched(environ)

    def visit(node: Node, path: tuple[str, ...]) -> None:
        if isinstance(node, Scalar):
            if "$" in node.text and isinstance(node.value, str) and id(node) not in seen:
                seen.add(id(node))
                _replace(node, path, watched, findings)
            return
        if id(node) in seen:
            return
        seen.add(id(node))
        children = node.entries.items() if isinstance(node, Mapping) else enumerate(node.items)
        for step, child in children:
            visit(child, (*path, str(step)))

    visit(root, ())


def _replace(node: Scalar, path: tuple[str, ...], environ: _Watched, findings: Findings) -> None:
    environ.used.clear()
    try:
        text = expand(node.text, environ)
    except RefusedError as refused:
        findings.add(node.mark, ".".join(path), refused.text, refused.suggestion)
        return
    node.text = text
    node.value = text if node.quoted else resolve(text)
    node.variables = tuple(environ.used)


class _Watched(Environment[str, str]):
    """An environment that notes which of its variables were asked for; in their order, each once."""

    def __init__(self, environ: Environment[str, str]) -> None:
        self._environ = environ
        self.used: dict[str, None] = {}

    def __getitem__(self, name: str) -> str:
        value = self._environ[name]
        self.used[name] = None
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)


def expand(text: str, environ: Environment[str, str]) -> str:
    """``text`` with its variables replaced. Raises ``RefusedError``."""
    result, end = _expand(text, 0, environ, 0)
    assert end == len(text)
    return result


def _expand(text: str, start: int, environ: Environment[str, str], nesting: int) -> tuple[str, int]:
    """Expand from ``start``; within braces (``nesting`` > 0) up to the closing one, else to the end."""
    parts: list[str] = []
    size = 0
    position = start
    while True:
        found = _DOLLAR.search(text, position)
        limit = found.start() if found else len(text)
        if nesting:
            closing = text.find("}", position, limit)
            if closing >= 0:
                parts.append(text[position:closing])
                return "".join(parts), closing + 1
        piece = text[position:limit]
        parts.append(piece)
        if found is None:
            if nesting:
                raise RefusedError("${ is not closed", "write }, or $${ for a literal ${")
            return "".join(parts), limit
        if found.group() == "$$":
            value, position = "$", found.end()
        else:
            value, position = _variable(text, found.end(), environ, nesting)
        parts.append(value)
        size += len(piece) + len(value)
        if size > MAX_TEXT:
            raise RefusedError(f"becomes longer than {MAX_TEXT // 1024} KiB", "shorten the variables in it")


def _variable(text: str, start: int, environ: Environment[str, str], nesting: int) -> tuple[str, int]:
    """The value of the variable whose name begins at ``start``, and where its closing brace ends."""
    head = _HEAD.match(text, start)
    if head is None:
        shown = text[start - 2 : start + 20].partition("\n")[0].partition("}")[0]
        raise RefusedError(
            f"cannot understand {shown}}}", f"write ${{NAME:-default}}, or ${shown}}} for the shell or Python"
        )
    if nesting >= MAX_NESTING:
        raise RefusedError("too many ${ within each other", "simplify it")
    name, operator = head.groups()
    value = environ.get(name)
    if operator == "}":
        if value is None:
            suggestion = f"set it, or write ${{{name}:-default}}, or $${{{name}}} for a literal ${{{name}}}"
            raise RefusedError(f"the variable {name} is not set", suggestion)
        return value, head.end()
    is_there = bool(value) if operator[0] == ":" else value is not None
    if (operator[-1] == "+") == is_there or (operator[-1] == "?" and not is_there):
        other, end = _expand(text, head.end(), environ, nesting + 1)
        if operator[-1] == "?":
            raise RefusedError(other or f"the variable {name} is not set", f"set {name}")
        return other, end
    end = _skip(text, head.end())
    return ("" if operator[-1] == "+" else value or ""), end


def _skip(text: str, position: int) -> int:
    """The end of a default that is not used: its variables need not be set, its braces must match."""
    depth = 1
    while depth:
        closing = text.find("}", position)
        if closing < 0:
            raise RefusedError("${ is not closed", "write }, or $${ for a literal ${")
        opening = text.find("${", position, closing)
        if opening >= 0:
            escaped = (opening - len(text[:opening].rstrip("$"))) % 2
            depth += 0 if escaped else 1
            position = opening + 2
        else:
            depth -= 1
            position = closing + 1
    return position
