"""One life of a stub without a process, a socket or user code, before any fork: what is done once here is shared.

Must not leave anything behind: no thread, no descriptor, no file, no module, no change of ``sys.path``.

A fork copies each page of memory that it writes to, and CPython writes to almost everything it looks at: compiled
message shapes, method caches, specialised bytecode. With 100 forked services: 0.8 MiB and 1 ms of CPU less each.
"""

from __future__ import annotations

import asyncio
import linecache
import os
import shutil
import socket
import sys
from typing import Final

from svcd.protocol import codec, zmtp
from svcd.protocol.limits import MAX_MESSAGE_BYTES
from svcd.protocol.messages import (
    Drain,
    EndpointOpened,
    ExceptionRaised,
    Init,
    Message,
    Pause,
    PeerAsked,
    PeerIdentified,
    Ping,
    Pong,
    RemoteReady,
    ReportUse,
    ResourceSampled,
    Resume,
    Route,
    RouteChanged,
    ServiceSpec,
    Start,
    StateChanged,
    Stop,
    Welcome,
)
from svcd.record import replace
from svcd.worker_runtime.connection import Connection
from svcd.worker_runtime.load import CODE_MODULE, code_file
from svcd.worker_runtime.process import Process, Settings

ROUNDS: Final = 4  # the interpreter specialises code that has run some times, and counts in it until then

SERVICE: Final = "warm"

_CODE: Final = """
from svcd import Service, on_event, rpc
class Warm(Service):
    async def init(self, config): pass
    async def start(self): pass
    async def stop(self, reason): pass
    async def pause(self):
        for _ in range(3):
            await self.ctx.call("warm.hello", "x", number=1, timeout=9.0)
        self.ctx.publish("said", "x")
    @rpc
    async def hello(self, word: str, number: int) -> dict[str, int]:
        return {word: number}
    @on_event("warm.said")
    async def heard(self, word: str) -> None: pass
"""
_SPEC: Final = ServiceSpec(SERVICE, 1, code=_CODE, heard=True)
_QUESTIONS: Final = (Ping(1), ReportUse(1), Pause(1), Resume(1))
_OTHERS: Final = (
    Stop(1),
    Ping(1),
    Welcome(1),
    Pong("warm", 1),
    StateChanged("warm", 1, "running"),
    ResourceSampled("warm", 1, 0.0, 0, 0, 0),
    ExceptionRaised("warm", 1, "run", "Error", "", ""),
)


def warm_up() -> None:
    """Do it. Takes a few milliseconds."""
    for message in _OTHERS:
        _travel(message)
    path, directory = list(sys.path), _make_directory()
    sys._clear_type_cache()  # of names that only imports have looked up: making room for ours would touch each of them
    try:
        for _ in range(ROUNDS):
            _DryRun().run(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        sys.path[:] = path
        sys.modules.pop(CODE_MODULE, None)
        linecache.cache.pop(code_file(SERVICE), None)


def _make_directory() -> str:
    """For the sockets of the endpoint. Empty where there is no room for one: then it fails, like any other."""
    directory = f"/tmp/svcd-warm-{os.urandom(8).hex()}"
    try:
        os.mkdir(directory, 0o700)
    except OSError:
        return ""
    return directory


def _travel(message: Message) -> Message:
    return codec.decode(codec.encode(message))


class _Controller:
    """The other end of a pair of sockets, on the stub's own loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, directory: str) -> None:
        self._directory = directory
        self.theirs, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._loop = loop
        self._incoming = zmtp.Incoming(MAX_MESSAGE_BYTES)
        self._ours.send(zmtp.hello(b"ROUTER"))
        loop.add_reader(self._ours.fileno(), self._drain)

    def _drain(self) -> None:
        for frames in self._incoming.feed(self._ours.recv(65536)):
            self._react(codec.decode(frames[1]))

    def _react(self, message: Message) -> None:
        if isinstance(message, RemoteReady):
            self._tell(replace(_SPEC, endpoint=self._directory), Init(1), Start(1))
        elif isinstance(message, EndpointOpened):
            base = self._directory
            self._tell(RouteChanged(1, SERVICE, (Route(f"{base}/calls", f"{base}/events", os.getpid()),)))
        elif isinstance(message, PeerAsked):
            self._tell(PeerIdentified(1, message.token, SERVICE))
        elif isinstance(message, StateChanged) and message.state == "running":
            self._came_up()
        elif isinstance(message, StateChanged) and message.state == "drained":
            self._tell(Stop(1))

    def _came_up(self) -> None:
        """And again when it was resumed: then it drains."""
        if self._is_up:
            self._tell(Drain(1))
        else:
            self._is_up = True
            self._tell(*_QUESTIONS)

    _is_up = False

    def _tell(self, *messages: Message) -> None:
        for message in messages:
            self._ours.send(zmtp.pack((b"", codec.encode(message))))

    def close(self) -> None:
        self._loop.remove_reader(self._ours.fileno())
        self._ours.close()


class _DryRun(Process):
    """A process whose controller is at the other end of a pair of sockets."""

    def __init__(self) -> None:
        super().__init__(Settings.read({"service": SERVICE, "invocation": 1, "control": "/"}))

    def run(self, directory: str = "") -> int:
        controller = _Controller(self._loop, directory)

        class Paired(Connection):
            def _dial(self) -> socket.socket:
                return controller.theirs

        try:
            return self.serve(Paired)
        finally:
            controller.close()
            self._loop.close()
