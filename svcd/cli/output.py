"""What services printed, as people or programs want it: bytes alone, lines with a name before them, or JSON.

Must not read files or know where the bytes come from.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final

import click

from svcd.cli import columns

NAME_COLOURS: Final = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow", "bright_green")
STDERR_COLOUR: Final = "red"
MAX_PREFIX: Final = 24
MAX_LINE_BYTES: Final = 64 * 1024  # a longer one is shown in pieces: what has no end must not fill the memory
RESET: Final = "\x1b[0m"

Stream = tuple[str, str]  # service, "stdout" or "stderr"


class Form(Enum):
    """How output is shown."""

    BYTES = "bytes"  # as they are
    LINES = "lines"  # harmless lines, for one service in a terminal
    NAMED = "named"  # lines, each with the service's name before it
    JSON = "json"  # one JSON object per line


class Output:
    """Turns pieces of streams into what ``write`` gets. Lines that have no end yet are held until they have."""

    def __init__(self, write: Callable[[bytes], None], form: Form, names: Iterable[str]) -> None:
        self._write = write
        self._form = form
        self._terminal = columns.is_terminal()
        self._colourful = columns.is_colourful()
        self._held: dict[Stream, bytes] = {}
        names = list(names)
        self._width = min(MAX_PREFIX, max(map(len, names), default=0))
        self._colours = {name: NAME_COLOURS[number % len(NAME_COLOURS)] for number, name in enumerate(names)}
        self._prefixes: dict[Stream, bytes] = {}

    def meet(self, name: str) -> None:
        """One more that has something to say, from now on."""
        self._colours.setdefault(name, NAME_COLOURS[len(self._colours) % len(NAME_COLOURS)])
        self._prefixes.clear()

    def put(self, name: str, stream: str, data: bytes) -> None:
        """A piece of a stream, of any length."""
        if name not in self._colours:
            self._join(name)
        if self._form is Form.BYTES:
            self._write(data)
            return
        key = name, stream
        *lines, rest = (self._held.pop(key, b"") + data).split(b"\n")
        while len(rest) >= MAX_LINE_BYTES:
            lines.append(rest[:MAX_LINE_BYTES])
            rest = rest[MAX_LINE_BYTES:]
        if rest:
            self._held[key] = rest
        if lines:
            self._write(b"".join([self._line(key, line) for line in lines]))

    def _join(self, name: str) -> None:
        """One who has come later: from here on it has to be said who speaks."""
        self._colours[name] = NAME_COLOURS[len(self._colours) % len(NAME_COLOURS)]
        self._width = min(MAX_PREFIX, max(self._width, len(name)))
        self._prefixes.clear()
        if self._form is not Form.JSON:
            self._form = Form.NAMED

    def end(self, name: str, stream: str) -> None:
        """Nothing follows for now: a line without its end is shown all the same."""
        rest = self._held.pop((name, stream), None)
        if rest is not None:
            self._write(self._line((name, stream), rest))

    def end_all(self) -> None:
        for key in list(self._held):
            self.end(*key)

    def say(self, name: str, text: str, colour: str | None = None) -> None:
        """A line of our own, in the same columns."""
        words = columns.paint(columns.one_line(text), colour, self._colourful)
        self._write(self._prefix((name, "")) + words.encode("utf-8", "replace") + b"\n")

    def _line(self, key: Stream, line: bytes) -> bytes:
        if self._form is Form.JSON:
            return json_line({"event": "output", "service": key[0], "stream": key[1], "text": text_of(line)})
        prefix = self._prefix(key) if self._form is Form.NAMED else b""
        return prefix + (self._shown(line) if self._terminal else line) + b"\n"

    def _shown(self, line: bytes) -> bytes:
        """For a terminal: nothing but text and, where they are wanted, colours."""
        text = line.removesuffix(b"\r").decode("utf-8", "replace")
        if text.isprintable():
            return text.encode()
        shown = columns.harmless(text, keep_colours=self._colourful)
        return (shown + RESET if "\x1b" in shown else shown).encode("utf-8", "replace")

    def _prefix(self, key: Stream) -> bytes:
        prefix = self._prefixes.get(key)
        if prefix is None:
            name, stream = key
            bar = columns.paint("|", STDERR_COLOUR if stream == "stderr" else None, self._colourful)
            shown = f"{columns.one_line(name):<{self._width}}"
            shown = (
                columns.paint(shown, self._colours.get(name), self._colourful)
                if name in self._colours
                else (click.style(shown, bold=True) if self._colourful else shown)
            )
            prefix = self._prefixes[key] = f"{shown} {bar} ".encode()
        return prefix


def text_of(line: bytes) -> str:
    """A line as text; bytes that are no UTF-8 are shown as ``\\xNN``."""
    return line.decode("utf-8", "backslashreplace")


def json_line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def write_all(fd: int, data: bytes) -> None:
    """Write everything, even where somebody has made the descriptor non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            room = select.poll()
            room.register(fd, select.POLLOUT)
            room.poll()
