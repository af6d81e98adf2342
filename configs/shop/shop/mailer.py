"""Writes to who has ordered; here, to its own output.

Must not be waited for: events are told, and nobody's order takes longer for them.
"""

from shop.values import Order, euros
from svcd import Service, on_event


class Mailer(Service):
    @on_event("orders.created")
    async def write(self, order: Order) -> None:
        print(f"to {order.user}: thank you for {euros(order.receipt.cents)}, {order.product} is on its way", flush=True)
