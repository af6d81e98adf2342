"""What a program says on its NOTIFY_SOCKET before svcd has heard of its birth: it is not lost.

Must not test what each word means.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Collection

from svcd.supervisor.controller.processes.notify import Assignments, NotifySocket
from svcd.supervisor.controller.processes.runs import Run, Runs

DEADLINE_S = 30.0


class Nothing:
    """A containment in which there is nobody but the main process."""

    def prepare(self, run: str) -> str | None:
        return None

    def members(self, run: str, pid: int) -> list[int]:
        return [pid]

    def has(self, run: str, pid: int, other: int) -> bool:
        return other == pid

    def is_empty(self, run: str, pid: int) -> bool:
        return True

    def kill(self, run: str, pid: int) -> None:
        raise AssertionError("nobody is to be killed")

    def kill_all(self, runs: Collection[str]) -> bool:
        return False

    def release(self, run: str) -> None:
        pass

    def close(self) -> None:
        pass


def test_words_that_come_before_the_birth_are_heard_after_it() -> None:
    async def body() -> None:
        heard: asyncio.Queue[Assignments] = asyncio.Queue()
        events: list[object] = []
        runs, run = Runs(events.append, Nothing(), set()), Run("web", 7, "mark-7", "launcher")
        runs.open(run)
        notify = NotifySocket(
            asyncio.get_running_loop(),
            frozenset({os.geteuid()}),
            lambda pid: runs.has_member(run, pid),
            heard.put_nowait,
        )
        run.at_birth.append(notify.listen)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"READY=1", "\0" + notify.address.removeprefix("@"))
            for _ in range(10):
                await asyncio.sleep(0)
            assert heard.empty()
            runs.born(7, os.getpid(), os.open("/dev/null", os.O_RDONLY))
            async with asyncio.timeout(DEADLINE_S):
                assert await heard.get() == {"READY": "1"}
        finally:
            notify.close()
            if run.pidfd is not None:
                os.close(run.pidfd)

    asyncio.run(body())
