"""``Startable``: what is started and stopped once, as a transaction (design 4.2), in any asyncio program.

Must not know services, the wire or the controller; must not use a thread, a clock or a logger.

``start`` and ``stop`` act when they are called; what they return can be awaited often, and a waiter that is cancelled
cancels nobody else. The rules of a life are in ``life``; this is what its owner sees of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Self

from svcd.worker_runtime.lifetime.life import Hook, Life, RawStart, RawStop, State
from svcd.worker_runtime.lifetime.outcome import Outcome, StateError

__all__ = ["Hook", "Startable", "State"]


class Startable:
    """Override ``raw_start`` and ``raw_stop``, or hand in functions; sync or async. Sync ones run on the event loop.

    Belongs to the event loop in which it is started, and to no other thread. A subclass need not call
    ``super().__init__()``. ``name`` is what errors call it; by default the name of the class.

    ``one_task`` (also ``class Pool(Startable, one_task=True)``): the raw stop runs in the same task as the raw start,
    for what must be left in the task in which it was entered: ``asyncio.TaskGroup``, anyio's cancel scopes,
    contextvars. That task waits in between; when it is cancelled, as a task group does when something in it fails, the
    stop begins.
    """

    __life: Life
    __one_task = False

    def __init_subclass__(cls, *, one_task: bool | None = None, **others: Any) -> None:
        super().__init_subclass__(**others)
        if one_task is not None:
            cls.__one_task = one_task

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        made = super().__new__(cls)
        made.__life = Life(made, cls.__name__)
        made.__life.one_task = cls.__one_task
        return made

    def __init__(
        self,
        raw_start: RawStart | None = None,
        raw_stop: RawStop | None = None,
        *,
        name: str | None = None,
        one_task: bool | None = None,
    ) -> None:
        self.__life.given_start, self.__life.given_stop = raw_start, raw_stop
        if name is not None:
            self.__life.name = name
        if one_task is not None:
            self.__life.one_task = one_task

    @property
    def _svcd_rules(self) -> Life:
        """For the runtime, whose services lead their lives themselves."""
        return self.__life

    # ---- to be overridden ----------------------------------------------------------------------------------------

    def raw_start(self) -> Awaitable[object] | object:
        """What starting consists of. May be ``async def``. Called once, by ``start``."""
        given = self.__life.given_start
        return None if given is None else given()

    def raw_stop(self, error: BaseException | None) -> Awaitable[object] | object:
        """What stopping consists of; ``error`` is why, where it stops badly. May be ``async def``. Called at most once,
        and also after a raw start that failed half-way: it puts away what is there.
        """
        given = self.__life.given_stop
        return None if given is None else given(error)

    # ---- to be called --------------------------------------------------------------------------------------------

    def start(self, on_stopping: Hook | None = None) -> Outcome:
        """Begin to start, or join the start that was begun. Awaited, it raises what the raw start has raised, once the
        stop that follows is over: nothing is half open then.

        ``on_stopping`` is called at the beginning of the stop, in the same tick, with its error or None. Whoever joins
        may give one too. It must be sync; what it raises goes to the event loop's exception handler.

        Raises ``StateError`` when it is stopping or stopped, and outside its loop; ``TypeError`` for an async hook.
        """
        return self.__life.start(on_stopping)

    def stop(self, error: BaseException | None = None) -> Outcome:
        """Begin to stop, or join the stop that was begun; while starting, it begins when the start has ended. With an
        ``error`` it is a stop by itself, for that reason. Awaited, it raises what the raw stop or a part's has raised.

        The first error given counts; later ones are kept in ``errors``. What was never started is stopped at once.

        Raises ``StateError`` when there is an ``error`` and it was never started, and outside its event loop.
        """
        return self.__life.stop(error)

    @property
    def state(self) -> State:
        """Where it stands now."""
        return self.__life.state

    @property
    def ended(self) -> Outcome:
        """How the running phase ended: settled at the beginning of the stop, with its error. Settled without one when
        it was stopped before it ever started.
        """
        return self.__life.ended

    @property
    def errors(self) -> tuple[BaseException, ...]:
        """All that went wrong in its life, each once, in order: of the start, given to ``stop``, of the stop."""
        return tuple(self.__life.errors)

    # ---- parts -----------------------------------------------------------------------------------------------------

    def start_part(self, part: Startable) -> Outcome:
        """Composition: start ``part`` as one's own. When it stops, this one stops, with its error. When this one stops,
        its parts are stopped after its raw stop, in reverse order.

        Raises ``StateError`` unless this one is starting or started and ``part`` is ready.
        """
        return self.__life.start_part(part.__life)

    def watch(self, other: Startable) -> Outcome:
        """Aggregation: rely on something that somebody else has started, and stops. When it stops, this one stops, with
        its error; nothing else. Returns the outcome of its start.

        Raises ``StateError`` unless both are starting or started.
        """
        return self.__life.watch(other.__life)

    # ---- as a block ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start. Who is cancelled here waits no more; the stop is begun as soon as the start has ended."""
        try:
            await self.start()
        except asyncio.CancelledError:
            self.stop()
            raise
        if self.state is not State.STARTED:  # told to stop meanwhile
            await self.stop()
            await self.ended
            raise StateError(f"cannot enter {self.__life.name}: it was stopped while it was starting")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Stop, with the block's exception as the error. What has stopped it before is raised where nothing else is."""
        await self.stop(error if isinstance(error, Exception) else None)
        if error is None:
            await self.ended

    def __repr__(self) -> str:
        return f"<{self.__life.name}: {self.state.value}>"
