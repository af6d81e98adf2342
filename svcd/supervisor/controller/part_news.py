"""What svcd's other parts tell the controller: births and ends of processes, what became of an exec, lost output.

Must not decide what follows for a service: rooms beside it hear of it, and tell the core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from svcd.supervisor import wiring
from svcd.supervisor.controller.clients.status import Status
from svcd.supervisor.controller.journal import Journal
from svcd.supervisor.controller.parts import Parts, Receiver
from svcd.supervisor.controller.processes.errands import Errands
from svcd.supervisor.controller.processes.runs import Runs
from svcd.supervisor.controller.python.fork_servers import ForkServers
from svcd.supervisor.controller.python.stubs import Stubs
from svcd.supervisor.controller.records import Records
from svcd.supervisor.controller.spawning import Spawner
from svcd.supervisor.core.events import ExitStatus

OUR_CODE_ENDED: Final = 70  # worker_runtime.foreign


class PartNews:
    """``receivers`` takes what the guardian and the launchers say."""

    def __init__(
        self,
        parts: Parts,
        runs: Runs,
        errands: Errands,
        stubs: Stubs,
        fork_servers: ForkServers,
        spawner: Spawner,
        records: Records,
        status: Status,
        journal: Journal,
        notice: Callable[[str, str], None],
    ) -> None:
        self._parts = parts
        self._runs = runs
        self._errands = errands
        self._stubs = stubs
        self._fork_servers = fork_servers
        self._spawner = spawner
        self._records = records
        self._status = status
        self._journal = journal
        self._notice = notice
        self.receivers: dict[type, Receiver] = {
            wiring.ProcessBorn: self._on_born,
            wiring.ProcessReaped: self._on_reaped,
            wiring.ProgramExecuted: self._on_executed,
            wiring.SpawnRejected: self._on_rejected,
            wiring.PartStarted: self._on_part_started,
            wiring.PartEnded: self._on_part_ended,
            wiring.OutputLost: self._on_output_lost,
            wiring.StreamBegan: spawner.stream_began,
        }

    # ---- processes ---------------------------------------------------------------------------------------------------

    def _runs_of(self, invocation: int) -> Runs:
        return self._errands.runs if Errands.owns(invocation) else self._runs

    def _on_born(self, message: wiring.ProcessBorn, fds: list[int]) -> None:
        self._runs_of(message.invocation).born(message.invocation, message.pid, fds[0])
        run = self._runs.get(message.invocation)
        if run is not None:
            self._stubs.spawned(run)
            self._status.changed(message.service)

    def _on_executed(self, message: wiring.ProgramExecuted, _fds: list[int]) -> None:
        self._runs_of(message.invocation).executed(message.invocation)

    def _on_rejected(self, message: wiring.SpawnRejected, _fds: list[int]) -> None:
        self._runs_of(message.invocation).rejected(message.invocation, message.reason, message.born)

    def _on_reaped(self, message: wiring.ProcessReaped, _fds: list[int]) -> None:
        status = ExitStatus(message.code, message.signal)
        if message.invocation is None:
            self._runs.orphan_reaped(message.pid, status)
            self._errands.runs.orphan_reaped()
        else:
            self._stubs.hear_last_words(message.invocation)
            self._doubt_interpreter(message)
            self._runs_of(message.invocation).reaped(message.invocation, status, message.pid)

    def _doubt_interpreter(self, message: wiring.ProcessReaped) -> None:
        """It may be anything that can be executed. Exit code 70 is our own code's, which has said why."""
        if message.service is None or message.invocation is None or message.code in (None, OUR_CODE_ENDED):
            return
        interpreter = self._stubs.never_spoke(message.service, message.invocation)
        if interpreter is not None and not Errands.owns(message.invocation):
            text = f"{interpreter} ended before svcd's code in it spoke: is it a Python, 3.11 or later?"
            self._notice(message.service, text)

    # ---- parts, and what the collector has to say --------------------------------------------------------------------

    def _on_part_started(self, message: wiring.PartStarted, fds: list[int]) -> None:
        self._journal.note("part started", part=message.part, pid=message.pid)
        self._parts.started(message, fds)
        self._status.changed()

    def _on_part_ended(self, message: wiring.PartEnded, _fds: list[int]) -> None:
        self._journal.note("part ended", part=message.part, pid=message.pid, code=message.code, signal=message.signal)
        self._parts.ended(message)
        self._fork_servers.part_ended(message)
        self._runs.launcher_lost(message.part)
        self._errands.runs.launcher_lost(message.part)
        self._status.changed()

    def _on_output_lost(self, message: wiring.OutputLost, _fds: list[int]) -> None:
        self._notice(message.service, f"{message.lost_bytes} bytes of {message.stream} lost: {message.reason}")
