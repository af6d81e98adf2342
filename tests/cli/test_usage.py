"""What every command has in common: help, slips, files against names, and outputs that cannot be written.

Must not test what a command does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from fake_daemon import PATIENCE_S, Directories, FakeDaemon, Outcome, row

from svcd.cli import commands, files, main
from svcd.cli.exits import CommandFailed

Svcd = Callable[..., Outcome]
DOCS = (Path(__file__).resolve().parent.parent.parent / "docs" / "cli.md").read_text()


@pytest.mark.parametrize("command", commands.COMMANDS)
def test_help_has_examples_and_json(svcd: Svcd, command: str) -> None:
    outcome = svcd(command, "--help")
    assert outcome.code == 0
    assert "Example" in outcome.out
    assert f"svcd {command}" in outcome.out
    assert "--json" in outcome.out
    assert outcome.out == svcd(command, "-h").out


@pytest.mark.parametrize("command", commands.COMMANDS)
def test_the_page_names_every_command_and_option(command: str) -> None:
    assert command in DOCS
    found = commands.svcd.get_command(click.Context(commands.svcd), command)
    assert found is not None
    for parameter in found.params:
        if isinstance(parameter, click.Option):
            assert any(name in DOCS for name in (*parameter.opts, *parameter.secondary_opts)), parameter.opts


@pytest.mark.parametrize("command", [[], *([each] for each in commands.COMMANDS)], ids=str)
def test_help_fits_into_80_columns(svcd: Svcd, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = svcd(*command, "--help").out
    assert [line for line in out.splitlines() if len(line) > 79] == []
    assert not any(line.endswith("...") and not line.startswith("Usage") for line in out.splitlines())


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_an_option_as_well(svcd: Svcd, option: str) -> None:
    outcome = svcd(option)
    assert (outcome.code, outcome.out, outcome.err) == (0, svcd("version").out, "")


def test_help_lists_every_command(svcd: Svcd) -> None:
    out = svcd("--help").out
    for command in commands.COMMANDS:
        assert f"\n  {command} " in out
    outcome = svcd()
    assert outcome.code == 2
    assert "Commands:" in outcome.err


SLIPS = {
    ("statsu",): "svcd: there is no command 'statsu'; did you mean status?\nhint: svcd --help\n",
    ("zzz",): "svcd: there is no command 'zzz'\nhint: svcd --help\n",
    ("stop",): (
        "svcd: name the services to stop, or say --unneeded; to stop everything: svcd shutdown\n"
        "hint: svcd stop --help\n"
    ),
    ("update", "web", "--version"): ("svcd: option '--version' requires an argument\nhint: svcd update --help\n"),
    ("--cluster",): "svcd: option '--cluster' requires an argument\nhint: svcd --help\n",
    ("signal", "HUP"): "svcd: missing argument 'NAME...'\nhint: svcd signal --help\n",
    ("start", "a", "b.yaml"): (
        "svcd: b.yaml is a file and a is a service's name: name either files or services\nhint: svcd start --help\n"
    ),
    ("start", "a.yaml", "--no-wait"): (
        "svcd: --no-wait and --timeout go with -d, or with the names of services\nhint: svcd start --help\n"
    ),
    ("start", "-d", "a"): (
        "svcd: -d goes with a FILE: services of a running cluster are in the background already\n"
        "hint: svcd start --help\n"
    ),
}


@pytest.mark.parametrize("words", SLIPS, ids=" ".join)
def test_slips(directories: Directories, svcd: Svcd, words: tuple[str, ...]) -> None:
    outcome = svcd(*words)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", SLIPS[words])


def test_options_that_do_not_exist(svcd: Svcd) -> None:
    outcome = svcd("status", "--jsno")
    assert outcome.code == 2
    assert outcome.err.startswith("svcd: no such option")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("web", False),
        ("web.yaml", True),
        ("web.YML", True),
        ("./web", True),
        ("configs/web", True),
        ("here", True),
        ("directory", False),
        ("yaml", False),
    ],
)
def test_files_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, expected: bool) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").touch()
    (tmp_path / "directory").mkdir()
    assert files.is_file(word) is expected


def test_version(svcd: Svcd) -> None:
    name, version = svcd("version").out.split()
    assert name == "svcd"
    assert json.loads(svcd("version", "--json").out) == {"version": version}


def test_every_refusal_of_a_file_is_shown_at_once(tmp_path: Path, svcd: Svcd) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("services:\n  a: {comand: x}\n  b: {command: [nope-nope-nope]}\n")
    for command in (("validate",), ("start",), ("start", "-d"), ("graph",)):
        outcome = svcd(*command, str(file))
        assert outcome.code == 2
        first, *rest = outcome.err.splitlines()
        assert first.startswith("svcd: cannot ")
        assert first.endswith(" problems")
        assert len(rest) == int(first.split()[-2])
        assert all(line.startswith(f"{file}:") for line in rest)
        assert any("command" in line for line in rest)
    document = json.loads(svcd("validate", "--json", str(file)).out)
    assert document["valid"] is False
    assert set(document["problems"][0]) == {"file", "line", "column", "key", "text", "suggestion"}


def test_a_valid_file(tmp_path: Path, svcd: Svcd) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("cluster: shop\nservices: {a: {command: sleep 1}}\n")
    assert svcd("validate", str(file)).out == f"{file}: valid: cluster shop, 1 service\n"
    document = json.loads(svcd("validate", "--json", str(file)).out)
    assert document == {"valid": True, "problems": [], "cluster": "shop", "services": ["a"]}


def test_schema_is_json(svcd: Svcd) -> None:
    assert "properties" in json.loads(svcd("schema").out)


# ---- as a process ----------------------------------------------------------------------------------------------------


def run(*arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    given: dict[str, object] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    command = [sys.executable, "-m", "svcd.cli", *arguments]
    return subprocess.run(command, text=True, timeout=PATIENCE_S, check=False, **given)  # type: ignore[call-overload, no-any-return]


def test_a_full_disk_is_no_success() -> None:
    with open("/dev/full", "w") as full:
        done = run("version", stdout=full)
    assert done.returncode == 1
    assert done.stderr == "svcd: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "0<&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_harm_nobody(daemon: FakeDaemon, closed: str) -> None:
    daemon.rows = [row("a")]
    log = daemon.places.logs("a", "stdout")
    log.parent.mkdir(parents=True)
    log.write_bytes(b"x\n" * 1000)
    for command in ("version", "status", "status --json", "logs a"):
        done = subprocess.run(
            ["sh", "-c", f'"{sys.executable}" -m svcd.cli {command} {closed}'],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), command


def test_the_last_resort_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from svcd.cli import main, commands; commands.run = lambda words: 1 / 0; main.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first == "svcd: cannot go on: ZeroDivisionError: division by zero"
    assert "SVCD_DEBUG=1" in second
    environ = {**os.environ, "SVCD_DEBUG": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=False)
    assert "Traceback" in done.stderr


def test_failures_are_one_line_each(capfd: pytest.CaptureFixture[str]) -> None:
    commands.complain(CommandFailed("cannot do\nthis \x1b[31m", details=("a", "b"), hint="try that"))
    assert capfd.readouterr().err == "svcd: cannot do this\na\nb\nhint: try that\n"
    assert main.INTERRUPTED == 130


def test_commands_about_running_services_do_without_the_reader() -> None:
    """Import cost: what a status needs, and what it must not."""
    code = (
        "import sys; from svcd.cli import commands, client, status, orders, logs;"
        "print(sorted({'yaml', 'pydantic', 'rich', 'asyncio', 'uvloop', 'psutil', 'structlog'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert done.stdout == "[]\n"


def test_the_package_itself_is_the_command() -> None:
    said = subprocess.run([sys.executable, "-m", "svcd", "version"], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("svcd ")
    assert said.stderr == ""
