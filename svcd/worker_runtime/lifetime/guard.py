"""``@guarded(State.STARTED)``: a method that can only be called in certain states of its object.

Must not change what kind of function a method is: whoever looks at it sees a coroutine or an async generator function
where it was one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol, TypeVar, cast

from svcd.worker_runtime.lifetime.life import State
from svcd.worker_runtime.lifetime.outcome import Outcome, StateError

F = TypeVar("F", bound=Callable[..., Any])


class HasState(Protocol):
    """What the methods belong to: a Startable, or anything that says its state in the same words."""

    @property
    def state(self) -> State: ...


def guarded(*states: State) -> Callable[[F], F]:
    """Let a method raise ``StateError`` unless its object's ``state`` is one of ``states``.

    A sync method is checked when it is called, a coroutine when it begins to run. An async generator is checked before
    each item that is asked for: where the state was left meanwhile the StateError is raised at its ``yield``, so that
    it can clean up. What is in progress otherwise is not interrupted. The cause of the error is what the object stopped
    with. Raises ``TypeError`` when no state is named.
    """
    if not states or not all(isinstance(state, State) for state in states):
        raise TypeError("cannot guard a method without its states: write @guarded(State.STARTED)")
    allowed = frozenset(states)

    def decorate(method: F) -> F:
        if inspect.isasyncgenfunction(method):
            return cast(F, _stream(method, allowed))
        if inspect.iscoroutinefunction(method):
            return cast(F, _coroutine(method, allowed))
        return cast(F, _plain(method, allowed))

    return decorate


def _plain(method: Callable[..., Any], allowed: frozenset[State]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: HasState, *args: Any, **kwargs: Any) -> Any:
        _check(self, method, allowed)
        return method(self, *args, **kwargs)

    return call


def _coroutine(method: Callable[..., Any], allowed: frozenset[State]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def call(self: HasState, *args: Any, **kwargs: Any) -> Any:
        _check(self, method, allowed)
        return await method(self, *args, **kwargs)

    return call


def _stream(method: Callable[..., Any], allowed: frozenset[State]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def call(self: HasState, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        _check(self, method, allowed)
        inner: AsyncGenerator[Any, Any] = method(self, *args, **kwargs)
        step = inner.__anext__()
        try:
            while True:
                try:
                    item = await step
                except StopAsyncIteration:
                    return
                try:
                    sent = yield item
                    _check(self, method, allowed)
                except GeneratorExit:
                    raise
                except BaseException as thrown:  # into it, or by the check
                    step = inner.athrow(thrown)
                else:
                    step = inner.asend(sent)
        finally:
            await inner.aclose()

    return call


def _check(self: HasState, method: Callable[..., Any], allowed: frozenset[State]) -> None:
    leader: HasState = getattr(self, "_svcd_life", self)  # a Service may have a ``state`` of its own
    state = leader.state
    if state in allowed:
        return
    wanted = " or ".join(each.value for each in State if each in allowed)
    ended = getattr(leader, "ended", None)
    reason = ended.error if isinstance(ended, Outcome) else None
    raise StateError(
        f"cannot call {method.__name__}() of {type(self).__name__}: it is {state.value}, not {wanted}"
    ) from reason
