"""The second version of billing: who has paid 100.00 gets a tenth off.

Must not ask more of its callers than the first one does: they do not notice the change.
"""

from shop import billing
from shop.values import Receipt
from svcd import rpc

LOYAL_FROM_CENTS = 100_00


class Billing(billing.Billing):
    @rpc
    async def charge(self, user: str, cents: int) -> Receipt:
        return await super().charge(user, cents - cents // 10 if await self.is_loyal(user) else cents)

    @rpc
    async def is_loyal(self, user: str) -> bool:
        return self.ledger.paid.get(user, 0) >= LOYAL_FROM_CENTS
