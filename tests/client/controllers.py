"""A controller as bad as a test wants it: real sockets, and whatever answers the test gives.

Must not know the real daemon.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from svcd.client.place import Place
from svcd.protocol import codec, messages, places

PATIENCE_S = 30.0
TURN_MS = 5

Answer = Callable[[list[bytes]], list[list[bytes]]]
"""From a question's frames (correlation, body) to those of its answers."""


def silent(_frames: list[bytes]) -> list[list[bytes]]:
    return []


def answering(*answers: messages.Message) -> Answer:
    return lambda frames: [[frames[0], codec.encode(each)] for each in answers]


class Controller:
    """Holds the lock of a cluster for as long as it is not ``ended``; ``open`` and ``close`` its sockets meanwhile."""

    def __init__(self, directory: Path) -> None:
        self._places = places.Places(directory / "run", directory / "state")
        self.place = Place(str(self._places.control), self._places.run_dir)
        self._lock: int | None = places.claim_lock(self._places)
        places.record_pid(self._lock, os.getpid())
        self.answer: Answer = silent
        self.confirms = True
        self.asked: list[messages.Message] = []
        self._routes: dict[bytes, None] = {}
        self._thread: threading.Thread | None = None
        self._publishing = threading.Lock()
        self.open()

    def open(self) -> None:
        self._end = threading.Event()
        self._context: zmq.Context[Any] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._publisher = self._context.socket(zmq.XPUB)
        for each, name in ((self._router, "control"), (self._publisher, "events")):
            each.linger = 0
            each.bind(f"ipc://{self._places.run_dir / name}")
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        if self._thread is not None:
            self._end.set()
            self._thread.join(PATIENCE_S)
            self._thread = None
            self._router.close()
            self._publisher.close()
            self._context.term()

    def end(self) -> None:
        """The cluster has ended."""
        self.close()
        if self._lock is not None:
            os.close(self._lock)
            os.unlink(self._places.lock)
            self._lock = None

    def publish(self, message: messages.Message) -> None:
        self.publish_frames(type(message).__name__.encode(), codec.encode(message))

    def publish_frames(self, *frames: bytes) -> None:
        with self._publishing:
            self._publisher.send_multipart(frames)

    def _serve(self) -> None:
        while not self._end.is_set():
            self._confirm()
            if self._router.poll(TURN_MS):
                route, *frames = self._router.recv_multipart()
                self.asked.append(codec.decode(frames[-1]))
                for answer in self.answer(frames):
                    self._router.send_multipart([route, *answer])

    def _confirm(self) -> None:
        """Answer who wants to know whether it has subscribed."""
        with self._publishing:
            while self._publisher.poll(0):
                topic = self._publisher.recv()[1:]
                name, _, word = topic.partition(b":")
                if name == messages.SubscriptionConfirmed.__name__.encode() and word and self.confirms:
                    answer = codec.encode(messages.SubscriptionConfirmed(word.decode()))
                    self._publisher.send_multipart([topic, answer])
