"""Which cluster a client is for: found as the command line finds it, or by what svcd has told a process of its own.

Must not connect.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from svcd.protocol import places
from svcd.protocol.call_errors import ClusterUnavailable
from svcd.record import record

CONTROL: Final = "SVCD_CONTROL"
"""In the environment of every process that svcd runs: the controller's socket, as that process can reach it."""

AN_END: Final = "the cluster in {} has ended"


@record
class Place:
    """``control``: path of the controller's socket."""

    control: str
    run_dir: Path

    @property
    def events(self) -> str:
        return str(self.run_dir / "events")

    def has_ended(self) -> bool:
        """Whether nobody holds the cluster's lock. False where that cannot be told: the lock is another user's."""
        lock = self.run_dir / "lock"
        try:
            os.stat(lock)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return os.access(lock, os.R_OK) and places.running_at(self.run_dir) is None

    def end(self) -> ClusterUnavailable:
        return ClusterUnavailable(AN_END.format(self.run_dir))


def find(cluster: str | None = None, run_dir: str | os.PathLike[str] | None = None) -> Place:
    """The cluster called so, or in that directory; else the one that this process belongs to, as svcd has told it; else
    that of ``SVCD_RUN_DIR``, or the only one that runs. Raises ``ClusterUnavailable``; ``ValueError`` for both.
    """
    if cluster is not None and run_dir is not None:
        raise ValueError("cannot use both cluster and run_dir: either says which cluster")
    told = os.environ.get(CONTROL)
    if told and cluster is None and run_dir is None:
        return _told(told)
    try:
        found = places.find_running(cluster, run_dir).run_dir
        places.check_socket_path(found / "control")
    except places.SeveralClustersRun as error:
        names = ", ".join(f"{each.name} (pid {each.pid})" for each in error.clusters)
        raise ClusterUnavailable(f"several clusters run: {names}; say which: Client(NAME)") from None
    except places.PlaceError as error:
        raise ClusterUnavailable(str(error)) from None
    return Place(str(found / "control"), found)


def _told(control: str) -> Place:
    """The door for other users is one directory further down."""
    directory = Path(control).parent
    return Place(control, directory.parent if directory.name == "stubs" else directory)
