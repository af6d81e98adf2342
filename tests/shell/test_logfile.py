"""One log file: every byte once, in its order, in files of exactly the size that was asked for."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svcd.supervisor import logfile
from svcd.supervisor.logfile import LogFile


class Writer:
    """A pipe and a log file that reads it."""

    def __init__(self, path: Path, max_size_bytes: int = 100, keep: int = 3, **more: int) -> None:
        self.path = path
        self.pipe, self.end = os.pipe()
        os.set_blocking(self.pipe, False)
        self.log = LogFile(str(path), max_size_bytes, keep, **more)

    def write(self, data: bytes, limit: int = 1 << 20) -> None:
        """Through the pipe, in pieces that it holds."""
        for at in range(0, len(data), 60_000):
            os.write(self.end, data[at : at + 60_000])
            self.drain(limit)

    def drain(self, limit: int = 1 << 20) -> None:
        while True:
            try:
                assert self.log.take(self.pipe, limit) > 0
            except BlockingIOError:
                return

    def files(self) -> list[bytes]:
        """Oldest first."""
        rotated = sorted(self.path.parent.glob(f"{self.path.name}.*"), key=lambda each: -int(each.suffix[1:]))
        return [each.read_bytes() for each in [*rotated, *([self.path] if self.path.exists() else [])]]

    def close(self) -> None:
        self.log.close()
        for fd in (self.pipe, self.end):
            try:
                os.close(fd)
            except OSError:
                pass


@contextmanager
def writer(path: Path, *arguments: int, **more: int) -> Iterator[Writer]:
    made = Writer(path, *arguments, **more)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(params=["splice", "read and write"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "splice":

        def refused(*_: object) -> int:
            raise OSError(errno.EINVAL, "no splice here")

        monkeypatch.setattr(os, "splice", refused)


def pattern(size: int) -> bytes:
    """Bytes of which each stretch is found in one place only."""
    return b"".join(b"%07d\n" % number for number in range(size // 8 + 1))[:size]


# ---- rotation --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 199, 200, 201, 399, 400, 401, 1000])
@pytest.mark.parametrize("limit", [1 << 20, 7])
def test_files_are_filled_to_their_size_and_begun_for_a_byte(tmp_path: Path, size: int, limit: int) -> None:
    with writer(tmp_path / "out.log") as one:
        one.write(pattern(size), limit)
        files = one.files()
    assert b"".join(files) == pattern(size)[-400 if size % 100 == 0 else -300 - size % 100 :]
    assert all(len(each) == 100 for each in files[:-1])
    assert len(files) == max(1, min(4, -(-size // 100)))


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_as_many_are_kept_as_ordered(tmp_path: Path, keep: int) -> None:
    with writer(tmp_path / "out.log", 100, keep) as one:
        one.write(pattern(1050))
        assert b"".join(one.files()) == pattern(1050)[1000 - 100 * keep :]


def test_files_of_a_larger_keep_go(tmp_path: Path) -> None:
    for number in range(1, 6):
        (tmp_path / f"out.log.{number}").write_text("old")
    (tmp_path / "out.log.notes").write_text("not ours")
    with writer(tmp_path / "out.log", 10, 2) as one:
        one.write(b"x" * 11)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out.log", "out.log.1", "out.log.2", "out.log.notes"]


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.integers(0, 200), max_size=8),
    max_size=st.integers(1, 150),
    keep=st.integers(0, 4),
    limit=st.integers(1, 300),
    reopen=st.booleans(),
)
def test_whatever_the_pieces_the_end_of_all_is_there(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[int], max_size: int, keep: int, limit: int, reopen: bool
) -> None:
    path = tmp_path_factory.mktemp("log") / "out.log"
    data, at = pattern(sum(pieces)), 0
    with writer(path, max_size, keep, **({"keep_open_below": 0} if reopen else {})) as one:
        for piece in pieces:
            one.write(data[at : at + piece], limit)
            at += piece
        files = one.files()
        assert one.log.position == len(data)
    assert data.endswith(b"".join(files))
    assert all(len(each) == max_size for each in files[:-1])
    assert len(files) == max(1, min(keep + 1, -(-len(data) // max_size)))


def test_it_goes_on_where_an_earlier_one_ended(tmp_path: Path) -> None:
    for part in (b"a" * 60, b"b" * 60, b"c" * 130):
        with writer(tmp_path / "out.log") as one:
            one.write(part)
            files = one.files()
    assert b"".join(files) == b"a" * 60 + b"b" * 60 + b"c" * 130
    assert [len(each) for each in files] == [100, 100, 50]


def test_a_file_that_is_too_large_already_is_rotated_first(tmp_path: Path) -> None:
    (tmp_path / "out.log").write_bytes(b"o" * 500)
    with writer(tmp_path / "out.log") as one:
        one.write(b"new")
        assert one.files() == [b"o" * 500, b"new"]


def test_a_full_file_waits_for_the_next_byte(tmp_path: Path) -> None:
    with writer(tmp_path / "out.log") as one:
        one.write(b"x" * 100)
        with pytest.raises(BlockingIOError):
            one.log.take(one.pipe)
        assert one.log.tail(10, 0) == b"x" * 10
        os.close(one.end)
        assert one.log.take(one.pipe) == 0
        assert one.files() == [b"x" * 100]


def test_files_are_for_their_owner_and_group(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with writer(tmp_path / "web" / "out.log") as one:
            one.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "web").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "web" / "out.log").stat().st_mode) == 0o640


# ---- what others do to the file ------------------------------------------------------------------------------------


def test_a_file_that_was_emptied_begins_again(tmp_path: Path) -> None:
    with writer(tmp_path / "out.log") as one:
        one.write(b"x" * 50)
        os.truncate(one.path, 0)
        one.write(b"new")
        assert one.files() == [b"new"]
        assert one.log.tail(100, 0) == b"new"


def test_a_file_that_was_removed_is_made_again(tmp_path: Path) -> None:
    with writer(tmp_path / "out.log") as one:
        one.write(b"x" * 50)
        one.path.unlink()
        one.write(b"new")
        assert one.files() == [b"new"]
        assert one.log.tail(100, 0) == b"new"


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_only_a_regular_file_is_written(tmp_path: Path, kind: str) -> None:
    path, elsewhere = tmp_path / "out.log", tmp_path / "elsewhere"
    elsewhere.write_bytes(b"mine")
    if kind == "symlink":
        path.symlink_to(elsewhere)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with writer(path) as one:
        one.write(b"x" * 50)
        assert one.log.lost_bytes == 50
        assert str(path) in one.log.trouble
        assert elsewhere.read_bytes() == b"mine"
        path.rmdir() if kind == "directory" else path.unlink()
        one.write(b"now")
        assert one.files() == [b"now"]


# ---- losses ----------------------------------------------------------------------------------------------------------


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of ours may grow beyond ``size``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("_both_ways")
def test_what_the_disk_does_not_take_is_counted_and_then_it_goes_on(tmp_path: Path) -> None:
    with writer(tmp_path / "out.log", 1000) as one:
        with full_disk(70):
            one.write(b"a" * 50)
            one.write(b"b" * 50)
            one.write(b"c" * 50)
        assert one.log.lost_bytes == 80
        assert "File too large" in one.log.trouble
        one.write(b"d" * 10)
        assert one.files() == [b"a" * 50 + b"b" * 20 + b"d" * 10]
        assert one.log.lost_bytes == 80


def test_what_cannot_be_renamed_is_thrown_away_and_counted(tmp_path: Path) -> None:
    (tmp_path / "out.log.1").mkdir()
    (tmp_path / "out.log.1" / "in the way").touch()
    with writer(tmp_path / "out.log", 100, 1) as one:
        one.write(pattern(150))
        assert one.path.read_bytes() == pattern(150)[100:]
        assert one.log.lost_bytes == 100


# ---- the tail --------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(before=st.integers(0, 250), after=st.integers(0, 90), count=st.integers(0, 120), max_size=st.integers(100, 160))
def test_the_tail_is_of_this_run_alone(
    tmp_path_factory: pytest.TempPathFactory, before: int, after: int, count: int, max_size: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "out.log"
    data = pattern(before + after)
    with writer(path, max_size) as one:
        one.write(data[:before])
        begin = one.log.position
        one.write(data[before:])
        wanted = data[before:][-count:] if count else b""
        assert one.log.tail(count, begin) == wanted


def test_the_tail_of_what_cannot_be_read_is_empty(tmp_path: Path) -> None:
    with writer(tmp_path / "out.log") as one:
        one.write(b"x" * 50)
        one.path.unlink()
        assert one.log.tail(10, 0) == b""


def test_a_closed_one_still_has_its_tail(tmp_path: Path) -> None:
    with writer(tmp_path / "out.log") as one:
        one.write(b"abc")
        one.log.close()
        assert one.log.tail(2, 0) == b"bc"


def test_nothing_is_left_open_when_it_may_not_be(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with writer(tmp_path / "out.log", keep_open_below=0) as one:
        one.write(pattern(350))
        assert len(os.listdir("/proc/self/fd")) == before + 2
        assert b"".join(one.files()) == pattern(350)
    assert logfile.FLAGS & os.O_NOFOLLOW
