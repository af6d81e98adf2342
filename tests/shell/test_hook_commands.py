"""Hooks: what a command of a service's own finds in its environment, and who is told what came of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commanded import Body, Commanded, definition, eventually

from svcd.supervisor.config.launch import ClusterSpec, HookCommand
from svcd.supervisor.controller.processes.hooks import Hooks
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core.actions import KillHook, RunHook
from svcd.supervisor.core.events import Event, ExitStatus, HookEnded, ServicesRegistered
from svcd.supervisor.core.machine import Machine
from svcd.supervisor.core.spec import Hook

Play = Callable[[Body], None]


class Scene:
    """Hooks of "web": every one of them is ``words``."""

    def __init__(self, commanded: Commanded, words: str, timeout_s: float = 30.0) -> None:
        command = HookCommand(("sh", "-c", words), timeout_s)
        web = definition(hooks={hook.value: command for hook in Hook}, workdir=str(commanded.directory))
        machine = Machine()
        machine.handle(ServicesRegistered(0.0, (web.spec,)))
        self.status: ExitStatus | None = None
        self.told: list[Event] = []
        self.notices: list[tuple[str, str]] = []
        self.hooks = Hooks(
            commanded.errands,
            Registry(ClusterSpec("shop", (), (web,))),
            machine,
            self.told.append,
            lambda service, invocation: self.status if (service, invocation) == ("web", 7) else None,
            lambda service, text: self.notices.append((service, text)),
        )

    def run(self, hook: Hook, invocation: int = 7) -> None:
        self.hooks.run(RunHook("web", invocation, hook, "because"))

    async def end(self) -> HookEnded:
        await eventually(lambda: self.told, "its end")
        event = self.told.pop()
        assert isinstance(event, HookEnded)
        return event


SAYS = "echo $SVCD_HOOK $SVCD_SERVICE $SVCD_INVOCATION $SVCD_CAUSE ${SVCD_EXIT_CODE-none} ${SVCD_EXIT_SIGNAL-none}"


@pytest.mark.parametrize(
    ("hook", "status", "words"),
    [
        (Hook.PRE_START, None, "none none"),
        (Hook.PRE_STOP, ExitStatus(code=3), "none none"),  # of some run before
        (Hook.POST_STOP, ExitStatus(code=3), "3 none"),
        (Hook.POST_STOP, ExitStatus(signal=9), "none 9"),
        (Hook.POST_STOP, None, "none none"),
    ],
)
def test_its_environment(play: Play, hook: Hook, status: ExitStatus | None, words: str) -> None:
    async def body(commanded: Commanded) -> None:
        scene = Scene(commanded, SAYS)
        scene.status = status
        scene.run(hook)
        event = await scene.end()
        assert (event.service, event.invocation, event.hook, event.error) == ("web", 7, hook, None)
        assert await commanded.said() == f"{hook.value} web 7 because {words}\n"

    play(body)


def test_an_on_failure_hook_is_not_answered_but_its_failure_is_told(play: Play) -> None:
    async def body(commanded: Commanded) -> None:
        scene = Scene(commanded, SAYS + "; exit 4")
        scene.status = ExitStatus(code=1)
        scene.run(Hook.ON_FAILURE)
        await eventually(lambda: scene.notices, "its failure")
        assert scene.notices == [("web", "on_failure hook: exit code 4")]
        assert scene.told == []
        assert await commanded.said() == "on_failure web 7 because 1 none\n"

    play(body)


def test_its_failure_its_timeout_and_its_killing_are_answers(play: Play) -> None:
    async def body(commanded: Commanded) -> None:
        failing = Scene(commanded, "exit 7")
        failing.run(Hook.PRE_START)
        assert (await failing.end()).error == "exit code 7"
        hanging = Scene(commanded, "sleep 1000", timeout_s=0.2)
        hanging.run(Hook.PRE_START)
        assert (await hanging.end()).error == "no end within 0.2 s: killed"
        killed = Scene(commanded, "sleep 1000")
        killed.run(Hook.PRE_START)
        killed.hooks.kill(KillHook("web", 7, Hook.PRE_START))
        assert (await killed.end()).error == "killed"
        killed.hooks.kill(KillHook("web", 7, Hook.PRE_START))  # nothing runs any more

    play(body)


def test_a_kill_hits_the_hook_that_it_names(play: Play) -> None:
    async def body(commanded: Commanded) -> None:
        scene = Scene(commanded, "echo x >> began; read x < gate")
        make_gate(commanded.directory)
        for hook, invocation in ((Hook.POST_STOP, 7), (Hook.POST_STOP, 8), (Hook.PRE_STOP, 7)):
            scene.run(hook, invocation)
        began = commanded.directory / "began"
        await eventually(lambda: began.exists() and len(began.read_text()) == 6, "all of them to wait")
        scene.hooks.kill(KillHook("web", 8, Hook.POST_STOP))
        event = await scene.end()
        assert (event.invocation, event.hook, event.error) == (8, Hook.POST_STOP, "killed")
        scene.hooks.kill_all()
        await eventually(lambda: len(scene.told) == 2, "the others")

    play(body)


def make_gate(directory: Path) -> None:
    os.mkfifo(directory / "gate")


def test_the_end_waits_for_the_last_hook(play: Play) -> None:
    async def body(commanded: Commanded) -> None:
        scene = Scene(commanded, "read x < gate; echo told")
        make_gate(commanded.directory)
        ended: list[Any] = []
        scene.run(Hook.ON_FAILURE)
        scene.hooks.when_none(lambda: ended.append("now"))
        await asyncio.sleep(0.05)
        assert ended == []
        await asyncio.to_thread((commanded.directory / "gate").write_text, "go\n")
        await eventually(lambda: ended, "the end")
        assert await commanded.said() == "told\n"
        scene.hooks.when_none(lambda: ended.append("at once"))
        assert ended == ["now", "at once"]

    play(body)
