"""The steps of a service inside its stub: init, start, run, stop, each once and in this order.

Must not know sockets or processes: orders come in through ``Orders``, what is reached goes out through ``Reports``.
What a stop waits for, and who is told of it when, is not decided here but by the ``ServiceLife`` (design 4.2).

``stop`` of the user's code is called once ``init`` has begun, even where ``init`` or ``start`` failed, and never
otherwise. ``stopping`` is reported before ``stop`` runs, with the error where there is one. Whatever user code raises
ends in a record and an exit code, not in the stub.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from svcd.protocol.messages import ServiceSpec
from svcd.worker_runtime.body import Body, StateMismatch
from svcd.worker_runtime.calls.exporting import Exports
from svcd.worker_runtime.exceptions import linked_with, one_line
from svcd.worker_runtime.lifetime.life import State
from svcd.worker_runtime.lifetime.service_life import DeclaredFailure, ServiceLife
from svcd.worker_runtime.orders import Orders
from svcd.worker_runtime.reports import Reports, print_text

OK: Final = 0
USER_FAILURE: Final = 1
INTERRUPTED: Final = 130
LEFTOVER_TASKS_S: Final = 1.0


class Lifecycle:
    """``on_started`` is called with the service's object when its start has ended well; what it raises makes that a
    failed one. ``on_taking_over`` is awaited after that by one that replaces another run. ``on_running`` is called when
    the service has come up, ``on_paused`` when it was paused or resumed.

    A pause or a resume is a step like the others: a stop waits for its end. Who is paused is not paused again.
    """

    def __init__(self, body: Body, spec: ServiceSpec, orders: Orders, reports: Reports) -> None:
        self._body = body
        self._spec = spec
        self._orders = orders
        self._reports = reports
        self.life = ServiceLife(spec.service, orders)
        self.exports = Exports(body, spec, reports, orders.loop)
        self._taken: list[BaseException] = []
        self.exit_code = OK
        self.on_started: Callable[[object], None] = lambda target: None
        self.on_taking_over: Callable[[], Awaitable[None]] = _at_once
        self.on_running: Callable[[], None] = lambda: None
        self.on_paused: Callable[[bool], None] = lambda paused: None
        self._paused = False
        self._checking = False
        self._resting = False

    async def run(self) -> int:
        """Everything, from ``loaded`` to the end; the exit code."""
        self._reports.state("loaded")
        if await self._orders.until(lambda: self._orders.init_asked):
            self.life.begin()
            well, runs = await self._rise(), self.life.has_risen()
            if runs or (well and self._orders.own_wish):  # who says in its start that it is done was up
                self._come_up()
            if runs:
                await self._stay()
        await self._fall()
        return self.exit_code

    def quit(self, error: BaseException) -> None:
        """A SystemExit or KeyboardInterrupt came out of the event loop, which stands still: end with its code."""
        self._orders.loop.call_soon(self._take, error, self._reports.phase)

    # ---- up ------------------------------------------------------------------------------------------------------

    async def _rise(self) -> bool:
        """init and start, as far as they go; whether both have ended well."""
        orders, reports = self._orders, self._reports
        if not await self._attempt("init", self._body.init(self._spec.config)):
            return False
        reports.state("initialized")
        if not await orders.until(lambda: orders.start_asked):
            return False
        reports.state("starting")
        if orders.import_asked and not await self._attempt("import", self._import()):
            return False
        return await self._attempt("start", self._start())

    async def _import(self) -> None:
        from svcd.worker_runtime.state import unpack_state  # noqa: PLC0415 - for the few services that import

        orders = self._orders
        if orders.state is None:
            raise StateMismatch("the state that was to be imported did not come whole")
        state, orders.state = unpack_state(orders.state), None
        await self._body.import_state(state, orders.state_version)

    def _come_up(self) -> None:
        self._reports.phase = "run"
        self._reports.state("running")
        self.exports.begin()
        self.on_running()

    async def _start(self) -> None:
        await self._body.start()
        if not self._orders.stop_asked:
            self.on_started(self._body.target)
            if self._spec.takes_over:
                await self.on_taking_over()

    async def _stay(self) -> None:
        """Until somebody asks for a stop, or the code ends by itself."""
        orders = self._orders
        while await orders.until(lambda: self._body.ended() or orders.pause_news) and not self._body.ended():
            orders.pause_news = False
            await self._set_paused(orders.pause_asked)
        if self._body.ended():
            error = self._body.outcome()
            if error is not None:
                self._take(error, "run")

    async def _set_paused(self, wanted: bool) -> None:
        """Pause or resume. Where the service's own code fails at it, all stays as it was, and that is said."""
        phase, reports = "pause" if wanted else "resume", self._reports
        error: BaseException | None = None
        if wanted is not self._paused:
            error = await self._caught(self._body.pause() if wanted else self._body.resume())
        if isinstance(error, SystemExit | KeyboardInterrupt):
            self._take(error, phase)
            return
        if error is not None:
            reports.exception(error, phase)
        elif wanted is not self._paused:
            self._paused = wanted
            self.on_paused(wanted)
        state = "paused" if self._paused else "running"
        reports.state(state, None if error is None else one_line(error), again=True)

    async def rest(self, wanted: bool) -> str | None:
        """For a successor: the service's own code rests as in a pause, or goes on; nobody is told. Why it does not."""
        if wanted is self._resting or self._paused or self.life.state is not State.STARTED:
            return None
        error = await self._caught(self._body.pause() if wanted else self._body.resume())
        if isinstance(error, SystemExit | KeyboardInterrupt):
            self._take(error, "pause" if wanted else "resume")
            return one_line(error)
        if error is not None:
            self._reports.exception(error, "pause" if wanted else "resume")
            return f"{'pause' if wanted else 'resume'}() failed: {one_line(error)}"
        self._resting = wanted
        self.on_paused(wanted)
        return None

    @staticmethod
    async def _caught(step: Awaitable[None]) -> BaseException | None:
        try:
            await step
        except BaseException as error:  # whatever user code raises
            return error
        return None

    async def check_health(self, method: str) -> str | None:
        """Ask the service's own method how it is; None when it is well, else what is wrong."""
        if self.life.state is not State.STARTED:
            return "it does not run"
        if self._checking:
            return f"{method}(): the check before has not ended"
        self._checking = True
        try:
            return await self._body.check_health(method)
        except BaseException as error:  # whatever user code raises
            return f"{method}(): {one_line(error)}"
        finally:
            self._checking = False

    async def _attempt(self, phase: str, step: Awaitable[None]) -> bool:
        self._reports.phase = phase
        try:
            await step
        except BaseException as error:  # SystemExit, KeyboardInterrupt and CancelledError of user code among them
            self._take(error, phase)
            return False
        return True

    # ---- down ----------------------------------------------------------------------------------------------------

    async def _fall(self) -> None:
        """Report the stop, run it, and clear what is left on the loop."""
        orders, reports = self._orders, self._reports
        orders.ask_stop("it ended by itself")  # where nobody has asked yet: sets ctx.stopping
        self._take_reason(self.life.ended.error)
        reports.state("stopping")
        if self.exit_code == OK and self.life.ended.error is None:
            await self.exports.keep()
        self.exports.end()
        if self.life.state is State.STOPPING:  # what never began is stopped by now
            await self._attempt("stop", self._body.stop(orders.reason))
            error = await self.life.has_fallen()
            if error is not None:
                self._take(error, "stop")
        await self._cancel_leftovers()

    def _take_reason(self, error: BaseException | None) -> None:
        """Why it stops badly: ``ctx.stop(error)``, or a part that broke."""
        if isinstance(error, DeclaredFailure):
            self.exit_code = self.exit_code or USER_FAILURE
            self._reports.state("stopping", str(error).partition("\n")[0])
            print_text(f"{error}\n")
        elif error is not None:
            self._take(error, "run")

    async def _cancel_leftovers(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LEFTOVER_TASKS_S)
        for task in tasks:
            error = task.exception() if task.done() and not task.cancelled() else None
            if error is not None:
                self._reports.exception(error, "stop")

    # ---- failures ------------------------------------------------------------------------------------------------

    def _take(self, error: BaseException, phase: str) -> None:
        """Record what came out of user code, and let the service end. The first failure decides the exit code.

        One that went up through several hands (out of a part, and out of the ``start`` that awaited it) is one failure.
        """
        if any(linked_with(each, error) for each in self._taken):
            return
        self._taken.append(error)
        if isinstance(error, SystemExit | KeyboardInterrupt):
            code = exit_code_of(error)
            if code != OK:
                self._reports.state("stopping", one_line(error))
        else:
            code = USER_FAILURE
            if phase == "stop":
                self._reports.exception(error, phase)
            else:
                self._reports.failed(phase, error)
        self.exit_code = self.exit_code or code
        self._orders.ask_stop(f"{phase} ended with {one_line(error)}", error)


async def _at_once() -> None:
    """Nothing is to be waited for."""


def exit_code_of(error: SystemExit | KeyboardInterrupt) -> int:
    """What a Python program would exit with; a text is printed as it would be."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    code = error.code
    if code is None:
        return OK
    if isinstance(code, int):
        return code & 0xFF
    try:
        print_text(f"{code}\n")
    except Exception:  # its __str__ is user code
        pass
    return USER_FAILURE
