"""docs/client.md: its cluster starts, its examples print what it says.

Must not repeat the guide: it is read from the file.
"""

from __future__ import annotations

import re
import subprocess
import sys

from clusters import PATIENCE_S, ROOT, Cluster

GUIDE = (ROOT / "docs" / "client.md").read_text()
FILES = re.findall(r"^```\w+\n# ([\w.]+)\n(.*?)^```", GUIDE, re.M | re.S)
EXAMPLES = re.findall(r"^```python\n(?!# \w+\.py\n)(.*?)^```\n\n```text\n(.*?)^```", GUIDE, re.M | re.S)


def test_the_guide_as_written(cluster: Cluster) -> None:
    for name, text in FILES:
        (cluster.directory / name).write_text(text)
    assert {"cluster.yaml", "billing.py"} == {name for name, _ in FILES}
    cluster.start()
    (console,) = re.findall(r"^```console\n(.*?)^```", GUIDE, re.M | re.S)
    for typed, shown in re.findall(r"^\$ svcd (.*)\n((?:[^$].*\n)*)", console, re.M):
        assert cluster.svcd(*typed.split()).out == shown
    assert len(EXAMPLES) == GUIDE.count("```text") == 4
    for code, shown in EXAMPLES:
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-"],
            input=code,
            env=cluster.environ,
            cwd=cluster.directory,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert (ended.stderr, ended.stdout) == ("", shown)
