"""What supervisors are known to get wrong: programs, clocks, directories and graphs that do not behave.

Must not test what test_failures does (descendants that ignore every signal, a guardian that is killed).
"""

from __future__ import annotations

import ast
import itertools
import json
import os

from clusters import ROOT, Cluster, is_alive, wait_until
from stage import Stage
from traces import Transition, starts, stops, together

RISES = "waiting → starting → running"


# ---- those that will not go ----


def test_who_ignores_the_stop_is_killed_with_all_its_children_before_anything_below_stops(stage: Stage) -> None:
    stage.write(
        """
        import os, signal, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for _ in range(3):
            if os.fork() == 0:
                break
        with open(f"pids/{os.getpid()}", "w"):
            pass
        time.sleep(1000)
        """,
        "stubborn.py",
    )
    (stage.directory / "pids").mkdir()
    stage.up("db: {}\nstubborn: {command: [python3, stubborn.py], stop: {timeout: 200ms}, depends_on: [db]}")
    wait_until(lambda: len(os.listdir(stage.directory / "pids")) == 4, "four stubborn processes")
    pids = [int(name) for name in os.listdir(stage.directory / "pids")]
    stage.does("stop", "db")
    stage.tells(stops("stubborn", to="waiting"), stops("db"))
    assert not any(map(is_alive, pids))


def test_the_kill_is_told_and_only_where_there_was_one(stage: Stage) -> None:
    stage.up("deaf: {PLAYER deaf, stop: {timeout: 200ms}}\npolite: {PLAYER}")
    stage.does("stop", "deaf", "polite")
    stage.tells(together(stops("deaf"), stops("polite")))
    assert stage.causes("deaf")[-1] == "stopped by request; did not stop within 0.2 s: killed"
    assert stage.causes("polite")[-1] == "stopped by request"


HOLDER = """
    import os, signal, subprocess, sys
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    print("the parent was here", flush=True)
    os.execv("./player", ["./player"])
"""


def test_a_grandchild_that_keeps_the_output_open_delays_no_restart(stage: Stage) -> None:
    """It lives in a session of its own and ignores SIGTERM, the pipe in its hand: it is found, and killed."""
    stage.write(HOLDER, "holder.py")
    stage.up("a: {command: [python3, holder.py], ready: {notify: true}, stop: {timeout: 200ms}}\nb: {depends_on: [a]}")
    before = stage.processes("a")
    assert len(before) == 2
    stage.crash("a")
    stage.tells(
        "a: running → stopping",
        together(f"a: stopping → {RISES}", stops("b", to="waiting")),
        starts("b"),
    )
    assert not any(map(is_alive, before))
    assert "clearing what it left behind" in " ".join(stage.causes("a"))
    stage.drain()
    assert stage.output("a") == b"the parent was here\n" * 2


def test_an_open_pipe_in_a_strangers_hand_does_not_matter(stage: Stage) -> None:
    """Somebody whom svcd cannot know holds the write end; a's end is its end all the same."""
    stage.up("a: {PLAYER}")
    with open(f"/proc/{stage.pid_of('a')}/fd/1", "wb"):
        stage.crash("a")
        stage.tells(f"a: running → {RISES}")
        stage.does("stop", "a")
        stage.tells(stops("a"))
        assert stage.drain() == 0


def test_an_exit_that_is_seen_before_the_exec_is_told_in_order(stage: Stage) -> None:
    """Thirty programs that end at once: each has started, then run, then completed; none is lost or told twice."""
    names = [f"quick{number}" for number in range(30)]
    stage.up("\n".join(f"{name}: {{command: ['true'], start: manual}}" for name in names))
    stage.does("start", *names)
    whole = "unloaded → waiting → starting → running → completed"
    stage.tells(together(*(f"{name}: {whole}" for name in names)))


def test_programs_that_cannot_be_executed_never_ran(stage: Stage) -> None:
    stage.write("#!/no/such/interpreter\n", "broken")
    (stage.directory / "broken").chmod(0o755)
    names = [f"broken{number}" for number in range(10)]
    policy = "restart: {policy: never}"
    stage.up("\n".join(f"{name}: {{command: [./broken], start: manual, {policy}}}" for name in names))
    stage.order("start", *names).end()
    stage.tells(together(*(f"{name}: unloaded → waiting → starting → failed" for name in names)))


# ---- endless loops ----


def test_a_shutdown_amid_an_endless_crash_loop_ends_it(cluster: Cluster) -> None:
    policy = "restart: {backoff: {initial: 0s}, intensity: {restarts: unlimited}}"
    names = [f"loop{number}" for number in range(4)]
    services = "\n".join(f"  {name}: {{command: exit 1, {policy}}}" for name in names)
    cluster.write(f"services:\n{services}\n")
    cluster.start(wait=None)
    cluster.wait_status(lambda status: all(row.restarts > 20 for row in status.services), "the loops to turn")
    assert cluster.drain() == 0
    told = cluster.transitions()
    for name in names:
        own = [each for each in told if each.service == name]
        assert own[-1].new == "stopped"
        assert [each.new for each in own].count("stopped") == 1
        assert_one_run_at_a_time(own)


def test_a_stop_ends_an_endless_crash_loop_for_good(cluster: Cluster) -> None:
    policy = "restart: {backoff: {initial: 0s}, intensity: {restarts: unlimited}}"
    cluster.write(f"services: {{loop: {{command: exit 1, {policy}}}, other: {{command: exec sleep 1000}}}}\n")
    cluster.start(wait=None)
    cluster.wait_status(lambda status: status.services[0].restarts > 20, "the loop to turn")
    cluster.svcd("stop", "loop")
    row = cluster.row("loop")
    assert (row.state, row.pid) == ("stopped", None)
    cluster.svcd("restart", "other")
    assert cluster.row("loop").invocation == row.invocation
    assert cluster.drain() == 0


def assert_one_run_at_a_time(told: list[Transition]) -> None:
    """Each invocation is one beginning and one end, and they never overlap."""
    for before, after in itertools.pairwise(told):
        assert before.new == after.old, f"{before} is followed by {after}"
    runs = [each.invocation for each in told if each.new == "starting"]
    assert runs == sorted(set(runs), key=lambda each: each or 0)


# ---- time ----


def test_a_wall_clock_that_is_set_back_by_an_hour_decides_nothing(stage: Stage) -> None:
    """Every part of svcd gets a clock that goes back by an hour with every look at it. What this shows: whatever
    Python code of svcd asks ``time`` for the time of day, backoffs, timeouts, intensity and stops go on; a clock of
    the machine that really jumps is not tried (that needs privileges), but the next test shows who could notice.
    """
    places = stage.directory / "places"
    places.mkdir()
    (places / "sitecustomize.py").write_text(CLOCK_SET_BACK)
    stage.environ["PYTHONPATH"] = os.pathsep.join([str(places), *filter(None, [stage.environ.get("PYTHONPATH")])])
    stage.up(
        """
        db: {PLAYER, restart: {backoff: {initial: 50ms, jitter: 0}, intensity: {restarts: 1, within: 1h}}}
        deaf: {PLAYER deaf, stop: {timeout: 200ms}, depends_on: [db]}
        late: {ready: {notify: true, timeout: 50ms}, restart: {policy: never}, start: manual}
        """
    )
    stage.say("db", "exit 1")
    stage.tells(
        "db: running → backoff",
        together(f"db: backoff → {RISES}", stops("deaf", to="waiting")),
        starts("deaf"),
    )
    assert stage.order("start", "late").outcome() == "failed: late failed: not ready within 50 ms: no READY=1 so far"
    stage.tells("late: unloaded → waiting → starting → stopping → failed")
    stage.say("db", "exit 1")
    stage.tells(together("db: running → unavailable", stops("deaf", to="waiting")))
    moments = [event.at for event in stage.trace if hasattr(event, "at")]
    assert min(moments[1:]) < moments[0], "the clock was not set back: nothing was shown"
    stage.drains("deaf: waiting → stopped")


CLOCK_SET_BACK = """
import time
_true, _looks = time.time, 0

def back():
    global _looks
    _looks += 1
    return _true() - 3600 * _looks

time.time = back
"""


def test_only_two_places_read_the_wall_clock_and_none_of_them_decides() -> None:
    """Where the daemon's code asks for the time of day at all. ``clock.wall`` is for what is shown and logged."""
    found = set()
    for path in (ROOT / "svcd" / "supervisor").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if name in ("time.time", "time.time_ns", "datetime.now", "datetime.datetime.now", "datetime.utcnow"):
                found.add(str(path.relative_to(ROOT / "svcd" / "supervisor")))
    assert found <= {"controller/clock.py", "logfile.py", "controller/watching/schedule.py", "controller/schedules.py"}


# ---- graphs ----


def test_a_cycle_of_twenty_is_refused_with_the_whole_path(cluster: Cluster) -> None:
    names = [f"s{number}" for number in range(20)]
    edges = zip(names, [*names[1:], names[0]], strict=True)
    lines = [f"  {name}: {{command: exec sleep 1000, depends_on: [{target}]}}" for name, target in edges]
    cluster.write("\n".join(["services:", *lines]))
    for command in (["validate", str(cluster.file)], ["start", str(cluster.file)]):
        done = cluster.svcd(*command, code=2)
        assert " -> ".join([*names, names[0]]) in done.err.replace("→", "->")
    assert not cluster.run_dir.exists() or not os.listdir(cluster.run_dir), "nothing was started"


def test_twenty_without_the_last_edge_are_fine(cluster: Cluster) -> None:
    names = [f"s{number}" for number in range(20)]
    lines = [
        f"  {name}: {{command: exec sleep 1000, depends_on: [{target}]}}" for name, target in itertools.pairwise(names)
    ]
    cluster.write("\n".join(["services:", *lines, f"  {names[-1]}: {{command: exec sleep 1000}}"]))
    cluster.svcd("validate", str(cluster.file))


# ---- output ----


def test_output_that_is_no_utf8_is_kept_as_it_is_and_shown_all_the_same(cluster: Cluster) -> None:
    blob = bytes(range(128, 256)) + b"\xff\xfe\x00 half: \xe2\x82\n"
    (cluster.directory / "blob").write_bytes(blob)
    cluster.write("services: {a: {command: 'cat blob; cat blob >&2; exit 5', restart: {policy: never}}}\n")
    cluster.start(wait=None)
    cluster.wait_state("a", "failed")
    cluster.wait_status(lambda status: status.services[0].last_output, "its last words")
    shown = json.loads(cluster.svcd("status", "--json", code=3).out)
    assert "half" in "".join(shown["services"][0]["last_output"])
    assert "exit code 5" in cluster.svcd("status", code=3).out
    assert cluster.output("a") == cluster.output("a", "stderr") == blob
    assert cluster.drain() == 0


def test_a_name_of_a_program_that_is_no_utf8(cluster: Cluster) -> None:
    cluster.write('services: {a: {command: \'exec sh -c "exec sleep 1000" "$(printf "\\\\377")"\'}}\n')
    cluster.start()
    assert cluster.states() == {"a": "running"}
    assert cluster.drain() == 0


# ---- directories ----


def test_a_working_directory_that_disappears(stage: Stage) -> None:
    work = stage.directory / "work"
    work.mkdir()
    stage.up("a: {workdir: work, restart: {intensity: {restarts: 2, within: 1h}}}")
    work.rmdir()
    assert stage.states() == {"a": "running"}, "who is there may stay"
    stage.crash("a")
    stage.tells("a: running → waiting → starting → waiting → starting → unavailable")
    cause = stage.row("a").cause
    assert cause.startswith("2 restarts within 3600 s; last: cannot start a: ")
    assert str(work) in cause
    work.mkdir()
    stage.does("start", "a")
    stage.tells(f"a: unavailable → {RISES}")


def test_a_working_directory_that_is_back_in_time(stage: Stage) -> None:
    work = stage.directory / "work"
    work.mkdir()
    stage.up("a: {workdir: work, restart: {backoff: {initial: 1h}}}")
    work.rmdir()
    work.mkdir()
    stage.crash("a")
    stage.tells("a: running → backoff")
    stage.does("start", "a")
    stage.tells(f"a: backoff → {RISES}")
