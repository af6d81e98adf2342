"""The merged configuration as one can read it: every value with the place that it comes from.

Must not judge the values: ``load`` does, and a configuration that it refuses can be looked at here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from collections.abc import Mapping as Environment
from collections.abc import Sequence as Listing
from pathlib import Path
from typing import Any, Final

from svcd.record import record
from svcd.supervisor.config.as_written import plain_at
from svcd.supervisor.config.block import Block, Key, block_of, key_names, keys_of, leaf_of
from svcd.supervisor.config.errors import Findings
from svcd.supervisor.config.layers import is_given, with_defaults
from svcd.supervisor.config.load import is_chosen
from svcd.supervisor.config.reader import resolve
from svcd.supervisor.config.schema import shown_default
from svcd.supervisor.config.shape import Cluster, Service
from svcd.supervisor.config.sources import gather
from svcd.supervisor.config.tree import Loc, Mapping, Node, Scalar, Sequence, dotted
from svcd.supervisor.config.wording import block_at

DEFAULT: Final = "default"

_SAFE: Final = re.compile(r"-{0,2}[A-Za-z0-9_./][A-Za-z0-9_./@+-]*(?: [A-Za-z0-9_./@+-]+)*")
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_INDENT: Final = "  "


@record
class Row:
    """One value: a word or number, a list of those, or an empty mapping. ``file``: as it was named, "default", or
    "environment NAME"; ``line`` and ``column`` count from 1, 0 where there are none. ``variables``: names of the
    variables whose values are in it.
    """

    path: Loc
    value: Any
    file: str
    line: int = 0
    column: int = 0
    variables: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return dotted(self.path)

    @property
    def origin(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@record
class MergedView:
    """``files``: those that were read, in the order in which they were merged. ``rows``: in the order of the result."""

    files: tuple[str, ...]
    rows: tuple[Row, ...]

    def as_yaml(self, defaults: bool = False) -> str:
        """A cluster file, each value with its origin as a comment. ``defaults``: with what nobody has written.

        Read again from the same directory it means the same.
        """
        return "".join(_lines(_nested(self._shown(defaults)), 0))

    def as_json(self, defaults: bool = False) -> dict[str, Any]:
        """The merged result and, apart from it, the origin of each value; JSON values."""
        rows = self._shown(defaults)
        return {
            "files": list(self.files),
            "merged": _bare(_nested(rows)),
            "values": [
                {
                    "key": each.key,
                    "path": list(each.path),
                    "value": _finite(each.value),
                    "file": each.file,
                    "line": each.line,
                    "column": each.column,
                    "variables": list(each.variables),
                }
                for each in rows
            ],
        }

    def _shown(self, defaults: bool) -> list[Row]:
        return [each for each in self.rows if defaults or each.file != DEFAULT]


def merged(files: Listing[Path | str], environ: Environment[str, str], *, profiles: Listing[str] = ()) -> MergedView:
    """What ``load`` would go by: includes, layers, variables and defaults put together; chosen services only.

    Raises ``ConfigurationError`` when the files cannot be read or a variable is missing.
    """
    findings = Findings()
    gathered = gather(files, environ, findings)
    findings.raise_if_any(gathered.names)
    root, defaults = gathered.root, gathered.root.entries.get("defaults")
    rows = list(_rows(Cluster, Mapping(root.mark, _without(root, "services", "defaults"), root.key_marks), ()))
    services = root.entries.get("services")
    if not isinstance(services, Mapping):
        return MergedView(tuple(gathered.names), tuple(rows))
    for name, node in services.entries.items():
        whole = _whole(defaults, node)
        if not isinstance(whole, Mapping):
            rows += _written_rows(whole, ("services", name))
        elif is_chosen(whole, profiles):
            rows += _rows(Service, whole, ("services", name))
    return MergedView(tuple(gathered.names), tuple(rows))


def _without(mapping: Mapping, *keys: str) -> dict[str, Node]:
    return {key: node for key, node in mapping.entries.items() if key not in keys}


def _whole(defaults: Node | None, node: Node) -> Node:
    """The service over the defaults; the ``env_file`` of both are read, so both are shown."""
    if not isinstance(defaults, Mapping) or not isinstance(node, Mapping):
        return node
    whole = with_defaults(defaults, node)
    below, own = (_items(each.entries.get("env_file")) for each in (defaults, node))
    if below and own:
        whole.entries["env_file"] = Sequence(own[0].mark, [*below, *own])
    return whole


def _items(node: Node | None) -> list[Node]:
    if isinstance(node, Sequence):
        return node.items
    return [node] if isinstance(node, Scalar) and node.value is not None else []


# ---- rows ----------------------------------------------------------------------------------------------------------


def _rows(block: type[Block], node: Mapping, path: Loc) -> Iterator[Row]:
    """What is written in a block, then what is not and has a default, block by block."""
    for key, child in node.entries.items():
        if is_given(node, key):
            yield from _written_rows(child, (*path, key))
    for key, name in key_names(block).items():
        if not is_given(node, key) and not (block is Cluster and key in ("services", "defaults", "include")):
            yield from _default_rows(keys_of(block)[name], (*path, key))


def _written_rows(node: Node, path: Loc) -> Iterator[Row]:
    within = path[2:] if path[:1] == ("services",) else ()
    if isinstance(node, Mapping) and node.entries:
        block = block_at(Service, within) if within not in ((), ("depends_on",)) else Service
        if block is not Service:
            yield from _rows(block, node, path)
            return
        for key, child in node.entries.items():
            yield from _written_rows(child, (*path, key))
    elif isinstance(node, Sequence) and any(isinstance(each, Mapping) for each in node.items):
        for index, child in enumerate(node.items):
            yield from _written_rows(child, (*path, index))
    else:
        mark = node.mark
        yield Row(path, plain_at(node, within), mark.file, mark.line, mark.column, _variables(node))


def _default_rows(field: Key, path: Loc) -> Iterator[Row]:
    default = None if field.is_required else field.default
    block = block_of(field)
    if isinstance(default, Block):
        for key, name in key_names(type(default)).items():
            yield from _default_rows(keys_of(type(default))[name], (*path, key))
    elif block is None and leaf_of(field) is not None and shown_default(field) is not None:
        yield Row(path, shown_default(field), DEFAULT)


def _variables(node: Node) -> tuple[str, ...]:
    if isinstance(node, Scalar):
        return node.variables
    children = node.entries.values() if isinstance(node, Mapping) else node.items
    return tuple(dict.fromkeys(name for each in children for name in _variables(each)))


# ---- showing -------------------------------------------------------------------------------------------------------


def _nested(rows: Listing[Row]) -> dict[int | str, Any]:
    """The rows as mappings in mappings; a list of mappings has numbers for keys."""
    root: dict[int | str, Any] = {}
    for row in rows:
        here = root
        for step in row.path[:-1]:
            here = here.setdefault(step, {})
        here[row.path[-1]] = row
    return root


def _bare(nested: dict[int | str, Any]) -> Any:
    values = {key: _bare(each) if isinstance(each, dict) else _finite(each.value) for key, each in nested.items()}
    return list(values.values()) if _is_list(nested) else values


def _finite(value: Any) -> Any:
    """JSON has no word for the other numbers, nor has svcd any use for them: shown as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _is_list(nested: dict[int | str, Any]) -> bool:
    return bool(nested) and all(isinstance(key, int) for key in nested)


def _lines(nested: dict[int | str, Any], depth: int) -> Iterator[str]:
    indent = _INDENT * depth
    for key, each in nested.items():
        name = f"{scalar(str(key), in_value=False)}:"
        if isinstance(each, Row):
            yield f"{indent}{name} {_commented(each, depth)}"
        elif _is_list(each):
            yield f"{indent}{name}\n"
            for item in each.values():
                first, *others = _lines(item, depth + 2) if isinstance(item, dict) else [_commented(item, depth + 1)]
                yield f"{indent}{_INDENT}- {first.lstrip(' ')}"
                yield from others
        else:
            yield f"{indent}{name}\n"
            yield from _lines(each, depth + 1)


def _commented(row: Row, depth: int) -> str:
    variables = "".join(f", ${{{name}}}" for name in row.variables)
    comment = f"  # {row.origin}{variables}\n"
    if isinstance(row.value, str) and _is_block(row.value):
        chomping = "" if row.value.endswith("\n") else "-"
        body = "".join(
            f"{_INDENT * (depth + 1)}{line}\n" if line else "\n" for line in _escaped(row.value).splitlines()
        )
        return f"|{chomping}{comment}{body}"
    return f"{_value(row.value)}{comment}"


def _is_block(text: str) -> bool:
    """Whether it can be written as lines of its own, as code is."""
    lines = text.split("\n")
    return len(lines) > 2 and lines[-2:] != ["", ""] and text[0] not in " \n" and all(map(str.isprintable, lines))


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(key, in_value=False)}: {_value(each)}" for key, each in value.items()) + "}"
    return scalar(value)


def scalar(value: Any, in_value: bool = True) -> str:
    """As YAML that means the same when it is read. ``in_value``: where variables are looked for."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value).replace("inf", ".inf").replace("nan", ".nan")
    if not isinstance(value, str):
        return json.dumps(value)
    text = _escaped(value) if in_value else value
    if _SAFE.fullmatch(text) and isinstance(resolve(text), str):
        return text
    return '"' + "".join(map(_character, text)) + '"'


def _character(character: str) -> str:
    """Within double quotes."""
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _escaped(text: str) -> str:
    """What ``${`` and ``$$`` must be written as to stay what they are."""
    return text.replace("$", "$$") if "${" in text or "$$" in text else text
