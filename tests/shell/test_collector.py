"""The collector: pipes into files, whoever else floods, ends or asks."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from guarded import PATIENCE_S

from svcd.supervisor import collector
from svcd.supervisor.collector import Collector
from svcd.supervisor.wiring import Flushed, FlushRequested, Link, OutputLost, StreamBegan, StreamEnded, StreamOpened


class Collecting:
    """A collector in a thread, between a guardian and a controller that the test plays. ``runs``: from the beginning,
    or once the test starts the thread.
    """

    def __init__(self, directory: Path, limit: int = 1 << 20, runs: bool = True) -> None:
        self.directory = directory
        self.links: list[Link] = []
        theirs: list[Link] = []
        for _ in range(2):
            ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.links.append(Link(ours))
            theirs.append(Link(other))
        self.guardian, self.controller = self.links
        self.collector = Collector(theirs[0], theirs[1], limit)
        self.thread = threading.Thread(target=self.collector.run)
        if runs:
            self.thread.start()
        self.messages: list[Any] = []
        self.passed: list[int] = []
        self.count = 0

    def open(self, service: str, stream: str = "stdout", invocation: int = 1, **target: Any) -> tuple[int, int]:
        """A new run's pipe: (stream id, write end)."""
        self.count += 1
        read, write = os.pipe()
        path = str(self.directory / service / f"{stream}.log")
        target = {"stream": stream, "path": path, "max_size_bytes": 1 << 30, "keep": 3, **target}
        self.guardian.send(StreamOpened(self.count, service, invocation, target), (read,))
        os.close(read)
        return self.count, write

    def wait(self, kind: type, **fields: Any) -> Any:
        """The first message of that type with these fields."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for each in self.messages:
                if isinstance(each, kind) and all(getattr(each, name) == value for name, value in fields.items()):
                    return each
            assert time.monotonic() < deadline, f"no {kind.__name__} {fields} in {self.messages}"
            select.select(self.links, [each for each in self.links if each.wants_write], [], 0.2)
            for link in self.links:
                link.flush()
                for message, fds in link.receive():
                    self.messages.append(message)
                    self.passed += fds

    def flush(self, service: str, tail_bytes: int = 4096) -> dict[str, str]:
        """What the collector answers."""
        self.count += 1
        self.controller.send(FlushRequested(self.count, service, tail_bytes))
        tail: dict[str, str] = self.wait(Flushed, token=self.count).tail
        return tail

    def text(self, service: str, stream: str = "stdout") -> str:
        return (self.directory / service / f"{stream}.log").read_text()

    def close(self) -> None:
        self.guardian.close()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        self.controller.close()
        for link in (self.collector.guardian, self.collector.controller):
            link.close()
        self.collector.selector.close()
        for stream in list(self.collector.streams.values()):
            os.close(stream.pipe)
        for file in self.collector.files.values():
            file.close()
        for fd in self.passed:
            os.close(fd)


@pytest.fixture
def collecting_with(tmp_path: Path) -> Iterator[Callable[..., Collecting]]:
    made: list[Collecting] = []

    def make(**more: int) -> Collecting:
        made.append(Collecting(tmp_path, **more))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def collecting(collecting_with: Callable[..., Collecting]) -> Collecting:
    return collecting_with()


def test_output_is_there_when_the_flush_is_answered(collecting: Collecting) -> None:
    _, out = collecting.open("web")
    _, err = collecting.open("web", "stderr")
    os.write(out, b"hello\n")
    os.write(err, b"oh\n")
    assert collecting.flush("web") == {"stdout": "hello\n", "stderr": "oh\n"}
    assert collecting.text("web") == "hello\n"
    assert collecting.text("web", "stderr") == "oh\n"
    os.close(out)
    os.close(err)


def test_what_is_asked_for_was_told_of_before(collecting_with: Callable[..., Collecting]) -> None:
    """However the kernel lists the two links: which has become readable first is not to be seen after a while."""
    collecting = collecting_with(runs=False)
    _, out = collecting.open("web")
    os.write(out, b"hello\n")
    collecting.controller.send(FlushRequested(1, "web", 4096))
    collecting.collector.serve(collecting.collector.controller)
    assert collecting.wait(Flushed, token=1).tail == {"stdout": "hello\n"}
    os.close(out)
    collecting.thread.start()


def test_the_end_is_told_when_all_is_written(collecting: Collecting) -> None:
    number, out = collecting.open("web")
    os.write(out, b"x" * 50_000)
    os.close(out)
    collecting.wait(StreamEnded, stream_id=number)
    assert collecting.text("web") == "x" * 50_000


def test_the_tail_is_of_the_last_run(collecting: Collecting) -> None:
    number, out = collecting.open("web")
    os.write(out, b"first run\n")
    os.close(out)
    collecting.wait(StreamEnded, stream_id=number)
    _, out = collecting.open("web", invocation=2)
    assert collecting.flush("web") == {"stdout": ""}
    os.write(out, b"second run\n")
    assert collecting.flush("web") == {"stdout": "second run\n"}
    assert collecting.flush("web", 4) == {"stdout": "run\n"}
    os.close(out)
    assert collecting.flush("web") == {"stdout": "second run\n"}, "it can be asked for after the end as well"


def test_where_a_run_begins_is_announced(collecting: Collecting) -> None:
    """What an earlier run has said is in the file by then, and before the place that is told."""
    _, old = collecting.open("web")
    _, err = collecting.open("web", "stderr")
    os.write(old, b"last words\n")
    _, new = collecting.open("web", invocation=2, announced=True)
    began = collecting.wait(StreamBegan)
    path = collecting.directory / "web" / "stdout.log"
    assert began == StreamBegan("web", 2, "stdout", str(path))
    (fd,) = collecting.passed
    assert path.read_text() == "last words\n"
    assert os.read(fd, 100) == b""
    os.write(new, b"first words\n")
    collecting.flush("web")
    assert os.read(fd, 100) == b"first words\n"
    assert [each for each in collecting.messages if isinstance(each, StreamBegan)] == [began]
    for end in (old, err, new):
        os.close(end)


def test_where_a_run_begins_after_an_earlier_one_has_ended(collecting: Collecting) -> None:
    _, old = collecting.open("web")
    os.write(old, b"last words")
    os.close(old)
    _, new = collecting.open("web", invocation=2, announced=True)
    collecting.wait(StreamBegan)
    assert collecting.text("web") == "last words"
    os.write(new, b"first words")
    collecting.flush("web")
    assert os.read(collecting.passed[0], 100) == b"first words"
    os.close(new)


def test_a_beginning_whose_file_cannot_be_opened_is_announced_all_the_same(collecting: Collecting) -> None:
    (collecting.directory / "web").write_text("in the way")
    _, out = collecting.open("web", announced=True)
    collecting.wait(StreamBegan)
    assert collecting.passed == []
    os.close(out)


def test_a_tail_cut_within_a_character_is_readable(collecting: Collecting) -> None:
    _, out = collecting.open("web")
    os.write(out, "ä€".encode())
    assert collecting.flush("web", 2) == {"stdout": "��"}
    os.close(out)


def test_two_runs_may_hold_one_file(collecting: Collecting) -> None:
    """Something that an earlier run has left behind still has its pipe."""
    _, old = collecting.open("web", max_size_bytes=10)
    _, new = collecting.open("web", invocation=2, max_size_bytes=10)
    for number in range(10):
        os.write(old if number % 2 else new, b"%03d\n" % number)
        collecting.flush("web")
    files = sorted((collecting.directory / "web").iterdir(), reverse=True)
    assert b"".join(each.read_bytes() for each in files) == b"".join(b"%03d\n" % number for number in range(10))
    assert [len(each.read_bytes()) for each in files] == [10, 10, 10, 10]
    os.close(old)
    os.close(new)


def test_a_file_is_opened_anew_for_a_new_run(collecting: Collecting) -> None:
    number, out = collecting.open("web")
    os.write(out, b"first")
    os.close(out)
    collecting.wait(StreamEnded, stream_id=number)
    path = collecting.directory / "web" / "stdout.log"
    path.rename(path.with_name("moved away"))
    _, out = collecting.open("web", invocation=2)
    os.write(out, b"second")
    collecting.flush("web")
    assert collecting.text("web") == "second"
    os.close(out)


def test_a_flood_does_not_starve_the_others(collecting: Collecting) -> None:
    """The flood never ends while we wait: were it served until its pipe is empty, nobody else would be."""
    _, flood = collecting.open("flood", max_size_bytes=1 << 20, keep=0)
    _, quiet = collecting.open("quiet")
    stop = threading.Event()

    def pour() -> None:
        while not stop.is_set():
            os.write(flood, b"x" * 65536)

    pouring = threading.Thread(target=pour)
    pouring.start()
    try:
        for number in range(20):
            os.write(quiet, b"%d\n" % number)
            assert collecting.flush("quiet")["stdout"].endswith(f"{number}\n")
            collecting.flush("flood")
    finally:
        stop.set()
        pouring.join(PATIENCE_S)
        os.close(flood)
        os.close(quiet)


def test_everything_can_be_flushed_at_once(collecting: Collecting) -> None:
    ends = [collecting.open(f"s{number}")[1] for number in range(30)]
    for number, end in enumerate(ends):
        os.write(end, b"%d" % number)
    assert collecting.flush("") == {}
    assert [collecting.text(f"s{number}") for number in range(30)] == [str(number) for number in range(30)]
    for end in ends:
        os.close(end)


def test_a_flush_of_an_unknown_service_is_answered(collecting: Collecting) -> None:
    assert collecting.flush("nobody") == {}


def test_what_is_in_the_pipes_when_the_guardian_goes_is_written(collecting: Collecting) -> None:
    ends = [collecting.open(f"s{number}")[1] for number in range(10)]
    collecting.flush("")
    for number, end in enumerate(ends):
        os.write(end, b"%d" % number * 1000)
    collecting.guardian.close()
    collecting.thread.join(PATIENCE_S)
    assert [collecting.text(f"s{number}") for number in range(10)] == [str(number) * 1000 for number in range(10)]
    for end in ends:
        os.close(end)


def test_it_goes_on_without_a_controller(collecting: Collecting) -> None:
    collecting.controller.close()
    number, out = collecting.open("web")
    os.write(out, b"hello")
    os.close(out)
    collecting.links = [collecting.guardian]
    collecting.wait(StreamEnded, stream_id=number)
    assert collecting.text("web") == "hello"


def test_output_that_has_no_file_is_counted_and_the_service_goes_on(
    collecting: Collecting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "REPORT_EVERY_S", 0.05)
    (tmp_path / "web").write_text("in the way")
    number, out = collecting.open("web")
    lost = collecting.wait(OutputLost)
    assert (lost.service, lost.stream, lost.lost_bytes) == ("web", "stdout", 0)
    assert lost.reason.startswith(f"cannot write {tmp_path}/web/stdout.log: ")
    for _ in range(40):
        os.write(out, b"x" * 10_000)  # would block for ever if nobody took it
    os.close(out)
    collecting.wait(StreamEnded, stream_id=number)
    collecting.flush("web")
    deadline = time.monotonic() + PATIENCE_S
    while sum(each.lost_bytes for each in collecting.messages if isinstance(each, OutputLost)) < 400_000:
        assert time.monotonic() < deadline, collecting.messages
        collecting.flush("web")
    assert sum(each.lost_bytes for each in collecting.messages if isinstance(each, OutputLost)) == 400_000


def test_few_descriptors_are_enough_for_many_files(collecting_with: Callable[..., Collecting]) -> None:
    collecting = collecting_with(limit=20)  # files from number 10 on are closed after each use
    ends = [collecting.open(f"s{number}", max_size_bytes=500)[1] for number in range(40)]
    collecting.flush("")
    for round_number in range(3):
        for number, end in enumerate(ends):
            os.write(end, b"%d.%d " % (number, round_number) * 50)
        collecting.flush("")
    for number, end in enumerate(ends):
        files = sorted((collecting.directory / f"s{number}").iterdir(), reverse=True)
        wanted = "".join(f"{number}.{round_number} " * 50 for round_number in range(3))
        assert "".join(each.read_text() for each in files) == wanted
        os.close(end)
    assert all(file._fd is None for file in collecting.collector.files.values())


def test_a_message_without_its_pipe_is_let_be(collecting: Collecting) -> None:
    target = {"stream": "stdout", "path": str(collecting.directory / "x.log"), "max_size_bytes": 1, "keep": 1}
    collecting.guardian.send(StreamOpened(77, "web", 1, target))
    assert collecting.flush("web") == {}
