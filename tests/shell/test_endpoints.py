"""The directories of endpoints: one for each run, of its user, gone with it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from svcd.supervisor.controller.python.endpoints import Endpoints
from svcd.worker_runtime.calls.wire_socket import listen


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_each_run_has_its_own_and_it_goes_with_it(tmp_path: Path) -> None:
    endpoints = Endpoints(tmp_path / "endpoints")
    endpoints.open()
    first, second = endpoints.make(1, None, None), endpoints.make(2, None, None)
    assert not first.exists(), "a service of our own user makes it itself"
    for number in (1, 2):
        listen(str(endpoints.place(number, "calls")), 1).close()
    assert {mode(each) for each in (tmp_path / "endpoints", first, second)} == {0o711}
    endpoints.remove(1)
    endpoints.remove(1)
    assert not first.exists()
    assert second.exists()
    assert endpoints.make(2, None, None) == second
    endpoints.close()
    assert not (tmp_path / "endpoints").exists()


def test_what_an_earlier_controller_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "endpoints" / "7"
    left.mkdir(parents=True)
    (left / "calls").write_text("")
    endpoints = Endpoints(tmp_path / "endpoints")
    endpoints.open()
    assert list((tmp_path / "endpoints").iterdir()) == []


def test_a_strict_umask_does_not_shut_others_out(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        endpoints = Endpoints(tmp_path / "endpoints")
        endpoints.open()
        listen(str(endpoints.make(1, None, None) / "calls"), 1).close()
        assert mode(endpoints.place(1, "")) == 0o711
        listen(str(endpoints.place(1, "events")), 1).close()
    finally:
        os.umask(before)


def test_where_there_is_no_room_it_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Endpoints(tmp_path / "none" / "endpoints").open()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
def test_it_belongs_to_the_services_user(tmp_path: Path) -> None:
    endpoints = Endpoints(tmp_path / "endpoints")
    endpoints.open()
    found = endpoints.make(1, 65534, 65534).stat()
    assert (found.st_uid, found.st_gid) == (65534, 65534)
    assert endpoints.make(2, 65534, None).stat().st_gid == os.getegid()


def test_it_is_removed_when_nobody_waits(tmp_path: Path) -> None:
    waiting: list[Callable[[], None]] = []
    endpoints = Endpoints(tmp_path / "endpoints", waiting.append)
    endpoints.open()
    endpoints.remove(1)
    assert waiting == [], "there was nothing"
    listen(str(endpoints.place(1, "calls")), 1).close()
    endpoints.remove(1)
    assert endpoints.place(1, "calls").exists()
    waiting.pop()()
    assert not endpoints.place(1, "").exists()
