"""docs/children.md: its pool does what the page says.

Must not repeat the guide: it is read from the file.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from clusters import Cluster, wait_until

GUIDE = (Path(__file__).parents[2] / "docs" / "children.md").read_text()


def test_the_pool_of_the_guide(cluster: Cluster) -> None:
    (services,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.S)
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.S)
    cluster.write(services, "cluster.yaml")
    cluster.write(code, "pool.py")
    cluster.start()
    assert [row.name for row in cluster.status().services] == ["pool", "shard-0", "shard-1", "shard-2"]
    for key, number in (("ann", 0), ("carl", 1), ("x", 1), ("be", 2)):
        assert cluster.svcd("call", "pool.put", f"key={key}", "value=1").out.strip() == str(number)
    before = cluster.pid_of("shard-1")
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: cluster.row("shard-1").pid not in (None, before), "the shard to be restarted")
    cluster.wait_state("shard-1", "running")
    assert cluster.row("pool").restarts == 0
