"""The log collector: every service's output from its pipe into its files.

Must not decide what is kept (the orders say) nor look at what is written; stdlib only.

The guardian sends each pipe's read end and keeps a copy: if this process is killed, the bytes wait in the pipes for
the next one.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import selectors
import signal
import socket
import sys
from dataclasses import dataclass, field
from typing import Any, Final

if __name__ == "__main__":  # run by path, without site: our package is found from here
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from svcd.supervisor.logfile import LogFile
from svcd.supervisor.wiring import Flushed, FlushRequested, Link, OutputLost, StreamEnded, StreamOpened

TURN_BYTES: Final = 1 << 20
LARGE_PIPE_BYTES: Final = 1 << 20
F_SETPIPE_SZ: Final = 1031


@dataclass(slots=True)
class Stream:
    """One pipe. ``begin``: the size of the file when this run began, None once it has been rotated away."""

    stream_id: int
    service: str
    name: str
    pipe: int
    file: LogFile
    begin: int | None = None
    grown: bool = False


@dataclass(slots=True)
class Collector:
    """``guardian`` and ``controller`` are our links to them."""

    guardian: Link
    controller: Link
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _streams: dict[int, Stream] = field(default_factory=dict)
    _files: dict[str, LogFile] = field(default_factory=dict)
    _latest: dict[str, dict[str, Stream]] = field(default_factory=dict)
    _open_of: dict[str, dict[int, Stream]] = field(default_factory=dict)
    _losing: dict[str, Stream] = field(default_factory=dict)

    def run(self) -> None:
        """Until the guardian is gone and every pipe is empty."""
        for link in (self.guardian, self.controller):
            self._selector.register(link, selectors.EVENT_READ)
        while not self.guardian.closed:
            for key, _ in self._selector.select():
                if isinstance(key.fileobj, Link):
                    self._serve(key.fileobj)
                elif key.data.pipe in self._streams:
                    self._take(key.data, TURN_BYTES)
            if self._losing:
                self._report_losses()
            self._watch_links()
        for stream in list(self._streams.values()):
            self._empty(stream)

    # ---- links -----------------------------------------------------------------------------------------------------

    def _serve(self, link: Link) -> None:
        link.flush()
        for message, fds in link.receive():
            if isinstance(message, StreamOpened):
                self._open(message, fds[0])
            elif isinstance(message, FlushRequested):
                self._flush(message)
        if link.closed and link is self.controller:
            self._selector.unregister(link)

    def _watch_links(self) -> None:
        for link in (self.guardian, self.controller):
            if not link.closed:
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.wants_write else 0)
                if self._selector.get_key(link).events != wanted:
                    self._selector.modify(link, wanted)

    def _open(self, message: StreamOpened, pipe: int) -> None:
        target = message.target
        try:
            file = self._files.get(target["path"])
            if file is None:
                file = self._files[target["path"]] = LogFile(target["path"], target["max_size_bytes"], target["keep"])
        except OSError as error:
            self._cannot_open(message, error)
            file = self._files[target["path"]] = LogFile(os.devnull, 1 << 62, 0)
        file.users += 1
        os.set_blocking(pipe, False)
        stream = Stream(message.stream_id, message.service, target["stream"], pipe, file, file.size)
        self._streams[pipe] = stream
        self._latest.setdefault(message.service, {})[stream.name] = stream
        self._open_of.setdefault(message.service, {})[pipe] = stream
        self._selector.register(pipe, selectors.EVENT_READ, stream)

    def _cannot_open(self, message: StreamOpened, error: OSError) -> None:
        reason = f"cannot open {message.target['path']}: {error.strerror}; its output is discarded"
        self.controller.send(OutputLost(message.service, message.target["stream"], 0, reason))

    def _flush(self, message: FlushRequested) -> None:
        """Everything that the pipes hold now, then the answer."""
        streams = self._open_of.get(message.service, {}) if message.service else self._streams
        for stream in list(streams.values()):
            self._empty(stream)
        tail = {
            name: stream.file.tail(message.tail_bytes, stream.begin).decode("utf-8", "replace")
            for name, stream in self._latest.get(message.service, {}).items()
            if stream.file.path != os.devnull
        }
        self.controller.send(Flushed(message.token, message.service, tail))

    # ---- pipes -----------------------------------------------------------------------------------------------------

    def _take(self, stream: Stream, limit: int) -> bool:
        """Up to ``limit`` bytes of one pipe; False when it is empty or at its end."""
        while limit > 0:
            before = stream.file.size
            try:
                moved = stream.file.take(stream.pipe, limit)
            except BlockingIOError:
                return False
            if moved == 0:
                self._end(stream)
                return False
            if stream.file.size < before:
                stream.begin = None
            if stream.file.lost_bytes:
                self._losing[stream.file.path] = stream
            limit -= moved
        self._grow(stream)
        return True

    def _empty(self, stream: Stream) -> None:
        """What the pipe holds now and a little more; a service that floods cannot hold up the answer for ever."""
        for _ in range(8):
            if stream.pipe not in self._streams or not self._take(stream, TURN_BYTES):
                return

    def _grow(self, stream: Stream) -> None:
        """A pipe that filled a whole turn gets a larger buffer: fewer turns for as many bytes."""
        if not stream.grown:
            stream.grown = True
            try:
                import fcntl  # noqa: PLC0415 - few collectors need it

                fcntl.fcntl(stream.pipe, F_SETPIPE_SZ, LARGE_PIPE_BYTES)
            except OSError:
                pass

    def _end(self, stream: Stream) -> None:
        self._selector.unregister(stream.pipe)
        os.close(stream.pipe)
        del self._streams[stream.pipe]
        del self._open_of[stream.service][stream.pipe]
        self.guardian.send(StreamEnded(stream.stream_id))
        stream.file.users -= 1

    # ---- losses ------------------------------------------------------------------------------------------------------

    def _report_losses(self) -> None:
        for stream in self._losing.values():
            file = stream.file
            lost, file.lost_bytes = file.lost_bytes, 0
            self.controller.send(OutputLost(stream.service, stream.name, lost, file.loss_reason))
        self._losing.clear()


def main() -> None:
    """``collector.py JSON``: {"cluster", "guardian_fd", "controller_fd"}."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ctypes.CDLL(None).prctl(15, b"svcd: collector", 0, 0, 0)
    os.umask(0o027)
    links = [Link(socket.socket(fileno=given[name])) for name in ("guardian_fd", "controller_fd")]
    Collector(links[0], links[1]).run()


if __name__ == "__main__":
    main()
