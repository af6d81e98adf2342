"""The log collector: every service's output from its pipe into its files.

Must not decide what is kept (the orders say) nor look at what is written; stdlib only.

The guardian sends each pipe's read end and keeps a copy: if this process is killed, the bytes wait in the pipes for
the next one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import selectors
import signal
import socket
import time
from typing import Any, Final

from svcd.record import entity, field
from svcd.supervisor.logfile import LogFile
from svcd.supervisor.title import set_title
from svcd.supervisor.wiring import Flushed, FlushRequested, Link, OutputLost, StreamBegan, StreamEnded, StreamOpened

TURN_BYTES: Final = 1 << 20
LARGE_PIPE_BYTES: Final = 1 << 20
F_SETPIPE_SZ: Final = 1031
REPORT_EVERY_S: Final = 1.0
IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)


@entity
class Stream:
    """One pipe. ``begin``: the position of the file when this run began."""

    stream_id: int
    service: str
    name: str
    pipe: int
    file: LogFile
    begin: int
    is_large: bool = False


@entity
class Collector:
    """``guardian`` and ``controller`` are our links to them; ``limit`` is our number of descriptors."""

    guardian: Link
    controller: Link
    limit: int
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    streams: dict[int, Stream] = field(default_factory=dict)  # by pipe
    of_service: dict[str, dict[int, Stream]] = field(default_factory=dict)
    latest: dict[str, dict[str, Stream]] = field(default_factory=dict)  # service -> stream name -> its last run's
    files: dict[str, LogFile] = field(default_factory=dict)
    in_trouble: dict[str, Stream] = field(default_factory=dict)  # by path: its file has something to report
    report_at_s: float = 0.0

    def run(self) -> None:
        """Until the guardian is gone and every pipe is empty."""
        for link in (self.guardian, self.controller):
            self.selector.register(link, selectors.EVENT_READ)
        while not self.guardian.closed:
            for key, _ in self.selector.select(self.patience_s()):
                if isinstance(key.fileobj, Link):
                    self.serve(key.fileobj)
                elif (stream := self.streams.get(key.fd)) is not None and stream is key.data:
                    self.take(stream, TURN_BYTES)  # else it has ended meanwhile, and its number may be another's
            self.report_trouble()
            self.watch_links()
        for stream in list(self.streams.values()):
            self.empty(stream)

    # ---- links -------------------------------------------------------------------------------------------------------

    def serve(self, link: Link) -> None:
        if link is self.controller:
            self.serve(self.guardian)  # whose output we are asked for may be there to be told of, since before
        link.flush()
        for message, fds in link.receive():
            if isinstance(message, StreamOpened) and fds:
                self.open(message, fds[0])
            elif isinstance(message, FlushRequested):
                self.flush(message)
        if link.closed and link is self.controller:
            self.selector.unregister(link)

    def watch_links(self) -> None:
        for link in (self.guardian, self.controller):
            if not link.closed:
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.wants_write else 0)
                if self.selector.get_key(link).events != wanted:
                    self.selector.modify(link, wanted)

    def open(self, message: StreamOpened, pipe: int) -> None:
        """A new run's pipe. Streams with one path, an earlier run's among them, share one file."""
        target = message.target
        path = target["path"]
        if target.get("announced"):
            self.empty_earlier(message.service, path)
        file = self.files.get(path)
        if file is None:
            file = LogFile(path, target["max_size_bytes"], target["keep"], self.limit // 2)
            self.files[path] = file
        file.users += 1
        os.set_blocking(pipe, False)
        stream = Stream(message.stream_id, message.service, target["stream"], pipe, file, file.position)
        if file.trouble:
            self.in_trouble[path] = stream
        self.streams[pipe] = stream
        self.of_service.setdefault(message.service, {})[pipe] = stream
        self.latest.setdefault(message.service, {})[stream.name] = stream
        self.selector.register(pipe, selectors.EVENT_READ, stream)
        if target.get("announced"):
            self.announce(message, path)

    def empty_earlier(self, service: str, path: str) -> None:
        """The last words of earlier runs come before the first of the next one."""
        for stream in list(self.of_service.get(service, {}).values()):
            if stream.file.path == path:
                self.empty(stream)

    def announce(self, message: StreamOpened, path: str) -> None:
        began = StreamBegan(message.service, message.invocation, message.target["stream"], path)
        try:
            reading = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            self.controller.send(began)
            return
        try:
            os.lseek(reading, 0, os.SEEK_END)
            self.controller.send(began, (reading,))
        finally:
            os.close(reading)

    def flush(self, message: FlushRequested) -> None:
        """Everything that the service's pipes hold now (every service's, for ""), then the answer."""
        streams = self.of_service.get(message.service, {}) if message.service else self.streams
        for stream in list(streams.values()):
            self.empty(stream)
        self.report_trouble()
        tail = {
            name: stream.file.tail(message.tail_bytes, stream.begin).decode("utf-8", "replace")
            for name, stream in self.latest.get(message.service, {}).items()
        }
        self.controller.send(Flushed(message.token, message.service, tail))

    # ---- pipes -------------------------------------------------------------------------------------------------------

    def take(self, stream: Stream, limit: int) -> bool:
        """Up to ``limit`` bytes of one pipe; False when it is empty or at its end."""
        while limit > 0:
            try:
                taken = stream.file.take(stream.pipe, limit)
            except BlockingIOError:
                return False
            if stream.file.trouble:
                self.in_trouble[stream.file.path] = stream
            if taken == 0:
                self.end(stream)
                return False
            limit -= taken
        if not stream.is_large:
            self.enlarge(stream)
        return True

    def empty(self, stream: Stream) -> None:
        """What the pipe can hold at most, and no more: who floods cannot hold up the answer for ever."""
        self.take(stream, max(TURN_BYTES, fcntl.fcntl(stream.pipe, fcntl.F_GETPIPE_SZ)))

    def enlarge(self, stream: Stream) -> None:
        """A pipe that filled a whole turn gets a larger buffer: fewer turns for as many bytes."""
        stream.is_large = True
        try:
            fcntl.fcntl(stream.pipe, F_SETPIPE_SZ, LARGE_PIPE_BYTES)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EBUSY):  # beyond what one user may have: it stays as it is
                raise

    def end(self, stream: Stream) -> None:
        """Its last writer is gone. A file that nobody writes any more is closed, so that one run after another opens
        what is there then.
        """
        self.selector.unregister(stream.pipe)
        os.close(stream.pipe)
        del self.streams[stream.pipe]
        del self.of_service[stream.service][stream.pipe]
        self.guardian.send(StreamEnded(stream.stream_id))
        stream.file.users -= 1
        if stream.file.users == 0:
            stream.file.close()
            del self.files[stream.file.path]

    # ---- losses ------------------------------------------------------------------------------------------------------

    def patience_s(self) -> float | None:
        """For how long there is nothing to do unless somebody says something."""
        return max(0.0, self.report_at_s - time.monotonic()) if self.in_trouble else None

    def report_trouble(self) -> None:
        """At once for the first loss, then once in a while: a flood onto a full disk is no flood of messages."""
        now = time.monotonic()
        if not self.in_trouble or now < self.report_at_s:
            return
        self.report_at_s = now + REPORT_EVERY_S
        for stream in self.in_trouble.values():
            file = stream.file
            self.controller.send(OutputLost(stream.service, stream.name, file.lost_bytes, file.trouble))
            file.lost_bytes, file.trouble = 0, ""
        self.in_trouble.clear()


def run(given: dict[str, Any]) -> None:
    """Be the collector of ``given``: {"cluster", "guardian_fd", "controller_fd"}."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    set_title(f"svcd: collector {given['cluster']}")
    os.umask(0o027)
    links = [Link(socket.socket(fileno=given[name])) for name in ("guardian_fd", "controller_fd")]
    Collector(links[0], links[1], hard).run()
