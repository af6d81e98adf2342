"""The Startable that a service is: how its stub's orders and steps become the start and the stop of design 4.2.

Must not call the service's own code: ``lifecycle`` does, in a task of its own, and the raw stop waits for it.

So ``init``, ``start`` and ``stop`` run in one task, as a task group wants it, and who cancels every task there is does
not stop the service. The states, who is told of a stop and when, and the order of the parts are ``life``'s alone.
"""

from __future__ import annotations

import asyncio
from typing import Final

from svcd.worker_runtime.exceptions import one_line
from svcd.worker_runtime.lifetime.life import State
from svcd.worker_runtime.lifetime.outcome import Outcome
from svcd.worker_runtime.lifetime.startable import Startable
from svcd.worker_runtime.orders import Orders, forgive

OWN_WISH: Final = "it asked for it"


class DeclaredFailure(Exception):  # noqa: N818 - it says what it is
    """``ctx.stop("words")``: there is no exception behind it."""


class ServiceLife(Startable):
    """Every stop goes through ``orders``, whoever asks for it, and reaches the life in the same tick."""

    def __init__(self, name: str, orders: Orders) -> None:
        super().__init__(name=name)
        self._orders = orders
        self._fallen = orders.loop.create_future()
        orders.tell_life = self._obey

    def begin(self) -> None:
        """``init`` is about to be called, in this task, as all that follows."""
        self._svcd_rules.leader = asyncio.current_task()
        self.start()

    def has_risen(self) -> bool:
        """``init`` and ``start`` have ended, well or badly; whether it runs now. If not, it is stopping."""
        return self._svcd_rules.arrived()

    async def has_fallen(self) -> BaseException | None:
        """``stop`` has ended, well or badly: let the parts stop; what went wrong with them."""
        self._svcd_rules.leader = None  # who waits here
        self._fallen.set_result(None)
        return await _settled(super().stop())

    async def raw_stop(self, error: BaseException | None) -> None:
        await _over(self._fallen)

    def stop(self, error: BaseException | None = None) -> Outcome:
        """What breaks as a part ends up here: the whole service stops, with its error."""
        if asyncio._get_running_loop() is not self._orders.loop:
            return super().stop(error)  # which says so
        self._orders.ask_stop(OWN_WISH if error is None else f"it broke: {one_line(error)}", error, own=True)
        return super().stop()

    def _obey(self, error: str | BaseException | None) -> None:
        """``orders`` have it that it is to stop."""
        if self.state is State.READY or error is None or is_good_exit(error):
            super().stop()
        else:
            super().stop(DeclaredFailure(error) if isinstance(error, str) else error)


def is_good_exit(error: object) -> bool:
    """Whether this is a ``sys.exit`` that says that all is well."""
    return isinstance(error, SystemExit) and (
        error.code is None or (isinstance(error.code, int) and error.code & 0xFF == 0)
    )


async def _over(step: asyncio.Future[None]) -> None:
    """Wait, whatever is cancelled: user code that cancels every task there is means its own."""
    while not step.done():
        try:
            await asyncio.wait({step})
        except asyncio.CancelledError:
            forgive()


async def _settled(outcome: Outcome) -> BaseException | None:
    """How it ended; whatever is cancelled meanwhile, as above."""
    while True:
        try:
            await outcome
        except asyncio.CancelledError:  # an outcome itself is never one
            forgive()
        except BaseException as error:  # whatever user code raises
            return error
        else:
            return None
