"""Fixtures of the shell's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commanded import Body, Commanded, may_make_cgroups, on_loop
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


@pytest.fixture(params=["cgroups", "sessions"])
def play(request: pytest.FixtureRequest, guarded: Guarded, tmp_path: Path) -> Callable[[Body], None]:
    """Runs a test's body with short commands at hand."""
    in_cgroups = request.param == "cgroups"
    if in_cgroups and not may_make_cgroups():
        pytest.skip("no cgroup v2 hierarchy to write")

    def on_stage(body: Body) -> None:
        async def whole() -> None:
            async with Commanded(guarded, tmp_path, in_cgroups) as commanded:
                await body(commanded)

        on_loop(whole)

    return on_stage
