"""Following and tailing rotated files: every byte once, whatever the moment of a rotation.

Must not test the command: ``test_logs_command`` does.
"""

from __future__ import annotations

import itertools
import os
import select
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rotating import Writer

from svcd.cli.following import Watcher, follow_from, read_marks, write_marks
from svcd.cli.logfiles import copy_tail
from svcd.protocol.rotation import Follower, follow_from_end, rotated_numbers

PATIENCE_MS = 30_000


def drain(follower: Follower) -> bytes:
    """Everything that is there, over as many turns as it takes."""
    found = b""
    while data := b"".join(follower.read()):
        found += data
    return found


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "web" / "stdout.log"


def test_follows_what_is_appended(log: Path) -> None:
    follower = Follower(log)
    assert drain(follower) == b""
    writer = Writer(log, 1000, 2)
    writer.write(b"one")
    assert drain(follower) == b"one"
    writer.write(b"two")
    assert drain(follower) == b"two"
    writer.close()
    follower.close()


def test_looks_at_every_step_of_a_rotation(log: Path) -> None:
    """A look between any two steps of a rotation finds every byte exactly once."""
    writer, follower, found = Writer(log, 10, 3), Follower(log), b""
    for number in range(12):
        writer.write(b"<%8d" % number)
        if number % 2:
            found += drain(follower)
        for step in writer.rotation_steps():
            step()
            found += drain(follower)
    found += drain(follower)
    assert found == writer.written
    assert follower.gaps == 0
    writer.close()
    follower.close()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=30), st.just("look")), max_size=60),
    st.integers(1, 12),
    st.integers(1, 4),
)
def test_no_byte_is_lost_or_repeated(
    tmp_path_factory: pytest.TempPathFactory, acts: list[bytes | str], max_size: int, keep: int
) -> None:
    """Or, where files were rotated away unread, it says so, and what is found is what was written, with holes."""
    log = tmp_path_factory.mktemp("logs") / "web" / "stdout.log"
    writer, follower, found = Writer(log, max_size, keep), Follower(log), b""
    first = drain(follower)
    for act in [*acts, "look"]:
        if isinstance(act, bytes):
            writer.write(act)
        else:
            found += drain(follower)
    writer.close()
    follower.close()
    assert first == b""
    if follower.gaps == 0:
        assert found == writer.written
    else:
        assert is_subsequence(found, writer.written)
        assert writer.written.endswith(found[-max_size:])


def is_subsequence(found: bytes, whole: bytes) -> bool:
    left = iter(whole)
    return all(byte in left for byte in found)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=20), max_size=40), st.integers(1, 12), st.integers(1, 4))
def test_a_reader_that_keeps_up_misses_nothing(
    tmp_path_factory: pytest.TempPathFactory, writes: list[bytes], max_size: int, keep: int
) -> None:
    log = tmp_path_factory.mktemp("logs") / "web" / "stdout.log"
    writer, follower, found = Writer(log, max_size, keep), Follower(log), b""
    for number, byte in enumerate(b"".join(writes)):
        writer.write(bytes([byte]))
        if number % keep == 0:
            found += drain(follower)
    found += drain(follower)
    writer.close()
    follower.close()
    assert found == writer.written
    assert follower.gaps == 0


def test_a_write_between_the_last_read_and_the_look_around(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, follower = Writer(log, 10, 3), Follower(log)
    writer.write(b"01234")
    younger = Follower._younger

    def late(self: Follower, own: os.stat_result) -> int | None:
        if len(writer.written) == 5:
            writer.write(b"56789abc")
        return younger(self, own)

    monkeypatch.setattr(Follower, "_younger", late)
    assert drain(follower) == b"0123456789abc"
    writer.close()
    follower.close()


def test_a_rotation_between_the_look_around_and_the_open(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from svcd.protocol import rotation as following  # noqa: PLC0415 - patched here

    writer, follower = Writer(log, 4, 9), Follower(log)
    writer.write(b"0000")
    assert drain(follower) == b"0000"
    writer.write(b"1111")
    real = following.open_log

    def late(path: Path) -> int | None:
        if len(writer.written) == 8:
            writer.write(b"22223333")
        return real(path)

    monkeypatch.setattr(following, "open_log", late)
    assert drain(follower) == b"111122223333"
    assert follower.gaps == 0
    writer.close()
    follower.close()


@pytest.mark.parametrize("rotations", [1, 2, 3])
def test_rotations_after_the_listing_do_not_hide_the_file(
    log: Path, monkeypatch: pytest.MonkeyPatch, rotations: int
) -> None:
    from svcd.protocol import rotation as following  # noqa: PLC0415 - patched here

    writer, follower = Writer(log, 4, 9), Follower(log)
    writer.write(b"0000")
    assert drain(follower) == b"0000"
    writer.write(b"1111")
    real, turns = following.rotated_numbers, itertools.count()

    def late(path: Path) -> list[int]:
        listed = real(path)
        if next(turns) == 0:
            for _ in range(rotations):
                writer.write(b"2222")
        return listed

    monkeypatch.setattr(following, "rotated_numbers", late)
    assert drain(follower) == b"1111" + b"2222" * rotations
    assert follower.gaps == 0
    writer.close()
    follower.close()


def test_says_when_files_were_rotated_away(log: Path) -> None:
    writer, follower = Writer(log, 10, 2), Follower(log)
    writer.write(b"0123456789")
    assert drain(follower) == b"0123456789"
    for letter in (b"a", b"b", b"c", b"d"):
        writer.write(letter * 10)
    assert drain(follower) == b"b" * 10 + b"c" * 10 + b"d" * 10
    assert follower.gaps == 1
    writer.close()
    follower.close()


def test_a_truncated_file_is_read_from_its_beginning(log: Path) -> None:
    writer, follower = Writer(log, 10, 0), Follower(log)
    writer.write(b"0123456789")
    assert drain(follower) == b"0123456789"
    writer.write(b"abc")
    assert drain(follower) == b"abc"
    writer.close()
    follower.close()


def test_other_files_in_the_directory_do_not_matter(log: Path) -> None:
    writer = Writer(log, 10, 2)
    for name in ("stdout.log.old", "stdout.log.1.gz", "stdout.log.", "stdout.log.-1", "stdout.log.²", "stderr.log.7"):
        (log.parent / name).write_bytes(b"not ours")
    writer.write(b"0123456789ab")
    assert rotated_numbers(log) == [0, 1]
    found: list[bytes] = []
    copy_tail(log, None, found.append)
    assert b"".join(found) == b"0123456789ab"
    writer.close()


# ---- tails -----------------------------------------------------------------------------------------------------------


def tail(log: Path, count: int | None) -> bytes:
    found: list[bytes] = []
    assert copy_tail(log, count, found.append) is None
    return b"".join(found)


def last_lines(data: bytes, count: int | None) -> bytes:
    """What tail(1) would print."""
    return data if count is None else b"".join(data.splitlines(keepends=True)[-count:] if count else [])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from([b"\n", b"a", b"bc\n", b"\n\n", b"long" * 5, b"x\ny"]), max_size=20),
    st.integers(3, 16),
    st.one_of(st.none(), st.integers(0, 12)),
    st.integers(1, 5),
)
def test_tail_is_that_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], max_size: int, count: int | None, block: int
) -> None:
    log = tmp_path_factory.mktemp("logs") / "web" / "stdout.log"
    writer = Writer(log, max_size, 1000)
    writer.write(b"".join(pieces))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("svcd.cli.logfiles.BLOCK_BYTES", block)
        assert tail(log, count) == last_lines(writer.written, count)
    writer.close()


def test_tail_of_nothing(log: Path) -> None:
    assert tail(log, 10) == b""
    Writer(log, 10, 1).close()
    assert tail(log, 10) == b""


def test_tail_then_follow_has_no_seam(log: Path) -> None:
    writer = Writer(log, 10, 3)
    writer.write(b"one\ntwo\nthree\n")
    found: list[bytes] = []
    fd = copy_tail(log, 2, found.append, keep_open=True)
    follower = Follower(log, fd)
    writer.write(b"four\nfive\nsix\n")
    assert b"".join(found) + drain(follower) == b"two\nthree\nfour\nfive\nsix\n"
    writer.close()
    follower.close()


def test_a_rotation_between_two_opens_leaves_nothing_out(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from svcd.cli import logfiles  # noqa: PLC0415 - patched here

    for before in range(5):
        path = log.with_name(f"{before}-stdout.log")
        writer = Writer(path, 4, 100)
        writer.write(b"1111222233334444")
        real, opens = logfiles.open_log, itertools.count()

        def rotating_open(wanted: Path) -> int | None:
            if before <= next(opens) < before + 2:  # noqa: B023 - called within this turn of the loop alone
                writer.write(b"5555")  # noqa: B023
            return real(wanted)  # noqa: B023

        monkeypatch.setattr(logfiles, "open_log", rotating_open)
        found = tail(path, None)
        assert found.startswith(b"1111222233334444"), before
        assert writer.written.startswith(found)
        monkeypatch.setattr(logfiles, "open_log", real)
        writer.close()


# ---- marks -----------------------------------------------------------------------------------------------------------


def test_marks_divide_before_from_after(tmp_path: Path) -> None:
    log, other = tmp_path / "logs" / "web" / "stdout.log", tmp_path / "logs" / "new" / "stdout.log"
    writer = Writer(log, 10, 3)
    writer.write(b"before")
    write_marks(tmp_path)
    writer.write(b"after, over a rotation")
    fresh = Writer(other, 10, 3)
    fresh.write(b"from the very beginning")
    marks = read_marks(tmp_path)
    assert marks is not None
    follower = follow_from(log, marks.get("web/stdout"))
    assert drain(follower) == b"after, over a rotation"
    follower.close()
    follower = follow_from(other, marks.get("new/stdout"))
    assert drain(follower) == b"from the very beginning"
    follower.close()
    assert read_marks(tmp_path) is None, "they are for one start"
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    for each in (writer, fresh):
        each.close()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": [1]}', "null", "\udcff"])
def test_marks_that_cannot_be_read_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "console.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert read_marks(tmp_path) in (None, {})


def test_from_the_end(log: Path) -> None:
    writer = Writer(log, 100, 1)
    writer.write(b"before")
    follower = follow_from_end(log)
    writer.write(b"after")
    assert drain(follower) == b"after"
    writer.close()
    follower.close()


# ---- watching --------------------------------------------------------------------------------------------------------


def wait_news(watcher: Watcher) -> frozenset[str]:
    poll = select.poll()
    assert watcher.fd is not None
    poll.register(watcher.fd, select.POLLIN)
    assert poll.poll(PATIENCE_MS), "no news"
    return watcher.news()


def test_the_watcher_names_who_has_news(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    one, two = Writer(logs / "one" / "stdout.log", 10, 1), Writer(logs / "two" / "stderr.log", 10, 1)
    with Watcher(logs, ["one", "two", "three"]) as watcher:
        assert watcher.news() == frozenset()
        two.write(b"x")
        assert wait_news(watcher) == {"two"}
        one.write(b"x" * 30)
        assert wait_news(watcher) == {"one"}
        three = Writer(logs / "three" / "stdout.log", 10, 1)
        assert wait_news(watcher) == {"three"}
        three.write(b"x")
        assert wait_news(watcher) == {"three"}
        (logs / "nobody").mkdir()
        assert wait_news(watcher) == frozenset()
    for each in (one, two, three):
        each.close()


def test_without_watches_it_looks_at_everything(tmp_path: Path) -> None:
    with Watcher(tmp_path / "missing", ["a", "b"]) as watcher:
        assert watcher.fd is None
        assert watcher.patience_s is not None
        assert watcher.news() == {"a", "b"}


def test_descriptors_are_not_inherited(log: Path) -> None:
    Writer(log, 10, 1).close()
    fd = copy_tail(log, 1, lambda data: None, keep_open=True)
    assert fd is not None
    assert not os.get_inheritable(fd)
    os.close(fd)
