"""docs/running-code.md: its examples print what it says, from the cluster file to the stub.

Must not repeat the guide: it is read from the file.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GUIDE = (Path(__file__).parents[2] / "docs" / "running-code.md").read_text()
EXAMPLES = re.findall(r"^## ([^\n]*)\n(?:(?!^## ).)*?^```yaml\n(.*?)^```\n\n```text\n(.*?)^```", GUIDE, re.M | re.S)
SHOWN = re.findall(r"^```yaml\n([^`]*)^```\n\n```console\n\$ ([^\n]*)\n(.*?)^```", GUIDE, re.M | re.S)
UP = ("loaded", "initialized", "starting", "running")


def test_every_example_is_found() -> None:
    assert (len(EXAMPLES), len(SHOWN)) == (4, 1)
    assert len(EXAMPLES) + len(SHOWN) == GUIDE.count("```yaml")


@pytest.mark.parametrize(("title", "file", "shown"), EXAMPLES, ids=[title for title, _, _ in EXAMPLES])
def test_examples_print_what_is_shown(controller: Any, tmp_path: Path, title: str, file: str, shown: str) -> None:
    stub = controller.run_file(tmp_path, file)
    stub.expect_states(*UP, "stopping")
    assert stub.end() == (0, shown, "")


@pytest.mark.parametrize(("file", "command", "shown"), SHOWN)
def test_settings_are_shown_as_they_are(tmp_path: Path, file: str, command: str, shown: str) -> None:
    (tmp_path / "cluster.yaml").write_text(file)
    setting, _svcd, *arguments = shlex.split(command)
    name, _, value = setting.partition("=")
    ended = subprocess.run(
        [sys.executable, "-m", "svcd", *arguments],
        cwd=tmp_path,
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.stderr, ended.stdout) == ("", shown)
