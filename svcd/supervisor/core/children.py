"""Child services: they go with the run that has created them, and the next run begins without them.

Must not decide how a run ends: it says that theirs is to.
"""

from __future__ import annotations

from svcd.supervisor.core.cluster import Cluster
from svcd.supervisor.core.requests import Intent
from svcd.supervisor.core.unit import Unit
from svcd.supervisor.core.wishes import Wishes


class Children:
    def __init__(self, cluster: Cluster, wishes: Wishes) -> None:
        self._cluster = cluster
        self._wishes = wishes

    def release(self, parent: Unit) -> None:
        """The run that they belong to is about to end, or has: so are they, and then nothing is kept of them."""
        text = f"removed with its parent {parent.name}"
        for child in parent.children:
            if not child.removed:
                child.removed = True
                self._cluster.requests.overtake(
                    child.name, Intent.ORPHANED, f"the end of its parent {parent.name}", self._cluster.out
                )
                self._wishes.put_down(child, text)

    def keep_waiting(self, parent: Unit) -> bool:
        """Whether children of its last run have not ended: a name is never there twice, nor a child without its run."""
        child = next(iter(parent.children), None)
        if child is not None:
            self._cluster.say(parent, f"for {child.name} ({child.state.value}), a child of its last run, to end")
        return child is not None
