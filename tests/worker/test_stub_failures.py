"""Code that does not load, exceptions of every unpleasant kind, output at the end: told as it is, and bounded."""

from __future__ import annotations

import asyncio
import inspect
import signal
from pathlib import Path
from typing import Any

import pytest

from svcd.protocol.call_errors import RemoteError
from svcd.protocol.limits import MAX_EXCEPTION_TEXT_BYTES, MAX_FRAMES, MAX_TRACEBACK_BYTES
from svcd.protocol.messages import ExceptionRaised
from svcd.worker_runtime import signatures
from svcd.worker_runtime.calls import calling
from svcd.worker_runtime.exceptions import bounded, describe, one_line
from svcd.worker_runtime.lifetime.outcome import StateError
from svcd.worker_runtime.service import Service

UP = ("loaded", "initialized", "starting", "running")


def test_a_module_that_is_not_there(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(entry="nowhere.web:Web")
    raised, stopping = stub.expect_failure("load")
    assert stopping.error == "ModuleNotFoundError: No module named 'nowhere'"
    assert raised.frames == ()
    assert raised.traceback == "ModuleNotFoundError: No module named 'nowhere'\n"
    assert stub.end() == (1, "", raised.traceback)


def test_a_module_that_does_not_import_shows_its_own_frames_alone(controller: Any, tmp_path: Path) -> None:
    (tmp_path / "outer.py").write_text("import inner\n")
    (tmp_path / "inner.py").write_text("\nvalue = {}['bread']\n")
    stub = controller.spawn()
    stub.run(entry="outer:main", path=(str(tmp_path),))
    raised, stopping = stub.expect_failure("load")
    assert stopping.error == "KeyError: 'bread'"
    assert [(Path(each.file).name, each.line) for each in raised.frames] == [("outer.py", 1), ("inner.py", 2)]
    assert "worker_runtime" not in raised.traceback
    assert "importlib" not in raised.traceback
    assert stub.end()[0] == 1


def test_a_syntax_error_in_code_shows_the_line(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="def main(ctx):\n    return return\n")
    raised, stopping = stub.expect_failure("load")
    assert stopping.error == "SyntaxError: invalid syntax (<code of web>, line 2)"
    assert 'File "<code of web>", line 2\n    return return\n' in raised.traceback
    assert raised.type == "SyntaxError"
    assert stub.end()[0] == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"entry": "json:dumpz"}, "module 'json' has no 'dumpz'; it defines "),
        ({"entry": "json"}, "'json' is not of the form package.module:name"),
        ({"entry": "json:JSONDecoder"}, "'json:JSONDecoder' is a class, but no subclass of svcd.Service"),
        ({"entry": "json:__version__"}, "'json:__version__' is neither a class nor a function, but str"),
        ({"code": "x = 1"}, "the code defines neither a Service subclass nor a function main(ctx)"),
        ({"code": "main = 5"}, "'main' is neither a class nor a function, but int"),
        (
            {"code": "from svcd import Service\nclass A(Service): pass\nclass B(Service): pass"},
            "the code must define one Service subclass or a function main, not A, B",
        ),
        (
            {"code": "import svcd\nclass A(svcd.Service):\n  async def stop(self): pass"},
            "A.stop(self) cannot be called: write stop(self, reason)",
        ),
        (
            {"code": "import svcd\nclass A(svcd.Service):\n  def init(self): pass\nclass B(A): pass"},
            "B.init(self) cannot be called: write init(self, config)",
        ),
        (
            {"code": "import svcd\nclass A(svcd.Service):\n  def start(self, *, port): pass"},
            "A.start(self, *, port) cannot be called: write start(self)",
        ),
        (
            {"code": "import svcd\nclass A(svcd.Service):\n  def __init__(self, config): pass"},
            "A.__init__(self, config) cannot be called: write __init__(self)",
        ),
        ({"code": "def main(): pass"}, "main() cannot be called: write main(ctx)"),
        ({"code": "def main(ctx, port): pass"}, "main(ctx, port) cannot be called: write main(ctx)"),
        ({}, "the controller named neither an entry nor code"),
    ],
)
def test_code_that_names_nothing_to_run(controller: Any, fields: dict[str, str], words: str) -> None:
    stub = controller.spawn()
    stub.run(**fields)
    raised, stopping = stub.expect_failure("load")
    assert raised.message.startswith(words) or words in raised.message
    assert stopping.error == f"LoadError: {raised.message}"
    assert "Traceback" not in raised.traceback
    assert stub.end()[0] == 1


@pytest.mark.parametrize(
    "body",
    [
        "def stop(self, *given): print(*given)",
        "def stop(self, reason, port=80, *, loud=True): print(reason)",
        "stop = print",
        "stop = staticmethod(lambda reason: print(reason))",
        "stop = classmethod(lambda cls, reason: print(reason))",
    ],
)
def test_methods_that_take_what_they_are_given_in_their_own_way(controller: Any, body: str) -> None:
    stub = controller.spawn()
    stub.run(code=f"import svcd\nclass A(svcd.Service):\n  {body}")
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    code, out, err = stub.end()
    assert (code, err) == (0, "")
    assert out.strip()


def test_what_a_service_is_called_with_is_what_its_base_takes() -> None:
    for name, given in signatures.GIVEN.items():
        if name != "__init__":
            assert tuple(inspect.signature(getattr(Service, name)).parameters) == given


AWKWARD = """
import functools
from svcd import Service

def with_reason(method):
    @functools.wraps(method)
    def stop(self, reason):
        print(reason)
        return method(self)
    return stop

class Awkward(Service):
    @staticmethod
    def init(config): print("init", config)
    def start(*everything, **named): print("start", len(everything))
    @with_reason
    def stop(self): print("stop")
    pause = functools.partialmethod(print, "pause")
"""


def test_methods_that_take_in_another_way_what_they_are_given_are_called(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code=AWKWARD, config={})
    stub.expect_states(*UP)
    stub.stops_well_with("init {}\nstart 1\nasked\nstop\n")


def test_the_leaf_of_several_classes_is_the_service(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="from svcd import Service\nclass A(Service): pass\nclass B(A):\n  async def start(self): print('B')")
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end()[:2] == (0, "B\n")


def test_an_exit_while_loading(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="raise SystemExit(9)")
    assert stub.expect_states("stopping").error == "SystemExit: 9"
    assert stub.end()[0] == 9


def test_a_background_task_that_fails_is_recorded_and_the_service_goes_on(controller: Any) -> None:
    code = """
import asyncio, svcd
class Web(svcd.Service):
    async def start(self): asyncio.create_task(self.work())
    async def work(self): raise ValueError("in the background")
"""
    stub = controller.spawn()
    stub.run(code=code)
    said = [stub.next() for _ in range(5)]
    raised = [each for each in said if isinstance(each, ExceptionRaised)]
    assert [(each.message, each.frames[0].function) for each in raised] == [("in the background", "work")]
    stub.stops_well()


def test_a_thread_that_fails_is_recorded_and_the_service_goes_on(controller: Any) -> None:
    code = """
import threading, svcd
def work(): raise ValueError("in a thread")
class Web(svcd.Service):
    def start(self):
        thread = threading.Thread(target=work); thread.start(); thread.join()
"""
    stub = controller.spawn()
    stub.run(code=code)
    said = [stub.next() for _ in range(5)]
    raised = [each for each in said if isinstance(each, ExceptionRaised)]
    assert [(each.message, each.frames[0].function) for each in raised] == [("in a thread", "work")]
    stub.stops_well()


HOSTILE = """
class Hostile(Exception):
    def __init__(self): pass
    def __str__(self): raise SystemExit(99)
    __repr__ = __str__
def main(ctx): raise Hostile()
"""


def test_an_exception_that_cannot_be_shown(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code=HOSTILE)
    stub.expect_states(*UP)
    raised, stopping = stub.expect_failure("run")
    assert raised.type.endswith("Hostile")
    assert raised.message == "<SystemExit in its __str__>"
    assert stopping.error == "Hostile: <SystemExit in its __str__>"
    assert stub.end()[0] == 1


def test_a_huge_exception_is_cut_in_the_middle(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="def main(ctx): raise ValueError('bread ' * 1_000_000 + 'end')")
    stub.expect_states(*UP)
    raised, stopping = stub.expect_failure("run")
    assert len(raised.message.encode()) <= MAX_EXCEPTION_TEXT_BYTES
    assert len(raised.traceback.encode()) <= MAX_TRACEBACK_BYTES + 1
    assert raised.message.startswith("bread bread")
    assert raised.message.endswith("end")
    assert stopping.error is not None
    assert len(stopping.error) <= 300
    assert stub.end()[0] == 1


def test_lone_surrogates_in_an_exception(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="def main(ctx): raise ValueError('\\udcff')")
    stub.expect_states(*UP)
    raised, _ = stub.expect_failure("run")
    assert raised.message == "\\udcff"
    assert stub.end()[0] == 1


def test_output_is_flushed_at_the_end(controller: Any) -> None:
    code = """
import atexit, io, os, sys
def main(ctx):
    atexit.register(print, "at exit")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False), 1_000_000))
    print("kept until flushed")
    sys.stdout.buffer.write(b"\\xff\\n")
"""
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP, "stopping")
    code, out, err = stub.end()
    assert (code, err) == (0, "")
    assert sorted(out.splitlines()) == ["at exit", "kept until flushed", "\ufffd"]


def test_a_service_that_does_away_with_its_streams(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="import sys\ndef main(ctx):\n  sys.stdout = None; sys.stderr = None\n  1 / 0")
    stub.expect_states(*UP)
    stub.expect_failure("run")
    code, _, err = stub.end()
    assert code == 1
    assert err.endswith("ZeroDivisionError: division by zero\n")


def test_a_segmentation_fault_leaves_its_traceback(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code="import ctypes\ndef main(ctx):\n  ctypes.string_at(0)")
    code, _, err = stub.end(may_have_said_more=True)
    assert code == -signal.SIGSEGV
    assert "<code of web>" in err


@pytest.mark.parametrize(
    ("stub", "words"),
    [
        ({"service": 5}, "service cannot be 5"),
        ({"control": None}, "control cannot be None"),
        ({"invocation": "x"}, "invocation cannot be 'x'"),
    ],
)
def test_bad_settings(controller: Any, stub: dict[str, Any], words: str) -> None:
    code, _, err = controller.spawn(**stub).end()
    assert code == 70
    assert err == f"svcd: cannot start a stub: {words}\n"


def test_a_control_path_that_is_too_long(controller: Any) -> None:
    code, _, err = controller.spawn(control="/" + "x" * 200).end()
    assert code == 70
    assert err.startswith("svcd: the stub failed: ")
    assert "Traceback" not in err


# ---- without a process ---------------------------------------------------------------------------------------------


def test_chained_and_grouped_exceptions_are_shown() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ExceptionGroup("several", [ValueError("one"), TypeError("two")]) from error
    except ExceptionGroup as group:
        record = describe(group, "web", 1, "run")
    for word in ("first", "direct cause", "several", "one", "two"):
        assert word in record.traceback


def test_frames_are_bounded_and_the_innermost_kept() -> None:
    def deep(level: int) -> None:
        if level == 0:
            raise RuntimeError("bottom")
        deep(level - 1)

    with pytest.raises(RuntimeError) as caught:
        deep(300)
    record = describe(caught.value, "web", 1, "run")
    assert len(record.frames) == MAX_FRAMES
    assert "raise RuntimeError" in record.frames[-1].source


def test_machinery_before_user_code_is_cut_and_in_between_kept() -> None:
    async def user() -> None:
        await asyncio.wait_for(inner(), 5)

    async def inner() -> None:
        raise RuntimeError("x")

    with pytest.raises(RuntimeError) as caught:
        asyncio.run(user())
    names = [each.function for each in describe(caught.value, "web", 1, "run").frames]
    assert names[-1] == "inner"
    assert "user" in names


@pytest.mark.parametrize("text", ["", "x", "é" * 50, "x" * 1000, "é" * 1000])
def test_bounded(text: str) -> None:
    cut = bounded(text, 200)
    assert len(cut.encode()) <= 200
    assert (cut == text) == (len(text.encode()) <= 200)
    assert cut[:5] == text[:5]
    assert cut[-5:] == text[-5:]


def test_one_line_is_one_line() -> None:
    assert one_line(ValueError("a\nb")) == "ValueError: a"
    assert one_line(ValueError("")) == "ValueError"
    assert len(one_line(ValueError("x" * 1000))) == 300


@pytest.mark.parametrize(("kind", "innermost"), [(RemoteError, "user"), (StateError, "user"), (ValueError, "ask")])
def test_machinery_after_user_code_is_cut_where_it_refuses_something(kind: type[Exception], innermost: str) -> None:
    names: dict[str, Any] = {"kind": kind}
    exec(compile("def ask():\n    raise kind('billing.charge raised')", calling.__file__, "exec"), names)

    def user() -> None:
        names["ask"]()

    with pytest.raises(kind) as caught:
        user()
    assert describe(caught.value, "web", 1, "run").frames[-1].function == innermost
