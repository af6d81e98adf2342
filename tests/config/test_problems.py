"""Every kind of mistake, and the exact words that its author reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from svcd.supervisor.config.errors import ConfigurationError, Problem
from svcd.supervisor.config.load import load

ENVIRON = {"PATH": "/usr/bin:/bin", "HOME": "/root"}

Read = Callable[..., tuple[Problem, ...]]


@pytest.fixture
def problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Write cluster.yaml (and others) into an empty directory, load it, return what is wrong with it."""
    directory = tmp_path / "shop"
    directory.mkdir()
    monkeypatch.chdir(directory)

    def read(text: str | bytes, **others: str) -> tuple[Problem, ...]:
        Path("cluster.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        for name, content in others.items():
            Path(name.replace("__", ".")).write_text(content)
        with pytest.raises(ConfigurationError) as caught:
            load(["cluster.yaml"], ENVIRON)
        assert str(caught.value) == "\n".join(str(each) for each in caught.value.problems)
        return caught.value.problems

    return read


def service(lines: str) -> str:
    """A file with one service ``web`` whose keys are ``lines``; they begin on line 3, column 5."""
    return "services:\n  web:\n" + "".join(f"    {line}\n" for line in lines.split("\n"))


OK = "command: [sleep, 5]\n"

SYNTAX = {
    "": "cluster.yaml:1:1: the file is empty; write at least one service below services:",
    "# nothing\n": "cluster.yaml:1:1: the file is empty; write at least one service below services:",
    "[]": "cluster.yaml:1:1: the file must be a mapping; begin with a key, such as services:",
    "web": "cluster.yaml:1:1: the file must be a mapping; begin with a key, such as services:",
    "a:\n\tb: 1": "cluster.yaml:2:1: a tab cannot indent YAML; use spaces",
    "a: b: c": "cluster.yaml:1:5: a colon where no key can be; put a value with ': ' in it in quotes, or check the"
    " indentation",
    "a: @x": "cluster.yaml:1:4: a value cannot begin with @; put it in quotes",
    "a: [1, 2": "cluster.yaml:2:1: the list or mapping is not closed: missing ',' or ']'; close it",
    'a: "x': "cluster.yaml:1:6: a quoted text is not closed; close the quote",
    "a: {b: [${X}]}": 'cluster.yaml:1:10: ${…} within [ ] or { } must be quoted; write "${…}" in double quotes',
    "a: 1\n b: 2": "cluster.yaml:2:3: a colon where no key can be; put a value with ': ' in it in quotes, or check the"
    " indentation",
    "a: |\n  x\n y\n": "cluster.yaml:3:2: the indentation does not fit the lines above;"
    " line up the keys of one mapping",
    "a: \x07": "cluster.yaml:1:4: the character U+0007 is not allowed in YAML; remove it",
    "a: *x": "cluster.yaml:1:4: *x refers to nothing; write &x before it, or quote the *",
    "a: &x [*x]": "cluster.yaml:1:8: *x is inside what it refers to; remove the circle",
    "a: !foo b": "cluster.yaml:1:4: the tag !foo means nothing here; remove it, or quote the text",
    "a: !!int b": 'cluster.yaml:1:4: "b" is no !!int; remove the tag',
    "a: !!binary aGk=": "cluster.yaml:1:4: the tag !!binary means nothing here; remove it, or quote the text",
    "? [a]\n: b": "cluster.yaml:1:3: a list or mapping cannot be a key; quote it, if text is meant",
    "a: 1\n---\nb: 2": "cluster.yaml:2:1: the file holds a second document; remove the --- line, or use two files",
    "[" * 40: "cluster.yaml:1:33: nested deeper than 32 levels; make it flatter",
}


@pytest.mark.parametrize(("text", "expected"), SYNTAX.items(), ids=range(len(SYNTAX)))
def test_broken_yaml_is_told_with_line_and_column(problems: Read, text: str, expected: str) -> None:
    assert [str(each) for each in problems(text)] == [expected]


def test_not_utf8(problems: Read) -> None:
    assert [str(each) for each in problems(b"a: b\nc: \xff\n")] == [
        "cluster.yaml:2:4: the file is not UTF-8: byte 0xff at offset 8; save it as UTF-8"
    ]


def test_a_byte_order_mark_is_no_mistake(problems: Read) -> None:
    assert "services" in str(problems(b"\xef\xbb\xbfcluster: x\n")[0])


def test_alias_bomb_is_refused_quickly(problems: Read) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    (found,) = problems("\n".join(lines))
    assert found.text == "more than 200000 values"


def test_depth_through_aliases_is_bounded(problems: Read) -> None:
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 100)]
    (found,) = problems("\n".join(lines))
    assert found.text == "nested deeper than 32 levels"


INTRODUCTION, *CASES = (Path(__file__).parent / "bad_inputs.txt").read_text().split("-----\n")


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_bad_input(problems: Read, case: str) -> None:
    Path("here.sh").write_text("#!/bin/sh\n")
    Path("lib").mkdir()
    Path("lib/main.py").touch()
    text, *expected = case.replace("{here}", os.getcwd()).split("\n! ")
    assert [str(each).removeprefix("cluster.yaml:") for each in problems(text)] == [each.rstrip() for each in expected]


def test_all_mistakes_are_told_at_once_in_reading_order(problems: Read) -> None:
    found = problems(
        """\
cluster: "a b"
max_paralel: 2
defaults:
  stop: {timeout: 5}
services:
  db:
    command: [no-such-program]
    restart: {policy: sometimes}
  web:
    comand: x
    depends_on: [dbb, api]
    env: {A: "${NOPE}"}
  api:
    python: shop.api
    depends_on: {web: {condition: completed}}
"""
    )
    assert [(each.line, each.key) for each in found] == [
        (1, "cluster"),
        (2, "max_paralel"),
        (4, "defaults.stop.timeout"),
        (7, "services.db.command[0]"),
        (8, "services.db.restart.policy"),
        (9, "services.web"),
        (10, "services.web.comand"),
        (11, "services.web.depends_on"),
        (11, "services.web.depends_on"),
        (12, "services.web.env.A"),
        (14, "services.api.python"),
        (15, "services.api.depends_on"),
    ]
    assert all(each.suggestion and each.text and each.file == "cluster.yaml" and each.column for each in found)


def test_cycles_are_told_with_their_whole_path(problems: Read) -> None:
    found = problems(
        """\
services:
  web: {command: [sleep, 5], depends_on: [store]}
  store: {command: [sleep, 5], depends_on: {db: {kind: after}}}
  db: {command: [sleep, 5], depends_on: [web]}
  x: {command: [sleep, 5], depends_on: [y, web]}
  y: {command: [sleep, 5], depends_on: [x]}
"""
    )
    assert [str(each) for each in found] == [
        (
            "cluster.yaml:2:43: services.web.depends_on: services depend on each other in a circle:"
            " web → store → db → web; remove one of these dependencies"
        ),
        (
            "cluster.yaml:5:41: services.x.depends_on: services depend on each other in a circle:"
            " x → y → x; remove one of these dependencies"
        ),
    ]


def test_each_edge_that_closes_a_cycle_is_told(problems: Read) -> None:
    found = problems(
        """\
services:
  web: {command: [sleep], depends_on: [store, db]}
  store: {command: [sleep], depends_on: [web]}
  db: {command: [sleep], depends_on: [web]}
"""
    )
    assert [each.text.rpartition(": ")[2] for each in found] == ["web → store → web", "web → db → web"]


def test_many_paths_are_walked_once(tmp_path: Path) -> None:
    lines = ["cluster: ladder", "services:", "  a0: {command: [sleep]}", "  b0: {command: [sleep]}"]
    for i in range(1, 60):
        edges = f"{{command: [sleep], depends_on: [a{i - 1}, b{i - 1}]}}"
        lines += [f"  a{i}: {edges}", f"  b{i}: {edges}"]
    file = tmp_path / "cluster.yaml"
    file.write_text("\n".join([*lines[:2], *reversed(lines[2:])]))
    assert len(load([file], ENVIRON).services) == 120


DEEP = {"unary": "x = " + "-" * 200_000 + "1", "brackets": "x = " + "[" * 500, "attributes": "x" + ".x" * 200_000}


@pytest.mark.parametrize("code", DEEP.values(), ids=DEEP)
def test_code_that_no_compiler_takes(problems: Read, code: str) -> None:
    (found,) = problems(service(f"code: {code}"))
    assert found.key == "services.web.code"


def test_code_that_begins_with_empty_lines(problems: Read) -> None:
    (found,) = problems(service("code: |\n\n    x = 1\n    def\n"))
    assert (found.line, found.text) == (6, "line 3 is not Python: invalid syntax")
    assert found.column == 12


def test_a_long_chain_is_no_cycle_and_no_recursion(tmp_path: Path) -> None:
    lines = ["services:", "  s0: {command: [sleep]}"]
    lines += [f"  s{i}: {{command: [sleep], depends_on: [s{i - 1}]}}" for i in range(1, 3000)]
    file = tmp_path / "cluster.yaml"
    file.write_text("cluster: chain\n" + "\n".join(lines))
    assert len(load([file], ENVIRON).services) == 3000


EDGES = {
    "{kind: wants, on_crash: ignore}": "on_crash goes with kind: requires, not with wants;"
    " remove on_crash, or change the kind",
    "{condition: completed}": "condition: completed needs a task, and db is a service; write type: task in db",
}


@pytest.mark.parametrize("edge", EDGES)
def test_edges_that_make_no_sense(problems: Read, edge: str) -> None:
    (found,) = problems(
        f"services:\n  web: {{command: [sleep], depends_on: {{db: {edge}}}}}\n  db: {{command: [sleep]}}\n"
    )
    assert str(found) == f"cluster.yaml:2:40: services.web.depends_on: {EDGES[edge]}"


def test_a_service_with_a_mistake_is_not_called_missing(problems: Read) -> None:
    found = problems("services:\n  web: {command: [sleep], depends_on: [db, c]}\n  db: {comand: x}\n  c:\n")
    assert {each.key for each in found} == {"services.db.comand", "services.db", "services.c"}


def test_env_files_are_told_with_their_own_lines(problems: Read) -> None:
    content = "A=1\n  what is this\nB=\"x\n\nexport C='y' z\nD=2 # fine\n"
    found = problems(service(f"env_file: x.env\n{OK}"), x__env=content)
    assert [str(each) for each in found] == [
        'x.env:2:3: "what is this" is not NAME=value; write NAME=value',
        'x.env:3:3: B: the quote is not closed; end the value with "',
        "x.env:5:10: C: something follows the closing quote; quote the whole value, or nothing of it",
    ]


# ---- files ---------------------------------------------------------------------------------------------------------


def load_problems(*files: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(files, ENVIRON)
    return [str(each) for each in caught.value.problems]


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.yaml").touch()
    Path("dir.yaml").mkdir()
    Path("big.yaml").write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    assert load_problems("nope.yaml", "dir.yaml", "empty.yaml", "big.yaml", "/dev/zero", "a\0b") == [
        "nope.yaml: cannot read nope.yaml: no such file or directory; check the path",
        "dir.yaml: cannot read dir.yaml: is a directory; name the file, not its directory",
        "empty.yaml:1:1: the file is empty; write at least one service below services:",
        "big.yaml: cannot read big.yaml: larger than 4096 KiB; split or shorten it",
        "/dev/zero: cannot read /dev/zero: it is a device; name a readable file",
        r"a\x00b: cannot read a\x00b: the path is not valid; name a readable file",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.touch(mode=0o000)
    assert load_problems(str(file)) == [f"{file}: cannot read {file}: permission denied; allow its reading"]


def test_a_directory_that_cannot_name_the_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my shop").mkdir()
    monkeypatch.chdir(tmp_path / "my shop")
    Path("cluster.yaml").write_text("services: {w: {command: [sleep]}}")
    assert load_problems("cluster.yaml") == [
        (
            'cluster.yaml:1:1: cluster: is missing, and the name of the directory ("my shop") cannot take its place;'
            " write cluster: NAME (letters, digits, - and _, beginning with a letter or digit, at most 64)"
        )
    ]


def test_terminal_escapes_do_not_reach_the_terminal(problems: Read) -> None:
    found = problems('services: {w: {"\\e[31m\\nx": 1, command: [sleep]}}')
    assert all(str(each).isprintable() for each in found)


def test_not_root_cannot_change_the_user(problems: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.setattr(os, "getegid", lambda: 54321)
    (found,) = problems(service(f"user: root\n{OK}"))
    assert str(found) == (
        "cluster.yaml:3:11: services.web.user: cannot run as root: svcd does not run as root;"
        " start svcd as root, or remove the key"
    )
