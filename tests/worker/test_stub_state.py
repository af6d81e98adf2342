"""Export and import of a service's state, in real stub processes: when, in which order, and what may go wrong."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from svcd.protocol import limits
from svcd.protocol.messages import (
    ExceptionRaised,
    ExportState,
    ImportState,
    Init,
    Ping,
    Pong,
    Start,
    StateExported,
    StateSaved,
)
from svcd.protocol.state_parts import Assembly, parts_of
from svcd.worker_runtime.state import pack_state, unpack_state

UP = ("loaded", "initialized", "starting", "running")
KINDS = pytest.mark.parametrize("kind", ["", "async "], ids=["sync", "async"])

COUNTS = """
from svcd import Service
class Web(Service):
    {a}def init(self, config): self.count = 0; print("init")
    {a}def import_state(self, state):
        print("import", state, self.ctx.state_version, self.ctx.version)
        self.count = state["count"]
    {a}def start(self): print("start", self.count); self.count += 1
    {a}def export_state(self): print("export"); return {{"count": self.count}}
    {a}def stop(self, reason): print("stop")
    {a}def look(self): self.count += 1
"""


def exported(stub: Any, token: int) -> tuple[Any, tuple[str, ...]]:
    """The state, put together of its parts, and what was left out."""
    assembly = Assembly()
    while True:
        message = stub.expect(StateExported)
        assert (message.token, message.error) == (token, None), message
        whole = assembly.add(message.part, message.parts, message.data)
        if whole is not None:
            return unpack_state(whole), message.omitted


def import_into(stub: Any, state: Any, version: str | None = None) -> None:
    parts = parts_of(pack_state(state)[0])
    stub.tell(*(ImportState(stub.invocation, index, len(parts), each, version) for index, each in enumerate(parts)))


@KINDS
def test_it_is_exported_on_order_and_goes_on(controller: Any, kind: str) -> None:
    stub = controller.spawn()
    stub.run(code=COUNTS.format(a=kind))
    stub.expect_states(*UP)
    for token, count in ((5, 1), (6, 2)):
        stub.tell(ExportState(7, token))
        assert exported(stub, token) == ({"count": count}, ())
        stub.asks("look")
    stub.stops_well_with("init\nstart 0\nexport\nexport\nstop\n")


@KINDS
def test_it_is_imported_after_init_and_before_start(controller: Any, kind: str) -> None:
    stub = controller.spawn()
    stub.run(start=False, code=COUNTS.format(a=kind), version="2.0")
    stub.expect_states(*UP[:2])
    import_into(stub, {"count": 41}, "1.0")
    stub.tell(Start(7))
    stub.expect_states(*UP[2:])
    stub.tell(ExportState(7, 1))
    assert exported(stub, 1)[0] == {"count": 42}
    stub.stops_well_with("init\nimport {'count': 41} 1.0 2.0\nstart 41\nexport\nstop\n")


def test_what_is_kept_is_exported_before_stop_which_waits_until_it_is_safe(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code=COUNTS.format(a=""), keep_state=True)
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    assert exported(stub, -1)[0] == {"count": 1}
    stub.tell(StateSaved(7, -2), StateSaved(8, -1), Ping(7))
    stub.expect(Pong)
    assert stub.process.poll() is None
    stub.tell(StateSaved(7, -1))
    assert stub.end() == (0, "init\nstart 0\nexport\nstop\n", "")


def test_who_gets_no_answer_stops_all_the_same(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code=COUNTS.format(a=""), keep_state=True, stop_timeout_s=0.02)
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    stub.expect(StateExported)
    assert stub.end()[0] == 0


@pytest.mark.parametrize("how", ["signal", "by itself"])
def test_every_orderly_stop_counts(controller: Any, how: str) -> None:
    """Also that of a service which does its work in its start and is done."""
    end = "self.count += 1; self.ctx.stop()\n" if how == "by itself" else "self.count += 1\n"
    stub = controller.spawn()
    stub.run(code=COUNTS.format(a="").replace("self.count += 1\n", end, 1), keep_state=True)
    stub.expect_states(*UP)
    if how == "signal":
        os.kill(stub.process.pid, signal.SIGTERM)
    assert stub.expect_states("stopping").error is None
    assert exported(stub, -1)[0] == {"count": 1}
    stub.tell(StateSaved(7, -1))
    assert stub.end()[:2] == (0, "init\nstart 0\nexport\nstop\n")


@pytest.mark.parametrize("does", ["self.fail('broken')", "self.fail(ValueError('broken'))", "sys.exit(3)"])
def test_a_crash_exports_nothing(controller: Any, does: str) -> None:
    code = f"""
import asyncio, sys
from svcd import Service
class Web(Service):
    async def start(self): self.task = asyncio.create_task(self.leave())
    async def leave(self): {does}
    def export_state(self): print("export")
    def import_state(self, state): pass
"""
    stub = controller.spawn()
    stub.run(code=code, keep_state=True)
    stub.expect_states(*UP)
    message = stub.next()
    if isinstance(message, ExceptionRaised):
        message = stub.next()
    assert message.state == "stopping"
    code_, out, _ = stub.end()
    assert (code_ != 0, out) == (True, "")


def test_at_intervals_each_after_the_one_before_is_safe(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code=COUNTS.format(a="async "), keep_state=True, export_every_s=0.01)
    stub.expect_states(*UP)
    for token in (-1, -2, -3):
        assert exported(stub, token)[0] == {"count": 1}
        assert controller.rest() == []
        stub.tell(StateSaved(7, token))
    stub.stop()
    said = stub.next()
    while isinstance(said, StateExported):  # one may have been under way
        stub.tell(StateSaved(7, said.token))
        said = stub.next()
    assert said.state == "stopping"
    last = stub.expect(StateExported)
    stub.tell(StateSaved(7, last.token))
    assert stub.end()[0] == 0


def test_large_states_come_and_go_in_parts(controller: Any) -> None:
    code = """
from svcd import Service
class Web(Service):
    def import_state(self, state): self.state = state; print(len(state))
    def export_state(self): return self.state
"""
    state = {"blob": os.urandom(3 * limits.MAX_STATE_PART_BYTES + 5)}
    stub = controller.spawn()
    stub.run(start=False, code=code)
    stub.expect_states(*UP[:2])
    import_into(stub, state)
    stub.tell(Start(7))
    stub.expect_states(*UP[2:])
    stub.tell(ExportState(7, 1))
    assert exported(stub, 1) == (state, ())
    stub.stops_well_with("1\n")


# ---- what goes wrong -------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize(
    "raises", ["ValueError('no')", "SystemExit(3)", "KeyboardInterrupt", "__import__('asyncio').CancelledError"]
)
def test_an_export_that_fails_leaves_the_service_running(controller: Any, kind: str, raises: str) -> None:
    stub = controller.spawn()
    stub.run(code=COUNTS.format(a=kind).replace('print("export"); return', f"raise {raises};"))
    stub.expect_states(*UP)
    stub.tell(ExportState(7, 5))
    if "Cancelled" not in raises:
        assert stub.expect(ExceptionRaised).phase == "export"
    error = stub.expect(StateExported).error
    assert error is not None
    assert error.startswith("export_state() ")
    stub.asks("look")
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end()[:2] == (0, "init\nstart 0\nstop\n")


@pytest.mark.parametrize("raises", ["ValueError('no')", "__import__('asyncio').CancelledError"])
def test_an_export_that_fails_at_the_stop_does_not_keep_it_from_stopping(controller: Any, raises: str) -> None:
    stub = controller.spawn()
    stub.run(code=COUNTS.format(a="").replace('print("export"); return', f"raise {raises};"), keep_state=True)
    stub.expect_states(*UP)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.expect(ExceptionRaised).phase == "export"
    assert stub.expect(StateExported).error
    assert stub.end()[:2] == (0, "init\nstart 0\nstop\n"), "it stopped as asked"


def test_what_cannot_travel_is_left_out_and_named(controller: Any) -> None:
    code = COUNTS.format(a="").replace(
        '"count": self.count', '"count": self.count, "lock": __import__("threading").Lock()'
    )
    stub = controller.spawn()
    stub.run(code=code)
    stub.expect_states(*UP)
    stub.tell(ExportState(7, 5))
    omitted = ("state['lock']: _thread.lock cannot travel",)
    assert exported(stub, 5) == ({"count": 1}, omitted)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end()[2] == f"svcd: left out of the exported state: {omitted[0]}\n"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import svcd\nclass Web(svcd.Service): pass", "Web has no export_state() and no import_state()"),
        ("import svcd\nclass Web(svcd.Service):\n  def export_state(self): return 1", "Web has no import_state()"),
        ("def main(ctx): ctx.stopping.wait()", "a function has no export_state(): only a Service has"),
    ],
)
def test_who_cannot_keep_a_state_says_so_at_once(controller: Any, code: str, error: str) -> None:
    stub = controller.spawn()
    stub.run(code=code, keep_state=True, export_every_s=0.01)
    stub.expect_states(*UP)
    assert stub.expect(StateExported) == StateExported("web", 7, -1, error=error)
    stub.tell(ExportState(7, 3))
    if "def export_state" in code:  # it may export for another version, which imports
        assert exported(stub, 3) == (1, ())
    else:
        assert stub.expect(StateExported) == StateExported("web", 7, 3)
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end()[0] == 0


def test_who_does_not_run_has_no_state(controller: Any, tmp_path: Path) -> None:
    stub = controller.spawn()
    stub.run(start=False, code=COUNTS.format(a=""))
    stub.expect_states(*UP[:2])
    stub.tell(ExportState(7, 3))
    assert stub.expect(StateExported).error == "it does not run"
    stub.stop()
    stub.expect_states("stopping")
    assert stub.end()[0] == 0

    (tmp_path / "job.py").write_text("import time; time.sleep(3600)")
    script = controller.spawn(invocation=8)
    script.run(script=str(tmp_path / "job.py"))
    script.expect_states(*UP)
    script.tell(ExportState(8, 3))
    assert script.expect(StateExported) == StateExported("web", 8, 3)
    script.stop()
    script.expect_states("stopping")
    script.end()


IMPORTS = """
from dataclasses import dataclass
import svcd
@dataclass
class State:
    count: int
    seen: set[str]
class Web(svcd.Service):
    def import_state(self, state: {annotation}): print(state); {does}
    def stop(self, reason): print("stop")
"""


@pytest.mark.parametrize(
    ("annotation", "does", "state", "error"),
    [
        ("State", "1 / 0", {"count": 1, "seen": []}, "division by zero"),
        ("State", "", {"count": "1", "seen": []}, "cannot import the state: state.count"),
        ("State", "", {"count": 1}, "cannot import the state: "),
        ("dict[str, int]", "", [1], "cannot import the state: state"),
        ("object", "import sys; sys.exit('no')", 1, None),
    ],
)
def test_a_failed_import_is_a_failed_start(
    controller: Any, annotation: str, does: str, state: Any, error: str | None
) -> None:
    stub = controller.spawn()
    stub.run(start=False, code=IMPORTS.format(annotation=annotation, does=does or "pass"), keep_state=True)
    stub.expect_states(*UP[:2])
    import_into(stub, state)
    stub.tell(Start(7))
    stub.expect_states("starting")
    if error is None:
        assert stub.expect_states("stopping").error == "SystemExit: no"
    else:
        assert stub.expect_failure("import")[0].message.startswith(error)
    code, out, _ = stub.end()
    assert (code, out.splitlines()[-1]) == (1, "stop"), "and nothing was exported"


@pytest.mark.parametrize("annotation", ["State", "'State'", "'Unknown'", "dict[str, object]"])
def test_an_annotation_says_what_is_made_of_it(controller: Any, annotation: str) -> None:
    stub = controller.spawn()
    stub.run(start=False, code=IMPORTS.format(annotation=annotation, does="pass"))
    stub.expect_states(*UP[:2])
    import_into(stub, {"count": 1, "seen": ["a"]})
    stub.tell(Start(7))
    stub.expect_states(*UP[2:])
    shown = "State(count=1, seen={'a'})" if "State" in annotation else "{'count': 1, 'seen': ['a']}"
    stub.stops_well_with(f"{shown}\nstop\n")


@pytest.mark.parametrize(
    ("code", "who"),
    [
        ("import svcd\nclass Web(svcd.Service): pass", "Web"),
        ("def main(ctx): pass", "a function"),
    ],
)
def test_a_state_is_not_thrown_away_in_silence(controller: Any, code: str, who: str) -> None:
    stub = controller.spawn()
    stub.run(start=False, code=code)
    stub.expect_states(*UP[:2])
    import_into(stub, 1)
    stub.tell(Start(7))
    stub.expect_states("starting")
    raised, _ = stub.expect_failure("import")
    assert raised.message == f"{who} has no import_state(), and there is a state to be imported"
    assert stub.end()[0] == 1


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ([(0, 2, b"\x90")], "the state that was to be imported did not come whole"),
        ([(1, 2, b"\x90")], "the state that was to be imported did not come whole"),
        ([(0, 1, b"\xc1")], "no MessagePack"),
    ],
)
def test_a_state_that_is_not_whole_is_not_imported(controller: Any, parts: Any, error: str) -> None:
    stub = controller.spawn()
    stub.ready()
    stub.tell(*_orders(stub, COUNTS.format(a="")), *(ImportState(7, *each) for each in parts), Start(7))
    stub.expect_states(*UP[:3])
    assert error in stub.expect_failure("import")[0].message
    assert stub.end()[0] == 1


def _orders(stub: Any, code: str) -> list[Any]:
    from svcd.protocol.messages import ServiceSpec  # noqa: PLC0415

    return [ServiceSpec("web", stub.invocation, code=code), Init(stub.invocation)]


def test_an_export_that_hangs_is_given_up_at_the_stop(controller: Any) -> None:
    code = """
import asyncio, svcd
class Web(svcd.Service):
    hangs = True
    def import_state(self, state): pass
    async def export_state(self):
        if self.hangs:
            print("hangs", flush=True)
            await asyncio.sleep(3600)
        return "in the end"
    async def stop(self, reason): print("stop")
    def look(self): self.hangs = False
"""
    stub = controller.spawn()
    stub.run(code=code, keep_state=True, export_every_s=0.01)
    stub.expect_states(*UP)
    assert stub.line() == "hangs\n"
    stub.asks("look")
    stub.stop()
    stub.expect_states("stopping")
    assert exported(stub, -2) == ("in the end", ())
    stub.tell(StateSaved(7, -2))
    assert stub.end() == (0, "stop\n", "")


def test_without_a_controller_nothing_is_exported(controller: Any) -> None:
    stub = controller.spawn()
    stub.run(code=COUNTS.format(a=""), keep_state=True, controller_timeout_s=0.1)
    stub.expect_states(*UP)
    controller.vanish()
    assert stub.end()[:2] == (0, "init\nstart 0\nstop\n")
