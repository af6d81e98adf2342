"""A controller that says what a test tells it to.

Must not know the real daemon: messages and places are all that the command line and the daemon share.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zmq

from svcd.protocol import codec, messages, places

PATIENCE_S = 30.0
TURN_MS = 10

Reply = Callable[[Any], Iterable[messages.Message]]


def row(name: str, state: str = "running", **more: Any) -> messages.ServiceStatus:
    """A line of the status, as a healthy service has it unless ``more`` says otherwise."""
    given: dict[str, Any] = {
        "name": name, "service": name, "instance": 0, "state": state, "desired": "up", "pid": 100, "invocation": 1,
        "restarts": 0, "since": time.time(), "cause": "ready", "cpu_percent": None, "memory_bytes": None,
        "depends_on": (),
    }  # fmt: skip
    return messages.ServiceStatus(**(given | more))


class FakeDaemon:
    """Holds the lock and both sockets of a cluster in ``run_dir``. ``replies``: message type -> what is answered."""

    def __init__(self, run_dir: Path, state_dir: Path, pid: int | None = None) -> None:
        self.places = places.Places(run_dir, state_dir)
        self.lock = places.claim_lock(self.places)
        self.pid = pid if pid is not None else os.getpid()
        places.record_pid(self.lock, self.pid)
        self.rows: list[messages.ServiceStatus] = []
        self.state = "running"
        self.sequence = 0
        self.asked: list[messages.Message] = []
        self.replies: dict[type, Reply] = {messages.GetStatus: self.status}
        self.raw_before: list[list[bytes]] = []
        self.arrived = threading.Condition()
        self._subscribed = threading.Semaphore(0)
        self._publishing = threading.Lock()
        self._later: queue.Queue[messages.Message] = queue.Queue()
        self._last: tuple[bytes, bytes] | None = None
        self._end = threading.Event()
        self._context: zmq.Context[Any] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.linger = 0
        self._router.bind(f"ipc://{self.places.control}")
        self._publisher = self._context.socket(zmq.XPUB)
        self._publisher.linger = 0
        self._publisher.bind(f"ipc://{self.places.events}")
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def status(self, question: messages.GetStatus) -> list[messages.Message]:
        known = {each.name: each for each in self.rows}
        unknown = [name for name in question.services if name not in known]
        if unknown:
            return [messages.RequestRefused("unknown_service", f"no service {unknown[0]!r}")]
        rows = [known[name] for name in question.services] or self.rows
        return [
            messages.StatusReported(
                "shop", self.pid, self.state, self.sequence, str(self.places.state_dir),
                (messages.Part("guardian", self.pid),), tuple(rows),
            )
        ]  # fmt: skip

    def answer(self, kind: type, *replies: messages.Message) -> None:
        """Answer every message of ``kind`` with these."""
        self.replies[kind] = lambda question: replies

    def answer_later(self, message: messages.Message) -> None:
        """One more answer to whoever asked last."""
        self._later.put(message)

    def wait_asked(self, kind: type, count: int = 1) -> None:
        """Until ``count`` messages of ``kind`` have come."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: sum(type(each) is kind for each in self.asked) >= count, PATIENCE_S), (
                f"nobody asked {kind.__name__}; asked was {self.asked}"
            )

    def wait_subscriber(self) -> None:
        """Until somebody's subscription has arrived: what is published from now on is heard."""
        assert self._subscribed.acquire(timeout=PATIENCE_S), "nobody subscribed"

    def publish(self, kind: type, **fields: Any) -> None:
        """Publish an event with the next sequence number, and be from now on as it says."""
        if kind is messages.ClusterStateChanged:
            self.state = fields["state"]
        self.sequence += 1
        message = kind(sequence=self.sequence, at=time.time(), **fields)
        with self._publishing:
            self._publisher.send_multipart([kind.__name__.encode(), codec.encode(message)])

    def transition(self, service: str, old: str, new: str, cause: str = "", spent_s: float = 0.0) -> None:
        self.rows = [replace(each, state=new, cause=cause) if each.name == service else each for each in self.rows]
        self.publish(
            messages.ServiceTransitioned, service=service, invocation=1, old=old, new=new, cause=cause, spent_s=spent_s
        )

    def _serve(self) -> None:
        while not self._end.is_set():
            self._confirm()
            if self._router.poll(TURN_MS):
                route, correlation, body = self._router.recv_multipart()
                self._last = route, correlation
                message = codec.decode(body)
                with self.arrived:
                    self.asked.append(message)
                    self.arrived.notify_all()
                for frames in self.raw_before:
                    self._router.send_multipart([route, *frames])
                for reply in self.replies[type(message)](message):
                    self._router.send_multipart([route, correlation, codec.encode(reply)])
            while self._last is not None and not self._later.empty():
                self._router.send_multipart([*self._last, codec.encode(self._later.get())])

    def _confirm(self) -> None:
        """Answer who wants to know whether it has subscribed."""
        with self._publishing:
            while self._publisher.poll(0):
                topic = self._publisher.recv()[1:]
                name, _, word = topic.partition(b":")
                if name == messages.SubscriptionConfirmed.__name__.encode() and word:
                    answer = codec.encode(messages.SubscriptionConfirmed(word.decode()))
                    self._publisher.send_multipart([topic, answer])
                    self._subscribed.release()

    def close(self) -> None:
        self._end.set()
        self._thread.join(PATIENCE_S)
        self._router.close()
        self._publisher.close()
        self._context.term()
        os.close(self.lock)


@dataclass
class Directories:
    """Short ones: a socket's path has at most 107 bytes."""

    run_dir: Path
    state_dir: Path


@dataclass
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str
