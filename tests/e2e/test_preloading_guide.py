"""docs/preloading.md: its files are written, its commands are run, and show what it says.

Must not repeat the guide: it is read from the file.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from clusters import ROOT, Cluster
from test_readme import Step, run_steps

GUIDE = (ROOT / "docs" / "preloading.md").read_text()
BLOCK = r"^```(\w+)\n(.*?)^```"


def steps_of(guide: str) -> list[Step]:
    """Its commands, each with the output that it shows."""
    found: list[Step] = []
    for kind, text in re.findall(BLOCK, guide, re.M | re.S):
        for line in text.splitlines() if kind == "console" else ():
            if line.startswith("$ "):
                found.append(Step(line[2:], []))
            else:
                found[-1].shown.append(line)
    return found


def test_the_guide_as_written(cluster: Cluster) -> None:
    if not (Path(sys.prefix) / "bin" / "activate").exists():
        pytest.skip("needs to run in a virtual environment, as make test does")
    files = [text for kind, text in re.findall(BLOCK, GUIDE, re.M | re.S) if kind in ("python", "yaml")]
    assert len(files) >= 5
    for text in files:
        name = re.match(r"# (\w+\.\w+)\n", text)
        assert name, f"which file is this?\n{text}"
        cluster.write(text, name[1])
    run_steps(cluster, steps_of(GUIDE), {})
    assert not cluster.run_dir.exists()
