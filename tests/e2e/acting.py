"""Python services on a stage, each of which does what the test says (``actor``): what they are asked, and answer.

Must not judge anything: what an actor's words come to is returned or raised.
"""

from __future__ import annotations

import json
import re
import socket
import textwrap
from pathlib import Path
from typing import Any

from clusters import PATIENCE_S, wait_until
from stage import Stage

ACTOR = Path(__file__).with_name("actor.py")
HEAD = """\
from __future__ import annotations
import asyncio, dataclasses, mmap, os, signal, time
from collections.abc import AsyncIterator
from svcd import *
from actor import Actor
"""
LOADS = "waiting → loading → loaded → initialized → starting → running"
DRAINS = "running → draining → stopping → stopped"
STOPS = "running → stopping → stopped"


class Failed(Exception):  # noqa: N818 - it says what came of it
    """What an actor was told to do has raised something: ``kind`` is its class' name."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.text = text


class Begun:
    """Something that an actor does at the moment."""

    def __init__(self, place: Path, words: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE_S)
        try:
            self._socket.connect(str(place))
            self._socket.sendall(json.dumps(textwrap.dedent(words).strip()).encode() + b"\n")
        except BaseException:
            self._socket.close()
            raise

    def end(self) -> Any:
        """What it comes to. Raises ``Failed``; ``ConnectionError`` when the actor ends before that."""
        told = b""
        with self._socket:
            while not told.endswith(b"\n"):
                more = self._socket.recv(65536)
                if not more:
                    raise ConnectionError("the actor has ended")
                told += more
        answer = json.loads(told)
        if "error" in answer:
            raise Failed(answer["error"], answer["text"])
        return answer["value"]

    def failure(self) -> Failed:
        """What it raises."""
        try:
            value = self.end()
        except Failed as failed:
            return failed
        raise AssertionError(f"it came to {value!r}")

    def cancel(self) -> None:
        self._socket.close()


class Play:
    """``stage`` with actors on it. ``services``: for cluster.yaml, with ``ACT Name`` among the keys of each."""

    def __init__(self, stage: Stage, code: str, services: str, head: str = "") -> None:
        self.stage = stage
        self._begun: list[Begun] = []
        stage.at_end.append(self.close)
        stage.write(ACTOR.read_text(), "actor.py")
        stage.write(HEAD + textwrap.dedent(code), "app.py")
        stage.up(acts(services), head)

    def begin(self, service: str, words: str) -> Begun:
        """Have it do that; nobody waits yet."""
        place = self.stage.base / "players" / service
        begun: Begun = wait_until(lambda: _begun(place, words), f"the actor {service} to listen")
        self._begun.append(begun)
        return begun

    def wait_heard(self, service: str, count: int = 1) -> None:
        """Until so many listen to what it publishes."""
        self.wait(service, "sum(bool(each._topics) for each in ctx._joined.publisher.subscribers)", count)

    def close(self) -> None:
        for each in self._begun:
            each.cancel()

    def ask(self, service: str, words: str) -> Any:
        """What it comes to. Raises ``Failed``."""
        return self.begin(service, words).end()

    def failure(self, service: str, words: str) -> Failed:
        """What it raises."""
        return self.begin(service, words).failure()

    def apply(self, services: str) -> None:
        """Have this configuration be in force."""
        file = self.stage.write_services(acts(services), name="changed.yaml")
        self.stage.svcd("apply", str(file))

    def wait(self, service: str, words: str, value: Any = True) -> None:
        """Until that is so, of which nobody is told; another run of it may have to come first."""

        def is_so() -> bool:
            try:
                return bool(self.ask(service, words) == value)
            except ConnectionError:
                return False

        wait_until(is_so, f"{service}: {words} to be {value!r}")


def _begun(place: Path, words: str) -> Begun | None:
    try:
        return Begun(place, words)
    except (FileNotFoundError, ConnectionRefusedError):  # it is not up yet, or not again
        return None


def acts(services: str) -> str:
    """``ACT Name`` in full."""
    return re.sub(r"\bACT (\w+)", r"command: null, python: 'app:\1'", services)
