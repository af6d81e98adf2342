"""``Service``: the base of a service's class, with what its author may write.

Must not do anything by itself: the order in which its methods are called is the lifecycle's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

if TYPE_CHECKING:  # a service that neither calls nor is called does not pay for it
    from svcd.protocol.child_errors import ChildFailed
    from svcd.worker_runtime.context import Context
    from svcd.worker_runtime.lifetime.life import State
    from svcd.worker_runtime.lifetime.outcome import Outcome
    from svcd.worker_runtime.lifetime.startable import Startable
    from svcd.worker_runtime.offspring import Child

Shown = TypeVar("Shown")


class _OfLife(Generic[Shown]):
    """Something of the service's life; hidden where a subclass or its object has an attribute of that name."""

    __slots__ = ("_look",)

    def __init__(self, look: Callable[[Startable], Shown]) -> None:
        self._look = look

    @overload
    def __get__(self, service: None, owner: type[Service]) -> Self: ...
    @overload
    def __get__(self, service: Service, owner: type[Service]) -> Shown: ...
    def __get__(self, service: Service | None, owner: type[Service]) -> Self | Shown:
        return self if service is None else self._look(service.ctx.life)


class Service:
    """Base of a service's class. Each method may be ``async def`` or plain; plain ones run in one thread of their own.

    ``start`` returns once others may use the service; it then runs until it is told to stop. ``stop`` is called
    once ``init`` was, even where ``init`` or ``start`` failed. ``self.ctx`` is there before ``__init__`` is called.

    It is a Startable, with the life ``self.ctx.life``: what it is made of is started by ``start_part`` or observed by
    ``watch``, ``state`` and ``ended`` say where it stands, ``@guarded`` holds for its methods. These names are free
    for uses of your own; ``self.ctx.life`` has them always.
    """

    ctx: Context
    state: _OfLife[State] = _OfLife(lambda life: life.state)
    ended: _OfLife[Outcome] = _OfLife(lambda life: life.ended)

    @property
    def _svcd_life(self) -> Startable:
        """For ``@guarded``."""
        return self.ctx.life

    def init(self, config: dict[str, Any]) -> Awaitable[None] | None:
        """Prepare: ``config`` is the mapping from the cluster file."""
        return None

    def start(self) -> Awaitable[None] | None:
        """Begin to serve."""
        return None

    def stop(self, reason: str) -> Awaitable[None] | None:
        """Put everything away; ``reason`` says why, in words for a log."""
        return None

    def pause(self) -> Awaitable[None] | None:
        """Keep everything, begin nothing: called by ``svcd pause``. What it raises leaves the service running.

        ``self.ctx.paused`` is set once it has returned, until ``resume`` has. A stop does not resume first.
        """
        return None

    def resume(self) -> Awaitable[None] | None:
        """Go on where ``pause`` has stopped. What it raises leaves the service paused."""
        return None

    def child_ended(self, child: Child[Any], error: ChildFailed | None) -> Awaitable[None] | None:
        """A child has ended by itself: badly, for ``error``, or well. What its own restart policy says happens anyway:
        ``child.state`` tells. To give up with it: ``self.fail(error)``.
        """
        return None

    def export_state(self) -> Any:
        """What a later run, or the next version, is to know: called at an orderly stop before ``stop``, with
        ``state: keep`` also every so often, and for a hot update. Must leave the service as it is.

        Returns anything that can travel: None, bool, int, float, str, bytes, dates, enums, dataclasses, numpy arrays,
        and lists, tuples, sets and dicts of them. What cannot is left out, and named in the log.
        """
        return None

    def import_state(self, state: Any) -> Awaitable[None] | None:
        """Take over what was exported: called after ``init`` and before ``start``. What it raises is a failed start.

        It gets lists for tuples and sets, dicts for dataclasses, values for enums, unless its annotation says what
        they are. ``self.ctx.state_version`` is the version that has exported it.
        """
        return None

    def start_part(self, part: Startable) -> Outcome:
        """Start ``part`` as one's own: see ``Startable.start_part``. On the event loop, so not in a plain method."""
        return self.ctx.life.start_part(part)

    def watch(self, other: Startable) -> Outcome:
        """Rely on what somebody else has started: see ``Startable.watch``. On the event loop as well."""
        return self.ctx.life.watch(other)

    def fail(self, error: str | BaseException) -> None:
        """End badly: the same as ``self.ctx.stop(error)``."""
        self.ctx.stop(error)
