"""A terminal, as far as svcd uses one: what a person would see after these bytes.

Must not be lenient: an escape sequence that it does not know is an error.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence

PATIENCE_S = 30.0
SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


class Screen:
    """Lines of text, a cursor, and the history that has scrolled away (kept in ``lines``, too)."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.lines = [""]
        self.row = self.column = 0
        self.cursor_shown = True
        self.styled = False
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._rest = ""

    def feed(self, data: bytes) -> None:
        text = self._rest + self._decode.decode(data)
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                found = SEQUENCE.match(text, at)
                if found is None:
                    assert len(text) - at < 16, f"unknown escape sequence: {text[at : at + 16]!r}"
                    break
                self._control(found[1], found[2])
                at = found.end()
            else:
                self._put(text[at])
                at += 1
        self._rest = text[at:]

    def _control(self, argument: str, kind: str) -> None:
        count = int(argument) if argument.isdigit() else 1
        if kind == "A":
            self.row = max(0, self.row - count)
        elif kind == "K":
            assert argument in ("2", "", "0")
            self.lines[self.row] = "" if argument == "2" else self.lines[self.row][: self.column]
        elif kind == "J":
            assert argument in ("", "0")
            self.lines[self.row] = self.lines[self.row][: self.column]
            del self.lines[self.row + 1 :]
        elif kind == "m":
            self.styled = self.styled or argument not in ("", "0")
        elif kind in "hl":
            assert argument == "?25"
            self.cursor_shown = kind == "h"
        else:
            raise AssertionError(f"unknown control sequence {argument!r} {kind!r}")

    def _put(self, character: str) -> None:
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.row += 1
        else:
            assert character.isprintable(), repr(character)
            if self.column == self.columns:
                self.row, self.column = self.row + 1, 0
            self._reach()
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1
        self._reach()

    def _reach(self) -> None:
        while len(self.lines) <= self.row:
            self.lines.append("")

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).rstrip("\n")


class Terminal:
    """A process in a terminal of its own, which is its controlling one."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], columns: int = 100, rows: int = 24) -> None:
        self.screen = Screen(columns, rows)
        environ = {name: value for name, value in environ.items() if name not in ("COLUMNS", "LINES")}
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
                os.execve(command[0], list(command), dict(environ))
            finally:
                os._exit(127)
        os.set_inheritable(self._fd, False)
        self._status: int | None = None

    def wait(self, condition: Callable[[str], object]) -> str:
        """Read until the condition holds for what is to be seen."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition(self.screen.text()):
            left_s = deadline - time.monotonic()
            ready, _, _ = select.select([self._fd], [], [], max(0.0, left_s))
            assert ready, f"waited in vain; this is to be seen:\n{self.screen.text()}"
            try:
                data = os.read(self._fd, 65536)
            except OSError:  # the other end is closed
                data = b""
            if not data:
                assert condition(self.screen.text()), f"it has ended; this is to be seen:\n{self.screen.text()}"
                break
            self.screen.feed(data)
        return self.screen.text()

    def wait_text(self, *texts: str) -> str:
        return self.wait(lambda seen: all(text in seen for text in texts))

    def type(self, data: bytes) -> None:
        os.write(self._fd, data)

    def hang_up(self) -> None:
        """Close the window."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def wait_end(self) -> int:
        """The exit code, once the process has ended by itself (negative: a signal's number)."""
        if self._status is None:
            fd = os.pidfd_open(self.pid)
            try:
                deadline = time.monotonic() + PATIENCE_S
                while not select.select([fd], [], [], 0.01)[0]:
                    assert time.monotonic() < deadline, "it does not end"
                    if self._fd >= 0 and select.select([self._fd], [], [], 0)[0]:
                        try:
                            self.screen.feed(os.read(self._fd, 65536))
                        except OSError:
                            self.hang_up()
                _, self._status = os.waitpid(self.pid, 0)
            finally:
                os.close(fd)
            self._read_out()
        return os.waitstatus_to_exitcode(self._status)

    def _read_out(self) -> None:
        """What it has said at its very end."""
        while self._fd >= 0 and select.select([self._fd], [], [], 0)[0]:
            try:
                self.screen.feed(os.read(self._fd, 65536))
            except OSError:  # the other end is closed
                self.hang_up()

    def close(self) -> None:
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            _, self._status = os.waitpid(self.pid, 0)
        self.hang_up()
