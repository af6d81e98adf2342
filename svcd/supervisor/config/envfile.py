"""Files with NAME=value lines, as ``env_file`` names them.

Must not expand variables: what stands in the file is the value.
"""

from __future__ import annotations

import re
from typing import Final

from svcd.supervisor.config.errors import Findings, Mark

MAX_FILE_BYTES: Final = 1024 * 1024
MARKED: Final = "SVCD_"  # a line number takes a look at all that stands before

_ASSIGNMENT: Final = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*")
_BLANK: Final = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_SINGLE: Final = re.compile(r"'([^']*)'")
_DOUBLE: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "\n": ""}
_COMMENT: Final = re.compile(r"(?:^|[ \t]+)#.*")


def parse(text: str, name: str, findings: Findings, marks: dict[str, Mark] | None = None) -> dict[str, str]:
    """The variables, later lines winning. Bad lines are findings with their place. ``marks``: gets those of
    variables for svcd.

    ``export NAME=value`` is the same as ``NAME=value``. Quoted values may hold line ends; within double quotes
    ``\\n``, ``\\t``, ``\\r`` and a backslash before any other character are understood. An unquoted value ends at
    `` #`` or at the end of its line, without the blanks around it.
    """
    text = text.replace("\r\n", "\n")
    variables: dict[str, str] = {}
    position = 0
    while position < len(text):
        if blank := _BLANK.match(text, position):
            position = blank.end()
            continue
        end = _line_end(text, position)
        assignment = _ASSIGNMENT.match(text, position, end)
        if assignment is None:
            line = text[position:end].strip()
            findings.add(_mark(text, position, name), "", f'"{line[:40]}" is not NAME=value', "write NAME=value")
            position = end + 1
            continue
        value, after, wrong = _value(text, assignment.end(), end)
        if wrong:
            findings.add(_mark(text, assignment.end(), name), assignment[1], wrong[0], wrong[1])
        else:
            variables[assignment[1]] = value
            if marks is not None and assignment[1].startswith(MARKED):
                marks[assignment[1]] = _mark(text, position, name)
        position = after
    return variables


def _value(text: str, start: int, end: int) -> tuple[str, int, tuple[str, str] | None]:
    """The value that begins at ``start``, where the next line begins, and what is wrong with it."""
    quote = text[start : start + 1]
    if quote not in ("'", '"'):
        value = _COMMENT.sub("", text[start:end]).strip(" \t")
        return value, end + 1, _nul(value)
    quoted = (_SINGLE if quote == "'" else _DOUBLE).match(text, start)
    if quoted is None:
        return "", end + 1, ("the quote is not closed", f"end the value with {quote}")
    value = quoted[1]
    if quote == '"':
        value = _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[1]), value)
    rest = _BLANK.match(text, quoted.end())
    if rest is None:
        following = _line_end(text, quoted.end())
        return "", following + 1, ("something follows the closing quote", "quote the whole value, or nothing of it")
    return value, rest.end(), _nul(value)


def _nul(value: str) -> tuple[str, str] | None:
    return ("holds a NUL character", "remove it") if "\0" in value else None


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _mark(text: str, position: int, name: str) -> Mark:
    while text[position : position + 1] in (" ", "\t"):
        position += 1
    line_start = text.rfind("\n", 0, position) + 1
    return Mark(name, text.count("\n", 0, position) + 1, position - line_start + 1)
