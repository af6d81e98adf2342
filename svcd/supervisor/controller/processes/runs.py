"""The runs (invocations) that have a process or are getting one, and the order in which the core hears of them.

Must not decide anything: it turns what the guardian and the launchers report, which reaches us on separate links,
into the one order that the core expects: spawned, executed, exited; or failed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from svcd.record import entity, field
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.processes.containment import Containment, is_alive, signal_members
from svcd.supervisor.core.events import (
    Event,
    ExitStatus,
    LeftoversGone,
    MainProcessNamed,
    ProcessExited,
    ProcessSpawned,
    ProgramExecuted,
    SpawnFailed,
)


@entity
class Run:
    """One invocation. ``mark`` is unique on this host.

    ``verdict``: whether exec succeeded, None while unknown. ``unborn``: there is no process and there will be none.
    ``at_birth``: called once its pid is known. ``before_end``: called when a main process of it was reaped, before
    anything follows from that, to hear what it has said until then. ``clean_up``: called at the end.
    """

    service: str
    invocation: int
    mark: str
    launcher: str
    pid: int | None = None
    pidfd: int | None = None
    verdict: bool | None = None
    unborn: bool = False
    failure: str = ""
    status: ExitStatus | None = None
    told_spawned: bool = False
    told_executed: bool = False
    told_exited: bool = False
    supplanted: int | None = None  # the first main process, once another one was named
    at_birth: list[Callable[[], None]] = field(default_factory=list)
    before_end: list[Callable[[], None]] = field(default_factory=list)
    clean_up: list[Callable[[], None]] = field(default_factory=list)


class Runs:
    """All runs, by invocation. ``submit`` gets the events, in order, per run."""

    def __init__(self, submit: Callable[[Event], None], containment: Containment, mains: set[int]) -> None:
        self._submit = submit
        self._containment = containment
        self._mains = mains
        self._by_invocation: dict[int, Run] = {}
        self._by_pid: dict[int, Run] = {}  # of main processes
        self._with_leftovers: dict[int, Run] = {}
        self._last_status: dict[str, tuple[int, ExitStatus]] = {}

    def __len__(self) -> int:
        return len(self._by_invocation)

    def all(self) -> list[Run]:
        return list(self._by_invocation.values())

    def get(self, invocation: int | None) -> Run | None:
        return None if invocation is None else self._by_invocation.get(invocation)

    def of_pid(self, pid: int) -> Run | None:
        """The run whose main process that is."""
        return self._by_pid.get(pid)

    def status_of(self, service: str, invocation: int) -> ExitStatus | None:
        """How this run of the service ended; None when it never ran, or a later one has ended since."""
        last, status = self._last_status.get(service, (None, None))
        return status if last == invocation else None

    def forget(self, service: str) -> None:
        self._last_status.pop(service, None)

    def open(self, run: Run) -> str | None:
        """Take note of a run that is about to be spawned; returns the cgroup to be born in, or None."""
        self._by_invocation[run.invocation] = run
        return self._containment.prepare(run.mark)

    # ---- facts, in whatever order they come in -------------------------------------------------------------------

    def born(self, invocation: int, pid: int, pidfd: int) -> None:
        run = self._by_invocation.get(invocation)
        if run is None:
            self._kill_stranger(pidfd)
            return
        run.pid, run.pidfd = pid, pidfd
        self._mains.add(pid)
        self._by_pid[pid] = run
        self._advance(run)
        for step in run.at_birth:
            step()

    def executed(self, invocation: int) -> None:
        self._judge(invocation, True)

    def rejected(self, invocation: int, reason: str, born: bool) -> None:
        """No program runs. ``born``: there is or was a process all the same, whose end we are told."""
        self._judge(invocation, False, reason, unborn=not born)

    def reaped(self, invocation: int, status: ExitStatus, pid: int | None = None) -> None:
        """The process that was born for this invocation has ended. ``pid``: it, if known."""
        run = self._by_invocation.get(invocation)
        if run is None:
            return
        _hear_out(run)
        if pid is not None and run.supplanted == pid and run.pid != pid:
            self._look_at_leftovers()  # it had handed over to another one, and may have outlived that
            return
        run.status = status
        self._advance(run)

    def orphan_reaped(self, pid: int | None = None, status: ExitStatus | None = None) -> None:
        """An adopted orphan is gone: a main process by adoption, or whoever waits for leftovers looks again."""
        if pid is not None and status is not None and pid in self._mains:
            for run in self.all():
                if run.supplanted is not None and run.pid == pid:
                    self.main_ended(run, pid, status)
        self._look_at_leftovers()

    def _look_at_leftovers(self) -> None:
        for run in list(self._with_leftovers.values()):
            if self._is_empty(run):
                del self._with_leftovers[run.invocation]
                self._close(run)
                self._submit(LeftoversGone(clock.now(), run.service, run.invocation, clock.jitter()))

    def main_ended(self, run: Run, pid: int, status: ExitStatus) -> None:
        """A main process by adoption is gone, unless it has handed over to yet another one."""
        _hear_out(run)
        if run.pid == pid and run.status is None:
            run.status = status
            self._advance(run)

    def launcher_lost(self, launcher: str) -> None:
        """That launcher is gone: what it has not said, it will not say."""
        for run in self.all():
            if run.launcher == launcher and run.verdict is None:
                if run.pid is None:
                    self._judge(run.invocation, False, f"the {launcher} died", unborn=True)
                else:
                    self._judge(run.invocation, True)

    def _judge(self, invocation: int, verdict: bool, reason: str = "", unborn: bool = False) -> None:
        run = self._by_invocation.get(invocation)
        if run is not None and run.verdict is None:
            run.verdict, run.failure, run.unborn = verdict, reason, unborn
            self._advance(run)

    def _advance(self, run: Run) -> None:
        """Tell the core all that can be told by now."""
        at = clock.now()
        if run.unborn:
            self._close(run)
            self._submit(SpawnFailed(at, run.service, run.invocation, run.failure, clock.jitter()))
            return
        if run.pid is None:
            return
        if not run.told_spawned:
            run.told_spawned = True
            self._submit(ProcessSpawned(at, run.service, run.invocation, run.pid))
        if run.verdict is True and not run.told_executed:
            run.told_executed = True
            self._submit(ProgramExecuted(at, run.service, run.invocation))
        if run.status is not None and run.verdict is not None and not run.told_exited:
            run.told_exited = True
            self._end(run, run.status)

    def _end(self, run: Run, status: ExitStatus) -> None:
        if run.verdict is False:
            self._close(run)
            self._submit(SpawnFailed(clock.now(), run.service, run.invocation, run.failure, clock.jitter()))
            return
        self._last_status[run.service] = (run.invocation, status)
        leftovers = not self._is_empty(run)
        if leftovers:
            self._with_leftovers[run.invocation] = run
        else:
            self._close(run)
        event = ProcessExited(clock.now(), run.service, run.invocation, status, leftovers, clock.jitter())
        self._submit(event)

    def _is_empty(self, run: Run) -> bool:
        return run.pid is None or self._containment.is_empty(run.mark, run.pid)

    def _close(self, run: Run) -> None:
        self._by_invocation.pop(run.invocation, None)
        if run.pid is not None:
            self._mains.discard(run.pid)
            if self._by_pid.get(run.pid) is run:
                del self._by_pid[run.pid]
        if run.pidfd is not None:
            os.close(run.pidfd)
            run.pidfd = None
        for step in run.clean_up:
            step()
        self._containment.release(run.mark)

    @staticmethod
    def _kill_stranger(pidfd: int) -> None:
        """A process that nobody waits for: it must not live."""
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)

    # ---- the main process ------------------------------------------------------------------------------------------

    def has_member(self, run: Run, pid: int) -> bool:
        """Whether ``pid`` is a process of this run, or was one and has not been reaped."""
        return run.pid is not None and self._containment.has(run.mark, run.pid, pid)

    def adopt_main(self, run: Run, pid: int) -> bool:
        """The run names another of its processes as the main one: that one's end is its end from now on. Whether it
        is so now.
        """
        if run.pid is None or run.told_exited or pid == run.pid or pid in self._mains:
            return False
        try:
            pidfd = os.pidfd_open(pid)
        except (OSError, OverflowError):
            return False
        if not self.has_member(run, pid) or not is_alive(pid):
            os.close(pidfd)
            return False
        if run.pidfd is not None:
            os.close(run.pidfd)
        run.supplanted = run.supplanted or run.pid
        self._mains.discard(run.pid)
        self._mains.add(pid)
        self._by_pid.pop(run.pid, None)
        self._by_pid[pid] = run
        run.pid, run.pidfd = pid, pidfd
        self._submit(MainProcessNamed(clock.now(), run.service, run.invocation, pid))
        return True

    # ---- orders -----------------------------------------------------------------------------------------------------

    def send_signal(self, invocation: int, number: int, group: bool) -> None:
        """To the main process alone, or to its process group; to what is left, when the main process is gone."""
        run = self._by_invocation.get(invocation)
        if run is None or run.pid is None or run.pidfd is None:
            return
        if run.status is not None:
            signal_members(self._containment, run.mark, run.pid, number)
            return
        try:
            if group and is_alive(run.pid):
                os.killpg(run.pid, number)
            else:
                signal.pidfd_send_signal(run.pidfd, number)
        except ProcessLookupError:
            # no group yet (the child is still setting itself up), or gone: the pidfd knows which
            try:
                signal.pidfd_send_signal(run.pidfd, number)
            except ProcessLookupError:
                pass

    def kill(self, invocation: int) -> None:
        """SIGKILL to every process of the run."""
        run = self._by_invocation.get(invocation)
        if run is None or run.pid is None:
            return
        self._containment.kill(run.mark, run.pid)
        if run.status is None and run.pidfd is not None:
            try:
                signal.pidfd_send_signal(run.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass


def _hear_out(run: Run) -> None:
    """What a process has said before its end may change what its end means."""
    for step in run.before_end:
        step()
