"""docs/startable.md: its examples print what it says, its tables and its diagram are those of the code.

Must not repeat the guide: it is read from the file.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from svcd import State
from svcd.worker_runtime.lifetime.life import AT_START, AT_STOP, FOLLOWING

GUIDE = (Path(__file__).parents[2] / "docs" / "startable.md").read_text()
EXAMPLES = re.findall(r"^## (.*?)$(?:(?!^## ).)*?^```python\n(.*?)^```\n\n```text\n(.*?)^```", GUIDE, re.M | re.S)


def test_every_example_is_found() -> None:
    assert len(EXAMPLES) == GUIDE.count("```python") >= 4


@pytest.mark.parametrize(("title", "code", "shown"), EXAMPLES, ids=[title for title, _, _ in EXAMPLES])
def test_examples_print_what_is_shown(title: str, code: str, shown: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-"], input=code, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.stderr, ended.stdout) == ("", shown)


def test_the_table_of_calls_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", GUIDE, re.M)
    assert rows == [(state.value, AT_START[state].value, AT_STOP[state].value) for state in State]


def test_the_diagram_is_that_of_the_code() -> None:
    arrows = re.findall(r"^    (\w+) --> (\w+): ", GUIDE, re.M)
    assert set(arrows) == {(state.value, after.value) for state, following in FOLLOWING.items() for after in following}
