"""A stub's event loop: without descriptors until it is opened, then like any other."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from svcd.worker_runtime.forking.loop import StubLoop


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_it_has_descriptors_once_it_is_open_and_as_long() -> None:
    before = descriptors()
    loop = StubLoop()
    assert descriptors() == before
    loop.open()
    assert descriptors() > before
    loop.close()
    assert descriptors() == before
    assert loop.is_closed()


def test_one_that_was_never_opened_closes_without_a_word() -> None:
    loop = StubLoop()
    loop.close()
    assert loop.is_closed()
    del loop  # a warning would be an error here


def test_it_runs_and_is_woken_from_threads() -> None:
    loop = StubLoop()
    loop.open()

    async def wait() -> str:
        woken = asyncio.get_running_loop().create_future()
        threading.Thread(target=lambda: loop.call_soon_threadsafe(woken.set_result, "woken")).start()
        return str(await asyncio.wait_for(woken, 30))

    try:
        assert loop.run_until_complete(wait()) == "woken"
    finally:
        loop.close()


@pytest.mark.parametrize("value", ["", "1"])
def test_the_debug_mode_is_that_of_the_service(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    loop = StubLoop()
    monkeypatch.setenv("PYTHONASYNCIODEBUG", value)
    loop.open()
    try:
        assert loop.get_debug() is bool(value)
    finally:
        loop.close()
