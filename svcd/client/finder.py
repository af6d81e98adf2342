"""Where services are, for a client: asked for with the first call of each, and kept as the controller tells it after.

Must not call services, nor know the connection that the controller tells it on.
"""

from __future__ import annotations

import asyncio
from typing import Final

from svcd.client.control import PATIENCE_S, Control, refusal
from svcd.protocol.call_errors import CallError, ClusterUnavailable, DeadlineExceeded
from svcd.protocol.messages import GetRoute, Message, RequestRefused, RouteReported
from svcd.worker_runtime.calls.routes import Routes

REFRESH_S: Final = 30.0  # what a service is known by is asked for again when it is used and older than that


class Finder:
    """``routes`` holds what is known; ``find`` is for who is about to call."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._loop = asyncio.get_running_loop()
        self.routes = Routes(on_missing=self._wake)
        self._known: dict[str, asyncio.Future[None]] = {}
        self._correlations: dict[str, bytes] = {}
        self._told_s: dict[str, float] = {}
        self._waking: set[asyncio.Task[None]] = set()  # the loop itself only remembers tasks weakly

    def close(self) -> None:
        for task in self._waking:
            task.cancel()

    async def find(self, service: str, deadline_s: float | None) -> None:
        """Return once ``routes`` has been told of it. Raises ``CallError``."""
        known = self._known.get(service)
        if known is not None and known.done():
            now = self._loop.time()
            if now - self._told_s[service] > REFRESH_S:
                self._told_s[service] = now
                self._control.ask_again(self._correlations[service])
            return
        await self._wait_known(service, known or self._follow(service), deadline_s)

    async def _wait_known(self, service: str, known: asyncio.Future[None], deadline_s: float | None) -> None:
        until_s = self._loop.time() + PATIENCE_S
        is_deadline = deadline_s is not None and deadline_s < until_s
        try:
            async with asyncio.timeout_at(deadline_s if is_deadline else until_s):
                await asyncio.shield(known)
        except TimeoutError:
            if is_deadline:
                raise DeadlineExceeded(f"cannot call {service}: the cluster did not say in time where it is") from None
            raise ClusterUnavailable(f"cannot call {service}: the cluster does not say where it is") from None

    def _follow(self, service: str) -> asyncio.Future[None]:
        known = self._known[service] = self._loop.create_future()
        known.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # who waits may have gone
        question = GetRoute(service, follow=True)
        self._correlations[service] = self._control.follow(question, lambda said: self._told(service, said))
        return known

    def _told(self, service: str, said: Message | CallError) -> None:
        if isinstance(said, RouteReported):
            self._told_s[service] = self._loop.time()
            self.routes.take(service, said)
            known = self._known[service]
            if not known.done():
                known.set_result(None)
        elif isinstance(said, RequestRefused):
            text = said.text if said.text.startswith("cannot ") else f"cannot call {service}: {said.text}"
            self._leave(service, refusal(said.code, text))
        elif isinstance(said, CallError):
            self._leave(service, said)

    def _leave(self, service: str, error: CallError) -> None:
        """Nothing more is told of it: who calls it next asks anew."""
        self._control.forget(self._correlations.pop(service, b""))
        known = self._known.pop(service)
        why = str(error).removeprefix(f"cannot call {service}: ")
        self.routes.missed(service, why, type(error))  # first: who waits for it to come up does not wait any longer
        self.routes.withdraw(service, why)
        if not known.done():
            known.set_exception(error)

    # ---- services that start on demand -------------------------------------------------------------------------------

    def _wake(self, service: str) -> None:
        task = self._loop.create_task(self._wake_up(service), name=f"wake {service}")
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)

    async def _wake_up(self, service: str) -> None:
        """It takes what a start takes; whoever waits for it keeps an eye on the time."""
        try:
            report = await self._control.ask(GetRoute(service, start=True), RouteReported, None)
        except CallError as error:
            self.routes.missed(service, str(error), type(error))
            return
        if report.routes:
            self.routes.take(service, report)
            self.routes.came(service)
        else:
            self.routes.missed(service, report.why)
