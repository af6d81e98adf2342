"""Transactions: everything that followed from one cause, from the first step until all is at rest again.

Must not decide anything: it is told what belongs together, keeps a bounded number of it, and is read.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from svcd.record import entity, field
from svcd.supervisor.core.actions import PublishTransition

KEPT: Final = 256  # transactions
ALIKE: Final = 8  # of these, what repeats: a crash loop does not push everything else out
STEP_LIMIT: Final = 1000  # steps that are kept of one


@entity
class Transaction:
    """``ended`` is None while one of its services is still on its way. ``services``: all that it moved, in order.
    ``kind``: what it is one more of, if it is such that may come again and again; ``earlier``: so many of these were
    just before it and are not kept, the first of them ``since`` then.
    """

    id: int
    cause: str
    began: float
    ended: float | None = None
    services: dict[str, None] = field(default_factory=dict)
    steps: list[PublishTransition] = field(default_factory=list)
    omitted: int = 0
    moving: set[str] = field(default_factory=set)
    kind: str = ""
    earlier: int = 0
    since: float | None = None

    @property
    def is_open(self) -> bool:
        return self.ended is None


class Ledger:
    """The last transactions. Those that concern nobody are not kept."""

    def __init__(self) -> None:
        self._count = 0
        self._kept: OrderedDict[int, Transaction] = OrderedDict()
        self._alike: dict[str, deque[Transaction]] = {}  # by kind, the oldest first

    def begin(self, cause: str, at: float, kind: str = "") -> Transaction:
        self._count += 1
        return Transaction(self._count, cause, at, kind=kind)

    def join(self, transaction: Transaction, service: str) -> None:
        """What this service does from now on is part of it."""
        transaction.moving.add(service)
        transaction.ended = None

    def enter(self, transaction: Transaction, step: PublishTransition) -> None:
        """Take note of one step."""
        self.keep(transaction, step.service)
        if len(transaction.steps) < STEP_LIMIT:
            transaction.steps.append(step)
        else:
            transaction.omitted += 1

    def keep(self, transaction: Transaction, service: str) -> None:
        """It concerns this service, be it without a step."""
        if transaction.id not in self._kept:
            self._kept[transaction.id] = transaction
            if transaction.kind:
                self._fold(transaction)
            if len(self._kept) > KEPT:
                self._drop(next(iter(self._kept.values())))
        transaction.services[service] = None
        self.join(transaction, service)

    def _fold(self, transaction: Transaction) -> None:
        """One more of its kind: the oldest of too many is counted by the next one, and forgotten."""
        alike = self._alike.setdefault(transaction.kind, deque())
        alike.append(transaction)
        while len(alike) > ALIKE and not alike[0].is_open:
            oldest, second = alike[0], alike[1]
            second.earlier += oldest.earlier + 1
            second.since = oldest.began if oldest.since is None else oldest.since
            self._drop(oldest)

    def _drop(self, transaction: Transaction) -> None:
        del self._kept[transaction.id]
        alike = self._alike.get(transaction.kind)
        if alike is not None:
            alike.remove(transaction)
            if not alike:
                del self._alike[transaction.kind]

    def rest(self, transaction: Transaction, service: str, at: float) -> None:
        """This service is where it was to go, as far as this transaction goes."""
        transaction.moving.discard(service)
        if not transaction.moving and transaction.is_open and transaction.services:
            transaction.ended = at

    def get(self, transaction_id: int) -> Transaction | None:
        return self._kept.get(transaction_id)

    def last(self, limit: int) -> tuple[Transaction, ...]:
        """The last ``limit`` transactions, oldest first."""
        kept = list(self._kept.values())
        return tuple(kept[-limit:] if limit > 0 else ())
