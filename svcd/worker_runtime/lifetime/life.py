"""The life of a Startable: its states, what may follow what, and what each call does in each of them (design 4.2).

Must not be used but by ``startable``. It is an object of its own, so that subclasses may use what names they like.

Rules. A raw start is never interrupted: a stop waits for its end, well or badly. A raw start that failed is followed by
the raw stop. When a stop begins, everybody who gave a hook is told in the same tick, with the error. The raw calls run
in tasks of their own, which last as long as they do, or in one that waits between them (``one_task``). Whatever they
raise, a cancellation among it, is their outcome. A life may have a ``leader``: a task that does what starting consists
of, and says in ``arrived`` when that is done.
"""

from __future__ import annotations

import asyncio
import inspect
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from enum import Enum
from typing import Any, Final, Protocol

from svcd.worker_runtime.lifetime.outcome import Outcome, StateError, without_cancellation

Hook = Callable[[BaseException | None], object]
"""Called at the beginning of a stop with its error, or None. What it returns is ignored."""
RawStart = Callable[[], Awaitable[object] | object]
RawStop = Callable[[BaseException | None], Awaitable[object] | object]


class Body(Protocol):
    """Whose life it is. Its own ``start`` and ``stop`` are used where it is a part: a subclass may have more to do."""

    def raw_start(self) -> Awaitable[object] | object: ...
    def raw_stop(self, error: BaseException | None) -> Awaitable[object] | object: ...
    def start(self, on_stopping: Hook | None = None) -> Outcome: ...
    def stop(self, error: BaseException | None = None) -> Outcome: ...


class State(Enum):
    """Where a Startable stands. The order is that of its life."""

    READY = "ready"  # made, never started
    STARTING = "starting"  # the raw start runs
    STARTED = "started"  # usable
    STOPPING = "stopping"  # the raw stop runs, then the parts stop
    STOPPED = "stopped"  # for good


FOLLOWING: Final[dict[State, frozenset[State]]] = {
    State.READY: frozenset({State.STARTING, State.STOPPED}),
    State.STARTING: frozenset({State.STARTED, State.STOPPING}),
    State.STARTED: frozenset({State.STOPPING}),
    State.STOPPING: frozenset({State.STOPPED}),
    State.STOPPED: frozenset(),
}
"""Which state may follow which."""


class Answer(Enum):
    """What a call of ``start`` or ``stop`` does."""

    BEGIN = "begins"
    JOIN = "joins"
    WAIT = "begins when the start has ended"
    SKIP = "goes straight to stopped"
    REFUSE = "raises StateError"


AT_START: Final[dict[State, Answer]] = {
    State.READY: Answer.BEGIN,
    State.STARTING: Answer.JOIN,
    State.STARTED: Answer.JOIN,
    State.STOPPING: Answer.REFUSE,
    State.STOPPED: Answer.REFUSE,
}
AT_STOP: Final[dict[State, Answer]] = {
    State.READY: Answer.SKIP,
    State.STARTING: Answer.WAIT,
    State.STARTED: Answer.BEGIN,
    State.STOPPING: Answer.JOIN,
    State.STOPPED: Answer.JOIN,
}
assert set(FOLLOWING) == set(AT_START) == set(AT_STOP) == set(State), "each table answers for every state"

_RUNNING: Final[set[asyncio.Task[None]]] = set()  # the loop itself only remembers tasks weakly


class Life:
    """All that a Startable knows. ``body`` is the object whose life it is."""

    __slots__ = (
        "_hooks",
        "_loop",
        "_owned",
        "_parked",
        "_stop_asked",
        "_task",
        "_watched",
        "body",
        "ended",
        "errors",
        "given_start",
        "given_stop",
        "leader",
        "name",
        "one_task",
        "started",
        "state",
        "stopped",
    )

    def __init__(self, body: Body, name: str) -> None:
        self.body = body
        self.name = name
        self.one_task = False
        self.leader: asyncio.Task[Any] | None = None
        self.given_start: RawStart | None = None
        self.given_stop: RawStop | None = None
        self.state = State.READY
        self.started = Outcome("start()", self)
        self.ended = Outcome("the end", self)
        self.stopped = Outcome("stop()", self)
        self.errors: list[BaseException] = []
        self._hooks: list[Hook] = []
        self._owned: list[Life] = []
        self._watched: list[tuple[Life, Hook]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._parked: asyncio.Future[None] | None = None
        self._stop_asked = False

    # ---- what is called --------------------------------------------------------------------------------------------

    def start(self, hook: Hook | None) -> Outcome:
        answer = AT_START[self.state]
        if answer is Answer.REFUSE:
            raise StateError(f"cannot start {self.name}: it is {self.state.value}, and runs only once; make a new one")
        if hook is not None:
            _check_hook(hook)
        self._check_loop("start")
        if hook is not None:
            self._hooks.append(hook)
        if answer is Answer.BEGIN:
            self._become(State.STARTING)
            if self.leader is None:
                self._run(self._rise())
        return self.started

    def arrived(self) -> bool:
        """The leader has done its start; whether it is started now, or stopping: a stop was asked for meanwhile."""
        if not self._arrive(None):
            self._run(self._leave(None, late=True))
        return self.state is State.STARTED

    def stop(self, error: BaseException | None) -> Outcome:
        answer = AT_STOP[self.state]
        if error is not None:
            self._check_error(error)
        if self.state not in (State.READY, State.STOPPED):
            self._check_loop("stop")
        if error is not None:
            self._keep(without_cancellation(error, f"whoever stopped {self.name}"))
        if answer is Answer.SKIP:
            self._become(State.STOPPED)
            self.ended.settle()
            self.stopped.settle()
        elif answer is Answer.WAIT:
            self._stop_asked = True
        elif answer is Answer.BEGIN:
            self._begin_stop()
            if self._parked is None:
                self._run(self._fall())
            elif not self._parked.done():  # or it was cancelled in this very tick
                self._parked.set_result(None)
        return self.stopped

    def start_part(self, its: Life) -> Outcome:
        self._check_alive(f"start {its.name}")
        if its.state is not State.READY:
            problem = f"cannot start {its.name} as a part of {self.name}: it is {its.state.value}"
            raise StateError(f"{problem}; use watch() for what somebody else has started")
        outcome = its.body.start(self.body.stop)
        self._owned.append(its)
        return outcome

    def watch(self, its: Life) -> Outcome:
        self._check_alive(f"watch {its.name}")
        if its.state not in (State.STARTING, State.STARTED):
            raise StateError(f"cannot watch {its.name} for {self.name}: it is {its.state.value}, not started")
        hook = self.body.stop
        outcome = its.body.start(hook)
        self._watched.append((its, hook))
        return outcome

    # ---- what follows ----------------------------------------------------------------------------------------------

    async def _rise(self) -> None:
        """The start; and the stop, where one is due by then."""
        error = await self._caught("raw start", self.body.raw_start, late=True)
        if self._arrive(error):
            if not self.one_task:
                return
            await self._stay()
        await self._leave(error)

    def _arrive(self, error: BaseException | None) -> bool:
        """The start has ended so; whether it is started now."""
        if error is not None or self._stop_asked:
            self._come_down(error)
            return False
        self._become(State.STARTED)
        self._settle(self.started, None)
        return True

    async def _leave(self, error: BaseException | None, late: bool = False) -> None:
        """The stop that follows in the same task; ``error`` is that of the start."""
        failure = await self._put_away(late)
        if error is not None:
            if failure is not None and failure is not error:
                with suppress(TypeError):  # user code may have put anything into its notes
                    error.add_note(f"The stop of {self.name} that followed has failed too: {type(failure).__name__}")
            self._settle(self.started, error)
        self._settle(self.stopped, failure)

    async def _stay(self) -> None:
        """``one_task``: until a stop has begun. A cancellation begins one: so does a task group that was entered in the
        raw start, when something in it fails.
        """
        assert self._loop is not None
        parked = self._parked = self._loop.create_future()
        error = await self._caught("task", lambda: parked)
        if error is not None:
            self._keep(error)
        if self.state is State.STARTED:
            self._begin_stop()

    def _come_down(self, error: BaseException | None) -> None:
        """The start has failed with ``error``, or a stop was asked for meanwhile."""
        if error is not None:
            self._keep(error)
        else:
            self._settle(self.started, None)
        self._begin_stop()

    async def _fall(self) -> None:
        self._settle(self.stopped, await self._put_away(late=True))

    def _begin_stop(self) -> None:
        """From here on it is stopping; everybody knows when this returns."""
        self._become(State.STOPPING)
        error = self.errors[0] if self.errors else None
        self.ended.settle(error)
        hooks, self._hooks = self._hooks, []
        for hook in hooks:
            self._tell(hook, error)
        watched, self._watched = self._watched, []
        for other, own in watched:  # they may live for long, and would keep this one
            other._hooks = [hook for hook in other._hooks if hook is not own]

    async def _put_away(self, late: bool = False) -> BaseException | None:
        """The raw stop, then the parts in reverse order, each whatever became of those before; what went wrong."""
        error = self.ended.error
        failures = [await self._caught("raw stop", lambda: self.body.raw_stop(error), late)]
        while self._owned:
            failures.append(await self._caught("stop of a part", self._owned.pop().body.stop))
        distinct = list({id(failure): failure for failure in failures if failure is not None}.values())
        for failure in distinct:
            self._keep(failure)
        self._become(State.STOPPED)
        if len(distinct) > 1:
            return BaseExceptionGroup(f"the stop of {self.name} and of its parts", distinct)
        return distinct[0] if distinct else None

    async def _caught(
        self, what: str, call: Callable[[], Awaitable[object] | object], late: bool = False
    ) -> BaseException | None:
        """What ``call`` raises, be it a SystemExit or a cancellation. ``late``: begin in the next tick."""
        try:
            if late:
                await _next_tick()
                self._task = asyncio.current_task()
            result = call()
            if inspect.isawaitable(result):
                await result
            elif inspect.isgenerator(result) or inspect.isasyncgen(result):
                raise TypeError(f"the {what} of {self.name} cannot be a generator: nobody would run it")
        except BaseException as error:
            if asyncio._get_running_loop() is not self._loop:  # the loop is gone: nothing can be awaited any more
                raise
            _forgive(asyncio.current_task())
            return without_cancellation(error, f"the {what} of {self.name}")
        return None

    def _settle(self, outcome: Outcome, error: BaseException | None) -> None:
        """A SystemExit or KeyboardInterrupt that nobody waits for goes out of the event loop, as from any task."""
        heard = outcome.awaited
        outcome.settle(error)
        if isinstance(error, SystemExit | KeyboardInterrupt) and not heard and self._loop is not None:
            self._loop.call_soon(_raise, error)

    def _tell(self, hook: Hook, error: BaseException | None) -> None:
        """A hook that raises keeps nobody else from being told, and nothing from being stopped."""
        assert self._loop is not None
        try:
            result = hook(error)
            if inspect.iscoroutine(result):
                result.close()
                raise TypeError("it returned a coroutine, which nobody would await")
        except (SystemExit, KeyboardInterrupt) as order:
            self._loop.call_soon(_raise, order)
        except BaseException as failure:
            message = f"a hook failed that was to be told that {self.name} is stopping"
            self._loop.call_exception_handler({"message": message, "exception": failure})

    # ---- small parts -------------------------------------------------------------------------------------------------

    def _run(self, steps: Coroutine[Any, Any, None]) -> None:
        """In a task of its own. Its first step is made here: a task that is cancelled before would never begin. No task
        factory is asked, as an eager one would have the raw call run within ours.
        """
        assert self._loop is not None
        steps.send(None)
        task = asyncio.Task(steps, loop=self._loop, name=f"{self.name} {self.state.value}")
        _RUNNING.add(task)
        task.add_done_callback(_RUNNING.discard)

    def _become(self, state: State) -> None:
        assert state in FOLLOWING[self.state], f"{self.name} cannot go from {self.state.value} to {state.value}"
        self.state = state

    def _keep(self, error: BaseException) -> None:
        if not any(error is kept for kept in self.errors):
            self.errors.append(error)

    def is_own_task(self) -> bool:
        task = asyncio.current_task()
        return task is not None and task in (self._task, self.leader)

    def _check_error(self, error: object) -> None:
        if not isinstance(error, BaseException):
            raise TypeError(f"cannot stop {self.name} with {type(error).__name__}: an error is an exception, or None")
        if self._loop is None:
            raise StateError(f"cannot stop {self.name} with an error: it was never started")

    def _check_alive(self, what: str) -> None:
        if self.state not in (State.STARTING, State.STARTED):
            raise StateError(f"cannot {what} for {self.name}: that one is {self.state.value}, not starting or started")

    def _check_loop(self, verb: str) -> None:
        loop = asyncio._get_running_loop()
        if loop is None:
            raise StateError(f"cannot {verb} {self.name}: no event loop runs in this thread")
        if self._loop is not None and self._loop is not loop:
            raise StateError(
                f"cannot {verb} {self.name}: it belongs to another event loop; use its call_soon_threadsafe"
            )
        self._loop = loop


def _check_hook(hook: Hook) -> None:
    if not callable(hook):
        raise TypeError(f"cannot tell {type(hook).__name__} of a stop: it is not callable")
    if inspect.iscoroutinefunction(hook):
        raise TypeError("cannot take an async function as a hook: it is called, not awaited; let it start a task")


def _forgive(task: asyncio.Task[Any] | None) -> None:
    """A cancellation was this step's failure: the next one is not to find it."""
    while task is not None and task.cancelling():
        task.uncancel()


def _raise(error: BaseException) -> None:
    raise error


@types.coroutine
def _next_tick() -> Generator[None, None, None]:
    yield
