"""Files of saved states: there and back, replaced whole, and whatever else may stand in their place."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svcd.protocol.limits import MAX_STATE_BYTES
from svcd.supervisor.controller.python import statefile
from svcd.supervisor.controller.python.statefile import BadStateFile, SavedState

SAVED = SavedState("web", "1.0", 1_700_000_000.5, b"\x81\xa5count\x05")


@pytest.mark.parametrize(
    "saved",
    [SAVED, replace(SAVED, version=None), replace(SAVED, state=b""), replace(SAVED, state=os.urandom(5_000_000))],
    ids=["plain", "no version", "empty", "large"],
)
def test_there_and_back(tmp_path: Path, saved: SavedState) -> None:
    directory = tmp_path / "state"
    assert statefile.read(directory, "web") is None
    for _ in range(2):
        statefile.write(directory, saved)
        assert statefile.read(directory, "web") == saved
    assert [each.name for each in directory.iterdir()] == ["web"]
    assert (directory.stat().st_mode & 0o777, (directory / "web").stat().st_mode & 0o777) == (0o700, 0o600)


def test_the_largest_that_may_travel(tmp_path: Path) -> None:
    saved = replace(SAVED, state=bytes(MAX_STATE_BYTES))
    statefile.write(tmp_path, saved)
    assert statefile.read(tmp_path, "web") == saved
    with open(tmp_path / "web", "ab") as file:
        file.truncate(statefile.MAX_FILE_BYTES + 1)
    with pytest.raises(BadStateFile, match=r"^it has \d+ bytes; at most \d+ are read$"):
        statefile.read(tmp_path, "web")


def test_a_write_that_fails_leaves_the_old_one_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statefile.write(tmp_path, SAVED)
    for call in ("fsync", "replace"):
        with monkeypatch.context() as broken:
            broken.setattr(os, call, lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(OSError, match="No space left"):
                statefile.write(tmp_path, replace(SAVED, state=b"newer"))
        assert statefile.read(tmp_path, "web") == SAVED
        assert [each.name for each in tmp_path.iterdir()] == ["web"]


def test_what_a_killed_svcd_has_left_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / ".web.new").write_bytes(b"half")
    statefile.write(tmp_path, SAVED)
    assert statefile.read(tmp_path, "web") == SAVED
    assert [each.name for each in tmp_path.iterdir()] == ["web"]


@settings(deadline=None)  # a disk takes its time
@given(st.integers(0, 200), st.integers(1, 255))
def test_one_bit_is_enough(tmp_path_factory: pytest.TempPathFactory, at: int, flip: int) -> None:
    """Only the time is not covered: it decides nothing."""
    directory = tmp_path_factory.mktemp("state")
    statefile.write(directory, SAVED)
    path = directory / "web"
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= flip
    path.write_bytes(data)
    try:
        found = statefile.read(directory, "web")
    except BadStateFile:
        return
    assert found is not None
    assert replace(found, at=SAVED.at) == SAVED


@settings(deadline=None)  # a disk takes its time
@given(st.binary(max_size=200))
def test_garbage(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    directory = tmp_path_factory.mktemp("state")
    (directory / "web").write_bytes(data)
    with pytest.raises(BadStateFile):
        statefile.read(directory, "web")


def test_every_cut(tmp_path: Path) -> None:
    statefile.write(tmp_path, SAVED)
    data = (tmp_path / "web").read_bytes()
    for length in range(len(data)):
        (tmp_path / "web").write_bytes(data[:length])
        with pytest.raises(BadStateFile):
            statefile.read(tmp_path, "web")


def packed(**changes: object) -> bytes:
    fields = {"service": "web", "version": None, "at": 1.0, "digest": b"", "state": b""}
    return bytes(msgpack.packb({"svcd-state": 1, **fields, **changes}))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (packed(**{"svcd-state": 2}), "a newer svcd has written it: it has format 2, and this svcd reads 1"),
        (packed(**{"svcd-state": 0}), "it has format 0, and this svcd reads 1"),
        (packed(**{"svcd-state": "1"}), "svcd has not written it"),
        (packed(service=5), "its service is not what it should be"),
        (packed(version=1), "its version is not what it should be"),
        (packed(at=None), "its at is not what it should be"),
        (packed(at=True), "its at is not what it should be"),
        (packed(state="text"), "its state is not what it should be"),
        (packed(), "its digest does not fit: it was changed or damaged"),
    ],
)
def test_documents_that_are_not_ours(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "web").write_bytes(data)
    with pytest.raises(BadStateFile) as bad:
        statefile.read(tmp_path, "web")
    assert str(bad.value) == reason


def test_the_state_of_another_service(tmp_path: Path) -> None:
    statefile.write(tmp_path, SAVED)
    os.rename(tmp_path / "web", tmp_path / "api")
    with pytest.raises(BadStateFile, match=r"^it is the state of web$"):
        statefile.read(tmp_path, "api")


def test_other_things_in_its_place(tmp_path: Path) -> None:
    """Nothing of it is waited for, followed or removed."""
    place, elsewhere = tmp_path / "web", tmp_path / "elsewhere"
    os.mkfifo(place)
    with pytest.raises(BadStateFile, match=r"^it is no regular file$"):
        statefile.read(tmp_path, "web")
    place.unlink()
    place.mkdir()
    with pytest.raises(BadStateFile, match=r"^it is no regular file$"):
        statefile.read(tmp_path, "web")
    place.rmdir()
    elsewhere.write_bytes(b"precious")
    place.symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic links"):
        statefile.read(tmp_path, "web")
    statefile.write(tmp_path, SAVED)
    assert (elsewhere.read_bytes(), place.is_symlink()) == (b"precious", False)


def test_aside(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        (tmp_path / "web").write_bytes(content)
        assert statefile.set_aside(tmp_path, "web") == tmp_path / "web.bad"
        assert (tmp_path / "web.bad").read_bytes() == content
        assert not (tmp_path / "web").exists()
