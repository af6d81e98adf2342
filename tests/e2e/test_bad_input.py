"""Bad input through the real command: a clear message, the right exit code, nothing started.

Must not test each schema rule: that is the configuration's own tests'.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from clusters import Cluster, descendants, free_ports

GOOD = "services: {a: {command: exec sleep 1000}}\n"

# name: (text of the file, what the message must say)
BAD_FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "broken YAML": ("services: [", ("cluster.yaml:2:1:",)),
    "empty": ("", ("cluster.yaml",)),
    "not a mapping": ("- a\n- b\n", ("cluster.yaml:1:1",)),
    "unknown key": (
        "services:\n  a:\n    command: sleep 1\n    depend_on: [b]\n",
        ("cluster.yaml:4:5", "depend_on", "depends_on"),
    ),
    "wrong unit": (
        "services:\n  a:\n    command: sleep 1\n    stop: {timeout: 3 parsecs}\n",
        ("cluster.yaml:4:", "timeout", "parsecs"),
    ),
    "unknown dependency": (
        "services:\n  store: {command: sleep 1}\n  a: {command: sleep 1, depends_on: [stor]}\n",
        ("cluster.yaml:3:", "stor", "store"),
    ),
    "cycle": (
        "services:\n" + "".join(f"  {a}: {{command: x, depends_on: [{b}]}}\n" for a, b in ("ab", "bc", "ca")),
        ("a → b → c → a",),
    ),
    "missing executable": (
        "services: {a: {command: [no-such-program-here]}}\n",
        ("no-such-program-here", "cluster.yaml:1:"),
    ),
    "unknown user": ("services: {a: {command: sleep 1, user: nobody-of-that-name}}\n", ("nobody-of-that-name",)),
    "no code at all": ("services: {a: {env: {B: c}}}\n", ("command", "python")),
    "unset variable": ("services: {a: {command: 'echo ${NO_SUCH_VARIABLE_HERE}'}}\n", ("NO_SUCH_VARIABLE_HERE",)),
    "later feature": ("services: {a: {command: sleep 1, schedule: '* * * * *'}}\n", ("schedule",)),
    "syntax error in code": ("services: {a: {code: 'def main(ctx) return'}}\n", ("cluster.yaml:1:",)),
    "binary": ("services: \x00\x01\n", ("cluster.yaml",)),
}


def assert_nothing_happened(cluster: Cluster) -> None:
    assert descendants() == []
    assert not cluster.run_dir.exists()
    assert not (cluster.state_dir / "logs").exists()


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("command", [("start",), ("start", "-d"), ("validate",)], ids=" ".join)
def test_bad_files_are_refused_whole(cluster: Cluster, name: str, command: tuple[str, ...]) -> None:
    text, fragments = BAD_FILES[name]
    (cluster.directory / "cluster.yaml").write_text(text)
    outcome = cluster.svcd(*command, "cluster.yaml", code=2)
    for fragment in fragments:
        assert fragment in outcome.err, outcome
    assert_nothing_happened(cluster)


def test_every_error_is_reported_at_once(cluster: Cluster) -> None:
    cluster.write(
        "services:\n  a: {comand: x}\n  b: {command: sleep 1, depends_on: [zz]}\n  c: {command: [nope-nope]}\n"
    )
    err = cluster.svcd("start", "cluster.yaml", code=2).err
    assert all(word in err for word in ("comand", "zz", "nope-nope"))
    assert_nothing_happened(cluster)


@pytest.mark.parametrize("target", ["missing.yaml", "directory.yaml", "latin.yaml"])
def test_files_that_cannot_be_read(cluster: Cluster, target: str) -> None:
    (cluster.directory / "directory.yaml").mkdir()
    (cluster.directory / "latin.yaml").write_bytes("services: {a: {command: 'echo \xe9'}}".encode("latin-1"))
    assert target in cluster.svcd("start", target, code=2).err
    assert_nothing_happened(cluster)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(cluster: Cluster) -> None:
    cluster.write(GOOD).chmod(0)
    assert "ermission" in cluster.svcd("start", "cluster.yaml", code=2).err


def _file_in_its_place(path: Path) -> None:
    path.write_text("")


def _open_to_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def _symbolic_link(path: Path) -> None:
    path.symlink_to("/")


@pytest.mark.parametrize("spoil", [_file_in_its_place, _open_to_all, _symbolic_link])
def test_a_run_directory_that_cannot_be_trusted(cluster: Cluster, spoil: Callable[[Path], None]) -> None:
    cluster.write(GOOD)
    spoil(cluster.run_dir)
    outcome = cluster.svcd("start", "cluster.yaml", code=None)
    assert outcome.code in (1, 2)
    assert str(cluster.run_dir) in outcome.err
    assert descendants() == []
    if cluster.run_dir.is_symlink() or cluster.run_dir.is_file():
        cluster.run_dir.unlink()


def test_a_run_directory_too_deep_for_sockets(cluster: Cluster) -> None:
    cluster.write(GOOD)
    outcome = cluster.svcd("start", "--run-dir", str(cluster.base / ("x" * 120)), "cluster.yaml", code=None)
    assert outcome.code in (1, 2)
    assert "--run-dir" in outcome.err


def test_a_second_start_is_refused_and_names_the_first(cluster: Cluster) -> None:
    cluster.write(GOOD)
    pid = cluster.start()
    before = cluster.row("a")
    for more in ((), ("-d",)):
        outcome = cluster.svcd("start", *more, "cluster.yaml", code=1)
        assert str(pid) in outcome.err
    assert cluster.row("a").invocation == before.invocation
    assert cluster.row("a").pid == before.pid


def test_what_svcd_listens_on_is_no_conflict_of_its_own(cluster: Cluster) -> None:
    (port,) = free_ports(1)
    text = f"services: {{a: {{command: sleep 1000, sockets: [{{listen: '127.0.0.1:{port}'}}]}}}}\n"
    cluster.write(f"cluster: one\n{text}")
    pid = cluster.start()
    outcome = cluster.svcd("start", "-d", "cluster.yaml", code=1)
    assert f"runs already (pid {pid}" in outcome.err
    assert cluster.svcd("validate", "cluster.yaml").out.startswith("cluster.yaml: valid")
    cluster.drain()
    with socket.create_server(("127.0.0.1", port)):
        outcome = cluster.svcd("start", "-d", "cluster.yaml", code=2)
    assert f"cluster.yaml:2:{text.index(chr(39)) + 1}: services.a.sockets[0].listen: cannot listen" in outcome.err


def test_commands_without_a_daemon(cluster: Cluster) -> None:
    for command in (
        ("status",),
        ("stop", "a"),
        ("start", "a"),
        ("restart", "a"),
        ("shutdown",),
        ("signal", "HUP", "a"),
    ):
        outcome = cluster.svcd(*command, code=4)
        assert outcome.err.startswith("svcd: ")


def test_unknown_names_and_bad_usage(cluster: Cluster) -> None:
    cluster.write(GOOD)
    cluster.start()
    for command in (("stop", "b"), ("start", "b"), ("restart", "a", "b"), ("status", "b"), ("signal", "NOPE", "a")):
        cluster.svcd(*command, code=2)
    cluster.svcd("start", "a", "cluster.yaml", code=2)
    cluster.svcd("no-such-command", code=2)
    cluster.svcd("start", "--no-such-option", code=2)
    assert cluster.states() == {"a": "running"}


def test_a_port_that_is_taken_is_the_services_own_failure(cluster: Cluster) -> None:
    (port,) = free_ports(1)
    program = "import socket, time\\ns = socket.create_server(('127.0.0.1', PORT))\\ntime.sleep(1000)".replace(
        "PORT", str(port)
    )
    cluster.write(
        f"""
        services:
          first: {{command: [python3, -c, "{program}"], ready: {{tcp: "127.0.0.1:{port}"}}}}
          second:
            command: [python3, -c, "{program}"]
            depends_on: [first]
            restart: {{policy: never}}
            ready: {{delay: 30s}}
        """
    )
    cluster.start()
    row = cluster.wait_state("second", "failed")
    assert "exit code 1" in row.cause
    cluster.wait_status(
        lambda status: "Address already in use" in " ".join(status.services[1].last_output), "its last words"
    )
    assert "Address already in use" in cluster.svcd("status", code=3).out
