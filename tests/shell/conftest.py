"""Fixtures of the shell's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guarded import Guarded, subreaper


@pytest.fixture
def guarded_by(tmp_path: Path) -> Iterator[Callable[..., Guarded]]:
    """Makes the test's guardian, with whatever is special about it."""
    made: list[Guarded] = []

    def make(**given: object) -> Guarded:
        made.append(Guarded(tmp_path, **given))  # type: ignore[arg-type]  # whatever a test wants to be special
        return made[-1]

    with subreaper():
        yield make
        for each in made:
            each.close()


@pytest.fixture
def guarded(guarded_by: Callable[..., Guarded]) -> Guarded:
    return guarded_by()
