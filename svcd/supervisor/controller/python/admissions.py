"""Who was let in at which endpoint: its stub asks who knocks, and is told when somebody may not stay.

Must not know who a process is (``introductions`` does), nor keep a connection: stubs do.
"""

from __future__ import annotations

from collections.abc import Callable

from svcd.protocol.call_errors import PermissionDenied
from svcd.protocol.messages import Message, PeerAsked, PeerDismissed, PeerIdentified
from svcd.supervisor.controller.processes.runs import Runs
from svcd.supervisor.controller.python.introductions import CLIENT, Introductions, not_permitted
from svcd.supervisor.controller.registry import Registry


class Admissions:
    """``asked`` takes what stubs ask. ``tell`` (invocation, message) does nothing where no stub is connected."""

    def __init__(
        self, introductions: Introductions, registry: Registry, runs: Runs, tell: Callable[[int, Message], None]
    ) -> None:
        self._introductions = introductions
        self._runs = runs
        self._tell = tell
        self._inside: dict[int, dict[str, None]] = {}  # invocation of the callee -> names of services that were let in
        registry.watched_by(self._configured)

    def asked(self, message: PeerAsked) -> None:
        name, refusal = "", None
        try:
            name = self._introductions.name_of(message.service, message.pid, message.uid)
        except PermissionDenied as denied:
            refusal = _words(message.service, str(denied))
        else:
            self._let_in(message.invocation, name)
        self._tell(message.invocation, PeerIdentified(message.invocation, message.token, name, refusal))

    def _let_in(self, invocation: int, name: str) -> None:
        run = self._runs.get(invocation)
        if name == CLIENT or run is None:  # who may command this cluster may so under any configuration
            return
        if invocation not in self._inside:
            self._inside[invocation] = {}
            run.clean_up.append(lambda: self._forget(invocation))
        self._inside[invocation][name] = None

    def _forget(self, invocation: int) -> None:
        self._inside.pop(invocation, None)

    def _configured(self) -> None:
        """A new configuration is in force: who may not be there any more is put out."""
        for invocation, names in self._inside.items():
            run = self._runs.get(invocation)
            if run is None:
                continue
            for name in [each for each in names if not self._introductions.may_call(each, run.service)]:
                del names[name]
                reason = _words(run.service, not_permitted(name))
                self._tell(invocation, PeerDismissed(invocation, name, reason))


def _words(callee: str, why: str) -> str:
    return f"cannot call {callee}: {why}"
