"""Launchers: what a newborn service finds, and how a spawn that does not work out is told."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from guarded import PATH, Guarded, is_alive, wait_until

from svcd.supervisor.wiring import PartEnded, ProcessBorn, ProcessReaped, ProgramExecuted, SpawnRejected

FACTS = """
import ctypes, json, os, resource, signal, sys
def facts():
    death = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(death), 0, 0, 0)
    status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
    mask = os.umask(0)
    os.umask(mask)
    return {
        "me": os.getpid(), "parent": os.getppid(), "session": os.getsid(0), "group": os.getpgid(0),
        "ignored": int(status["SigIgn"], 16), "blocked": int(status["SigBlk"], 16), "caught": int(status["SigCgt"], 16),
        "death": death.value, "limits": resource.getrlimit(resource.RLIMIT_NOFILE), "umask": mask,
        "cwd": os.getcwd(), "env": dict(os.environ), "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
        "fds": {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                if os.path.lexists(f"/proc/self/fd/{fd}")},
        "title": open("/proc/self/cmdline").read().rstrip("\\0"),
    }
"""
PROGRAM = FACTS + "print(json.dumps(facts()))"
PYTHON = (sys.executable, "-I", "-S", "-c")

# A fork server whose worker runtime is this: tells its facts and ends with the code that it is told.
FAKE_STUB = (
    FACTS
    + """
import types
module = types.ModuleType("svcd.worker_runtime.stub")
def main(stub):
    found = facts()
    found["stub"] = stub
    os.write(1, json.dumps(found).encode())
    if stub.get("raise"):
        raise RuntimeError("broken stub")
    return stub["code"]
module.main = main
module.prepare = lambda rehearse: rehearse()
sys.modules["svcd.worker_runtime.stub"] = module
import svcd.worker_runtime
svcd.worker_runtime.stub = module
if "threads" in sys.argv:
    import threading
    threading.Thread(target=threading.Event().wait, daemon=True).start()
from svcd.supervisor import launcher
launcher.run(json.loads(sys.argv[1]))
"""
)

SETTABLE = sum(1 << (number - 1) for number in signal.valid_signals())
"""The C library keeps 32 and 33 for itself: what they do is inherited from whoever started us."""
PYTHON_DEFAULTS = (1 << (signal.SIGPIPE - 1)) | (1 << (signal.SIGXFSZ - 1)), 1 << (signal.SIGINT - 1)


def told(guarded: Guarded, service: str) -> dict[str, Any]:
    guarded.wait(lambda: guarded.all(ProcessReaped, service=service), f"the end of {service}")
    wait_until(lambda: guarded.output(service).endswith("}\n"), f"the facts of {service}")
    facts: dict[str, Any] = json.loads(guarded.output(service))
    return facts


# ---- what a program finds --------------------------------------------------------------------------------------------


def test_a_program_starts_from_clean_ground(guarded: Guarded, tmp_path: Path) -> None:
    pid = guarded.spawn("a", *PYTHON, PROGRAM, env={"ONLY": "this", "PATH": PATH}, workdir=str(tmp_path), umask=0o27)
    facts = told(guarded, "a")
    assert (facts["me"], facts["parent"]) == (pid, guarded.pid)
    assert facts["session"] == facts["group"] == pid
    assert (facts["ignored"] & SETTABLE, facts["caught"]) == PYTHON_DEFAULTS, "more than Python's own doing"
    assert facts["blocked"] == 0
    assert facts["death"] == signal.SIGKILL
    assert tuple(facts["limits"]) == resource.getrlimit(resource.RLIMIT_NOFILE)
    assert facts["umask"] == 0o27
    assert facts["cwd"] == str(tmp_path)
    assert {key: value for key, value in facts["env"].items() if key != "LC_CTYPE"} == {"ONLY": "this", "PATH": PATH}
    assert facts["fds"]["0"] == "/dev/null"
    assert facts["fds"]["1"].startswith("pipe:")
    assert facts["fds"]["2"].startswith("pipe:")
    assert facts["fds"]["1"] != facts["fds"]["2"]
    assert {int(fd) for fd in facts["fds"]} <= {0, 1, 2, 3}, "3 is the listing's own"


def test_every_signal_has_its_default_effect(guarded: Guarded) -> None:
    """Python ignores some by itself, so something else has to look."""
    guarded.run("a", "sh", "-c", "while read line; do case $line in Sig*) echo $line;; esac; done < /proc/$$/status")
    wait_until(lambda: "SigCgt" in guarded.output("a"), "its status")
    masks = dict(line.split(": ") for line in guarded.output("a").splitlines())
    assert {int(masks[name], 16) & SETTABLE for name in ("SigPnd", "SigBlk", "SigIgn")} == {0}


def test_streams_are_merged_split_or_dropped_as_ordered(guarded: Guarded) -> None:
    words = ("sh", "-c", "echo out; echo err >&2; readlink /proc/$$/fd/1 /proc/$$/fd/2")
    guarded.run("two", *words)
    guarded.run("one", *words, streams=(guarded.target("one", "stdout"),))
    guarded.run("none", *words, streams=())
    wait_until(lambda: guarded.output("two").count("\n") == 3, "the output of two")
    wait_until(lambda: guarded.output("one").count("\n") == 4, "the output of one")
    wait_until(lambda: guarded.output("two", "stderr") == "err\n", "the other stream of two")
    assert guarded.output("one").startswith("out\nerr\n")
    assert not (guarded.logs / "none").exists()


def ids(guarded: Guarded, service: str, **fields: Any) -> list[list[str]]:
    """What a program says of its uids, gids and groups. It has to be one that everybody may execute."""
    guarded.run(service, "grep", "-E", "^(Uid|Gid|Groups):", "/proc/self/status", **fields)
    wait_until(lambda: guarded.output(service).count("\n") == 3, "its status")
    return [line.split()[1:] for line in guarded.output(service).splitlines()]


def test_it_runs_as_the_user_that_was_asked_for(guarded: Guarded) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may become somebody else")
    assert ids(guarded, "a", uid=65534, gid=65533, groups=(7, 8)) == [["65534"] * 4, ["65533"] * 4, ["7", "8"]]


def test_a_user_alone_keeps_no_group_of_ours(guarded: Guarded) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may become somebody else")
    assert ids(guarded, "a", uid=65534) == [["65534"] * 4, ["0"] * 4, []]


@pytest.mark.parametrize("changes_user", [False, True])
def test_it_dies_with_the_guardian(guarded: Guarded, changes_user: bool) -> None:
    if changes_user and os.geteuid() != 0:
        pytest.skip("only root may become somebody else")
    pid = guarded.spawn("a", "sleep", "1000", **({"uid": 65534, "gid": 65534} if changes_user else {}))
    guarded.wait_for(ProgramExecuted, service="a")
    guarded.process.kill()
    wait_until(lambda: not is_alive(pid), "the service to die with the guardian, with no controller to help")


def test_ones_own_user_may_be_named(guarded: Guarded) -> None:
    guarded.spawn("a", *PYTHON, PROGRAM, uid=os.getuid(), gid=os.getgid(), groups=tuple(os.getgroups()))
    assert told(guarded, "a")["ids"][0] == [os.getuid()] * 3


def test_the_name_is_looked_up_on_its_own_path(guarded: Guarded, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for directory, mode in ((first, 0o644), (second, 0o755)):
        directory.mkdir()
        (directory / "tool").write_text(f"#!/bin/sh\necho {directory.name}\n")
        (directory / "tool").chmod(mode)
    guarded.run("a", "tool", env={"PATH": f"{tmp_path}/nowhere:{first}:{second}"})
    wait_until(lambda: guarded.output("a") == "second\n", "the second, which may be executed")


# ---- what does not work out ------------------------------------------------------------------------------------------


BROKEN = (
    "missing",
    "not on PATH",
    "no permission",
    "garbage",
    "directory",
    "its interpreter",
    "workdir",
    "NUL",
    "bad name",
    "stub",
)


def broken(tmp_path: Path) -> dict[str, tuple[dict[str, Any], str, int, str]]:
    """Name -> (order, stage, errno, text)."""
    plain, garbage, orphaned = tmp_path / "plain", tmp_path / "garbage", tmp_path / "orphaned"
    plain.write_text("#!/bin/sh\n")
    garbage.write_bytes(b"\x7fnothing")
    orphaned.write_text("#!/no/such/interpreter\n")
    garbage.chmod(0o755)
    orphaned.chmod(0o755)
    return {
        "missing": (
            {"argv": ("/no/such",)},
            "exec",
            errno.ENOENT,
            "cannot execute /no/such: No such file or directory",
        ),
        "not on PATH": ({"argv": ("nosuch",)}, "exec", errno.ENOENT, "cannot execute nosuch: No such file"),
        "no permission": ({"argv": (str(plain),)}, "exec", errno.EACCES, f"cannot execute {plain}: Permission denied"),
        "garbage": ({"argv": (str(garbage),)}, "exec", errno.ENOEXEC, f"cannot execute {garbage}: Exec format error"),
        "directory": ({"argv": (str(tmp_path),)}, "exec", errno.EACCES, "Permission denied"),
        "its interpreter": ({"argv": (str(orphaned),)}, "exec", errno.ENOENT, "the interpreter that it names is not"),
        "workdir": (
            {"workdir": "/no/such"},
            "workdir",
            errno.ENOENT,
            "cannot enter its working directory /no/such: No",
        ),
        "NUL": ({"argv": ("echo", "a\0b")}, "start", 0, "cannot set it up: embedded null byte"),
        "bad name": ({"env": {"A=B": "c"}}, "start", 0, "cannot set it up: illegal environment variable name"),
        "stub": ({"argv": None, "stub": {}}, "exec", 0, "a launcher of programs cannot run Python code"),
    }


@pytest.mark.parametrize("name", BROKEN)
def test_why_it_cannot_run_is_told(guarded: Guarded, tmp_path: Path, name: str) -> None:
    fields, stage, number, text = broken(tmp_path)[name]
    reaped = guarded.run("a", **{"argv": ("true",), **fields})
    rejected = guarded.wait_for(SpawnRejected)
    assert (rejected.service, rejected.invocation, rejected.born) == ("a", 1, True)
    assert (rejected.stage, rejected.errno) == (stage, number)
    assert text in rejected.reason
    assert reaped.code == 127
    assert not guarded.all(ProgramExecuted)
    assert guarded.run("b", "true").code == 0, "the launcher goes on"


def test_success_is_told_as_well(guarded: Guarded) -> None:
    guarded.spawn("a", "sleep", "1000")
    guarded.wait_for(ProgramExecuted, service="a", invocation=1)
    assert not guarded.all(SpawnRejected)


def test_a_missing_cgroup_is_told(guarded: Guarded) -> None:
    guarded.send("launcher", guarded.order("a", "true", cgroup="/no/such/cgroup"))
    rejected = guarded.wait_for(SpawnRejected)
    assert (rejected.born, rejected.stage, rejected.errno) == (False, "cgroup", errno.ENOENT)
    assert guarded.run("b", "true").code == 0


def test_a_launcher_without_descriptors_says_so_and_recovers(guarded: Guarded) -> None:
    launcher = guarded.wait_part("launcher")
    guarded.run("before", "true")
    guarded.wait_for(ProgramExecuted, service="before")
    limits = resource.prlimit(launcher, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{launcher}/fd"))
    resource.prlimit(launcher, resource.RLIMIT_NOFILE, (used + 1, limits[1]))
    guarded.send("launcher", guarded.order("a", "true"))
    rejected = guarded.wait_for(SpawnRejected)
    assert (rejected.born, rejected.stage, rejected.errno) == (False, "fork", errno.EMFILE)
    assert "Too many open files" in rejected.reason
    resource.prlimit(launcher, resource.RLIMIT_NOFILE, limits)
    assert guarded.run("b", "true").code == 0
    guarded.wait_for(ProgramExecuted, service="b")
    assert len(os.listdir(f"/proc/{launcher}/fd")) == used


def test_room_for_a_few_is_enough_for_many(guarded: Guarded) -> None:
    launcher = guarded.wait_part("launcher")
    guarded.run("before", "true")
    guarded.wait_for(ProgramExecuted, service="before")
    hard = resource.prlimit(launcher, resource.RLIMIT_NOFILE)[1]
    used = len(os.listdir(f"/proc/{launcher}/fd"))
    resource.prlimit(launcher, resource.RLIMIT_NOFILE, (used + 40, hard))
    for number in range(60):
        guarded.send("launcher", guarded.order(f"s{number}", "true"))
    guarded.wait(lambda: len(guarded.all(ProcessReaped)) + len(guarded.all(SpawnRejected)) >= 61, "all ends")
    assert guarded.all(SpawnRejected) == []


# ---- the fork server -------------------------------------------------------------------------------------------------


@pytest.fixture
def fork_server(guarded_by: Callable[..., Guarded]) -> Guarded:
    return guarded_by(python_services=True, parts={"fork-server": [sys.executable, "-c", FAKE_STUB, "{}"]})


def spawn_stub(guarded: Guarded, service: str, stub: dict[str, Any], **fields: Any) -> int:
    return guarded.spawn(service, part="fork-server", argv=None, stub=stub, **fields)


def test_a_stub_starts_from_clean_ground(fork_server: Guarded, tmp_path: Path) -> None:
    pid = spawn_stub(fork_server, "a", {"code": 3}, env={"ONLY": "this"}, workdir=str(tmp_path))
    assert fork_server.wait_for(ProcessReaped, service="a").code == 3
    wait_until(lambda: fork_server.output("a"), "its facts")
    facts = json.loads(fork_server.output("a"))
    assert facts["stub"] == {"code": 3}
    assert (facts["me"], facts["parent"], facts["session"]) == (pid, fork_server.pid, pid)
    assert (facts["ignored"] & SETTABLE, facts["blocked"], facts["caught"]) == (0, 0, 0)
    assert facts["death"] == signal.SIGKILL
    assert facts["env"] == {"ONLY": "this"}
    assert facts["title"] == "svcd: service shop/a"
    assert {int(fd) for fd in facts["fds"]} <= {0, 1, 2, 3}
    fork_server.wait_for(ProgramExecuted, service="a")


def test_a_stub_that_raises_ends_and_harms_nobody(fork_server: Guarded) -> None:
    spawn_stub(fork_server, "a", {"code": 0, "raise": True})
    assert fork_server.wait_for(ProcessReaped, service="a").code == 127
    wait_until(lambda: "broken stub" in fork_server.output("a", "stderr"), "its words")
    spawn_stub(fork_server, "b", {"code": 4})
    assert fork_server.wait_for(ProcessReaped, service="b").code == 4
    assert not fork_server.all(PartEnded)


def test_a_fork_server_with_threads_refuses_to_be_one(guarded_by: Callable[..., Guarded]) -> None:
    """However long each of its attempts takes here."""
    argv = [sys.executable, "-c", FAKE_STUB, "{}", "threads"]
    guarded = guarded_by(python_services=True, numbers={"RESTARTS_WITHIN_S": 0.0}, parts={"fork-server": argv})
    assert guarded.wait_end() == 1
    assert "not single-threaded" in guarded.stderr.read_text()
    assert len(guarded.all(PartEnded, part="fork-server")) == 6, "it was tried a few times"


# ---- death of a launcher ---------------------------------------------------------------------------------------------


def test_a_killed_launcher_is_started_again_and_nobody_notices(guarded: Guarded) -> None:
    old = guarded.wait_part("launcher")
    pid = guarded.spawn("a", "sleep", "1000")
    guarded.wait_for(ProgramExecuted, service="a")
    os.kill(old, signal.SIGKILL)
    assert guarded.wait_for(PartEnded, part="launcher") == PartEnded("launcher", old, None, signal.SIGKILL)
    guarded.wait_part("launcher", after=old)
    assert guarded.run("b", "true").code == 0
    assert is_alive(pid)
    assert not guarded.all(ProcessReaped, service="a")


def test_a_launcher_that_dies_in_the_middle_leaves_no_process_that_nobody_knows(guarded: Guarded) -> None:
    launcher = guarded.wait_part("launcher")
    for number in range(200):
        guarded.send("launcher", guarded.order(f"s{number}", "sleep", "1000", logged=False))
    guarded.wait(lambda: len(guarded.all(ProcessBorn)) >= 20, "some births")
    os.kill(launcher, signal.SIGKILL)
    guarded.wait_for(PartEnded, part="launcher")
    guarded.wait_part("launcher", after=launcher)
    assert guarded.run("after", "true").code == 0
    known = {born.pid for born in guarded.all(ProcessBorn)} | set(guarded.part_pids.values()) | {guarded.relay_pid}

    def strangers() -> set[int]:
        guarded.pump(0.0)
        return {child.pid for child in psutil.Process(guarded.pid).children(recursive=True)} - known

    wait_until(lambda: not strangers(), "what was never announced to end by itself")
