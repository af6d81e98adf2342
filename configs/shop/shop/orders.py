"""Takes orders: asks the catalog for the price, has billing charge it, and tells who wants to hear of it.

Must not know who listens.
"""

from collections.abc import AsyncIterator
from typing import Any

from shop.billing import Billing
from shop.catalog import Catalog
from shop.values import Order
from svcd import RemoteError, Service, rpc


class Orders(Service):
    async def init(self, config: dict[str, Any]) -> None:
        self.all: list[Order] = []
        self.catalog = self.ctx.service(Catalog)
        self.billing = self.ctx.service(Billing)

    @rpc
    async def place(self, user: str, product: str) -> Order:
        """Raises ``LookupError`` for what the catalog does not have."""
        try:
            cents = await self.catalog.price(product)
        except RemoteError as error:  # the buyer need not know who has said it
            raise LookupError(error.text) from None
        receipt = await self.billing.charge(user, cents)
        order = Order(len(self.all) + 1, user, product, receipt)
        self.all.append(order)
        self.ctx.publish("created", order)
        return order

    @rpc
    async def history(self, after: int = 0) -> AsyncIterator[Order]:
        """The orders that there are now, from the one after number ``after`` on."""
        for order in self.all[after:]:
            yield order

    def export_state(self) -> list[Order]:
        return self.all

    def import_state(self, state: list[Order]) -> None:
        self.all = state
