"""One Python service's process, composed: settings, signals, connection, code, lifecycle, end.

Must not be run twice in one process, nor beside other threads: signal handlers and ``sys.path`` are process-wide.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from svcd.protocol.messages import (
    CheckHealth,
    ExportState,
    HealthReported,
    ImportsRecorded,
    ImportState,
    Init,
    LoopAlive,
    Message,
    Pause,
    Ping,
    Pong,
    RemoteReady,
    Resume,
    ServiceSpec,
    Start,
    StateExported,
    StateSaved,
    Stop,
    Welcome,
)
from svcd.record import record
from svcd.worker_runtime import interpreter, sampling
from svcd.worker_runtime.body import Body, FunctionBody, ServiceBody
from svcd.worker_runtime.calls.connection import Connection, Dial
from svcd.worker_runtime.calls.describing import interface_of
from svcd.worker_runtime.calls.neighbours import Neighbours
from svcd.worker_runtime.calls.wire_socket import dial
from svcd.worker_runtime.computing.pools import Pools, pools_for
from svcd.worker_runtime.context import Context, enter
from svcd.worker_runtime.exceptions import one_line
from svcd.worker_runtime.flags import Stopping
from svcd.worker_runtime.forking.loop import StubLoop
from svcd.worker_runtime.lifecycle import USER_FAILURE, Lifecycle, exit_code_of
from svcd.worker_runtime.lifetime.service_life import OWN_WISH
from svcd.worker_runtime.load import load, prepare_path
from svcd.worker_runtime.orders import Orders
from svcd.worker_runtime.recording import Recording
from svcd.worker_runtime.reports import Reports, print_text
from svcd.worker_runtime.script import Script
from svcd.worker_runtime.service import Service

STUB_FAILURE: Final = 70  # EX_SOFTWARE of sysexits.h
SAMPLE_EVERY_S: Final = 5.0
BEATS: Final = 3  # signs of life within the time of the watchdog
PYTHON_VERSION: Final = ".".join(map(str, sys.version_info[:3]))

Value = TypeVar("Value")


class BadSettings(Exception):  # noqa: N818 - it says what is
    """The stub was started with something else than it needs."""


@record
class Settings:
    """What a stub is born with. ``control``: path of the controller's socket."""

    service: str
    invocation: int
    control: str
    cluster: str = ""
    instance: int = 0
    controller_timeout_s: float = 30.0

    @classmethod
    def read(cls, stub: Any) -> Settings:
        """From the launcher's mapping; unknown keys are ignored. Raises ``BadSettings``."""
        if not isinstance(stub, dict):
            raise BadSettings("its settings are no mapping")
        values = {name: stub[name] for name in _SETTINGS if stub.get(name) is not None}
        for name, value in values.items():
            if type(value) not in _SETTINGS[name]:
                raise BadSettings(f"{name} cannot be {value!r}")
        for name in _REQUIRED:
            if name not in values:
                raise BadSettings(f"{name} cannot be None" if name in stub else f"{name} is missing")
        return cls(**values)


_SETTINGS: Final[dict[str, frozenset[type]]] = {
    "service": frozenset({str}),
    "invocation": frozenset({int}),
    "control": frozenset({str}),
    "cluster": frozenset({str}),
    "instance": frozenset({int}),
    "controller_timeout_s": frozenset({int, float}),
}
_REQUIRED: Final = ("service", "invocation", "control")


NOBODY: Final = Settings("", 0, "")


def main(stub: Any, process: Process | None = None) -> int:
    """Run the service that ``stub`` names until it ends; the exit code. The caller ends the process with it at once.
    ``process``: one that was made before, in whose place nobody else lives.

    Exit handlers have been called and the standard streams flushed when this returns.
    """
    try:
        settings = Settings.read(stub)
        if process is None:
            interpreter.prepare()
            process = Process()
        process.take(settings)
        return process.run()
    except BadSettings as error:
        print_text(f"svcd: cannot start a stub: {error}\n")
        return STUB_FAILURE
    except Exception as error:
        if os.environ.get("SVCD_DEBUG"):
            raise
        print_text(f"svcd: the stub failed: {one_line(error)}\n")
        return STUB_FAILURE
    finally:
        interpreter.finish(print_text)


class Process:
    """Everything that one stub owns. Made before the fork, where there is one: until ``run`` it is nobody's, and holds
    no descriptor.
    """

    def __init__(self) -> None:
        self.loop = StubLoop()
        self.loop.set_exception_handler(self._on_loop_exception)
        self._settings = NOBODY
        self._stopping = Stopping()
        self._orders = Orders(self.loop, self._on_stop_asked)
        self._reports = Reports("", 0, self._send)
        self._neighbours = Neighbours(self._reports, self._send, self.loop)
        self._function: FunctionBody | None = None
        self._lifecycle: Lifecycle | None = None
        self._connection: Connection | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._ctx: Context | None = None
        self._pools: Pools | None = None
        self._watchdog_s: float | None = None
        self._checks: set[asyncio.Task[None]] = set()  # the loop itself only remembers tasks weakly
        self._controller_timeout_s = NOBODY.controller_timeout_s
        self._stop_timeout_s = 10.0

    def take(self, settings: Settings) -> None:
        """Be this one's. Raises ``OSError`` when there are no descriptors for a loop."""
        self._settings = settings
        self._controller_timeout_s = settings.controller_timeout_s
        self._reports.service, self._reports.invocation = settings.service, settings.invocation
        self.loop.open()

    def run(self, dial: Dial = dial) -> int:
        """The whole life; the exit code."""
        interpreter.settle()
        interpreter.catch_signals(self._on_terminate)
        threading.excepthook = self._on_thread_exception
        self._on_lost()  # not there yet, which may not last for ever either
        self._connection = Connection(
            self._settings.control, self.loop, self._greeting, self._receive, self._on_lost, self._on_back, dial
        )
        try:
            return self._live()
        finally:
            self._close_pools()
            self._connection.close(last=self._reports.end)

    # ---- the service ---------------------------------------------------------------------------------------------

    def _live(self) -> int:
        self._complete(self._orders.until(lambda: self._orders.spec is not None))
        spec = self._orders.spec
        if spec is None:  # stopped before there was anything to run
            self._reports.state("stopping")
            return 0
        self._controller_timeout_s, self._stop_timeout_s = spec.controller_timeout_s, spec.stop_timeout_s
        prepare_path(spec)
        if spec.script is not None:
            return Script(spec, self._orders, self._reports).run()
        try:
            found = self._load(spec)
        except (SystemExit, KeyboardInterrupt) as error:
            code = exit_code_of(error)
            self._reports.state("stopping", one_line(error) if code else None)
            return code
        except BaseException as error:
            self._reports.failed("load", error)
            return USER_FAILURE
        interface = interface_of(found, self._settings.service, self._settings.invocation)
        if interface is not None:
            self._send(interface)
        lifecycle = self._lifecycle = Lifecycle(self._body(found, spec), spec, self._orders, self._reports)
        lifecycle.on_started = self._neighbours.serve
        lifecycle.on_taking_over = self._neighbours.listen
        self._neighbours.rest = lifecycle.rest
        self._orders.leave = self._leave
        if self._ctx is not None:
            self._ctx.live(lifecycle.life)
        lifecycle.on_running = self._came_up
        lifecycle.on_paused = self._on_paused
        lifecycle.exports.is_connected = lambda: self._patience is None
        self._watchdog_s = spec.watchdog_s
        return self._complete(self._among_others(lifecycle, spec))

    async def _among_others(self, lifecycle: Lifecycle, spec: ServiceSpec) -> int:
        """The service's whole life, with what it has to do with other services around it."""
        assert self._ctx is not None
        threads = None if self._pools is None else self._pools.methods
        self._ctx.join(self._neighbours.join(spec.endpoint, spec.heard, threads))
        self._ctx.raise_children(self._neighbours.offspring, spec.parent)
        try:
            return await lifecycle.run()
        finally:
            self._neighbours.close()

    def _leave(self) -> bool:
        """Without a controller nobody would order the stop."""
        return self._patience is None and self._neighbours.leave()

    def _load(self, spec: ServiceSpec) -> Any:
        if not spec.record_imports:
            return load(spec)
        with Recording((*spec.path, *os.environ.get("PYTHONPATH", "").split(os.pathsep))) as recording:
            found = load(spec)
        if imports := recording.heavy():
            self._send(ImportsRecorded(self._settings.service, self._settings.invocation, imports))
        return found

    def _body(self, found: Any, spec: ServiceSpec) -> Body:
        settings = self._settings
        ctx = self._ctx = Context(
            settings.service,
            settings.cluster,
            settings.instance,
            settings.invocation,
            spec.config,
            self._stopping,
            lambda error: self._orders.ask_stop_of_own(OWN_WISH, error),
        )
        ctx.version = spec.version
        self._pools = pools_for(ctx, spec, self.loop)
        ctx.equip(self._pools)
        enter(ctx)
        if isinstance(found, type) and issubclass(found, Service):
            return ServiceBody(found, ctx)
        self._function = FunctionBody(found, ctx, self._orders.changed)
        return self._function

    def _close_pools(self) -> None:
        enter(None)
        if self._pools is not None:
            self._pools.close(print_text)

    def _complete(self, coroutine: Coroutine[Any, Any, Value]) -> Value:
        """Run the loop until ``coroutine`` is done. A SystemExit in some task or callback comes out of the loop itself:
        it is taken as the service's wish to end, and the loop goes on for an orderly end.
        """
        task = self.loop.create_task(coroutine, name="svcd")
        while True:
            try:
                return self.loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt) as error:
                if self._lifecycle is None or task.done():
                    raise
                self._lifecycle.quit(error)

    def _on_terminate(self) -> None:
        self._orders.ask_stop_from_anywhere("SIGTERM")

    def _on_stop_asked(self) -> None:
        if self._function is not None:
            self._function.stop_asked()
        self._stopping.set()
        self._neighbours.stop(self._orders.reason)
        if self._ctx is not None:
            self._ctx.paused.end()

    # ---- what goes wrong beside the lifecycle ------------------------------------------------------------------------

    def _on_loop_exception(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A task or callback that nobody looks after has failed: recorded; the service goes on, as in any program."""
        error = context.get("exception")
        if isinstance(error, BaseException):
            self._reports.exception(error)
        else:
            print_text(f"asyncio: {context.get('message')}\n")

    def _on_thread_exception(self, args: threading.ExceptHookArgs) -> None:
        if issubclass(args.exc_type, SystemExit):
            return
        error = args.exc_value if args.exc_value is not None else args.exc_type()
        try:
            self.loop.call_soon_threadsafe(self._reports.exception, error)
        except RuntimeError:  # the loop is closed
            threading.__excepthook__(args)

    # ---- the controller --------------------------------------------------------------------------------------------

    def _greeting(self) -> list[Message]:
        settings, last = self._settings, self._reports.last_state
        ready = RemoteReady(settings.service, settings.invocation, os.getpid(), PYTHON_VERSION)
        return [ready] if last is None else [ready, last]

    def _send(self, message: Message) -> None:
        if self._connection is not None:
            self._connection.send(message)

    def _receive(self, message: Message) -> None:
        """Obey; what is not for this invocation, or not for a stub, is ignored."""
        if getattr(message, "invocation", None) != self._settings.invocation:
            return
        if isinstance(message, Ping):
            self._send(Pong(self._settings.service, self._settings.invocation))
        elif isinstance(message, CheckHealth):
            check = self.loop.create_task(self._check_health(message), name="health")
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)
        elif isinstance(message, ServiceSpec | Init | ImportState | Start | Pause | Resume | Stop):
            self._orders.receive(message)
        elif isinstance(message, ExportState | StateSaved):
            self._on_state(message)
        elif not (self._neighbours.receive(message) or isinstance(message, Welcome)):
            print_text(f"svcd: ignored {type(message).__name__} from the controller\n")

    def _on_state(self, message: ExportState | StateSaved) -> None:
        lifecycle = self._lifecycle
        if isinstance(message, StateSaved):
            if lifecycle is not None:
                lifecycle.exports.take_saved(message)
        elif lifecycle is not None:
            lifecycle.exports.answer(message)
        else:
            name, invocation = self._settings.service, self._settings.invocation
            self._send(StateExported(name, invocation, message.token))  # a script, or nothing yet

    def _on_back(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _on_lost(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(self._controller_timeout_s, self._give_up)

    def _give_up(self) -> None:
        """The controller stayed away: stop as if told to, with our own bound on it."""
        print_text(f"svcd: no controller for {self._controller_timeout_s:g} s: stopping\n")
        self._orders.ask_stop("the controller is gone")
        self.loop.call_later(self._stop_timeout_s, _end_everything)

    # ---- signs of life -----------------------------------------------------------------------------------------------

    def _came_up(self) -> None:
        self._sample_later()
        if self._watchdog_s is not None:
            self._beat(self._watchdog_s)

    def _beat(self, watchdog_s: float) -> None:
        """Said by the loop itself, so that a loop that is blocked stays silent."""
        if not self._orders.stop_asked:
            self._send(LoopAlive(self._settings.service, self._settings.invocation))
            self.loop.call_later(watchdog_s / BEATS, self._beat, watchdog_s)

    def _on_paused(self, paused: bool) -> None:
        if self._ctx is not None and not self._orders.stop_asked:
            (self._ctx.paused.begin if paused else self._ctx.paused.end)()
            self._neighbours.pause(paused)

    async def _check_health(self, message: CheckHealth) -> None:
        settings, lifecycle = self._settings, self._lifecycle
        error = "it does not run" if lifecycle is None else await lifecycle.check_health(message.method)
        if not self._orders.stop_asked:  # what is cancelled by a stop says nothing of health
            self._send(HealthReported(settings.service, settings.invocation, message.token, error is None, error or ""))

    def _sample_later(self) -> None:
        self.loop.call_later(SAMPLE_EVERY_S, self._sample)

    def _sample(self) -> None:
        if self._orders.stop_asked:
            return
        try:
            self._send(sampling.sample(self._settings.service, self._settings.invocation))
        except (OSError, ValueError):  # out of descriptors, no /proc: a gap in a curve
            pass
        self._sample_later()


def _end_everything() -> None:
    """The stop timeout of a service without a controller: its whole process group, where it has one of its own."""
    print_text("svcd: not stopped in time: killed\n")
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(STUB_FAILURE)
