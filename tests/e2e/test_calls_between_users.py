"""Services that run as different users call each other; a stranger who is neither a service nor svcd's user may not."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest
from clusters import wait_until
from stage import Stage

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run services as other users")

# nothing is imported beyond what the fork server has: others may not be able to read the interpreter's files
APP = """
import asyncio, os
from svcd import Service, on_event, rpc

class Billing(Service):
    @rpc
    async def who(self) -> str:
        self.ctx.publish("asked", self.ctx.request.caller)
        return f"{os.getuid()} by {self.ctx.request.caller}"

class Web(Service):
    async def start(self):
        self.task = asyncio.create_task(self.go())

    async def go(self):
        while True:
            print(os.getuid(), await self.ctx.call("billing.who", wait=60), flush=True)
            await asyncio.sleep(0.05)

    @on_event("billing.asked")
    async def asked(self, by: str) -> None:
        print("heard", by, flush=True)
"""


def up(stage: Stage, services: str) -> None:
    place = stage.base / "code"
    place.mkdir()
    (place / "app.py").write_text(APP)
    stage.base.chmod(0o711)
    place.chmod(0o755)
    (place / "app.py").chmod(0o644)
    stage.run_dir.mkdir(mode=0o700)
    stage.up(services.replace("APP", f"command: null, workdir: /, path: [{place}], python: app"))


@pytest.mark.parametrize(("callee", "caller"), [("nobody", "root"), ("root", "nobody"), ("nobody", "daemon")])
def test_services_of_different_users_call_each_other(stage: Stage, callee: str, caller: str) -> None:
    up(
        stage,
        f"billing: {{APP:Billing, user: {callee}}}\nweb: {{APP:Web, user: {caller}, depends_on: [billing]}}",
    )
    uids = {"root": 0, "nobody": 65534, "daemon": 1}
    line = f"{uids[caller]} {uids[callee]} by web\n".encode()
    wait_until(lambda: line in stage.output("web") and b"heard web\n" in stage.output("web"), "an answer and an event")
    stage.does("restart", "billing")
    count = stage.output("web").count(line)
    wait_until(lambda: stage.output("web").count(line) > count, "an answer of the next one")


def test_the_doors_are_open_no_further_than_they_must_be(stage: Stage) -> None:
    up(stage, "billing: {APP:Billing, user: nobody}\nweb: {APP:Web, depends_on: [billing]}")
    wait_until(lambda: b"by web" in stage.output("web"), "an answer")
    modes = {
        path.relative_to(stage.run_dir): stat.S_IMODE(path.stat().st_mode)
        for path in (stage.run_dir, *sorted(stage.run_dir.rglob("*")))
        if path.is_dir()
    }
    assert set(modes.values()) == {0o711}, modes


def test_a_stranger_among_the_users_is_refused(stage: Stage) -> None:
    """The door is there for everybody; who knocks is known by the kernel's word."""
    up(stage, "billing: {APP:Billing, user: nobody}\nweb: {APP:Web, depends_on: [billing]}")
    wait_until(lambda: b"by web" in stage.output("web"), "an answer")
    (door,) = stage.run_dir.rglob("calls")
    script = f"""
import os, sys
sys.path[:0] = {sys.path!r}
import asyncio
from svcd.worker_runtime.calls.peers import Peers
from svcd.worker_runtime.calls.routes import Address, Routes
async def main():
    routes = Routes()
    routes.set_route("billing", (Address({str(door)!r}),))
    peers = Peers("x", routes)
    await peers.call("billing.none")
try:
    from svcd.worker_runtime.calls import accepting, calling, link, stream, wire_socket
    from svcd.protocol import call_wire, values, zmtp_large
    loop = asyncio.new_event_loop()
    os.setgroups([]); os.setgid(1); os.setuid(1)
    loop.run_until_complete(main())
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == ("PermissionDenied cannot call billing: uid 1 may not call services of this cluster\n"), done
