"""Whole lives of a stub without user code, in the fork server, before any fork: what is done once here is shared.

Must not leave anything behind: no thread, no descriptor, no file, no module, no handler, no change of ``sys.path``.

A fork copies each page of memory that it writes to, and CPython writes to almost everything it looks at: compiled
message shapes, method caches, specialised bytecode. The interpreter specialises code by the very classes that it meets,
and counts, in the code itself, how often it meets others: so these are lives of the stub's own classes, step by step as
a fork lives them, and whatever replaces a class here would leave each fork to count.
"""

from __future__ import annotations

import asyncio
import linecache
import os
import shutil
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable
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
from svcd.worker_runtime import interpreter
from svcd.worker_runtime.forking import packing, plugging
from svcd.worker_runtime.load import CODE_MODULE, code_file
from svcd.worker_runtime.process import Process, Settings

ROUNDS: Final = 8  # the interpreter specialises code that has run some times, and counts in it until then

SERVICE: Final = "warm"
PLACE: Final = "/tmp"  # short: a socket's address has room for 107 bytes
PREFIX: Final = "svcd-warm-"
STALE_S: Final = 60.0
MODULE: Final = "svcd_warm_service"

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
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
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


def warm_up(packs: bool = True) -> None:
    """Do it. Takes some tens of milliseconds. ``packs``: what is met is packed as well, which needs to be done once."""
    for message in _OTHERS:
        _travel(message)
    directory = _make_directory()
    sys._clear_type_cache()  # of names that only imports have looked up: making room for ours would touch each of them
    try:
        with _Restored():
            if packs:
                _pack(directory)
            for _ in range(ROUNDS):
                _live(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        sys.path_importer_cache.pop(directory, None)
        linecache.cache.pop(code_file(SERVICE), None)


def warm_up_with(rehearse: Callable[[], None]) -> None:
    """With something else that each fork does."""
    packing.pack(packing.codes_of(rehearse))
    for _ in range(ROUNDS):
        rehearse()


def _pack(directory: str) -> None:
    """Without the gaps the copies lie side by side."""
    met = packing.codes_of(lambda: _live(directory))
    plugging.plug()
    packing.pack(met)


def _make_directory() -> str:
    """For the module and the sockets of the endpoint. Empty where there is no room for one: then what needs it fails,
    like any other.
    """
    directory = f"{PLACE}/{PREFIX}{os.urandom(8).hex()}"
    try:
        _sweep()
        os.mkdir(directory, 0o700)
        with open(f"{directory}/{MODULE}.py", "w") as file:
            file.write(_CODE)
    except OSError:
        return ""
    return directory


def _sweep() -> None:
    """What fork servers have left that were killed in the middle of this."""
    for each in os.scandir(PLACE):
        if each.name.startswith(PREFIX) and _is_stale(each):
            shutil.rmtree(each.path, ignore_errors=True)


def _is_stale(entry: os.DirEntry[str]) -> bool:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:  # another one has just removed its own
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and found.st_mtime < time.time() - STALE_S


def _live(directory: str) -> None:
    """One life; without a directory, one whose code is in a string."""
    spec = ServiceSpec(SERVICE, 1, endpoint=directory, heard=True)
    if directory:
        spec = replace(spec, entry=f"{MODULE}:Warm", path=(directory,))
    else:
        spec = replace(spec, code=_CODE)
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    process = Process()
    process.take(Settings.read({"service": SERVICE, "invocation": 1, "control": "/"}))
    controller = _Controller(process.loop, ours, spec)
    try:
        process.run(lambda _path: theirs)
    finally:
        controller.close()
        process.loop.close()
        for name in (MODULE, CODE_MODULE):
            sys.modules.pop(name, None)


class _Restored:
    """The process as it was before: what a stub settles for its service alone. PYTHONPATH, which a stub obeys, is ours
    here: it is put aside.
    """

    def __enter__(self) -> None:
        self._python_path = os.environ.pop("PYTHONPATH", None)
        self._path = list(sys.path)
        self._main = sys.modules["__main__"]
        self._excepthook = threading.excepthook
        self._handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def __exit__(self, *_: object) -> None:
        if self._python_path is not None:
            os.environ["PYTHONPATH"] = self._python_path
        sys.path[:] = self._path
        sys.modules["__main__"] = self._main
        threading.excepthook = self._excepthook
        interpreter.release_signals()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


def _travel(message: Message) -> Message:
    return codec.decode(codec.encode(message))


class _Controller:
    """The other end of a pair of sockets, on the stub's own loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ours: socket.socket, spec: ServiceSpec) -> None:
        self._loop = loop
        self._ours = ours
        self._spec = spec
        self._incoming = zmtp.Incoming(MAX_MESSAGE_BYTES)
        self._ours.send(zmtp.hello(b"ROUTER"))
        loop.add_reader(self._ours.fileno(), self._drain)

    def _drain(self) -> None:
        for frames in self._incoming.feed(self._ours.recv(65536)):
            self._react(codec.decode(frames[1]))

    def _react(self, message: Message) -> None:
        if isinstance(message, RemoteReady):
            self._tell(self._spec, Init(1), Start(1))
        elif isinstance(message, EndpointOpened):
            base = self._spec.endpoint
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
