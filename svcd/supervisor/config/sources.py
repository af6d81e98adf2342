"""Which files a configuration is made of, in which order, and the one tree that they become.

Must not judge what the keys of the tree mean, except ``include``, which it takes out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping as Environment
from collections.abc import Sequence as Listing
from pathlib import Path
from typing import Final

from svcd.record import entity, field
from svcd.supervisor.config.errors import Findings, Mark
from svcd.supervisor.config.interpolation import interpolate
from svcd.supervisor.config.layers import overlay
from svcd.supervisor.config.leaves import list_of, parse_path
from svcd.supervisor.config.reader import read, resolve
from svcd.supervisor.config.tree import Mapping, Scalar, Sequence, plain
from svcd.supervisor.config.units import RefusedError
from svcd.supervisor.config.wording import add_refusal

MAX_FILES: Final = 200
VARIABLES: Final = {"SVCD_MAX_PARALLEL": "max_parallel", "SVCD_CONTROLLER_TIMEOUT": "controller_timeout"}
"""Variables of svcd's own environment that stand above every file."""

_parse_include = list_of(parse_path, "[base.yaml]", single=True)


@entity
class Gathered:
    """``root``: all files as one. ``names``: the files as messages call them, in the order in which they are merged;
    ``directories``: of these, absolute.
    """

    root: Mapping
    names: list[str] = field(default_factory=list)
    directories: dict[str, str] = field(default_factory=dict)


def gather(files: Listing[Path | str], environ: Environment[str, str], findings: Findings) -> Gathered:
    """Read ``files`` and what they include, the later laid over the earlier.

    What is wrong within them is recorded; ``ConfigurationError`` is raised when one of them cannot be read at all.
    """
    if not files:
        raise ValueError("a configuration needs at least one file")
    reading = _Reading(environ, findings)
    for each in files:
        reading.take(os.fspath(each))
    if reading.is_broken:
        findings.raise_if_any(reading.names)
    root = reading.trees[0]
    for upper in reading.trees[1:]:
        root = overlay(root, upper)
    _put_variables(root, environ)
    return Gathered(root, reading.names, reading.directories)


class _Reading:
    """Each file is read and merged once, where it is met first. ``is_broken``: there is no tree of one of them."""

    def __init__(self, environ: Environment[str, str], findings: Findings) -> None:
        self.findings = findings
        self.is_broken = False
        self.names: list[str] = []
        self.trees: list[Mapping] = []
        self.directories: dict[str, str] = {}
        self._environ = environ
        self._done: set[str] = set()
        self._open: list[tuple[str, str]] = []  # identity and name of the files that include one another now

    def take(self, name: str, mark: Mark | None = None) -> None:
        """Read ``name``, what it includes first. ``mark``: where it was included."""
        try:
            directory = os.path.dirname(os.path.abspath(name))  # symbolic links stay: .. means what the user sees
        except OSError as error:
            text = f"cannot use the current directory: {error.strerror}"
            self.findings.add(mark or Mark(name), "", text, "change to a directory that exists")
            self.is_broken = True
            return
        identity = _identity(name)
        circle = next((index for index, (each, _) in enumerate(self._open) if each == identity), None)
        if mark is not None and circle is not None:
            path = " → ".join([*(each for _, each in self._open[circle:]), name])
            self.findings.add(mark, "include", f"files include each other in a circle: {path}", "remove one of these")
        elif identity not in self._done:
            self._done.add(identity)
            if len(self._done) > MAX_FILES:
                self.findings.add(mark or Mark(name), "", f"more than {MAX_FILES} files", "use fewer")
                self.is_broken = True
                return
            self.directories[name] = directory
            self._open.append((identity, name))
            self._read(name, mark)
            self._open.pop()

    def _read(self, name: str, mark: Mark | None) -> None:
        tree = read(name, self.findings, mark=mark, key="include" if mark else "")
        if tree is None:
            self.names.append(name)
            self.is_broken = True
            return
        interpolate(tree, self._environ, self.findings)
        self._include(name, tree)
        self.names.append(name)
        self.trees.append(tree)

    def _include(self, name: str, tree: Mapping) -> None:
        node = tree.entries.pop("include", None)
        if node is None or (isinstance(node, Scalar) and node.value is None):
            return
        try:
            included = _parse_include(plain(node))
        except RefusedError as refused:
            for each in (refused, *refused.others):
                add_refusal(each, Mapping(tree.mark, {"include": node}, {}), ("include",), (), self.findings)
            return
        marks = [each.mark for each in node.items] if isinstance(node, Sequence) else [node.mark]
        for path, mark in zip(included, marks, strict=True):
            if self.findings.has(mark):  # a variable in it could not be replaced: which file is meant is not known
                self.is_broken = True
                continue
            self.take(os.path.normpath(os.path.join(os.path.dirname(name), path)), mark)


def _identity(name: str) -> str:
    try:
        return os.path.realpath(name)
    except (OSError, ValueError):
        return name


def _put_variables(root: Mapping, environ: Environment[str, str]) -> None:
    for variable, key in VARIABLES.items():
        text = environ.get(variable)
        if text:
            mark = Mark(f"environment {variable}")
            root.entries[key] = Scalar(mark, resolve(text), text, False)
            root.key_marks[key] = mark
