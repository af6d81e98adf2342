"""Fixtures of the clients' tests.

Must not know the real daemon.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from controllers import Controller


@pytest.fixture
def controller() -> Iterator[Controller]:
    directory = Path(tempfile.mkdtemp(prefix="svcd-client-"))
    made = Controller(directory)
    yield made
    made.end()
    shutil.rmtree(directory)
