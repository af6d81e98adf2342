"""A fault of svcd's own in a callback is told and survived."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace

from svcd.supervisor.config import plan
from svcd.supervisor.config.launch import ClusterSpec
from svcd.supervisor.controller.daemon import Arguments, Daemon
from svcd.supervisor.wiring import Link, SignalReceived


def test_it_is_written_down_and_the_cluster_still_drains(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    (run_dir / "cluster.json").write_bytes(plan.to_json(ClusterSpec("shop", (), ())))
    arguments = Arguments("shop", str(run_dir), str(tmp_path), theirs.detach())
    guardian = Link(ours)

    async def body() -> None:
        loop = asyncio.get_running_loop()
        daemon = Daemon(arguments, loop)
        running = asyncio.create_task(daemon.run())
        loop.call_soon(lambda: SimpleNamespace().nothing)
        await asyncio.sleep(0)
        guardian.send(SignalReceived(15))
        async with asyncio.timeout(30):
            await running

    asyncio.run(body())
    guardian.close()
    lines = [json.loads(line) for line in (tmp_path / "svcd.log").read_text().splitlines()]
    faults = [line for line in lines if line["event"] == "internal error"]
    assert len(faults) == 1
    assert "AttributeError" in faults[0]["traceback"]
    assert [line["state"] for line in lines if line["event"] == "cluster"][-1] == "ended"
    assert sorted(os.listdir(run_dir)) == ["cluster.json"]
