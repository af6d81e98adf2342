"""Which cluster a command is for: --run-dir, SVCD_RUN_DIR, --cluster, or the only one that runs.

Must not talk to it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from svcd.cli.client import Client
from svcd.cli.failures import Exit, Failure
from svcd.protocol import places
from svcd.protocol.places import PlaceError, RunningCluster


@dataclass(frozen=True, slots=True)
class Target:
    """What the options say; None where they say nothing."""

    run_dir: str | None = None
    state_dir: str | None = None
    cluster: str | None = None

    def find(self) -> RunningCluster:
        """The running cluster that is meant. Raises ``Failure`` when there is none, or more than one."""
        if self.run_dir is not None:
            found = places.running_at(Path(self.run_dir).absolute())
            if found is None:
                raise Failure(f"no cluster runs in {self.run_dir}", Exit.NO_DAEMON)
            return found
        running = places.running_clusters(os.environ)
        if self.cluster is not None:
            running = [each for each in running if each.name == self.cluster]
            if not running:
                raise Failure(f"cluster {self.cluster} does not run", Exit.NO_DAEMON)
        if not running:
            raise Failure("no cluster runs; start one with: svcd start cluster.yaml", Exit.NO_DAEMON)
        if len(running) > 1:
            raise Failure(str(places.SeveralClustersRun(running)), Exit.USAGE)
        return running[0]

    def connect(self) -> Client:
        return Client(self.find().run_dir)

    def resolve(self, cluster: str) -> places.Places:
        """Where the files of ``cluster`` are or would be."""
        try:
            return places.resolve(cluster, self.run_dir, self.state_dir)
        except PlaceError as error:
            raise Failure(str(error), Exit.USAGE) from None
