"""From the bytes of a YAML file to a tree: the core schema of YAML 1.2, strict, bounded.

Must not know what the keys mean, and must not raise for anything that a file may hold: it records findings.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Any, Final

import yaml

from svcd.supervisor.config.errors import Findings, Mark
from svcd.supervisor.config.tree import Mapping, Node, Plain, Scalar, Sequence

try:
    from yaml.cyaml import CParser as _Parser  # type: ignore[attr-defined]  # the stubs leave it out
except ImportError:  # PyYAML without libyaml: slower, the same events

    class _Parser(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser):  # type: ignore[no-redef]  # stand-in
        def __init__(self, stream: str) -> None:
            yaml.reader.Reader.__init__(self, stream)
            yaml.scanner.Scanner.__init__(self)
            yaml.parser.Parser.__init__(self)


MAX_FILE_BYTES: Final = 4 * 1024 * 1024
MAX_DEPTH: Final = 32
MAX_VALUES: Final = 200_000  # with every alias written out

_TAG: Final = "tag:yaml.org,2002:"
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_TAGGED: Final[dict[str, tuple[type, ...]]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
}
_MAX_DIGITS: Final = 300  # beyond this a number is taken for text: int() of a long one costs quadratic time


def read(path: str, findings: Findings, *, mark: Mark | None = None, key: str = "") -> Mapping | None:
    """The top-level mapping of the file, or None with findings. ``mark`` and ``key``: where it was named, if it was."""
    name = path
    data = read_bytes(path, name, MAX_FILE_BYTES, mark or Mark(name), key, findings)
    if data is None:
        return None
    text = decode(data, name, findings)
    if text is None:
        return None
    root = compose(name, text, findings)
    if root is None or isinstance(root, Mapping):
        return root
    if isinstance(root, Scalar) and root.value is None:
        findings.add(Mark(name, 1, 1), "", "the file is empty", "write at least one service below services:")
    else:
        findings.add(root.mark, "", "the file must be a mapping", "begin with a key, such as services:")
    return None


def compose(name: str, text: str, findings: Findings) -> Node | None:
    """The tree of any YAML, or None with findings."""
    return _Composer(name, text, findings).compose()


def read_bytes(path: str, shown: str, limit: int, mark: Mark, key: str, findings: Findings) -> bytes | None:
    """The content of a regular file (or a pipe) of at most ``limit`` bytes; None with a finding at ``mark``."""
    try:
        with open(path, "rb") as file:
            if stat.S_ISCHR(os.fstat(file.fileno()).st_mode):
                raise OSError(0, "it is a device")
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = str(error.strerror or error) if isinstance(error, OSError) else "the path is not valid"
        mends: dict[type[Exception], str] = {
            FileNotFoundError: "check the path",
            IsADirectoryError: "name the file, not its directory",
            PermissionError: "allow its reading",
        }
        mend = mends.get(type(error), "name a readable file")
        findings.add(mark, key, f"cannot read {shown}: {reason[:1].lower()}{reason[1:]}", mend)
        return None
    if len(data) > limit:
        findings.add(mark, key, f"cannot read {shown}: larger than {limit // 1024} KiB", "split or shorten it")
        return None
    return data


def decode(data: bytes, name: str, findings: Findings) -> str | None:
    """UTF-8, with or without a byte order mark."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        byte = data[error.start]
        text = f"the file is not UTF-8: byte 0x{byte:02x} at offset {error.start}"
        findings.add(Mark(name, line, column), "", text, "save it as UTF-8")
        return None


def resolve(text: str) -> Plain:
    """What an unquoted scalar means in the core schema: only true and false are booleans, 022 is twenty-two."""
    first = text[:1]
    if first.isalpha() or first in ("", "~"):
        return None if text in _NULL else _BOOL.get(text, text)
    if len(text) > _MAX_DIGITS:
        return text
    if _INT.fullmatch(text):
        return int(text, 0 if text[:2] in ("0o", "0x") else 10)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", "").lower())
    return text


class _UnreadableError(Exception):
    """The rest of the file cannot be understood; the finding is recorded."""


class _Frame:
    """A collection under construction. ``weight``: values in it, aliases written out; ``height``: levels below it."""

    __slots__ = ("anchor", "height", "key", "merges", "node", "weight")

    def __init__(self, node: Mapping | Sequence, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: tuple[str, Mark] | None = None
        self.merges: list[Mapping] = []
        self.weight = 1
        self.height = 1


class _Composer:
    """Builds the tree from parser events, with a stack of its own: depth costs no recursion."""

    def __init__(self, name: str, text: str, findings: Findings) -> None:
        self._name = name
        self._text = text
        self._findings = findings
        self._lines: list[str] = []
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[Node, int, int] | None] = {}  # None: still open
        self._root: Node | None = None
        self._documents = 0

    def compose(self) -> Node | None:
        try:
            parser: Any = _Parser(self._text)
            while parser.check_event():
                event = parser.get_event()
                _HANDLERS[type(event)](self, event)
        except yaml.reader.ReaderError as error:
            self._refuse_character(error)
            return None
        except yaml.MarkedYAMLError as error:
            self._refuse_syntax(error)
            return None
        except _UnreadableError:
            return None
        if self._root is None:
            self._root = Scalar(Mark(self._name, 1, 1), None, "", False)
        return self._root

    # -- events ----------------------------------------------------------------------------------------------------

    def _ignore(self, event: Any) -> None:
        pass

    def _document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            self._stop(self._mark(event), "the file holds a second document", "remove the --- line, or use two files")

    def _scalar(self, event: Any) -> None:
        text: str = event.value
        plain_implicit, quoted_implicit = event.implicit
        mark = self._mark(event)
        quoted = not plain_implicit
        value: Plain = text if quoted else resolve(text)
        if quoted and not quoted_implicit:
            value, quoted = self._tagged(event.tag, text, mark)
        node = Scalar(mark, value, text, quoted, self._indent(text, mark) if event.style == "|" else None)
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, 1, 0)
        self._place(node, 1, 0)

    def _open(self, event: Any) -> None:
        mark = self._mark(event)
        is_map = type(event) is yaml.MappingStartEvent
        if not event.implicit and event.tag not in (_TAG + ("map" if is_map else "seq"), "!"):
            self._refuse_tag(event.tag, mark)
        if len(self._stack) >= MAX_DEPTH:
            self._stop(mark, f"nested deeper than {MAX_DEPTH} levels", "make it flatter")
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._stack.append(_Frame(Mapping(mark, {}, {}) if is_map else Sequence(mark, []), event.anchor))

    def _close(self, event: Any) -> None:
        frame = self._stack.pop()
        if frame.merges and isinstance(frame.node, Mapping):
            _merge_in(frame.node, frame.merges)
        if frame.anchor is not None:
            self._anchors[frame.anchor] = (frame.node, frame.weight, frame.height)
        self._place(frame.node, frame.weight, frame.height)

    def _alias(self, event: Any) -> None:
        mark = self._mark(event)
        if event.anchor not in self._anchors:
            self._stop(mark, f"*{event.anchor} refers to nothing", f"write &{event.anchor} before it, or quote the *")
        found = self._anchors[event.anchor]
        if found is None:
            self._stop(mark, f"*{event.anchor} is inside what it refers to", "remove the circle")
        else:
            self._place(*found)

    # -- placing ---------------------------------------------------------------------------------------------------

    def _place(self, node: Node, weight: int, height: int) -> None:
        if not self._stack:
            self._root = node
            return
        frame = self._stack[-1]
        frame.weight += weight
        if height >= frame.height:
            frame.height = height + 1
        if frame.weight > MAX_VALUES:
            self._stop(node.mark, f"more than {MAX_VALUES} values", "use fewer aliases, or split the file")
        if len(self._stack) + height > MAX_DEPTH:
            self._stop(node.mark, f"nested deeper than {MAX_DEPTH} levels", "make it flatter")
        if isinstance(frame.node, Sequence):
            frame.node.items.append(node)
        elif frame.key is None:
            frame.key = self._key(node)
        else:
            (key, mark), frame.key = frame.key, None
            self._put(frame, frame.node, key, mark, node)

    def _key(self, node: Node) -> tuple[str, Mark]:
        if not isinstance(node, Scalar):
            self._stop(node.mark, "a list or mapping cannot be a key", "quote it, if text is meant")
        assert isinstance(node, Scalar)
        return ("\0<<" if node.text == "<<" and not node.quoted else node.text), node.mark

    def _put(self, frame: _Frame, mapping: Mapping, key: str, mark: Mark, node: Node) -> None:
        if key == "\0<<":
            items = node.items if isinstance(node, Sequence) else [node]
            bases = [each for each in items if isinstance(each, Mapping)]
            if len(bases) != len(items):
                self._findings.add(node.mark, self._path("<<"), "<< takes a mapping or a list of them", "use *alias")
            frame.merges.extend(bases)
        elif key in mapping.entries:
            first = mapping.key_marks[key].line
            text = f"written twice, first on line {first}"
            self._findings.add(mark, self._path(key), text, "remove one of the two")
        else:
            mapping.entries[key] = node
            mapping.key_marks[key] = mark

    def _path(self, last: str) -> str:
        steps: list[str] = []
        for frame in self._stack[:-1]:
            steps.append(frame.key[0] if frame.key else str(len(getattr(frame.node, "items", ()))))
        return ".".join([*steps, last])

    def _indent(self, text: str, mark: Mark) -> int | None:
        """How far the lines of a block are indented in the file, beyond what belongs to the text."""
        content = text.lstrip("\n")
        if not self._lines:
            self._lines = self._text.split("\n")
        line = mark.line + len(text) - len(content)  # lines count from 1, and the text begins on the next
        if not content or line >= len(self._lines):
            return None
        written = self._lines[line]
        return len(written) - len(written.lstrip(" ")) - (len(content) - len(content.lstrip(" ")))

    def _mark(self, event: Any) -> Mark:
        start = event.start_mark
        return Mark(self._name, start.line + 1, start.column + 1)

    # -- refusals --------------------------------------------------------------------------------------------------

    def _tagged(self, tag: str, text: str, mark: Mark) -> tuple[Plain, bool]:
        """The value of a scalar with an explicit tag, and whether it is text for sure."""
        if tag in (_TAG + "str", "!"):
            return text, True
        wanted = _TAGGED.get(tag.removeprefix(_TAG))
        value = resolve(text)
        if wanted is None:
            self._refuse_tag(tag, mark)
        elif not isinstance(value, wanted) or (tag != _TAG + "bool" and isinstance(value, bool)):
            self._stop(mark, f'"{text[:40]}" is no !!{tag.removeprefix(_TAG)}', "remove the tag")
        return value, False

    def _refuse_tag(self, tag: str, mark: Mark) -> None:
        shown = "!!" + tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag
        self._stop(mark, f"the tag {shown[:40]} means nothing here", "remove it, or quote the text")

    def _stop(self, mark: Mark, text: str, suggestion: str) -> None:
        self._findings.add(mark, "", text, suggestion)
        raise _UnreadableError

    def _refuse_character(self, error: Any) -> None:
        before = self._text[: error.position]
        column = len(before) - (before.rfind("\n") + 1) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        text = f"the character U+{code:04X} is not allowed in YAML"
        self._findings.add(Mark(self._name, before.count("\n") + 1, column), "", text, "remove it")

    def _refuse_syntax(self, error: yaml.MarkedYAMLError) -> None:
        mark: Any = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark is not None else (0, 0)
        lines = self._text.split("\n")
        content = lines[line] if line < len(lines) else ""
        text, suggestion = _wording(error.problem or "", content, column)
        self._findings.add(Mark(self._name, line + 1, column + 1), "", text, suggestion)


_HANDLERS: Final = {
    yaml.StreamStartEvent: _Composer._ignore,
    yaml.StreamEndEvent: _Composer._ignore,
    yaml.DocumentStartEvent: _Composer._document,
    yaml.DocumentEndEvent: _Composer._ignore,
    yaml.ScalarEvent: _Composer._scalar,
    yaml.AliasEvent: _Composer._alias,
    yaml.SequenceStartEvent: _Composer._open,
    yaml.MappingStartEvent: _Composer._open,
    yaml.SequenceEndEvent: _Composer._close,
    yaml.MappingEndEvent: _Composer._close,
}


def _merge_in(mapping: Mapping, bases: list[Mapping]) -> None:
    """``<<``: what the mapping says itself wins, then the earlier of the bases."""
    for base in bases:
        for key, node in base.entries.items():
            if key not in mapping.entries:
                mapping.entries[key] = node
                mapping.key_marks[key] = base.key_marks[key]


def _wording(problem: str, content: str, column: int) -> tuple[str, str]:
    """What a syntax error means to someone who does not know the grammar."""
    if "\t" in content[: column + 1]:
        return "a tab cannot indent YAML", "use spaces"
    if "cannot start any token" in problem:
        character = content[column : column + 1]
        return f"a value cannot begin with {character}", "put it in quotes"
    if "mapping values are not allowed" in problem:
        return "a colon where no key can be", "put a value with ': ' in it in quotes, or check the indentation"
    if "${" in content and "expected ',' or" in problem:
        return "${…} within [ ] or { } must be quoted", 'write "${…}" in double quotes'
    if "expected ',' or" in problem:
        return f"the list or mapping is not closed: {problem.replace('did not find expected', 'missing')}", "close it"
    if "end of stream" in problem:
        return "a quoted text is not closed", "close the quote"
    if "expected key" in problem or "block end" in problem or "expected '-'" in problem:
        return "the indentation does not fit the lines above", "line up the keys of one mapping"
    if "node content" in problem:
        return "a value is missing, or a bracket is not closed", "complete it"
    return f"cannot understand the YAML: {problem or 'syntax error'}", "check the quotes and the indentation"
