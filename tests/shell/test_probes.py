"""Probes: a service is ready when its delay is over, its port answers, its newline came, its words are in its log.

Must not test the single look (test_checks.py) nor sd_notify (test_notify.py).
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path

import pytest
from commanded import definition, eventually, on_loop, settled

from svcd.supervisor.config.launch import ReadyProbe, ServiceDefinition
from svcd.supervisor.controller.watching import checks, probes
from svcd.supervisor.controller.watching.probes import Delay, Logged, Newline, Polled, Probe, probe_for
from svcd.supervisor.core.events import Event, ReadinessFailed, ReadinessMissed, ReadinessReached
from svcd.supervisor.core.spec import ReadyKind, ServiceSpec

WHOSE = ("web", 3)


class Heard(list[Event]):
    """What a probe submits; ``misses``: what its tries have found meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.misses: list[str] = []

    def __call__(self, event: Event) -> None:
        assert isinstance(event, ReadinessReached | ReadinessFailed | ReadinessMissed)
        assert (event.service, event.invocation) == WHOSE
        if isinstance(event, ReadinessMissed):
            self.misses.append(event.reason)
        else:
            self.append(event)

    async def first(self) -> Event:
        await eventually(lambda: self, "its readiness")
        return self[0]

    async def reason(self) -> str:
        event = await self.first()
        assert isinstance(event, ReadinessFailed)
        return event.reason


# ---- what is common ----


@pytest.mark.parametrize("early", [True, False])
def test_what_was_heard_before_the_core_asks_counts(early: bool) -> None:
    heard = Heard()
    probe = Probe(heard, *WHOSE)
    if early:
        probe.report(None)
        assert heard == [], "the core has not asked yet"
        probe.begin()
    else:
        probe.begin()
        probe.report(None)
    assert [type(event) for event in heard] == [ReadinessReached]
    probe.report(None)
    probe.report("too late")
    assert len(heard) == 1
    probe.close()


def test_each_kind_has_its_probe() -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        spec = ReadyProbe(delay_s=1.0, tcp_host="h", tcp_port=1, pattern="x", notification_fd=3)
        kinds = {
            ReadyKind.IMMEDIATE: type(None),
            ReadyKind.STARTED: type(None),
            ReadyKind.NOTIFY: Probe,
            ReadyKind.DELAY: Delay,
            ReadyKind.TCP: Polled,
            ReadyKind.NOTIFICATION_FD: Newline,
            ReadyKind.LOG: Logged,
        }
        for kind, expected in kinds.items():
            like = definition("web", probe=spec)
            of_kind = ServiceDefinition(ServiceSpec("web", ready=kind), like.launch)
            probe = probe_for(loop, Heard(), of_kind, 3, None)  # type: ignore[arg-type]  # none of them runs commands
            assert type(probe) is expected
            if probe is not None:
                probe.close()

    on_loop(body)


def test_delay() -> None:
    async def body() -> None:
        heard = Heard()
        probe = Delay(heard, *WHOSE, asyncio.get_running_loop(), 0.01)
        await asyncio.sleep(0.02)
        assert heard == []
        probe.begin()
        assert isinstance(await heard.first(), ReadinessReached)
        probe.close()

    on_loop(body)


# ---- looking again and again ----


def test_it_looks_until_all_is_well_and_then_no_more() -> None:
    async def body() -> None:
        looks = 0

        async def check(timeout_s: float) -> str | None:
            nonlocal looks
            looks += 1
            assert timeout_s == 7.0
            return None if looks == 5 else "not yet" if looks < 4 else "nearly"

        heard = Heard()
        probe = Polled(heard, *WHOSE, asyncio.get_running_loop(), check, 7.0, 0.01)
        await settled()
        assert looks == 0
        probe.begin()
        assert isinstance(await heard.first(), ReadinessReached)
        await settled()
        assert looks == 5
        assert heard.misses == ["not yet", "nearly"], "each once"
        probe.close()

    on_loop(body)


def test_it_never_looks_twice_at_once_and_ends_when_it_is_closed() -> None:
    async def body() -> None:
        ended: list[str] = []

        async def check(timeout_s: float) -> str | None:
            try:
                await asyncio.sleep(timeout_s)
            finally:
                ended.append("one")
            return None

        heard = Heard()
        probe = Polled(heard, *WHOSE, asyncio.get_running_loop(), check, 1000.0, 0.001)
        probe.begin()
        await settled()
        probe.close()
        await settled()
        assert (ended, heard) == (["one"], [])

    on_loop(body)


def test_a_port_that_opens() -> None:
    async def body() -> None:
        heard = Heard()
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            check = checks.tcp("127.0.0.1", holder.getsockname()[1])
            probe = Polled(heard, *WHOSE, asyncio.get_running_loop(), check, 5.0, 0.01)
            probe.begin()
            await asyncio.sleep(0.05)
            assert heard == []
            holder.listen()
            await heard.first()
            probe.close()

    on_loop(body)


# ---- a newline ----


def newline(heard: Heard) -> tuple[Newline, int]:
    """The probe, and the service's end of it."""
    probe = Newline(heard, *WHOSE, asyncio.get_running_loop(), 4)
    assert list(probe.descriptors) == [4]
    theirs = os.dup(probe.descriptors[4])
    probe.sent()
    assert probe.descriptors == {}
    probe.begin()
    return probe, theirs


def test_a_newline_in_pieces() -> None:
    async def body() -> None:
        heard = Heard()
        probe, theirs = newline(heard)
        os.write(theirs, b"nearly ")
        await settled()
        assert heard == []
        os.write(theirs, b"there\nand more")
        assert isinstance(await heard.first(), ReadinessReached)
        await settled()
        with pytest.raises(BrokenPipeError):  # as s6 does it
            os.write(theirs, b"nobody reads this")
        os.close(theirs)
        probe.close()

    on_loop(body)


def test_a_newline_and_a_close_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "CLOSED_GRACE_S", 0.01)

    async def body() -> None:
        heard = Heard()
        probe, theirs = newline(heard)
        os.write(theirs, b"\n")
        os.close(theirs)
        assert isinstance(await heard.first(), ReadinessReached)
        await asyncio.sleep(0.1)
        assert len(heard) == 1
        probe.close()

    on_loop(body)


def test_no_newline_is_told_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "CLOSED_GRACE_S", 0.1)

    async def body() -> None:
        heard = Heard()
        probe, theirs = newline(heard)
        closed_at = time.monotonic()
        os.close(theirs)
        assert await heard.reason() == "it closed its notification descriptor without a newline"
        assert time.monotonic() >= closed_at + 0.1 - 0.01
        probe.close()

    on_loop(body)


def test_no_newline_of_a_process_that_ends_is_its_end_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "CLOSED_GRACE_S", 1000.0)  # the news of its end comes before that is over

    async def body() -> None:
        heard = Heard()
        probe, theirs = newline(heard)
        os.close(theirs)
        moment = await eventually(lambda: probe._grace, "the closing to be noticed")
        probe.close()  # the end of the run, told by the guardian
        assert moment._timer.cancelled()
        assert heard == []

    on_loop(body)


# ---- words in its log ----


class Log:
    """A log file as the collector writes it."""

    def __init__(self, directory: Path, name: str = "stdout.log", before: bytes = b"") -> None:
        self.path = directory / name
        self.write(before)

    def write(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    def rotate(self) -> None:
        numbers = [int(each.suffix[1:]) for each in self.path.parent.glob(f"{self.path.name}.*")]
        for number in sorted(numbers, reverse=True):
            self.path.with_name(f"{self.path.name}.{number}").rename(f"{self.path}.{number + 1}")
        self.path.rename(f"{self.path}.1")
        self.path.touch()

    def fd(self) -> int:
        """As the collector sends it: at its end."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        os.lseek(fd, 0, os.SEEK_END)
        return fd


def logged(heard: Heard, pattern: str, *logs: Log) -> Logged:
    probe = Logged(heard, *WHOSE, asyncio.get_running_loop(), pattern)
    for log in logs:
        probe.follow(log.path, log.fd())
    probe.begin()
    return probe


async def some_looks() -> None:
    await asyncio.sleep(0.15)


def test_words_in_either_stream(tmp_path: Path) -> None:
    async def body() -> None:
        for index in (0, 1):
            heard = Heard()
            logs = (Log(tmp_path), Log(tmp_path, "stderr.log"))
            probe = logged(heard, "^ready to .*pt$", *logs)
            logs[index].write(b"booting\nready to accept\nfine\n")
            assert isinstance(await heard.first(), ReadinessReached)
            probe.close()

    on_loop(body)


def test_words_of_earlier_runs_do_not_count(tmp_path: Path) -> None:
    async def body() -> None:
        heard = Heard()
        log = Log(tmp_path, before=b"ready\nrea")
        probe = logged(heard, "ready", log)
        log.write(b"dy, but in two halves of two runs\n")
        await some_looks()
        assert heard == []
        log.write(b"ready\n")
        await heard.first()
        probe.close()

    on_loop(body)


def test_words_over_rotations(tmp_path: Path) -> None:
    async def body() -> None:
        heard = Heard()
        log = Log(tmp_path, before=b"ready\n")
        probe = logged(heard, "^ready$", log)
        log.rotate()
        log.write(b"almost rea")
        await some_looks()
        log.write(b"dy\nrea")
        log.rotate()
        log.write(b"dy")
        log.rotate()
        log.write(b"\n")
        await heard.first()
        probe.close()

    on_loop(body)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("prompt> $", b"\xff\xfe prompt> "),
        ("^gr\u00fcn$", "gr\u00fcn\r\n".encode()),
        ("^ready$", b"\n\n\0ready\nready\r\n"),
        ("end$", b"x" * 1_000_000 + b" the end"),
        ("x{3}", b"x" * 3),
    ],
    ids=str,
)
def test_words_in_strange_company(tmp_path: Path, pattern: str, said: bytes) -> None:
    async def body() -> None:
        heard = Heard()
        log = Log(tmp_path)
        probe = logged(heard, pattern, log)
        log.write(said)
        await heard.first()
        probe.close()

    on_loop(body)


def test_a_line_without_end_needs_no_more_memory(tmp_path: Path) -> None:
    async def body() -> None:
        heard = Heard()
        log = Log(tmp_path)
        probe = logged(heard, "never", log)
        log.write(b"x" * 5_000_000)
        await some_looks()
        await some_looks()
        assert [len(rest) for _, rest in probe._followers.values()] == [64 * 1024]
        probe.close()

    on_loop(body)


def test_a_second_announcement_of_a_stream_changes_nothing(tmp_path: Path) -> None:
    """A new collector announces what it takes over."""

    async def body() -> None:
        heard = Heard()
        log = Log(tmp_path)
        probe = logged(heard, "ready", log)
        log.write(b"ready\n")
        probe.follow(log.path, log.fd())
        await heard.first()
        probe.follow(log.path, log.fd())
        probe.close()
        probe.follow(log.path, log.fd())
        probe.close()

    on_loop(body)


def test_a_stream_that_comes_without_its_file(tmp_path: Path) -> None:
    async def body() -> None:
        heard = Heard()
        log = Log(tmp_path, before=b"ready\n")
        probe = Logged(heard, *WHOSE, asyncio.get_running_loop(), "ready")
        probe.follow(log.path, None)
        probe.begin()
        await some_looks()
        assert heard == []
        log.write(b"ready\n")
        await heard.first()
        probe.close()

    on_loop(body)
