"""Whatever is sent to the control socket by whoever can reach it changes nothing that it may not change.

Must not test the codec: that is the protocol's own tests'.
"""

from __future__ import annotations

import random
import socket
from typing import Any

import msgpack
import zmq
from clusters import Cluster

from svcd.protocol import codec, messages

CLUSTER = """
    services:
      program: {command: exec sleep 1000}
      python: {code: "async def main(ctx):\\n    await ctx.stopping.wait_async()\\n"}
"""


def _facts(cluster: Cluster) -> Any:
    """What must not change. The console comes and goes by itself."""
    status = cluster.status()
    parts = [part for part in status.parts if part.name != "console"]
    return [(row.name, row.state, row.pid, row.invocation, row.restarts) for row in status.services], parts


def _send(cluster: Cluster, *frames: bytes) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.linger = 2000
        peer.connect(f"ipc://{cluster.run_dir}/control")
        peer.send_multipart(frames)


def test_random_frames(cluster: Cluster) -> None:
    cluster.write(CLUSTER)
    cluster.start()
    before, dice = _facts(cluster), random.Random(20261121)
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.linger = 2000
        peer.connect(f"ipc://{cluster.run_dir}/control")
        for _ in range(2000):
            frames = [dice.randbytes(dice.choice((0, 1, 5, 17, 300))) for _ in range(dice.randint(1, 5))]
            peer.send_multipart(frames)
    assert _facts(cluster) == before


def test_valid_msgpack_of_the_wrong_shape(cluster: Cluster) -> None:
    cluster.write(CLUSTER)
    cluster.start()
    before = _facts(cluster)
    for value in (
        None,
        [],
        {},
        [1],
        [1, "StopServices"],
        [1, "StopServices", {"services": "python"}],
        [1, "StopServices", {"services": [1, 2]}],
        [1, "StopServices", []],
        [99, "StopServices", {"services": ["python"]}],
        [1, "NoSuchMessage", {}],
        [1, ["StopServices"], {"services": ["python"]}],
        [1, "ShutDown", {"now": 1}],
        [[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]],
    ):
        _send(cluster, b"", msgpack.packb(value))
        _send(cluster, b"c" * 17, msgpack.packb(value))
    assert _facts(cluster) == before


def test_a_foreign_stub_cannot_speak_for_a_service(cluster: Cluster) -> None:
    cluster.write(CLUSTER)
    cluster.start()
    before = _facts(cluster)
    for row in cluster.status().services:
        invocation = row.invocation or 0
        with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
            peer.linger = 2000
            peer.setsockopt(zmq.ROUTING_ID, row.name.encode())
            peer.connect(f"ipc://{cluster.run_dir}/control")
            for message in (
                messages.RemoteReady(row.name, invocation, row.pid or 0, "0"),
                messages.StateChanged(row.name, invocation, "stopping", "I am somebody else"),
                messages.ExceptionRaised(row.name, invocation, "run", "Lie", "a lie", "a lie"),
                messages.ResourceSampled(row.name, invocation, 1e6, 2**40, 1, 1),
            ):
                peer.send_multipart([b"", codec.encode(message)])
            assert not peer.poll(200), "a foreign stub was answered"
    assert _facts(cluster) == before
    assert all(row.exception is None for row in cluster.status().services)
    cluster.svcd("restart", "python")


def test_a_peer_that_does_not_speak_zmtp(cluster: Cluster) -> None:
    cluster.write(CLUSTER)
    cluster.start()
    before, dice = _facts(cluster), random.Random(7)
    for _ in range(50):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(f"{cluster.run_dir}/control")
            try:
                peer.sendall(dice.randbytes(4096))
            except OSError:
                pass
    assert _facts(cluster) == before


def test_a_client_that_never_reads_slows_nobody(cluster: Cluster) -> None:
    cluster.write(CLUSTER)
    cluster.start()
    question = codec.encode(messages.GetStatus())
    with zmq.Context() as context, context.socket(zmq.DEALER) as deaf:
        deaf.linger = 0
        deaf.rcvhwm = 1
        deaf.connect(f"ipc://{cluster.run_dir}/control")
        for _ in range(5000):
            try:
                deaf.send_multipart([b"q", question], zmq.NOBLOCK)
            except zmq.Again:
                break
        assert cluster.status().state == "running"
        cluster.svcd("restart", "python")


def test_the_run_directory_is_private(cluster: Cluster) -> None:
    cluster.write(CLUSTER)
    cluster.start()
    assert cluster.run_dir.stat().st_mode & 0o777 == 0o700
    assert (cluster.run_dir / "cluster.json").stat().st_mode & 0o777 == 0o600
