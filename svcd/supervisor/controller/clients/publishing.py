"""What the world is told: every event with its number, published and written into the journal.

Must not decide what is worth telling: whoever calls has decided.
"""

from __future__ import annotations

from svcd.protocol import messages
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.clients.status import Whole
from svcd.supervisor.controller.control import Control
from svcd.supervisor.controller.journal import Journal
from svcd.supervisor.core import actions


class Publisher:
    """Numbers are consecutive, so that a subscriber who misses one notices."""

    def __init__(self, control: Control, journal: Journal, whole: Whole) -> None:
        self._control = control
        self._journal = journal
        self._whole = whole

    def _next(self) -> int:
        self._whole.sequence += 1
        return self._whole.sequence

    def transition(self, action: actions.PublishTransition) -> None:
        old, new = action.old.value, action.new.value
        self._control.publish(
            messages.ServiceTransitioned(
                sequence=self._next(),
                at=clock.wall(action.at),
                service=action.service,
                invocation=action.invocation,
                old=old,
                new=new,
                cause=action.cause,
                spent_s=action.spent_s,
                transaction=action.transaction,
            )
        )
        self._journal.note(
            "transition",
            service=action.service,
            invocation=action.invocation,
            old=old,
            new=new,
            cause=action.cause,
            transaction=action.transaction,
        )

    def notice(self, service: str, text: str) -> None:
        """``service`` empty: about the cluster."""
        self._control.publish(messages.NoticeGiven(self._next(), clock.wall(), service, text))
        self._journal.note("notice", service=service, text=text)

    def exception(self, message: messages.ExceptionRaised) -> None:
        self._control.publish(messages.ExceptionRecorded(self._next(), clock.wall(), message))
        self._journal.note(
            "exception raised",
            service=message.service,
            invocation=message.invocation,
            phase=message.phase,
            type=message.type,
            message=message.message,
        )

    def cluster(self, state: str, text: str) -> None:
        self._control.publish(messages.ClusterStateChanged(self._next(), clock.wall(), state, text))
        self._journal.note("cluster", state=state, text=text)
