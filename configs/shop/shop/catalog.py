"""What the shop sells, and for how much. The simplest kind of service: it is asked, and answers.

Must not know who buys.
"""

from collections.abc import AsyncIterator
from typing import Any

from shop.values import Product
from svcd import Service, rpc


class Catalog(Service):
    async def init(self, config: dict[str, Any]) -> None:
        self.cents_of: dict[str, int] = config["products"]

    @rpc
    async def products(self) -> AsyncIterator[Product]:
        """A generator is a stream: however long it is, it goes no faster than its reader."""
        for name, cents in self.cents_of.items():
            yield Product(name, cents)

    @rpc(retry="safe")
    async def price(self, product: str) -> int:
        """In cents. Raises ``LookupError``: the caller gets it as a ``RemoteError``. Twice is as good as once."""
        if product not in self.cents_of:
            raise LookupError(f"there is no {product}: try {', '.join(self.cents_of)}")
        return self.cents_of[product]
