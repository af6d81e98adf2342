"""docs/hot-update.md: its files are written, its commands are run, and show what it says.

Must not repeat the guide: it is read from the file.
"""

from __future__ import annotations

import re
import shlex

from clusters import ROOT, Cluster

GUIDE = (ROOT / "docs" / "hot-update.md").read_text()
FILES = re.findall(r"^```\w+\n# ([\w.]+)\n(.*?)^```", GUIDE, re.M | re.S)


def test_the_guide_as_written(cluster: Cluster) -> None:
    for name, text in FILES:
        (cluster.directory / name).write_text(text)
    assert len(FILES) == 4
    cluster.start()
    pid = cluster.pid_of("billing")
    (console,) = re.findall(r"^```console\n(.*?)^```", GUIDE, re.M | re.S)
    for typed, shown in re.findall(r"^\$ svcd (.*)\n((?:[^$].*\n)*)", console, re.M):
        outcome = cluster.svcd(*shlex.split(typed), code=None)
        assert outcome.out + outcome.err == shown
    assert cluster.pid_of("billing") != pid
    assert cluster.row("billing").version == "2"
