"""The generated tables of docs/configuration.md: ``python -m svcd.supervisor.config.reference FILE`` renews them.

Must not hold prose: that is written in the page itself, around the marks between which the tables stand.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from svcd.supervisor.config.block import Block, Key, key_names, keys_of, leaf_of
from svcd.supervisor.config.leaves import Later, Parsed, Shorthand
from svcd.supervisor.config.schema import shown_default
from svcd.supervisor.config.shape import BLOCKS

_MARKED: Final = re.compile(r"(<!-- keys of (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_LATER: Final = re.compile(r"(<!-- later keys -->\n).*?(<!-- end -->)", re.DOTALL)
_TOP: Final = "the-file"


def renew(page: str) -> str:
    """The page with every table as the model has it now. Raises ``KeyError`` for a mark that names no block."""
    page = _MARKED.sub(lambda found: f"{found[1]}{table(BLOCKS[_place(found[2])])}{found[3]}", page)
    return _LATER.sub(lambda found: f"{found[1]}{later_table()}{found[2]}", page)


def places(page: str) -> list[str]:
    """The blocks that the page has tables for."""
    return [_place(found[2]) for found in _MARKED.finditer(page)]


def table(block: type[Block]) -> str:
    """The keys of one block that can be used now."""
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, name in key_names(block).items():
        field = keys_of(block)[name]
        if not isinstance(leaf_of(field), Later):
            rows.append(f"| `{key}` | {_words(field)} | {_default(field)} | {_cell(field.description)} |")
    return "\n".join(rows) + "\n"


def later_table() -> str:
    """Every key that a later release delivers."""
    rows = ["| key | comes with | accepted now |", "|---|---|---|"]
    for place, block in BLOCKS.items():
        for key, name in key_names(block).items():
            leaf = leaf_of(keys_of(block)[name])
            if isinstance(leaf, Later):
                where = f"{place.removeprefix('services.NAME').lstrip('.')}.{key}".lstrip(".")
                accepted = ", ".join(f"`{json.dumps(each)}`" for each in leaf.accepted)
                rows.append(f"| `{where}` | {leaf.release} | {accepted} |")
    return "\n".join(rows) + "\n"


def _place(word: str) -> str:
    return "" if word == _TOP else word


def _words(field: Key) -> str:
    leaf = leaf_of(field)
    return leaf.words if isinstance(leaf, Parsed | Shorthand) else "mapping"


def _default(field: Key) -> str:
    if field.is_required:
        return "required"
    default: Any = shown_default(field)
    if default is None:
        return ""
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: list[str]) -> int:
    page = Path(arguments[0])
    page.write_text(renew(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
