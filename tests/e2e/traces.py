"""What must happen, written down: steps of services, one after the other or side by side, held against what did.

Must not run anything: it compares lines.

``then(…)`` is an order, ``together(…)`` leaves it open between its parts (and only there), ``either(…)`` is a choice,
for what two processes decide between them. A word "db: running →
backoff → waiting" is two steps, the one directly after the other as far as db is concerned.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

ARROW = " → "


class Transition(NamedTuple):
    service: str
    old: str
    new: str
    cause: str
    invocation: int | None

    @property
    def line(self) -> str:
        return f"{self.service}: {self.old}{ARROW}{self.new}"


@dataclass(frozen=True, slots=True)
class Ordered:
    """Each part is complete before the next begins."""

    parts: tuple[Story, ...]


@dataclass(frozen=True, slots=True)
class Unordered:
    """The parts are independent of each other: any interleaving will do."""

    parts: tuple[Story, ...]


@dataclass(frozen=True, slots=True)
class Alternative:
    """One of the parts happens."""

    parts: tuple[Story, ...]


Story = str | Ordered | Unordered | Alternative
NOTHING = Ordered(())


def then(*parts: Story) -> Ordered:
    return Ordered(tuple(map(_steps, parts)))


def together(*parts: Story) -> Unordered:
    return Unordered(tuple(map(_steps, parts)))


def either(*parts: Story) -> Alternative:
    return Alternative(tuple(map(_steps, parts)))


def before(steps: Sequence[Transition], *lines: str) -> bool:
    """Whether these happened in this order, each for its first time, whatever was between them."""
    told = [each.line for each in steps]
    places = [told.index(line) for line in lines]
    return places == sorted(places)


def starts(*services: str) -> Ordered:
    """Programs that come up one after the other, having waited for it."""
    return then(*(f"{service}: waiting → starting → running" for service in services))


def stops(*services: str, to: str = "stopped") -> Ordered:
    """Running services that end one after the other."""
    return then(*(f"{service}: running → stopping → {to}" for service in services))


def _steps(word: Story) -> Story:
    """A word of several steps, as several words."""
    if not isinstance(word, str):
        return word
    service, _, states = word.partition(": ")
    way = states.split(ARROW)
    assert len(way) > 1, f"no step: {word!r}"
    steps = tuple(f"{service}: {old}{ARROW}{new}" for old, new in itertools.pairwise(way))
    return steps[0] if len(steps) == 1 else Ordered(steps)


def _after(story: Story, line: str) -> Iterable[Story]:
    """What may still be to come of ``story`` once ``line`` has happened; nothing if it may not happen now."""
    if isinstance(story, str):
        if story == line:
            yield NOTHING
        return
    if isinstance(story, Alternative):
        for part in story.parts:
            yield from _after(part, line)
        return
    for index, part in enumerate(story.parts):
        for rest in _after(part, line):
            kept = () if rest == NOTHING else (rest,)
            if isinstance(story, Ordered):
                yield Ordered(kept + story.parts[index + 1 :])
            else:
                others = story.parts[:index] + kept + story.parts[index + 1 :]
                yield Unordered(others) if others else NOTHING
        if isinstance(story, Ordered) and not _may_be_over(part):
            return


def _may_be_over(story: Story) -> bool:
    if isinstance(story, str):
        return False
    return (any if isinstance(story, Alternative) else all)(map(_may_be_over, story.parts))


def _next(story: Story) -> list[str]:
    """What may happen first."""
    if isinstance(story, str):
        return [story]
    if not isinstance(story, Ordered):
        return [line for part in story.parts for line in _next(part)]
    found: list[str] = []
    for part in story.parts:
        found += _next(part)
        if not _may_be_over(part):
            break
    return found


def mismatch(story: Story, lines: Sequence[str]) -> str | None:
    """Where ``lines`` leave the story, in words; None when they tell it, the whole of it and nothing else."""
    possible = {_steps(story)}
    for index, line in enumerate(lines):
        following = {rest for each in possible for rest in _after(each, line)}
        if not following:
            return _complain(lines, index, line, possible)
        possible = following
    if any(map(_may_be_over, possible)):
        return None
    return _complain(lines, len(lines), "the end", possible)


def _complain(lines: Sequence[str], index: int, came: str, possible: set[Story]) -> str:
    expected = sorted({line for each in possible for line in _next(each)}) or ["the end"]
    told = "\n".join(f"    {line}{'   <' if at == index else ''}" for at, line in enumerate(lines))
    return f"expected {' or '.join(expected)}\n     but {came} came:\n{told}"
