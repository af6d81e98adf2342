"""The controller goes away, comes back, or stays away; other interpreters; forks of the warm server."""

from __future__ import annotations

import asyncio
import importlib
import importlib.machinery
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from svcd.protocol import codec, zmtp
from svcd.protocol.messages import (
    EndAnnounced,
    EndNoted,
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
from svcd.worker_runtime.calls.connection import HELD_LIMIT, Connection
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
    print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
    time.sleep(600)
"""
    stub = controller.spawn()
    stub.run(code=code, controller_timeout_s=0.1, stop_timeout_s=0.1)
    stub.expect_states(*UP)
    assert stub.line().strip().isdigit()
    controller.vanish()
    assert stub.end()[0] == -signal.SIGKILL  # its pipes end too, so that its child is gone as well


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


FAILS = """
import svcd
class Web(svcd.Service):
    async def start(self): raise ValueError("no luck")
"""


def announced(controller: Any) -> Any:
    """A stub whose service has failed, and that has said so; nobody has answered."""
    controller.notes_ends = False
    stub = controller.spawn()
    stub.run(code=FAILS)
    stub.expect_states("loaded", "initialized", "starting")
    stub.expect_failure("start")
    stub.expect(EndAnnounced)
    return stub


def test_one_that_fails_ends_when_that_was_heard(controller: Any) -> None:
    """The exit is seen elsewhere than the reason: nobody may see it first."""
    stub = announced(controller)
    with pytest.raises(subprocess.TimeoutExpired):
        stub.process.wait(0.05)
    stub.tell(Ping(7), EndNoted(7))
    assert stub.end()[0] == 1


def test_one_that_fails_does_not_wait_for_a_controller_that_is_gone(controller: Any) -> None:
    stub = announced(controller)
    controller.vanish()
    assert stub.end()[0] == 1


class Ends:
    """A ``Connection`` in this very process, its loop, and what it has told."""

    def __init__(self, controller: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.told: list[str] = []
        self.last: list[StateChanged] = []
        self.connection = Connection(
            controller.path,
            self.loop,
            lambda: [RemoteReady("web", 7, 1, "3"), *self.last],
            lambda message: self.told.append(type(message).__name__),
            lambda: self.told.append("lost"),
            lambda: self.told.append("back"),
        )

    def turn_until_told(self, word: str) -> None:
        async def wait() -> None:
            while word not in self.told:
                await asyncio.sleep(0.001)

        self.loop.run_until_complete(asyncio.wait_for(wait(), DEADLINE_MS / 1000))
        self.told.clear()

    def close(self) -> None:
        self.connection.close()
        self.loop.close()


@pytest.fixture
def ends(controller: Any) -> Iterator[Ends]:
    made = Ends(controller)
    made.turn_until_told("back")
    yield made
    made.close()


def failure(number: int) -> ExceptionRaised:
    return ExceptionRaised("web", 7, "run", "ValueError", str(number), "")


@pytest.mark.parametrize("count", [0, 3, HELD_LIMIT + 50])
def test_what_is_said_while_it_is_away_is_held_in_order_and_bounded(controller: Any, ends: Ends, count: int) -> None:
    controller.vanish()
    ends.turn_until_told("lost")
    stopping = StateChanged("web", 7, "stopping", "enough")
    ends.connection.send(stopping)
    for number in range(count):
        ends.connection.send(failure(number))
    ends.connection.send(ResourceSampled("web", 7, 1.0, 1, 1, 1))  # would be old by then
    ends.last = [StateChanged("web", 7, "running")]  # not said, since a held one is newer
    controller.open()
    ends.turn_until_told("back")
    kept = [failure(number) for number in range(count)][-(HELD_LIMIT - 1) :]
    assert controller.hear(2 + len(kept)) == [RemoteReady("web", 7, 1, "3"), stopping, *kept]


def test_where_it_stands_is_said_when_nothing_newer_is_held(controller: Any, ends: Ends) -> None:
    controller.vanish()
    ends.turn_until_told("lost")
    ends.last = [StateChanged("web", 7, "running")]
    controller.open()
    ends.turn_until_told("back")
    assert controller.hear(2) == [RemoteReady("web", 7, 1, "3"), *ends.last]


def test_what_a_slow_controller_did_not_take_goes_out_when_it_reads_again(controller: Any, ends: Ends) -> None:
    assert len(controller.hear(1)) == 1
    sent = 0
    while len(ends.connection._held) < 5:
        ends.connection.send(StateChanged("web", 7, "stopping", str(sent) + "x" * 4000))
        sent += 1

    async def turn() -> None:
        numbers = []
        while len(numbers) < sent:
            while controller.router.poll(0):
                message = codec.decode(controller.router.recv_multipart()[-1])
                assert isinstance(message, StateChanged)
                numbers.append(int((message.error or "").rstrip("x")))
            await asyncio.sleep(0.001)
        assert numbers == list(range(sent))

    ends.loop.run_until_complete(asyncio.wait_for(turn(), DEADLINE_MS / 1000))


@contextmanager
def deaf_controller(path: str) -> Iterator[Callable[[], socket.socket]]:
    """One that answers the hello, reads nothing, and leaves the place free."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def accept() -> socket.socket:
            connected, _ = listening.accept()
            connected.sendall(zmtp.hello(b"ROUTER"))
            return connected

        yield accept
        os.unlink(path)


def test_what_was_half_sent_is_sent_whole_to_the_next_controller(controller: Any) -> None:
    controller.vanish()
    controller.path = str(controller.directory / "deaf")  # libzmq may yet unlink the other one
    with deaf_controller(controller.path) as accept:
        ends = Ends(controller)
        connected = accept()
        ends.turn_until_told("back")
        sent = 0
        while len(ends.connection._held) < 5:
            ends.connection.send(StateChanged("web", 7, "stopping", str(sent) + "x" * 4000))
            sent += 1
        half = ends.connection._under_way
        assert isinstance(half, StateChanged)
        connected.close()
        ends.turn_until_told("lost")
    controller.open()
    ends.turn_until_told("back")
    # the loop goes on meanwhile: what does not fit into the socket at once is sent later
    ready, *said = ends.loop.run_until_complete(asyncio.to_thread(controller.hear, 1 + 1 + 5))
    assert isinstance(ready, RemoteReady)
    assert said[0] == half
    assert [int(each.error.rstrip("x")) for each in said] == list(range(sent - 6, sent))
    ends.close()


@pytest.mark.parametrize(
    "nonsense", [b"HTTP/1.1 400 Bad Request\r\n", b"\xff" + bytes(9), zmtp.hello(b"ROUTER") + b"\x08x"]
)
def test_who_talks_nonsense_is_left_and_a_controller_looked_for_again(
    controller: Any, nonsense: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    controller.vanish()
    os.unlink(controller.path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(controller.path)
        other.listen()
        ends = Ends(controller)
        connected, _ = other.accept()
        connected.sendall(nonsense)
        with connected:
            connected.settimeout(DEADLINE_MS / 1000)

            async def wait_end() -> None:
                while await asyncio.to_thread(connected.recv, 1000):
                    pass

            ends.loop.run_until_complete(wait_end())
    os.unlink(controller.path)
    controller.open()
    ends.told.clear()
    ends.turn_until_told("back")
    assert "svcd: cut the connection to the controller: " in capfd.readouterr().err
    ends.close()


def test_who_ends_waits_for_a_slow_controller_but_not_for_ever(controller: Any, ends: Ends) -> None:
    while len(ends.connection._held) < 5:
        ends.connection.send(StateChanged("web", 7, "stopping", "x" * 4000))
    ends.connection.close(linger_s=0.05)


def test_messages_are_read_however_many_come_at_once(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code=STOPS)
    stub.expect_states(*UP)
    stub.tell(*[Ping(7)] * 500)
    for _ in range(500):
        stub.expect(Pong)
    stub.stops_well()


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
        "from svcd.worker_runtime.foreign import run\nrun()\n"
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
    stub = controller.spawn([sys.executable, BOOTSTRAP])
    stub.run(entry="load:main", path=(str(tmp_path),))
    stub.expect_states(*UP, "stopping")
    code, out, err = stub.end()
    assert (code, err) == (0, "")
    assert out.startswith(f"{tmp_path}/load.py False {tmp_path} ")
    assert str(Path(BOOTSTRAP).parent) not in out.split()


def test_an_interpreter_without_the_libraries_says_so(controller: Any, tmp_path: Path) -> None:
    (tmp_path / "svcd").symlink_to(Path(BOOTSTRAP).parents[1])
    stub = controller.spawn([sys.executable, "-I", "-S", BOOTSTRAP], borrowed=str(tmp_path), suffix=".so")
    code, _, err = stub.end()
    assert code == 70
    assert err.startswith(f"svcd: cannot run web: {sys.executable} cannot import ")
    assert len(err.splitlines()) == 1
    assert "cannot import msgpack: install it there" in err


@pytest.mark.parametrize("version", ["(0, 6, 2)", "None"])
def test_a_msgpack_that_is_too_old_is_named(controller: Any, tmp_path: Path, version: str) -> None:
    (tmp_path / "msgpack.py").write_text("" if version == "None" else f"version = {version}")
    stub = controller.spawn([sys.executable, BOOTSTRAP], {"PYTHONPATH": str(tmp_path)})
    code, _, err = stub.end()
    assert code == 70
    assert "is too old: install 1.0 or later there" in err


@pytest.mark.parametrize("suffix", [importlib.machinery.EXTENSION_SUFFIXES[0], ".cpython-30-other.so"])
def test_a_lent_msgpack_of_another_python_is_used_without_its_extension(
    controller: Any, tmp_path: Path, suffix: str
) -> None:
    for package in ("svcd", "msgpack"):
        (tmp_path / package).symlink_to(Path(str(importlib.import_module(package).__file__)).parent)
    code = "import msgpack, os\ndef main(ctx): print(msgpack.Packer.__module__, 'MSGPACK_PUREPYTHON' in os.environ)"
    stub = controller.spawn([sys.executable, "-I", "-S", BOOTSTRAP], borrowed=str(tmp_path), suffix=suffix)
    stub.run(code=code)
    stub.expect_states(*UP, "stopping")
    module = "msgpack._cmsgpack" if suffix in importlib.machinery.EXTENSION_SUFFIXES else "msgpack.fallback"
    assert stub.end() == (0, f"{module} False\n", "")


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
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
gc.collect(); stub.prepare(); gc.freeze()
pid = os.fork()
if pid == 0:
    os.environ["PYTHONPATH"] = sys.argv[1]
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
    stub = Process()
    stub.take(Settings("web", 7, "/nowhere", controller_timeout_s=1000))
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
        stub.loop.close()
