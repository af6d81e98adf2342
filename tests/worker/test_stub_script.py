"""Scripts: ``__main__`` in the main thread, signals and exit codes like those of any program."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from svcd.protocol.messages import ExceptionRaised, Ping, Pong

UP = ("loaded", "initialized", "starting", "running")


def write(directory: Path, text: str) -> str:
    path = directory / "job.py"
    path.write_text(text)
    return str(path)


def test_a_script_is_main_with_all_that_belongs_to_it(controller: Any, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("value = 5")
    script = write(
        tmp_path,
        """
import sys, threading, pickle, beside
class Thing: pass
assert __name__ == "__main__" and sys.modules["__main__"].Thing is Thing
assert threading.current_thread() is threading.main_thread()
assert type(pickle.loads(pickle.dumps(Thing()))) is Thing
print(sys.argv, __file__, beside.value)
""",
    )
    stub = controller.spawn()
    stub.run(script=script)
    assert stub.expect_states(*UP, "stopping").error is None
    assert stub.end() == (0, f"{[script]} {script} 5\n", "")


def test_threads_of_a_script_are_waited_for(controller: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    text = f"""
import os, threading, time
def wait():
    while not os.path.exists({str(gate)!r}): time.sleep(0.01)
    print("waited for")
threading.Thread(target=wait).start()
"""
    stub = controller.spawn()
    stub.run(script=write(tmp_path, text))
    stub.expect_states(*UP, "stopping")
    gate.touch()
    assert stub.end() == (0, "waited for\n", "")


def test_a_stop_is_a_sigterm(controller: Any, tmp_path: Path) -> None:
    stub = controller.spawn()
    stub.run(script=write(tmp_path, "import time\nprint('up', flush=True)\ntime.sleep(600)"))
    stub.expect_states(*UP)
    assert stub.line() == "up\n"
    stub.stop()  # that it is stopping may or may not be heard: nothing outlives the signal
    assert stub.end(may_have_said_more=True)[0] == -signal.SIGTERM


def test_who_runs_can_be_stopped(controller: Any, tmp_path: Path) -> None:
    """A stop in the moment between was lost: the stub still ignored the signal that the script is to die of."""
    stub = controller.spawn()
    stub.run(script=write(tmp_path, "import time\ntime.sleep(600)"))
    stub.expect_states(*UP)
    fields = dict(line.split(":\t") for line in Path(f"/proc/{stub.process.pid}/status").read_text().splitlines())
    not_deadly = int(fields["SigIgn"], 16) | int(fields["SigCgt"], 16)
    assert not not_deadly & 1 << signal.SIGTERM - 1
    stub.stop()
    assert stub.end(may_have_said_more=True)[0] == -signal.SIGTERM


def test_a_script_that_handles_sigterm(controller: Any, tmp_path: Path) -> None:
    text = """
import signal, sys, time
def end(number, frame):
    print("handled"); sys.exit(5)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(600)
"""
    stub = controller.spawn()
    stub.run(script=write(tmp_path, text))
    stub.expect_states(*UP)
    assert stub.line() == "up\n"
    stub.tell(Ping(7))
    stub.expect(Pong)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end()[:2] == (5, "handled\n")


@pytest.mark.parametrize(
    ("text", "code", "error"),
    [
        ("raise SystemExit(3)", 3, "SystemExit: 3"),
        ("import sys; sys.exit()", 0, None),
        ("raise KeyboardInterrupt", 130, ""),
    ],
)
def test_exit_codes(controller: Any, tmp_path: Path, text: str, code: int, error: str | None) -> None:
    stub = controller.spawn()
    stub.run(script=write(tmp_path, text))
    stopping = stub.expect_states(*UP, "stopping")
    assert stopping.error == (error if error != "" else "KeyboardInterrupt")
    assert stub.end()[0] == code


def test_a_script_that_raises(controller: Any, tmp_path: Path) -> None:
    stub = controller.spawn()
    stub.run(script=write(tmp_path, "def work():\n    1 / 0\nwork()\n"))
    stub.expect_states(*UP)
    raised, stopping = stub.expect_failure("run")
    assert [(each.function, each.line) for each in raised.frames] == [("<module>", 3), ("work", 2)]
    assert stopping.error == "ZeroDivisionError: division by zero"
    assert stub.end() == (1, "", raised.traceback)


@pytest.mark.parametrize(("text", "error"), [("def (", "SyntaxError"), (None, "FileNotFoundError"), ("\0", "")])
def test_a_script_that_does_not_load(controller: Any, tmp_path: Path, text: str | None, error: str) -> None:
    script = str(tmp_path / "missing.py") if text is None else write(tmp_path, text)
    stub = controller.spawn()
    stub.run(script=script)
    raised, _ = stub.expect_failure("load")
    assert raised.type.startswith(error)
    assert stub.end()[0] == 1


def test_a_script_in_another_encoding(controller: Any, tmp_path: Path) -> None:
    path = tmp_path / "latin.py"
    path.write_bytes(b"# -*- coding: latin-1 -*-\nprint(ascii('\xe4'))\n")
    stub = controller.spawn()
    stub.run(script=str(path))
    stub.expect_states(*UP, "stopping")
    assert stub.end()[1] == "'\\xe4'\n"


def test_a_stop_before_the_start_runs_nothing(controller: Any, tmp_path: Path) -> None:
    stub = controller.spawn()
    stub.run(init=False, start=False, script=write(tmp_path, "print('ran')"))
    stub.expect_states("loaded")
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end() == (0, "", "")


def test_a_thread_of_a_script_that_fails_is_recorded(controller: Any, tmp_path: Path) -> None:
    text = "import threading\nthread = threading.Thread(target=lambda: 1 / 0)\nthread.start()\nthread.join()\n"
    stub = controller.spawn()
    stub.run(script=write(tmp_path, text))
    stub.expect_states(*UP)
    assert stub.expect(ExceptionRaised).phase == "run"
    stub.expect_states("stopping")
    assert stub.end()[0] == 0


def test_a_script_may_run_an_event_loop_of_its_own(controller: Any, tmp_path: Path) -> None:
    stub = controller.spawn()
    stub.run(script=write(tmp_path, "import asyncio\nasync def main(): print('mine')\nasyncio.run(main())"))
    stub.expect_states(*UP, "stopping")
    assert stub.end()[:2] == (0, "mine\n")


def test_a_script_without_a_controller_gets_sigterm(controller: Any, tmp_path: Path) -> None:
    stub = controller.spawn()
    stub.run(script=write(tmp_path, "import time\ntime.sleep(600)"), controller_timeout_s=0.1)
    stub.expect_states(*UP)
    controller.vanish()
    assert stub.end()[0] == -signal.SIGTERM


def test_sigterm_from_outside_reaches_it_like_any_program(controller: Any, tmp_path: Path) -> None:
    stub = controller.spawn()
    stub.run(script=write(tmp_path, "import time\nprint('up', flush=True)\ntime.sleep(600)"))
    stub.expect_states(*UP)
    assert stub.line() == "up\n"
    os.kill(stub.process.pid, signal.SIGTERM)
    assert stub.end()[0] == -signal.SIGTERM
