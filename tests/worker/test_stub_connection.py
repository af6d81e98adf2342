"""The controller goes away, comes back, or stays away; other interpreters; forks of the warm server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from svcd.protocol import codec
from svcd.protocol.messages import (
    ExceptionRaised,
    Init,
    Ping,
    Pong,
    RemoteReady,
    ResourceSampled,
    ServiceSpec,
    Start,
    StateChanged,
    Welcome,
)
from svcd.worker_runtime import sampling
from svcd.worker_runtime.connection import HELD_LIMIT
from svcd.worker_runtime.process import Process, Settings

DEADLINE_MS = 30_000
UP = ("loaded", "initialized", "starting", "running")
BOOTSTRAP = str(Path(sampling.__file__).with_name("bootstrap.py"))

STOPS = """
import svcd
class Web(svcd.Service):
    async def stop(self, reason): print("stop:", reason)
"""


def test_a_controller_that_stays_away_ends_the_service(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code=STOPS, controller_timeout_s=0.2)
    stub.expect_states(*UP)
    controller.vanish()
    code, out, err = stub.end()
    assert (code, out) == (0, "stop: the controller is gone\n")
    assert err == "svcd: no controller for 0.2 s: stopping\n"


def test_a_controller_that_never_was_ends_the_stub(controller: Any) -> None:
    controller.vanish()
    stub = controller.spawn(controller_timeout_s=0.2)
    code, out, _ = stub.end()
    assert (code, out) == (0, "")


def test_a_service_that_does_not_stop_without_a_controller_is_killed(controller: Any) -> None:
    code = """
import subprocess, time
def main(ctx):
    print(subprocess.Popen(["sleep", "600"]).pid)
    time.sleep(600)
"""
    stub = controller.spawn()
    stub.run(code=code, controller_timeout_s=0.1, stop_timeout_s=0.1)
    stub.expect_states(*UP)
    controller.vanish()
    status, out, _ = stub.end()  # its pipes end too, so that its child is gone as well
    assert status == -signal.SIGKILL
    assert out.strip().isdigit()


def test_a_controller_that_comes_back_is_greeted_and_told_where_it_stands(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code=STOPS)
    stub.expect_states(*UP)
    controller.vanish()
    controller.open()
    assert stub.ready().invocation == 7
    stub.expect_states("running")
    stub.tell(Welcome(7), Ping(7))
    stub.expect(Pong)
    stub.stop("all well")
    stub.expect_states("stopping")
    assert stub.end() == (0, "stop: all well\n", "")


AWAY = """
import asyncio, os, svcd
class Web(svcd.Service):
    async def start(self): self.task = asyncio.create_task(self.work())
    async def work(self):
        while not os.path.exists({gate!r}): await asyncio.sleep(0.01)
        for number in range({count}):
            asyncio.create_task(self.fail(number))
            await asyncio.sleep(0)
        self.ctx.stop("enough")
        await asyncio.sleep(0)
        print("said", flush=True)
    async def fail(self, number): raise ValueError(number)
    async def stop(self, reason):
        while not os.path.exists({back!r}): await asyncio.sleep(0.01)
"""


@pytest.mark.parametrize("count", [3, HELD_LIMIT + 50])
def test_what_was_said_while_it_was_away_is_held_in_order_and_bounded(
    controller: Any, tmp_path: Path, count: int
) -> None:
    gate, back = tmp_path / "gate", tmp_path / "back"
    stub = controller.spawn()
    stub.run(code=AWAY.format(gate=str(gate), back=str(back), count=count))
    stub.expect_states(*UP)
    controller.vanish()
    gate.touch()
    assert stub.line() == "said\n"
    controller.open()
    stub.ready()
    numbers = []
    while isinstance(message := stub.next(), ExceptionRaised):
        numbers.append(int(message.message))
    assert isinstance(message, StateChanged)
    assert (message.state, message.error) == ("stopping", "enough")
    assert numbers == list(range(count))[-(HELD_LIMIT - 1) :]
    back.touch()
    assert stub.end()[0] == 1


def test_messages_are_read_however_many_come_at_once(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code=STOPS)
    stub.expect_states(*UP)
    stub.tell(*[Ping(7)] * 500)
    for _ in range(500):
        stub.expect(Pong)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end()[0] == 0


def test_samples() -> None:
    before = sampling.sample("web", 1)
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    try:
        after = sampling.sample("web", 1)
    finally:
        for fd in files:
            os.close(fd)
    assert after.fds == before.fds + 3
    assert after.cpu_s >= before.cpu_s > 0
    assert after.threads >= 1
    assert 1024 * 1024 < after.rss_bytes < 10 * 1024**3


def test_a_running_service_sends_samples(controller: Any, tmp_path: Path) -> None:
    (tmp_path / "quick.py").write_text(
        "from svcd.worker_runtime import process\nprocess.SAMPLE_EVERY_S = 0.01\n"
        "from svcd.worker_runtime.bootstrap import run\nrun()\n"
    )
    stub = controller.spawn([sys.executable, str(tmp_path / "quick.py")])
    stub.run(code=STOPS)
    stub.expect_states(*UP)
    assert stub.expect(ResourceSampled).threads >= 1
    os.kill(stub.process.pid, signal.SIGTERM)
    while isinstance(message := stub.next(), ResourceSampled):
        pass
    assert message == StateChanged("web", 7, "stopping")
    assert stub.end()[0] == 0


# ---- other ways to be born -----------------------------------------------------------------------------------------


def test_bootstrap_as_a_file(controller: Any, tmp_path: Path) -> None:
    (tmp_path / "load.py").write_text(
        "import os, sys\ndef main(ctx): print(__file__, 'SVCD_STUB' in os.environ, *sys.path)"
    )
    stub = controller.spawn([sys.executable, BOOTSTRAP], site=sys.path, version=list(sys.version_info[:2]))
    stub.run(entry="load:main", path=(str(tmp_path),))
    stub.expect_states(*UP, "stopping")
    code, out, err = stub.end()
    assert (code, err) == (0, "")
    assert out.startswith(f"{tmp_path}/load.py False {tmp_path} ")
    assert str(Path(BOOTSTRAP).parent) not in out.split()


def test_an_interpreter_without_the_libraries_says_so(controller: Any) -> None:
    stub = controller.spawn([sys.executable, "-I", "-S", BOOTSTRAP], site=[], version=[3, 0])
    code, _, err = stub.end()
    assert code == 70
    assert err.startswith(f"svcd: cannot run web: {sys.executable} cannot import ")
    assert len(err.splitlines()) == 1
    assert "install pyzmq and msgpack there" in err


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", "5"])
def test_bootstrap_without_settings(text: str | None) -> None:
    env = {key: value for key, value in os.environ.items() if key != "SVCD_STUB"}
    env.update({} if text is None else {"SVCD_STUB": text})
    ended = subprocess.run(
        [sys.executable, BOOTSTRAP], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 70
    assert ended.stderr.startswith("svcd: cannot run a stub: SVCD_STUB is ")
    assert len(ended.stderr.splitlines()) == 1


SIGPIPE_IS_IGNORED = "import signal\nassert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN\n"

FORK_SERVER = """
import gc, json, os, signal, sys
fds = os.listdir("/proc/self/fd")
path = list(sys.path)
from svcd.worker_runtime import stub
assert len(os.listdir("/proc/self/task")) == 1, "a thread was left"
assert os.listdir("/proc/self/fd") == fds, "a descriptor was left"
assert sys.path == path and "svcd_service_code" not in sys.modules
sys.path.insert(0, os.environ["THEIRS"])
import both.part
del sys.path[0]
gc.collect(); gc.freeze()
pid = os.fork()
if pid == 0:
    os.environ["PYTHONPATH"] = sys.argv[1]
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os._exit(stub.main(json.loads(os.environ.pop("SVCD_STUB"))))
_, status = os.waitpid(pid, 0)
print("exit", os.waitstatus_to_exitcode(status))
"""


def test_a_fork_of_the_warm_server(controller: Any, tmp_path: Path) -> None:
    """PYTHONPATH counts though the interpreter is older; the user's modules win over warm ones of the same name, but
    not over those that the runtime itself uses.
    """
    for place in ("theirs", "mine"):
        (tmp_path / place / "both").mkdir(parents=True)
        (tmp_path / place / "both" / "__init__.py").write_text("")
        (tmp_path / place / "both" / "part.py").write_text(f"place = {place!r}")
    (tmp_path / "mine" / "code.py").write_text(
        "from both import part\ndef main(ctx): print(part.place)\n" + SIGPIPE_IS_IGNORED
    )
    (tmp_path / "mine" / "structlog.py").write_text("not even Python")
    stub = controller.spawn(
        [sys.executable, "-c", FORK_SERVER, str(tmp_path / "mine")], {"THEIRS": str(tmp_path / "theirs")}
    )
    assert controller.router.poll(DEADLINE_MS)
    stub.route, _, body = controller.router.recv_multipart()
    ready = codec.decode(body)
    assert isinstance(ready, RemoteReady)
    assert ready.pid != stub.process.pid
    stub.tell(ServiceSpec("web", 7, entry="code:main"), Init(7), Start(7))
    stub.expect_states(*UP, "stopping")
    assert stub.end()[:2] == (0, "mine\nexit 0\n")


def test_patience_begins_with_a_loss_and_ends_with_a_return() -> None:
    stub = Process(Settings("web", 7, "/nowhere", controller_timeout_s=1000))
    try:
        stub._on_lost()
        first = stub._patience
        assert first is not None
        stub._on_lost()
        assert stub._patience is first  # it is not prolonged by a second loss
        stub._on_back()
        assert first.cancelled()
        assert stub._patience is None
    finally:
        stub._loop.close()
