"""What clients ask for: checks, hands to the core or answers at once, and brings the core's answers back.

Must not wait for anything, nor decide what a request means to a service.
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Callable, Iterator
from typing import Any, Final

from svcd.protocol import messages
from svcd.protocol.errors import ErrorCode
from svcd.record import replace
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.asking import Asking, Make, Told
from svcd.supervisor.controller.clients.status import Status
from svcd.supervisor.controller.control import Control, Peer
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core import events
from svcd.supervisor.core.actions import AnswerRequest, Outcome
from svcd.supervisor.core.machine import Machine

NAMES_MAY_BE_NEW: Final = frozenset({messages.ApplyConfiguration, messages.UpdateServices})
SIGNALS: Final = frozenset(int(number) for number in signal.valid_signals())


class Requests:
    """Receives every client message; ``may_ask`` says whether a peer's uid is let in at all."""

    def __init__(
        self,
        control: Control,
        machine: Machine,
        registry: Registry,
        status: Status,
        asking: Asking,
        shut_down: Callable[[events.ShutdownLevel, str, Told], None],
        may_ask: Callable[[Peer], bool],
    ) -> None:
        self._control = control
        self._machine = machine
        self._registry = registry
        self._status = status
        self._asking = asking
        self._shut_down_cluster = shut_down
        self._may_ask = may_ask
        self.receivers: dict[type, Callable[[Peer, bytes, Any], None]] = {
            messages.GetStatus: self._get_status,
            messages.GetGraph: self._get_graph,
            messages.StartServices: self._start,
            messages.StopServices: self._stop,
            messages.RestartServices: self._restart,
            messages.PauseServices: self._pause,
            messages.ResumeServices: self._resume,
            messages.SignalServices: self._signal,
            messages.ShutDown: self._shut_down,
        }

    def receive(self, peer: Peer, correlation: bytes, message: messages.Message) -> None:
        """A message of one of the types in ``receivers``."""
        if not self._may_ask(peer):
            self.refuse(peer, correlation, ErrorCode.NOT_PERMITTED, f"uid {peer.uid} may not command this cluster")
            return
        single = getattr(message, "service", "")
        one = self._registry.expand([single]) if single else ()
        if len(one) > 1:
            text = f"{single} has {len(one)} instances: name one, such as {one[0]}"
            self.refuse(peer, correlation, ErrorCode.UNKNOWN_SERVICE, text)
            return
        named = type(message) not in NAMES_MAY_BE_NEW
        services = self._registry.expand(getattr(message, "services", ())) if named else ()
        unknown = [name for name in (*services, *one) if name not in self._machine.services]
        if unknown:
            self.refuse(peer, correlation, ErrorCode.UNKNOWN_SERVICE, self.unknown_text(unknown))
            return
        if services:
            message = replace(message, services=services)  # type: ignore[call-arg]
        if one:
            message = replace(message, service=one[0])  # type: ignore[call-arg]
        self.receivers[type(message)](peer, correlation, message)

    # ---- answered at once -----------------------------------------------------------------------------------------

    def _get_status(self, peer: Peer, correlation: bytes, message: messages.GetStatus) -> None:
        if message.services:
            self._control.send(peer.route, correlation, self._status.report(message.services))
        else:
            self._control.send_encoded(peer.route, correlation, self._status.encoded())

    def _get_graph(self, peer: Peer, correlation: bytes, message: messages.GetGraph) -> None:
        self._control.send(peer.route, correlation, self._status.graph())

    # ---- handed to the core ----------------------------------------------------------------------------------------

    def _start(self, peer: Peer, correlation: bytes, message: messages.StartServices) -> None:
        also = () if self._machine.is_ending else self._machine.started_along(message.services)
        self.accept(peer, correlation, lambda key: events.StartRequested(clock.now(), key, message.services), also)

    def _stop(self, peer: Peer, correlation: bytes, message: messages.StopServices) -> None:
        make = events.StopRequested
        self.accept(
            peer,
            correlation,
            lambda key: make(clock.now(), key, message.services, message.unneeded),
            *self._stopped_along(message.services),
        )

    def _restart(self, peer: Peer, correlation: bytes, message: messages.RestartServices) -> None:
        make = events.RestartRequested
        self.accept(
            peer,
            correlation,
            lambda key: make(clock.now(), key, message.services, message.rolling),
            *(self._stopped_in_turn if message.rolling else self._stopped_along)(message.services),
        )

    def _pause(self, peer: Peer, correlation: bytes, message: messages.PauseServices) -> None:
        self.accept(peer, correlation, lambda key: events.PauseRequested(clock.now(), key, message.services))

    def _resume(self, peer: Peer, correlation: bytes, message: messages.ResumeServices) -> None:
        self.accept(peer, correlation, lambda key: events.ResumeRequested(clock.now(), key, message.services))

    def _signal(self, peer: Peer, correlation: bytes, message: messages.SignalServices) -> None:
        if message.signal not in SIGNALS:
            self.refuse(peer, correlation, ErrorCode.MALFORMED, f"there is no signal {message.signal}")
            return
        make = events.SignalRequested
        self.accept(peer, correlation, lambda key: make(clock.now(), key, message.services, message.signal))

    def _shut_down(self, peer: Peer, correlation: bytes, message: messages.ShutDown) -> None:
        level = events.ShutdownLevel.NOW if message.now else events.ShutdownLevel.DRAIN
        self._shut_down_cluster(level, f"pid {peer.pid}", self.accepted(peer, correlation))

    def accept(
        self,
        peer: Peer,
        correlation: bytes,
        make: Make,
        also: tuple[str, ...] = (),
        removed: tuple[str, ...] = (),
    ) -> None:
        """Take a request into the core. ``also``: whom it moves beside those that are named; ``removed``: for good."""
        self._asking.ask(make, self.accepted(peer, correlation, also, removed))

    def accepted(
        self, peer: Peer, correlation: bytes, also: tuple[str, ...] = (), removed: tuple[str, ...] = ()
    ) -> Told:
        """Tell whoever asks that their request is in force; what is returned is to be told its end."""
        self._control.send(peer.route, correlation, messages.RequestAccepted(also, removed))
        return lambda answer: self._end(peer, correlation, answer)

    def _end(self, peer: Peer, correlation: bytes, answer: AnswerRequest) -> None:
        """The end of a request goes to whoever asked, if they are still there."""
        if answer.outcome is Outcome.REFUSED:
            self.refuse(peer, correlation, ErrorCode.REFUSED, answer.reason)
            return
        results = tuple(messages.Result(each.service, each.outcome.value, each.text) for each in answer.results)
        ended = messages.RequestEnded(answer.outcome.value, results, answer.also, answer.text)
        self._control.send(peer.route, correlation, ended)

    def refuse(self, peer: Peer, correlation: bytes, code: ErrorCode, text: str) -> None:
        self._control.send(peer.route, correlation, messages.RequestRefused(code.value, text))

    def unknown_text(self, unknown: list[str]) -> str:
        """The words for names that nobody has."""
        return self._unlike(unknown, {*self._machine.services, *self._registry.instances})

    def not_called_so(self, service: str) -> str:
        """The words for a name that nobody can be called by: calls go to services, not to an instance of one."""
        definition = self._registry.get(service)
        if definition is None:
            return self._unlike([service], set(self._registry.instances))
        return f"it is one instance of {definition.service}: call {definition.service}, which means whichever is free"

    @staticmethod
    def _unlike(unknown: list[str], names: set[str]) -> str:
        texts = []
        for name in unknown:
            near = difflib.get_close_matches(name, sorted(names), 1)
            texts.append(f"no service {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return "; ".join(texts)

    def _stopped_along(self, services: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What a stop of ``services`` stops first, because it requires them, in stop order; and those of it that go
        with a run that ends, whose children they are.
        """
        also = self._machine.stopped_along(services)
        ending = {*services, *also}
        return also, tuple(each for each in also if not ending.isdisjoint(self._ancestors(each)))

    def _stopped_in_turn(self, services: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The same, where one is stopped after the other: what needs one of several instances stays up."""
        turns = [self._stopped_along((each,)) for each in services]
        also = (name for stopped, _ in turns for name in stopped if name not in services)
        going = (name for _, removed in turns for name in removed)
        return tuple(dict.fromkeys(also)), tuple(dict.fromkeys(going))

    def _ancestors(self, name: str) -> Iterator[str]:
        view = self._machine.services.get(name)
        while view is not None and view.spec.parent is not None:
            yield view.spec.parent
            view = self._machine.services.get(view.spec.parent)
