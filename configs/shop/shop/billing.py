"""Who has paid how much. What it knows is exported: for its next run, and for the version that takes its place.

Must not forget: each charge counts once, and only once.
"""

from dataclasses import dataclass, field
from typing import Any

from shop.values import Receipt
from svcd import Service, rpc


@dataclass
class Ledger:
    """``paid``: cents, by user."""

    receipts: int = 0
    paid: dict[str, int] = field(default_factory=dict)


class Billing(Service):
    async def init(self, config: dict[str, Any]) -> None:
        self.ledger = Ledger()

    @rpc
    async def charge(self, user: str, cents: int) -> Receipt:
        if cents <= 0:
            raise ValueError(f"{cents} cents are no charge")
        ledger = self.ledger
        ledger.receipts += 1
        ledger.paid[user] = ledger.paid.get(user, 0) + cents
        return Receipt(ledger.receipts, cents, self.ctx.version or "unknown")

    @rpc(retry="safe")
    async def paid(self, user: str) -> int:
        """In cents."""
        return self.ledger.paid.get(user, 0)

    def export_state(self) -> Ledger:
        return self.ledger

    def import_state(self, state: Ledger) -> None:
        self.ledger = state
