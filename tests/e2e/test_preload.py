"""``start: preload``: a Python service is loaded in the background, and started when it is asked for.

Must not test what loading costs: benchmarks do.
"""

from __future__ import annotations

from clusters import wait_until
from stage import Stage

LAZY = """\
from svcd import Service
print("imported", flush=True)
class Lazy(Service):
    def start(self): print("started", flush=True)
"""
KEYS = "command: null, python: 'lazy:Lazy', start: preload"


def test_it_is_loaded_and_waits(stage: Stage) -> None:
    stage.write(LAZY, "lazy.py")
    stage.up(f"a: {{{KEYS}}}\nb: {{}}")
    stage.wait_state("a", "loaded")
    pid = stage.pid_of("a")
    wait_until(lambda: stage.output("a") == b"imported\n", "its words")
    assert stage.svcd("status").code == 0
    stage.skip()
    stage.does("start", "a")
    stage.tells("a: loaded → initialized → starting → running")
    assert stage.pid_of("a") == pid
    wait_until(lambda: stage.output("a") == b"imported\nstarted\n", "its words")


def test_what_needs_it_starts_it(stage: Stage) -> None:
    stage.write(LAZY, "lazy.py")
    stage.up(f"a: {{{KEYS}, depends_on: [db]}}\nb: {{start: manual, depends_on: [a]}}\ndb: {{start: manual}}")
    stage.wait_state("a", "loaded")
    mark = stage.mark()
    stage.does("start", "b")
    steps = [each.line for each in stage.since(mark)]
    assert steps.index("db: starting → running") < steps.index("a: loaded → initialized")
    assert steps.index("a: starting → running") < steps.index("b: waiting → starting")


def test_code_that_cannot_be_loaded_is_a_failure_at_once(stage: Stage) -> None:
    stage.write("import no_such_module_at_all\n", "lazy.py")
    stage.up(f"a: {{{KEYS}}}\nb: {{}}")
    row = stage.wait_state("a", "failed")
    assert "no_such_module_at_all" in row.cause


def test_what_was_only_loaded_ends_with_the_cluster(stage: Stage) -> None:
    stage.write(LAZY, "lazy.py")
    stage.up(f"a: {{{KEYS}}}")
    stage.wait_state("a", "loaded")
    stage.skip()
    stage.drains("a: loaded → stopping → stopped")


def test_a_stop_unloads_it(stage: Stage) -> None:
    stage.write(LAZY, "lazy.py")
    stage.up(f"a: {{{KEYS}}}\nb: {{}}")
    stage.wait_state("a", "loaded")
    stage.skip()
    stage.does("stop", "a")
    stage.tells("a: loaded → stopping → stopped")
