"""Who has knocked at a service's endpoint, and whether it may come in.

Must not take a peer's word for it: the kernel says which process that is, the runs say whose process.
"""

from __future__ import annotations

import os
from typing import Final

from svcd.protocol.call_errors import PermissionDenied
from svcd.supervisor.controller.processes.containment import parent_of
from svcd.supervisor.controller.processes.runs import Run, Runs
from svcd.supervisor.controller.python.routes import callable_by
from svcd.supervisor.controller.registry import Registry

DEEPEST: Final = 64  # ancestors that are looked at
CLIENT: Final = "client"


class Introductions:
    """``kinds``: the runs of services, and of the commands that run as a service would. ``guardian_pid``: whose
    descendants they all are.
    """

    def __init__(self, kinds: tuple[Runs, ...], registry: Registry, guardian_pid: int) -> None:
        self._kinds = kinds
        self._registry = registry
        self._guardian_pid = guardian_pid

    def name_of(self, callee: str, pid: int, uid: int) -> str:
        """What the callee is to call that process: the name of its service, or "client" for who is none but may command
        this cluster. Raises ``PermissionDenied`` with the reason.
        """
        run = self.run_of(pid)
        if run is not None:
            if not self.may_call(run.service, callee):
                raise PermissionDenied(not_permitted(run.service))
            return run.service
        if uid not in (0, os.geteuid()):
            raise PermissionDenied(f"uid {uid} may not call services of this cluster")
        return CLIENT

    def may_call(self, caller: str, callee: str) -> bool:
        """Both by their full names. Who may call a service may call what stands in for it; a parent its children."""
        definition, target = self._registry.find_newest(caller), self._registry.get(callee)
        if definition is None or target is None:
            return False
        allowed = callable_by(definition)
        if target.spec.parent == caller or callee in allowed:
            return True
        return (target.service or callee) in allowed or any(
            each in allowed for each in self._registry.covered_by(callee)
        )

    def run_of(self, pid: int) -> Run | None:
        """The run that this process belongs to; None for who is no service. Raises ``PermissionDenied`` for a process
        of a service that cannot be told which.
        """
        for _ in range(DEEPEST):
            for runs in self._kinds:
                run = runs.of_pid(pid)
                if run is not None:
                    return run
            parent = parent_of(pid)
            if parent is None or parent <= 1:
                return None
            if parent == self._guardian_pid:
                return self._of_orphan(pid)
            pid = parent
        return None

    def _of_orphan(self, pid: int) -> Run | None:
        """Its own parent has ended: it is of the run that its group says."""
        for runs in self._kinds:
            for run in runs.all():
                if runs.has_member(run, pid):
                    return run
        raise PermissionDenied(f"pid {pid} is a process of some service that has ended")


def not_permitted(caller: str) -> str:
    return f"{caller} neither depends on it nor has the permission"
