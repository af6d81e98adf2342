"""Why things are as they are: the machine's transactions, chains of causes and histories, as messages.

Must not explain anything by itself: the core keeps the causes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from svcd.protocol import messages
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.control import Control, Peer
from svcd.supervisor.controller.records import Records
from svcd.supervisor.core.actions import PublishTransition
from svcd.supervisor.core.ledger import Transaction
from svcd.supervisor.core.machine import Machine
from svcd.supervisor.core.unit import View

LIMIT = 256


class Stories:
    """Receives the messages in ``receivers``."""

    def __init__(self, control: Control, machine: Machine, records: Records) -> None:
        self._control = control
        self._records = records
        self._machine = machine
        self.receivers: dict[type, Callable[[Peer, bytes, Any], None]] = {
            messages.GetChanges: self._get_changes,
            messages.GetStory: self._get_story,
        }

    def _get_changes(self, peer: Peer, correlation: bytes, message: messages.GetChanges) -> None:
        if message.transaction is None:
            found = self._machine.changes(min(message.limit, LIMIT))
            changes = tuple(_change(each, with_steps=False) for each in found)
        else:
            one = self._machine.change(message.transaction)
            changes = () if one is None else (_change(one, with_steps=True),)
        self._control.send(peer.route, correlation, messages.ChangesReported(changes))

    def _get_story(self, peer: Peer, correlation: bytes, message: messages.GetStory) -> None:
        history = tuple(_transition(each) for each in self._machine.story(message.service))
        ids = dict.fromkeys(each.transaction for each in history)
        changes = tuple(_change(each, False) for each in map(self._machine.change, ids) if each is not None)
        chain = tuple(
            messages.Link(view.name, view.state.value, view.desired, _standing(view), clock.wall(view.since))
            for view in self._machine.chain(message.service)
        )
        remarks = tuple(messages.Remark(clock.wall(at), text) for at, text in self._records.of(message.service).notices)
        parent = self._machine.services[message.service].spec.parent
        report = messages.StoryReported(message.service, chain, history, changes, remarks, parent)
        self._control.send(peer.route, correlation, report)


def _standing(view: View) -> str:
    """The cause, and what there is to know besides."""
    words = [view.cause] if view.stand_in is None else [f"{view.stand_in} stands in", view.cause]
    if view.healthy is False and "unhealthy" not in view.cause:
        words.append(f"unhealthy: {view.ailment}".removesuffix(": "))
    return "; ".join(words)


def _change(transaction: Transaction, with_steps: bool) -> messages.Change:
    return messages.Change(
        id=transaction.id,
        cause=transaction.cause,
        began=clock.wall(transaction.began),
        ended=None if transaction.ended is None else clock.wall(transaction.ended),
        services=tuple(transaction.services),
        steps=tuple(_transition(each) for each in transaction.steps) if with_steps else (),
        omitted=transaction.omitted,
        earlier=transaction.earlier,
        since=None if transaction.since is None else clock.wall(transaction.since),
    )


def _transition(step: PublishTransition) -> messages.Transition:
    return messages.Transition(
        at=clock.wall(step.at),
        service=step.service,
        invocation=step.invocation,
        old=step.old.value,
        new=step.new.value,
        cause=step.cause,
        spent_s=step.spent_s,
        transaction=step.transaction,
    )
