"""What has been asked of this process so far: by the controller, by a signal, by the service itself.

Must not act on it: the lifecycle waits here and acts. Everything but ``ask_stop_from_anywhere`` belongs to the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from svcd.protocol.errors import ProtocolError
from svcd.protocol.messages import ImportState, Init, Message, Pause, Resume, ServiceSpec, Start, Stop
from svcd.protocol.state_parts import Assembly


class Orders:
    """``stop_asked`` ends every wait. Only the first reason counts. ``tell_life`` gets every stop, in the same tick.
    ``leave`` asks for a drain before the service stops by itself; whether somebody will order the stop then.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_stop: Callable[[], None]) -> None:
        self.loop = loop
        self.spec: ServiceSpec | None = None
        self.init_asked = False
        self.start_asked = False
        self.import_asked = False
        self.state: bytes | None = None  # to be imported, once it is whole
        self.state_version: str | None = None
        self._assembly = Assembly()
        self.pause_asked = False  # the last that was asked: to pause, or not to
        self.pause_news = False
        self.stop_asked = False
        self.reason = ""
        self.own_wish = False  # it stops well, and because it has asked for it
        self.tell_life: Callable[[str | BaseException | None], None] = lambda error: None
        self.leave: Callable[[], bool] = lambda: False
        self._left = ""  # why it has asked for its own end, which the controller orders now
        self._on_stop = on_stop
        self._wake: asyncio.Future[None] | None = None

    def receive(self, message: Message) -> None:
        """An order of the controller."""
        if isinstance(message, ServiceSpec):
            self.spec = self.spec or message
        elif isinstance(message, Init):
            self.init_asked = True
        elif isinstance(message, Start):
            self.start_asked = True
        elif isinstance(message, ImportState):
            self._take_state(message)
        elif isinstance(message, Pause | Resume):
            self.pause_asked = isinstance(message, Pause)
            self.pause_news = True
        elif isinstance(message, Stop):
            self.ask_stop(self._left or message.reason)
        self.changed()

    def _take_state(self, message: ImportState) -> None:
        """A state that does not come whole is none: ``import_asked`` says that there should be one."""
        self.import_asked = True
        try:
            self.state = self._assembly.add(message.part, message.parts, message.data)
        except ProtocolError:
            self.state = None
        self.state_version = message.version

    def ask_stop(self, reason: str, error: str | BaseException | None = None, own: bool = False) -> None:
        """Stop, once whatever is in progress has ended; joins a stop that was asked for already. ``own``: by the
        service itself.
        """
        if not self.stop_asked:
            self.stop_asked, self.reason, self.own_wish = True, reason, own and error is None
            self._on_stop()
        self.tell_life(error)
        self.changed()

    def ask_stop_of_own(self, reason: str, error: str | BaseException | None = None) -> None:
        """For the service's own code: at once where that runs on the loop, soon from another thread. Who stops well
        leaves first, if it can: requests in flight are finished.
        """
        if asyncio._get_running_loop() is self.loop:
            self._stop_of_own(reason, error)
        else:
            self._soon(self._stop_of_own, reason, error)

    def _stop_of_own(self, reason: str, error: str | BaseException | None) -> None:
        if error is None and not self.stop_asked and self.leave():
            self._left = reason
        else:
            self.ask_stop(reason, error, own=True)

    def ask_stop_from_anywhere(self, reason: str) -> None:
        """``ask_stop`` for other threads and signal handlers."""
        self._soon(self.ask_stop, reason)

    def _soon(self, action: Callable[..., None], *arguments: object) -> None:
        try:
            self.loop.call_soon_threadsafe(action, *arguments)
        except RuntimeError:  # the loop is closed: the end is near anyhow
            pass

    def changed(self) -> None:
        """Let the waiting lifecycle look again."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def until(self, condition: Callable[[], bool]) -> bool:
        """Wait for ``condition`` or a stop; True when the condition holds and nobody has asked for a stop."""
        while not (self.stop_asked or condition()):
            self._wake = self.loop.create_future()
            try:
                await self._wake
            except asyncio.CancelledError:  # user code that cancels every task there is means its own
                forgive()
        return not self.stop_asked


def forgive() -> None:
    """A cancellation was caught here: the next thing that is awaited is not to find it."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
