"""A cluster whose whole life is told: orders of people, words to players, crashes, and the exact steps that follow.

Must not judge anything but the order of steps: scenarios say what it must be, in the words of ``traces``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import zmq
from clusters import PATIENCE_S, PAUSE_S, SVCD, Cluster, descendants, wait_until
from traces import Story, Transition, mismatch, then

from svcd.protocol import codec, messages

ORDERS = {
    "start": messages.StartServices,
    "stop": messages.StopServices,
    "restart": messages.RestartServices,
    "pause": messages.PauseServices,
    "resume": messages.ResumeServices,
}
# nothing in it runs out on a machine that stands still for some seconds, nor is anything of it waited for
DEFAULTS = """\
defaults:
  command: exec sleep 1000
  restart: {backoff: {initial: 0s}, reset_after: 1h}
  stop: {timeout: 30s}
"""
PLAYER_WORDS = re.compile(r"\bPLAYER((?: \w+)*)")
PLAYER = Path(__file__).with_name("player.py")


def _player_keys(found: re.Match[str]) -> str:
    words = found[1].split()
    keys = [f"command: [{', '.join(['./player', *words])}]", "ready: {notify: true}"]
    return ", ".join([*keys, *(["stop: {timeout: 1h}"] if "lingers" in words else [])])


class Order:
    """What somebody has asked for, who waits for the end of it or not."""

    def __init__(self, stage: Stage, correlation: bytes) -> None:
        self._stage = stage
        self._correlation = correlation
        self.first = stage.answer_to(correlation)
        self._end: messages.RequestEnded | messages.RequestRefused | None = None

    @property
    def also(self) -> tuple[str, ...]:
        """What it moved without having been named: said at once, or at the end."""
        assert isinstance(self.first, messages.RequestAccepted), self.first
        end = self._end
        return self.first.also or (end.also if isinstance(end, messages.RequestEnded) else ())

    def end(self) -> messages.RequestEnded | messages.RequestRefused:
        """What it came to; waits for that."""
        if self._end is None:
            is_over = isinstance(self.first, messages.RequestRefused)
            answer = self.first if is_over else self._stage.answer_to(self._correlation)
            assert isinstance(answer, messages.RequestEnded | messages.RequestRefused), answer
            self._end = answer
        return self._end

    def outcome(self) -> str:
        """ "done", or how else it ended and why."""
        end = self.end()
        outcome = "refused" if isinstance(end, messages.RequestRefused) else end.outcome
        return outcome + (f": {end.text}" if end.text else "")


class Command:
    """A command that somebody runs at the same time; it must have been waited for at the end."""

    def __init__(self, stage: Stage, arguments: tuple[str, ...]) -> None:
        self._stage = stage
        self._arguments = arguments
        self._process = subprocess.Popen(
            [SVCD, *arguments],
            env=stage.environ,
            cwd=stage.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> tuple[int, str]:
        """Its exit code, and what it said on stderr."""
        try:
            _, err = self._process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"svcd {' '.join(self._arguments)} did not end\n{self._stage.story()}") from None
        return self._process.returncode, err

    def close(self) -> None:
        """Nobody waits for it any more: the test has failed."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()


class Stage(Cluster):
    """``up`` raises the curtain; from there on every step must be told by ``tells``, none left out."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._orders = self._socket(zmq.DEALER, "control")
        self._numbers = itertools.count(1)
        self._answers: dict[bytes, list[messages.Message]] = {}
        self._told = 0
        self.at_end: list[Callable[[], None]] = []
        (self.base / "players").mkdir()
        self.environ["PLAYERS"] = str(self.base / "players")

    def close(self) -> None:
        for each in self.at_end:
            each()
        self._orders.close()
        self._drop_the_curtain()
        super().close()

    def _drop_the_curtain(self) -> None:
        """Drain, and end whoever lingers."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        deadline = time.monotonic() + PATIENCE_S / 2
        while self.process.poll() is None and time.monotonic() < deadline:
            players = os.listdir(self.base / "players")
            for process in descendants():
                if str(process.pid) in players:
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(PAUSE_S)

    def up(self, services: str, head: str = "", wait: str | None = "running") -> None:
        """Start a cluster of ``services``, and tell from here on.

        Where they say nothing else they sleep, restart without delay (but after another backoff, if they have one,
        however long they ran) and have half a minute to stop. ``PLAYER WORD…`` among the keys of one makes it a player
        (player.py), running when the player listens. ``head``: what comes before the services.
        """
        player = self.directory / "player"
        player.write_text(f"#!{sys.executable} -ISB\n{PLAYER.read_text()}")
        player.chmod(stat.S_IRWXU)
        self.write_services(services, head)
        self.start(wait=wait)
        self.skip()

    def write_services(self, services: str, head: str = "", name: str = "cluster.yaml") -> Path:
        """The file of such a cluster."""
        written = PLAYER_WORDS.sub(_player_keys, textwrap.dedent(services).strip())
        return self.write(f"{head}{DEFAULTS}services:\n{textwrap.indent(written, '  ')}\n", name)

    # ---- what is done to it ----------------------------------------------------------------------------------------

    def order(self, verb: str | messages.Message, *services: str, **more: Any) -> Order:
        """Ask, as soon as everything asked before has been taken note of; nobody waits yet."""
        message = ORDERS[verb](services=services, **more) if isinstance(verb, str) else verb
        correlation = b"%d" % next(self._numbers)
        self._orders.send_multipart([correlation, codec.encode(message)])
        return Order(self, correlation)

    def does(self, verb: str | messages.Message, *services: str, **more: Any) -> Order:
        """Ask, and wait until it is done."""
        order = self.order(verb, *services, **more)
        assert order.outcome() == "done", self.story()
        return order

    def command(self, *arguments: str) -> Command:
        """Run ``svcd`` with these, without waiting for it."""
        command = Command(self, arguments)
        self.at_end.append(command.close)
        return command

    def answer_to(self, correlation: bytes) -> messages.Message:
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers.get(correlation):
            assert self._orders.poll(max(0.0, deadline - time.monotonic()) * 1000), f"no answer\n{self.story()}"
            whose, body = self._orders.recv_multipart()
            self._answers.setdefault(whose, []).append(codec.decode(body))
        return self._answers[correlation].pop(0)

    def crash(self, *services: str, how: signal.Signals = signal.SIGKILL) -> None:
        """Kill their main processes, as nearly at once as can be: what the first one's end takes along may be gone."""
        first, *others = [self.pid_of(service) for service in services]
        os.kill(first, how)
        for pid in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)

    def say(self, service: str, word: str) -> None:
        """A word to a player, which is as good as done when the player reads it."""
        self.wait_status(lambda _: self.row(service).pid, f"{service} to have a process")
        place = self.base / "players" / str(self.pid_of(service))
        wait_until(place.exists, f"the player {service} to listen")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.sendto(word.encode(), str(place))

    # ---- what follows ----------------------------------------------------------------------------------------------

    def skip(self) -> None:
        """What has happened until now is not told."""
        self._told = self.mark()

    def tells(self, *story: Story) -> list[Transition]:
        """Wait until the story, from where the last one ended, is complete. One step else than it says is a failure."""
        whole = then(*story)
        deadline = time.monotonic() + PATIENCE_S
        while (wrong := mismatch(whole, [each.line for each in self._transitions(self._told)])) is not None:
            assert "\n     but the end came" in wrong, f"{wrong}\n{self.story()}"
            assert time.monotonic() < deadline, f"waited in vain:\n{wrong}\n{self.story()}"
            self.read_events(0.5)
        steps = self.since(self._told)  # asks for the status: what happened before the answer is in it
        wrong = mismatch(whole, [each.line for each in steps])
        assert wrong is None, f"{wrong}\n{self.story()}"
        self._told = max([self._told, *(event.sequence for event in self.trace)])  # type: ignore[attr-defined]  # all have
        return steps

    def drains(self, *story: Story, code: int = 0) -> None:
        """SIGTERM; the story is all that follows, and ``code`` its end."""
        assert self.drain() == code
        self.tells(*story)

    def untold(self) -> list[Transition]:
        """What has happened until now since the last story ended."""
        return self.since(self._told)

    def processes(self, service: str) -> list[int]:
        """The pids of all processes that carry this service's name in their environment, or as their own name."""
        found = []
        for process in descendants():
            try:
                title = " ".join(process.cmdline()).strip()
                if process.environ().get("SVCD_SERVICE") == service or title == f"svcd: service cluster/{service}":
                    found.append(process.pid)
            except psutil.Error:
                pass
        return found

    def names(self) -> list[str]:
        """Every service there is, instances each for itself, in the order of the status."""
        return [row.name for row in self.status().services]

    def configuration(self) -> str:
        """What is in force, as the daemon keeps it."""
        answer = self.ask(messages.GetConfiguration())
        assert isinstance(answer, messages.ConfigurationReported), answer
        return answer.plan

    def causes(self, service: str) -> list[str]:
        """Why it took each of its steps, from the beginning."""
        return [each.cause for each in self._transitions(0) if each.service == service]

    def notices(self, service: str) -> list[str]:
        return [
            event.text for event in self.trace if isinstance(event, messages.NoticeGiven) and event.service == service
        ]

    def _transitions(self, after: int) -> list[Transition]:
        return [
            Transition(event.service, event.old, event.new, event.cause, event.invocation)
            for event in self.trace
            if isinstance(event, messages.ServiceTransitioned) and event.sequence > after
        ]
