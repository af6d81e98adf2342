"""What can be wrong with a configuration: problems with their place, and the error that carries all of them.

Must not look for problems: it only records, sorts and words them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from svcd.record import record


class Mark(NamedTuple):
    """A place in a file; ``line`` and ``column`` count from 1, 0 means the file as a whole."""

    file: str
    line: int = 0
    column: int = 0


@record
class Problem:
    """One thing that is wrong. ``key`` is dotted (``services.web.restart``), empty for the file as a whole;
    ``suggestion`` says how to mend it.
    """

    file: str
    line: int
    column: int
    key: str
    text: str
    suggestion: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        words = f"{self.text}; {self.suggestion}" if self.suggestion else self.text
        return f"{place}: {self.key}: {words}" if self.key else f"{place}: {words}"


class ConfigurationError(Exception):
    """A configuration that cannot be used. ``problems`` holds everything that was found, in reading order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(each) for each in self.problems))


class Findings:
    """Collects problems; one that is met again through an alias or through ``defaults`` is kept once."""

    def __init__(self) -> None:
        self._found: dict[tuple[Mark, str], Problem] = {}

    def add(self, mark: Mark, key: str, text: str, suggestion: str) -> None:
        text, suggestion = _one_line(text), _one_line(suggestion)
        self._found.setdefault(
            (mark, text), Problem(_one_line(mark.file), mark.line, mark.column, _one_line(key), text, suggestion)
        )

    def has(self, mark: Mark) -> bool:
        """Whether something is wrong exactly there."""
        return any(each == mark for each, _ in self._found)

    def extend(self, others: Findings) -> None:
        """Take over what was recorded elsewhere."""
        self._found = {**others._found, **self._found}

    def __bool__(self) -> bool:
        return bool(self._found)

    def raise_if_any(self, file_order: Iterable[str] = ()) -> None:
        """Raise ``ConfigurationError`` with all that was found, sorted by file (in ``file_order``), line and column."""
        if not self._found:
            return
        rank = {file: index for index, file in enumerate(file_order)}
        last = len(rank)
        problems = self._found.values()
        raise ConfigurationError(
            sorted(problems, key=lambda each: (rank.get(each.file, last), each.file, each.line, each.column))
        )


def _one_line(text: str) -> str:
    """What came out of a hostile file must not move the cursor of the terminal that shows it."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
