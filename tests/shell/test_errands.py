"""Errands: short commands run as their service would, answer once, and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from commanded import Body, Commanded, definition, eventually
from guarded import is_alive

from svcd.supervisor.controller.processes import errands
from svcd.supervisor.controller.processes.errands import FIRST_INVOCATION, Errands
from svcd.supervisor.controller.watching import checks
from svcd.supervisor.wiring import INLINE_LIMIT_BYTES

Play = Callable[[Body], None]

# Says its pids, then stays: the shell, a child of its group, and one that has left the session. Nobody hears SIGTERM.
TREE = """trap '' TERM; sleep 1000 & echo $! >> pids; setsid sh -c 'trap "" TERM; echo $$ >> pids; sleep 1000' &
echo $$ >> pids; wait; sleep 1000"""


def pids_in(directory: Path, count: int = 3) -> list[int]:
    path = directory / "pids"
    found = [int(line) for line in path.read_text().split()] if path.exists() else []
    return found if len(found) == count else []


def test_exit_codes_are_answers(play: Play) -> None:
    async def body(commanded: Commanded) -> None:
        assert await commanded.run("true") is None
        assert await commanded.run("sh", "-c", "exit 7") == "exit code 7"
        assert await commanded.run("sh", "-c", "kill -9 $$") == "signal SIGKILL"

    play(body)


def test_what_cannot_be_run_says_why(play: Play) -> None:
    async def body(commanded: Commanded) -> None:
        assert await commanded.run("./migrate") == "cannot run ./migrate: No such file or directory"
        assert await commanded.run("/dev/null") == "cannot run /dev/null: Permission denied"
        gone = commanded.run("true", workdir="/no/such/place")
        assert await gone == (
            "cannot run true: cannot enter its working directory /no/such/place: No such file or directory"
        )

    play(body)


def test_it_runs_as_its_service_would(play: Play, tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()

    async def body(commanded: Commanded) -> None:
        env = {"PATH": os.environ["PATH"], "COLOUR": "red", "NAME": "of the service"}
        words = "echo $COLOUR, $NAME, $SVCD_SERVICE, $SVCD_CLUSTER, $(umask), $(pwd)"
        answer = commanded.run(
            "sh", "-c", words, env=env, environment={"NAME": "its own"}, umask=0o077, workdir=str(tmp_path / "place")
        )
        assert await answer is None
        assert await commanded.said() == f"red, its own, web, shop, 0077, {tmp_path}/place\n"

    play(body)


def test_output_goes_to_the_services_files_or_nowhere(play: Play, tmp_path: Path) -> None:
    async def body(commanded: Commanded) -> None:
        words = "echo quiet; readlink /proc/$$/fd/2 > where"
        assert await commanded.run("sh", "-c", words, workdir=str(tmp_path), output=False) is None
        assert (tmp_path / "where").read_text() == "/dev/null\n"
        assert await commanded.run("sh", "-c", "echo loud; echo oh >&2") is None
        assert await commanded.said() == "loud\n"
        assert await commanded.said(stream="stderr") == "oh\n"

    play(body)


def test_at_its_timeout_all_of_it_is_killed(play: Play, tmp_path: Path) -> None:
    async def body(commanded: Commanded) -> None:
        for timeout_s in (0.5, 5, 50):  # as long as its processes need here to be all there
            assert await commanded.run("sh", "-c", TREE, workdir=str(tmp_path), timeout_s=timeout_s) == (
                f"no end within {timeout_s} s: killed"
            )
            if pids := pids_in(tmp_path):
                break
            (tmp_path / "pids").unlink(missing_ok=True)
        assert pids
        assert not any(map(is_alive, pids)), "the answer comes when nothing of it is left"

    play(body)


def test_what_it_leaves_behind_is_killed_when_it_ends(play: Play, tmp_path: Path) -> None:
    async def body(commanded: Commanded) -> None:
        leave = TREE.replace("wait; sleep 1000", "until [ $(wc -l < pids) = 3 ]; do sleep 0.01; done; exit 0")
        answer = commanded.run("sh", "-c", leave, workdir=str(tmp_path))
        assert await answer is None
        pids = await eventually(lambda: pids_in(tmp_path), "its processes")
        assert not any(map(is_alive, pids)), "the answer comes when nothing of it is left"

    play(body)


def test_a_kill_is_an_answer_whenever_it_comes(play: Play, tmp_path: Path) -> None:
    async def body(commanded: Commanded) -> None:
        early = commanded.run("sleep", "1000")
        early.kill()  # the launcher has not even read of it
        assert await early == "killed"
        late = commanded.run("sh", "-c", TREE, workdir=str(tmp_path))
        pids = await eventually(lambda: pids_in(tmp_path), "its processes")
        late.kill()
        late.kill()
        assert await late == "killed"
        assert not any(map(is_alive, pids)), "the answer comes when nothing of it is left"
        late.kill()  # of what has ended: nothing

    play(body)


def test_the_launchers_death_is_an_answer(play: Play) -> None:
    async def body(commanded: Commanded) -> None:
        launcher = await commanded.launcher()
        os.kill(launcher, signal.SIGSTOP)
        answers = [commanded.run("true") for _ in range(3)]
        os.kill(launcher, signal.SIGKILL)
        assert [await each for each in answers] == ["cannot run true: the launcher died"] * 3
        assert await commanded.run("true") is None, "the next launcher takes over"

    play(body)


def test_who_waits_does_not_wait_for_what_cannot_be_killed(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher that is stopped stands for whatever hangs in the kernel: there is nothing that a kill could reach."""
    monkeypatch.setattr(errands, "KILL_GRACE_S", 0.1)

    async def body(commanded: Commanded) -> None:
        launcher = await commanded.launcher()
        os.kill(launcher, signal.SIGSTOP)
        look = checks.command(commanded.errands, definition(), ("sleep", "1000"))
        assert await look(0.1) == "sleep: no end within 0.1 s: killed"
        assert await look(0.1) == "sleep: the last one has been killed, and does not end"
        assert len(commanded.errands) == 1
        os.kill(launcher, signal.SIGCONT)
        await eventually(lambda: len(commanded.errands) == 0, "it to be born, and killed")
        assert await look(0.1) == "sleep: no end within 0.1 s: killed"

    play(body)


def test_many_at_once_each_have_their_own_answer(play: Play) -> None:
    async def body(commanded: Commanded) -> None:
        answers = [commanded.run("sh", "-c", f"exit {number}", output=False) for number in range(40)]
        found = await asyncio.gather(*(each.came for each in answers))
        assert found == [None, *(f"exit code {number}" for number in range(1, 40))]

    play(body)


def test_a_long_environment_reaches_it(play: Play) -> None:
    async def body(commanded: Commanded) -> None:
        environment = {"LONG": "x" * (INLINE_LIMIT_BYTES + 1)}
        assert await commanded.run("sh", "-c", 'echo "${#LONG}"', environment=environment) is None
        assert await commanded.said() == f"{INLINE_LIMIT_BYTES + 1}\n"

    play(body)


def test_the_end_kills_what_runs_and_answers_nobody(play: Play, tmp_path: Path) -> None:
    async def body(commanded: Commanded) -> None:
        answers = [commanded.run("sh", "-c", TREE, workdir=str(tmp_path)), commanded.run("sleep", "1000")]
        pids = await eventually(lambda: pids_in(tmp_path), "its processes")
        ended = asyncio.Event()
        commanded.errands.end(ended.set)
        assert not ended.is_set()
        await ended.wait()
        assert not any(map(is_alive, pids))
        assert not any(each.came.done() for each in answers)
        assert psutil.Process(await commanded.launcher()).is_running()

    play(body)


def test_their_numbers_are_beyond_those_of_runs() -> None:
    assert Errands.owns(FIRST_INVOCATION + 1)
    assert not Errands.owns(1 << 39)
    assert not Errands.owns(None)
