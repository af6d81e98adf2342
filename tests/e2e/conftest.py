"""The ``cluster`` fixture: a whole svcd, and the certainty that nothing of it is left.

Must not decide what a test waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clusters import Cluster, subreaper
from stage import Stage


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[[str], Stage]]:
    """Makes clusters, each with files and directories of its own."""
    made: list[Stage] = []

    def make(name: str) -> Stage:
        directory = tmp_path / name
        directory.mkdir()
        made.append(Stage(directory))
        return made[-1]

    with subreaper():
        yield make
        errors = []
        for cluster in reversed(made):
            try:
                cluster.close()
            except AssertionError as error:
                errors.append(str(error))
        if errors:
            pytest.fail("\n".join(errors), pytrace=False)


@pytest.fixture
def cluster(make_cluster: Callable[[str], Cluster]) -> Cluster:
    """A cluster that is not yet started."""
    return make_cluster("cluster")


@pytest.fixture
def stage(make_cluster: Callable[[str], Stage]) -> Stage:
    """The same, for a scenario whose every step is told."""
    return make_cluster("cluster")
